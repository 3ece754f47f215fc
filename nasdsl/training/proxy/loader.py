"""Batches of crops with their targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from nasdsl.detection.method import Method
from nasdsl.training.proxy.crops import BatchPositives, Crop, Size, TargetCache, locations_of
from nasdsl.training.proxy.features import Features, Maps, map_size
from nasdsl.training.proxy.resident import ResidentFeatures
from nasdsl.training.proxy.transfer import CopiesAtOnce, CopiesOnStream, one_ahead

T = TypeVar("T")
Targets: TypeAlias = Any
"""Of a batch: a NamedTuple of tensors, as `nasdsl.detection.method.Targets`."""


class _OnHost(NamedTuple):
    """A batch as it is copied to a GPU.

    Attributes:
        crops: how many there are.
        maps: by level that is not resident, in the type that features are stored in.
        places: by level that is resident, see `ResidentFeatures.places`.
        targets: `BatchPositives` where targets are at locations, else those of the method.
    """

    crops: int
    maps: Maps
    places: dict[str, Tensor]
    targets: Targets


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
        resident: levels in the memory of the device.
        dtype: of the features that batches have.
    """

    features: Features
    target_cache: TargetCache
    method: Method
    levels: tuple[str, ...]
    strides: Mapping[str, int]
    crop_size: Size
    device: torch.device
    channels_last: bool
    resident: ResidentFeatures | None = None
    dtype: torch.dtype = torch.float32

    def batches(self, batches: Iterable[list[Crop]]) -> Iterator[CropBatch]:
        """Load each batch to the device. For a GPU, the next batch is prepared and copied while the current one is used."""
        if self.device.type == "cpu":
            yield from map(self.load, batches)
            return
        copies = CopiesOnStream(self._copy, self.device) if self.device.type == "cuda" else CopiesAtOnce(self._copy)
        yield from map(self._on_device, one_ahead(_prefetch(map(self._on_host, batches)), copies))

    def load(self, crops: list[Crop]) -> CropBatch:
        """Load one batch to the CPU."""
        features = self.features.crops(crops, self.levels, self.crop_size, self.dtype)
        return CropBatch({name: self._formatted(maps) for name, maps in features.items()}, self._targets(crops, dense=True))

    def _on_host(self, crops: list[Crop]) -> _OnHost:
        """What is copied to a GPU, which converts types and formats faster."""
        pinned = self.device.type == "cuda"
        resident = [] if self.resident is None else [name for name in self.levels if name in self.resident.names]
        others = [name for name in self.levels if name not in resident]
        maps = self.features.crops(crops, others, self.crop_size, self.features.dtype, pinned=pinned)
        places = {name: self.resident.places(crops, name, pinned=pinned) for name in resident if self.resident is not None}
        targets = self._targets(crops, dense=False)
        return _OnHost(len(crops), maps, places, type(targets)(*(x.pin_memory() for x in targets)) if pinned else targets)

    def _copy(self, batch: _OnHost) -> _OnHost:
        """The batch on the device; nothing is waited for."""
        maps, places = (
            {name: x.to(self.device, non_blocking=True) for name, x in of.items()} for of in (batch.maps, batch.places)
        )
        targets = type(batch.targets)(*(x.to(self.device, non_blocking=True) for x in batch.targets))
        return batch._replace(maps=maps, places=places, targets=targets)

    def _on_device(self, batch: _OnHost) -> CropBatch:
        """The batch from what was copied."""
        maps = dict(batch.maps)
        for name, places in batch.places.items():
            assert self.resident is not None
            maps[name] = self.resident.crops(places, name, self.crop_size)
        targets = batch.targets
        if isinstance(targets, BatchPositives):
            targets = targets.dense(batch.crops, locations_of(self.shapes))
        return CropBatch({name: self._formatted(maps[name].to(self.dtype)) for name in self.levels}, targets)

    def _formatted(self, maps: Tensor) -> Tensor:
        return maps if self.channels_last else maps.contiguous()

    @property
    def shapes(self) -> dict[str, Size]:
        """Height and width of the predictions of each level for a crop."""
        return {name: map_size(self.crop_size, stride) for name, stride in self.strides.items()}

    def _targets(self, crops: list[Crop], *, dense: bool) -> Targets:
        """The targets of a batch; if not `dense`, only the positives of those at locations."""
        if self.method.at_locations:
            find = self.target_cache.at_locations if dense else self.target_cache.positives
            return find(crops, self.method, self.shapes)
        boxes = [self.target_cache.boxes_in(crop) for crop in crops]
        return self.method.targets(self.shapes, self.target_cache.image_size, boxes)


def _prefetch(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one computed in a thread while the current one is used."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(next, items, end)
        while (item := future.result()) is not end:
            future = thread.submit(next, items, end)
            yield item  # type: ignore[misc]  # it is not the end
