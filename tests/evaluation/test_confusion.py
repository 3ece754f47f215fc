"""F1, the confusion matrix and images by their errors, against a slow version that follows the definitions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from nasdsl.evaluation import (
    EvaluationError,
    best_threshold,
    confusion_matrix,
    f1_scores,
    image_errors,
    mean_f1,
    precision_recall,
)


def iou(a: list[float], b: list[float]) -> float:
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    return both / (a[2] * a[3] + b[2] * b[3] - both)


def is_easy(box: dict[str, Any]) -> bool:
    return not box["iscrowd"] and not box["difficult"]


def slow(truth: dict[str, Any], results: list[dict[str, Any]], threshold: float) -> tuple[Counter[Any], dict[Any, list[int]]]:
    """Counts of (true, detected) class ids, None for background; [right, false, missed] of each image."""
    pairs: Counter[Any] = Counter()
    images = {image["id"]: [0, 0, 0] for image in truth["images"]}
    kept = sorted((r for r in results if r["score"] >= threshold), key=lambda r: -r["score"])
    used: set[int] = set()
    false = []
    for r in kept:
        own = [b for b in truth["annotations"] if (b["image_id"], b["category_id"]) == (r["image_id"], r["category_id"])]
        best = max(own, key=lambda b: iou(r["bbox"], b["bbox"]), default=None)
        if best is None or iou(r["bbox"], best["bbox"]) < 0.5:
            false.append(r)
        elif is_easy(best):
            if best["id"] in used:
                false.append(r)
            else:
                used.add(best["id"])
                pairs[r["category_id"], r["category_id"]] += 1
                images[r["image_id"]][0] += 1
    left = [b for b in truth["annotations"] if is_easy(b) and b["id"] not in used]
    for b in left:
        images[b["image_id"]][2] += 1
    for r in false:
        images[r["image_id"]][1] += 1
        others = [b for b in left if b["image_id"] == r["image_id"] and b["category_id"] != r["category_id"]]
        best = max(others, key=lambda b: iou(r["bbox"], b["bbox"]), default=None)
        if best is not None and iou(r["bbox"], best["bbox"]) >= 0.5:
            left.remove(best)
            pairs[best["category_id"], r["category_id"]] += 1
        else:
            pairs[None, r["category_id"]] += 1
    for b in left:
        pairs[b["category_id"], None] += 1
    return pairs, images


def confused(scene: Callable[..., Any], seed: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A scene in which every third detection has another class, and scores are distinct."""
    truth, results = scene(seed, classes=4, crowd=0.1, difficult=0.15)
    ids = [category["id"] for category in truth["categories"]]
    for number, result in enumerate(results):
        result["score"] = (result["score"] * 100 + number / len(results)) / 101
        if number % 3 == 0:
            result["category_id"] = ids[number % len(ids)]
    return truth, results


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("threshold", [0.0, 0.4, 0.8])
def test_against_the_slow_version(scene: Callable[..., Any], seed: int, threshold: float) -> None:
    truth, results = confused(scene, seed)
    pairs, images = slow(truth, results, threshold)
    matrix = confusion_matrix(truth, results, threshold)
    ids = [category.id for category in matrix.categories] + [None]
    assert {(ids[i], ids[j]): n for (i, j), n in np.ndenumerate(matrix.counts) if n} == dict(pairs)
    assert any(i != j and None not in (i, j) for i, j in pairs) or threshold > 0.5  # some boxes have another class

    found = image_errors(truth, results, threshold)
    assert {e.image_id: [len(e.right), len(e.false), len(e.missed)] for e in found} == images
    assert all(len(e.found) == len(e.right) for e in found)
    assert [(e.f1, -e.errors) for e in found] == sorted((e.f1, -e.errors) for e in found)
    for e in found:
        right, false, missed = images[e.image_id]
        assert e.f1 == (2 * right / (2 * right + false + missed) if right + false + missed else 1)
        assert all(results[n]["image_id"] == e.image_id and results[n]["score"] >= threshold for n in (*e.right, *e.false))
        assert all(truth["annotations"][n]["image_id"] == e.image_id for n in (*e.found, *e.missed))

    # What is counted is what precision and recall count.
    curves = precision_recall(truth, [r for r in results if r["score"] >= threshold])
    for number, curve in enumerate(curves):
        assert matrix.counts[number].sum() == curve.boxes
        assert matrix.counts[:, number].sum() == len(curve.scores)
        assert matrix.counts[number, number] == (curve.true_positives[-1] if len(curve.scores) else 0)


@pytest.mark.parametrize("seed", range(3))
def test_f1_and_the_best_threshold(scene: Callable[..., Any], seed: int) -> None:
    truth, results = confused(scene, seed)
    thresholds = np.array([0.0, 0.25, results[0]["score"], 0.5, 0.75, 1.0])  # one is a score, which is kept
    curves = precision_recall(truth, results)
    for curve in curves:
        expected = []
        for threshold in thresholds:
            _, single = slow(truth, [r for r in results if r["category_id"] == curve.category_id], threshold)
            pairs, _ = slow(truth, results, threshold)
            right = pairs[curve.category_id, curve.category_id]
            detections = sum(n for (_, j), n in pairs.items() if j == curve.category_id)
            expected.append(2 * right / (detections + curve.boxes))
            assert sum(image[0] for image in single.values()) == right
        assert f1_scores(curve, thresholds) == pytest.approx(expected)
    best = best_threshold(curves)
    assert best is not None
    means = mean_f1(curves)
    assert best.f1 == means.max()
    assert best.score == np.flatnonzero(means == means.max())[0] / 1000
    assert means[round(1000 * best.score)] == pytest.approx(
        np.mean([f1_scores(curve, np.array([best.score]))[0] for curve in curves if curve.boxes])
    )


def test_confusions_by_frequency(scene: Callable[..., Any]) -> None:
    truth, results = confused(scene, 1)
    matrix = confusion_matrix(truth, results, 0.0)
    listed = matrix.confusions
    assert [n for *_, n in listed] == sorted((n for *_, n in listed), reverse=True)
    inner = matrix.counts[:-1, :-1]
    assert sum(n for *_, n in listed) == inner.sum() - np.trace(inner)


def test_nothing_to_find_and_nothing_found() -> None:
    truth = {"images": [{"id": 1}, {"id": 2}], "annotations": [], "categories": [{"id": 3, "name": "cell"}]}
    curves = precision_recall(truth, [])
    assert math.isnan(f1_scores(curves[0])[0])
    assert best_threshold(curves) is None
    assert best_threshold(()) is None
    assert not confusion_matrix(truth, [], 0.5).counts.any()
    assert [(e.image_id, e.f1, e.errors) for e in image_errors(truth, [], 0.5)] == [(1, 1.0, 0), (2, 1.0, 0)]
    wrong = [{"image_id": 2, "category_id": 3, "bbox": [0, 0, 9, 9], "score": 0.7}]
    assert confusion_matrix(truth, wrong, 0.7).counts.tolist() == [[0, 0], [1, 0]]
    assert [(e.image_id, e.f1) for e in image_errors(truth, wrong, 0.7)] == [(2, 0.0), (1, 1.0)]
    assert best_threshold(precision_recall(truth, wrong)) is None
    with pytest.raises(EvaluationError, match="image_id 5"):
        confusion_matrix(truth, [{**wrong[0], "image_id": 5}], 0.5)
