"""Images and annotations for folders of test data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def picture(path: Path, size: tuple[int, int] = (40, 60), seed: int = 0) -> Path:
    """A picture of (H, W) with smooth random content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BICUBIC).save(path)
    return path


def voc_xml(
    objects: Sequence[str], size: tuple[int, int] | None = (40, 60), filename: str = "", database: str | None = None
) -> str:
    head = "" if size is None else f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    if database is not None:
        head = f"<source><database>{database}</database></source>{head}"
    return f"<annotation><filename>{filename}</filename>{head}{''.join(objects)}</annotation>"


def voc_object(name: str, xmin: Any, ymin: Any, xmax: Any, ymax: Any, extra: str = "") -> str:
    box = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name>{extra}<bndbox>{box}</bndbox></object>"
