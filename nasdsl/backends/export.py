"""What the exporters (ONNX, torch.export) share: errors, names of inputs and outputs, metadata.

An exported decoder takes ``c3``, ``c4``, … and returns ``p3.cls_logits``, ``p3.bbox_reg``, ``p3.centerness``, …, finest level
first. Batch size, height and width are dynamic; the map of level k of an H x W image is ceil(H / 2**k) x ceil(W / 2**k).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from nasdsl.ir.canonical import digest
from nasdsl.ir.graph import Graph, Node
from nasdsl.layers import Input, Resize, is_sized


class ExportError(ValueError):
    """A decoder that cannot be exported to a format; the message names the part of the text and what to do."""


class MissingExtra(ExportError, ImportError):
    """A package that only one exporter needs is not installed; the message names the extra that installs it."""


def all_nodes(graph: Graph) -> Iterator[Node]:
    """All nodes of a graph: those of the fpn, then those of the head (each once, not once a level)."""
    yield from graph.nodes
    for tower in graph.head.chains:
        for layer in tower.layers:
            yield from layer.nodes
    for prediction in graph.head.predictions:
        yield from prediction.nodes


def sized_levels(nodes: Sequence[Node]) -> list[int]:
    """The levels whose height and width layers are given: resizes, and others that take a size."""
    levels = {n.layer.level for n in nodes if isinstance(n.layer, Resize)}
    levels |= {n.out.level for n in nodes if is_sized(n.layer) and n.out.level is not None}
    return sorted(levels)


def input_nodes(graph: Graph) -> dict[str, Node]:
    """Nodes of the backbone features that the graph reads, by name, in the order of the text."""
    return {node.layer.name: node for node in graph.inputs() if isinstance(node.layer, Input)}


def where(node: Node) -> str:
    """Line and text of a node, for messages: ``line 6: x1 = cat(dconv_3x3(c5), dconv_3x3(c5))``."""
    text = " ".join(node.span.text.split())
    return f"line {node.span.line}: {text if len(text) <= 90 else text[:89] + '…'}"


def metadata(graph: Graph, classes: int) -> dict[str, str]:
    """Metadata of an exported file: decoder, digest, number of classes, kind of predictions, stride of each level (JSON)."""
    strides = {name: 2**level for name, level in graph.levels.items()}
    return {
        "decoder": graph.name,
        "digest": digest(graph),
        "classes": str(classes),
        "predict": graph.predict.kind,
        "strides": json.dumps(strides),
    }


__all__ = ["ExportError", "MissingExtra", "all_nodes", "input_nodes", "metadata", "sized_levels", "where"]
