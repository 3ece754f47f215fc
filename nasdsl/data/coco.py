"""COCO: a JSON file for each split, in one of many layouts of folders.

Format: https://cocodataset.org/#format-data. Boxes are x, y, width, height there, continuous and 0-based.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from nasdsl.coco_json import ImageId, ImageIds, to_flag, to_image_id, to_integer, to_integer_id
from nasdsl.data.coco_layout import CocoLayout, ImageFinder
from nasdsl.data.dataset import RecordBuilder, Size
from nasdsl.data.errors import DataError, Skipped, UnreadableImage
from nasdsl.data.images import image_size
from nasdsl.data.layouts import Listing, inside
from nasdsl.data.source import Contents, Source, choose_classes
from nasdsl.files import read_json


class _Malformed(ValueError):
    """An entry cannot be used; the message says why."""


class CocoSource(Source):
    """COCO's JSON files and images, in the layouts that `CocoLayout` describes.

    Image and category ids are those of the file; crowd boxes are kept with their flag. Images without annotations are kept, as
    background. Ids may be whole floats (``12.0``), or digits in quotes in one list and numbers in another; see
    `nasdsl.coco_json.ImageIds`. Ids of annotations are not used. The classes are all categories by ascending id, and only these
    can be asked for.

    Raises:
        DataError: there are no such JSON files, or several data sets.
    """

    form = "coco"

    def __init__(self, place: str, listing: Listing, file: str | None = None) -> None:
        self.place = place
        self._layout = CocoLayout(listing, file)
        self.splits = self._layout.splits

    def missing_split(self, split: str) -> str:
        return self._layout.missing_split(split)

    def read(self, split: str | None, classes: Sequence[str] | None) -> Contents:
        """See `Source.read`. Two classes of one name are an error."""
        path = self._layout.file(split)
        file = self._layout.listing.root / path
        content = _read(file)
        categories = _categories(file, content["categories"])
        notes = []
        if (group := _unused_group(content)) in categories:
            notes.append(f"the category {categories.pop(group)!r} is left out: no box has it, and it is a group of the others")
        labels = _labels(file, categories, classes, content["annotations"])
        reader = _Reader(self._layout.image_finder(split), file, labels, categories, content["images"])
        for number, entry in enumerate(content["images"]):
            reader.read_image_entry(number, entry)
        for number, entry in enumerate(content["annotations"]):
            reader.read_annotation(number, entry)
        if reader.repeated_ids:
            notes.append(
                f"annotations with the id of an earlier one: {reader.repeated_ids}; their boxes are kept under new ids"
            )
        names = [categories[category] for category in labels]
        return Contents(names, list(labels), list(reader.images.values()), reader.skipped, notes)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:  # of ValueError: JSON, UTF-8, numbers too long
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


def _unused_group(content: Mapping[str, Any]) -> int | None:
    """Id of the category that Roboflow puts first: the name of the project, the supercategory of all others, on no box."""
    entries = [entry for entry in content["categories"] if isinstance(entry, dict)]
    groups = {entry.get("supercategory") for entry in entries[1:]}
    if len(entries) < 2 or entries[0].get("supercategory") not in ("none", None, "") or groups != {entries[0].get("name")}:
        return None
    group = to_integer_id(entries[0].get("id"))
    used = {to_integer_id(entry.get("category_id")) for entry in content["annotations"] if isinstance(entry, dict)}
    return None if group in used else group


def _labels(
    file: Path, categories: Mapping[int, str], classes: Sequence[str] | None, annotations: Sequence[Any]
) -> dict[int, int]:
    """Labels by category id, in the order of the labels."""
    ids: dict[str, list[int]] = {}
    for category, name in categories.items():
        ids.setdefault(name, []).append(category)
    names = choose_classes(str(file), list(ids), classes)
    for name in names:
        if len(ids[name]) > 1:
            raise DataError(f"{file}: {_same_name_message(name, ids[name], annotations)}")
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
        images: the usable images, by id.
        skipped: broken images and malformed annotations.
        repeated_ids: number of annotations with the id of an earlier one.
    """

    def __init__(
        self, finder: ImageFinder, file: Path, labels: dict[int, int], categories: Mapping[int, str], images: Sequence[Any]
    ) -> None:
        self.images: dict[ImageId, RecordBuilder] = {}
        self.skipped: list[Skipped] = []
        self.repeated_ids = 0
        self._finder = finder
        self._file = file
        self._labels = labels
        self._categories = categories
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
            if image is None or image in self.images or image in self._unusable:
                source, image = f"{source}, id {given!r}", None
                raise _Malformed("the id is given twice")
            path = self._image_file(entry)
            self.images[image] = RecordBuilder(image, path, _size(entry) or image_size(path))
        except UnreadableImage as error:
            self.skipped.append(Skipped(error.file, error.reason, image))
        except _Malformed as error:
            self.skipped.append(Skipped(source, str(error), image))
        if image is not None and image not in self.images:
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
                self._read_box(source, self.images[image], entry)
        except _Malformed as error:
            usable = self.images.get(image) if image is not None else None
            (self.skipped if usable is None else usable.skipped).append(Skipped(source, str(error), image, box=True))

    def _read_box(self, source: str, builder: RecordBuilder, entry: dict[str, Any]) -> None:
        category = to_integer_id(entry.get("category_id"))
        if category is None or category not in self._categories:
            raise _Malformed(f"category_id {_short(entry.get('category_id'))} is the id of no category")
        if category not in self._labels:
            builder.leave_out(self._categories[category])
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
        if (path := inside(name)) is None:
            raise _Malformed(f"file_name {name!r} leads out of the folder of images")
        return self._finder.find(path)


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
