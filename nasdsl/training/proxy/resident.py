"""Features in the memory of a GPU: crops of a batch are gathered there at once, and only their places are copied to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Final

import torch
from torch import Tensor

from nasdsl.training.proxy.crops import Crop
from nasdsl.training.proxy.features import Features, Size, map_size

RESIDENT_SHARE: Final = 0.5
"""Share of a GPU's free memory that features may take; the rest is for the training."""


class ResidentFeatures:
    """Levels of features in the memory of a device, each as a matrix of pixels [P, C].

    Args:
        features: what they are copies of.
        pixels: of each level, in the order of the array: picture after picture, each followed by its mirror image.

    Attributes:
        names: of the levels.
        pixels: as given.
    """

    def __init__(self, features: Features, pixels: Mapping[str, Tensor]) -> None:
        self.names = tuple(pixels)
        self.pixels = dict(pixels)
        self._layout = features.layout
        self._first = {name: _first_pixels(features, name) for name in self.names}

    @property
    def nbytes(self) -> int:
        return sum(pixels.nbytes for pixels in self.pixels.values())

    def places(self, crops: Sequence[Crop], name: str, *, pinned: bool = False) -> Tensor:
        """The first pixel of each of N crops, and the width of its picture's map: [2, N] on the CPU.

        Args:
            pinned: allocate page-locked memory, for an asynchronous copy to the GPU.
        """
        stride, first, copies = self._layout.levels[name].stride, self._first[name], self._layout.copies
        widths = [self._layout.shape(crop.picture, name)[1] for crop in crops]
        starts = [
            first[copies * picture + mirrored] + top // stride * width + left // stride
            for (picture, mirrored, top, left), width in zip(crops, widths, strict=True)
        ]
        made = torch.tensor([starts, widths], dtype=torch.int64)
        return made.pin_memory() if pinned else made

    def crops(self, places: Tensor, name: str, crop_size: Size) -> Tensor:
        """The maps [N, C, ceil(H / stride), ceil(W / stride)] of N crops, in channels-last format and the type that is stored.

        Args:
            places: of `places`, on the device.
            crop_size: (H, W) of a crop in pixels.
        """
        height, width = map_size(crop_size, self._layout.levels[name].stride)
        starts, widths = places.unbind()
        rows = starts[:, None] + widths[:, None] * torch.arange(height, device=places.device)
        pixels = rows[:, :, None] + torch.arange(width, device=places.device)
        found = self.pixels[name].index_select(0, pixels.flatten())
        return found.view(len(starts), height, width, -1).permute(0, 3, 1, 2)


def levels_that_fit(features: Features, free: int) -> list[str]:
    """The levels that are kept on a device with so many free bytes: those that take least first, as long as they fit."""
    sizes = {name: _first_pixels(features, name)[-1] * level.channels for name, level in features.layout.levels.items()}
    left, found = RESIDENT_SHARE * free, []
    for name, numbers in sorted(sizes.items(), key=lambda item: item[1]):
        left -= numbers * features.dtype.itemsize
        if left < 0:
            break
        found.append(name)
    return found


def copy_to(features: Features, names: Sequence[str], device: torch.device) -> ResidentFeatures:
    """Copies of the named levels on a device."""
    copied: dict[str, Tensor] = {}
    copies = features.layout.copies
    for name in names:
        first, channels = _first_pixels(features, name), features.layout.levels[name].channels
        copied[name] = torch.empty(first[-1], channels, dtype=features.dtype, device=device)
        for number, (start, end) in enumerate(pairwise(first)):
            maps = features.full_map(number // copies, bool(number % copies), name)
            copied[name][start:end].copy_(maps.permute(1, 2, 0).reshape(-1, channels))
    return ResidentFeatures(features, copied)


def _first_pixels(features: Features, name: str) -> list[int]:
    """The first pixel of each picture, followed by its mirror image's, and the number of pixels of all."""
    layout = features.layout
    areas = [height * width for picture in range(len(layout.padded_sizes)) for height, width in (layout.shape(picture, name),)]
    return [0, *accumulate(area for area in areas for _ in range(layout.copies))]
