"""Detectors, runs and data for the tests of `eval` and `detect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from nasdsl import load, resources
from nasdsl.detection.detector import Detector
from nasdsl.detection.factory import detector


def untrained_detector(classes: int | tuple[str, ...], category_ids: tuple[int, ...] | None = None, **options: Any) -> Detector:
    """An untrained detector whose scores are high and differ from place to place."""
    decoder = load(resources.folder("genotypes") / "retinanet.nas").with_width(64)
    options = {"min_size": 64, "max_size": 96, **options}
    built = detector(decoder, "tiny", classes=classes, category_ids=category_ids, seed=0, detections=20, **options)
    with torch.no_grad():
        built.decoder.head.cls_logits.bias.fill_(-1)
        built.decoder.head.cls_logits.weight.mul_(500)
    return built.eval()


def noise(size: tuple[int, int], seed: int = 0) -> Any:
    """uint8 [H, W, 3], in coarse patches."""
    height, width = size
    coarse = np.random.default_rng(seed).integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]


def coco(folder: Path, annotations: list[Any] | None = None, names: tuple[str, ...] = ("dog", "cat")) -> Path:
    """Write a COCO dataset of three images with one object each, or with the given annotations."""
    (folder / "annotations").mkdir()
    (folder / "val").mkdir()
    for number in (1, 2, 3):
        Image.fromarray(noise((48, 64), number)).save(folder / "val" / f"{number}.png")
    boxes = [{"id": i, "image_id": i, "category_id": 17, "bbox": [8, 8, 30, 30], "area": 900, "iscrowd": 0} for i in (1, 2, 3)]
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 48, "width": 64} for i in (1, 2, 3)],
        "annotations": boxes if annotations is None else annotations,
        "categories": [{"id": 17 + n, "name": name} for n, name in enumerate(names)],
    }
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(content))
    return folder
