"""COCO's precision and recall, computed by pycocotools (the reference) or by faster-coco-eval (the same in C++)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, NamedTuple

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from pycocotools.cocoeval import COCOeval

from nasdsl.coco_json import ImageId
from nasdsl.evaluation.ground_truth import GroundTruth


class PrecisionRecall(NamedTuple):
    """Precision and recall over all images; -1 where no box counts.

    Attributes:
        precision: [thresholds, recalls, classes, areas, limits].
        recall: [thresholds, classes, areas, limits].
        thresholds: IoU thresholds.
        areas: names of the area ranges.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    areas: list[str]


def run_faster_coco_eval(truth: GroundTruth, results: Sequence[Mapping[str, Any]], limits: list[int]) -> PrecisionRecall:
    """Same values as `run_pycocotools`, faster; it cannot handle difficult boxes.

    Args:
        truth, results: checked.
        limits: numbers of detections per image that count, increasing.
    """
    numbers = _image_numbers(truth)
    categories = [category.id for category in truth.categories]
    images = list(numbers.values())
    given = COCO(
        {
            "images": [{"id": number} for number in images],
            "categories": [{"id": category.id, "name": category.name} for category in truth.categories],
            "annotations": [
                {
                    "id": number,
                    "image_id": numbers[box.image_id],
                    "category_id": box.category_id,
                    "bbox": list(box.box),
                    "area": box.area,
                    "iscrowd": int(box.crowd),
                }
                for number, box in enumerate(truth.boxes, 1)
            ],
        }
    )
    found = COCO()
    found.dataset = {
        "images": given.dataset["images"],
        "categories": given.dataset["categories"],
        "annotations": [
            {
                "id": number,
                "image_id": numbers[result["image_id"]],
                "category_id": result["category_id"],
                "bbox": list(result["bbox"]),
                "area": result["bbox"][2] * result["bbox"][3],
                "score": result["score"],
                "iscrowd": 0,
            }
            for number, result in enumerate(results, 1)
        ],
    }
    found.createIndex()
    evaluation = COCOeval_faster(given, found, "bbox")
    evaluation.params.imgIds, evaluation.params.catIds, evaluation.params.maxDets = images, categories, limits
    return _run(evaluation)


def run_pycocotools(truth: GroundTruth, results: Sequence[Mapping[str, Any]], limits: list[int]) -> PrecisionRecall:
    """For any ground truth; arguments as in `run_faster_coco_eval`."""
    evaluation = _EvalWithDifficult(truth, results, limits)
    with redirect_stdout(StringIO()):  # pycocotools prints timings
        return _run(evaluation)


def _run(evaluation: Any) -> PrecisionRecall:
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])
    return PrecisionRecall(precision, recall, evaluation.params.iouThrs, evaluation.params.areaRngLbl)


def _image_numbers(truth: GroundTruth) -> dict[ImageId, int]:
    """Numbers from 1 by image id: both libraries put the ids into arrays of numbers, so they cannot be strings."""
    return {image_id: number for number, image_id in enumerate(truth.image_ids, 1)}


class _EvalWithDifficult(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """pycocotools' evaluation with difficult boxes, given data instead of files.

    Annotations are numbered from 1, because an id of 0 means "no match" to pycocotools.
    """

    def __init__(self, truth: GroundTruth, results: Sequence[Mapping[str, Any]], limits: list[int]) -> None:
        super().__init__(iouType="bbox")
        self._truth, self._results = truth, results
        self._images = _image_numbers(truth)
        self.params.imgIds = list(self._images.values())
        self.params.catIds = [category.id for category in truth.categories]
        self.params.maxDets = limits

    def _prepare(self) -> None:
        self._gts, self._dts = defaultdict(list), defaultdict(list)
        for number, box in enumerate(self._truth.boxes, 1):
            self._gts[self._images[box.image_id], box.category_id].append(
                {
                    "id": number,
                    "bbox": list(box.box),  # pycocotools accepts lists only
                    "area": box.area,
                    "iscrowd": int(box.crowd),
                    "ignore": int(not box.counts),
                    "difficult": box.difficult,
                }
            )
        for number, result in enumerate(self._results, 1):
            width, height = result["bbox"][2:]
            self._dts[self._images[result["image_id"]], result["category_id"]].append(
                {"id": number, "bbox": list(result["bbox"]), "area": width * height, "score": result["score"]}
            )

    def evaluateImg(self, imgId: int, catId: int, aRng: Sequence[float], maxDet: int) -> dict[str, Any] | None:
        """As in pycocotools, but all detections that overlap a difficult box are ignored, not only the first."""
        evaluated: dict[str, Any] | None = super().evaluateImg(imgId, catId, aRng, maxDet)
        if evaluated is None or not evaluated["dtIds"]:
            return evaluated
        difficult = [number for number, box in enumerate(self._gts[imgId, catId]) if box["difficult"]]
        if difficult:
            overlap = self.ious[imgId, catId][:maxDet, difficult].max(axis=1)
            ignored = overlap >= np.minimum(self.params.iouThrs, 1 - 1e-10)[:, None]  # pycocotools' own bound
            evaluated["dtIgnore"] |= (evaluated["dtMatches"] == 0) & ignored
        return evaluated
