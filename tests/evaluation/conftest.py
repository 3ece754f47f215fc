"""Fixtures: ground truths and results."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

Scene = tuple[dict[str, Any], list[dict[str, Any]]]


def make_scene(
    seed: int, images: int = 12, classes: int = 3, crowd: float = 0.0, difficult: float = 0.0, integers: bool = False
) -> Scene:
    """Random boxes, and results of a mediocre detector: displaced, repeated, missing and false ones.

    With `integers`, every box has integer corners, as in VOC's files. Scores repeat now and then.
    """
    rng = random.Random(seed)
    truth: dict[str, Any] = {
        "images": [{"id": 10 + 7 * i, "width": 400, "height": 300} for i in range(images)],
        "categories": [{"id": 2 + 3 * c, "name": f"class {c}"} for c in range(classes)],
        "annotations": [],
    }
    results = []

    def found(image_id: int, category_id: int, box: list[float]) -> None:
        values = [float(round(v)) for v in box] if integers else box
        values[2:] = [max(1.0, v) for v in values[2:]]
        score = round(rng.random(), 2)
        results.append({"image_id": image_id, "category_id": category_id, "bbox": values, "score": score})

    for image in truth["images"]:
        for _ in range(rng.randrange(7)):
            side = rng.choice([12, 50, 150])
            box = [float(rng.randrange(250)), float(rng.randrange(150))]
            box += [float(rng.randrange(side, 2 * side)), float(rng.randrange(side, 2 * side))]
            annotation = {
                "id": len(truth["annotations"]) + 1,
                "image_id": image["id"],
                "category_id": rng.choice(truth["categories"])["id"],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(rng.random() < crowd),
                "difficult": rng.random() < difficult,
            }
            truth["annotations"].append(annotation)
            for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
                noise = rng.choice([0.0, 0.03, 0.1, 0.2])
                moved = [v + rng.gauss(0, noise) * s for v, s in zip(box, (*box[2:], *box[2:]), strict=True)]
                found(image["id"], annotation["category_id"], moved)
        for _ in range(rng.randrange(4)):
            category_id = rng.choice(truth["categories"])["id"]
            found(image["id"], category_id, [rng.uniform(0, 300), rng.uniform(0, 200), rng.uniform(5, 90), rng.uniform(5, 90)])
    return truth, results


@pytest.fixture
def scene() -> Callable[..., Scene]:
    return make_scene
