"""Drawing detections on images."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from functools import cache
from inspect import signature
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pad, resize, to_pil_image
from torchvision.utils import draw_bounding_boxes, make_grid

from nasdsl.files import write_atomically

GOLDEN_RATIO = 0.618034
"""Hues that are multiples of it (modulo 1) are far apart for neighbouring classes, whatever their number."""


def class_color(label: int) -> tuple[int, int, int]:
    """The RGB color of a class, the same in every image."""
    red, green, blue = colorsys.hls_to_rgb((0.58 + label * GOLDEN_RATIO) % 1, 0.42, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


_DRAWS_LABEL_BACKGROUNDS = "label_background_colors" in signature(draw_bounding_boxes).parameters
"""Whether this torchvision can draw labels on a background; before 0.21 they have the colour of their box."""


def draw_detections(image: Tensor, detections: Mapping[str, Tensor], classes: Sequence[str], threshold: float = 0.3) -> Tensor:
    """An image with boxes, class names and scores drawn on it; those with a higher score are on top.

    Args:
        image: uint8 [3, H, W].
        detections: ``boxes`` [k, 4] in pixels of the image, ``labels`` and ``scores`` [k].
        threshold: minimum score.

    Returns:
        uint8 [3, H, W].
    """
    order = detections["scores"].argsort()
    order = order[detections["scores"][order] >= threshold]
    labels, scores = detections["labels"][order], detections["scores"][order].tolist()
    texts = [f"{classes[label]} {100 * score:.0f}" for label, score in zip(labels.tolist(), scores, strict=True)]
    return draw_boxes(image, detections["boxes"][order], labels, texts)


def draw_boxes(image: Tensor, boxes: Tensor, labels: Tensor, texts: Sequence[str]) -> Tensor:
    """An image with boxes in the colors of their classes; later ones are on top.

    Args:
        image: uint8 [3, H, W].
        boxes: [k, 4] xyxy, in pixels of the image.
        labels: [k].
        texts: of each box, written at its corner.

    Returns:
        uint8 [3, H, W].
    """
    if not len(boxes):
        return image.clone()
    height, width = image.shape[-2:]
    line_width = max(2, min(height, width) // 250)
    boxes = boxes.round()
    boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width - 1, height - 1, width - 1, height - 1]))
    colors = [class_color(label) for label in labels.tolist()]
    drawn: Tensor = draw_bounding_boxes(
        image,
        boxes,
        labels=list(texts),
        colors=colors,
        width=line_width,
        font=_font(),
        font_size=max(10, min(height, width) // 36),
        **(
            {"label_colors": "white", "label_background_colors": colors, "fill_labels": True}
            if _DRAWS_LABEL_BACKGROUNDS
            else {}
        ),
    )
    return drawn


def contact_sheet(images: Sequence[Tensor], height: int = 240) -> Tensor:
    """A grid of images, all resized to the same height and padded to the same width; about a square.

    Args:
        images: uint8 [3, H, W] each, of any sizes.
        height: of each image in the grid, in pixels.

    Returns:
        uint8 [3, H, W].
    """
    scaled = [resize(image, [height, max(1, round(image.shape[2] * height / image.shape[1]))]) for image in images]
    widest = max(image.shape[2] for image in scaled)
    padded = [pad(image, [0, 0, widest - image.shape[2], 0], fill=255) for image in scaled]
    columns = max(1, round((len(padded) * height / widest) ** 0.5 * 1.25))
    grid: Tensor = make_grid(padded, nrow=min(columns, len(padded)), padding=4, pad_value=255)
    return grid


def write_png(path: str | Path, image: Tensor) -> None:
    """Write an image, uint8 [3, H, W], as PNG.

    Raises:
        OSError: the file cannot be written.
    """
    write_atomically(Path(path), lambda file: to_pil_image(image).save(file, "PNG"))


@cache
def _font() -> str:
    """Path of DejaVu Sans, which covers most languages and comes with matplotlib."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
