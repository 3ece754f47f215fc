"""COCO's average precision and recall."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasdsl.evaluation.coco_backends import by_faster_coco_eval, by_pycocotools
from nasdsl.evaluation.errors import EvaluationError
from nasdsl.evaluation.ground_truth import GroundTruth
from nasdsl.evaluation.results import check_results


@dataclass(frozen=True, slots=True)
class CocoClass:
    """Metrics of one class, fractions of 1; nan where the class has no box that counts.

    Attributes:
        boxes: annotated boxes that count: neither crowd nor difficult.
        ap, ap50, ap75: average precision over IoU 0.50:0.05:0.95, at 0.50, at 0.75.
        ar: average recall with the most detections a picture.
    """

    category_id: int
    name: str
    boxes: int
    ap: float
    ap50: float
    ap75: float
    ar: float


@dataclass(frozen=True, slots=True)
class CocoMetrics:
    """COCO's twelve figures and those of the classes; fractions of 1, nan where no box counts (pycocotools: -1).

    Attributes:
        ap, ap50, ap75: mean over the classes that have boxes; over IoU 0.50:0.05:0.95, at 0.50, at 0.75.
        ap_small, ap_medium, ap_large: `ap` of boxes of an area below 32², 32² to 96², above 96² square pixels.
        ar: average recall by the number of detections a picture, such as ``{1: …, 10: …, 100: …}``.
        ar_small, ar_medium, ar_large: as of `ap`, with the most detections a picture.
        classes: sorted by category id.
    """

    ap: float
    ap50: float
    ap75: float
    ap_small: float
    ap_medium: float
    ap_large: float
    ar: dict[int, float]
    ar_small: float
    ar_medium: float
    ar_large: float
    classes: tuple[CocoClass, ...]


def coco_metrics(
    ground_truth: Mapping[str, Any] | GroundTruth,
    results: Sequence[Mapping[str, Any]],
    max_detections: Sequence[int] = (1, 10, 100),
) -> CocoMetrics:
    """COCO's metrics of boxes: https://cocodataset.org/#detection-eval

    Args:
        ground_truth: in COCO's annotation format, see `GroundTruth.of`; image ids are integers or strings.
        results: COCO results of these images. None at all gives zeros.
        max_detections: detections a picture and class that count, best first: recall is given for each of them,
            precision for the greatest.

    Crowd boxes are treated as COCO does: any number of detections inside one is neither right nor wrong. A difficult
    box is left out in the same way, but by the ordinary IoU: detections that match no box that counts and overlap a
    difficult one by at least the threshold are neither right nor wrong, however many they are (as in VOC's devkit).

    Raises:
        EvaluationError: for a malformed ground truth, malformed results, or results of unknown images or categories.
    """
    truth = GroundTruth.of(ground_truth)
    check_results(results, truth)
    limits = sorted(set(max_detections))
    if not limits or limits[0] < 1:
        raise EvaluationError(f"max_detections is {tuple(max_detections)}; expected one or more integers of at least 1")
    # Difficult boxes are no part of COCO's rules, and only pycocotools, in Python, lets itself be taught them.
    match = by_pycocotools if any(box.difficult for box in truth.boxes) else by_faster_coco_eval
    precision, recall, thresholds, areas = match(truth, results, limits)
    at50, at75 = np.isclose(thresholds, 0.5), np.isclose(thresholds, 0.75)
    small, medium, large = (areas.index(area) for area in ("small", "medium", "large"))
    counts = Counter(box.category_id for box in truth.boxes if box.counts)
    return CocoMetrics(
        ap=_mean(precision[..., 0, -1]),
        ap50=_mean(precision[at50][..., 0, -1]),
        ap75=_mean(precision[at75][..., 0, -1]),
        ap_small=_mean(precision[..., small, -1]),
        ap_medium=_mean(precision[..., medium, -1]),
        ap_large=_mean(precision[..., large, -1]),
        ar={limit: _mean(recall[..., 0, number]) for number, limit in enumerate(limits)},
        ar_small=_mean(recall[..., small, -1]),
        ar_medium=_mean(recall[..., medium, -1]),
        ar_large=_mean(recall[..., large, -1]),
        classes=tuple(
            CocoClass(
                category_id=category.id,
                name=category.name,
                boxes=counts[category.id],
                ap=_mean(precision[:, :, number, 0, -1]),
                ap50=_mean(precision[at50, :, number, 0, -1]),
                ap75=_mean(precision[at75, :, number, 0, -1]),
                ar=_mean(recall[:, number, 0, -1]),
            )
            for number, category in enumerate(truth.categories)
        ),
    )


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of what pycocotools computed; -1 is its "no box"."""
    computed = values[values > -1]
    return float(computed.mean()) if computed.size else math.nan
