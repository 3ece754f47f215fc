"""Matching of detections with annotated boxes, by VOC's rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasdsl.coco_json import ImageId
from nasdsl.evaluation.ground_truth import GroundTruth


@dataclass(frozen=True, slots=True)
class Matching:
    """What each detection is, and which detection found each box.

    Attributes:
        box: for each result, the number of the box in `GroundTruth.boxes` that it found; None for other results.
        ignored: for each result, whether it counts neither as right nor as false: its box is difficult or a crowd.
        result: for each box, the number of the result that found it; None for the others.
    """

    box: tuple[int | None, ...]
    ignored: tuple[bool, ...]
    result: tuple[int | None, ...]


def match_detections(truth: GroundTruth, results: Sequence[Mapping[str, Any]], iou: float = 0.5) -> Matching:
    """Match the detections of each class and image with its boxes; see `nasdsl.evaluation.voc.precision_recall` for the rule.

    Whether a detection is right depends on detections with higher scores alone, so the matching of those above a threshold is
    a part of this one.

    Args:
        results: checked, see `nasdsl.evaluation.results.checked_results`.
        iou: smallest overlap of a match.
    """
    boxes: dict[tuple[int, ImageId], list[int]] = {}
    for number, box in enumerate(truth.boxes):
        boxes.setdefault((box.category_id, box.image_id), []).append(number)
    groups: dict[tuple[int, ImageId], list[int]] = {}
    # Stable, as in the devkit: of equal scores the first comes first.
    for number in sorted(range(len(results)), key=lambda number: -results[number]["score"]):
        groups.setdefault((results[number]["category_id"], results[number]["image_id"]), []).append(number)
    found: list[int | None] = [None] * len(results)
    ignored = [False] * len(results)
    finder: list[int | None] = [None] * len(truth.boxes)
    for key, ranked in groups.items():
        candidates = boxes.get(key)
        if candidates is None:
            continue
        overlaps = overlap(results, ranked, truth, candidates)
        # The best-overlapping box decides, even if it is found already.
        for number, best, value in zip(ranked, overlaps.argmax(axis=1).tolist(), overlaps.max(axis=1), strict=True):
            if value < iou:
                continue
            box_number = candidates[best]
            if not truth.boxes[box_number].counts:
                ignored[number] = True
            elif finder[box_number] is None:
                finder[box_number], found[number] = number, box_number
    return Matching(tuple(found), tuple(ignored), tuple(finder))


def overlap(
    results: Sequence[Mapping[str, Any]], numbers: Sequence[int], truth: GroundTruth, boxes: Sequence[int]
) -> NDArray[np.float64]:
    """IoU [results, boxes] of some results and some boxes, given by their numbers; at least one of each."""
    from pycocotools import mask  # only these need it

    found = [list(results[number]["bbox"]) for number in numbers]
    annotated = [list(truth.boxes[number].box) for number in boxes]
    values: NDArray[np.float64] = mask.iou(found, annotated, [0] * len(annotated))
    return values
