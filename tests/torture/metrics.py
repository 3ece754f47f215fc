"""COCO's metrics on random ground truths and results, against pycocotools: equal to 1e-12."""

from __future__ import annotations

import contextlib
import copy
import io
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nasdsl.evaluation import coco_metrics
from torture.subject import Case, Report, Subject

TOLERANCE = 1e-12
AREAS = ("all", "small", "medium", "large")


def scene(rng: random.Random) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and results.

    There are crowds, equal scores, areas on the bounds of COCO's ranges and other than width x height, classes and images
    without boxes, more results than count, results far from any box, and the same result twice.
    """
    classes, images = rng.choice((1, 2, 5, 12)), rng.choice((1, 3, 12))
    crowd, digits, most = rng.choice((0.0, 0.1, 0.6)), rng.choice((0, 1, 2, 9)), rng.choice((3, 8, 40))
    truth: dict[str, Any] = {
        "images": [{"id": 3 + 7 * n, "width": 400, "height": 300} for n in range(images)],
        "categories": [{"id": 2 + 3 * n, "name": f"class {n}"} for n in range(classes)],
        "annotations": [],
    }
    used = rng.sample([c["id"] for c in truth["categories"]], rng.randint(1, classes))
    results: list[dict[str, Any]] = []

    def find(image: int, category: int, box: list[float]) -> None:
        results.append({"image_id": image, "category_id": category, "bbox": box, "score": round(rng.random(), digits)})

    for image in truth["images"] if rng.random() > 0.05 else []:
        for _ in range(rng.randrange(most)):
            w, h = rng.choice(
                ((32.0, 32.0), (96.0, 96.0), (rng.uniform(1, 30),) * 2, (rng.uniform(1, 300), rng.uniform(1, 200)))
            )
            box = [rng.uniform(0, 300), rng.uniform(0, 200), w, h]
            area = rng.choice((w * h, w * h, w * h / 2, 1024.0, 9216.0))
            entry = {"id": len(truth["annotations"]) + 1, "image_id": image["id"], "category_id": rng.choice(used), "bbox": box}
            truth["annotations"].append({**entry, "area": area, "iscrowd": int(rng.random() < crowd)})
            for _ in range(rng.choice((0, 1, 1, 1, 2, 30 if most > 8 else 1))):
                noise = rng.choice((0.0, 0.02, 0.1, 0.3))
                moved = [v + rng.gauss(0, noise) * s for v, s in zip(box, (w, h, w, h), strict=True)]
                find(image["id"], entry["category_id"], [*moved[:2], max(0.5, moved[2]), max(0.5, moved[3])])
        for _ in range(rng.randrange(5)):
            other = rng.choice(truth["categories"])["id"]
            find(image["id"], other, [rng.uniform(-50, 350), rng.uniform(-50, 250), rng.uniform(0.5, 90), rng.uniform(0.5, 90)])
    if results and rng.random() < 0.3:
        results.append(dict(rng.choice(results)))
    rng.shuffle(results)
    return truth, results


def by_pycocotools(truth: dict[str, Any], results: list[dict[str, Any]], limits: list[int]) -> dict[str, float]:
    """All figures from pycocotools' arrays, nan where nothing counts."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco, found = COCO(), COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        if results:
            found = coco.loadRes(copy.deepcopy(results))
        else:
            found.dataset = {**copy.deepcopy(truth), "annotations": []}
            found.createIndex()
        evaluation = COCOeval(coco, found, "bbox")
        evaluation.params.maxDets = limits
        evaluation.evaluate()
        evaluation.accumulate()
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]  # [T, R, K, A, M], [T, K, A, M]

    def mean(values: Any) -> float:
        values = values[values > -1]
        return float(np.mean(values)) if values.size else math.nan

    figures = {
        "ap": mean(precision[..., 0, -1]),
        "ap50": mean(precision[0, ..., 0, -1]),
        "ap75": mean(precision[5, ..., 0, -1]),
    }
    for number, area in enumerate(AREAS[1:], 1):
        figures |= {f"ap_{area}": mean(precision[..., number, -1]), f"ar_{area}": mean(recall[..., number, -1])}
    figures |= {f"ar {limit}": mean(recall[:, :, 0, n]) for n, limit in enumerate(limits)}
    for number, category in enumerate(evaluation.params.catIds):
        figures |= {
            f"ap of {category}": mean(precision[:, :, number, 0, -1]),
            f"ar of {category}": mean(recall[:, number, 0, -1]),
        }
        figures |= {f"ap50 of {category}": mean(precision[0, :, number, 0, -1])}
    return figures


def by_us(truth: dict[str, Any], results: list[dict[str, Any]], limits: list[int]) -> dict[str, float]:
    """The same figures."""
    found = coco_metrics(truth, results, limits)
    figures = {name: getattr(found, name) for name in ("ap", "ap50", "ap75")}
    figures |= {f"{kind}_{area}": getattr(found, f"{kind}_{area}") for kind in ("ap", "ar") for area in AREAS[1:]}
    figures |= {f"ar {limit}": value for limit, value in found.ar.items()}
    for one in found.classes:
        figures |= {
            f"ap of {one.category_id}": one.ap,
            f"ar of {one.category_id}": one.ar,
            f"ap50 of {one.category_id}": one.ap50,
        }
    return figures


@contextmanager
def start(folder: Path) -> Iterator[Case]:
    """Nothing is prepared."""

    def case(number: int, report: Report) -> None:
        rng = random.Random(number)
        truth, results = scene(rng)
        limits = rng.choice(([1, 10, 100], [1, 10, 100], [1], [3, 7], [100, 300]))
        report.count("boxes", len(truth["annotations"]))
        report.count("results", len(results))
        ours, theirs = by_us(truth, results, limits), by_pycocotools(truth, results, limits)
        report.count("figures", len(theirs))
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if not (abs(ours[name] - value) <= TOLERANCE or (math.isnan(value) and math.isnan(ours[name]))):
                report.finding(f"{name} is {ours[name]!r}, of pycocotools {value!r} ({limits} detections)")

    yield case


SUBJECT = Subject("metrics", "sets of boxes", 2000, start, megabytes=1000)
