"""Batches: in an order that (seed, epoch) alone decides, resumable in the middle of an epoch, sharded over processes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.utils.data
from torch import Tensor

from nasdsl.coco_ids import ImageId
from nasdsl.data.dataset import Dataset, Sample, Size, Target
from nasdsl.data.errors import DataError, Skipped, UnreadableImage
from nasdsl.data.sampler import Order
from nasdsl.data.transforms import Augmented, Transform

DEFAULT_CACHE_BYTES = 2 * 2**30
_MEAN_COLOUR = (124, 116, 104)
"""ImageNet's mean in 0 … 255, rounded."""
_SUBSTITUTES = 20


@dataclass(frozen=True, eq=False)
class Batch:
    """`len(batch)` pictures, at least one.

    Attributes:
        images: uint8 [N, 3, H, W] RGB, padded on the right and at the bottom with the mean colour of ImageNet, which
            normalising turns into 0 to within half a grey level.
        sizes: (h, w) of each picture in it, after the transform, without the padding.
        targets: of each picture, boxes in pixels of `images`; ``target["size"]`` is the (H, W) of the original.
        skipped: pictures that proved unreadable while this batch was made.
    """

    images: Tensor
    sizes: list[Size]
    targets: list[Target]
    skipped: list[Skipped] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sizes)

    def to(self, device: torch.device | str, *, channels_last: bool = False, non_blocking: bool = False) -> Batch:
        """The same on `device`; `channels_last` is the memory format of `images`."""
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
        """The same in page-locked memory; torch's loader calls it."""
        targets = [
            {key: value.pin_memory() if isinstance(value, Tensor) else value for key, value in target.items()}
            for target in self.targets
        ]
        return replace(self, images=self.images.pin_memory(), targets=targets)


class Loader:
    """Iterating gives the batches of one epoch for this process. `len` is their number in a whole epoch.

    Attributes:
        epoch: of the next iteration; `set_epoch` sets it, iterating does not change it.
        skipped: all pictures that proved unreadable so far, each once.
        cached: whether the resized pictures are kept in memory.
    """

    def __init__(
        self, source: _Source, order: Order, *, start_batch: int, workers: int, pin_memory: bool, cached: bool
    ) -> None:
        self.epoch = 0
        self.skipped: list[Skipped] = []
        self.cached = cached
        self._seen: set[ImageId] = set()
        self._order = order
        self._start_batch = start_batch
        self._plan = _Plan()
        self._batches: torch.utils.data.DataLoader[Batch] = torch.utils.data.DataLoader(
            source,
            batch_sampler=self._plan,
            num_workers=workers,
            collate_fn=_alone,
            pin_memory=pin_memory,
            persistent_workers=workers > 0,
            # Its own: each iteration draws a number, which must not come from the generator that a model uses.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._order)

    def set_epoch(self, epoch: int, start_batch: int | None = None) -> None:
        """The next iteration is of `epoch` and begins with its batch number `start_batch`, without loading those before.

        None: with the first batch; or, before the first iteration, with the `start_batch` of `make_loader`.
        """
        self.epoch = epoch
        if start_batch is not None:
            self._start_batch = start_batch

    def __iter__(self) -> Iterator[Batch]:
        start, self._start_batch = self._start_batch, 0
        self._plan.batches = [[(self.epoch, index) for index in batch] for batch in self._order.batches(self.epoch)[start:]]
        made: Batch | DataError
        for made in self._batches:
            if isinstance(made, DataError):
                try:
                    raise made
                finally:
                    del made  # or the error and this frame would hold each other, and the workers with them
            self._note(made.skipped)
            if len(made):
                yield made

    def _note(self, skipped: list[Skipped]) -> None:
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
    """Batches of `dataset`. The same (seed, epoch) give the same batches, whatever `workers` and `cache` are.

    Args:
        shuffle: as for training: a new order every epoch; every process gets the same number of batches (some batches are
            given twice if need be); an unreadable picture is replaced by another. Without it, as for evaluation:
            the set's order, every picture exactly once over all processes, an unreadable one is left out.
        workers: processes that load; 0 loads in this one.
        group_by_aspect: batches of pictures that are all higher than wide or all not, so that little is padded.
            A last batch may be mixed.
        drop_last: leave out batches that are not full.
        rank, world_size: this process and how many there are.
        start_batch: of the first iteration: begin with this batch (`Loader.set_epoch` has it for later ones).
        cache: keep the resized pictures in memory, up to so many bytes in all (True: 2 GiB). A set that needs more is
            not cached, with a warning. A cached set is loaded without workers.
        divisor: pad height and width to a multiple of this.
        pin_memory: for fast copies to a GPU.

    Raises:
        DataError: an argument that makes no sense; while iterating, with ``on_error="refuse"``, an unreadable picture,
            or in training more than 20 unreadable ones in a row.
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
    cached = bool(cache) and _fits(dataset, transform, DEFAULT_CACHE_BYTES if cache is True else int(cache))
    order = Order(
        [height > width for height, width in sizes] if group_by_aspect else [False] * len(sizes),
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
    )
    if drop_last and len(dataset) < batch_size:
        raise DataError(f"make_loader: {dataset.name} has {len(dataset)} pictures, which make no full batch of {batch_size}")
    source = _Source(Augmented(dataset, transform, seed, cache=cached), substitute=shuffle, divisor=divisor)
    return Loader(
        source, order, start_batch=start_batch, workers=0 if cached else workers, pin_memory=pin_memory, cached=cached
    )


def _fits(dataset: Dataset, transform: Transform, limit: int) -> bool:
    sizes = dataset.sizes() if transform.resizes_at_random else [transform.output_size(size) for size in dataset.sizes()]
    needed = sum(3 * height * width for height, width in sizes)
    if needed > limit:
        warnings.warn(
            f"{dataset.name}: not cached: its pictures take {needed / 2**20:,.0f} MiB of the {limit / 2**20:,.0f} MiB allowed",
            stacklevel=3,
        )
    return needed <= limit


class _Plan(torch.utils.data.Sampler[list[tuple[int, int]]]):
    """The batches of the coming iteration, as pairs (epoch, index): so the workers learn of the epoch."""

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _Source(torch.utils.data.Dataset[Any]):
    """Whole batches, made where the pictures are read."""

    def __init__(self, samples: Augmented, *, substitute: bool, divisor: int) -> None:
        self._samples = samples
        self._substitute = substitute
        self._divisor = divisor
        self._broken: dict[int, Skipped] = {}

    def __getitems__(self, picks: list[tuple[int, int]]) -> list[Batch | DataError]:
        """One batch, in a list because torch's loader hands over lists.

        An error is handed over too, not raised: what is raised in a worker arrives as a traceback in a string.
        """
        skipped: list[Skipped] = []
        try:
            samples = [sample for epoch, index in picks if (sample := self._sample(epoch, index, skipped)) is not None]
        except DataError as error:
            return [error]
        return [_collate(samples, skipped, self._divisor)]

    def _sample(self, epoch: int, index: int, skipped: list[Skipped]) -> Sample | None:
        """The picture, or with `substitute` the next readable one, which keeps the batches of all processes full."""
        count = len(self._samples)
        for step in range(min(_SUBSTITUTES, count) if self._substitute else 1):
            sample = self._try(epoch, (index + step) % count)
            if not isinstance(sample, Skipped):
                return sample
            skipped.append(sample)
        if self._substitute:
            raise DataError(f"{self._samples.dataset.name}: {len(skipped)} unreadable pictures in a row, such as {skipped[-1]}")
        return None

    def _try(self, epoch: int, index: int) -> Sample | Skipped:
        if index not in self._broken:
            try:
                return self._samples[epoch, index]
            except UnreadableImage as error:
                if self._samples.dataset.on_error == "refuse":
                    raise
                self._broken[index] = Skipped(error.file, error.reason, self._samples.dataset.image_id(index))
        return self._broken[index]


def _alone(batches: list[Batch | DataError]) -> Batch | DataError:
    (batch,) = batches
    return batch


def _collate(samples: list[Sample], skipped: list[Skipped], divisor: int) -> Batch:
    sizes = [(int(sample.image.shape[-2]), int(sample.image.shape[-1])) for sample in samples]
    height, width = (-(-max((size[side] for size in sizes), default=1) // divisor) * divisor for side in (0, 1))
    if all(size == (height, width) for size in sizes) and samples:
        images = torch.stack([sample.image for sample in samples])
    else:
        images = torch.empty(len(samples), 3, height, width, dtype=torch.uint8)
        images[:] = torch.tensor(_MEAN_COLOUR, dtype=torch.uint8).view(3, 1, 1)
        for number, (sample, (h, w)) in enumerate(zip(samples, sizes, strict=True)):
            images[number, :, :h, :w] = sample.image
    # Copies: what the receiver changes must not reach the cache.
    targets = [
        {key: value.clone() if isinstance(value, Tensor) else value for key, value in sample.target.items()}
        for sample in samples
    ]
    return Batch(images, sizes, targets, skipped)
