"""Fixtures: small VOC and COCO folders, and the shared test data beside the checkout."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from data_folders import picture

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def bccd() -> str:
    return _shared("bccd_voc")


@pytest.fixture
def coco_dev() -> str:
    return _shared("coco_cc_dev")


def _shared(name: str) -> str:
    if not (SHARED / name).is_dir():
        pytest.skip(f"THE SHARED TEST DATA IS MISSING: {name} beside the checkout; real data is not tested")
    return str(SHARED / name)


@pytest.fixture
def voc(tmp_path: Path) -> Callable[..., Path]:
    """Make a VOC folder: stem -> XML; split -> its lines. Every stem gets a picture."""

    def make(annotations: dict[str, str], folder: str = "voc", **splits: Sequence[str]) -> Path:
        root = tmp_path / folder
        for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / part).mkdir(parents=True, exist_ok=True)
        for number, (stem, text) in enumerate(annotations.items()):
            (root / "Annotations" / f"{stem}.xml").write_text(text)
            picture(root / "JPEGImages" / f"{stem}.jpg", seed=number)
        for split, lines in (splits or {"train": list(annotations)}).items():
            (root / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(lines) + "\n")
        return root

    return make


@pytest.fixture
def coco(tmp_path: Path) -> Callable[..., Path]:
    """Make a COCO folder of 3 pictures 40x60 (HxW) with ids 5, 7, 9 and categories 3 (cat), 17 (dog)."""

    def make(annotations: Sequence[Any], split: str = "train", folder: str = "train", **changes: Any) -> Path:
        root = tmp_path / "coco"
        images = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in (5, 7, 9)]
        for entry in images:
            picture(root / folder / str(entry["file_name"]), seed=int(entry["id"]))
        content = {
            "images": images,
            "annotations": list(annotations),
            "categories": [{"id": 17, "name": "dog"}, {"id": 3, "name": "cat"}],
            **changes,
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        return root

    return make
