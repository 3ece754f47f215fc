"""VOC's metrics against the development kit's algorithm in its own coordinates, and against values by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nasdsl.evaluation import EvaluationError, precision_recall, voc_metrics


def devkit(truth: dict[str, Any], results: list[dict[str, Any]], category_id: int) -> tuple[float, float]:
    """`VOCevaldet.m` and both versions of its AP for one class: 1-based inclusive pixels, widths with + 1."""

    def corners(box: list[float]) -> tuple[float, float, float, float]:
        x, y, width, height = box
        return x + 1, y + 1, x + width, y + height

    boxes = [a for a in truth["annotations"] if a["category_id"] == category_id]
    detected = [False] * len(boxes)
    tp, fp = [], []
    for result in sorted((r for r in results if r["category_id"] == category_id), key=lambda r: -r["score"]):
        a = corners(result["bbox"])
        best, best_overlap = -1, -math.inf
        for number, box in enumerate(boxes):
            b = corners(box["bbox"])
            width = min(a[2], b[2]) - max(a[0], b[0]) + 1
            height = min(a[3], b[3]) - max(a[1], b[1]) + 1
            if box["image_id"] != result["image_id"] or width <= 0 or height <= 0:
                continue
            areas = (a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1)
            overlap = width * height / (areas - width * height)
            if overlap > best_overlap:
                best, best_overlap = number, overlap
        right = wrong = 0
        if best_overlap < 0.5:
            wrong = 1
        elif not boxes[best]["difficult"]:
            right, wrong = (0, 1) if detected[best] else (1, 0)
            detected[best] = True
        tp.append(right)
        fp.append(wrong)
    positives = sum(not b["difficult"] for b in boxes)
    right_sum, wrong_sum = np.cumsum(tp), np.cumsum(fp)
    recall = right_sum / positives
    precision = right_sum / np.maximum(right_sum + wrong_sum, 1)
    voc07 = sum(max([p for r, p in zip(recall, precision, strict=True) if r >= t / 10], default=0.0) for t in range(11)) / 11
    mrec, mpre = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    voc12 = sum((mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)))
    return voc07, voc12


@pytest.mark.parametrize("seed", range(6))
def test_integer_boxes_against_the_devkit(scene: Callable[..., Any], seed: int) -> None:
    truth, results = scene(seed, difficult=0.25, integers=True)
    voc07, voc12 = (voc_metrics(truth, results, metric) for metric in ("voc07", "voc12"))
    for of07, of12 in zip(voc07.classes, voc12.classes, strict=True):
        assert (of07.ap, of12.ap) == pytest.approx(devkit(truth, results, of07.category_id), abs=1e-12)
    assert voc07.mean_ap == pytest.approx(np.mean([c.ap for c in voc07.classes]))


pixel = st.integers(0, 12)
pixel_boxes = st.tuples(pixel, pixel, st.integers(1, 12), st.integers(1, 12)).map(lambda b: [float(v) for v in b])


@settings(max_examples=100, deadline=None)
@given(
    boxes=st.lists(st.tuples(pixel_boxes, st.booleans()), min_size=1, max_size=6),
    found=st.lists(st.tuples(pixel_boxes, st.sampled_from([0.2, 0.5, 0.7])), max_size=12),
)
def test_random_pixel_boxes_against_the_devkit(boxes: list[Any], found: list[Any]) -> None:
    """Small boxes on a small grid: many overlaps of exactly one half, equal overlaps, equal scores, duplicates."""
    truth = make_truth(*boxes)
    results = [{"image_id": "a", "category_id": 1, "bbox": box, "score": score} for box, score in found]
    ours = [voc_metrics(truth, results, metric).mean_ap for metric in ("voc07", "voc12")]
    if all(difficult for _, difficult in boxes):
        assert np.isnan(ours).all()
    else:
        assert ours == pytest.approx(devkit(truth, results, 1), abs=1e-12)


def make_truth(*boxes: tuple[list[float], bool]) -> dict[str, Any]:
    return {
        "images": [{"id": "a"}, {"id": "b"}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": n, "image_id": "a", "category_id": 1, "bbox": box, "difficult": difficult}
            for n, (box, difficult) in enumerate(boxes)
        ],
    }


def found(box: list[float], score: float, image_id: str = "a") -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "bbox": box, "score": score}


A, B, C = [0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 10.0, 10.0], [0.0, 50.0, 10.0, 10.0]


def test_by_hand() -> None:
    """True, false and true positive, one of three boxes missed: precision 1 up to recall 1/3, 2/3 up to recall 2/3."""
    truth = make_truth((A, False), (B, False), (C, False))
    results = [found(A, 0.9), found(A, 0.8, "b"), found(B, 0.7)]
    (curve,) = precision_recall(truth, results)
    assert curve.true_positives.tolist() == [1, 1, 2]
    assert curve.recall.tolist() == pytest.approx([1 / 3, 1 / 3, 2 / 3])
    assert curve.precision.tolist() == pytest.approx([1, 1 / 2, 2 / 3])
    assert curve.scores.tolist() == [0.9, 0.8, 0.7]
    assert voc_metrics(truth, results, "voc12").mean_ap == pytest.approx(1 / 3 + 2 / 9)
    # recalls 0, .1, .2, .3 at precision 1, then .4, .5, .6 at 2/3, then nothing
    assert voc_metrics(truth, results, "voc07").mean_ap == pytest.approx((4 + 3 * 2 / 3) / 11)


def test_repeated_and_difficult_matches() -> None:
    truth = make_truth((A, False), (B, True))
    results = [found(B, 0.95), found(B, 0.94), found(A, 0.9), found(A, 0.8)]
    (curve,) = precision_recall(truth, results)
    assert (curve.boxes, curve.true_positives.tolist()) == (1, [1, 1])


def test_only_the_best_overlapping_box_is_matched() -> None:
    """COCO would give the second detection the box that is left; VOC does not."""
    near = [1.0, 0.0, 10.0, 10.0]
    truth = make_truth((A, False), (near, False))
    results = [found(A, 0.9), found(A, 0.8)]
    assert precision_recall(truth, results)[0].true_positives.tolist() == [1, 1]


def test_iou_threshold_is_inclusive() -> None:
    half = [0.0, 0.0, 10.0, 5.0]
    assert voc_metrics(make_truth((A, False)), [found(half, 0.5)]).mean_ap == 1.0
    assert voc_metrics(make_truth((A, False)), [found([0.0, 0.0, 10.0, 4.999], 0.5)]).mean_ap == 0.0
    assert voc_metrics(make_truth((A, False)), [found(half, 0.5)], iou=0.51).mean_ap == 0.0


def test_eleven_recalls_are_exact_tenths() -> None:
    """Three of ten found: recall 0.3 is reached, though 3 * 0.1 > 0.3 in floating point."""
    boxes = [[20.0 * n, 0.0, 10.0, 10.0] for n in range(10)]
    truth = make_truth(*((box, False) for box in boxes))
    for right in range(11):
        results = [found(box, 0.9) for box in boxes[:right]]
        assert voc_metrics(truth, results, "voc07").mean_ap == pytest.approx((right + 1 if right else 0) / 11)


def test_no_results_are_zero_and_no_boxes_nan() -> None:
    for metric in ("voc07", "voc12"):
        assert voc_metrics(make_truth((A, False)), [], metric).mean_ap == 0.0
        assert math.isnan(voc_metrics(make_truth((A, True)), [found(A, 0.5)], metric).mean_ap)
        assert math.isnan(voc_metrics(make_truth(), [], metric).mean_ap)


def test_a_class_without_boxes_is_left_out_of_the_mean() -> None:
    truth = make_truth((A, False))
    truth["categories"].append({"id": 4, "name": "rare"})
    assert voc_metrics(truth, [found(A, 0.5), {**found(A, 0.5), "category_id": 4}]).mean_ap == 1.0


def test_boxes_without_area() -> None:
    flat = [5.0, 5.0, 0.0, 0.0]
    assert voc_metrics(make_truth((flat, False)), [found(flat, 0.5)]).mean_ap == 0.0


def test_an_unknown_metric() -> None:
    with pytest.raises(EvaluationError, match=r"'voc10'; expected voc07 or voc12"):
        voc_metrics(make_truth(), [], "voc10")  # type: ignore[arg-type]
