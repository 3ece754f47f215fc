"""Export a module as an ONNX file. Names follow the text, every node names its line, and sizes are dynamic.

It is written node by node with the package ``onnx``, not with torch's exporter: so the file does not depend on the version of
torch, equal weights give equal bytes, and no example size is built in.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nasdsl.backends.export import MissingExtra, input_nodes, metadata
from nasdsl.backends.module import DecoderModule
from nasdsl.ir.graph import Graph, HeadLayer
from nasdsl.layers import Input, Resize
from nasdsl.semantics.architecture import Fcos

try:
    import onnx

    from nasdsl.backends.onnx.layers import OPSET, write_conv, write_layer
    from nasdsl.backends.onnx.writer import Writer
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "onnx":
        raise
    raise MissingExtra("writing ONNX needs the package onnx: pip install 'nasdsl[onnx]'") from None

if TYPE_CHECKING:
    from torch import nn


def export_onnx(module: DecoderModule, path: str | Path) -> None:
    """Export a decoder in eval mode and write it as an ONNX file (opset 20, float32).

    Inputs are ``c3`` [batch, channels, height_8, width_8] and so on, outputs ``p3.cls_logits`` [batch, classes, height_8,
    width_8] and so on, as in `nasdsl.backends.module.Prediction`. Weights have the names of the module's ``state_dict()``;
    those of half or double precision become float32. `module` is not changed.

    Args:
        module: a decoder with its weights.
        path: file to write, in an existing folder.

    Raises:
        ExportError: a `CustomLayer` defines no ``onnx`` method. (A missing package ``onnx`` raises `MissingExtra` when
            this module is imported.)
        OSError: the file cannot be written.
    """
    model = onnx_model(module)
    Path(path).write_bytes(model.SerializeToString(deterministic=True))


def onnx_model(module: DecoderModule) -> onnx.ModelProto:
    """Export a decoder in eval mode as an ONNX model in memory.

    Raises:
        ExportError: see `export_onnx`.
    """
    graph = module.graph
    writer = Writer()
    pyramid = _fpn(writer, module)
    outputs = _head(writer, module, pyramid)
    inputs = [_value(name, node.out.width, node.out.level) for name, node in input_nodes(graph).items()]
    onnx_graph = onnx.helper.make_graph(writer.nodes, graph.name, inputs, outputs, writer.weights())
    model = onnx.helper.make_model(
        onnx_graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="nasdsl"
    )
    onnx.helper.set_model_props(model, metadata(graph, module.classes))
    onnx.checker.check_model(model)
    return model


_IR_VERSION = 9
"""The oldest IR version that has opset 20: a newer one would needlessly exclude runtimes."""


def _fpn(writer: Writer, module: DecoderModule) -> dict[str, str]:
    """Write the fpn; returns the name of the tensor of each output."""
    graph = module.graph
    tensors = {node.id: name for name, node in input_nodes(graph).items()}
    sizes = _sizes(writer, graph)
    for node in graph.nodes:
        if not isinstance(node.layer, Input):
            operands = [tensors[i] for i in node.inputs]
            with writer.at(f"fpn.{node.id}", node):
                own = _module(module, f"fpn.{node.id}")
                tensors[node.id] = writer.result(write_layer(writer, node, operands, own, f"fpn.{node.id}", sizes))
    return {name: tensors[node_id] for name, node_id in graph.outputs.items()}


def _head(writer: Writer, module: DecoderModule, pyramid: Mapping[str, str]) -> list[onnx.ValueInfoProto]:
    """Write the head once for each level; returns the model's outputs."""
    graph = module.graph
    outputs = []
    for level, feature in pyramid.items():
        towers = {}
        for tower in graph.head.towers:
            x = feature
            for layer in tower.layers:
                x = _head_layer(writer, module, tower.name, layer, level, x)
            towers[tower.name] = x
        for prediction in graph.head.predictions:
            name = f"{level}.{prediction.name}"
            conv = module.head.get_submodule(prediction.name)
            with writer.at(name):
                x = write_conv(writer, conv, f"head.{prediction.name}", towers[prediction.tower])
                if isinstance(graph.predict, Fcos) and prediction.name == "bbox_reg":
                    scale = writer.weight(f"head.scale.{level}", module.head.scale[level])
                    x = writer.op("Mul", x, scale)
                    if graph.predict.boxes == "relu":
                        x = writer.op("Mul", writer.op("Relu", x), writer.number(2 ** graph.levels[level]))
                    else:
                        x = writer.op("Exp", x)
                writer.result(x)
            outputs.append(_value(name, prediction.channels(module.classes), graph.levels[level]))
    return outputs


def _head_layer(writer: Writer, module: DecoderModule, tower: str, layer: HeadLayer, level: str, x: str) -> str:
    owner = f"head.{tower}.{layer.index}" if layer.shared else f"head.{tower}.{layer.index}.{level}"
    tensors = {layer.nodes[0].id: x}
    for node in layer.nodes[1:]:
        operands = [tensors[i] for i in node.inputs]
        with writer.at(f"head.{level}.{tower}.{layer.index}.{node.id}", node):
            own = _module(module, f"{owner}.{node.id}")
            tensors[node.id] = writer.result(write_layer(writer, node, operands, own, f"{owner}.{node.id}", {}))
    return tensors[layer.result]


def _module(module: DecoderModule, path: str) -> nn.Module | None:
    """Module at a path; None for a layer without a module."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None


def _sizes(writer: Writer, graph: Graph) -> dict[int, str]:
    """Tensors [height, width] of the levels that something is resized to, computed as in `Fpn.sizes`."""
    known = {node.out.level: name for name, node in input_nodes(graph).items() if node.out.level is not None}
    sizes = {}
    for level in sorted({n.layer.level for n in graph.nodes if isinstance(n.layer, Resize)}):
        with writer.at(f"size.{2**level}"):
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


def _value(name: str, channels: int, level: int | None) -> onnx.ValueInfoProto:
    """Input or output of the model. Maps of one level have the same names for height and width, so runtimes know they are
    equal."""
    assert level is not None, f"{name} is no map"
    shape: list[str | int | None] = ["batch", channels, f"height_{2**level}", f"width_{2**level}"]
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


__all__ = ["OPSET", "export_onnx", "onnx_model"]
