"""From dense scores and boxes to the detections of each image: threshold, best of each level, clipping, suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from nasdsl.detection.pyramid import DetectionError, Detections


class Dense(NamedTuple):
    """What one level predicts at its P places for N images.

    Attributes:
        boxes: [N, P, 4], xyxy in pixels.
        scores: [N, P, classes], by which detections are ranked.
        allowed: [N, P, classes] bool: which may become detections.
    """

    boxes: Tensor
    scores: Tensor
    allowed: Tensor


def boxes_at(locations: Tensor, distances: Tensor) -> Tensor:
    """Boxes [..., 4] (xyxy) from distances [..., 4] to the left, top, right and bottom of locations [..., 2]."""
    return torch.cat([locations - distances[..., :2], locations + distances[..., 2:]], dim=-1)


def best_detections(
    levels: Sequence[Dense], sizes: Sequence[tuple[int, int]], candidates: int, nms: float, detections: int
) -> list[Detections]:
    """The detections of each image, best first.

    Args:
        levels: what each level predicts.
        sizes: (height, width) of each image without the padding of the batch; boxes are clipped to it. Boxes of which nothing
            is left then, as in the padding, and boxes that are not finite are dropped.
        candidates: so many of the best of each level go on.
        nms: of two boxes of one class with a higher IoU, the better stays.
        detections: so many of the best of all levels stay.

    Raises:
        DetectionError: there is not one size for each image.
    """
    images = levels[0].boxes.shape[0]
    if len(sizes) != images:
        raise DetectionError(f"{len(sizes)} image sizes for predictions of {images} images; expected one for each")
    found = []
    for image, size in enumerate(sizes):
        boxes, scores, labels = (torch.cat(x) for x in zip(*(_best(level, image, candidates) for level in levels), strict=True))
        boxes = clip_boxes_to_image(boxes, size)
        real = (boxes[:, 2:] > boxes[:, :2]).all(dim=1) & scores.isfinite()
        boxes, scores, labels = boxes[real], scores[real], labels[real]
        keep = batched_nms(boxes, scores, labels, nms)[:detections]
        found.append({"boxes": boxes[keep], "labels": labels[keep], "scores": scores[keep]})
    return found


def _best(level: Dense, image: int, candidates: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels of the best candidates of one level of one image."""
    place, label = level.allowed[image].nonzero(as_tuple=True)
    scores = level.scores[image][place, label]
    scores, best = scores.topk(min(candidates, scores.numel()))
    return level.boxes[image][place[best]], scores, label[best]
