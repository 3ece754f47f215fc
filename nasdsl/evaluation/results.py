"""Detections as COCO results: ``{"image_id", "category_id", "bbox": [x, y, width, height], "score"}`` each."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasdsl.evaluation.errors import EvaluationError, refuse
from nasdsl.evaluation.ground_truth import GroundTruth, ImageId, box_finding, finite, known, read_json

Result = dict[str, Any]


def to_results(
    detections: Sequence[Mapping[str, Any]], image_ids: Sequence[ImageId], category_ids: Sequence[int]
) -> list[Result]:
    """COCO results of the detections of some pictures.

    Args:
        detections: one mapping a picture, as torchvision's detectors return it: `boxes` [k, 4] xyxy in pixels of the
            picture as stored, `labels` [k], `scores` [k]; torch tensors (on any device) or numpy arrays.
        image_ids: of the same pictures.
        category_ids: the category id of every label, `Dataset.category_ids`.

    Returns:
        Results in the order of the pictures and of their detections. Numbers are not rounded.

    Raises:
        EvaluationError: where lengths differ, a label has no category, or a number is not finite.
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
    """The other way: detections by image id, `boxes` [k, 4] xyxy float64, `labels` [k] int64, `scores` [k] float64, best first.

    Pictures without a result are not in it.

    Raises:
        EvaluationError: for a result that is malformed, or of a category that is not in `category_ids`.
    """
    labels = {category_id: label for label, category_id in enumerate(category_ids)}
    check_results(results)
    refuse(
        "results",
        [
            f"results[{number}]: category_id {result['category_id']!r}; expected one of {_some(labels)}"
            for number, result in enumerate(results)
            if not known(result["category_id"], labels)
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
    """Refuses malformed results; with a ground truth, those of images and categories that it does not have as well.

    Raises:
        EvaluationError: lists the first ten: numbers that are not finite, negative widths and heights, unknown ids.
    """
    image_ids: set[ImageId] | None = None
    category_ids: set[int] | None = None
    if ground_truth is not None:
        truth = GroundTruth.of(ground_truth)
        image_ids, category_ids = set(truth.image_ids), {category.id for category in truth.categories}
    if not isinstance(results, list | tuple):
        raise EvaluationError(f"results: a {type(results).__name__}; expected a list of COCO results")
    refuse(
        "results",
        [
            f"results[{number}]: {finding}"
            for number, result in enumerate(results)
            if (finding := _finding(result, image_ids, category_ids)) is not None
        ],
    )


def _finding(result: object, image_ids: set[ImageId] | None, category_ids: set[int] | None) -> str | None:
    """What is wrong with one result; None for nothing."""
    if not isinstance(result, Mapping):
        return f"{result!r}; expected an object with image_id, category_id, bbox and score"
    missing = [key for key in ("image_id", "category_id", "bbox", "score") if key not in result]
    if missing:
        return f"no {', '.join(missing)}; expected image_id, category_id, bbox and score"
    image_id, category_id = result["image_id"], result["category_id"]
    if not isinstance(image_id, int | str) or isinstance(image_id, bool):
        return f"image_id is {image_id!r}; expected an integer or a string"
    if not isinstance(category_id, int) or isinstance(category_id, bool):
        return f"category_id is {category_id!r}; expected an integer"
    if image_ids is not None and image_id not in image_ids:
        return f"image_id {image_id!r} is not in the ground truth; its ids are {_some(image_ids)}"
    if category_ids is not None and category_id not in category_ids:
        return f"category_id {category_id!r} is not in the ground truth; its ids are {_some(category_ids)}"
    if not finite(result["score"]):
        return f"score is {result['score']!r}; expected a finite number"
    return box_finding(result["bbox"])


def _some(ids: Collection[object], shown: int = 5) -> str:
    """The first few ids, to see at a glance that they are of another dataset."""
    first = [repr(id) for id in heapq.nsmallest(shown, ids)]  # type: ignore[type-var]
    return ", ".join(first) + (f", … ({len(ids)} in all)" if len(ids) > shown else "") if first else "none"


def write_results(path: str | Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Writes results as JSON, one a line; the file appears when it is whole. Reading it back gives equal numbers.

    Raises:
        EvaluationError: for malformed results; nothing is written then.
    """
    check_results(results)
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    text = ",\n".join(json.dumps(result, default=_plain) for result in results)
    try:
        unfinished.write_text(f"[\n{text}\n]\n" if results else "[]\n", encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _plain(number: Any) -> Any:
    """A numpy number as JSON has it."""
    return number.item()


def read_results(path: str | Path, ground_truth: Mapping[str, Any] | GroundTruth | None = None) -> list[Result]:
    """Results from a JSON file, checked as by `check_results`.

    Raises:
        EvaluationError: where the file is no JSON, no list, or fails the check; the message names it.
        OSError: where it cannot be read.
    """
    value = read_json(path)
    try:
        check_results(value, ground_truth)
    except EvaluationError as error:
        raise EvaluationError(f"{path}: {error}") from None
    return value  # type: ignore[no-any-return]
