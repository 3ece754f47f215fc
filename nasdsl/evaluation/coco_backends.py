"""Detections matched with boxes by COCO's rules: by pycocotools, the reference, or by faster-coco-eval, the same in C++."""

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

from nasdsl.evaluation.ground_truth import GroundTruth


class Matched(NamedTuple):
    """What is accumulated over all images; -1 where no box counts.

    Attributes:
        precision: [thresholds, recalls, classes, areas, limits].
        recall: [thresholds, classes, areas, limits].
        thresholds: of IoU.
        areas: names of the ranges of areas.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    areas: list[str]


def by_faster_coco_eval(truth: GroundTruth, results: Sequence[Mapping[str, Any]], limits: list[int]) -> Matched:
    """For a ground truth without difficult boxes; figures are those of `by_pycocotools`.

    Args:
        truth, results: checked.
        limits: of detections a picture, increasing.
    """
    numbers = _numbers(truth)
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
    return _matched(evaluation)


def by_pycocotools(truth: GroundTruth, results: Sequence[Mapping[str, Any]], limits: list[int]) -> Matched:
    """For any ground truth; arguments as of `by_faster_coco_eval`."""
    evaluation = _WithDifficult(truth, results, limits)
    with redirect_stdout(StringIO()):  # pycocotools prints how long each step took
        return _matched(evaluation)


def _matched(evaluation: Any) -> Matched:
    evaluation.evaluate()
    evaluation.accumulate()
    precision, recall = np.asarray(evaluation.eval["precision"]), np.asarray(evaluation.eval["recall"])
    return Matched(precision, recall, evaluation.params.iouThrs, evaluation.params.areaRngLbl)


def _numbers(truth: GroundTruth) -> dict[int | str, int]:
    """Images numbered anew, in their order: both libraries turn their ids into arrays, and strings do not survive that."""
    return {image_id: number for number, image_id in enumerate(truth.image_ids, 1)}


class _WithDifficult(COCOeval):  # type: ignore[misc]  # pycocotools has no types
    """pycocotools' evaluation, fed without files, that knows difficult boxes.

    Annotations are numbered anew: an id of 0 is "no match" to pycocotools.
    """

    def __init__(self, truth: GroundTruth, results: Sequence[Mapping[str, Any]], limits: list[int]) -> None:
        super().__init__(iouType="bbox")
        self._truth, self._results = truth, results
        self._images = _numbers(truth)
        self.params.imgIds = list(self._images.values())
        self.params.catIds = [category.id for category in truth.categories]
        self.params.maxDets = limits

    def _prepare(self) -> None:
        self._gts, self._dts = defaultdict(list), defaultdict(list)
        for number, box in enumerate(self._truth.boxes, 1):
            self._gts[self._images[box.image_id], box.category_id].append(
                {
                    "id": number,
                    "bbox": list(box.box),  # pycocotools knows lists only
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
        """As pycocotools does, but a difficult box is not used up by the first detection that it excuses."""
        evaluated: dict[str, Any] | None = super().evaluateImg(imgId, catId, aRng, maxDet)
        if evaluated is None or not evaluated["dtIds"]:
            return evaluated
        difficult = [number for number, box in enumerate(self._gts[imgId, catId]) if box["difficult"]]
        if difficult:
            overlap = self.ious[imgId, catId][:maxDet, difficult].max(axis=1)
            excused = overlap >= np.minimum(self.params.iouThrs, 1 - 1e-10)[:, None]  # the bound is pycocotools'
            evaluated["dtIgnore"] |= (evaluated["dtMatches"] == 0) & excused
        return evaluated
