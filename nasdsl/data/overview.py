"""What a data set holds: counts, sizes and problems, as `nasdsl data` shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from nasdsl.data.dataset import Dataset, Size
from nasdsl.data.errors import DataError, UnreadableImage
from nasdsl.data.layouts import split_name
from nasdsl.data.size_advice import SizeAdvice, recommend_size
from nasdsl.data.splits import split_record

BOX_SIZE_EDGES = (0, 8, 16, 32, 64, 128, 256, 512, 1024)
"""Edges of the bins of `Overview.box_sizes`, in pixels; the last bin is open."""


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a data set.

    Attributes:
        split: its name.
        file: path, with the place in the file where known.
        reason: what is wrong.
        kind: ``image`` (left out), ``box`` (left out), ``clipped`` (reaches over the edge), ``double`` (a box given twice),
            ``shared`` (an image that another split has as well).
    """

    split: str
    file: str
    reason: str
    kind: str


@dataclass
class Overview:
    """What a data set holds.

    Attributes:
        splits: the data set of each split, by name.
        problems: all that were found.
        advice: the recommended image size; None without boxes.
    """

    splits: dict[str, Dataset]
    problems: list[Problem] = field(default_factory=list)
    advice: SizeAdvice | None = None

    @property
    def images(self) -> list[tuple[Dataset, int]]:
        """Data set and index of every image, each once: a `trainval` has those of others."""
        found = {data.file(index): (data, index) for data in self.splits.values() for index in range(len(data))}
        return list(found.values())

    @property
    def name(self) -> str:
        """Form and place of the data set."""
        return next(iter(self.splits.values())).name.rpartition(" (")[0]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by label."""
        return next(iter(self.splits.values())).classes

    def image_sizes(self) -> list[tuple[Size, int]]:
        """Image sizes (H, W) with the number of images of each, most frequent first."""
        counts = Counter(data.size(index) for data, index in self.images)
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))

    def box_sizes(self) -> list[int]:
        """Histogram of the square roots of the boxes' areas, in pixels of the images; see `BOX_SIZE_EDGES`."""
        counts, _ = np.histogram(self._box_sizes(), [*BOX_SIZE_EDGES, np.inf])
        return [int(count) for count in counts]

    def _box_sizes(self) -> npt.NDArray[np.float64]:
        boxes = [data.target(index)["boxes"].numpy() for data, index in self.images]
        sides: npt.NDArray[np.float64] = np.concatenate([box[:, 2:] - box[:, :2] for box in boxes]).astype(np.float64)
        sizes: npt.NDArray[np.float64] = np.sqrt(sides.prod(axis=1))
        return sizes

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        advice = self.advice
        return {
            "name": self.name,
            "classes": list(self.classes),
            "category_ids": list(next(iter(self.splits.values())).category_ids),
            "splits": {name: _split_to_dict(data) for name, data in self.splits.items()},
            "image_sizes": [{"size": list(size), "images": number} for size, number in self.image_sizes()],
            "box_sizes": {"edges": list(BOX_SIZE_EDGES), "boxes": self.box_sizes()},
            "recommended_size": None
            if advice is None
            else {
                "size": list(advice.size),
                "reason": advice.reason,
                "small_side": advice.small_side,
                "small_side_at_size": advice.small_side_at_size,
                "relative_cost": advice.relative_cost,
            },
            "problems": [vars(problem) for problem in self.problems],
            "notes": list(dict.fromkeys(note for data in self.splits.values() for note in data.notes)),
        }


def images_without_boxes(data: Dataset) -> int:
    """Number of images of a split that have no boxes."""
    return sum(not len(data.target(index)["labels"]) for index in range(len(data)))


def _split_to_dict(data: Dataset) -> dict[str, Any]:
    counts = data.class_counts()
    return {
        "images": len(data),
        "images_without_boxes": images_without_boxes(data),
        "boxes": sum(counts.values()),
        "boxes_by_class": counts,
        "left_out_by_class": data.left_out,
        "made": split_record(data.made) or None,
    }


def overview(
    splits: dict[str, Dataset],
    *,
    read_images: bool = True,
    progress: Callable[[int, int], object] | None = None,
    threads: int = 4,
) -> Overview:
    """Look through a data set.

    Args:
        splits: data sets by the names of their splits, at least one.
        read_images: decode every image, which finds the truncated ones.
        progress: called with the number of images read, and of all.
        threads: that read images.
    """
    found = Overview(splits)
    for name, data in splits.items():
        for entry in data.skipped:
            found.problems.append(Problem(name, entry.file, entry.reason, "box" if entry.box else "image"))
        for file, number in data.clipped.items():
            reason = f"{number} {'box reaches' if number == 1 else 'boxes reach'} over the edge of the image"
            found.problems.append(Problem(name, file, reason, "clipped"))
        found.problems += _doubled(name, data)
    found.problems += _shared(splits)
    if read_images:
        found.problems += _unreadable(splits, progress or (lambda done, total: None), threads)
    # A file that several splits have is the same problem.
    found.problems = list({(problem.file, problem.reason): problem for problem in reversed(found.problems)}.values())[::-1]
    try:
        found.advice = recommend_size(found.images)
    except DataError:
        found.advice = None
    return found


def _doubled(split: str, data: Dataset) -> list[Problem]:
    """Boxes that an image has twice, with the same class."""
    problems = []
    for index in range(len(data)):
        target = data.target(index)
        rows = Counter(zip(map(tuple, target["boxes"].tolist()), target["labels"].tolist(), strict=True))
        twice = sum(number - 1 for number in rows.values())
        if twice:
            reason = f"{twice} {'box is' if twice == 1 else 'boxes are'} given twice"
            problems.append(Problem(split, data.file(index), reason, "double"))
    return problems


def _shared(splits: dict[str, Dataset]) -> list[Problem]:
    """Images that several splits have; a `trainval` is expected to share its own."""
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for name, data in splits.items():
        if split_name(name) not in ("train", "val", "test"):
            continue
        for index in range(len(data)):
            file = data.file(index)
            if (other := seen.setdefault(file, name)) != name:
                problems.append(Problem(name, file, f"the split {other} has this image as well", "shared"))
    return problems


def _unreadable(splits: dict[str, Dataset], progress: Callable[[int, int], object], threads: int) -> list[Problem]:
    images = {data.file(index): (name, index) for name, data in splits.items() for index in range(len(data))}

    def check(file: str) -> Problem | None:
        name, index = images[file]
        try:
            splits[name].read(index, (16, 16))  # a JPEG's data are read to their end, but at an eighth of its size
        except UnreadableImage as error:
            return Problem(name, error.file, error.reason, "image")
        return None

    problems = []
    with ThreadPoolExecutor(threads) as pool:
        for number, problem in enumerate(pool.map(check, images), start=1):
            progress(number, len(images))
            if problem is not None:
                problems.append(problem)
    return problems


def sample_indices(splits: Sequence[Dataset], number: int) -> list[tuple[int, int]]:
    """(split, index) of so many images, evenly spread over all."""
    everything = [(split, index) for split, data in enumerate(splits) for index in range(len(data))]
    places = np.linspace(0, len(everything) - 1, min(number, len(everything))).round().astype(int)
    return [everything[place] for place in places.tolist()]
