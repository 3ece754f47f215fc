"""Backbones as ONNX nodes: module by module where the network consists of common layers, else with torch's exporter."""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import onnx
import torch
from onnx import inliner
from torch import Tensor, fx, nn
from torchvision.ops import FrozenBatchNorm2d

from nasdsl.backends.export import ExportError, MissingExtra
from nasdsl.backends.layer_errors import first_line
from nasdsl.backends.onnx.layers import OPSET, write_activation, write_batch_norm, write_conv
from nasdsl.backends.onnx.writer import Writer
from nasdsl.backends.torch_export import require_torch
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.detection.detector import Size
from nasdsl.export.sizes import example_size
from nasdsl.nn.folding import folded

_ACTIVATIONS: dict[type[nn.Module], Any] = {
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.SiLU: "silu",
    nn.Hardswish: "hardswish",
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Tanh: "tanh",
}
_FUNCTIONS: dict[Any, str] = {
    operator.add: "Add", operator.iadd: "Add", torch.add: "Add", operator.mul: "Mul", operator.imul: "Mul", torch.mul: "Mul",
}  # fmt: skip


def write_backbone(writer: Writer, backbone: FeatureExtractor, images: str, size: Size | None, half: bool) -> dict[str, str]:
    """Write a backbone; returns the names of the tensors of its features.

    Networks of convolutions, BatchNorms, common activations, pooling, sums and products are written node by node, named after
    their modules. Other ones are exported by torch, which needs the package onnxscript.

    Args:
        images: name of the tensor of normalised images [N, 3, H, W].
        size: (height, width) of all images; None: any.
        half: the maps are float16.

    Raises:
        MissingExtra: onnxscript is needed and not installed.
        ExportError: torch cannot export the network.
    """
    graph = _traced(backbone.body)
    writer.owner = "backbone.body."
    if graph is not None and isinstance(graph.output, Mapping | list | tuple):
        features = _write(writer, backbone, graph, images)
        if features is not None:
            return features
    return _exported_by_torch(writer, backbone, images, size, half)


# ---------------------------------------------------------------------------------------------------- module by module


class _Traced(NamedTuple):
    """The operations of a network, and what it returns."""

    nodes: list[fx.Node]
    output: Any


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, FrozenBatchNorm2d) or super().is_leaf_module(m, module_qualified_name)


def _traced(body: nn.Module) -> _Traced | None:
    """The operations of a network in evaluation mode; None where tracing fails, as it does if they depend on values."""
    try:
        graph = _Tracer().trace(body)
    except Exception:  # a network can do anything; torch's exporter, the other way, has a message
        return None
    if any(_changes_a_shared_map(body, node) for node in graph.nodes):
        return None
    read: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op == "output" or node in read:
            read.update(node.all_input_nodes)
    output = next(node for node in graph.nodes if node.op == "output").args[0]
    return _Traced([node for node in graph.nodes if node in read], output)


def _changes_a_shared_map(body: nn.Module, node: fx.Node) -> bool:
    """Whether an operation works in place on a map that others read, which then see its result."""
    in_place = node.op == "call_function" and node.target in (operator.iadd, operator.imul)
    if node.op == "call_module":
        in_place = bool(getattr(body.get_submodule(str(node.target)), "inplace", False))
    return in_place and isinstance(node.args[0], fx.Node) and len(node.args[0].users) > 1


def _write(writer: Writer, backbone: FeatureExtractor, graph: _Traced, images: str) -> dict[str, str] | None:
    """Write a traced network; None, and nothing is written, where it has an operation without a rule."""
    rules: list[tuple[fx.Node, Callable[[dict[fx.Node, str]], str]]] = []
    tensors: dict[fx.Node, str] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            if tensors:
                return None
            tensors[node] = images
            continue
        rule = _rule(writer, backbone.body, node)
        if rule is None:
            return None
        rules.append((node, rule))
    outputs = graph.output
    wanted = dict(outputs) if isinstance(outputs, Mapping) else dict(zip(backbone.features, outputs, strict=True))
    if not all(isinstance(wanted.get(name), fx.Node) for name in backbone.features):
        return None
    for node, rule in rules:
        tensors[node] = rule(tensors)
    features = {name: tensors[wanted[name]] for name in backbone.features}
    for name, tensor in features.items():
        producer = next((node for node in writer.nodes if tensor in node.output), None)
        if producer is not None:
            producer.doc_string = f"feature {name}"
    return features


def _rule(writer: Writer, root: nn.Module, node: fx.Node) -> Callable[[dict[fx.Node, str]], str] | None:
    """What writes an operation, given the names of the tensors so far; None where there is no rule for it."""
    if node.op == "call_module":
        module, path = root.get_submodule(str(node.target)), str(node.target)
        (x,) = node.args if len(node.args) == 1 and not node.kwargs else (None,)
        if not isinstance(x, fx.Node) or not _is_supported(module):
            return None
        if isinstance(module, nn.Identity | nn.Dropout):
            return lambda tensors: tensors[x]
        return lambda tensors: _module(writer, module, path, tensors[x])
    if node.op != "call_function":
        return None
    operands: Any
    attributes: dict[str, int] = {}
    if node.target in _FUNCTIONS and len(node.args) == 2 and not node.kwargs:
        kind, operands = _FUNCTIONS[node.target], node.args
    elif node.target is torch.cat:
        given = dict(zip(("tensors", "dim"), node.args, strict=False)) | node.kwargs
        kind, operands, attributes = "Concat", given.get("tensors"), {"axis": 1}
        if given.get("dim") != 1 or not isinstance(operands, list | tuple):
            return None
    else:
        return None
    if not all(isinstance(x, fx.Node) for x in operands):
        return None
    section = _containing_module(node)
    return lambda tensors: _function(writer, section, node, kind, [tensors[x] for x in operands], **attributes)


def _is_supported(module: nn.Module) -> bool:
    """Whether `_module` computes the same as this module in evaluation mode."""
    if type(module) is nn.Conv2d:
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    if type(module) is nn.BatchNorm2d:
        return module.running_mean is not None and module.affine
    if type(module) is nn.MaxPool2d:
        return not module.return_indices and not module.ceil_mode
    if type(module) is nn.AdaptiveAvgPool2d:
        return module.output_size in (1, (1, 1))
    return type(module) in (*_ACTIVATIONS, nn.Identity, nn.Dropout, FrozenBatchNorm2d)


def _module(writer: Writer, module: nn.Module, path: str, x: str) -> str:
    with writer.at(f"backbone/{path}"):
        return writer.result(_layer(writer, module, path, x))


def _layer(writer: Writer, module: nn.Module, path: str, x: str) -> str:
    match module:
        case nn.Conv2d():
            return write_conv(writer, module, path, x)
        case nn.BatchNorm2d():
            return write_batch_norm(writer, module, path, x)
        case FrozenBatchNorm2d():  # as a 1x1 convolution for each channel
            identity = nn.Conv2d(len(module.weight), len(module.weight), 1, groups=len(module.weight), bias=False)
            nn.init.ones_(identity.weight)
            conv = folded(identity, module)
            return write_conv(writer, conv, path, x)
        case nn.MaxPool2d():
            sizes = {
                name: [value] * 2 if isinstance(value, int) else list(value)
                for name, value in (
                    ("kernel_shape", module.kernel_size), ("strides", module.stride), ("dilations", module.dilation),
                )
            }  # fmt: skip
            padding = module.padding
            pads = [padding] * 4 if isinstance(padding, int) else [*padding, *padding]
            return writer.op("MaxPool", x, **sizes, pads=pads)
        case nn.AdaptiveAvgPool2d():
            return writer.op("GlobalAveragePool", x)
    return write_activation(writer, _ACTIVATIONS[type(module)], x)


def _function(writer: Writer, section: str, node: fx.Node, kind: str, x: list[str], **attributes: Any) -> str:
    with writer.at(f"backbone/{section}{node.name.rstrip('_0123456789')}"):
        return writer.result(writer.op(kind, *x, **attributes))


def _containing_module(node: fx.Node) -> str:
    """Path of the module whose forward has this operation, with a dot; empty for the network itself."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(next(reversed(stack.values()))[0]) if stack else ""
    return f"{path}." if path else ""


# ---------------------------------------------------------------------------------------------------- torch's exporter


def _exported_by_torch(
    writer: Writer, backbone: FeatureExtractor, images: str, size: Size | None, half: bool
) -> dict[str, str]:
    """Export a network with ``torch.onnx`` and add its nodes, under the section ``backbone``."""
    try:
        import onnxscript  # noqa: F401  # torch.onnx needs it
    except ModuleNotFoundError:
        raise MissingExtra(
            f"the backbone ({type(backbone.body).__name__}) has operations that only torch's exporter can write, which needs "
            "the package onnxscript: pip install 'nasdsl[onnx]'"
        ) from None
    require_torch(f"exports of backbones like {type(backbone.body).__name__}", "Backbones of this package need no newer one")
    height, width = size or example_size(backbone)
    if half:
        backbone = copy.deepcopy(backbone).half()
    dynamic = torch.export.Dim.DYNAMIC
    dynamic_shapes = {0: dynamic} if size else {0: dynamic, 2: dynamic, 3: dynamic}
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # torch's own, about torch and onnxscript
            program = torch.onnx.export(
                _FeatureList(backbone),
                (backbone.pixel_mean.new_zeros(2, 3, height, width),),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=(dynamic_shapes,),
                input_names=["images"],
                output_names=list(backbone.features),
                verbose=False,
            )
        assert program is not None
        model = inliner.inline_local_functions(program.model_proto)
    except Exception as error:  # torch's exporter raises errors of many types
        fixed = "" if size else " for any size of images; with a size (--size HxW) it may be possible"
        raise ExportError(
            f"torch cannot export the backbone ({type(backbone.body).__name__}){fixed}: {first_line(error)}"
        ) from error
    other = [o.domain for o in model.opset_import if o.domain not in ("", "pkg.onnxscript.torch_lib.common")]
    version = next(o.version for o in model.opset_import if not o.domain)
    if other or version != OPSET:
        raise ExportError(
            f"torch exports the backbone ({type(backbone.body).__name__}) with operators of "
            f"{', '.join(other) or f'opset {version}'}; expected ONNX's own of opset {OPSET}"
        )
    model = onnx.compose.add_prefix(model, "backbone/")
    for node in model.graph.node:  # traces of the stack, with the paths of this machine
        del node.metadata_props[:]
        node.doc_string = ""
    start = onnx.helper.make_node("Identity", [images], [model.graph.input[0].name], name="backbone/input")
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    writer.add([start, *model.graph.node], weights)
    return {name: output.name for name, output in zip(backbone.features, model.graph.output, strict=True)}


class _FeatureList(nn.Module):
    """A backbone that returns its features in their order."""

    def __init__(self, backbone: FeatureExtractor) -> None:
        super().__init__()
        self.body = backbone
        self.names = backbone.features

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = self.body(images)
        return tuple(features[name] for name in self.names)
