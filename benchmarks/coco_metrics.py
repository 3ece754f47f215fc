"""COCO's metrics for 1,000 images and 80 classes: our `coco_metrics` against pycocotools.

    python benchmarks/coco_metrics.py [--images 1000] [--rounds 3]

Random data: about 7 boxes in a picture, 1 % of them crowds, and 100 detections in a picture, half of them near a box. Both
start from the same Python dictionaries and compute the twelve figures; pycocotools is used as in its demonstration. They
alternate in one process; the table has medians.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import statistics
import time
from importlib.metadata import version
from typing import Any

import numpy as np

Annotations = list[dict[str, Any]]


def scene(images: int, classes: int = 80, detections: int = 100) -> tuple[dict[str, Any], Annotations]:
    """Random ground truth and results."""
    draw = np.random.default_rng(0)
    annotations: Annotations = []
    results: Annotations = []
    for image in range(1, images + 1):
        count = int(draw.poisson(7))
        corners, sizes = draw.uniform(0, 400, (count, 2)), draw.lognormal(4, 0.8, (count, 2))
        of_class = draw.integers(1, classes + 1, count)
        for corner, size, category in zip(corners, sizes, of_class, strict=True):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": int(category),
                    "bbox": [*map(float, corner), *map(float, size)],
                    "area": float(size.prod()),
                    "iscrowd": int(draw.random() < 0.01),
                }
            )
        for number in range(detections):
            if count and number % 2:
                near = number // 2 % count
                box = [*(corners[near] + draw.normal(0, 6, 2)), *(sizes[near] * draw.lognormal(0, 0.15, 2))]
                category = int(of_class[near])
            else:
                box = [*draw.uniform(0, 400, 2), *draw.lognormal(4, 0.8, 2)]
                category = int(draw.integers(1, classes + 1))
            result = {"image_id": image, "category_id": category, "bbox": [float(v) for v in box]}
            results.append({**result, "score": float(draw.random())})
    truth = {
        "images": [{"id": image, "width": 640, "height": 640} for image in range(1, images + 1)],
        "categories": [{"id": number, "name": f"class {number}"} for number in range(1, classes + 1)],
        "annotations": annotations,
    }
    return truth, results


def theirs(truth: dict[str, Any], results: Annotations) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(evaluation.stats)


def ours(truth: dict[str, Any], results: Annotations) -> list[float]:
    from nasdsl.evaluation.coco import coco_metrics

    found = coco_metrics(truth, results)
    precision = [found.ap, found.ap50, found.ap75, found.ap_small, found.ap_medium, found.ap_large]
    return [*precision, *found.ar.values(), found.ar_small, found.ar_medium, found.ar_large]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    truth, results = scene(given.images)
    seconds: dict[str, list[float]] = {"nasdsl": [], "pycocotools": []}
    figures = {}
    for _ in range(given.rounds):
        for name, compute in (("nasdsl", ours), ("pycocotools", theirs)):
            copy = [dict(result) for result in results]  # pycocotools modifies them
            start = time.perf_counter()
            figures[name] = compute(truth, copy)
            seconds[name].append(time.perf_counter() - start)
    difference = max(abs(a - b) for a, b in zip(*figures.values(), strict=True))
    print("| evaluation | seconds (range) | AP | of pycocotools' time |\n|---|---|---|---|")
    whole = statistics.median(seconds["pycocotools"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        spread = f"{median:.2f} ({min(taken):.2f} to {max(taken):.2f})"
        print(f"| {name} | {spread} | {figures[name][0]:.6f} | {median / whole:.3f} |")
    print(f"\n{given.images} images, 80 classes, {len(truth['annotations'])} boxes, {len(results)} detections;", end=" ")
    print(f"largest difference of the twelve figures {difference:.1e}; medians of {given.rounds} rounds;", end=" ")
    print(f"{os.cpu_count()} CPU cores, Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("pycocotools", "faster-coco-eval")))


if __name__ == "__main__":
    main()
