"""The maps of all pictures in one array, and crops of them.

A map lies row by row, each place's channels together. A crop of it is a few long rows to copy, and a batch of crops is what
torch calls channels last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from nasdsl.training.proxy.crops import Place

Size: TypeAlias = tuple[int, int]
Maps: TypeAlias = dict[str, Tensor]
"""[N, C, h, w] of each level."""


class Level(NamedTuple):
    """A level of features: pixels between neighbours, and channels."""

    stride: int
    channels: int


class Layout:
    """Where the maps of each picture lie.

    Attributes:
        levels: what is kept, by name: ``{"c3": Level(8, 512), …}``.
        extents: (H, W) in pixels of each picture with its padding.
        copies: 2 where each picture is followed by its mirror image, else 1.
        starts: of each picture, the place of its first number; and the end as one more.
    """

    def __init__(self, levels: Mapping[str, Level], extents: Sequence[Size], copies: int) -> None:
        self.levels = dict(levels)
        self.extents = [(int(h), int(w)) for h, w in extents]
        self.copies = copies
        self._lengths = [self._length(extent) for extent in self.extents]
        self.starts = [0, *accumulate(copies * length for length in self._lengths)]

    @property
    def stride(self) -> int:
        """Of the coarsest level: crops that begin at multiples of it are aligned at all levels."""
        return max(level.stride for level in self.levels.values())

    def shape(self, picture: int, name: str) -> Size:
        """Height and width of a map."""
        return cells(self.extents[picture], self.levels[name].stride)

    def start(self, picture: int, mirrored: bool, name: str) -> int:
        """The place of a map's first number."""
        place = self.starts[picture] + mirrored * self._lengths[picture]
        for other, level in self.levels.items():
            if other == name:
                return place
            height, width = cells(self.extents[picture], level.stride)
            place += height * width * level.channels
        raise KeyError(name)

    def _length(self, extent: Size) -> int:
        return sum(h * w * c for stride, c in self.levels.values() for h, w in (cells(extent, stride),))


def cells(extent: Size, stride: int) -> Size:
    """Height and width of the map of so many pixels: halves rounded up, as convolutions of stride 2 do."""
    return -(-extent[0] // stride), -(-extent[1] // stride)


class Features:
    """Maps of pictures.

    Attributes:
        layout: where they lie.
        skipped: pictures that cannot be read, by number, and why; their maps are 0.
        mapped: whether the numbers are in a mapped file; otherwise they are in memory.
    """

    def __init__(self, values: Tensor, layout: Layout, skipped: Mapping[int, str], mapped: bool) -> None:
        self.layout, self.skipped, self.mapped = layout, dict(skipped), mapped
        self._values = values

    @property
    def dtype(self) -> torch.dtype:
        return self._values.dtype

    @property
    def nbytes(self) -> int:
        return self._values.nbytes

    def whole(self, picture: int, mirrored: bool, name: str) -> Tensor:
        """[C, h, w] of one picture, as it is stored: not a copy."""
        height, width = self.layout.shape(picture, name)
        return self._view(picture, mirrored, name, 0, 0, height, width).permute(2, 0, 1)

    def crops(
        self,
        places: Sequence[Place],
        names: Sequence[str],
        size: int,
        dtype: torch.dtype = torch.float32,
        *,
        pinned: bool = False,
    ) -> Maps:
        """[N, C, ceil(size / stride), …] of each named level, channels last: the maps of crops of `size` x `size` pixels.

        Args:
            dtype: of the result.
            pinned: in page-locked memory, from which a GPU copies on its own.
        """
        made = {}
        for name in names:
            stride, channels = self.layout.levels[name]
            height, width = cells((size, size), stride)
            batch = torch.empty(len(places), height, width, channels, dtype=dtype, pin_memory=pinned)
            for row, (picture, mirrored, top, left) in zip(batch, places, strict=True):
                row.copy_(self._view(picture, mirrored, name, top // stride, left // stride, height, width))
            made[name] = batch.permute(0, 3, 1, 2)
        return made

    def _view(self, picture: int, mirrored: bool, name: str, y: int, x: int, height: int, width: int) -> Tensor:
        """[height, width, C] from row y and column x on."""
        channels = self.layout.levels[name].channels
        across = self.layout.shape(picture, name)[1]
        start = self.layout.start(picture, mirrored, name) + (y * across + x) * channels
        return self._values.as_strided((height, width, channels), (across * channels, channels, 1), start)
