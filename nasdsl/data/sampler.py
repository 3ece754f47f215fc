"""Which pictures make which batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from nasdsl.data.seeds import mixed_seed


class Order:
    """The batches of an epoch, as lists of indices; `len` is how many this process gets.

    Pictures of one group come together, as in torchvision's GroupedBatchSampler
    (https://github.com/pytorch/vision/blob/main/references/detection/group_by_aspect_ratio.py), except that what is left
    of each group makes mixed batches, so that an epoch has every picture once.
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
        self._groups = groups
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._drop_last = drop_last
        self._rank = rank
        self._world_size = world_size

    def __len__(self) -> int:
        count = len(self._groups)
        batches = count // self._batch_size if self._drop_last else -(-count // self._batch_size)
        if self._shuffle:
            return -(-batches // self._world_size)
        return len(range(self._rank, batches, self._world_size))

    def batches(self, epoch: int) -> list[list[int]]:
        """Those of this process. All processes compute the same list and take turns."""
        batches = self._all(epoch)
        if self._shuffle and batches:
            missing = -len(batches) % self._world_size
            # From the beginning again: a process without a batch would keep the others waiting for its gradients.
            batches += [batches[number % len(batches)] for number in range(missing)]
        return batches[self._rank :: self._world_size]

    def _all(self, epoch: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(mixed_seed(self._seed, epoch))
        count, size = len(self._groups), self._batch_size
        order = torch.randperm(count, generator=generator).tolist() if self._shuffle else list(range(count))
        waiting: dict[bool, list[int]] = {False: [], True: []}
        batches: list[list[int]] = []
        for index in order:
            group = waiting[self._groups[index]]
            group.append(index)
            if len(group) == size:
                batches.append(list(group))
                group.clear()
        rest = waiting[False] + waiting[True]
        batches += [rest[start : start + size] for start in range(0, len(rest), size)]
        return [batch for batch in batches if len(batch) == size or not self._drop_last]
