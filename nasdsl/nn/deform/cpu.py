"""Fast deformable convolution on a CPU, on `torch.nn.functional.embedding_bag`.

Pixels are rows of a table, and a tap reads the weighted sum of four rows: that is an embedding bag, whose kernel is vectorised
over the channels. The mask is part of the weights and costs nothing, and the result is the left factor of the convolution's
matrix product. The gradient of the map is an embedding bag, too: the gradient of a pixel is the weighted sum of the gradients
of the taps that read it, once the taps are sorted by pixel. No sum depends on the order in which threads run.

Everything is computed in chunks, so that a step still finds in cache what the previous one wrote, and the columns of a whole
map never exist at once. Only the operands are kept for the backward pass.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from nasdsl.nn.deform.geometry import Geometry, SortedTaps, Taps, chunks, pixel_table, sample_columns, table_to_maps
from nasdsl.nn.deform.implementation import (
    Implementation,
    OptionalTensors,
    add_matmul,
    are_compatible,
    geometry_of,
)
from nasdsl.nn.memory_format import memory_format_of
from nasdsl.nn.precision import accumulation_dtype

COLUMN_BYTES = 2 * 2**20
"""Size of the columns of a chunk of positions; a chunk has one position at least."""
IMAGE_COLUMN_BYTES = 8 * 2**20
"""Size of the columns of the images that are processed together; one image at least."""
GRADIENT_BYTES = 32 * 2**20
"""Size of the gradient of an image's columns: this limits the channels that are processed together, to 32 at least."""
MIN_CHANNELS = 8
"""With fewer channels in a row, the reference is as fast."""
MIN_ELEMENTS = 2**16
"""With fewer elements in all maps together, the reference is as fast (on one core)."""
MAX_PIXELS = 2**24
"""Pixels of a map with its border that float32 can number exactly."""


def supports(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are eager CPU tensors of shapes for which this implementation is faster than the reference."""
    if not are_compatible(x, offset, mask, weight, bias) or x.device.type != "cpu" or x.numel() < MIN_ELEMENTS:
        return False
    height, width = geometry_of(x, weight).bordered
    fewest = min(part.channel_count for part in _split_channels(x, offset, weight, x.shape[1]))
    return fewest >= MIN_CHANNELS and height * width < MAX_PIXELS


class _ChannelRange(NamedTuple):
    """Input channels that share their offsets and their kernels."""

    channels: slice
    offset_group: int
    outputs: slice
    inputs: slice
    """`channels` as the kernels of `outputs` number them."""

    @property
    def channel_count(self) -> int:
        return int(self.channels.stop - self.channels.start)

    def kernel(self, weight: Tensor) -> Tensor:
        """[outputs, channels, kh, kw], a view."""
        return weight[self.outputs, self.inputs]


def _split_channels(x: Tensor, offset: Tensor, weight: Tensor, limit: int) -> list[_ChannelRange]:
    """Ranges of at most `limit` channels, in order, each within one offset group and one group."""
    channels, (out_channels, per_group, *kernel) = x.shape[1], weight.shape
    per_offset_group = 2 * channels * kernel[0] * kernel[1] // offset.shape[1]
    outputs_per_group = out_channels * per_group // channels
    bounds = sorted({*range(0, channels + 1, per_offset_group), *range(0, channels + 1, per_group)})
    ranges = []
    for low, high in itertools.pairwise(bounds):
        count = -(-(high - low) // limit)
        ends = [low + (high - low) * i // count for i in range(count + 1)]
        for start, stop in itertools.pairwise(ends):
            group, first = start // per_group, start // per_group * per_group
            outputs = slice(group * outputs_per_group, (group + 1) * outputs_per_group)
            inputs = slice(start - first, stop - first)
            ranges.append(_ChannelRange(slice(start, stop), start // per_offset_group, outputs, inputs))
    return ranges


def _forward(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    matmul_dtype: torch.dtype,
) -> Tensor:
    tap_count, dtype, (n, channels) = geometry.taps, accumulation_dtype(x.dtype), x.shape[:2]
    ranges = _split_channels(x, offset, weight, channels)
    kernels = [part.kernel(weight).permute(2, 3, 1, 0).to(matmul_dtype).flatten(0, 2) for part in ranges]
    tap_bytes = max(part.channel_count for part in ranges) * dtype.itemsize
    images_together = IMAGE_COLUMN_BYTES // (offset[0, 0].numel() * tap_count * tap_bytes)
    # A product can be written in either layout as long as its rows belong to one image.
    layout = torch.channels_last if images_together > 1 else memory_format_of(x)
    total = torch.empty(n, weight.shape[0], *offset.shape[2:], dtype=dtype, memory_format=layout)
    total.copy_(torch.zeros(()) if bias is None else bias.view(-1, 1, 1))
    for images in chunks(n, images_together):
        taps = Taps.from_offsets(offset[images], None if mask is None else mask[images], geometry, dtype)
        pixels, weights = taps.pixels(), taps.weights()
        out = total[images].permute(0, 2, 3, 1).view(-1, weight.shape[0])
        for part, kernel in zip(ranges, kernels, strict=True):
            table = pixel_table(x[images, part.channels], dtype)
            for chunk in chunks(out.shape[0], COLUMN_BYTES // (tap_count * part.channel_count * dtype.itemsize)):
                index = part.offset_group, slice(chunk.start * tap_count, chunk.stop * tap_count)
                columns = sample_columns(table, pixels[index], weights[index], tap_count)
                add_matmul(out[chunk, part.outputs], columns.to(matmul_dtype), kernel)
    out_dtype = matmul_dtype if bias is None else torch.promote_types(matmul_dtype, bias.dtype)
    return total.to(out_dtype, memory_format=memory_format_of(x))


def _backward(
    operands: OptionalTensors, grad_output: Tensor, geometry: Geometry, matmul_dtype: torch.dtype, needs_grad: tuple[bool, ...]
) -> OptionalTensors:
    x, offset, mask, weight, _ = operands
    assert x is not None
    assert offset is not None
    assert weight is not None
    grad_x, grad_offset, grad_mask, grad_weight, grad_bias = (
        torch.empty_like(t) if t is not None and needed else None for t, needed in zip(operands, needs_grad, strict=True)
    )
    if grad_bias is not None:
        grad_bias.copy_(grad_output.sum((0, 2, 3)))
    if all(t is None for t in (grad_x, grad_offset, grad_mask, grad_weight)):
        return None, None, None, None, grad_bias

    dtype, positions = accumulation_dtype(x.dtype), offset[0, 0].numel()
    ranges = _split_channels(x, offset, weight, max(32, GRADIENT_BYTES // (positions * geometry.taps * dtype.itemsize)))
    kernels = [part.kernel(weight).permute(0, 2, 3, 1).to(matmul_dtype).flatten(1) for part in ranges]
    grad_kernels = [None if grad_weight is None else torch.zeros(k.shape[1], k.shape[0], dtype=dtype) for k in kernels]
    tap_bytes = max(part.channel_count for part in ranges) * dtype.itemsize
    images_together = max(1, IMAGE_COLUMN_BYTES // (positions * geometry.taps * tap_bytes))
    # One buffer for all: to allocate as much for each takes longer than to fill it.
    size = min(images_together, x.shape[0]) * positions * max(k.shape[1] for k in kernels)
    buffer = None if grad_x is None else torch.empty(size, dtype=dtype)
    for images in chunks(x.shape[0], images_together):
        taps = Taps.from_offsets(offset[images], None if mask is None else mask[images], geometry, dtype)
        pixels, weights = taps.pixels(), taps.weights()
        grad_weights = None if grad_offset is None and grad_mask is None else torch.zeros_like(weights)
        grad_rows = grad_output[images].permute(0, 2, 3, 1).to(matmul_dtype).reshape(-1, weight.shape[0])
        sorted_taps: tuple[int, SortedTaps] | None = None
        for part, kernel, grad_kernel in zip(ranges, kernels, grad_kernels, strict=True):
            group, grad_out = part.offset_group, grad_rows[:, part.outputs]
            table = pixel_table(x[images, part.channels], dtype)
            grad_columns = None if buffer is None else buffer[: len(grad_out) * kernel.shape[1]].view(len(grad_out), -1)
            _range_gradients(
                grad_out,
                kernel,
                table,
                pixels[group],
                weights[group],
                grad_columns,
                None if grad_weights is None else grad_weights[group],
                grad_kernel,
            )
            if grad_x is not None and grad_columns is not None:
                if sorted_taps is None or sorted_taps[0] != group:
                    sorted_taps = group, SortedTaps(taps, group, weights[group], table.shape[0], geometry)
                grad_table = sorted_taps[1].table_gradient(grad_columns.view(-1, part.channel_count))
                grad_x[images, part.channels] = table_to_maps(grad_table, geometry).to(x.dtype)
        if grad_weights is not None:
            _write_tap_gradients(taps.backward(grad_weights), grad_offset, grad_mask, images, geometry.taps)

    if grad_weight is not None:
        for part, grad_kernel in zip(ranges, grad_kernels, strict=True):
            assert grad_kernel is not None
            part.kernel(grad_weight).copy_(grad_kernel.view(*geometry.kernel, part.channel_count, -1).permute(3, 2, 0, 1))
    return grad_x, grad_offset, grad_mask, grad_weight, grad_bias


def _range_gradients(
    grad_out: Tensor,
    kernel: Tensor,
    table: Tensor,
    pixels: Tensor,
    weights: Tensor,
    grad_columns: Tensor | None,
    grad_weights: Tensor | None,
    grad_kernel: Tensor | None,
) -> None:
    """Gradients of a range of channels, from that of the output; those that are None are not computed.

    Args:
        grad_out: [positions, outputs].
        kernel: [outputs, taps * C].
        table: the pixels.
        pixels, weights: [positions * taps, 4].
        grad_columns: overwritten, [positions, taps * C].
        grad_weights: of the bilinear weights, added to, [positions * taps, 4].
        grad_kernel: added to, [taps * C, outputs].
    """
    taps = kernel.shape[1] // table.shape[1]
    for chunk in chunks(grad_out.shape[0], COLUMN_BYTES // (kernel.shape[1] * table.itemsize)):
        index = slice(chunk.start * taps, chunk.stop * taps)
        grad_chunk = None if grad_columns is None else grad_columns[chunk]
        if grad_chunk is not None or grad_weights is not None:
            grad_chunk = _matmul(grad_out[chunk], kernel, grad_chunk, table.dtype)
        if grad_weights is None and grad_kernel is None:
            continue
        with torch.set_grad_enabled(grad_weights is not None):
            leaf = weights[index].detach().requires_grad_(grad_weights is not None)
            # Torch before 2.5 fails if the weights need gradients and the table does not. Those of the table are not computed.
            rows = table.detach().requires_grad_(grad_weights is not None)
            columns = sample_columns(rows, pixels[index], leaf, taps)
        if grad_kernel is not None:
            add_matmul(grad_kernel, columns.detach().to(grad_out.dtype).t(), grad_out[chunk])
        if grad_weights is not None:
            grad_weights[index] += torch.autograd.grad(columns, leaf, grad_chunk)[0]


def _matmul(a: Tensor, b: Tensor, out: Tensor | None, dtype: torch.dtype) -> Tensor:
    """``a @ b`` in `dtype`, written to `out` where that is given."""
    if out is None:
        return torch.mm(a, b).to(dtype)
    return torch.mm(a, b, out=out) if a.dtype == dtype else out.copy_(torch.mm(a, b))


def _write_tap_gradients(
    gradients: tuple[Tensor, Tensor | None], grad_offset: Tensor | None, grad_mask: Tensor | None, images: slice, taps: int
) -> None:
    """Copy what `Taps.backward` returns into the layout of `offset` and `mask`."""
    of_positions, of_mask = gradients
    groups = of_positions.shape[1]
    if grad_offset is not None:
        part = grad_offset[images]
        out = part.view(len(part), groups, taps, 2, *part.shape[2:])
        out.copy_(of_positions.view(2, groups, out.shape[0], *out.shape[-2:], taps).permute(2, 1, 5, 0, 3, 4))
    if grad_mask is not None and of_mask is not None:
        part = grad_mask[images]
        out = part.view(len(part), groups, taps, *part.shape[2:])
        out.copy_(of_mask.view(groups, out.shape[0], *out.shape[-2:], taps).permute(1, 0, 4, 2, 3))


deform_conv2d = Implementation(_forward, _backward)
"""For operands that `supports` accepts."""
