"""The ground truth: a dictionary in COCO's annotation format, checked once and held as arrays."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

from nasdsl.evaluation.errors import SHOWN, EvaluationError, refuse

ImageId = int | str
Box = tuple[float, float, float, float]


class Category(NamedTuple):
    """A class to find."""

    id: int
    name: str


class TrueBox(NamedTuple):
    """One annotated box.

    Attributes:
        box: x, y, width, height in pixels of the picture.
        area: in square pixels: COCO's is that of the segmentation, where there is one.
        crowd: the box is drawn round a group (COCO).
        difficult: whether it is found or not does not count (VOC).
    """

    image_id: ImageId
    category_id: int
    box: Box
    area: float
    crowd: bool
    difficult: bool

    @property
    def counts(self) -> bool:
        """Whether it is to be found: neither crowd nor difficult."""
        return not (self.crowd or self.difficult)


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """A checked ground truth.

    Attributes:
        image_ids: sorted; all of one type. Pictures without a box are among them: what is detected there is wrong.
        categories: sorted by id.
        boxes: in the order of the annotations.
    """

    image_ids: tuple[ImageId, ...]
    categories: tuple[Category, ...]
    boxes: tuple[TrueBox, ...]

    @classmethod
    def of(cls, ground_truth: Mapping[str, Any] | GroundTruth) -> GroundTruth:
        """From a dictionary with `images`, `annotations` and `categories` as in COCO's `instances_*.json`.

        Of an image, only `id` is read; of a category, `id` and `name`; of an annotation, `image_id`, `category_id`,
        `bbox` (x, y, width, height), and where they are given `area` (else width x height), `iscrowd` and `difficult`
        (else false). COCO's format: https://cocodataset.org/#format-data

        Raises:
            EvaluationError: for entries that are missing, not finite, of a wrong type, or that refer to an unknown id.
        """
        if isinstance(ground_truth, GroundTruth):
            return ground_truth
        for key in ("images", "annotations", "categories"):
            if not isinstance(ground_truth.get(key), list | tuple):
                found = ", ".join(map(str, list(ground_truth)[:SHOWN])) or "nothing"
                raise EvaluationError(
                    f"ground truth: no list `{key}`; expected images, annotations and categories, found {found}"
                )
        images = _image_ids(ground_truth["images"])
        categories = _categories(ground_truth["categories"])
        boxes = _boxes(ground_truth["annotations"], set(images), {c.id for c in categories})
        return cls(images, categories, boxes)


def only_images(ground_truth: Mapping[str, Any], image_ids: Collection[ImageId]) -> dict[str, Any]:
    """The ground truth of some of the images: for results of a part of a dataset, or without pictures that nobody could read.

    Raises:
        EvaluationError: where an id is not in the ground truth.
    """
    wanted = set(image_ids)
    unknown = wanted - {image["id"] for image in ground_truth["images"]}
    refuse("images to keep", [f"image id {i!r} is not in the ground truth" for i in sorted(unknown, key=str)])
    return {
        **ground_truth,
        "images": [image for image in ground_truth["images"] if image["id"] in wanted],
        "annotations": [a for a in ground_truth["annotations"] if a["image_id"] in wanted],
    }


def read_ground_truth(path: str | Path) -> dict[str, Any]:
    """The ground truth in a JSON file, such as COCO's `instances_val2017.json`, unchanged but checked.

    Raises:
        EvaluationError: where the file is no JSON, or no ground truth (see `GroundTruth.of`).
        OSError: where it cannot be read.
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
    """What a JSON file holds; an `EvaluationError` names the file and the line where it is none."""
    try:
        return json.loads(Path(path).read_bytes())
    except json.JSONDecodeError as error:
        raise EvaluationError(f"{path}: no JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise EvaluationError(f"{path}: no JSON: {error}") from None


def finite(value: object) -> bool:
    """Whether a value is a number (no bool) that can be computed with."""
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def known(id: object, ids: Collection[Any]) -> bool:
    """Whether `ids`, a set or a mapping, has an id that came out of a file and may be anything."""
    return isinstance(id, int | str) and id in ids


def box_finding(box: object) -> str | None:
    """What is wrong with a box of a JSON file; None for four finite numbers x, y, width >= 0, height >= 0."""
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(finite, box)):
        return f"bbox is {box!r}; expected four finite numbers x, y, width, height"
    if box[2] < 0 or box[3] < 0:
        return f"bbox is {box!r}; expected width and height of 0 or more"
    return None


def _image_ids(images: Sequence[Any]) -> tuple[ImageId, ...]:
    findings: list[str] = []
    seen: set[ImageId] = set()
    for number, image in enumerate(images):
        found = image.get("id") if isinstance(image, Mapping) else None
        if not isinstance(found, int | str) or isinstance(found, bool):
            findings.append(f"images[{number}]: id is {found!r}; expected an integer or a string")
        elif found in seen:
            findings.append(f"images[{number}]: id {found!r} is there twice")
        else:
            seen.add(found)
    if len({type(i) for i in seen}) > 1:
        findings.append("images: some ids are integers and some are strings; expected one type")
    refuse("ground truth", findings)
    return tuple(sorted(seen))


def _categories(categories: Sequence[Any]) -> tuple[Category, ...]:
    findings: list[str] = []
    seen: dict[int, Category] = {}
    for number, category in enumerate(categories):
        found = category if isinstance(category, Mapping) else {}
        id, name = found.get("id"), found.get("name")
        if not isinstance(id, int) or isinstance(id, bool) or not isinstance(name, str):
            findings.append(f"categories[{number}]: {category!r}; expected an object with an integer id and a name")
        elif id in seen:
            findings.append(f"categories[{number}]: id {id} is there twice")
        else:
            seen[id] = Category(id, name)
    refuse("ground truth", findings)
    return tuple(seen[id] for id in sorted(seen))


def _boxes(annotations: Sequence[Any], image_ids: set[ImageId], category_ids: set[int]) -> tuple[TrueBox, ...]:
    findings: list[str] = []
    boxes = []
    for number, annotation in enumerate(annotations):
        if not isinstance(annotation, Mapping):
            findings.append(f"annotations[{number}]: {annotation!r}; expected an object")
            continue
        finding = box_finding(annotation.get("bbox"))
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        if not known(image_id, image_ids):
            finding = f"image_id {image_id!r} is the id of no image"
        elif not known(category_id, category_ids):
            finding = f"category_id {category_id!r} is the id of no category"
        elif "area" in annotation and not finite(annotation["area"]):
            finding = f"area is {annotation['area']!r}; expected a finite number"
        if finding is not None:
            findings.append(f"annotations[{number}] (id {annotation.get('id')!r}): {finding}")
            continue
        x, y, width, height = map(float, annotation["bbox"])
        area = float(annotation.get("area", width * height))
        crowd, difficult = bool(annotation.get("iscrowd", False)), bool(annotation.get("difficult", False))
        boxes.append(TrueBox(image_id, category_id, (x, y, width, height), area, crowd, difficult))  # type: ignore[arg-type]
    refuse("ground truth", findings)
    return tuple(boxes)
