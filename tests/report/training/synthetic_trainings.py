"""Folders of trainings that were never trained: real files, and detections that are the boxes with errors."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nasdsl import load, resources
from nasdsl.data import Dataset, open_dataset
from nasdsl.evaluation import evaluate
from nasdsl.training import RECIPES

FCOS = load(resources.folder("genotypes") / "fcos.nas").with_width(32)
LOSSES = {"classification": 1.2, "bbox_regression": 0.8, "bbox_ctrness": 0.6}


def coco_folder(folder: Path, classes: int = 3, images: int = 5, objects: int = 6) -> Path:
    """Write a COCO data set with the split ``val``: noise with one crowd."""
    rng = random.Random(classes)
    (folder / "annotations").mkdir(parents=True)
    (folder / "val").mkdir()
    noise = np.random.default_rng(0)
    content: dict[str, Any] = {
        "images": [{"id": i, "file_name": f"image <{i}> & more.jpg", "height": 120, "width": 160} for i in range(images)],
        "categories": [{"id": 3 + 2 * c, "name": f"class <{c}> & co"} for c in range(classes)],
        "annotations": [],
    }
    for image in content["images"]:
        pixels = noise.integers(0, 255, (15, 20, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(folder / "val" / image["file_name"])
        for number in range(objects):
            box = [rng.randrange(100), rng.randrange(70), rng.randrange(20, 50), rng.randrange(20, 45)]
            category = content["categories"][(image["id"] + number) % classes]["id"]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(number == 5 and image["id"] == 0),
                }
            )
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return folder


def detections(dataset: Dataset, seed: int = 0) -> list[dict[str, Any]]:
    """The boxes of a data set, some missing, displaced or of another class, and some in empty places."""
    rng, found = random.Random(seed), []
    truth = dataset.ground_truth()
    for box in truth["annotations"]:
        if rng.random() < 0.85 and not box["iscrowd"]:
            shift = rng.choice([0.02, 0.02, 0.1, 0.4]) * box["bbox"][2]
            category = box["category_id"] if rng.random() < 0.85 else rng.choice(dataset.category_ids)
            x, y, w, h = box["bbox"]
            score = min(0.97, max(0.06, rng.gauss(0.7 - shift / 100, 0.15)))
            found.append({"image_id": box["image_id"], "category_id": category, "bbox": [x + shift, y, w, h], "score": score})
    for image in truth["images"]:
        for _ in range(3):
            box = [rng.uniform(0, 90), rng.uniform(0, 60), rng.uniform(10, 60), rng.uniform(10, 50)]
            category = rng.choice(dataset.category_ids)
            found.append({"image_id": image["id"], "category_id": category, "bbox": box, "score": rng.uniform(0.05, 0.6)})
    return found


def write_run(folder: Path, spec: str, *, steps: int = 60, evaluations: int = 3, evaluated: bool = True, **config: Any) -> Path:
    """Write the folder of a training with the given numbers of steps and evaluations."""
    dataset = open_dataset(spec, "val")
    folder.mkdir(parents=True)
    detector = {
        "decoder": FCOS.source.text,
        "backbone": {"name": "tiny", "freeze_at": 0, "norm": "train"},
        "classes": list(dataset.classes),
        "category_ids": list(dataset.category_ids),
        "min_size": [96],
        "max_size": 160,
        "fixed_size": [96, 128],
        "size_divisible": 1,
        "method": {"nms": 0.6},
    }
    written = {
        "format": "nasdsl run 1",
        "detector": detector,
        "recipe": RECIPES["quick"].changed({"epochs": 3}).to_dict(),
        "data": {"pictures": 40, "classes": list(dataset.classes), "category_ids": list(dataset.category_ids)},
        "about": {"command": "nasdsl train …", "data": spec, "split": "train"},
        "versions": {"python": "3.12"},
        **config,
    }
    (folder / "config.json").write_text(json.dumps(written))
    (folder / "decoder.nas").write_text(FCOS.source.text)
    (folder / "model.pt").write_bytes(bytes(1234))
    results = detections(dataset)
    measured = evaluate(dataset.ground_truth(), results).to_dict()
    log = []
    for step in range(10, steps + 1, 10):
        losses = {name: start / (1 + step / 30) + 0.03 * (step % 3) for name, start in LOSSES.items()}
        record = {
            "event": "train", "step": step, "epoch": 3 * step / steps, "lr": 1e-3 * (1 - step / steps), "images": 80,
            "loss": sum(losses.values()), "losses": losses, "gradient_norm": 1.0, "nonfinite": 0, "seconds": 20.0,
            "seconds_left": 2.0 * (steps - step) + 5.0,
        }  # fmt: skip
        log.append(record)
        if evaluated and step % (steps // evaluations) == 0:
            coco = {**measured["coco"], "ap": (measured["coco"]["ap"] or 0) * step / steps}
            log.append({"event": "evaluation", "step": step, **measured, "coco": coco})
    (folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log))
    if evaluated:
        (folder / "results.json").write_text(json.dumps(results))
        context = {"step": steps, "data": dataset.name, "unreadable": []}
        (folder / "metrics.json").write_text(json.dumps({**context, **measured}))
    return folder
