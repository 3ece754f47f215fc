"""Feature maps of all pictures in one array, and crops of them.

A map is stored in channels-last order, row by row. So a crop is a few long rows to copy, and a batch of crops is in torch's
channels-last memory format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from nasdsl.training.proxy.crops import Crop

Size: TypeAlias = tuple[int, int]
Maps: TypeAlias = dict[str, Tensor]
"""Feature maps [N, C, h, w] by level."""


class Level(NamedTuple):
    """Stride in pixels and number of channels of a feature level."""

    stride: int
    channels: int


class FeatureLayout:
    """Positions of the maps in the array.

    Attributes:
        levels: the stored levels by name: ``{"c3": Level(8, 512), …}``.
        padded_sizes: (H, W) in pixels of each picture with its padding.
        copies: 2 if each picture is followed by its mirror image, else 1.
        offsets: [pictures + 1] index of the first number of each picture, and the length of the array.
    """

    def __init__(self, levels: Mapping[str, Level], padded_sizes: Sequence[Size], copies: int) -> None:
        self.levels = dict(levels)
        self.padded_sizes = [(int(h), int(w)) for h, w in padded_sizes]
        self.copies = copies
        self._lengths = [self._length(size) for size in self.padded_sizes]
        self.offsets = [0, *accumulate(copies * length for length in self._lengths)]

    @property
    def stride(self) -> int:
        """The largest stride: crops that begin at multiples of it are aligned at all levels."""
        return max(level.stride for level in self.levels.values())

    def shape(self, picture: int, name: str) -> Size:
        """Height and width of a map."""
        return map_size(self.padded_sizes[picture], self.levels[name].stride)

    def offset(self, picture: int, mirrored: bool, name: str) -> int:
        """The index of a map's first number."""
        offset = self.offsets[picture] + mirrored * self._lengths[picture]
        for other, level in self.levels.items():
            if other == name:
                return offset
            height, width = map_size(self.padded_sizes[picture], level.stride)
            offset += height * width * level.channels
        raise KeyError(name)

    def _length(self, size: Size) -> int:
        return sum(h * w * c for stride, c in self.levels.values() for h, w in (map_size(size, stride),))


def map_size(size: Size, stride: int) -> Size:
    """Height and width of the map of a picture of `size` pixels, rounded up as by convolutions of stride 2."""
    return -(-size[0] // stride), -(-size[1] // stride)


class Features:
    """Feature maps of pictures.

    Attributes:
        layout: their positions in the array.
        skipped: index and reason of pictures that could not be read; their maps are 0.
        mapped: whether the array is a memory-mapped file; otherwise it is in memory.
    """

    def __init__(self, values: Tensor, layout: FeatureLayout, skipped: Mapping[int, str], mapped: bool) -> None:
        self.layout, self.skipped, self.mapped = layout, dict(skipped), mapped
        self._values = values

    @property
    def dtype(self) -> torch.dtype:
        return self._values.dtype

    @property
    def nbytes(self) -> int:
        return self._values.nbytes

    def full_map(self, picture: int, mirrored: bool, name: str) -> Tensor:
        """The map [C, h, w] of a whole picture, as a view."""
        height, width = self.layout.shape(picture, name)
        return self._view(picture, mirrored, name, 0, 0, height, width).permute(2, 0, 1)

    def crops(
        self,
        crops: Sequence[Crop],
        names: Sequence[str],
        crop_size: Size,
        dtype: torch.dtype = torch.float32,
        *,
        pinned: bool = False,
    ) -> Maps:
        """The maps [N, C, ceil(H / stride), ceil(W / stride)] of crops at the named levels, in channels-last format.

        Args:
            crop_size: (H, W) of a crop in pixels.
            dtype: of the result.
            pinned: allocate page-locked memory, for asynchronous copies to a GPU.
        """
        maps = {}
        for name in names:
            stride, channels = self.layout.levels[name]
            height, width = map_size(crop_size, stride)
            batch = torch.empty(len(crops), height, width, channels, dtype=dtype, pin_memory=pinned)
            for row, (picture, mirrored, top, left) in zip(batch, crops, strict=True):
                row.copy_(self._view(picture, mirrored, name, top // stride, left // stride, height, width))
            maps[name] = batch.permute(0, 3, 1, 2)
        return maps

    def _view(self, picture: int, mirrored: bool, name: str, y: int, x: int, height: int, width: int) -> Tensor:
        """[height, width, C] from row y and column x on."""
        channels = self.layout.levels[name].channels
        map_width = self.layout.shape(picture, name)[1]
        start = self.layout.offset(picture, mirrored, name) + (y * map_width + x) * channels
        return self._values.as_strided((height, width, channels), (map_width * channels, channels, 1), start)
