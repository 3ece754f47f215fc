"""COCO folders: annotations/instances_SPLIT.json, and the pictures in SPLIT, images/SPLIT or images.

Format: https://cocodataset.org/#format-data. Boxes are x, y, width, height there, continuous and 0-based.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeGuard

from nasdsl.data.dataset import Annotation, Dataset, Size
from nasdsl.data.errors import DataError, ImageId, NoSplit, Skipped, UnreadableImage
from nasdsl.data.images import image_size


class _Malformed(ValueError):
    """The reason why an entry cannot be used."""


def open_coco(place: str | Path, split: str, *, on_error: str = "skip", classes: Sequence[str] | None = None) -> Dataset:
    """A COCO folder. Image and category ids are kept as they are; crowd boxes are kept with their flag.

    Pictures without annotations are kept: they have only background.

    Args:
        split: SPLIT in annotations/instances_SPLIT.json; train and val also find train2017 and val2017.
        classes: names in the order of their labels; objects of other names are left out (`Dataset.left_out`).
            None: all categories by ascending id.

    Raises:
        BrokenData: something in it is broken, and ``on_error="refuse"``.
        DataError: no such folder or split, the JSON cannot be read, or nothing usable is in it.
    """
    root = Path(place)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    file, names = _annotation_file(root, split)
    content = _read(file)
    categories = _categories(file, content["categories"])
    labels = _labels(file, categories, classes)
    reader = _Reader(root, file, names, labels, set(categories))
    for number, entry in enumerate(content["images"]):
        reader.take_image(number, entry)
    for number, entry in enumerate(content["annotations"]):
        reader.take_annotation(number, entry)
    name_of = {category: name for category, name in categories.items() if category in labels}
    return Dataset(
        f"coco:{place} ({split})",
        [name_of[category] for category in labels],
        list(labels),
        [annotation.record() for annotation in reader.annotations.values()],
        skipped=reader.skipped + [entry for annotation in reader.annotations.values() for entry in annotation.skipped],
        on_error=on_error,
        clipped={annotation.file: annotation.clipped for annotation in reader.annotations.values() if annotation.clipped},
        left_out={categories[category]: number for category, number in reader.left_out.items()},
    )


def _annotation_file(root: Path, split: str) -> tuple[Path, list[str]]:
    """The file, and the names that the folder of pictures may have."""
    names = [split, f"{split}2017"] if split in ("train", "val") else [split]
    for name in names:
        file = root / "annotations" / f"instances_{name}.json"
        if file.is_file():
            return file, list(dict.fromkeys([name, *names]))
    found = sorted(path.stem.removeprefix("instances_") for path in (root / "annotations").glob("instances_*.json"))
    expected = root / "annotations" / f"instances_{split}.json"
    raise NoSplit(f"{expected}: no such split; there are: {', '.join(found) or 'none'}")


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:  # of ValueError: JSON, UTF-8, numbers too long
        raise DataError(f"{file}: cannot be read as JSON: {error}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{file}: not COCO's instances format: expected an object with a list {key!r}")
    return dict(content)


def _categories(file: Path, entries: list[Any]) -> dict[int, str]:
    categories: dict[int, str] = {}
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not isinstance(entry.get("name"), str):
            raise DataError(f"{file}: categories[{number}] is {_short(entry)}: expected an integer id and a name")
        if entry["id"] in categories:
            raise DataError(f"{file}: categories[{number}]: the id {entry['id']} is given twice")
        categories[entry["id"]] = entry["name"]
    if not categories:
        raise DataError(f"{file}: it has no categories")
    return categories


def _labels(file: Path, categories: dict[int, str], classes: Sequence[str] | None) -> dict[int, int]:
    """Category id -> label, in the order of the labels."""
    if classes is None:
        return {category: label for label, category in enumerate(sorted(categories))}
    ids: dict[str, list[int]] = {}
    for category, name in categories.items():
        ids.setdefault(name, []).append(category)
    for name in classes:
        if len(ids.get(name, ())) != 1 or list(classes).count(name) != 1:
            raise DataError(f"{file}: classes= names {name!r}; expected each once, of: {', '.join(sorted(ids))}")
    if not classes:
        raise DataError(f"{file}: classes= is empty")
    return {ids[name][0]: label for label, name in enumerate(classes)}


class _Reader:
    """Takes first the images, then the annotations, one after another."""

    def __init__(self, root: Path, file: Path, names: list[str], labels: dict[int, int], known: set[int]) -> None:
        self.annotations: dict[ImageId, Annotation] = {}
        self.skipped: list[Skipped] = []
        self.left_out: Counter[int] = Counter()
        self._folders = [root / name for name in names] + [root / "images" / name for name in names] + [root / "images"]
        self._folders = [folder for folder in self._folders if folder.is_dir()]
        self._expected = root / names[0]
        self._file = file
        self._labels = labels
        self._known = known
        self._lost: set[ImageId] = set()
        self._ids: set[int] = set()

    def take_image(self, number: int, entry: Any) -> None:
        source, image_id = f"{self._file}: images[{number}]", None
        try:
            image_id = _image_id(entry, "id")
            if image_id in self.annotations or image_id in self._lost:
                source, image_id = f"{source}, id {image_id!r}", None
                raise _Malformed("the id is given twice")
            picture = self._picture(entry)
            self.annotations[image_id] = Annotation(image_id, picture, _size(entry) or image_size(picture))
        except UnreadableImage as error:
            self.skipped.append(Skipped(error.file, error.reason, image_id))
        except _Malformed as error:
            self.skipped.append(Skipped(source, str(error), image_id))
        if image_id is not None and image_id not in self.annotations:
            self._lost.add(image_id)

    def take_annotation(self, number: int, entry: Any) -> None:
        source = f"{self._file}: annotations[{number}]"
        image_id = None
        try:
            image_id = _image_id(entry, "image_id")
            if image_id in self._lost:
                return  # its picture is named already
            if image_id not in self.annotations:
                raise _Malformed(f"image_id {image_id!r} is of no image")
            self._take_box(source, self.annotations[image_id], entry)
        except _Malformed as error:
            self.skipped.append(Skipped(source, str(error), image_id, box=True))

    def _take_box(self, source: str, annotation: Annotation, entry: dict[str, Any]) -> None:
        number, category = entry.get("id"), entry.get("category_id")
        if _is_id(number):
            if number in self._ids:
                raise _Malformed(f"the id {number} is given twice")
            self._ids.add(number)
        if not _is_id(category) or category not in self._known:
            raise _Malformed(f"category_id {_short(category)} is of no category")
        if category not in self._labels:
            self.left_out[category] += 1
            return
        bbox = entry.get("bbox")
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
            raise _Malformed(f"bbox is {_short(bbox)}: expected four numbers")
        x, y, width, height = (float(value) for value in bbox)
        area = entry.get("area")
        annotation.add(
            source,
            f"image {annotation.image_id}",
            [x, y, x + width, y + height],
            self._labels[category],
            crowd=entry.get("iscrowd") in (1, True),
            difficult=entry.get("difficult") in (1, True),
            area=float(area) if _is_number(area) and math.isfinite(area) and area >= 0 else width * height,
        )

    def _picture(self, entry: dict[str, Any]) -> str:
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            raise _Malformed(f"file_name is {_short(name)}: expected the name of a file")
        # Windows' rules as well, under which `\` separates and `C:x` leaves the folder.
        if name.startswith(("/", "\\")) or name[1:2] == ":" or ".." in name.replace("\\", "/").split("/"):
            raise _Malformed(f"file_name {name!r} leads out of the folder of pictures")
        for folder in self._folders:
            path = f"{folder}/{name}"
            if os.path.isfile(path):  # far faster than Path, and COCO has 118,287 of them
                return path
        raise UnreadableImage(f"{self._expected}/{name}", "no such file")


def _image_id(entry: Any, key: str) -> ImageId:
    if not isinstance(entry, dict):
        raise _Malformed(f"{_short(entry)} where an object was expected")
    value = entry.get(key)
    if _is_id(value):
        return value
    if isinstance(value, str) and value:
        return value
    raise _Malformed(f"{key} is {_short(value)}: expected an integer or a string")


def _size(entry: dict[str, Any]) -> Size | None:
    """(H, W), or None where it is not given."""
    height, width = entry.get("height"), entry.get("width")
    if height is None or width is None or (height, width) == (0, 0):
        return None
    if not _is_id(height) or not _is_id(width) or height <= 0 or width <= 0:
        raise _Malformed(f"width {_short(width)} and height {_short(height)}: expected positive integers")
    return height, width


def _is_id(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, float) or (_is_id(value) and abs(value) < 2**53)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
