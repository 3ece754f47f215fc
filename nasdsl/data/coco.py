"""COCO folders: annotations/instances_SPLIT.json, and the images in SPLIT, images/SPLIT or images.

Format: https://cocodataset.org/#format-data. Boxes are x, y, width, height there, continuous and 0-based.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from nasdsl.coco_json import ImageId, ImageIds, to_flag, to_image_id, to_integer, to_integer_id
from nasdsl.data.dataset import Dataset, RecordBuilder, Size
from nasdsl.data.errors import DataError, NoSplit, Skipped, UnreadableImage
from nasdsl.data.images import image_size
from nasdsl.data.layouts import coco_splits, describe_layout, existing_folder


class _Malformed(ValueError):
    """An entry cannot be used; the message says why."""


def open_coco(place: str | Path, split: str, *, on_error: str = "skip", classes: Sequence[str] | None = None) -> Dataset:
    """Open a COCO folder. Image and category ids are those of the file; crowd boxes are kept with their flag.

    Images without annotations are kept, as background. Ids may be whole floats (``12.0``), or digits in quotes in one list
    and numbers in another; see `nasdsl.coco_json.ImageIds`. Ids of annotations are not used.

    Args:
        split: SPLIT in annotations/instances_SPLIT.json; train and val also find train2017 and val2017.
        classes: class names by label; objects of other classes are left out (`Dataset.left_out`). None: all categories by
            ascending id.

    Raises:
        BrokenData: an image or box is broken, and ``on_error="refuse"``.
        DataError: there is no such folder or split, the JSON cannot be read, two classes have one name, or there is no
            usable image.
    """
    root = existing_folder(place)
    file, names = _annotation_file(root, split)
    content = _read(file)
    categories = _categories(file, content["categories"])
    labels = _labels(file, categories, classes, content["annotations"])
    reader = _Reader(root, file, names, labels, set(categories), content["images"])
    for number, entry in enumerate(content["images"]):
        reader.read_image_entry(number, entry)
    for number, entry in enumerate(content["annotations"]):
        reader.read_annotation(number, entry)
    builders = reader.builders.values()
    notes = []
    if reader.repeated_ids:
        notes.append(f"annotations with the id of an earlier one: {reader.repeated_ids}; their boxes are kept under new ids")
    return Dataset(
        f"coco:{place} ({split})",
        [categories[category] for category in labels],
        list(labels),
        [builder.build() for builder in builders],
        skipped=reader.skipped + [entry for builder in builders for entry in builder.skipped],
        on_error=on_error,
        clipped={builder.file: builder.clipped for builder in builders if builder.clipped},
        left_out={categories[category]: number for category, number in reader.left_out.items()},
        notes=notes,
    )


def _annotation_file(root: Path, split: str) -> tuple[Path, list[str]]:
    """The annotation file, and names that the folder of images may have."""
    names = [split, f"{split}2017"] if split in ("train", "val") else [split]
    for name in names:
        file = root / "annotations" / f"instances_{name}.json"
        if file.is_file():
            return file, list(dict.fromkeys([name, *names]))
    expected = [f"annotations/instances_{name}.json" for name in names]
    splits = coco_splits(root)
    if not splits:
        raise DataError(f"{root}: not COCO's layout: expected {' or '.join(expected)}, found {describe_layout(root)}")
    message = f"{root / expected[0]}: no such split; there are: {', '.join(splits)}"
    if splits == ["default"]:
        message += " (CVAT's name for all images); open this split, or divide its file into one for each split"
    raise NoSplit(message)


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
    """Names by id, in ascending order."""
    categories: dict[int, str] = {}
    for number, entry in enumerate(entries):
        category = to_integer_id(entry.get("id")) if isinstance(entry, dict) else None
        if category is None or not isinstance(entry.get("name"), str):
            raise DataError(f"{file}: categories[{number}] is {_short(entry)}: expected an integer id and a name")
        if category in categories:
            raise DataError(f"{file}: categories[{number}]: the id {category} is given twice")
        categories[category] = entry["name"]
    if not categories:
        raise DataError(f"{file}: it has no categories")
    return dict(sorted(categories.items()))


def _labels(
    file: Path, categories: Mapping[int, str], classes: Sequence[str] | None, annotations: Sequence[Any]
) -> dict[int, int]:
    """Labels by category id, in the order of the labels."""
    ids: dict[str, list[int]] = {}
    for category, name in categories.items():
        ids.setdefault(name, []).append(category)
    names = list(ids) if classes is None else list(classes)
    if not names:
        raise DataError(f"{file}: the list of classes is empty")
    for name in names:
        if name not in ids:
            raise DataError(f"{file}: there is no category {name!r}; expected classes among: {', '.join(sorted(ids))}")
        if len(ids[name]) > 1:
            raise DataError(f"{file}: {_same_name_message(name, ids[name], annotations)}")
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"{file}: two of the classes are named {twice!r}; expected each name once")
    return {ids[name][0]: label for label, name in enumerate(names)}


def _same_name_message(name: str, ids: Sequence[int], annotations: Sequence[Any]) -> str:
    """Error message about categories of one name, with the number of annotations of each."""
    used = Counter(to_integer_id(entry.get("category_id")) for entry in annotations if isinstance(entry, dict))
    listed = " and ".join(f"{id} ({used[id]} annotation{'' if used[id] == 1 else 's'})" for id in ids)
    return (
        f"the categories with the ids {listed} are all named {name!r}, and classes are told apart by name: rename one, or, if "
        "they are the same class, keep one category and give its id to all their annotations"
    )


class _Reader:
    """Reads the entries of a file: first all images, then all annotations.

    Attributes:
        builders: records of the usable images, by image id.
        skipped: broken images and malformed annotations.
        left_out: number of annotations, by category id, whose category has no label.
        repeated_ids: number of annotations with the id of an earlier one.
    """

    def __init__(
        self, root: Path, file: Path, names: list[str], labels: dict[int, int], known: set[int], images: Sequence[Any]
    ) -> None:
        self.builders: dict[ImageId, RecordBuilder] = {}
        self.skipped: list[Skipped] = []
        self.left_out: Counter[int] = Counter()
        self.repeated_ids = 0
        candidates = [*names, *(f"images/{name}" for name in names), "images"]
        folders = [name for name in candidates if (root / name).is_dir()]
        self._folders = [root / name for name in folders]
        self._searched = f"looked in {', '.join(folders)}" if folders else f"there is no folder {', '.join(candidates)}"
        self._expected = root / names[0]
        self._file = file
        self._labels = labels
        self._known = known
        given = (to_image_id(entry.get("id")) for entry in images if isinstance(entry, dict))
        self._ids = ImageIds(id for id in given if id is not None)
        self._unusable: set[ImageId] = set()
        self._annotation_ids: set[int | float | str] = set()

    def read_image_entry(self, number: int, entry: Any) -> None:
        """Take an entry of ``images``, or skip its image."""
        source, image = f"{self._file}: images[{number}]", None
        try:
            given = _image_id(entry, "id")
            image = self._ids.find(given)
            if image is None or image in self.builders or image in self._unusable:
                source, image = f"{source}, id {given!r}", None
                raise _Malformed("the id is given twice")
            path = self._image_file(entry)
            self.builders[image] = RecordBuilder(image, path, _size(entry) or image_size(path))
        except UnreadableImage as error:
            self.skipped.append(Skipped(error.file, error.reason, image))
        except _Malformed as error:
            self.skipped.append(Skipped(source, str(error), image))
        if image is not None and image not in self.builders:
            self._unusable.add(image)

    def read_annotation(self, number: int, entry: Any) -> None:
        """Take an entry of ``annotations``, or skip its box."""
        source = f"{self._file}: annotations[{number}]"
        image = None
        try:
            reference = _image_id(entry, "image_id")
            image = self._ids.find(reference)
            if image is None:
                raise _Malformed(f"image_id {reference!r} {self._ids.ambiguity(reference) or 'is the id of no image'}")
            if image not in self._unusable:  # otherwise the image itself is in `skipped`
                self._read_box(source, self.builders[image], entry)
        except _Malformed as error:
            self.skipped.append(Skipped(source, str(error), image, box=True))

    def _read_box(self, source: str, builder: RecordBuilder, entry: dict[str, Any]) -> None:
        category = to_integer_id(entry.get("category_id"))
        if category is None or category not in self._known:
            raise _Malformed(f"category_id {_short(entry.get('category_id'))} is the id of no category")
        if category not in self._labels:
            self.left_out[category] += 1
            return
        bbox = entry.get("bbox")
        if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
            raise _Malformed(f"bbox is {_short(bbox)}: expected four numbers")
        self._count_id(entry.get("id"))
        x, y, width, height = (float(value) for value in bbox)
        area = entry.get("area")
        builder.add(
            source,
            f"image {builder.image_id}",
            [x, y, x + width, y + height],
            self._labels[category],
            crowd=to_flag(entry.get("iscrowd")),
            difficult=to_flag(entry.get("difficult")),
            area=float(area) if _is_number(area) and math.isfinite(area) and area >= 0 else width * height,
        )

    def _count_id(self, id: Any) -> None:
        # Some converters number the annotations of each image from 1, or give all of them the id 0.
        if isinstance(id, int | float | str):
            self.repeated_ids += id in self._annotation_ids
            self._annotation_ids.add(id)

    def _image_file(self, entry: dict[str, Any]) -> str:
        """Path of the image file."""
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            raise _Malformed(f"file_name is {_short(name)}: expected the name of a file")
        # By Windows' rules as well, where `\` separates and `C:x` is outside of the folder.
        if name.startswith(("/", "\\")) or name[1:2] == ":" or ".." in name.replace("\\", "/").split("/"):
            raise _Malformed(f"file_name {name!r} leads out of the folder of pictures")
        for folder in self._folders:
            path = f"{folder}/{name}"
            if os.path.isfile(path):  # far faster than Path, and COCO has 118,287 of them
                return path
        raise UnreadableImage(f"{self._expected}/{name}", f"no such file ({self._searched})")


def _image_id(entry: Any, key: str) -> ImageId:
    if not isinstance(entry, dict):
        raise _Malformed(f"{_short(entry)} where an object was expected")
    id = to_image_id(entry.get(key))
    if id is None or id == "":
        raise _Malformed(f"{key} is {_short(entry.get(key))}: expected an integer or a string")
    return id


def _size(entry: dict[str, Any]) -> Size | None:
    """(H, W), or None where it is not given."""
    if entry.get("height") is None or entry.get("width") is None or (entry["height"], entry["width"]) == (0, 0):
        return None
    height, width = to_integer(entry["height"]), to_integer(entry["width"])
    if height is None or width is None or height <= 0 or width <= 0:
        given = f"width {_short(entry['width'])} and height {_short(entry['height'])}"
        raise _Malformed(f"{given}: expected positive integers")
    return height, width


def _is_number(value: Any) -> TypeGuard[float]:
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
