"""COCO's average precision and recall."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nasdsl.evaluation.errors import EvaluationError
from nasdsl.evaluation.ground_truth import GroundTruth
from nasdsl.evaluation.results import checked_results


@dataclass(frozen=True, slots=True)
class CocoClass:
    """COCO's metrics of one class, as fractions of 1; nan where the class has no box that counts.

    Attributes:
        boxes: number of annotated boxes that count (neither crowd nor difficult).
        ap, ap50, ap75: average precision over IoU 0.50:0.05:0.95, at 0.50, at 0.75.
        ar: average recall at the highest number of detections per image.
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
    """COCO's twelve metrics, and those of each class; fractions of 1, nan where no box counts (-1 in pycocotools).

    Attributes:
        ap, ap50, ap75: mean over the classes with boxes; over IoU 0.50:0.05:0.95, at 0.50, at 0.75.
        ap_small, ap_medium, ap_large: `ap` of boxes with an area below 32², 32² to 96², above 96² square pixels.
        ar: average recall by the number of detections per image, such as ``{1: …, 10: …, 100: …}``.
        ar_small, ar_medium, ar_large: average recall of boxes of these areas at the highest number of detections.
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

    Crowd boxes are treated as in COCO: detections inside of one are ignored, whatever their number. So are detections that
    match no box that counts and overlap a difficult box by at least the IoU threshold (as in VOC's devkit).

    Args:
        ground_truth: in COCO's annotation format, see `GroundTruth.of`.
        results: COCO results for these images. An empty list gives zeros.
        max_detections: numbers of detections per image and class that count, best first. Recall is computed for each of
            them, precision for the highest.

    Raises:
        EvaluationError: ground truth or results are malformed, or results are of unknown images or categories.
    """
    truth = GroundTruth.of(ground_truth)
    results = checked_results(results, truth)
    limits = sorted(set(max_detections))
    if not limits or limits[0] < 1:
        raise EvaluationError(f"max_detections is {tuple(max_detections)}; expected one or more integers of at least 1")
    from nasdsl.evaluation import coco_backends  # needs both, which a training or a search by losses does not

    # COCO has no difficult boxes; pycocotools is Python and can be extended for them, faster-coco-eval is C++.
    difficult = any(box.difficult for box in truth.boxes)
    run = coco_backends.run_pycocotools if difficult else coco_backends.run_faster_coco_eval
    precision, recall, thresholds, areas = run(truth, results, limits)
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
    """Mean of the values other than -1, which stands for "no box"."""
    computed = values[values > -1]
    return float(computed.mean()) if computed.size else math.nan
