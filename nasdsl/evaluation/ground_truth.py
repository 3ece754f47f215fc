"""Ground truth in COCO's annotation format: reading, checking, and picking images."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from nasdsl import files
from nasdsl.coco_json import ImageId, ImageIds, to_flag, to_image_id, to_integer_id
from nasdsl.evaluation.errors import MAX_LISTED, EvaluationError, raise_problems

Box = tuple[float, float, float, float]
"""x, y, width, height in pixels of the image."""


class Category(NamedTuple):
    """A class, with its id in the files."""

    id: int
    name: str


class GroundTruthBox(NamedTuple):
    """An annotated box.

    Attributes:
        area: of the object in square pixels; in COCO, of its mask.
        crowd: the box is around a group (COCO).
        difficult: detecting the object or not changes no metric (VOC).
    """

    image_id: ImageId
    category_id: int
    box: Box
    area: float
    crowd: bool
    difficult: bool

    @property
    def counts(self) -> bool:
        """Whether it is to be detected: neither crowd nor difficult."""
        return not (self.crowd or self.difficult)


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """A checked ground truth.

    Attributes:
        image_ids: sorted, all of one type. Images without boxes are included, as detections on them are wrong.
        categories: sorted by id.
        boxes: in the order of the annotations.
    """

    image_ids: tuple[ImageId, ...]
    categories: tuple[Category, ...]
    boxes: tuple[GroundTruthBox, ...]

    @classmethod
    def of(cls, ground_truth: Mapping[str, Any] | GroundTruth) -> GroundTruth:
        """Check a dictionary with `images`, `annotations` and `categories` as in COCO's `instances_*.json`.

        Read are an image's `id`; a category's `id` and `name`; and an annotation's `image_id`, `category_id`, `bbox` (x, y,
        width, height), and if given `area` (else width x height), `iscrowd` and `difficult` (else false). Ids may be spelled
        as `nasdsl.coco_json` says. COCO's format: https://cocodataset.org/#format-data

        Args:
            ground_truth: the dictionary, or what this function made of it.

        Raises:
            EvaluationError: an entry is missing, not finite, of a wrong type, or refers to an unknown id.
        """
        if isinstance(ground_truth, GroundTruth):
            return ground_truth
        for key in ("images", "annotations", "categories"):
            if not isinstance(ground_truth.get(key), list | tuple):
                found = ", ".join(map(str, list(ground_truth)[:MAX_LISTED])) or "nothing"
                raise EvaluationError(
                    f"ground truth: no list `{key}`; expected images, annotations and categories, found {found}"
                )
        ids = _image_ids(ground_truth["images"])
        categories = _categories(ground_truth["categories"])
        boxes = _boxes(ground_truth["annotations"], ids, {category.id for category in categories})
        return cls(tuple(sorted(ids.ids)), categories, boxes)


def only_images(ground_truth: Mapping[str, Any], image_ids: Collection[ImageId]) -> dict[str, Any]:
    """The part of a ground truth that is about some of its images, such as those that could be read.

    Raises:
        EvaluationError: an id is not in the ground truth.
    """
    ids = _image_ids(ground_truth["images"])
    unknown = sorted((id for id in image_ids if ids.find(id) is None), key=str)
    raise_problems("images to keep", [f"image id {id!r} is not in the ground truth" for id in unknown])
    kept = {ids.find(id) for id in image_ids}
    return {
        **ground_truth,
        "images": [image for image in ground_truth["images"] if ids.find(image["id"]) in kept],
        "annotations": [entry for entry in ground_truth["annotations"] if ids.find(entry["image_id"]) in kept],
    }


def read_ground_truth(path: str | Path) -> dict[str, Any]:
    """Read and check a ground truth in a JSON file, such as COCO's `instances_val2017.json`. Its entries are not changed.

    Raises:
        EvaluationError: the file is not JSON, or not a ground truth (see `GroundTruth.of`).
        OSError: it cannot be read.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise EvaluationError(f"{path}: a {type(value).__name__}; expected an object with images, annotations and categories")
    try:
        GroundTruth.of(value)
    except EvaluationError as error:
        raise EvaluationError(f"{path}: {error}") from None
    return value


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        EvaluationError: it is not JSON; the message names the file and the line.
        OSError: it cannot be read.
    """
    try:
        return files.read_json(path)
    except json.JSONDecodeError as error:
        raise EvaluationError(f"{path}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:  # not UTF-8, numbers too long, lists too deep
        raise EvaluationError(f"{path}: not JSON: {error}") from None


def is_finite(value: object) -> bool:
    """Whether a value is a finite number; booleans are not."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def box_problem(box: object) -> str | None:
    """What is wrong with a box of a JSON file; None for four finite numbers x, y, width >= 0, height >= 0."""
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_finite, box)):
        return f"bbox is {box!r}; expected four finite numbers x, y, width, height"
    if box[2] < 0 or box[3] < 0:
        return f"bbox is {box!r}; expected width and height of 0 or more"
    return None


def _image_ids(images: Sequence[Any]) -> ImageIds:
    problems: list[str] = []
    seen: set[ImageId] = set()
    for number, image in enumerate(images):
        found = image.get("id") if isinstance(image, Mapping) else None
        id = to_image_id(found)
        if id is None:
            problems.append(f"images[{number}]: id is {found!r}; expected an integer or a string")
        elif id in seen:
            problems.append(f"images[{number}]: id {id!r} is there twice")
        else:
            seen.add(id)
    ids = ImageIds(seen)
    strings = {id for id in ids.ids if isinstance(id, str)}
    if strings and strings != ids.ids:
        examples = f"{next(iter(ids.ids - strings))!r} and {min(strings)!r}"
        problems.append(f"images: some ids are integers and some are strings, such as {examples}; expected one type")
    raise_problems("ground truth", problems)
    return ids


def _categories(categories: Sequence[Any]) -> tuple[Category, ...]:
    problems: list[str] = []
    seen: dict[int, Category] = {}
    for number, category in enumerate(categories):
        found = category if isinstance(category, Mapping) else {}
        id, name = to_integer_id(found.get("id")), found.get("name")
        if id is None or not isinstance(name, str):
            problems.append(f"categories[{number}]: {category!r}; expected an object with an integer id and a name")
        elif id in seen:
            problems.append(f"categories[{number}]: id {id} is there twice")
        else:
            seen[id] = Category(id, name)
    raise_problems("ground truth", problems)
    return tuple(seen[id] for id in sorted(seen))


def _boxes(annotations: Sequence[Any], ids: ImageIds, category_ids: set[int]) -> tuple[GroundTruthBox, ...]:
    problems: list[str] = []
    boxes = []
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation, Mapping):
            problems.append(f"annotations[{number}]: {annotation!r}; expected an object")
            continue
        box = _box(annotation, ids, category_ids)
        if isinstance(box, str):
            problems.append(f"annotations[{number}] (id {annotation.get('id')!r}): {box}")
        else:
            boxes.append(box)
    raise_problems("ground truth", problems)
    return tuple(boxes)


def _box(annotation: Mapping[str, Any], ids: ImageIds, category_ids: set[int]) -> GroundTruthBox | str:
    """The box of an annotation, or what is wrong with it."""
    given_image, given_category = annotation.get("image_id"), annotation.get("category_id")
    image, category = ids.find(given_image), to_integer_id(given_category)
    if image is None:
        return f"image_id {given_image!r} {ids.ambiguity(given_image) or 'is the id of no image'}"
    if category is None or category not in category_ids:
        return f"category_id {given_category!r} is the id of no category"
    if "area" in annotation and not is_finite(annotation["area"]):
        return f"area is {annotation['area']!r}; expected a finite number"
    if (problem := box_problem(annotation.get("bbox"))) is not None:
        return problem
    x, y, width, height = map(float, annotation["bbox"])
    area = float(annotation.get("area", width * height))
    crowd, difficult = to_flag(annotation.get("iscrowd")), to_flag(annotation.get("difficult"))
    return GroundTruthBox(image, category, (x, y, width, height), area, crowd, difficult)
