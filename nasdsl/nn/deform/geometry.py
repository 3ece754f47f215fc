"""Where the taps of a deformable convolution read, as rows of a table that holds the map's pixels.

A map lies in its table row by row, with a border of zeros around it, so that a tap outside of the map reads four rows like
any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BORDER = 2
"""Rows and columns of zeros on each side. Two, so that of a tap beyond them all four pixels are zero."""
READERS = 8192
"""How many taps' gradients are added up at a time, about: they are read four times, and stay in a cache of the third level."""


class Geometry(NamedTuple):
    """How the taps of a kernel lie on a map; pairs are (vertical, horizontal)."""

    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def bordered(self) -> tuple[int, int]:
        """Height and width of the map with its border."""
        return self.size[0] + 2 * BORDER, self.size[1] + 2 * BORDER


@dataclass(frozen=True)
class Taps:
    """Where each tap of some pictures reads: arrays [offset groups, N * H' * W' * taps]."""

    cells: Tensor
    """int32: the row of the pixel above and to the left of the position."""
    down: Tensor
    """How far below that pixel the position is, 0..1."""
    right: Tensor
    """How far to the right of it, 0..1."""
    mask: Tensor | None
    steps: tuple[int, int, int, int]
    """How many rows further the four pixels around a position are: the cell's own, right, below, below and right."""

    @classmethod
    def of(cls, offset: Tensor, mask: Tensor | None, geometry: Geometry, precise: torch.dtype) -> Taps:
        """Those of `offset` and `mask`, which are as in `nasdsl.nn.deform_conv2d`; positions are computed as `precise`."""
        n, _, *out_size = offset.shape
        moved = offset.view(n, -1, geometry.taps, 2, *out_size).permute(1, 0, 4, 5, 2, 3)  # [groups, N, H', W', taps, 2]
        shape, groups = moved.shape[:-1], moved.shape[0]
        height, width = geometry.bordered
        tap = torch.arange(geometry.taps)
        pixel, fraction = [], []
        for axis, of_tap in enumerate((tap // geometry.kernel[1], tap % geometry.kernel[1])):
            regular = torch.arange(out_size[axis]) * geometry.stride[axis] - geometry.padding[axis]
            places = regular.view((-1, 1, 1) if axis == 0 else (-1, 1)) + of_tap * geometry.dilation[axis]
            position = torch.add(moved[..., axis], places.to(precise), out=torch.empty(shape, dtype=precise))
            position.clamp_(-BORDER, geometry.size[axis])  # further out there is nothing else
            pixel.append(position.floor())
            fraction.append(position.sub_(pixel[-1]).view(groups, -1))
        cells = pixel[1].add_(pixel[0], alpha=width).add_(BORDER * width + BORDER).to(torch.int32)
        cells.clamp_(0, height * width - width - 2)  # of a position that is no number too, which `fraction` passes on
        cells += torch.arange(n, dtype=torch.int32).mul_(height * width).view(-1, 1, 1, 1)
        if mask is not None:
            spread = mask.view(n, -1, geometry.taps, *out_size).permute(1, 0, 3, 4, 2)
            mask = torch.empty(shape, dtype=precise).copy_(spread).view(groups, -1)
        return cls(cells.view(groups, -1), fraction[0], fraction[1], mask, (0, 1, width, width + 1))

    def pixels(self) -> Tensor:
        """The four rows that each tap reads, int32 [offset groups, N * H' * W' * taps, 4]."""
        return self.cells.unsqueeze(-1) + torch.tensor(self.steps, dtype=torch.int32)

    def weights(self) -> Tensor:
        """How much a tap takes of each, the mask included: [offset groups, N * H' * W' * taps, 4]."""
        weights = self.down.new_empty(*self.down.shape, 4)
        below = self.down if self.mask is None else self.down * self.mask
        above = (1 - below) if self.mask is None else self.mask - below
        torch.mul(above, self.right, out=weights[..., 1])
        torch.sub(above, weights[..., 1], out=weights[..., 0])
        torch.mul(below, self.right, out=weights[..., 3])
        torch.sub(below, weights[..., 3], out=weights[..., 2])
        return weights

    def pull(self, dots: Tensor) -> tuple[Tensor, Tensor | None]:
        """The gradients of the positions, [2 (vertical, horizontal), groups, N * H' * W' * taps], and of the mask.

        Args:
            dots: the gradient of `weights`.
        """
        first, second, third, fourth = dots.unbind(-1)
        along_above, along_below = second - first, fourth - third
        above = torch.addcmul(first, self.right, along_above)
        places = torch.empty(2, *self.down.shape, dtype=self.down.dtype)
        torch.addcmul(third, self.right, along_below, out=places[0]).sub_(above)
        torch.lerp(along_above, along_below, self.down, out=places[1])
        if self.mask is None:
            return places, None
        of_mask = above.addcmul_(self.down, places[0])
        return places.mul_(self.mask), of_mask


def table(x: Tensor, precise: torch.dtype) -> Tensor:
    """The pixels of [N, C, H, W] as rows, [N * (H + 2 * BORDER) * (W + 2 * BORDER), C]."""
    n, channels, height, width = x.shape
    rows = torch.zeros(n, height + 2 * BORDER, width + 2 * BORDER, channels, dtype=precise)
    rows[:, BORDER:-BORDER, BORDER:-BORDER].copy_(x.permute(0, 2, 3, 1))
    return rows.view(-1, channels)


def maps(rows: Tensor, geometry: Geometry) -> Tensor:
    """The other way: [N, C, H, W], a view."""
    bordered = rows.view(-1, *geometry.bordered, rows.shape[1])
    return bordered[:, BORDER:-BORDER, BORDER:-BORDER].permute(0, 3, 1, 2)


def columns(rows: Tensor, pixels: Tensor, weights: Tensor, taps: int) -> Tensor:
    """What the taps read, [positions, taps * C]; `pixels` and `weights` are [positions * taps, 4]."""
    return F.embedding_bag(pixels, rows, mode="sum", per_sample_weights=weights).view(-1, taps * rows.shape[1])


class Readers:
    """The taps of an offset group in the order of the cells that they read."""

    def __init__(self, taps: Taps, group: int, weights: Tensor, rows: int, geometry: Geometry) -> None:
        """`weights` are the group's, [N * H' * W' * taps, 4]; `rows` those of the table."""
        self.steps, self.rows, self.cells = taps.steps, rows, rows - taps.steps[-1]
        cells = taps.cells[group]
        self.order = torch.sort(cells, stable=True).indices
        self.weights = weights.index_select(0, self.order).t().contiguous()
        self.starts = F.pad(torch.bincount(cells, minlength=self.cells).cumsum(0), (1, 0))
        self.step = max(1, READERS // geometry.taps)  # cells; where stride is 1, each has about as many readers as taps

    def gather(self, given: Tensor) -> Tensor:
        """The gradient of the table, [rows, C], from that of what each tap read, [N * H' * W' * taps, C]."""
        total = given.new_zeros(self.rows, given.shape[1])
        for piece in pieces(self.cells, self.step):
            starts = self.starts[piece.start : piece.stop + 1]
            first, last = int(starts[0]), int(starts[-1])
            order, starts = self.order[first:last], starts - first
            for step, weights in zip(self.steps, self.weights[:, first:last], strict=True):
                total[piece.start + step : piece.stop + step] += F.embedding_bag(
                    order, given, starts, mode="sum", per_sample_weights=weights, include_last_offset=True
                )
        return total


def pieces(total: int, step: int) -> Iterator[slice]:
    """0..total, `step` at a time."""
    for start in range(0, total, max(1, step)):
        yield slice(start, min(total, start + max(1, step)))
