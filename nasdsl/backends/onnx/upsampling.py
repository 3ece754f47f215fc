"""Layers that lead to finer maps, and attention, as ONNX operators."""

from __future__ import annotations

import math

import numpy as np
import onnx
from torch import nn

from nasdsl.backends.onnx.writer import Writer
from nasdsl.layers import Attention, Carafe, PixelShuffle, UpConv
from nasdsl.nn import Carafe as CarafeModule
from nasdsl.nn import SelfAttention2d, UpConv2d


def write_up_conv(writer: Writer, layer: UpConv, module: nn.Module | None, path: str, x: str, size: str) -> str:
    assert isinstance(module, UpConv2d)
    weights = [writer.weight(f"{path}.weight", module.weight)]
    if module.bias is not None:
        weights.append(writer.weight(f"{path}.bias", module.bias))
    out = writer.op(
        "ConvTranspose", x, *weights, kernel_shape=[layer.k] * 2, strides=[layer.stride] * 2, pads=[layer.padding] * 4,
        output_padding=[layer.output_padding] * 2, group=module.groups,
    )  # fmt: skip
    return _cut(writer, out, size)


def write_pixel_shuffle(writer: Writer, layer: PixelShuffle, x: str, size: str) -> str:
    return _cut(writer, writer.op("DepthToSpace", x, blocksize=layer.factor, mode="CRD"), size)


def _cut(writer: Writer, x: str, size: str) -> str:
    """The part of a map that a level has; `size` is the name of the tensor [height, width]."""
    return writer.op("Slice", x, writer.integers(0, 0), size, writer.integers(2, 3))


def write_carafe(writer: Writer, layer: Carafe, module: nn.Module | None, path: str, x: str, size: str) -> str:
    """Write CARAFE as a product of matrices for each old pixel: its k x k neighbours, and the weights of its new pixels."""
    assert isinstance(module, CarafeModule)
    channels, taps, inner = module.compress.in_channels, layer.k**2, layer.factor**2
    weights = _conv(writer, module.encode, f"{path}.encode", _conv(writer, module.compress, f"{path}.compress", x))
    weights = writer.op("Softmax", writer.op("Reshape", weights, writer.integers(0, taps, inner, -1)), axis=1)
    around = _neighbours(writer, x, layer.k, channels)
    new = writer.op("MatMul", around, writer.op("Transpose", weights, perm=[0, 3, 1, 2]))  # [N, H * W, C, factor^2]
    batch, shape = writer.op("Shape", x, start=0, end=1), writer.op("Shape", x, start=2)
    shape = writer.op("Concat", batch, writer.integers(channels * inner), shape, axis=0)
    new = writer.op("Reshape", writer.op("Transpose", new, perm=[0, 2, 3, 1]), shape)
    return write_pixel_shuffle(writer, PixelShuffle(layer.factor), new, size)


def _neighbours(writer: Writer, x: str, k: int, channels: int) -> str:
    """The k x k pixels around each pixel, [N, H * W, C, k * k]."""
    padding = (k - 1) // 2
    padded = writer.op("Pad", x, writer.integers(padding, padding, padding, padding), "", writer.integers(2, 3))
    rows, columns = (
        writer.op("Add", writer.op("Unsqueeze", _range(writer, x, axis), writer.integers(1)), writer.integers(*range(k)))
        for axis in (2, 3)
    )
    gathered = writer.op("Gather", padded, rows, axis=2)  # [N, C, H, k, W + 2 * padding]
    gathered = writer.op("Gather", gathered, columns, axis=4)  # [N, C, H, k, W, k]
    gathered = writer.op("Transpose", gathered, perm=[0, 2, 4, 1, 3, 5])
    shape = writer.op("Concat", writer.op("Shape", x, start=0, end=1), writer.integers(-1, channels, k * k), axis=0)
    return writer.op("Reshape", gathered, shape)


def write_attention(writer: Writer, layer: Attention, module: nn.Module | None, path: str, x: str) -> str:
    assert isinstance(module, SelfAttention2d)
    channels = module.query.in_channels
    depth = channels // layer.heads
    placed = x if layer.position == "none" else writer.op("Add", x, writer.rounded(_embedding(writer, x, channels)))
    by_head = writer.integers(0, layer.heads, depth, -1)
    query, key, value = (
        writer.op("Reshape", _conv(writer, getattr(module, name), f"{path}.{name}", source), by_head)
        for name, source in (("query", placed), ("key", placed), ("value", x))
    )
    query, value = (writer.op("Transpose", part, perm=[0, 1, 3, 2]) for part in (query, value))  # [N, heads, H * W, depth]
    scaled = writer.op("Mul", query, writer.number(1 / math.sqrt(depth)))
    weights = writer.op("Softmax", writer.op("MatMul", scaled, key), axis=-1)
    found = writer.op("Transpose", writer.op("MatMul", weights, value), perm=[0, 1, 3, 2])
    return _conv(writer, module.out, f"{path}.out", writer.op("Reshape", found, writer.op("Shape", x)))


def _embedding(writer: Writer, x: str, channels: int) -> str:
    """See `SelfAttention2d.embedding`: [C, H, W], float32."""
    quarter = channels // 4
    frequency = np.float32(10000) ** (-np.arange(quarter, dtype=np.float32) / np.float32(quarter))
    shape = writer.op("Concat", writer.integers(quarter), writer.op("Shape", x, start=2), axis=0)
    parts = []
    for axis in (3, 2):
        steps = writer.op("Cast", _range(writer, x, axis), to=onnx.TensorProto.FLOAT)
        if axis == 2:
            steps = writer.op("Unsqueeze", steps, writer.integers(1))  # rows are behind one another
        angle = writer.op("Mul", writer.constant(frequency.reshape(-1, 1, 1)), steps)
        parts += [writer.op("Expand", writer.op(function, angle), shape) for function in ("Sin", "Cos")]
    return writer.op("Concat", *parts, axis=0)


def _range(writer: Writer, x: str, axis: int) -> str:
    """0, 1, 2, … along an axis of a map, int64."""
    zero, one = (writer.constant(np.array(v, np.int64)) for v in (0, 1))
    length = writer.op("Squeeze", writer.op("Shape", x, start=axis, end=axis + 1))
    return writer.op("Range", zero, length, one)


def _conv(writer: Writer, module: nn.Conv2d, path: str, x: str) -> str:
    assert module.bias is not None
    weights = writer.weight(f"{path}.weight", module.weight), writer.weight(f"{path}.bias", module.bias)
    padding = [(k - 1) // 2 for k in module.kernel_size]
    return writer.op("Conv", x, *weights, kernel_shape=list(module.kernel_size), pads=padding * 2)
