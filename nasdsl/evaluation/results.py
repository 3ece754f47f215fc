"""Detections as COCO results: ``{"image_id", "category_id", "bbox": [x, y, width, height], "score"}`` each."""

from __future__ import annotations

import heapq
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasdsl.coco_json import ImageId, ImageIds, to_image_id, to_integer_id
from nasdsl.evaluation.errors import EvaluationError, raise_problems
from nasdsl.evaluation.ground_truth import GroundTruth, box_problem, is_finite, read_json
from nasdsl.files import write_bytes

Result = dict[str, Any]
"""A detection in COCO's form."""


class _Malformed(ValueError):
    """A result is malformed; the message says how."""


def to_results(
    detections: Sequence[Mapping[str, Any]], image_ids: Sequence[ImageId], category_ids: Sequence[int]
) -> list[Result]:
    """Convert detections to COCO results.

    Args:
        detections: for each image, a mapping as torchvision's detectors return it: `boxes` [k, 4] xyxy in pixels of the
            original image, `labels` [k], `scores` [k]; torch tensors (on any device) or numpy arrays.
        image_ids: ids of the same images.
        category_ids: category ids by label, such as `Dataset.category_ids`.

    Returns:
        Results in the order of the images and of their detections. Numbers are not rounded.

    Raises:
        EvaluationError: lengths differ, a label has no category, or a number is not finite.
    """
    if len(detections) != len(image_ids):
        raise EvaluationError(f"{len(detections)} detections for {len(image_ids)} image ids; expected one mapping an image")
    results = []
    for image_id, found in zip(image_ids, detections, strict=True):
        boxes, labels, scores = (found[key].tolist() for key in ("boxes", "labels", "scores"))
        if not len(boxes) == len(labels) == len(scores):
            counts = f"{len(boxes)} boxes, {len(labels)} labels, {len(scores)} scores"
            raise EvaluationError(f"image {image_id!r}: {counts}; expected as many of each")
        for (left, top, right, bottom), label, score in zip(boxes, labels, scores, strict=True):
            if not 0 <= label < len(category_ids):
                raise EvaluationError(f"image {image_id!r}: label {label}; expected 0 to {len(category_ids) - 1}")
            box = [left, top, right - left, bottom - top]
            results.append({"image_id": image_id, "category_id": category_ids[label], "bbox": box, "score": score})
    check_results(results)
    return results


def from_results(results: Sequence[Mapping[str, Any]], category_ids: Sequence[int]) -> dict[ImageId, dict[str, NDArray[Any]]]:
    """Convert COCO results to detections by image id; the inverse of `to_results`.

    Returns:
        For each image with results: `boxes` [k, 4] xyxy float64, `labels` [k] int64, `scores` [k] float64, best first.

    Raises:
        EvaluationError: a result is malformed, or its category is not in `category_ids`.
    """
    labels = {category_id: label for label, category_id in enumerate(category_ids)}
    results = checked_results(results)
    raise_problems(
        "results",
        [
            f"results[{number}]: category_id {result['category_id']!r}; expected one of {_some(labels)}"
            for number, result in enumerate(results)
            if result["category_id"] not in labels
        ],
    )
    by_image: dict[ImageId, list[Mapping[str, Any]]] = {}
    for result in results:
        by_image.setdefault(result["image_id"], []).append(result)
    return {image_id: _detections(found, labels) for image_id, found in by_image.items()}


def _detections(results: Sequence[Mapping[str, Any]], labels: Mapping[int, int]) -> dict[str, NDArray[Any]]:
    ranked = sorted(results, key=lambda result: -result["score"])
    boxes = np.array([result["bbox"] for result in ranked], dtype=np.float64)
    boxes[:, 2:] += boxes[:, :2]
    return {
        "boxes": boxes,
        "labels": np.array([labels[result["category_id"]] for result in ranked], dtype=np.int64),
        "scores": np.array([result["score"] for result in ranked], dtype=np.float64),
    }


def check_results(results: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any] | GroundTruth | None = None) -> None:
    """Raise an error for malformed results, and if a ground truth is given, for images and categories that it does not have.

    Raises:
        EvaluationError: lists the first ten problems: numbers that are not finite, negative widths and heights, unknown ids.
    """
    checked_results(results, ground_truth)


def checked_results(
    results: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any] | GroundTruth | None = None
) -> list[Mapping[str, Any]]:
    """As `check_results`; returns the results with ids as the ground truth has them (12 for ``12.0`` and ``"12"``).

    Raises:
        EvaluationError: as in `check_results`.
    """
    if not isinstance(results, list | tuple):
        raise EvaluationError(f"results: a {type(results).__name__}; expected a list of COCO results")
    ids: ImageIds | None = None
    category_ids: set[int] | None = None
    if ground_truth is not None:
        truth = GroundTruth.of(ground_truth)
        ids, category_ids = ImageIds(truth.image_ids), {category.id for category in truth.categories}
    checked: list[Mapping[str, Any]] = []
    problems: list[str] = []
    for number, result in enumerate(results):
        try:
            checked.append(_checked(result, ids, category_ids))
        except _Malformed as error:
            problems.append(f"results[{number}]: {error}")
    raise_problems("results", problems)
    return checked


def _checked(result: object, ids: ImageIds | None, category_ids: set[int] | None) -> Mapping[str, Any]:
    if not isinstance(result, Mapping):
        raise _Malformed(f"{result!r}; expected an object with image_id, category_id, bbox and score")
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in result]
    if missing:
        raise _Malformed(f"no {', '.join(missing)}; expected image_id, category_id, bbox and score")
    given_image, given_category = result["image_id"], result["category_id"]
    image, category = to_image_id(given_image), to_integer_id(given_category)
    if image is None:
        raise _Malformed(f"image_id is {given_image!r}; expected an integer or a string")
    if category is None:
        raise _Malformed(f"category_id is {given_category!r}; expected an integer")
    if ids is not None and (image := ids.find(given_image)) is None:
        unknown = f"is not in the ground truth; its ids are {_some(ids.ids)}"
        raise _Malformed(f"image_id {given_image!r} {ids.ambiguity(given_image) or unknown}")
    if category_ids is not None and category not in category_ids:
        raise _Malformed(f"category_id {given_category!r} is not in the ground truth; its ids are {_some(category_ids)}")
    if not is_finite(result["score"]):
        raise _Malformed(f"score is {result['score']!r}; expected a finite number")
    if (problem := box_problem(result["bbox"])) is not None:
        raise _Malformed(problem)
    if type(image) is type(given_image) and type(category) is type(given_category):
        return result
    return {**result, "image_id": image, "category_id": category}


def _some(ids: Collection[object], shown: int = 5) -> str:
    """The first few ids, enough to see that they are of another data set."""
    first = [repr(id) for id in heapq.nsmallest(shown, ids)]  # type: ignore[type-var]
    return ", ".join(first) + (f", … ({len(ids)} in all)" if len(ids) > shown else "") if first else "none"


def write_results(path: str | Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Write results as JSON, one per line, atomically. Reading them back gives equal numbers.

    Raises:
        EvaluationError: results are malformed; nothing is written.
    """
    check_results(results)
    text = ",\n".join(json.dumps(result, default=_plain) for result in results)
    write_bytes(Path(path), (f"[\n{text}\n]\n" if results else "[]\n").encode())


def _plain(number: Any) -> Any:
    """A number of Python for one of numpy."""
    return number.item()


def read_results(path: str | Path, ground_truth: Mapping[str, Any] | GroundTruth | None = None) -> list[Result]:
    """Read results from a JSON file; they are checked, and have ids as in the ground truth (see `checked_results`).

    Raises:
        EvaluationError: the file is not JSON, not a list, or fails the check; the message names it.
        OSError: it cannot be read.
    """
    value = read_json(path)
    try:
        return [dict(result) for result in checked_results(value, ground_truth)]
    except EvaluationError as error:
        raise EvaluationError(f"{path}: {error}") from None
