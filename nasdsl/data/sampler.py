"""Sampler of batches: their order depends on (seed, epoch) alone, and they can be shared among processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.utils.data

from nasdsl.data.seeds import mixed_seed


class Position(NamedTuple):
    """What a worker needs to know of an image of a batch: it lives longer than an epoch.

    Attributes:
        batch: number of the batch of this process in the epoch.
        image: index in the data set.
    """

    epoch: int
    batch: int
    image: int


class BatchSampler(torch.utils.data.Sampler[list[Position]]):
    """Batches of one process in one epoch.

    Images of one group come together, as in torchvision's GroupedBatchSampler
    (https://github.com/pytorch/vision/blob/main/references/detection/group_by_aspect_ratio.py), except that the remainders
    of the groups make mixed batches, so that an epoch has every image once.

    `len` is the number of batches in a whole epoch.
    """

    def __init__(
        self,
        groups: Sequence[bool],
        *,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool,
        rank: int,
        world_size: int,
    ) -> None:
        """
        Args:
            groups: the group of each image.
            shuffle: a new order in every epoch, and the same number of batches for all processes.
            rank, world_size: number of this process, and how many there are.
        """
        self._groups = groups
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._drop_last = drop_last
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0
        self._start_batch = 0

    def __len__(self) -> int:
        count = len(self._groups)
        batches = count // self._batch_size if self._drop_last else -(-count // self._batch_size)
        if self._shuffle:
            return -(-batches // self._world_size)
        return len(range(self._rank, batches, self._world_size))

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Let iterations give the batches of `epoch`, from number `start_batch` on."""
        self._epoch = epoch
        self._start_batch = start_batch

    def __iter__(self) -> Iterator[list[Position]]:
        for number, batch in enumerate(self.batches(self._epoch)):
            if number >= self._start_batch:
                yield [Position(self._epoch, number, index) for index in batch]

    def batches(self, epoch: int) -> list[list[int]]:
        """Indices of this process's batches. All processes compute the same list and take turns."""
        batches = self._all_batches(epoch)
        if self._shuffle and batches:
            missing = -len(batches) % self._world_size
            # The first ones again: the other processes would wait for the gradients of one without a batch.
            batches += [batches[number % len(batches)] for number in range(missing)]
        return batches[self._rank :: self._world_size]

    def _all_batches(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(mixed_seed(self._seed, epoch))
        count, size = len(self._groups), self._batch_size
        order = torch.randperm(count, generator=generator).tolist() if self._shuffle else list(range(count))
        pending: dict[bool, list[int]] = {False: [], True: []}
        batches: list[list[int]] = []
        for index in order:
            group = pending[self._groups[index]]
            group.append(index)
            if len(group) == size:
                batches.append(list(group))
                group.clear()
        rest = pending[False] + pending[True]
        batches += [rest[start : start + size] for start in range(0, len(rest), size)]
        return [batch for batch in batches if len(batch) == size or not self._drop_last]
