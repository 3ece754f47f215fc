"""COCO's metrics against pycocotools, and against a slow implementation where pycocotools has none."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nasdsl.evaluation import EvaluationError, coco_metrics
from nasdsl.evaluation.coco_backends import run_faster_coco_eval, run_pycocotools
from nasdsl.evaluation.ground_truth import GroundTruth


def plain_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]]) -> COCOeval:
    coco = COCO()
    coco.dataset = copy.deepcopy(truth)
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(copy.deepcopy(results)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crowd", [0.0, 0.3])
def test_all_metrics_against_pycocotools(scene: Callable[..., Any], seed: int, crowd: float) -> None:
    truth, results = scene(seed, crowd=crowd)
    stats = plain_pycocotools(truth, results).stats
    m = coco_metrics(truth, results)
    ours = [m.ap, m.ap50, m.ap75, m.ap_small, m.ap_medium, m.ap_large, *m.ar.values(), m.ar_small, m.ar_medium, m.ar_large]
    assert list(m.ar) == [1, 10, 100]
    np.testing.assert_allclose(np.nan_to_num(ours, nan=-1), stats, rtol=0, atol=1e-12)
    assert 0.1 < m.ap < 0.9  # neither trivial extreme


@pytest.mark.parametrize("seed", range(3))
def test_faster_coco_eval_against_pycocotools(scene: Callable[..., Any], seed: int) -> None:
    truth, results = scene(seed, images=25, classes=5, crowd=0.2)
    given = GroundTruth.of(truth)
    fast, reference = (match(given, results, [1, 3, 100]) for match in (run_faster_coco_eval, run_pycocotools))
    np.testing.assert_allclose(fast.precision, reference.precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(fast.recall, reference.recall, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(fast.thresholds, reference.thresholds)
    assert fast.areas == reference.areas
    assert len(np.unique(reference.precision)) > 20


def test_difficult_boxes_are_evaluated_with_pycocotools(scene: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    truth, results = scene(0, difficult=0.5)
    expected = coco_metrics(truth, results)
    monkeypatch.setattr("nasdsl.evaluation.coco_backends.run_faster_coco_eval", None)
    assert coco_metrics(truth, results) == expected
    plain = {**truth, "annotations": [{**a, "difficult": False} for a in truth["annotations"]]}
    with pytest.raises(TypeError):
        coco_metrics(plain, results)


def test_metrics_of_a_class_against_pycocotools(scene: Callable[..., Any]) -> None:
    truth, results = scene(11)
    for found in coco_metrics(truth, results).classes:
        part = {**truth, "annotations": [a for a in truth["annotations"] if a["category_id"] == found.category_id]}
        alone = plain_pycocotools(part, [r for r in results if r["category_id"] == found.category_id]).stats
        np.testing.assert_allclose([found.ap, found.ap50, found.ap75, found.ar], alone[[0, 1, 2, 8]], atol=1e-12)
        assert found.boxes == len(part["annotations"])


def test_limits_of_detections(scene: Callable[..., Any]) -> None:
    truth, results = scene(1, images=3, classes=1)
    few = coco_metrics(truth, results, (2,))
    best: dict[int, list[Any]] = {}
    for result in sorted(results, key=lambda r: -r["score"]):
        best.setdefault(result["image_id"], []).append(result)
    kept = [result for of_image in best.values() for result in of_image[:2]]
    assert few.ap == coco_metrics(truth, kept).ap < coco_metrics(truth, results).ap
    assert few.ar == {2: coco_metrics(truth, kept).ar[100]}
    both = coco_metrics(truth, results, (64, 2))  # in any order
    assert both.ar == {**few.ar, 64: coco_metrics(truth, results).ar[100]}
    for wrong in ((), (0, 10)):
        with pytest.raises(EvaluationError, match="max_detections"):
            coco_metrics(truth, results, wrong)


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    inner = max(width, 0) * max(height, 0)
    return inner / (a[2] * a[3] + b[2] * b[3] - inner)


def slow_ap(truth: dict[str, Any], results: list[dict[str, Any]], category_id: int) -> float:
    """AP of one class by the definition; all detections that overlap a difficult box are ignored."""
    precisions = []
    positives = sum(a["category_id"] == category_id and not a["difficult"] for a in truth["annotations"])
    ranked = sorted((r for r in results if r["category_id"] == category_id), key=lambda r: (-r["score"], r["image_id"]))
    for threshold in [0.5 + 0.05 * t for t in range(10)]:
        taken: set[int] = set()
        points, right, wrong = [], 0, 0
        for result in ranked:
            best, best_overlap = None, threshold - 1e-9
            here = [a for a in truth["annotations"] if (a["image_id"], a["category_id"]) == (result["image_id"], category_id)]
            for box in here:
                o = overlap(result["bbox"], box["bbox"])
                if not box["difficult"] and box["id"] not in taken and o >= best_overlap:
                    best, best_overlap = box, o
            if best is not None:
                taken.add(best["id"])
                right += 1
            elif any(b["difficult"] and overlap(result["bbox"], b["bbox"]) >= threshold - 1e-9 for b in here):
                continue
            else:
                wrong += 1
            points.append((right / positives, right / (right + wrong)))
        for recall in np.linspace(0, 1, 101):  # with its rounding errors, as pycocotools has them
            precisions.append(max((p for r, p in points if r >= recall), default=0.0))
    return sum(precisions) / len(precisions)


@pytest.mark.parametrize("seed", range(5))
def test_difficult_boxes_against_a_slow_implementation(scene: Callable[..., Any], seed: int) -> None:
    truth, results = scene(seed, difficult=0.4)
    figures = coco_metrics(truth, results)
    for found in figures.classes:
        assert found.ap == pytest.approx(slow_ap(truth, results, found.category_id), abs=1e-9)
    assert figures.ap == pytest.approx(np.mean([c.ap for c in figures.classes]))
    ordinary = {**truth, "annotations": [{**a, "difficult": False} for a in truth["annotations"]]}
    assert coco_metrics(ordinary, results).ap != figures.ap


def one_box(**more: Any) -> dict[str, Any]:
    annotation = {"id": 0, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], **more}
    return {"images": [{"id": 1}], "categories": [{"id": 1, "name": "cell"}], "annotations": [annotation]}


def at(x: float, score: float, width: float = 40) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": [x, 10, width, 40], "score": score}


def test_overlap_with_difficult_and_crowd_boxes() -> None:
    """Half of a box lies inside: enough for a crowd at any threshold, too little for a difficult box."""
    other = {"id": 7, "image_id": 1, "category_id": 1, "bbox": [100, 10, 40, 40]}
    results = [at(10, 0.9, width=15), at(100, 0.5)]
    for flag, ap in (("iscrowd", 1.0), ("difficult", 0.5)):
        truth = one_box(**{flag: 1})
        truth["annotations"].append(other)
        assert coco_metrics(truth, results).ap50 == pytest.approx(ap)


def test_detections_of_a_difficult_box_are_ignored() -> None:
    truth = one_box(difficult=True)
    truth["annotations"].append({"id": 7, "image_id": 1, "category_id": 1, "bbox": [100, 10, 40, 40]})
    results = [at(10, 0.9), at(11, 0.8), at(10, 0.7), at(100, 0.5)]
    assert coco_metrics(truth, results).ap50 == pytest.approx(1)
    assert coco_metrics(truth, [at(60, 0.9), at(100, 0.5)]).ap50 == pytest.approx(0.5)


def test_an_annotation_with_the_id_0_can_be_found() -> None:
    assert coco_metrics(one_box(), [at(10, 0.5)]).ap == pytest.approx(1)


def test_image_ids_may_be_strings(scene: Callable[..., Any]) -> None:
    truth, results = scene(3, difficult=0.2)
    names = {image["id"]: f"picture_{image['id']:04}" for image in truth["images"]}
    named = {
        **truth,
        "images": [{"id": names[i["id"]]} for i in truth["images"]],
        "annotations": [{**a, "image_id": names[a["image_id"]]} for a in truth["annotations"]],
    }
    assert coco_metrics(named, [{**r, "image_id": names[r["image_id"]]} for r in results]) == coco_metrics(truth, results)


def test_no_results_are_zero_and_no_boxes_nan(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = coco_metrics(one_box(), [])
    assert (nothing.ap, nothing.ap50, nothing.ar) == (0.0, 0.0, {1: 0.0, 10: 0.0, 100: 0.0})
    assert math.isnan(nothing.ap_small)  # the box is of medium size
    for truth in (one_box(difficult=True), {**one_box(), "annotations": []}):
        empty = coco_metrics(truth, [at(10, 0.5)])
        assert math.isnan(empty.ap)
        assert math.isnan(empty.classes[0].ar)
        assert empty.classes[0].boxes == 0
    assert math.isnan(coco_metrics({"images": [], "categories": [], "annotations": []}, []).ap)
    assert capsys.readouterr().out == ""


def test_a_class_without_boxes_is_left_out_of_the_mean() -> None:
    truth = one_box()
    truth["categories"].append({"id": 5, "name": "rare"})
    found = coco_metrics(truth, [at(10, 0.5), {**at(10, 0.9), "category_id": 5}])
    assert found.ap == pytest.approx(1)
    assert math.isnan(found.classes[1].ap)


def test_size_ranges_use_the_annotated_area() -> None:
    assert coco_metrics(one_box(), [at(10, 0.5)]).ap_medium == pytest.approx(1)
    assert coco_metrics(one_box(area=900.0), [at(10, 0.5)]).ap_small == pytest.approx(1)
