"""Levels of a feature pyramid: strides, locations, and predictions and targets flattened over all levels.

The flat order is the same for FCOS and RetinaNet: finest level first, each level row by row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nasdsl.backends.module import Prediction
from nasdsl.detection.positives import is_read_at_once

Shapes: TypeAlias = Mapping[str, tuple[int, int]]
"""Height and width of the map of each level, finest first: ``{"p3": (100, 136), "p4": (50, 68), …}``."""

Predictions: TypeAlias = Mapping[str, Prediction]
"""Output of a decoder: a `Prediction` for each level, finest first."""

Target: TypeAlias = Mapping[str, Any]
"""Ground truth of one image: ``boxes`` [n, 4] (xyxy, pixels) and ``labels`` [n] (0 … classes - 1); other keys are ignored."""

RawDetections: TypeAlias = dict[str, Tensor]
"""Detections in one image, best first: ``boxes`` [k, 4] (xyxy, pixels), ``labels`` [k] int64, ``scores`` [k]."""


class DetectionError(ValueError):
    """Invalid options, targets or predictions of a detector; the message says what was found and what was expected."""


def level_of(name: str) -> int:
    """The number of a level: 5 for ``"p5"``.

    Raises:
        DetectionError: `name` is not the name of a level.
    """
    if not re.fullmatch(r"p\d+", name):
        raise DetectionError(f"unknown level {name!r}; expected p and a number, such as p3")
    return int(name[1:])


def stride_of(name: str) -> int:
    """The stride of a level in pixels, ``2 ** level``: 8 for ``"p3"``.

    Raises:
        DetectionError: `name` is not the name of a level.
    """
    return 1 << level_of(name)


def strides_of(names: Iterable[str]) -> tuple[int, ...]:
    """The strides of levels, finest first.

    Raises:
        DetectionError: there are no levels, a name is not that of a level, or they are not ordered from fine to coarse.
    """
    names = tuple(names)
    strides = tuple(stride_of(name) for name in names)
    if not strides or any(a >= b for a, b in pairwise(strides)):
        raise DetectionError(f"the levels are {', '.join(names) or 'none'}; expected one or more, each once, finest first")
    return strides


def shapes_of(predictions: Predictions) -> dict[str, tuple[int, int]]:
    """Height and width of the map of each level."""
    return {level: (p.cls_logits.shape[-2], p.cls_logits.shape[-1]) for level, p in predictions.items()}


def level_locations(shape: tuple[int, int], stride: int, device: torch.device | None = None) -> Tensor:
    """The locations of a level, [h * w, 2]: x and y in pixels, ``stride * i + stride // 2`` (arXiv:1904.01355, section 3.1)."""
    height, width = shape
    ys = torch.arange(height, dtype=torch.float32, device=device) * stride + stride // 2
    xs = torch.arange(width, dtype=torch.float32, device=device) * stride + stride // 2
    return torch.cartesian_prod(ys, xs).reshape(-1, 2).flip(1)


def flatten_level(maps: Tensor, channels: int) -> Tensor:
    """[N, A * channels, h, w] of one level to [N, h * w * A, channels]; the A anchors of a location are adjacent."""
    n, _, height, width = maps.shape
    return maps.reshape(n, -1, channels, height, width).permute(0, 3, 4, 1, 2).reshape(n, -1, channels)


def flatten_levels(maps: Sequence[Tensor], channels: int) -> Tensor:
    """Maps of all levels to [N, L, channels], in float32 or better: losses in half precision would lose small terms.

    Args:
        maps: [N, positions * channels, h, w] each, finest level first.
        channels: of one position.
    """
    flat = torch.cat([flatten_level(level, channels) for level in maps], dim=1)
    return flat if flat.dtype == torch.float64 else flat.float()


def boxes_and_labels(target: Target, image: int) -> tuple[Tensor, Tensor]:
    """The boxes [n, 4] (float32) and labels [n] (int64) of one image of a batch.

    Raises:
        DetectionError: boxes or labels are missing, have wrong shapes, or a label is negative.
    """
    if "boxes" not in target or "labels" not in target:
        raise DetectionError(f"the target of image {image} has the keys {', '.join(target) or 'none'}; expected boxes, labels")
    boxes, labels = (torch.as_tensor(target[key]).as_subclass(Tensor) for key in ("boxes", "labels"))
    if boxes.numel() == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
        raise DetectionError(
            f"image {image} has boxes of shape {list(boxes.shape)} and labels of shape {list(labels.shape)}; "
            "expected [n, 4] (x1, y1, x2, y2 in pixels) and [n]"
        )
    if labels.numel() and int(labels.min()) < 0:
        raise DetectionError(f"image {image} has the label {int(labels.min())}; expected 0 to classes - 1")
    return boxes.float(), labels.long()


def annotated(targets: Sequence[Target]) -> list[tuple[Tensor, Tensor]]:
    """Boxes [n, 4] and labels [n] of each image.

    Raises:
        DetectionError: a target is malformed.
    """
    return [boxes_and_labels(target, image) for image, target in enumerate(targets)]


def one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    """One-hot encoded ``labels`` [N, L], in the shape [N, L, classes] and type of `logits`; negative labels give zeros.

    Args:
        labels: [N, L] int64.
        logits: [N, L, classes]; only its shape and type are read.

    Raises:
        DetectionError: labels and logits differ in N or L, or a label is not below the number of classes.
    """
    if labels.shape != logits.shape[:2]:
        raise DetectionError(
            f"the targets are for {labels.shape[0]} images of {labels.shape[1]} locations, the predictions for "
            f"{logits.shape[0]} of {logits.shape[1]}; targets must be made for the shapes of the same maps"
        )
    classes = logits.shape[2]
    if labels.numel() and is_read_at_once(labels.device):
        if int(labels.max()) >= classes:
            raise DetectionError(
                f"a target has the label {int(labels.max())}, but the decoder has {classes} classes; expected labels "
                f"0 to {classes - 1} (there is no background label)"
            )
    elif labels.numel():  # the GPU checks it when it comes to it: nobody waits for it
        torch._assert_async(labels.amax() < classes, f"a target has a label that is not below {classes}, the number of classes")
    positive = (labels >= 0)[..., None].to(logits.dtype)
    return torch.zeros_like(logits).scatter_(2, labels.clamp(min=0)[..., None], positive)
