"""Deformable convolution on a CPU, fast: pixels are rows of a table, and a tap reads the weighted sum of four of them.

Reading rows and adding them up, each times its weight, is what `torch.nn.functional.embedding_bag` does, with a kernel that
is vectorised over the channels. The mask goes into the weights and costs nothing, and what comes out is the left operand
of the matrix product that a convolution is. The gradient of the map is the same operation the other way round: a pixel's
is the weighted sum of what the taps that read it pull at, once these are sorted by where they read. No sum depends on the
order in which threads run.

All of it is done in pieces, so that what one step writes is still in a cache when the next reads it, and so that the
columns of a whole map never exist. Nothing but the operands is kept for the backward pass.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from nasdsl.nn.deform.geometry import Geometry, Readers, Taps, columns, maps, pieces, table
from nasdsl.nn.deform.implementation import Optionals, Way, add_product, fits, geometry_of, precise_of
from nasdsl.nn.memory_format import layout_of

COLUMNS = 2 * 2**20
"""Bytes of columns at a time: those of as many positions as that makes, and one at least."""
TOGETHER = 8 * 2**20
"""Bytes of columns of the pictures that are taken together; one at least."""
PULLED = 32 * 2**20
"""Bytes of the columns' gradient of one picture: as many of its channels are taken together, and 32 at least."""
NARROWEST = 8
"""Channels of a row that make this worth its while."""
FEWEST = 2**16
"""Numbers in all maps together that make it so: with fewer, the definition takes as long or less (on one core)."""
LARGEST = 2**24
"""Pixels of a map with its border that float32 can still number."""


def suits(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are tensors on a CPU, not stand-ins of a tracer, and of shapes that this is made for."""
    if not fits(x, offset, mask, weight, bias) or x.device.type != "cpu" or x.numel() < FEWEST:
        return False
    height, width = geometry_of(x, weight).bordered
    narrowest = min(part.width for part in _parts(x, offset, weight, x.shape[1]))
    return narrowest >= NARROWEST and height * width < LARGEST


class _Part(NamedTuple):
    """Channels that share their offsets and their kernels."""

    channels: slice
    offset_group: int
    outputs: slice
    inputs: slice
    """The channels as the kernels of `outputs` count them."""

    @property
    def width(self) -> int:
        return int(self.channels.stop - self.channels.start)

    def kernel(self, weight: Tensor) -> Tensor:
        """[outputs, width, kh, kw], a view."""
        return weight[self.outputs, self.inputs]


def _parts(x: Tensor, offset: Tensor, weight: Tensor, widest: int) -> list[_Part]:
    """The channels in order, cut where an offset group or a group begins, and so that none is wider than `widest`."""
    channels, (out_channels, per_group, *kernel) = x.shape[1], weight.shape
    per_offset, outputs = 2 * channels * kernel[0] * kernel[1] // offset.shape[1], out_channels * per_group // channels
    cuts = sorted({*range(0, channels + 1, per_offset), *range(0, channels + 1, per_group)})
    parts = []
    for low, high in itertools.pairwise(cuts):
        count = -(-(high - low) // widest)
        ends = [low + (high - low) * i // count for i in range(count + 1)]
        for start, stop in itertools.pairwise(ends):
            group, first = start // per_group, start // per_group * per_group
            kernels = slice(group * outputs, (group + 1) * outputs)
            parts.append(_Part(slice(start, stop), start // per_offset, kernels, slice(start - first, stop - first)))
    return parts


def _forward(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    products: torch.dtype,
) -> Tensor:
    taps, precise, (n, channels) = geometry.taps, precise_of(x.dtype), x.shape[:2]
    parts = _parts(x, offset, weight, channels)
    kernels = [part.kernel(weight).permute(2, 3, 1, 0).to(products).flatten(0, 2) for part in parts]
    of_a_tap = max(part.width for part in parts) * precise.itemsize
    together = TOGETHER // (offset[0, 0].numel() * taps * of_a_tap)
    # A product can be written in either layout as long as its rows are one picture's.
    layout = torch.channels_last if together > 1 else layout_of(x)
    total = torch.empty(n, weight.shape[0], *offset.shape[2:], dtype=precise, memory_format=layout)
    total.copy_(torch.zeros(()) if bias is None else bias.view(-1, 1, 1))
    for pictures in pieces(n, together):
        read = Taps.of(offset[pictures], None if mask is None else mask[pictures], geometry, precise)
        pixels, weights = read.pixels(), read.weights()
        out = total[pictures].permute(0, 2, 3, 1).view(-1, weight.shape[0])
        for part, kernel in zip(parts, kernels, strict=True):
            rows = table(x[pictures, part.channels], precise)
            for piece in pieces(out.shape[0], COLUMNS // (taps * part.width * precise.itemsize)):
                inside = part.offset_group, slice(piece.start * taps, piece.stop * taps)
                taken = columns(rows, pixels[inside], weights[inside], taps)
                add_product(out[piece, part.outputs], taken.to(products), kernel)
    dtype = products if bias is None else torch.promote_types(products, bias.dtype)
    return total.to(dtype, memory_format=layout_of(x))


def _gradients(
    operands: Optionals, upstream: Tensor, geometry: Geometry, products: torch.dtype, needed: tuple[bool, ...]
) -> Optionals:
    """Those of x, offset, mask, weight and bias, and None for what is not needed."""
    x, offset, mask, weight, _ = operands
    assert x is not None
    assert offset is not None
    assert weight is not None
    of_x, of_offset, of_mask, of_weight, of_bias = (
        torch.empty_like(t) if t is not None and need else None for t, need in zip(operands, needed, strict=True)
    )
    if of_bias is not None:
        of_bias.copy_(upstream.sum((0, 2, 3)))
    if all(t is None for t in (of_x, of_offset, of_mask, of_weight)):
        return None, None, None, None, of_bias

    precise, positions = precise_of(x.dtype), offset[0, 0].numel()
    parts = _parts(x, offset, weight, max(32, PULLED // (positions * geometry.taps * precise.itemsize)))
    kernels = [part.kernel(weight).permute(0, 2, 3, 1).to(products).flatten(1) for part in parts]
    sums = [None if of_weight is None else torch.zeros(k.shape[1], k.shape[0], dtype=precise) for k in kernels]
    of_a_tap = max(part.width for part in parts) * precise.itemsize
    together = max(1, TOGETHER // (positions * geometry.taps * of_a_tap))
    # One memory for all of them: to get as much anew from the system each time takes longer than to fill it.
    count = min(together, x.shape[0]) * positions * max(k.shape[1] for k in kernels)
    memory = None if of_x is None else torch.empty(count, dtype=precise)
    for pictures in pieces(x.shape[0], together):
        read = Taps.of(offset[pictures], None if mask is None else mask[pictures], geometry, precise)
        pixels, weights = read.pixels(), read.weights()
        dots = None if of_offset is None and of_mask is None else torch.zeros_like(weights)
        above = upstream[pictures].permute(0, 2, 3, 1).to(products).reshape(-1, weight.shape[0])
        readers: tuple[int, Readers] | None = None
        for part, kernel, kernel_sum in zip(parts, kernels, sums, strict=True):
            group, out = part.offset_group, above[:, part.outputs]
            rows = table(x[pictures, part.channels], precise)
            pull = None if memory is None else memory[: len(out) * kernel.shape[1]].view(len(out), -1)
            here = None if dots is None else dots[group]
            _pull(out, kernel, rows, pixels[group], weights[group], pull, here, kernel_sum)
            if of_x is not None and pull is not None:
                if readers is None or readers[0] != group:
                    readers = group, Readers(read, group, weights[group], rows.shape[0], geometry)
                of_x[pictures, part.channels] = maps(readers[1].gather(pull.view(-1, part.width)), geometry).to(x.dtype)
        if dots is not None:
            _spread(read.pull(dots), of_offset, of_mask, pictures, geometry.taps)

    if of_weight is not None:
        for part, kernel_sum in zip(parts, sums, strict=True):
            assert kernel_sum is not None
            part.kernel(of_weight).copy_(kernel_sum.view(*geometry.kernel, part.width, -1).permute(3, 2, 0, 1))
    return of_x, of_offset, of_mask, of_weight, of_bias


def _pull(
    out: Tensor,
    kernel: Tensor,
    rows: Tensor,
    pixels: Tensor,
    weights: Tensor,
    pull: Tensor | None,
    dots: Tensor | None,
    kernel_sum: Tensor | None,
) -> None:
    """What the gradient of the result, [positions, outputs], gives for a part; what is not needed is None.

    Args:
        kernel: [outputs, taps * C].
        rows: the table.
        pixels, weights: [positions * taps, 4].
        pull: the gradient of the columns goes here, [positions, taps * C],
        dots: is added here for the weights, [positions * taps, 4],
        kernel_sum: and here for the kernel, [taps * C, outputs].
    """
    taps = kernel.shape[1] // rows.shape[1]
    for piece in pieces(out.shape[0], COLUMNS // (kernel.shape[1] * rows.itemsize)):
        inside = slice(piece.start * taps, piece.stop * taps)
        pulled = None if pull is None else pull[piece]
        if pulled is not None or dots is not None:
            pulled = _product(out[piece], kernel, pulled, rows.dtype)
        if dots is None and kernel_sum is None:
            continue
        with torch.set_grad_enabled(dots is not None):
            leaf = weights[inside].detach().requires_grad_(dots is not None)
            taken = columns(rows, pixels[inside], leaf, taps)
        if kernel_sum is not None:
            add_product(kernel_sum, taken.detach().to(out.dtype).t(), out[piece])
        if dots is not None:
            dots[inside] += torch.autograd.grad(taken, leaf, pulled)[0]


def _product(a: Tensor, b: Tensor, out: Tensor | None, precise: torch.dtype) -> Tensor:
    """``a @ b``, in `out` where there is one."""
    if out is None:
        return torch.mm(a, b).to(precise)
    return torch.mm(a, b, out=out) if a.dtype == precise else out.copy_(torch.mm(a, b))


def _spread(
    of_taps: tuple[Tensor, Tensor | None], offset: Tensor | None, mask: Tensor | None, pictures: slice, taps: int
) -> None:
    """Write what `Taps.pull` gives where `offset` and `mask` have it."""
    places, scale = of_taps
    groups = places.shape[1]
    if offset is not None:
        of = offset[pictures]
        to = of.view(len(of), groups, taps, 2, *of.shape[2:])
        to.copy_(places.view(2, groups, to.shape[0], *to.shape[-2:], taps).permute(2, 1, 5, 0, 3, 4))
    if mask is not None and scale is not None:
        of = mask[pictures]
        to = of.view(len(of), groups, taps, *of.shape[2:])
        to.copy_(scale.view(groups, to.shape[0], *to.shape[-2:], taps).permute(1, 0, 4, 2, 3))


deform_conv2d = Way(_forward, _gradients)
"""`Way.__call__`, for operands that `suits` is true of."""
