"""Copies to a GPU beside its computation: on a stream of their own, one batch ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

T = TypeVar("T")
U = TypeVar("U")
U_co = TypeVar("U_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Copies(Protocol[T_contra, U_co]):
    """Copies that are begun before they are needed."""

    def begin(self, item: T_contra) -> Any:
        """Begin to copy an item; returns what `finish` takes."""

    def finish(self, begun: Any) -> U_co:
        """The copy, for work that is given to the device from now on."""


class CopiesAtOnce(Generic[T, U]):
    """Copies for devices without streams.

    Args:
        copy: copies an item.
    """

    def __init__(self, copy: Callable[[T], U]) -> None:
        self._copy = copy

    def begin(self, item: T) -> U:
        return self._copy(item)

    def finish(self, begun: U) -> U:
        return begun


class CopiesOnStream(Generic[T, U]):
    """Copies on a stream of a GPU, from page-locked memory; its work is given to another stream and waits for them there.

    Args:
        copy: copies an item without waiting for it; its result is made of tuples, mappings and tensors.
    """

    def __init__(self, copy: Callable[[T], U], device: torch.device) -> None:
        self._copy, self._device = copy, device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's own

    def begin(self, item: T) -> tuple[U, torch.cuda.Event]:
        with torch.cuda.stream(self._stream):
            made = self._copy(item)
            return made, self._stream.record_event()

    def finish(self, begun: tuple[U, torch.cuda.Event]) -> U:
        made, event = begun
        current = torch.cuda.current_stream(self._device)
        current.wait_event(event)
        for tensor in tree_flatten(made)[0]:
            if isinstance(tensor, Tensor):
                tensor.record_stream(current)  # its memory is the copying stream's, and must not be reused before
        return made


def one_ahead(items: Iterator[T], copies: Copies[T, U]) -> Iterator[U]:
    """Copies of the items in their order; each is begun before the last one is handed out."""
    begun: deque[Any] = deque()
    for item in items:
        begun.append(copies.begin(item))
        if len(begun) > 1:
            yield copies.finish(begun.popleft())
    while begun:
        yield copies.finish(begun.popleft())
