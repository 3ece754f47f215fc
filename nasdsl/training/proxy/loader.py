"""Batches of crops with their targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch

from nasdsl.detection.method import Method
from nasdsl.training.proxy.crops import Crop, Size, TargetCache
from nasdsl.training.proxy.features import Features, Maps, map_size

T = TypeVar("T")
Targets: TypeAlias = Any
"""Of a batch: a NamedTuple of tensors, as `nasdsl.detection.method.Targets`."""


class CropBatch(NamedTuple):
    """Feature maps of crops, [N, C, h, w] by level, and the targets of the decoder's predictions."""

    features: Maps
    targets: Targets


@dataclass(frozen=True)
class CropLoader:
    """Loads batches of crops for a decoder.

    Attributes:
        features: the feature maps that crops are cut from.
        target_cache: gives the targets.
        method: what targets are computed for.
        levels: names of the levels that the decoder reads.
        strides: of the levels that it predicts at.
        crop_size: (H, W) of a crop in pixels.
    """

    features: Features
    target_cache: TargetCache
    method: Method
    levels: tuple[str, ...]
    strides: Mapping[str, int]
    crop_size: Size
    device: torch.device
    channels_last: bool

    def batches(self, batches: Iterable[list[Crop]]) -> Iterator[CropBatch]:
        """Load each batch to the device. For a GPU, the next batch is prepared while the current one is used."""
        if self.device.type == "cpu":
            yield from map(self.load, batches)
            return
        for features, targets in _prefetch(map(self.load, batches)):
            on_device = {name: maps.to(self.device, non_blocking=True).float() for name, maps in features.items()}
            yield CropBatch(on_device, type(targets)(*(x.to(self.device) for x in targets)))

    def load(self, crops: list[Crop]) -> CropBatch:
        """Load one batch to the CPU, for a GPU in the type that features are stored in: copying is faster than converting."""
        on_cpu = self.device.type == "cpu"
        dtype = torch.float32 if on_cpu else self.features.dtype
        features = self.features.crops(crops, self.levels, self.crop_size, dtype, pinned=self.device.type == "cuda")
        if not self.channels_last:
            features = {name: maps.contiguous() for name, maps in features.items()}
        return CropBatch(features, self._targets(crops, self.shapes))

    @property
    def shapes(self) -> dict[str, Size]:
        """Height and width of the predictions of each level for a crop."""
        return {name: map_size(self.crop_size, stride) for name, stride in self.strides.items()}

    def _targets(self, crops: list[Crop], shapes: Mapping[str, Size]) -> Targets:
        if self.method.at_locations:
            return self.target_cache.at_locations(crops, self.method, shapes)
        return self.method.targets(shapes, self.target_cache.image_size, [self.target_cache.boxes_in(crop) for crop in crops])


def _prefetch(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one computed in a thread while the current one is used."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(next, items, end)
        while (item := future.result()) is not end:
            future = thread.submit(next, items, end)
            yield item  # type: ignore[misc]  # it is not the end
