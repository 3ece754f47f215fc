"""Primitive layers as ONNX operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from torch import nn

from nasdsl.backends.export import ExportError, where
from nasdsl.backends.onnx.upsampling import write_attention, write_carafe, write_pixel_shuffle, write_up_conv
from nasdsl.backends.onnx.writer import Writer
from nasdsl.ir.graph import Node
from nasdsl.layers import (
    GROUP_NORMS,
    Activation,
    ActivationKind,
    Add,
    Attention,
    Carafe,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    Factor,
    GlobalPool,
    Input,
    Maximum,
    Multiply,
    Norm,
    PixelShuffle,
    PlacewiseAdd,
    Pool,
    Resize,
    Result,
    Scale,
    Split,
    Term,
    UpConv,
    WeightedAdd,
    is_sized,
)
from nasdsl.layers.custom import describe
from nasdsl.nn import DeformConv2d, GuidedDeformConv2d
from nasdsl.nn import Scale as ScaleModule
from nasdsl.nn import WeightedAdd as WeightedAddModule

OPSET = 20
"""The first opset with Gelu. GroupNorm is composed of other operators, not GroupNormalization (opset 21), because onnxruntime
runs them faster."""


def write_layer(
    writer: Writer, node: Node, x: Sequence[str], module: nn.Module | None, path: str, sizes: Mapping[int, str]
) -> str | tuple[str, ...]:
    """Write the layer of a node; returns the name of its output tensor, of one with several results their names.

    Args:
        x: names of the operands' tensors.
        module: module of the layer; None for a layer without parameters.
        path: path of the module in the state dict.
        sizes: names of the tensors [height, width] of the levels.

    Raises:
        ExportError: a `CustomLayer` without an ``onnx`` method.
    """
    layer = node.layer
    size = sizes[node.out.level] if is_sized(layer) and node.out.level is not None else ""
    match layer:
        case Conv():
            return write_conv(writer, module, path, x[0])
        case DeformConv():
            return _deform_conv(writer, node, layer.resolved(node.operands[0]), module, path, *x)
        case Norm():
            if layer.norm in GROUP_NORMS:
                return _group_norm(writer, module, path, x[0])
            write_norm = write_batch_norm if layer.norm == "bn" else _layer_norm
            return write_norm(writer, module, path, x[0])
        case Activation():
            return write_activation(writer, layer.function, x[0])
        case Scale():
            assert isinstance(module, ScaleModule)
            return writer.op("Mul", x[0], writer.weight(f"{path}.weight", module.weight, (-1, 1, 1)))
        case Add():
            return _fold(writer, "Add", x)
        case Multiply():
            return _fold(writer, "Mul", x)
        case PlacewiseAdd():
            *operands, by = x
            count = len(operands)
            parts = writer.ops("Split", writer.op("Softmax", by, axis=1), outputs=count, axis=1, num_outputs=count)
            return _fold(writer, "Add", [writer.op("Mul", v, part) for v, part in zip(operands, parts, strict=True)])
        case Factor():
            return writer.op("Mul", x[0], writer.number(layer.value))
        case Term():
            return writer.op("Add", x[0], writer.number(layer.value))
        case Maximum():
            return writer.op("Max", *x)
        case WeightedAdd():
            assert isinstance(module, WeightedAddModule)
            weights = module.weight.detach().float().relu()
            normalized = (weights / (weights.sum() + 1e-4)).tolist()
            weighted = [writer.op("Mul", v, writer.number(weight)) for v, weight in zip(x, normalized, strict=True)]
            return _fold(writer, "Add", weighted)
        case Concat():
            return writer.op("Concat", *_expand_pooled(writer, node, x), axis=1)
        case Split():
            return tuple(writer.ops("Split", x[0], outputs=layer.parts, axis=1, num_outputs=layer.parts))
        case Resize():
            return _resize(writer, node, layer, x[0], sizes[layer.level])
        case Pool():
            kind, counted = ("MaxPool", {}) if layer.pool == "max" else ("AveragePool", {"count_include_pad": 0})
            window = {"kernel_shape": [layer.k] * 2, "strides": [layer.stride] * 2, "pads": [layer.padding] * 4}
            return writer.op(kind, x[0], **window, **counted, ceil_mode=int(layer.cuts))
        case GlobalPool():
            return writer.op("GlobalMaxPool" if layer.pool == "max" else "GlobalAveragePool", x[0])
        case UpConv():
            return write_up_conv(writer, layer, module, path, x[0], size)
        case PixelShuffle():
            return write_pixel_shuffle(writer, layer, x[0], size)
        case Carafe():
            return write_carafe(writer, layer, module, path, x[0], size)
        case Attention():
            return write_attention(writer, layer, module, path, x[0])
        case CustomLayer():
            rule = getattr(layer, "onnx", None)
            if rule is None:
                raise ExportError(
                    f"{describe(type(layer))} does not say how it is written as ONNX: define onnx(self, writer, module, x); it "
                    f"stands in {where(node)}"
                )
            with writer.weights_of(path):
                written: str | tuple[str, ...] = rule(writer, module, x, size) if size else rule(writer, module, x)
            return written
        case Input() | Result():
            raise TypeError("it is not computed")


def write_conv(writer: Writer, module: nn.Module | None, path: str, x: str, *, exact: bool = False) -> str:
    """Write a convolution; with `exact`, one of float32 whose input is float32 too."""
    assert isinstance(module, nn.Conv2d)
    operands = [x, writer.weight(f"{path}.weight", module.weight, exact=exact)]
    if module.bias is not None:
        operands.append(writer.weight(f"{path}.bias", module.bias, exact=exact))
    assert not isinstance(module.padding, str)
    return writer.op(
        "Conv",
        *operands,
        kernel_shape=list(module.kernel_size),
        strides=list(module.stride),
        pads=[*module.padding, *module.padding],
        dilations=list(module.dilation),
        group=module.groups,
    )


def _deform_conv(
    writer: Writer, node: Node, layer: DeformConv, module: nn.Module | None, path: str, x: str, predicted: str = ""
) -> str:
    """Write a deformable convolution: its offsets and mask, and what samples and weighs the map.

    Everything behind the offsets is float32, also where maps are half precision: it would round positions to half a pixel.
    """
    assert isinstance(module, GuidedDeformConv2d)
    taps, groups = layer.k**2, layer.offset_groups
    if isinstance(module, DeformConv2d):
        predicted = write_conv(writer, module.offset, f"{path}.offset", x)
    offset, mask = writer.exact(predicted), ""
    if all(given.width != 2 * groups * taps for given in node.operands[1:]):
        parts = writer.integers(2 * groups * taps, groups * taps)
        offset, mask = writer.ops("Split", offset, parts, outputs=2, axis=1)
        mask = writer.op("Sigmoid", mask)
    if writer.native_deform:
        padding = layer.dilation * (layer.k - 1) // 2
        kernel = writer.exact(writer.weight(f"{path}.weight", module.weight))
        bias = "" if module.bias is None else writer.exact(writer.weight(f"{path}.bias", module.bias))
        out = writer.op(
            "DeformConv", writer.exact(x), kernel, offset, bias, mask, kernel_shape=[layer.k] * 2,
            strides=[layer.stride] * 2, pads=[padding] * 4, dilations=[layer.dilation] * 2, group=layer.groups,
            offset_group=groups,
        )  # fmt: skip
        return writer.rounded(out)
    return _sampled_conv(writer, layer, module, path, x, offset, mask)


def _sampled_conv(
    writer: Writer, layer: DeformConv, module: GuidedDeformConv2d, path: str, x: str, offset: str, mask: str
) -> str:
    """Write the second part of a deformable convolution as GridSample, which samples each tap, and a 1x1 convolution over all
    taps.

    More runtimes have GridSample than DeformConv (opset 19), which onnxruntime computes on a CPU since 2026 (pull request
    27393; version 1.32 does, 1.19 does not).

    In the comments M is batch size * offset groups, T the number of taps, and H' x W' the size of the output map.
    """
    taps, groups, channels = layer.k**2, layer.offset_groups, module.in_channels
    size = writer.op("Shape", offset, start=2)

    def spread(tensor: str, *leading: int) -> str:
        """Reshape to [*leading, H', W']."""
        return writer.op("Reshape", tensor, writer.op("Concat", writer.integers(*leading), size, axis=0))

    moved = writer.ops("Split", spread(offset, -1, taps, 2), outputs=2, axis=2, num_outputs=2)  # y, x: [M, T, 1, H', W']
    places = [_axis(writer, layer, x, size, offset_of, axis) for axis, offset_of in enumerate(moved)]
    grid = writer.op("Transpose", writer.op("Concat", places[1], places[0], axis=2), perm=[0, 1, 3, 4, 2])
    grid = writer.op("Reshape", grid, writer.integers(0, -1, 1, 2))  # [M, T * H' * W', 1, 2]

    height_width = writer.op("Shape", x, start=2)
    by_group = writer.op("Concat", writer.integers(-1, channels // groups), height_width, axis=0)
    maps = writer.op("Reshape", writer.exact(x), by_group)  # [M, C / groups, H, W]
    sampled = writer.op("GridSample", maps, grid, mode="linear", padding_mode="zeros", align_corners=0)
    weighed = spread(sampled, -1, channels // groups, taps)  # [M, C / groups, T, H', W']
    if mask:
        weighed = writer.op("Mul", weighed, spread(mask, -1, 1, taps))
    columns = writer.rounded(spread(weighed, -1, channels * taps))
    kernel = writer.weight(f"{path}.weight", module.weight, (layer.width, -1, 1, 1))
    bias = [] if module.bias is None else [writer.weight(f"{path}.bias", module.bias)]
    return writer.op("Conv", columns, kernel, *bias, kernel_shape=[1, 1], group=layer.groups)


def _axis(writer: Writer, layer: DeformConv, x: str, size: str, offset: str, axis: int) -> str:
    """Sampling positions of all taps along one axis, for GridSample: -1 to 1 over the map of `x`.

    Args:
        x: name of the input map.
        size: name of the tensor [H', W'].
        offset: name of the offsets along the axis, [M, T, 1, H', W'].
        axis: 0 for y, 1 for x.

    Returns:
        Name of the positions, [M, T, 1, H', W'].
    """
    zero, one = (writer.constant(np.array(v, np.int64)) for v in (0, 1))
    steps = writer.op("Range", zero, writer.op("Gather", size, writer.constant(np.array(axis, np.int64))), one)
    regular = writer.op("Cast", steps, to=onnx.TensorProto.FLOAT)
    if layer.stride > 1:
        regular = writer.op("Mul", regular, writer.number(layer.stride, exact=True))
    regular = writer.op("Reshape", regular, writer.integers(-1, 1) if axis == 0 else writer.integers(1, -1))
    tap = np.indices((layer.k, layer.k))[axis].ravel()
    start = (tap * layer.dilation - layer.dilation * (layer.k - 1) // 2).astype(np.float32)
    regular = writer.op("Add", regular, writer.constant(start.reshape(-1, 1, 1, 1)))
    # The terms are in the order of deform_conv2d, so that both round alike: (offset + place - (length - 1) / 2) * (2 / length).
    length = writer.op("Cast", writer.op("Shape", x, start=2 + axis, end=3 + axis), to=onnx.TensorProto.FLOAT)
    one_less = writer.op("Sub", length, writer.number(1, exact=True))
    centred = writer.op("Sub", writer.op("Add", offset, regular), writer.op("Mul", one_less, writer.number(0.5, exact=True)))
    return writer.op("Mul", centred, writer.op("Div", writer.number(2, exact=True), length))


def write_batch_norm(writer: Writer, module: nn.Module | None, path: str, x: str) -> str:
    assert isinstance(module, nn.BatchNorm2d)
    assert module.running_mean is not None
    assert module.running_var is not None
    values = (module.weight, module.bias, module.running_mean, module.running_var)
    names = ("weight", "bias", "running_mean", "running_var")
    weights = [writer.weight(f"{path}.{name}", value) for name, value in zip(names, values, strict=True)]
    return writer.op("BatchNormalization", x, *weights, epsilon=module.eps)


def _group_norm(writer: Writer, module: nn.Module | None, path: str, x: str) -> str:
    assert isinstance(module, nn.GroupNorm)
    ones, zeros = (writer.constant(np.full(module.num_groups, v, np.float32)) for v in (1, 0))
    grouped = writer.op("Reshape", writer.exact(x), writer.integers(0, module.num_groups, -1))
    normalized = writer.rounded(writer.op("InstanceNormalization", grouped, ones, zeros, epsilon=module.eps))
    normalized = writer.op("Reshape", normalized, writer.op("Shape", x))
    scaled = writer.op("Mul", normalized, writer.weight(f"{path}.weight", module.weight, (-1, 1, 1)))
    return writer.op("Add", scaled, writer.weight(f"{path}.bias", module.bias, (-1, 1, 1)))


def _layer_norm(writer: Writer, module: nn.Module | None, path: str, x: str) -> str:
    """Write a LayerNorm over the channels, which LayerNormalization has last. Its statistics are float32 in any case."""
    assert isinstance(module, nn.LayerNorm)
    weights = [writer.weight(f"{path}.{name}", getattr(module, name)) for name in ("weight", "bias")]
    last = writer.op("Transpose", x, perm=[0, 2, 3, 1])
    return writer.op("Transpose", writer.op("LayerNormalization", last, *weights, epsilon=module.eps), perm=[0, 3, 1, 2])


def write_activation(writer: Writer, function: ActivationKind, x: str) -> str:
    match function:
        case "relu":
            return writer.op("Relu", x)
        case "relu6":
            return writer.op("Clip", x, writer.number(0), writer.number(6))
        case "leaky_relu":
            return writer.op("LeakyRelu", x, alpha=0.01)
        case "silu":
            return writer.op("Mul", x, writer.op("Sigmoid", x))
        case "hardswish":
            return writer.op("HardSwish", x)
        case "gelu":
            return writer.op("Gelu", x)
        case "sigmoid":
            return writer.op("Sigmoid", x)
        case "hardsigmoid":
            return writer.op("HardSigmoid", x, alpha=1 / 6, beta=0.5)
        case "tanh":
            return writer.op("Tanh", x)


def _fold(writer: Writer, kind: str, x: Sequence[str]) -> str:
    total = x[0]
    for operand in x[1:]:
        total = writer.op(kind, total, operand)
    return total


def _expand_pooled(writer: Writer, node: Node, x: Sequence[str]) -> list[str]:
    """Expand globally pooled values, [N, C, 1, 1], to the size of the other operands: Concat does not broadcast."""
    maps = [tensor for tensor, feature in zip(x, node.operands, strict=True) if feature.level is not None]
    if not maps or len(maps) == len(x):
        return list(x)
    shape = writer.op("Concat", writer.integers(1, 1), writer.op("Shape", maps[0], start=2), axis=0)
    return [
        tensor if feature.level is not None else writer.op("Expand", tensor, shape)
        for tensor, feature in zip(x, node.operands, strict=True)
    ]


def _resize(writer: Writer, node: Node, layer: Resize, x: str, size: str) -> str:
    if layer.mode == "nearest" and node.operands[0].level is not None and abs(node.operands[0].level - layer.level) > 1:
        return _nearest(writer, x, size)
    output_shape = writer.op("Concat", writer.op("Shape", x, start=0, end=2), size, axis=0)
    if layer.mode == "nearest":
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    else:
        corners = "align_corners" if layer.mode == "aligned" else "half_pixel"
        attributes = {"mode": "linear", "coordinate_transformation_mode": corners}
    return writer.op("Resize", x, "", "", output_shape, **attributes)


def _nearest(writer: Writer, x: str, size: str) -> str:
    """Nearest interpolation that rounds as torch does: pixel floor(i * (in / out)), in float32.

    Runtimes compute Resize as floor(i / (out / in)), which is the same for a factor of 2. For larger factors torch's product
    is sometimes just below a whole number (50 to 198 pixels), and Resize would take the neighbouring pixel.
    """
    zero, one = (writer.constant(np.array(v, np.int64)) for v in (0, 1))
    for axis in (2, 3):
        before = writer.op("Shape", x, start=axis, end=axis + 1)
        after = writer.op("Gather", size, writer.constant(np.array(axis - 2, np.int64)))
        ratio = writer.op("Div", *(writer.op("Cast", n, to=onnx.TensorProto.FLOAT) for n in (before, after)))
        steps = writer.op("Cast", writer.op("Range", zero, after, one), to=onnx.TensorProto.FLOAT)
        pixel = writer.op("Cast", writer.op("Floor", writer.op("Mul", steps, ratio)), to=onnx.TensorProto.INT64)
        last = writer.op("Sub", before, writer.integers(1))
        x = writer.op("Gather", x, writer.op("Min", pixel, last), axis=axis)
    return x
