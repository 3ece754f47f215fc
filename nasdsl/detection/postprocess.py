"""Postprocessing of predictions: score threshold, top candidates of each level, clipping, non-maximum suppression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms, clip_boxes_to_image

from nasdsl.detection.pyramid import DetectionError, RawDetections


class LevelCandidates(NamedTuple):
    """Decoded predictions of one level with P locations (or anchors), for N images.

    Attributes:
        boxes: [N, P, 4], xyxy in pixels.
        scores: [N, P, classes]; detections are ranked by them.
        allowed: [N, P, classes] bool: whether the score is above the threshold.
    """

    boxes: Tensor
    scores: Tensor
    allowed: Tensor


def decode_boxes(locations: Tensor, distances: Tensor) -> Tensor:
    """Boxes [..., 4] (xyxy) from locations [..., 2] and their distances [..., 4] to the left, top, right and bottom side.

    Args:
        locations: [..., 2], x and y in pixels.
        distances: [..., 4] in pixels.
    """
    return torch.cat([locations - distances[..., :2], locations + distances[..., 2:]], dim=-1)


def postprocess_detections(
    levels: Sequence[LevelCandidates], sizes: Sequence[tuple[int, int]], candidates: int, nms: float, detections: int
) -> list[RawDetections]:
    """The detections of each image, best first.

    Args:
        levels: decoded predictions of each level.
        sizes: (height, width) of each image without the padding of the batch. Boxes are clipped to it; boxes that are empty
            after that, such as those in the padding, and boxes that are not finite are dropped.
        candidates: number of candidates that are kept of each level.
        nms: IoU threshold of the class-wise non-maximum suppression.
        detections: maximum number of detections of an image.

    Raises:
        DetectionError: the number of sizes is not that of the images.
    """
    images = levels[0].boxes.shape[0]
    if len(sizes) != images:
        raise DetectionError(f"{len(sizes)} image sizes for predictions of {images} images; expected one for each")
    results = []
    for image, size in enumerate(sizes):
        per_level = [_top_candidates(level, image, candidates) for level in levels]
        boxes, scores, labels = (torch.cat(tensors) for tensors in zip(*per_level, strict=True))
        boxes = clip_boxes_to_image(boxes, size)
        valid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1) & scores.isfinite()
        boxes, scores, labels = boxes[valid], scores[valid], labels[valid]
        keep = batched_nms(boxes, scores, labels, nms)[:detections]
        results.append({"boxes": boxes[keep], "labels": labels[keep], "scores": scores[keep]})
    return results


def _top_candidates(level: LevelCandidates, image: int, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels of the `limit` best candidates of one level of one image."""
    location, label = level.allowed[image].nonzero(as_tuple=True)
    scores = level.scores[image][location, label]
    scores, top = scores.topk(min(limit, scores.numel()))
    return level.boxes[image][location[top]], scores, label[top]
