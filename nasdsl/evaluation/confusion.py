"""Right, false and missed detections above a score: the threshold with the best F1, confusions, the images with most errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nasdsl.coco_json import ImageId
from nasdsl.evaluation.ground_truth import Category, GroundTruth
from nasdsl.evaluation.matching import Matching, match_detections, overlap
from nasdsl.evaluation.results import checked_results
from nasdsl.evaluation.voc import Curve

THRESHOLDS: Final[NDArray[np.float64]] = np.arange(1001) / 1000
"""Thresholds among which the best is chosen."""


def f1_scores(curve: Curve, thresholds: NDArray[np.float64] = THRESHOLDS) -> NDArray[np.float64]:
    """F1 of a class, 2 TP / (detections + boxes), of the detections with a score of at least each threshold.

    Args:
        thresholds: [k].

    Returns:
        [k]; nan where there are neither detections nor boxes.
    """
    kept = np.searchsorted(-curve.scores, -thresholds, side="right")  # scores fall
    right = np.concatenate(([0], curve.true_positives))[kept]
    total = kept + curve.boxes
    found: NDArray[np.float64] = np.divide(2.0 * right, total, out=np.full(len(thresholds), np.nan), where=total > 0)
    return found


class BestThreshold(NamedTuple):
    """The lowest threshold with the best F1, and that F1.

    Attributes:
        score: the threshold.
        f1: the mean over classes at it.
    """

    score: float
    f1: float


def mean_f1(curves: Sequence[Curve], thresholds: NDArray[np.float64] = THRESHOLDS) -> NDArray[np.float64]:
    """Mean of `f1_scores` over the classes that have boxes, [k]; nan where there are none."""
    known = [f1_scores(curve, thresholds) for curve in curves if curve.boxes]
    return np.mean(known, axis=0) if known else np.full(len(thresholds), np.nan)


def best_threshold(curves: Sequence[Curve], thresholds: NDArray[np.float64] = THRESHOLDS) -> BestThreshold | None:
    """The threshold with the best mean F1; None where no class has boxes, or nothing is found at any threshold.

    Args:
        curves: of all classes, from `precision_recall`.
        thresholds: [k], the scores that are tried.
    """
    means = mean_f1(curves, thresholds)
    if not np.nanmax(means, initial=0.0) > 0:
        return None
    best = int(np.nanargmax(means))
    return BestThreshold(float(thresholds[best]), float(means[best]))


@dataclass(frozen=True, eq=False)
class ConfusionMatrix:
    """Counts of annotated boxes and detections by class.

    Attributes:
        categories: sorted by id, n of them.
        counts: int64 [n + 1, n + 1]. Row i are boxes of class i, column j detections of class j. The last row are detections
            of no box (background), the last column are boxes without a detection (missed).
    """

    categories: tuple[Category, ...]
    counts: NDArray[np.int64]

    @property
    def confusions(self) -> list[tuple[Category, Category, int]]:
        """(true class, detected class, number) of boxes that were detected as another class, most frequent first."""
        n = len(self.categories)
        pairs = [(int(self.counts[i, j]), i, j) for i in range(n) for j in range(n) if i != j and self.counts[i, j]]
        return [(self.categories[i], self.categories[j], count) for count, i, j in sorted(pairs, key=lambda p: (-p[0], p[1:]))]


class ImageErrors(NamedTuple):
    """What a detector did on an image.

    Attributes:
        image_id: of the image, as in its data set.
        right, false: numbers of the results that are right and false.
        found, missed: numbers, in `GroundTruth.boxes`, of the boxes that were found and missed.
    """

    image_id: ImageId
    right: tuple[int, ...]
    false: tuple[int, ...]
    found: tuple[int, ...]
    missed: tuple[int, ...]

    @property
    def errors(self) -> int:
        """Number of false and missed ones."""
        return len(self.false) + len(self.missed)

    @property
    def f1(self) -> float:
        """2 right / (2 right + false + missed); 1 where there is nothing to find and nothing found."""
        total = 2 * len(self.right) + self.errors
        return 2 * len(self.right) / total if total else 1.0


def confusion_matrix(
    ground_truth: Mapping[str, Any] | GroundTruth, results: Sequence[Mapping[str, Any]], threshold: float, iou: float = 0.5
) -> ConfusionMatrix:
    """The confusion matrix of the detections with a score of at least `threshold`.

    First, detections are matched with boxes of their own class, as for precision and recall: the diagonal has the true
    positives. Then each false one, best score first, takes the box of another class that it overlaps most, of those that
    nothing has found yet, if that overlap is at least `iou`. Crowds and difficult boxes, and detections of them, are left out.

    Args:
        ground_truth: `Dataset.ground_truth()`, or any dictionary in COCO's annotation format.
        results: COCO results for its images: dictionaries with `image_id`, `category_id`, `bbox` (x, y, width, height) and
            `score`.
        threshold: lowest score that counts.
        iou: lowest overlap (intersection over union) of a match.

    Raises:
        EvaluationError: as in `precision_recall`.
    """
    truth = GroundTruth.of(ground_truth)
    kept = [result for result in checked_results(results, truth) if result["score"] >= threshold]
    matching = match_detections(truth, kept, iou)
    place = {category.id: number for number, category in enumerate(truth.categories)}
    background = len(place)
    counts = np.zeros((background + 1, background + 1), dtype=np.int64)
    open_boxes: dict[ImageId, list[int]] = {}
    for number, box in enumerate(truth.boxes):
        if matching.result[number] is not None:
            counts[place[box.category_id], place[box.category_id]] += 1
        elif box.counts:
            open_boxes.setdefault(box.image_id, []).append(number)
    for number in _false_by_score(kept, matching):
        result = kept[number]
        left = open_boxes.get(result["image_id"], [])
        others = [b for b in left if truth.boxes[b].category_id != result["category_id"]]
        row = background
        if others:
            overlaps = overlap(kept, [number], truth, others)[0]
            best = int(overlaps.argmax())
            if overlaps[best] >= iou:
                row = place[truth.boxes[others[best]].category_id]
                left.remove(others[best])
        counts[row, place[result["category_id"]]] += 1
    for left in open_boxes.values():
        for number in left:
            counts[place[truth.boxes[number].category_id], background] += 1
    return ConfusionMatrix(truth.categories, counts)


def image_errors(
    ground_truth: Mapping[str, Any] | GroundTruth, results: Sequence[Mapping[str, Any]], threshold: float, iou: float = 0.5
) -> list[ImageErrors]:
    """Right, false and missed ones of each image among the detections with a score of at least `threshold`.

    Sorted by F1, the lowest first, and of equal ones the image with more errors first.

    Args:
        ground_truth: `Dataset.ground_truth()`, or any dictionary in COCO's annotation format.
        results: COCO results for its images: dictionaries with `image_id`, `category_id`, `bbox` (x, y, width, height) and
            `score`.
        threshold: lowest score that counts.
        iou: lowest overlap (intersection over union) of a match.

    Raises:
        EvaluationError: as in `precision_recall`.
    """
    truth = GroundTruth.of(ground_truth)
    checked = checked_results(results, truth)
    kept = [number for number, result in enumerate(checked) if result["score"] >= threshold]
    matching = match_detections(truth, [checked[number] for number in kept], iou)
    lists: dict[ImageId, tuple[list[int], list[int], list[int], list[int]]] = {id: ([], [], [], []) for id in truth.image_ids}
    for place, number in enumerate(kept):
        if not matching.ignored[place]:
            lists[checked[number]["image_id"]][0 if matching.box[place] is not None else 1].append(number)
    for number, box in enumerate(truth.boxes):
        if box.counts:
            lists[box.image_id][2 if matching.result[number] is not None else 3].append(number)
    found = [ImageErrors(id, *map(tuple, parts)) for id, parts in lists.items()]
    return sorted(found, key=lambda image: (image.f1, -image.errors))


def _false_by_score(results: Sequence[Mapping[str, Any]], matching: Matching) -> list[int]:
    """Numbers of the false positives, best score first."""
    false = [n for n, box in enumerate(matching.box) if box is None and not matching.ignored[n]]
    return sorted(false, key=lambda number: -results[number]["score"])
