"""The positive locations of a batch, of which the losses of boxes are computed.

On a CPU they are selected: they are few. On a GPU that would make the CPU wait for their number, which decides the shapes of
all that follows, and a CUDA graph has fixed shapes. There the losses are computed at all locations, and those of the others
count 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


def is_read_at_once(device: torch.device) -> bool:
    """Whether the CPU reads a value of this device without waiting for other work."""
    return device.type == "cpu"


class Positives(ABC):
    """The locations where a mask [N, L] is true. Values of n locations are rows: those of the positives, or of all N * L."""

    @abstractmethod
    def rows(self, values: Tensor, instead: float = 0.0) -> Tensor:
        """The values [N, L, ...] of n locations, [n, ...]; `instead` of those that are not positive, which get no gradient."""

    @abstractmethod
    def total(self, rows: Tensor) -> Tensor:
        """The sum of the positives' values [n], a scalar."""

    @abstractmethod
    def only(self, rows: Tensor) -> Tensor:
        """Values [n] with 0 for locations that are not positive."""

    @abstractmethod
    def count(self, rows: Tensor) -> Tensor:
        """The number of positives, a scalar of the type and device of these values [n, ...]."""

    @abstractmethod
    def maps(self, rows: Tensor) -> Tensor:
        """Values [n] at their locations, [N, L]; what is elsewhere has no meaning."""


class _Selected(Positives):
    def __init__(self, mask: Tensor) -> None:
        self._shape = mask.shape
        self._index = torch.nonzero(mask, as_tuple=True)

    def rows(self, values: Tensor, instead: float = 0.0) -> Tensor:
        return values[self._index]

    def total(self, rows: Tensor) -> Tensor:
        return rows.sum()

    def only(self, rows: Tensor) -> Tensor:
        return rows

    def count(self, rows: Tensor) -> Tensor:
        return rows.new_full((), len(rows))

    def maps(self, rows: Tensor) -> Tensor:
        made = rows.new_zeros(self._shape)
        made[self._index] = rows
        return made


class _Masked(Positives):
    def __init__(self, mask: Tensor) -> None:
        self._mask = mask

    def rows(self, values: Tensor, instead: float = 0.0) -> Tensor:
        mask = self._mask.reshape(*self._mask.shape, *[1] * (values.dim() - 2))
        return torch.where(mask, values, instead).flatten(0, 1)

    def total(self, rows: Tensor) -> Tensor:
        return self.only(rows).sum()

    def only(self, rows: Tensor) -> Tensor:
        return torch.where(self._mask.flatten(), rows, 0.0)

    def count(self, rows: Tensor) -> Tensor:
        return self._mask.sum().to(rows.dtype)

    def maps(self, rows: Tensor) -> Tensor:
        return rows.view(self._mask.shape)


def positives(mask: Tensor) -> Positives:
    """The locations where a mask [N, L] is true."""
    return _Selected(mask) if is_read_at_once(mask.device) else _Masked(mask)
