"""Geometric changes of an image together with its boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F
from torchvision.tv_tensors import BoundingBoxFormat

from nasdsl.data.dataset import Sample, Size, Target

MEAN_COLOUR = (124, 116, 104)
"""ImageNet's mean, rounded, in 0 … 255: what padding is filled with."""
MIN_VISIBLE = 0.1
"""Smallest visible share of a box after `place`, by area; boxes that are cut off further are dropped."""
_XYXY = BoundingBoxFormat.XYXY


def rescale_boxes(boxes: Tensor, from_size: Size, to_size: Size) -> Tensor:
    """Scale boxes [n, 4] xyxy from an image of `from_size` (H, W) to the same image at `to_size`.

    From a batch to the original image: ``rescale_boxes(boxes, batch.sizes[i], batch.targets[i]["size"])``.
    """
    y, x = to_size[0] / from_size[0], to_size[1] / from_size[1]
    return boxes * boxes.new_tensor([x, y, x, y])


def resized_size(height: int, width: int, shorter: int, longest: int | None) -> Size:
    """(H, W) after resizing the shorter side to `shorter`, or less so that the longer side is at most `longest`.

    Rounded down, like v2.Resize(shorter, max_size=longest), except that no side becomes 0.
    """
    low, high = min(height, width), max(height, width)
    other = shorter * high // low
    if longest is not None and other > longest:
        shorter, other = max(1, longest * shorter // other), longest
    return (shorter, other) if height <= width else (other, shorter)


def resize_image(image: Tensor, size: Size) -> Tensor:
    """Resize an image [3, H, W] to (H, W), antialiased; the same image if it has that size."""
    if tuple(image.shape[-2:]) == size:
        return image
    return F.resize_image(image, list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=True)  # type: ignore[no-any-return]


def random_crop(sample: Sample, crop: Size, smallest: float) -> Sample:
    """Cut out a window (H, W) at random; a side that is shorter is not cropped.

    Args:
        smallest: see `drop_small`. Boxes outside of the window are dropped in any case.
    """
    height, width = sample.image.shape[-2:]
    rows, columns = min(crop[0], height), min(crop[1], width)
    top = int(torch.randint(height - rows + 1, ()))
    left = int(torch.randint(width - columns + 1, ()))
    before = sample.target["boxes"]
    # Also clips the boxes to the crop.
    boxes, _ = F.crop_bounding_boxes(before, _XYXY, top, left, rows, columns)
    area = sample.target["area"] * (_areas(boxes) / _areas(before).clamp(min=1e-6))
    image = F.crop_image(sample.image, top, left, rows, columns)
    # Above 0, because boxes outside of the crop are empty now.
    return Sample(image, drop_small({**sample.target, "boxes": boxes, "area": area}, max(smallest, 1e-3)))


def flip(sample: Sample) -> Sample:
    """Mirror left and right."""
    height, width = sample.image.shape[-2:]
    boxes = F.horizontal_flip_bounding_boxes(sample.target["boxes"], _XYXY, (height, width))
    return Sample(F.horizontal_flip_image(sample.image), {**sample.target, "boxes": boxes})


class _Span(NamedTuple):
    """One axis of a placement: `length` pixels of the image from `start` on cover `size` pixels of the canvas from `at` on."""

    start: int
    length: int
    at: int
    size: int


def place(sample: Sample, size: Size, canvas: Size, smallest: float) -> Sample:
    """Resize an image to `size` (H, W) and place it at random on a canvas: what does not fit is cut off, gaps are padded.

    Boxes of which less than `MIN_VISIBLE` is left are dropped.

    Args:
        sample: boxes are in pixels of ``target["size"]``, whatever the size of the image.
        smallest: see `drop_small`.
    """
    rows, columns = (
        _draw_span(int(sample.image.shape[axis - 2]), size[axis], canvas[axis], float(torch.rand(()))) for axis in (0, 1)
    )
    window = sample.image[:, rows.start : rows.start + rows.length, columns.start : columns.start + columns.length]
    image = resize_image(window, (rows.size, columns.size))
    if tuple(image.shape[-2:]) != canvas:
        whole = torch.tensor(MEAN_COLOUR, dtype=image.dtype).view(3, 1, 1).repeat(1, *canvas)
        whole[:, rows.at : rows.at + rows.size, columns.at : columns.at + columns.size] = image
        image = whole
    full, (height, width) = sample.target["size"], sample.image.shape[-2:]
    boxes = rescale_boxes(sample.target["boxes"], full, (height, width))
    zoom = boxes.new_tensor([columns.size / columns.length, rows.size / rows.length] * 2)
    boxes = (boxes - boxes.new_tensor([columns.start, rows.start] * 2)) * zoom
    visible = boxes.clamp(min=0).minimum(boxes.new_tensor([columns.size, rows.size] * 2))
    share = _areas(visible) / _areas(boxes).clamp(min=1e-6)
    scale = float(zoom[0] * zoom[1]) * height * width / (full[0] * full[1])
    target = {
        **sample.target,
        "boxes": visible + boxes.new_tensor([columns.at, rows.at] * 2),
        "area": sample.target["area"] * share * scale,
    }
    target = keep_boxes(target, share >= MIN_VISIBLE)
    return Sample(image, drop_small(target, max(smallest, 1e-3)))


def _draw_span(length: int, size: int, canvas: int, position: float) -> _Span:
    """Place an axis of `length` pixels, resized to `size`, on one of `canvas` pixels, at a position 0 … 1."""
    if size > canvas:
        visible = max(1, round(length * canvas / size))
        return _Span(int(position * (length - visible + 1)), visible, 0, canvas)
    return _Span(0, length, int(position * (canvas - size + 1)), size)


def mosaic(parts: Sequence[Sample], corner: Size) -> Sample:
    """Join four images to one: upper left, upper right, lower left, lower right.

    Args:
        parts: of sizes that fit together; the id and the size of the result are those of the first one.
        corner: (row, column) where they meet.
    """
    (row, column), images = corner, [part.image for part in parts]
    image = torch.cat([torch.cat(images[:2], dim=2), torch.cat(images[2:], dim=2)], dim=1)
    target = dict(parts[0].target)
    for key in ("labels", "iscrowd", "difficult", "area"):
        target[key] = torch.cat([part.target[key] for part in parts])
    offsets = [(0, 0), (column, 0), (0, row), (column, row)]
    moved = [part.target["boxes"] + torch.tensor([x, y, x, y]) for part, (x, y) in zip(parts, offsets, strict=True)]
    return Sample(image, {**target, "boxes": torch.cat(moved)})


def drop_small(target: Target, smallest: float) -> Target:
    """The target without boxes that have a side below `smallest` pixels."""
    if smallest <= 0:
        return target
    boxes = target["boxes"]
    return keep_boxes(target, (boxes[:, 2:] - boxes[:, :2] >= smallest).all(dim=1))


def keep_boxes(target: Target, kept: Tensor) -> Target:
    """The target with only those boxes for which `kept`, bool [n], is true."""
    if bool(kept.all()):
        return target
    return {**target, **{key: target[key][kept] for key in ("boxes", "labels", "iscrowd", "difficult", "area")}}


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
