"""VOC's average precision, by the rule of its development kit (`VOCevaldet.m`, `VOCap.m`).

http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask

from nasdsl.evaluation.errors import EvaluationError
from nasdsl.evaluation.ground_truth import Category, GroundTruth, ImageId, TrueBox
from nasdsl.evaluation.results import check_results


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Precision over recall of one class: a point for every detection that is right or wrong, best score first.

    Attributes:
        boxes: annotated boxes that count: neither difficult nor crowd.
        true_positives: [k] int64, right ones among the first 1, 2, … k detections.
        scores: [k] float64, falling.
    """

    category_id: int
    name: str
    boxes: int
    true_positives: NDArray[np.int64]
    scores: NDArray[np.float64]

    @property
    def recall(self) -> NDArray[np.float64]:
        """[k], rising: right detections over boxes; nan where there are no boxes."""
        return self.true_positives / self.boxes if self.boxes else np.full(len(self.scores), np.nan)

    @property
    def precision(self) -> NDArray[np.float64]:
        """[k]: right detections over detections."""
        return self.true_positives / np.arange(1, len(self.scores) + 1)

    def ap(self, metric: Literal["voc07", "voc12"]) -> float:
        """Average precision: the mean at 11 recalls (voc07) or the area below the envelope (voc12); nan without boxes."""
        if not self.boxes:
            return math.nan
        recall, precision = self.recall, self.precision
        if metric == "voc07":
            # tenths, not 0:0.1:1 as in the devkit, whose fourth recall is 0.3 and a rounding error more
            reached = (precision[recall >= tenth / 10] for tenth in range(11))
            return float(sum(p.max(initial=0.0) for p in reached) / 11)
        falling = np.maximum.accumulate(precision[::-1])[::-1]
        return float(np.sum(np.diff(recall, prepend=0.0) * falling))


@dataclass(frozen=True, slots=True)
class VocClass:
    """Average precision of one class, a fraction of 1; nan where it has no box that counts."""

    category_id: int
    name: str
    boxes: int
    ap: float


@dataclass(frozen=True, slots=True)
class VocMetrics:
    """VOC's figures at one IoU.

    Attributes:
        metric: ``"voc07"`` or ``"voc12"``.
        iou: at which a detection is right.
        mean_ap: over the classes that have boxes; a fraction of 1, nan where none has.
        classes: sorted by category id.
    """

    metric: Literal["voc07", "voc12"]
    iou: float
    mean_ap: float
    classes: tuple[VocClass, ...]


def precision_recall(
    ground_truth: Mapping[str, Any] | GroundTruth, results: Sequence[Mapping[str, Any]], iou: float = 0.5
) -> tuple[Curve, ...]:
    """The curve of every class, sorted by category id.

    Detections of a class are taken from the best score down. Each is held against the box of its picture that it
    overlaps most: below `iou` it is wrong; a difficult box makes it count for nothing; else it is right if it is the
    first on that box, and wrong if not. Crowd boxes, which VOC does not have, are treated as difficult ones. Detections
    are not limited in number.

    Boxes are continuous. The devkit counts pixels, ``x2 - x1 + 1`` for a width, with 1-based inclusive corners; such a
    box is ``[x1 - 1, y1 - 1, x2, y2]`` here, of the same width, and every overlap is the devkit's.

    Raises:
        EvaluationError: as of `voc_metrics`.
    """
    truth = GroundTruth.of(ground_truth)
    check_results(results, truth)
    boxes: dict[int, dict[ImageId, list[TrueBox]]] = {category.id: {} for category in truth.categories}
    for box in truth.boxes:
        boxes[box.category_id].setdefault(box.image_id, []).append(box)
    found: dict[int, list[Mapping[str, Any]]] = {category.id: [] for category in truth.categories}
    for result in results:
        found[result["category_id"]].append(result)
    return tuple(_curve(category, boxes[category.id], found[category.id], iou) for category in truth.categories)


def _curve(
    category: Category, boxes: Mapping[ImageId, Sequence[TrueBox]], results: Sequence[Mapping[str, Any]], iou: float
) -> Curve:
    # Python's sort is stable, as the devkit's is: of equal scores the first counts first.
    ranked = sorted(results, key=lambda result: -result["score"])
    ranks: dict[ImageId, list[int]] = {}
    for rank, result in enumerate(ranked):
        ranks.setdefault(result["image_id"], []).append(rank)
    right, counts = np.zeros(len(ranked), dtype=bool), np.ones(len(ranked), dtype=bool)
    for image_id, of_image in ranks.items():
        if (truth := boxes.get(image_id)) is None:
            continue
        overlaps = mask.iou([list(ranked[r]["bbox"]) for r in of_image], [list(t.box) for t in truth], [0] * len(truth))
        used: set[int] = set()
        # the box that a detection overlaps most decides, whether it is used already or not
        for rank, best, overlap in zip(of_image, overlaps.argmax(axis=1).tolist(), overlaps.max(axis=1), strict=True):
            if overlap < iou:
                continue
            if not truth[best].counts:
                counts[rank] = False
            elif best not in used:
                used.add(best)
                right[rank] = True
    return Curve(
        category_id=category.id,
        name=category.name,
        boxes=sum(box.counts for of_image in boxes.values() for box in of_image),
        true_positives=np.cumsum(right[counts], dtype=np.int64),
        scores=np.array([result["score"] for result in ranked], dtype=np.float64)[counts],
    )


def voc_metrics(
    ground_truth: Mapping[str, Any] | GroundTruth,
    results: Sequence[Mapping[str, Any]],
    metric: Literal["voc07", "voc12"] = "voc12",
    iou: float = 0.5,
) -> VocMetrics:
    """VOC's average precision.

    Args:
        ground_truth: in COCO's annotation format with `difficult`, see `GroundTruth.of`.
        results: COCO results of these images.
        metric: the mean of the best precision at recall 0, 0.1, … 1 or more (voc07, used up to VOC 2009), or the area
            below the curve made falling (voc12).

    Raises:
        EvaluationError: for a malformed ground truth, malformed results, or results of unknown images or categories.
    """
    return voc_metrics_of(precision_recall(ground_truth, results, iou), metric, iou)


def voc_metrics_of(curves: Sequence[Curve], metric: Literal["voc07", "voc12"], iou: float = 0.5) -> VocMetrics:
    """The same from curves at hand: `voc_metrics` matches detections with boxes, which both metrics share."""
    if metric not in ("voc07", "voc12"):
        raise EvaluationError(f"metric is {metric!r}; expected voc07 or voc12")
    classes = tuple(VocClass(curve.category_id, curve.name, curve.boxes, curve.ap(metric)) for curve in curves)
    measured = [found.ap for found in classes if found.boxes]
    return VocMetrics(metric, iou, sum(measured) / len(measured) if measured else math.nan, classes)
