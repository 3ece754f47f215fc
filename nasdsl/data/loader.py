"""Loader of batches: determined by (seed, epoch), resumable within an epoch, shared among processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.utils.data
from torch import Tensor

from nasdsl.coco_json import ImageId
from nasdsl.data.dataset import Dataset, Sample, Size, Target
from nasdsl.data.errors import DataError, Skipped, UnreadableImage
from nasdsl.data.geometry import MEAN_COLOUR
from nasdsl.data.sampler import BatchSampler, Position
from nasdsl.data.seeds import mixed_seed
from nasdsl.data.transforms import Augmented, Transform

DEFAULT_CACHE_BYTES = 2 * 2**30
_MAX_SUBSTITUTES = 20
"""Unreadable images in a row after which a training stops."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch of N images.

    Attributes:
        images: uint8 [N, 3, H, W] RGB, padded on the right and at the bottom with ImageNet's mean colour, which
            normalization turns into 0 to within half a grey level.
        sizes: (h, w) of each image after the transform, without the padding.
        targets: one for each image, boxes in pixels of `images`; ``target["size"]`` is the (H, W) of the original.
        skipped: images that turned out to be unreadable in this batch.
    """

    images: Tensor
    sizes: list[Size]
    targets: list[Target]
    skipped: list[Skipped] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sizes)

    def to(self, device: torch.device | str, *, channels_last: bool = False, non_blocking: bool = False) -> Batch:
        """Copy to a device; with `channels_last`, `images` get this memory format."""
        layout = torch.channels_last if channels_last else torch.preserve_format
        images = self.images.to(device, non_blocking=non_blocking, memory_format=layout)
        targets = [
            {
                key: value.to(device, non_blocking=non_blocking) if isinstance(value, Tensor) else value
                for key, value in target.items()
            }
            for target in self.targets
        ]
        return replace(self, images=images, targets=targets)

    def pin_memory(self) -> Batch:
        """Copy to page-locked memory; called by torch's DataLoader."""
        targets = [
            {key: value.pin_memory() if isinstance(value, Tensor) else value for key, value in target.items()}
            for target in self.targets
        ]
        return replace(self, images=self.images.pin_memory(), targets=targets)


class Loader:
    """Iterates over the batches of one epoch for this process; see `make_loader`.

    `len` is the number of batches in a whole epoch.

    Attributes:
        epoch: epoch of the next iteration; set by `set_epoch`, not changed by iterating.
        skipped: all images that have turned out to be unreadable, each once.
        cached: whether the resized images are kept in memory.
    """

    def __init__(
        self, batches: _BatchDataset, sampler: BatchSampler, *, start_batch: int, workers: int, pin_memory: bool, cached: bool
    ) -> None:
        self.epoch = 0
        self.skipped: list[Skipped] = []
        self.cached = cached
        self._seen: set[ImageId] = set()
        self._sampler = sampler
        self._make_batches = batches
        self._start_batch = start_batch
        self._batches: torch.utils.data.DataLoader[Batch] = torch.utils.data.DataLoader(
            batches,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=_only_entry,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            # Its own, because each iteration draws a number: the global generator is the model's.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._sampler)

    def set_epoch(self, epoch: int, start_batch: int | None = None) -> None:
        """Let the next iteration be of `epoch`.

        Args:
            start_batch: number of its first batch; those before are not loaded. None: 0, or in the first iteration the
                `start_batch` of `make_loader`.
        """
        self.epoch = epoch
        if start_batch is not None:
            self._start_batch = start_batch

    def end_mosaics(self, batches: int) -> None:
        """Make mosaics only in the first `batches` batches, counted from epoch 0. To be called before the first iteration."""
        self._make_batches.mosaic_end = divmod(batches, len(self))

    def __iter__(self) -> Iterator[Batch]:
        start, self._start_batch = self._start_batch, 0
        self._sampler.set_epoch(self.epoch, start)
        batch: Batch | DataError
        for batch in self._batches:
            if isinstance(batch, DataError):
                try:
                    raise batch
                finally:
                    del batch  # breaks the reference cycle of error and frame, which would keep the workers alive
            self._record_skipped(batch.skipped)
            if len(batch):
                yield batch

    def _record_skipped(self, skipped: list[Skipped]) -> None:
        for entry in skipped:
            if entry.image_id is not None and entry.image_id not in self._seen:
                self._seen.add(entry.image_id)
                self.skipped.append(entry)


def make_loader(
    dataset: Dataset,
    *,
    batch_size: int,
    transform: Transform,
    shuffle: bool = False,
    seed: int = 0,
    workers: int = 0,
    group_by_aspect: bool = False,
    drop_last: bool = False,
    rank: int = 0,
    world_size: int = 1,
    start_batch: int = 0,
    cache: bool | int = False,
    divisor: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """Make a loader of batches. They depend on (seed, epoch), and not on `workers` or `cache`.

    Args:
        shuffle: True, for training: a new order in every epoch; all processes get the same number of batches (some batches
            twice, if necessary); unreadable images are replaced by others. False, for evaluation: the order of the data
            set, every image exactly once over all processes; unreadable images are left out.
        workers: number of loading processes; 0 loads in this process.
        group_by_aspect: make batches only of images that are higher than wide, or only of others, for less padding. The
            last batches may be mixed.
        drop_last: leave out batches that are not full.
        rank, world_size: number of this process, and how many there are.
        start_batch: first batch of the first iteration; for later ones see `Loader.set_epoch`.
        cache: keep the resized images in memory if they take at most so many bytes (True: 2 GiB); else warn and do not. With
            a cache there are no workers.
        divisor: pad height and width to a multiple of this.
        pin_memory: use page-locked memory, for fast copies to a GPU.

    Raises:
        DataError: an argument is out of range; while iterating, there is an unreadable image and ``on_error="refuse"``, or
            in training there are 20 unreadable images in a row.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("workers", workers, 0),
        ("divisor", divisor, 1),
        ("start_batch", start_batch, 0),
        ("world_size", world_size, 1),
        ("rank", rank, 0),
    ):
        if value < least:
            raise DataError(f"make_loader: {name}={value}: expected at least {least}")
    if rank >= world_size:
        raise DataError(f"make_loader: rank={rank}: expected less than world_size={world_size}")
    sizes = dataset.sizes()
    cached = bool(cache) and _fits_in_cache(dataset, transform, DEFAULT_CACHE_BYTES if cache is True else int(cache))
    sampler = BatchSampler(
        [height > width for height, width in sizes] if group_by_aspect else [False] * len(sizes),
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
    )
    if drop_last and len(dataset) < batch_size:
        raise DataError(f"make_loader: {dataset.name} has {len(dataset)} images, which make no full batch of {batch_size}")
    samples = Augmented(dataset, transform, seed, cache=cached)
    batches = _BatchDataset(samples, substitute=shuffle, divisor=divisor)
    return Loader(
        batches, sampler, start_batch=start_batch, workers=0 if cached else workers, pin_memory=pin_memory, cached=cached
    )


def _fits_in_cache(dataset: Dataset, transform: Transform, limit: int) -> bool:
    """Whether the resized images take at most `limit` bytes; warns if not."""
    sizes = [transform.prepared_size(size) for size in dataset.sizes()]
    needed = sum(3 * height * width for height, width in sizes)
    if needed > limit:
        warnings.warn(
            f"{dataset.name}: not cached: its images take {needed / 2**20:,.0f} MiB of the {limit / 2**20:,.0f} MiB allowed",
            stacklevel=3,
        )
    return needed <= limit


class _BatchDataset(torch.utils.data.Dataset[Any]):
    """Makes whole batches, in the process that reads the images."""

    def __init__(self, samples: Augmented, *, substitute: bool, divisor: int) -> None:
        self.mosaic_end: tuple[int, int] | None = None  # (epoch, batch)
        self._samples = samples
        self._substitute = substitute
        self._divisor = divisor
        self._broken: dict[int, Skipped] = {}

    def __getitems__(self, positions: list[Position]) -> list[Batch | DataError]:
        """The batch of these images, in a list because torch's DataLoader expects one.

        Errors are returned: one raised in a worker would arrive as a traceback in a string.
        """
        skipped: list[Skipped] = []
        try:
            epoch, batch, _ = positions[0]
            size = self._samples.transform.draw_size(mixed_seed(self._samples.seed, epoch, batch))
            read = [self._sample(position, size, skipped) for position in positions]
            samples = [sample for sample in read if sample is not None]
        except DataError as error:
            return [error]
        return [_collate(samples, skipped, self._divisor)]

    def _sample(self, position: Position, size: Size | None, skipped: list[Skipped]) -> Sample | None:
        """The sample; if unreadable None, or with `substitute` the next readable one, which keeps all batches full."""
        count = len(self._samples)
        for step in range(min(_MAX_SUBSTITUTES, count) if self._substitute else 1):
            sample = self._read(position._replace(image=(position.image + step) % count), size)
            if not isinstance(sample, Skipped):
                return sample
            skipped.append(sample)
        if self._substitute:
            raise DataError(f"{self._samples.dataset.name}: {len(skipped)} unreadable images in a row, such as {skipped[-1]}")
        return None

    def _read(self, position: Position, size: Size | None) -> Sample | Skipped:
        epoch, batch, index = position
        if index not in self._broken:
            with_mosaic = self.mosaic_end is None or (epoch, batch) < self.mosaic_end
            try:
                return self._samples.get(epoch, index, size=size, with_mosaic=with_mosaic)
            except UnreadableImage as error:
                if self._samples.dataset.on_error == "refuse":
                    raise
                self._broken[index] = Skipped(error.file, error.reason, self._samples.dataset.image_id(index))
        return self._broken[index]


def _only_entry(batches: list[Batch | DataError]) -> Batch | DataError:
    (batch,) = batches
    return batch


def _collate(samples: list[Sample], skipped: list[Skipped], divisor: int) -> Batch:
    sizes = [(int(sample.image.shape[-2]), int(sample.image.shape[-1])) for sample in samples]
    height, width = (-(-max((size[side] for size in sizes), default=1) // divisor) * divisor for side in (0, 1))
    if all(size == (height, width) for size in sizes) and samples:
        images = torch.stack([sample.image for sample in samples])
    else:
        images = torch.empty(len(samples), 3, height, width, dtype=torch.uint8)
        images[:] = torch.tensor(MEAN_COLOUR, dtype=torch.uint8).view(3, 1, 1)
        for number, (sample, (h, w)) in enumerate(zip(samples, sizes, strict=True)):
            images[number, :, :h, :w] = sample.image
    # Copies, because changing a batch must not change the cache.
    targets = [
        {key: value.clone() if isinstance(value, Tensor) else value for key, value in sample.target.items()}
        for sample in samples
    ]
    return Batch(images, sizes, targets, skipped)
