"""What the formats for other programs have in common: errors, names of inputs and outputs, facts that travel along.

An exported decoder takes ``c3``, ``c4``, … and gives ``p3.cls_logits``, ``p3.bbox_reg``, ``p3.centerness``, … finest level
first. Batch, height and width are open; the map of level k of an H x W image is ceil(H / 2**k) x ceil(W / 2**k).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from nasdsl.ir.canonical import digest
from nasdsl.ir.graph import Graph, Node
from nasdsl.layers import Input


class ExportError(ValueError):
    """A decoder that a format cannot hold; the message says which part of the text, and what to do."""


class MissingExtra(ExportError, ImportError):
    """A package that only this format needs is not installed; the message names the extra that brings it."""


def all_nodes(graph: Graph) -> Iterator[Node]:
    """The nodes of the pyramid, then those of the head, each written once."""
    yield from graph.nodes
    for tower in graph.head.towers:
        for layer in tower.layers:
            yield from layer.nodes


def input_nodes(graph: Graph) -> dict[str, Node]:
    """The backbone features that are read, by name, in the order of the text."""
    return {node.layer.name: node for node in graph.inputs() if isinstance(node.layer, Input)}


def where(node: Node) -> str:
    """The place of a node in the text, for people: ``line 6: x1 = cat(dconv_3x3(c5), dconv_3x3(c5))``."""
    text = " ".join(node.span.text.split())
    return f"line {node.span.line}: {text if len(text) <= 90 else text[:89] + '…'}"


def facts(graph: Graph, classes: int) -> dict[str, str]:
    """What a reader of the file may want to know: decoder, digest, classes, and the stride of each pyramid level."""
    strides = {name: 2**level for name, level in graph.levels.items()}
    return {
        "decoder": graph.name,
        "digest": digest(graph),
        "classes": str(classes),
        "predict": type(graph.predict).__name__.lower(),
        "strides": json.dumps(strides),
    }


__all__ = ["ExportError", "MissingExtra", "all_nodes", "facts", "input_nodes", "where"]
