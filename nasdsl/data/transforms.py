"""Transforms of images with boxes: deterministic resizing, then random augmentation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils.data
from torch import Tensor
from torchvision.transforms import v2

from nasdsl.data.dataset import Dataset, Sample, Size, Target
from nasdsl.data.errors import DataError, UnreadableImage
from nasdsl.data.geometry import (
    drop_small,
    flip,
    keep_boxes,
    mosaic,
    place,
    random_crop,
    rescale_boxes,
    resize_image,
    resized_size,
)
from nasdsl.data.seeds import mixed_seed

MOSAIC_CORNER = (0.25, 0.75)
"""Where the four images of a mosaic meet, as a fraction of its height and width; drawn uniformly from this range."""
_MOSAIC_SEED, _SIZE_SEED = 1, 2
"""Mixed into seeds, so that other numbers are drawn than for the augmentation of an image."""


@dataclass(frozen=True)
class Transform:
    """Resizing and augmentation with torchvision.transforms.v2, on uint8 images.

    The defaults are for evaluation: nothing is random and no box is dropped. `Transform.training()` is for training.

    An image that is cropped, or resized to one of several sizes, gets ``uncropped_size`` in its target: (H, W) that the whole
    image has in evaluation. FCOS's ranges scale with it, so that a box is assigned to a level by its size in pixels, however
    its image was resized or cut.

    Attributes:
        shorter: length of the shorter side after resizing, in pixels. Several: one is drawn for each image, and the last one is
            that of the evaluation. None: no resizing.
        longest: upper bound of the longer side; the aspect ratio is kept. None: no bound.
        size: (H, W) after resizing, instead of `shorter` and `longest`; the aspect ratio is not kept.
        flip: probability of a horizontal flip.
        jitter: strength 0 … 1 of random brightness, contrast and saturation; a tenth of it for hue. Or these four numbers, as
            in v2.ColorJitter.
        crop: (H, W) of a random crop after resizing; a side that is shorter is not cropped.
        sizes: (H, W) of which one is drawn for each batch, instead of `size`, which is that of the evaluation.
        scale_jitter: smallest and largest factor by which an image is enlarged at random. Its size stays the same: what does
            not fit is cut off, what is missing is padded.
        mosaic: probability that an image is joined with three others.
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
    jitter: float | tuple[float, float, float, float] = 0.0
    crop: Size | None = None
    drop_crowd: bool = False
    drop_difficult: bool = False
    smallest: float = 0.0
    fast_decode: bool = False
    sizes: tuple[Size, ...] = ()
    scale_jitter: tuple[float, float] = (1.0, 1.0)
    mosaic: float = 0.0

    @staticmethod
    def training(
        shorter: int | tuple[int, ...] | None = 800,
        longest: int | None = 1333,
        size: Size | None = None,
        *,
        flip: float = 0.5,
        jitter: float | tuple[float, float, float, float] = 0.0,
        crop: Size | None = None,
        sizes: tuple[Size, ...] = (),
        scale_jitter: tuple[float, float] = (1.0, 1.0),
        mosaic: float = 0.0,
        drop_difficult: bool = False,
        fast_decode: bool = False,
    ) -> Transform:
        """Defaults for training: half of the images are flipped; crowd boxes and boxes below a pixel are dropped."""
        return Transform(
            shorter,
            longest,
            size,
            flip,
            jitter,
            crop,
            drop_crowd=True,
            drop_difficult=drop_difficult,
            smallest=1.0,
            fast_decode=fast_decode,
            sizes=sizes,
            scale_jitter=scale_jitter,
            mosaic=mosaic,
        )

    def __post_init__(self) -> None:
        sides = {"shorter": self._scales, "size": self.size, "crop": self.crop, "longest": (self.longest,)}
        sides["sizes"] = tuple(side for size in self.sizes for side in size)
        for name, values in sides.items():
            if any(side is not None and side < 1 for side in values or ()):
                raise DataError(f"Transform: {name}={getattr(self, name)!r}: expected at least 1 pixel")
        if self.shorter == ():
            raise DataError("Transform: shorter=() names no size; expected at least one, or None for no resizing")
        if self.sizes and self.size is None:
            raise DataError(f"Transform: sizes={self.sizes!r} without size: expected the size of the evaluation as well")
        for name in ("flip", "mosaic"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"Transform: {name}={getattr(self, name)!r}: expected 0 … 1")
        if not all(0 <= amount <= 1 for amount in self._colour) or self._colour[3] > 0.5:
            raise DataError(f"Transform: jitter={self.jitter!r}: expected 0 … 1, and 0 … 0.5 for hue, the last of four numbers")
        if not 0 < self.scale_jitter[0] <= self.scale_jitter[1] < math.inf:
            raise DataError(f"Transform: scale_jitter={self.scale_jitter!r}: expected two factors above 0 in rising order")

    @property
    def _scales(self) -> tuple[int, ...]:
        if self.shorter is None:
            return ()
        return (self.shorter,) if isinstance(self.shorter, int) else self.shorter

    @property
    def _colour(self) -> tuple[float, float, float, float]:
        """Strength of the jitter of brightness, contrast, saturation and hue."""
        amount = self.jitter
        return amount if isinstance(amount, tuple) else (amount, amount, amount, amount / 10)

    @property
    def _several_scales(self) -> bool:
        return self.size is None and len(self._scales) > 1

    @property
    def _zooms(self) -> bool:
        return self.scale_jitter != (1.0, 1.0)

    @property
    def resizes_at_random(self) -> bool:
        """Whether resizing is done by `augment`, since it depends on random numbers."""
        return self._several_scales or bool(self.sizes) or self._zooms or self.mosaic > 0

    def output_size(self, size: Size, shorter: int | None = None) -> Size:
        """(H, W) after resizing; see `resized_size`.

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
        return resized_size(*size, shorter, self.longest)

    def prepared_size(self, size: Size) -> Size:
        """(H, W) of an image of `size` (H, W) after `prepare`: where `augment` resizes it, as large as that needs it."""
        if not self.resizes_at_random:
            return self.output_size(size)
        if not (self.sizes or self._zooms or self.mosaic):
            return size
        largest = max(self.scale_jitter[1], 1.0)
        outputs = [self.output_size(size), *self.sizes]
        height, width = (min(size[axis], math.ceil(largest * max(o[axis] for o in outputs))) for axis in (0, 1))
        return height, width

    def draw_size(self, seed: int) -> Size | None:
        """One of `sizes`, for a batch; None if there are none. Depends on `seed` alone."""
        return self.sizes[mixed_seed(seed, _SIZE_SEED) % len(self.sizes)] if self.sizes else None

    def read(self, dataset: Dataset, index: int) -> Sample:
        """Read a sample for `prepare`; with `fast_decode`, at a smaller size where that is enough."""
        if not self.fast_decode:
            return dataset[index]
        size = dataset.size(index)
        return dataset.read(index, self.output_size(size) if self._several_scales else self.prepared_size(size))

    def __call__(self, sample: Sample, seed: int = 0) -> Sample:
        """`prepare`, then `augment`."""
        return self.augment(self.prepare(sample), seed)

    def prepare(self, sample: Sample) -> Sample:
        """Apply the deterministic part, which can be cached: drop boxes, and resize as far as nothing random is needed for it.

        Args:
            sample: from a data set, with boxes in pixels of ``target["size"]``.
        """
        sample = Sample(sample.image, keep_boxes(sample.target, self._kept(sample.target)))
        if not self.resizes_at_random:
            return self._resize(sample, self.output_size(sample.target["size"]))
        size = self.prepared_size(sample.target["size"])
        fits = sample.image.shape[-2] <= size[0] and sample.image.shape[-1] <= size[1]
        return sample if fits else Sample(resize_image(sample.image, size), sample.target)

    def augment(self, sample: Sample, seed: int, *, size: Size | None = None, others: Sequence[Sample] = ()) -> Sample:
        """Apply the random part, which depends on `seed` alone. The global random state is not changed.

        Args:
            sample: from `prepare`; it is not changed.
            size: the size that `draw_size` has drawn. None: `self.size`.
            others: three more samples, to make a mosaic.
        """
        if not (self.flip or self.jitter or self.crop or self.resizes_at_random):
            return sample
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would also seed the GPUs, whose state is slow to save and restore.
            torch.default_generator.manual_seed(seed)
            full = sample.target["size"]
            shorter = self._scales[int(torch.randint(len(self._scales), ()))] if self._several_scales else None
            outputs = [size or self.output_size(s.target["size"], shorter) for s in (sample, *others)]
            if others:
                sample = self._mosaic([sample, *others], outputs)
            else:
                sample = self._jitter(self._zoom(sample, outputs[0]))
            if self.resizes_at_random or self.crop:
                reference = self.output_size(full, self._scales[-1] if self._several_scales else None)
                sample = Sample(sample.image, {**sample.target, "uncropped_size": reference})
            if self.crop:
                sample = random_crop(sample, self.crop, self.smallest)
            return sample if others else self._flip(sample)

    def _zoom(self, sample: Sample, output: Size) -> Sample:
        """Resize and enlarge, where `prepare` has not done so."""
        if not self.resizes_at_random:
            return sample
        if not self._zooms:
            return self._resize(sample, output)
        low, high = self.scale_jitter
        factor = low + (high - low) * float(torch.rand(()))
        return place(sample, _scaled(output, factor), output, self.smallest)

    def _mosaic(self, samples: Sequence[Sample], outputs: Sequence[Size]) -> Sample:
        """Join four images to one of the size of the first. Each fills its part, enlarged at most to its own size.

        Args:
            outputs: the sizes that they would have alone.
        """
        (height, width), (low, high) = outputs[0], MOSAIC_CORNER
        row, column = (round((low + (high - low) * float(torch.rand(()))) * side) for side in (height, width))
        parts = []
        for number, (sample, output) in enumerate(zip(samples, outputs, strict=True)):
            part = (height - row if number > 1 else row, width - column if number % 2 else column)
            least = max(part[0] / output[0], part[1] / output[1])
            scaled = _scaled(output, least + (max(least, 1.0) - least) * float(torch.rand(())))
            scaled = (max(scaled[0], part[0]), max(scaled[1], part[1]))  # rounding must not leave a gap
            parts.append(self._flip(self._jitter(place(sample, scaled, part, self.smallest))))
        return mosaic(parts, (row, column))

    def _jitter(self, sample: Sample) -> Sample:
        if not any(self._colour):
            return sample
        return Sample(v2.ColorJitter(*self._colour)(sample.image), sample.target)

    def _flip(self, sample: Sample) -> Sample:
        return flip(sample) if self.flip and float(torch.rand(())) < self.flip else sample

    def _resize(self, sample: Sample, size: Size) -> Sample:
        """Resize; boxes are in pixels of ``target["size"]``, even if the image was decoded at a smaller size."""
        image, target = sample
        full = target["size"]
        image = resize_image(image, size).contiguous()
        if full != size:
            area = target["area"] * (size[0] * size[1] / (full[0] * full[1]))
            target = {**target, "boxes": rescale_boxes(target["boxes"], full, size), "area": area}
        return Sample(image, drop_small(target, self.smallest))

    def _kept(self, target: Target) -> Tensor:
        """bool [n]: boxes that are not dropped for their flags."""
        kept = torch.ones_like(target["iscrowd"])
        if self.drop_crowd:
            kept &= ~target["iscrowd"]
        if self.drop_difficult:
            kept &= ~target["difficult"]
        return kept


def _scaled(size: Size, factor: float) -> Size:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


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
        self._unreadable: set[int] = set()

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
        return self.get(epoch, number)

    def get(self, epoch: int, index: int, *, size: Size | None = None, with_mosaic: bool = True) -> Sample:
        """The sample of an index in an epoch.

        Args:
            size: the size that was drawn for its batch; see `Transform.draw_size`.
            with_mosaic: False: as if the probability of a mosaic were 0.

        Raises:
            UnreadableImage: as in the data set. Unreadable images are never among the others of a mosaic.
        """
        seed = mixed_seed(self.seed, epoch, index)
        sample = self._prepared(index)
        others = self._draw_others(mixed_seed(seed, _MOSAIC_SEED)) if with_mosaic and self.transform.mosaic else []
        return self.transform.augment(sample, seed, size=size, others=others)

    def _draw_others(self, seed: int) -> list[Sample]:
        """Three samples for a mosaic, or none, as drawn with the transform's probability."""
        generator = torch.Generator().manual_seed(seed)
        if float(torch.rand((), generator=generator)) >= self.transform.mosaic:
            return []
        indices = torch.randint(len(self), (3,), generator=generator).tolist()
        found = [self._readable_from(index) for index in indices]
        return [sample for sample in found if sample is not None] if None not in found else []

    def _readable_from(self, start: int) -> Sample | None:
        """The first readable sample from an index on. What cannot be read is reported when its own turn comes."""
        for step in range(len(self)):
            index = (start + step) % len(self)
            if index in self._unreadable:
                continue
            try:
                return self._prepared(index)
            except UnreadableImage:
                if self.dataset.on_error == "refuse":
                    raise
                self._unreadable.add(index)
        return None

    def _prepared(self, number: int) -> Sample:
        if self._cache is not None and number in self._cache:
            return self._cache[number]
        sample = self.transform.prepare(self.transform.read(self.dataset, number))
        if self._cache is not None:
            self._cache[number] = sample
        return sample

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": None if self._cache is None else {}}
