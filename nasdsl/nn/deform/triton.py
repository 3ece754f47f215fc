"""Deformable convolution on a GPU, with kernels of our own: what the taps read is written out as columns, and multiplied.

Pixels lie with their channels side by side, so a tap reads four runs of memory. The backward pass gathers once more, in the
one kernel that finds the gradients of offsets and mask, adds up that of the map, and writes the columns that the weights'
gradient is a product of. Sums of the map's gradient are atomic, and so not the same to the bit in two runs.

It is done in pieces, so that columns take a bounded memory; nothing but the operands is kept for the backward pass.
`nasdsl.nn.deform.triton_kernels`, and with it Triton, is imported at the first call.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from nasdsl.nn.deform.geometry import Geometry, pieces
from nasdsl.nn.deform.implementation import Optionals, Way, add_product, precise_of
from nasdsl.nn.memory_format import layout_of

COLUMNS = 96 * 2**20
"""Bytes of columns, and of their gradient if there is one, at a time; those of one position at least. torchvision's columns
take 120 MiB for a level of a detector (256x100x136) and 160 for 32 maps of a search (64x48x48); the copies of a piece's maps
fit into the difference."""
GATHERED, SCATTERED = 1024, 512
"""Numbers of a tap that a program reads at a time: so many that a thread reads 16 bytes of a pixel (8 in the
backward pass of half a precision), and so few that it has registers for the four pixels and for what these get."""
WIDEST = 128
"""Channels that a program reads side by side; this many in float32 are what 32 threads read at once."""
WARPS = 4


class _Taps:
    """The kernels' arguments that are the same for all pieces of a call."""

    def __init__(self, x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, geometry: Geometry) -> None:
        import triton

        from nasdsl.nn.deform import triton_kernels

        self.kernels = triton_kernels
        self.channels, self.taps = x.shape[1], geometry.taps
        self.groups, self.offset_groups = x.shape[1] // weight.shape[1], offset.shape[1] // (2 * geometry.taps)
        self.positions = offset.shape[2] * offset.shape[3]  # of a picture
        self.sizes = (*geometry.size, offset.shape[3])
        self.offset = offset.flatten(2)
        self.mask = None if mask is None else mask.flatten(2)
        self.precise = precise_of(x.dtype)
        per_offset = self.channels // self.offset_groups
        self.together = min(WIDEST, triton.next_power_of_2(per_offset))
        self.blocks = -(-per_offset // self.together)
        self.fixed = {
            "C": self.channels,
            "OFFSET_GROUPS": self.offset_groups,
            "GROUPS": self.groups,
            "TAPS": self.taps,
            "KERNEL_WIDTH": geometry.kernel[1],
            "STRIDE_Y": geometry.stride[0],
            "STRIDE_X": geometry.stride[1],
            "PADDING_Y": geometry.padding[0],
            "PADDING_X": geometry.padding[1],
            "DILATION_Y": geometry.dilation[0],
            "DILATION_X": geometry.dilation[1],
            "MASKED": mask is not None,
            "PRECISE": triton_kernels.FLOATS[self.precise],
            "CHANNELS": self.together,
            "num_warps": WARPS,
        }

    def pieces(self, n: int, itemsize: int) -> tuple[list[slice], list[slice]]:
        """Those that `n` pictures, and each one's positions, are taken in; `itemsize` is all bytes of a column's number."""
        most = max(1, COLUMNS // (self.channels * self.taps * itemsize))
        return _even(n, max(1, most // self.positions)), _even(self.positions, most)

    def columns(self, memory: Tensor, positions: int) -> Tensor:
        """[groups, positions, taps * C / groups], the beginning of `memory`."""
        return memory[: positions * self.channels * self.taps].view(self.groups, positions, -1)

    def memory(self, pictures: list[slice], places: list[slice], dtype: torch.dtype) -> Tensor:
        """For the columns of any of these pieces."""
        size = _length(pictures[0]) * _length(places[0]) * self.channels * self.taps
        return torch.empty(size, dtype=dtype, device=self.offset.device)

    def gather(self, pixels: Tensor, pictures: slice, places: slice, columns: Tensor) -> None:
        """Write `columns` of these positions; `pixels` are the pictures', [N, H, W, C]."""
        size = max(1, GATHERED // self.together)
        grid = (-(-columns.shape[1] // size), self.offset_groups * self.blocks)
        tensors, numbers = self._given(pictures, places, columns.shape[1])
        self.kernels.gather[grid](pixels, *tensors, columns, *numbers, **self.fixed, PLACES=size)

    def scatter(
        self,
        pixels: Tensor,
        pictures: slice,
        places: slice,
        pulled: Tensor,
        columns: Tensor | None,
        of_pixels: Tensor | None,
        of_offset: Tensor | None,
        of_mask: Tensor | None,
    ) -> None:
        """From `pulled`, the gradient of the columns, those that are not None; and write `columns` as `gather` does.

        Args:
            of_pixels: like `pixels`; it is added to.
            of_offset, of_mask: of the whole call, [N, channels, positions].
        """
        size = max(1, SCATTERED // self.together)
        grid = (-(-pulled.shape[1] // size), self.offset_groups)
        tensors, numbers = self._given(pictures, places, pulled.shape[1])
        wanted = columns, of_pixels, of_offset, of_mask
        self.kernels.scatter[grid](
            pixels,
            *tensors,
            pulled,
            *(pulled if t is None else t for t in wanted),  # of what is None, only the type of the pointer matters
            *numbers,
            *(s for t in (of_offset, of_mask) for s in ((0, 0, 0) if t is None else t.stride())),
            **self.fixed,
            **{name: t is not None for name, t in zip(("COLUMNS", "PIXELS", "OFFSETS", "MASKS"), wanted, strict=True)},
            PLACES=size,
        )

    def _given(self, pictures: slice, places: slice, positions: int) -> tuple[tuple[Tensor, Tensor], tuple[int, ...]]:
        mask = self.offset if self.mask is None else self.mask
        piece = pictures.start, places.start, places.stop - places.start, positions
        return (self.offset, mask), (*piece, *self.sizes, *self.offset.stride(), *mask.stride())


def _even(total: int, most: int) -> list[slice]:
    """0..total in as few pieces as are no larger than `most`, all but the last of the same size."""
    return list(pieces(total, -(-total // -(-total // most))))


def _length(piece: slice) -> int:
    return int(piece.stop - piece.start)


def _rows(maps: Tensor) -> Tensor:
    """[N, C, H, W] as [N, H, W, C], contiguous."""
    return maps.permute(0, 2, 3, 1).contiguous()


def _sums(of_maps: Tensor, precise: torch.dtype) -> Tensor:
    """Zeros, [N, H, W, C], to add up [N, C, H, W] in: in its own memory where that is laid out so."""
    rows = of_maps.permute(0, 2, 3, 1)
    if rows.is_contiguous() and rows.dtype == precise:
        return rows.zero_()
    return torch.zeros(rows.shape, dtype=precise, device=rows.device)


def _kernels(weight: Tensor, groups: int, products: torch.dtype) -> Tensor:
    """[O, C / groups, kh, kw] as [groups, O / groups, taps * C / groups], in the order of the columns."""
    return weight.permute(0, 2, 3, 1).to(products).reshape(groups, weight.shape[0] // groups, -1)


def _forward(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    products: torch.dtype,
) -> Tensor:
    n, out_channels = x.shape[0], weight.shape[0]
    shape = n, out_channels, *offset.shape[2:]
    out = torch.empty(shape, dtype=products, device=x.device, memory_format=layout_of(x))
    with _device(x):
        taps = _Taps(x, offset, mask, weight, geometry)
        kernels = _kernels(weight, taps.groups, products)
        results = out.view(n, out_channels, -1).chunk(taps.groups, 1)
        parts = taps.pieces(n, products.itemsize)
        memory = taps.memory(*parts, products)
        for pictures in parts[0]:
            pixels, count = _rows(x[pictures]), _length(pictures)
            for places in parts[1]:
                columns = taps.columns(memory, count * _length(places))
                taps.gather(pixels, pictures, places, columns)
                for kernel, read, result in zip(kernels, columns, results, strict=True):
                    read = read.view(count, _length(places), -1).transpose(1, 2)
                    torch.bmm(kernel.expand(count, -1, -1), read, out=result[pictures, :, places])
    if bias is None:
        return out
    return out.to(torch.promote_types(products, bias.dtype)).add_(bias.view(-1, 1, 1))


def _gradients(
    operands: Optionals, upstream: Tensor, geometry: Geometry, products: torch.dtype, needed: tuple[bool, ...]
) -> Optionals:
    """Those of x, offset, mask, weight and bias, and None for what is not needed."""
    x, offset, mask, weight, bias = operands
    assert x is not None
    assert offset is not None
    assert weight is not None
    of_bias = upstream.sum((0, 2, 3)).to(bias.dtype) if bias is not None and needed[4] else None
    if not any(needed[:4]):
        return None, None, None, None, of_bias

    with _device(x):
        taps = _Taps(x, offset, mask, weight, geometry)
        of_x = torch.empty_like(x) if needed[0] else None
        of_offset = torch.empty_like(taps.offset) if needed[1] else None
        of_mask = torch.empty_like(taps.mask) if needed[2] and taps.mask is not None else None
        kernels = _kernels(weight, taps.groups, products)
        of_kernels = torch.zeros_like(kernels, dtype=taps.precise) if needed[3] else None
        pulls = any(needed[:3])
        parts = taps.pieces(x.shape[0], products.itemsize * (pulls + needed[3]))
        memory = taps.memory(*parts, products) if needed[3] else None
        pulled_memory = taps.memory(*parts, products) if pulls else None
        for pictures in parts[0]:
            pixels, count = _rows(x[pictures]), _length(pictures)
            of_pixels = None if of_x is None else _sums(of_x[pictures], taps.precise)
            above = upstream[pictures].permute(0, 2, 3, 1).to(products).reshape(count, taps.positions, -1)
            for places in parts[1]:
                out = above[:, places].reshape(-1, above.shape[2]).chunk(taps.groups, 1)
                columns = None if memory is None else taps.columns(memory, len(out[0]))
                if pulled_memory is not None:
                    pulled = taps.columns(pulled_memory, len(out[0]))
                    for of_result, kernel, pull in zip(out, kernels, pulled, strict=True):
                        torch.mm(of_result, kernel, out=pull)
                    taps.scatter(pixels, pictures, places, pulled, columns, of_pixels, of_offset, of_mask)
                elif columns is not None:
                    taps.gather(pixels, pictures, places, columns)
                if of_kernels is not None and columns is not None:
                    for of_kernel, of_result, read in zip(of_kernels, out, columns, strict=True):
                        add_product(of_kernel, of_result.t(), read)
            if of_x is not None and of_pixels is not None and of_pixels.data_ptr() != of_x[pictures].data_ptr():
                of_x[pictures].copy_(of_pixels.permute(0, 3, 1, 2))
    of_weight = None
    if of_kernels is not None:
        out_channels, per_group, height, width = weight.shape
        of_weight = torch.empty_like(weight)
        of_weight.copy_(of_kernels.view(out_channels, height, width, per_group).permute(0, 3, 1, 2))
    size = offset.shape[2:]
    of_taps = (None if t is None else t.view(*t.shape[:2], *size) for t in (of_offset, of_mask))
    return of_x, *of_taps, of_weight, of_bias


def _device(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be that of `x`."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


deform_conv2d = Way(_forward, _gradients)
"""See `Way.__call__`."""
