"""Detections drawn on their picture."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import pad, resize, to_pil_image
from torchvision.utils import draw_bounding_boxes, make_grid

GOLDEN = 0.618034
"""Steps of this much around the circle of hues give neighbouring classes colours that are far apart, for any number."""


def color(label: int) -> tuple[int, int, int]:
    """RGB of a class, the same in every picture."""
    red, green, blue = colorsys.hls_to_rgb((0.58 + label * GOLDEN) % 1, 0.42, 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(image: Tensor, detections: Mapping[str, Tensor], classes: Sequence[str], threshold: float = 0.3) -> Tensor:
    """A picture with boxes, names and scores on it; better ones lie on top.

    Args:
        image: uint8 [3, H, W].
        detections: ``boxes`` [k, 4] in its pixels, ``labels`` and ``scores`` [k].
        threshold: detections with a lower score are left out.

    Returns:
        uint8 [3, H, W].
    """
    order = detections["scores"].argsort()
    order = order[detections["scores"][order] >= threshold]
    if not len(order):
        return image.clone()
    height, width = image.shape[-2:]
    line = max(2, min(height, width) // 250)
    boxes = detections["boxes"][order].round()
    boxes = torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width - 1, height - 1, width - 1, height - 1]))
    labels = detections["labels"][order].tolist()
    scores = detections["scores"][order].tolist()
    colors = [color(label) for label in labels]
    drawn: Tensor = draw_bounding_boxes(
        image,
        boxes,
        labels=[f"{classes[label]} {100 * score:.0f}" for label, score in zip(labels, scores, strict=True)],
        colors=colors,
        width=line,
        font=_font(),
        font_size=max(10, min(height, width) // 36),
        label_colors="white",
        label_background_colors=colors,
        fill_labels=True,
    )
    return drawn


def contact_sheet(images: Sequence[Tensor], height: int = 240) -> Tensor:
    """Pictures side by side in about a square, each of the same height.

    Args:
        images: uint8 [3, H, W] each, of any sizes.
        height: of each, in pixels.

    Returns:
        uint8 [3, H, W].
    """
    scaled = [resize(image, [height, max(1, round(image.shape[2] * height / image.shape[1]))]) for image in images]
    widest = max(image.shape[2] for image in scaled)
    even = [pad(image, [0, 0, widest - image.shape[2], 0], fill=255) for image in scaled]
    columns = max(1, round((len(even) * height / widest) ** 0.5 * 1.25))
    grid: Tensor = make_grid(even, nrow=min(columns, len(even)), padding=4, pad_value=255)
    return grid


def write_picture(path: str | Path, image: Tensor) -> None:
    """Write a picture, uint8 [3, H, W], as PNG.

    Raises:
        OSError: it cannot be written.
    """
    to_pil_image(image).save(path, "PNG")


@cache
def _font() -> str:
    """DejaVu Sans, which has the letters of most languages and comes with matplotlib."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
