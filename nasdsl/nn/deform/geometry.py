"""Sampling positions of a deformable convolution, for pixels stored as rows of a table.

The pixels of a map are rows of a table in row-major order, with a border of zeros around the map, so that a tap outside of the
map reads four rows like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BORDER = 2
"""Width of the zero border in pixels. Two, so that all four pixels of a tap beyond it are zero."""
TAPS_PER_CHUNK = 8192
"""Approximate number of taps whose gradients are summed at a time: they are read four times, and fit into an L3 cache."""


class Geometry(NamedTuple):
    """Sizes of map and kernel, and how the kernel moves; all pairs are (vertical, horizontal)."""

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
    """Sampling positions of all taps of some images. Tensors are [offset groups, N * H' * W' * taps]."""

    cells: Tensor
    """int32: the row of the pixel above and to the left of the position."""
    down: Tensor
    """Vertical distance of the position from that pixel, 0..1."""
    right: Tensor
    """Horizontal distance of the position from that pixel, 0..1."""
    mask: Tensor | None
    neighbours: tuple[int, int, int, int]
    """Row numbers of the four pixels around a position, relative to the cell: itself, right, below, below right."""

    @classmethod
    def from_offsets(cls, offset: Tensor, mask: Tensor | None, geometry: Geometry, dtype: torch.dtype) -> Taps:
        """Positions for `offset` and `mask` as in `nasdsl.nn.deform_conv2d`, computed in `dtype`."""
        n, _, *out_size = offset.shape
        offsets = offset.view(n, -1, geometry.taps, 2, *out_size).permute(1, 0, 4, 5, 2, 3)  # [groups, N, H', W', taps, 2]
        shape, groups = offsets.shape[:-1], offsets.shape[0]
        height, width = geometry.bordered
        tap = torch.arange(geometry.taps)
        pixel, fraction = [], []
        for axis, of_tap in enumerate((tap // geometry.kernel[1], tap % geometry.kernel[1])):
            origin = torch.arange(out_size[axis]) * geometry.stride[axis] - geometry.padding[axis]
            regular = origin.view((-1, 1, 1) if axis == 0 else (-1, 1)) + of_tap * geometry.dilation[axis]
            position = torch.add(offsets[..., axis], regular.to(dtype), out=torch.empty(shape, dtype=dtype))
            position.clamp_(-BORDER, geometry.size[axis])  # everything beyond is zero, too
            pixel.append(position.floor())
            fraction.append(position.sub_(pixel[-1]).view(groups, -1))
        cells = pixel[1].add_(pixel[0], alpha=width).add_(BORDER * width + BORDER).to(torch.int32)
        cells.clamp_(0, height * width - width - 2)  # also for NaN positions, which `fraction` propagates
        cells += torch.arange(n, dtype=torch.int32).mul_(height * width).view(-1, 1, 1, 1)
        if mask is not None:
            by_tap = mask.view(n, -1, geometry.taps, *out_size).permute(1, 0, 3, 4, 2)
            mask = torch.empty(shape, dtype=dtype).copy_(by_tap).view(groups, -1)
        return cls(cells.view(groups, -1), fraction[0], fraction[1], mask, (0, 1, width, width + 1))

    def pixels(self) -> Tensor:
        """The four rows that each tap reads, int32 [offset groups, N * H' * W' * taps, 4]."""
        return self.cells.unsqueeze(-1) + torch.tensor(self.neighbours, dtype=torch.int32)

    def weights(self) -> Tensor:
        """The bilinear weights of these rows times the mask, [offset groups, N * H' * W' * taps, 4]."""
        weights = self.down.new_empty(*self.down.shape, 4)
        below = self.down if self.mask is None else self.down * self.mask
        above = (1 - below) if self.mask is None else self.mask - below
        torch.mul(above, self.right, out=weights[..., 1])
        torch.sub(above, weights[..., 1], out=weights[..., 0])
        torch.mul(below, self.right, out=weights[..., 3])
        torch.sub(below, weights[..., 3], out=weights[..., 2])
        return weights

    def backward(self, grad_weights: Tensor) -> tuple[Tensor, Tensor | None]:
        """Gradients of the positions, [2 (vertical, horizontal), groups, N * H' * W' * taps], and of the mask.

        Args:
            grad_weights: the gradient of `weights`.
        """
        first, second, third, fourth = grad_weights.unbind(-1)
        along_above, along_below = second - first, fourth - third
        above = torch.addcmul(first, self.right, along_above)
        grad_positions = torch.empty(2, *self.down.shape, dtype=self.down.dtype)
        torch.addcmul(third, self.right, along_below, out=grad_positions[0]).sub_(above)
        torch.lerp(along_above, along_below, self.down, out=grad_positions[1])
        if self.mask is None:
            return grad_positions, None
        grad_mask = above.addcmul_(self.down, grad_positions[0])
        return grad_positions.mul_(self.mask), grad_mask


def pixel_table(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The pixels of [N, C, H, W] as rows, [N * (H + 2 * BORDER) * (W + 2 * BORDER), C]."""
    n, channels, height, width = x.shape
    rows = torch.zeros(n, height + 2 * BORDER, width + 2 * BORDER, channels, dtype=dtype)
    rows[:, BORDER:-BORDER, BORDER:-BORDER].copy_(x.permute(0, 2, 3, 1))
    return rows.view(-1, channels)


def table_to_maps(rows: Tensor, geometry: Geometry) -> Tensor:
    """The inverse of `pixel_table`: [N, C, H, W], a view."""
    bordered = rows.view(-1, *geometry.bordered, rows.shape[1])
    return bordered[:, BORDER:-BORDER, BORDER:-BORDER].permute(0, 3, 1, 2)


def sample_columns(rows: Tensor, pixels: Tensor, weights: Tensor, taps: int) -> Tensor:
    """The interpolated values of all taps, [positions, taps * C]; `pixels` and `weights` are [positions * taps, 4]."""
    return F.embedding_bag(pixels, rows, mode="sum", per_sample_weights=weights).view(-1, taps * rows.shape[1])


class SortedTaps:
    """The taps of one offset group, sorted by the cells that they read: for the gradient of the map."""

    def __init__(self, taps: Taps, group: int, weights: Tensor, rows: int, geometry: Geometry) -> None:
        """`weights` are the group's, [N * H' * W' * taps, 4]; `rows` is the number of rows of the table."""
        self.neighbours, self.rows, self.cells = taps.neighbours, rows, rows - taps.neighbours[-1]
        cells = taps.cells[group]
        self.order = torch.sort(cells, stable=True).indices
        self.weights = weights.index_select(0, self.order).t().contiguous()
        self.starts = F.pad(torch.bincount(cells, minlength=self.cells).cumsum(0), (1, 0))
        # In cells; at stride 1, about as many taps as the kernel has read each cell.
        self.chunk = max(1, TAPS_PER_CHUNK // geometry.taps)

    def table_gradient(self, grad_columns: Tensor) -> Tensor:
        """The gradient of the table, [rows, C], from that of the interpolated values, [N * H' * W' * taps, C]."""
        total = grad_columns.new_zeros(self.rows, grad_columns.shape[1])
        for chunk in chunks(self.cells, self.chunk):
            starts = self.starts[chunk.start : chunk.stop + 1]
            first, last = int(starts[0]), int(starts[-1])
            order, starts = self.order[first:last], starts - first
            for neighbour, weights in zip(self.neighbours, self.weights[:, first:last], strict=True):
                total[chunk.start + neighbour : chunk.stop + neighbour] += F.embedding_bag(
                    order, grad_columns, starts, mode="sum", per_sample_weights=weights, include_last_offset=True
                )
        return total


def chunks(total: int, size: int) -> Iterator[slice]:
    """Consecutive slices of 0..total, each `size` long (at least 1) but the last."""
    for start in range(0, total, max(1, size)):
        yield slice(start, min(total, start + max(1, size)))
