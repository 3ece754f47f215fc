"""Features of many pictures: computed in batches on a GPU, one picture at a time on a CPU, and given in the pictures' order.

Pictures of one padded size are a batch, each padded as it would be alone, so the batch changes nothing but the rounding. A
CPU, which a batch makes no faster, computes them alone: its features are then the same bit for bit wherever they were
interrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeAlias

import torch

from nasdsl.data import UnreadableImage
from nasdsl.detection.positives import is_read_at_once
from nasdsl.machine import usable_cores
from nasdsl.training.proxy.features import Maps

BATCH: Final = 16
"""Pictures, each with its mirror image, that a GPU computes at once."""
WINDOW: Final = 4 * BATCH
"""Pictures in a row among which those of one size are looked for; so many are in memory, and as many more are being read."""
MOST_READERS: Final = 8
"""Threads that read pictures for a GPU."""

FeatureFunction: TypeAlias = Callable[[Sequence[int]], Iterator[Maps | UnreadableImage]]
"""Gives the maps [copies, C, h, w] by level of each of these pictures, or why it cannot be read, in their order."""


def features_in_batches(
    load: Callable[[int], Any],
    size_of: Callable[[int], Hashable],
    compute: Callable[[list[Any]], Maps],
    device: torch.device,
) -> FeatureFunction:
    """A function that computes the features of pictures.

    Args:
        load: reads a picture; raises UnreadableImage. On a GPU it is called in several threads.
        size_of: a picture; those of one size can be a batch.
        compute: the maps [pictures * copies, C, h, w] by level of pictures of one size.
        device: of the computation.
    """
    if is_read_at_once(device):
        return lambda pictures: (_one(picture, load, compute) for picture in pictures)

    def in_batches(pictures: Sequence[int]) -> Iterator[Maps | UnreadableImage]:
        windows = [pictures[i : i + WINDOW] for i in range(0, len(pictures), WINDOW)]
        with ThreadPoolExecutor(max(1, min(MOST_READERS, usable_cores()))) as readers:
            reading = [readers.submit(_try, load, picture) for picture in windows[0]] if windows else []
            for number, window in enumerate(windows):
                loaded = dict(zip(window, (future.result() for future in reading), strict=True))
                reading = [readers.submit(_try, load, p) for p in windows[number + 1]] if number + 1 < len(windows) else []
                found = _window(loaded, size_of, compute)
                yield from (found[picture] for picture in window)

    return in_batches


def _one(picture: int, load: Callable[[int], Any], compute: Callable[[list[Any]], Maps]) -> Maps | UnreadableImage:
    loaded = _try(load, picture)
    return loaded if isinstance(loaded, UnreadableImage) else compute([loaded])


def _try(load: Callable[[int], Any], picture: int) -> Any:
    try:
        return load(picture)
    except UnreadableImage as error:
        return error


def _window(
    loaded: dict[int, Any], size_of: Callable[[int], Hashable], compute: Callable[[list[Any]], Maps]
) -> dict[int, Maps | UnreadableImage]:
    """The maps of each picture, or why it cannot be read."""
    found: dict[int, Maps | UnreadableImage] = {}
    groups: dict[Hashable, list[int]] = {}
    for picture, item in loaded.items():
        if isinstance(item, UnreadableImage):
            found[picture] = item
        else:
            groups.setdefault(size_of(picture), []).append(picture)
    for group in groups.values():
        for start in range(0, len(group), BATCH):
            batch = group[start : start + BATCH]
            maps = compute([loaded[picture] for picture in batch])
            parts = {name: x.chunk(len(batch)) for name, x in maps.items()}
            found |= {picture: {name: x[i] for name, x in parts.items()} for i, picture in enumerate(batch)}
    return found
