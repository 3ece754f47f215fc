"""The fpn and the head of a decoder as ONNX nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import nn

from nasdsl.backends.export import sized_levels
from nasdsl.backends.module import DecoderModule
from nasdsl.backends.onnx.layers import write_conv, write_layer
from nasdsl.backends.onnx.writer import Writer
from nasdsl.ir.graph import Graph, HeadLayer, Node
from nasdsl.ir.graph import Prediction as PredictionLayer
from nasdsl.layers import Conv, Input, Result

Tensors: TypeAlias = str | tuple[str, ...]
"""The name of a tensor, or the names of the results of a layer that gives several."""


def write_decoder(
    writer: Writer, module: DecoderModule, features: Mapping[str, str], section: str = ""
) -> dict[str, dict[str, str]]:
    """Write a decoder, with the layers that `nasdsl.backends.inference.for_inference` left.

    Args:
        features: names of the tensors of the backbone's features.
        section: prefix of the names of the predictions.

    Returns:
        The names of the float32 tensors of each level: ``{"p3": {"cls_logits": "p3.cls_logits", …}, …}``, with the values of
        `nasdsl.backends.module.Prediction`.
    """
    return _head(writer, module, write_fpn(writer, module, features), section)


def write_fpn(writer: Writer, module: DecoderModule, features: Mapping[str, str]) -> dict[str, str]:
    """Write the fpn of a decoder; returns the name of the tensor of each output."""
    graph = module.graph
    sizes = _sizes(writer, graph, features)
    tensors: dict[str, Tensors] = {n.id: features[n.layer.name] for n in graph.nodes if isinstance(n.layer, Input)}
    for node in graph.nodes:
        if not isinstance(node.layer, Input):
            tensors[node.id] = _node(writer, module, node, f"fpn/{node.id}", f"fpn.{node.weights}", tensors, sizes)
    return {name: _single(tensors[node_id]) for name, node_id in graph.outputs.items()}


def _head(writer: Writer, module: DecoderModule, pyramid: Mapping[str, str], section: str) -> dict[str, dict[str, str]]:
    """Write the head once for each level; returns the names of its predictions."""
    graph = module.graph
    written: dict[str, dict[str, str]] = {}
    for level, feature in pyramid.items():
        towers: dict[str, str] = {}
        for tower in graph.head.chains:
            x = feature if graph.head.trunk is None else towers.get(graph.head.trunk.name, feature)
            for layer in tower.layers:
                x = _head_layer(writer, module, tower.name, layer, level, x)
            towers[tower.name] = x
        written[level] = {
            prediction.name: _prediction(writer, module, prediction, level, towers[prediction.tower], section)
            for prediction in graph.head.predictions
        }
    return written


def _head_layer(writer: Writer, module: DecoderModule, tower: str, layer: HeadLayer, level: str, x: str) -> str:
    entry, *nodes = layer.nodes_at(level)
    tensors: dict[str, Tensors] = {entry.id: x}
    sizes = _head_sizes(writer, nodes, f"head/{level}.{tower}.{layer.index}", x)
    for node in nodes:
        name = f"head/{level}.{tower}.{layer.index}.{node.id}"
        tensors[node.id] = _node(writer, module, node, name, f"head.{tower}.{layer.path(node, level)}", tensors, sizes)
    return _single(tensors[layer.result])


def _head_sizes(writer: Writer, nodes: Sequence[Node], name: str, x: str) -> dict[int, str]:
    """Tensors [height, width] of the levels, relative to `x`, that something in a layer of the head is resized to."""
    sizes = {}
    for level in sized_levels(nodes):
        with writer.at(f"{name}.size.{2**level}"):
            size = writer.op("Shape", x, start=2)
            if level:
                size = writer.op("Div", writer.op("Add", size, writer.integers(2**level - 1)), writer.integers(2**level))
            sizes[level] = writer.result(size)
    return sizes


def _single(tensor: Tensors) -> str:
    assert isinstance(tensor, str)
    return tensor


def _prediction(writer: Writer, module: DecoderModule, prediction: PredictionLayer, level: str, x: str, section: str) -> str:
    """Write a prediction. Boxes are computed in float32: half precision would round large distances by pixels."""
    graph, is_box = module.graph, prediction.name == "bbox_reg"
    *before, last = prediction.layer(module.classes).nodes_at(level)
    if not prediction.is_plain:
        tensors: dict[str, Tensors] = {before[0].id: x}
        sizes = _head_sizes(writer, prediction.nodes, f"head/{level}.{prediction.name}", x)
        for node in before[1:]:
            name = f"head/{level}.{prediction.name}.{node.id}"
            tensors[node.id] = _node(writer, module, node, name, f"head.{prediction.path(node, level)}", tensors, sizes)
        x = _single(tensors[last.inputs[0]])
    path = f"head.{prediction.path(last, level)}"
    with writer.at(f"{section}{level}.{prediction.name}"):
        conv = module.get_submodule(path)
        if is_box and isinstance(last.layer, Conv):
            x = write_conv(writer, conv, path, writer.exact(x), exact=True)
        else:
            written = write_layer(writer, last, [x], conv, path, {})
            assert isinstance(written, str)
            x = writer.exact(written)
        if prediction.form != "raw":
            x = writer.op("Mul", x, writer.weight(f"head.scale.{level}", module.head.scale[level], exact=True))
        if prediction.form == "relu":
            x = writer.op("Mul", writer.op("Relu", x), writer.number(2 ** graph.levels[level], exact=True))
        elif prediction.form == "exp":
            x = writer.op("Exp", x)
        return writer.result(x)


def _node(
    writer: Writer,
    module: DecoderModule,
    node: Node,
    name: str,
    path: str,
    tensors: Mapping[str, Tensors],
    sizes: Mapping[int, str],
) -> Tensors:
    """Write a node of the graph; returns the name of its tensor, or of each of its results.

    Args:
        name: of the ONNX node.
        path: of its module in the state dict.
        tensors: names of the operands by node id.
    """
    if isinstance(node.layer, Result):
        return tensors[node.inputs[0]][node.layer.index]
    operands = [_single(tensors[i]) for i in node.inputs]
    own = _module(module, path)
    if isinstance(own, nn.Identity):  # a norm that was folded into the convolution in front of it
        return operands[0]
    with writer.at(name, node):
        written = write_layer(writer, node, operands, own, path, sizes)
        return writer.result(written) if isinstance(written, str) else written


def _module(module: DecoderModule, path: str) -> nn.Module | None:
    """Module at a path; None for a layer without a module."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _sizes(writer: Writer, graph: Graph, features: Mapping[str, str]) -> dict[int, str]:
    """Tensors [height, width] of the levels that something is resized to, computed as in `Fpn.sizes`."""
    known = {
        node.out.level: features[node.layer.name]
        for node in graph.inputs()
        if isinstance(node.layer, Input) and node.out.level is not None
    }
    sizes = {}
    for level in sized_levels(graph.nodes):
        with writer.at(f"fpn/size.{2**level}"):
            finer = [k for k in known if k <= level]
            nearest = max(finer) if finer else min(known)
            size = writer.op("Shape", known[nearest], start=2)
            if nearest < level:
                factor = 2 ** (level - nearest)
                size = writer.op("Div", writer.op("Add", size, writer.integers(factor - 1)), writer.integers(factor))
            elif nearest > level:
                size = writer.op("Mul", size, writer.integers(2 ** (nearest - level)))
            sizes[level] = writer.result(size)
    return sizes
