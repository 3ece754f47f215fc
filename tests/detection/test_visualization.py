"""Drawing detections on images."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_detectors import random_images
from torch import Tensor

from nasdsl.data import read_image
from nasdsl.detection.visualization import class_color, draw_detections, write_png

GREY = torch.full((3, 80, 120), 128, dtype=torch.uint8)


def found(*boxes: tuple[float, float, float, float], scores: list[float] | None = None) -> dict[str, Tensor]:
    scores = scores or [0.9] * len(boxes)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.arange(len(boxes)),
        "scores": torch.tensor(scores),
    }


def has_color_of(image: Tensor, label: int) -> Tensor:
    """[H, W] bool: pixels with the color of a class."""
    return (image == torch.tensor(class_color(label), dtype=torch.uint8).view(3, 1, 1)).all(dim=0)


def test_a_box_has_the_color_of_its_class() -> None:
    before = GREY.clone()
    drawn = draw_detections(GREY, found((20, 30, 100, 70)), ["cat"])
    assert torch.equal(GREY, before)
    assert (drawn.shape, drawn.dtype) == (GREY.shape, torch.uint8)
    at = has_color_of(drawn, 0)
    assert at[30:71, 20].all()
    assert at[70, 20:101].all()
    assert at[30:71, 100].all()
    assert torch.equal(drawn[:, 50:66, 40:90], GREY[:, 50:66, 40:90]), "inside it nothing is drawn"
    assert torch.equal(drawn[:, :, 104:], GREY[:, :, 104:])


def test_the_name_and_score_are_written() -> None:
    one, other = (draw_detections(GREY, found((20, 30, 110, 70)), [name]) for name in ("cat", "çäłт"))
    assert not torch.equal(one, other)
    worse = draw_detections(GREY, found((20, 30, 110, 70), scores=[0.8]), ["cat"])
    assert not torch.equal(one, worse)


def test_the_threshold_and_the_order_of_drawing() -> None:
    detections = found((10, 10, 60, 60), (10, 10, 60, 60), (70, 10, 110, 60), scores=[0.9, 0.5, 0.1])
    drawn = draw_detections(GREY, detections, ["a", "b", "c"], threshold=0.4)
    assert has_color_of(drawn, 0)[60, 10:60].all()
    assert not has_color_of(drawn, 1)[60, 10:60].any()
    assert not has_color_of(drawn, 2).any()
    turned = {name: value.flip(0) for name, value in detections.items()}
    assert torch.equal(draw_detections(GREY, turned, ["a", "b", "c"], threshold=0.4), drawn)
    assert torch.equal(draw_detections(GREY, detections, ["a", "b", "c"], threshold=0.91), GREY)
    assert has_color_of(draw_detections(GREY, detections, ["a", "b", "c"], threshold=0.0), 2).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 3), (3, 500)], ids=str)
def test_tiny_images_and_boxes_at_the_edge(size: tuple[int, int]) -> None:
    image = random_images(size)[0]
    height, width = size
    boxes = [(0.0, 0.0, float(width), float(height)), (-5.0, -5.0, width + 5.0, height + 5.0), (0.4, 0.4, 0.45, 0.45)]
    assert draw_detections(image, found(*boxes), ["a", "b", "c"]).shape == image.shape
    assert torch.equal(draw_detections(image, found(), ["a"]), image)


def test_a_box_as_large_as_the_image_has_all_four_lines() -> None:
    for box in ((0.0, 0.0, 120.0, 80.0), (-9.0, -9.0, 150.0, 150.0)):
        at = has_color_of(draw_detections(GREY, found(box), ["a"]), 0)
        assert at[-1, 1:].all()
        assert at[1:, -1].all()
        assert at[40:, 0].all()


def test_class_colors_are_distinct_and_dark_enough_for_white_text() -> None:
    colors = [class_color(label) for label in range(80)]
    assert len(set(colors)) == 80
    for left, right in pairwise(colors):
        assert sum(abs(a - b) for a, b in zip(left, right, strict=True)) > 150
    assert all(0 <= value <= 255 for rgb in colors for value in rgb)


def test_png_round_trip_in_any_memory_layout(tmp_path: Path) -> None:
    path = tmp_path / "bär 1.png"
    for image in (random_images((7, 3))[0], torch.arange(60, dtype=torch.uint8).view(4, 5, 3).permute(2, 0, 1)):
        write_png(path, draw_detections(image, found(), ["a"]))
        with Image.open(path) as read:
            assert (read.format, read.mode, read.size) == ("PNG", "RGB", (image.shape[2], image.shape[1]))
        assert torch.equal(read_image(path), image)
        write_png(path, draw_detections(image, found((0, 0, 2, 2)), ["a"]))
        assert read_image(path).shape == image.shape
    with pytest.raises(OSError, match="nowhere"):
        write_png(tmp_path / "nowhere" / "a.png", GREY)
