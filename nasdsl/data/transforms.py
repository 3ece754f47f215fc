"""Transforms of images with boxes: deterministic resizing, then random augmentation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.data
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxFormat

from nasdsl.data.dataset import Dataset, Sample, Size, Target
from nasdsl.data.errors import DataError
from nasdsl.data.seeds import mixed_seed

_XYXY = BoundingBoxFormat.XYXY


@dataclass(frozen=True)
class Transform:
    """Resizing, colour jitter, random crop and horizontal flip with torchvision.transforms.v2, on uint8 images.

    The defaults are for evaluation: nothing is random and no box is dropped. `Transform.training()` is for training.

    Attributes:
        shorter: length of the shorter side after resizing, in pixels. Several: one is drawn for each image. None: no resizing.
        longest: upper bound of the longer side; the aspect ratio is kept. None: no bound.
        size: (H, W) after resizing, instead of `shorter` and `longest`; the aspect ratio is not kept.
        flip: probability of a horizontal flip.
        jitter: strength 0 … 1 of random brightness, contrast and saturation; a tenth of it for hue.
        crop: (H, W) of a random crop after resizing; a side that is shorter is not cropped.
        drop_crowd: drop crowd boxes (they are no training targets).
        drop_difficult: drop boxes marked as difficult.
        smallest: drop boxes with a side below this after resizing and cropping, in pixels. 0: none.
        fast_decode: decode JPEGs that shrink to half or less at a half, quarter or eighth of their size.

    Raises:
        DataError: a value is out of range.
    """

    shorter: int | tuple[int, ...] | None = 800
    longest: int | None = 1333
    size: Size | None = None
    flip: float = 0.0
    jitter: float = 0.0
    crop: Size | None = None
    drop_crowd: bool = False
    drop_difficult: bool = False
    smallest: float = 0.0
    fast_decode: bool = False

    @staticmethod
    def training(
        shorter: int | tuple[int, ...] | None = 800,
        longest: int | None = 1333,
        size: Size | None = None,
        *,
        flip: float = 0.5,
        jitter: float = 0.0,
        crop: Size | None = None,
        drop_difficult: bool = False,
        fast_decode: bool = False,
    ) -> Transform:
        """Defaults for training: half of the images are flipped; crowd boxes and boxes below a pixel are dropped."""
        return Transform(shorter, longest, size, flip, jitter, crop, True, drop_difficult, 1.0, fast_decode)

    def __post_init__(self) -> None:
        for name, sides in (("shorter", self._scales), ("size", self.size), ("crop", self.crop), ("longest", (self.longest,))):
            if any(side is not None and side < 1 for side in sides or ()):
                raise DataError(f"Transform: {name}={getattr(self, name)!r}: expected at least 1 pixel")
        if self.shorter == ():
            raise DataError("Transform: shorter=() names no size; expected at least one, or None for no resizing")
        for name in ("flip", "jitter"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"Transform: {name}={getattr(self, name)!r}: expected 0 … 1")

    @property
    def _scales(self) -> tuple[int, ...]:
        if self.shorter is None:
            return ()
        return (self.shorter,) if isinstance(self.shorter, int) else self.shorter

    @property
    def resizes_at_random(self) -> bool:
        """Whether one of several scales is drawn, so that resizing is done by `augment`."""
        return self.size is None and len(self._scales) > 1

    def output_size(self, size: Size, shorter: int | None = None) -> Size:
        """(H, W) after resizing; as v2.Resize(shorter, max_size=longest), except that no side becomes 0.

        Args:
            size: (H, W) before.
            shorter: the scale that was drawn. None: the largest.
        """
        if self.size is not None:
            return self.size
        if shorter is None:
            if not self._scales:
                return size
            shorter = max(self._scales)
        low, high = min(size), max(size)
        other = shorter * high // low
        if self.longest is not None and other > self.longest:
            shorter, other = max(1, self.longest * shorter // other), self.longest
        return (shorter, other) if size[0] <= size[1] else (other, shorter)

    def read(self, dataset: Dataset, index: int) -> Sample:
        """Read a sample for `prepare`; with `fast_decode`, at a smaller size where that is enough."""
        if not self.fast_decode:
            return dataset[index]
        return dataset.read(index, self.output_size(dataset.size(index)))

    def __call__(self, sample: Sample, seed: int = 0) -> Sample:
        """`prepare`, then `augment`."""
        return self.augment(self.prepare(sample), seed)

    def prepare(self, sample: Sample) -> Sample:
        """Apply the deterministic part, which can be cached: drop boxes, and resize if there is one scale.

        Args:
            sample: from a data set, with boxes in pixels of ``target["size"]``.
        """
        sample = Sample(sample.image, _keep(sample.target, self._kept(sample.target)))
        return sample if self.resizes_at_random else self._resize(sample, None)

    def augment(self, sample: Sample, seed: int) -> Sample:
        """Apply the random part, which depends on `seed` alone. The global random state is not changed.

        Args:
            sample: from `prepare`; it is not changed.
        """
        if not (self.flip or self.jitter or self.crop or self.resizes_at_random):
            return sample
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed the GPUs, whose state is slow to save and restore.
            torch.default_generator.manual_seed(seed)
            if self.resizes_at_random:
                sample = self._resize(sample, self._scales[int(torch.randint(len(self._scales), ()))])
            if self.jitter:
                amount = self.jitter
                sample = Sample(v2.ColorJitter(amount, amount, amount, amount / 10)(sample.image), sample.target)
            if self.crop:
                sample = _random_crop(sample, self.crop, self.smallest)
            if self.flip and float(torch.rand(())) < self.flip:
                sample = _flip(sample)
        return sample

    @staticmethod
    def resize_image(image: Tensor, size: Size) -> Tensor:
        """Resize an image [3, h, w] to `size` (H, W)."""
        if tuple(image.shape[-2:]) != size:
            image = F.resize_image(image, list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
        return image.contiguous()

    def _resize(self, sample: Sample, shorter: int | None) -> Sample:
        """Resize; boxes are in pixels of ``target["size"]``, even if the image was decoded at a smaller size."""
        image, target = sample
        full = target["size"]
        size = self.output_size(full, shorter)
        image = self.resize_image(image, size)
        if full != size:
            area = target["area"] * (size[0] * size[1] / (full[0] * full[1]))
            target = {**target, "boxes": rescale_boxes(target["boxes"], full, size), "area": area}
        return Sample(image, _drop_small(target, self.smallest))

    def _kept(self, target: Target) -> Tensor:
        """bool [n]: boxes that are not dropped for their flags."""
        kept = torch.ones_like(target["iscrowd"])
        if self.drop_crowd:
            kept &= ~target["iscrowd"]
        if self.drop_difficult:
            kept &= ~target["difficult"]
        return kept


class Augmented(torch.utils.data.Dataset[Sample]):
    """A data set with a transform applied; random numbers depend on (seed, epoch, index) alone.

    An index may also be a pair (epoch, index), for workers that live longer than an epoch: `set_epoch` does not reach them.
    With `cache`, outputs of `Transform.prepare` are kept in memory, but not pickled.
    """

    def __init__(self, dataset: Dataset, transform: Transform, seed: int = 0, cache: bool = False) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed
        self.epoch = 0
        self._cache: dict[int, Sample] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.dataset)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of indices without one."""
        self.epoch = epoch

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        """
        Raises:
            UnreadableImage: as in the data set.
        """
        epoch, number = index if isinstance(index, tuple) else (self.epoch, index)
        return self.transform.augment(self._prepared(number), mixed_seed(self.seed, epoch, number))

    def _prepared(self, number: int) -> Sample:
        if self._cache is not None and number in self._cache:
            return self._cache[number]
        sample = self.transform.prepare(self.transform.read(self.dataset, number))
        if self._cache is not None:
            self._cache[number] = sample
        return sample

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None if self._cache is None else {}}


def rescale_boxes(boxes: Tensor, from_size: Size, to_size: Size) -> Tensor:
    """Scale boxes [n, 4] xyxy from an image of `from_size` (H, W) to the same image at `to_size`.

    From a batch to the original image: ``rescale_boxes(boxes, batch.sizes[i], batch.targets[i]["size"])``.
    """
    y, x = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return boxes * boxes.new_tensor([x, y, x, y])


def _random_crop(sample: Sample, crop: Size, smallest: float) -> Sample:
    height, width = sample.image.shape[-2:]
    rows, columns = min(crop[0], height), min(crop[1], width)
    top = int(torch.randint(height - rows + 1, ()))
    left = int(torch.randint(width - columns + 1, ()))
    before = sample.target["boxes"]
    # Also clips the boxes to the crop.
    boxes, _ = F.crop_bounding_boxes(before, _XYXY, top, left, rows, columns)
    visible = _areas(boxes) / _areas(before).clamp(min=1e-6)
    area = sample.target["area"] * visible
    target = {**sample.target, "boxes": boxes, "area": area, "uncropped_size": (height, width)}
    image = F.crop_image(sample.image, top, left, rows, columns)
    # Above 0, because boxes outside of the crop are empty now.
    return Sample(image, _drop_small(target, max(smallest, 1e-3)))


def _flip(sample: Sample) -> Sample:
    height, width = sample.image.shape[-2:]
    boxes = F.horizontal_flip_bounding_boxes(sample.target["boxes"], _XYXY, (height, width))
    return Sample(F.horizontal_flip_image(sample.image), {**sample.target, "boxes": boxes})


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _drop_small(target: Target, smallest: float) -> Target:
    if smallest <= 0:
        return target
    boxes = target["boxes"]
    return _keep(target, (boxes[:, 2:] - boxes[:, :2] >= smallest).all(dim=1))


def _keep(target: Target, kept: Tensor) -> Target:
    """The target with only those boxes for which `kept`, bool [n], is true."""
    if bool(kept.all()):
        return target
    return {**target, **{key: target[key][kept] for key in ("boxes", "labels", "iscrowd", "difficult", "area")}}
