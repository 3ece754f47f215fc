"""VOC's average precision, as computed by its development kit (`VOCevaldet.m`, `VOCap.m`).

http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nasdsl.evaluation.errors import EvaluationError
from nasdsl.evaluation.ground_truth import GroundTruth
from nasdsl.evaluation.matching import match_detections
from nasdsl.evaluation.results import checked_results


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Precision-recall curve of one class, with a point for every true or false positive, best score first.

    Attributes:
        category_id: of the class.
        name: of the class.
        boxes: number of annotated boxes that count (neither difficult nor crowd).
        true_positives: [k] int64, true positives among the first 1, 2, … k detections.
        scores: [k] float64, in falling order.
    """

    category_id: int
    name: str
    boxes: int
    true_positives: NDArray[np.int64]
    scores: NDArray[np.float64]

    @property
    def recall(self) -> NDArray[np.float64]:
        """[k], rising: true positives over boxes; nan where there are no boxes."""
        return self.true_positives / self.boxes if self.boxes else np.full(len(self.scores), np.nan)

    @property
    def precision(self) -> NDArray[np.float64]:
        """[k]: true positives over detections."""
        return self.true_positives / np.arange(1, len(self.scores) + 1)

    def ap(self, metric: Literal["voc07", "voc12"]) -> float:
        """Average precision: mean over 11 recalls (voc07), or area below the envelope (voc12); nan without boxes.

        Args:
            metric: ``"voc07"`` or ``"voc12"``.
        """
        if not self.boxes:
            return math.nan
        recall, precision = self.recall, self.precision
        if metric == "voc07":
            # Tenths instead of the devkit's 0:0.1:1, whose fourth value is 0.3 plus a rounding error.
            reached = (precision[recall >= tenth / 10] for tenth in range(11))
            return float(sum(p.max(initial=0.0) for p in reached) / 11)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


@dataclass(frozen=True, slots=True)
class VocClass:
    """Average precision of one class, a fraction of 1; nan where it has no box that counts."""

    category_id: int
    name: str
    boxes: int
    ap: float


@dataclass(frozen=True, slots=True)
class VocMetrics:
    """VOC's metrics at one IoU threshold.

    Attributes:
        metric: ``"voc07"`` or ``"voc12"``.
        iou: the threshold.
        mean_ap: mean over the classes with boxes; a fraction of 1, nan where no class has boxes.
        classes: sorted by category id.
    """

    metric: Literal["voc07", "voc12"]
    iou: float
    mean_ap: float
    classes: tuple[VocClass, ...]


def precision_recall(
    ground_truth: Mapping[str, Any] | GroundTruth, results: Sequence[Mapping[str, Any]], iou: float = 0.5
) -> tuple[Curve, ...]:
    """Precision-recall curves of all classes, sorted by category id.

    Detections of a class are matched in order of their scores, each with the box of its image that it overlaps most. Below
    `iou` it is a false positive; if the box is difficult it is ignored; else the first detection of a box is a true positive
    and all others are false positives. Crowd boxes, which VOC does not have, are treated as difficult. The number of
    detections is not limited.

    Boxes are continuous. The devkit counts pixels, with 1-based inclusive corners and the width ``x2 - x1 + 1``; its box is
    ``[x1 - 1, y1 - 1, x2, y2]`` here, with the same width and the same overlaps.

    Args:
        ground_truth: `Dataset.ground_truth()`, or any dictionary in COCO's annotation format.
        results: COCO results for its images: dictionaries with `image_id`, `category_id`, `bbox` (x, y, width, height) and
            `score`.

    Raises:
        EvaluationError: as in `voc_metrics`.
    """
    truth = GroundTruth.of(ground_truth)
    results = checked_results(results, truth)
    matching = match_detections(truth, results, iou)
    found: dict[int, list[int]] = {category.id: [] for category in truth.categories}
    for number, result in enumerate(results):
        if not matching.ignored[number]:
            found[result["category_id"]].append(number)
    boxes = Counter(box.category_id for box in truth.boxes if box.counts)
    curves = []
    for category in truth.categories:
        # Stable, as in the devkit: of equal scores the first comes first.
        ranked = sorted(found[category.id], key=lambda number: -results[number]["score"])
        curves.append(
            Curve(
                category_id=category.id,
                name=category.name,
                boxes=boxes[category.id],
                true_positives=np.cumsum([matching.box[number] is not None for number in ranked], dtype=np.int64),
                scores=np.array([results[number]["score"] for number in ranked], dtype=np.float64),
            )
        )
    return tuple(curves)


def voc_metrics(
    ground_truth: Mapping[str, Any] | GroundTruth,
    results: Sequence[Mapping[str, Any]],
    metric: Literal["voc07", "voc12"] = "voc12",
    iou: float = 0.5,
) -> VocMetrics:
    """VOC's average precision.

    Args:
        ground_truth: in COCO's annotation format with `difficult`, see `GroundTruth.of`.
        results: COCO results for these images.
        metric: ``"voc07"``, the mean of the best precision at a recall of at least 0, 0.1, … 1 (used up to VOC 2009), or
            ``"voc12"``, the area below the monotone envelope of the curve.
        iou: threshold for a true positive.

    Raises:
        EvaluationError: ground truth or results are malformed, or results are of unknown images or categories.
    """
    return voc_metrics_of(precision_recall(ground_truth, results, iou), metric, iou)


def voc_metrics_of(curves: Sequence[Curve], metric: Literal["voc07", "voc12"], iou: float = 0.5) -> VocMetrics:
    """As `voc_metrics`, from curves that are computed already; both metrics need the same ones."""
    if metric not in ("voc07", "voc12"):
        raise EvaluationError(f"metric is {metric!r}; expected voc07 or voc12")
    classes = tuple(VocClass(curve.category_id, curve.name, curve.boxes, curve.ap(metric)) for curve in curves)
    measured = [found.ap for found in classes if found.boxes]
    return VocMetrics(metric, iou, sum(measured) / len(measured) if measured else math.nan, classes)
