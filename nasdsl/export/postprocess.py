"""Postprocessing of a batch in tensors of fixed size, which torch can trace: a detector's own makes a list, image by image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import nms

from nasdsl.detection.candidates import top_candidates
from nasdsl.detection.postprocess import LevelCandidates


def select_detections(
    levels: Sequence[LevelCandidates], size: tuple[int, int], candidates: int, threshold: float, detections: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [N, K, 4], scores [N, K] and labels [N, K] of each image, best first; rows without an object are 0.

    They are those of `nasdsl.detection.postprocess.postprocess_detections`, with K the smaller of `detections` and the number
    of candidates of all levels.

    Args:
        levels: decoded predictions of each level.
        size: (height, width) of all images, to which boxes are clipped.
        candidates: number of candidates that are kept of each level.
        threshold: IoU threshold of the class-wise non-maximum suppression.
        detections: maximum number of detections of an image.
    """
    best = [top_candidates(level, candidates) for level in levels]
    boxes, scores, labels = (torch.cat(tensors, dim=1) for tensors in zip(*best, strict=True))
    boxes = clip(boxes, size)
    valid = (boxes[..., 2:] > boxes[..., :2]).all(dim=2) & (scores > 0)
    # One run for all images and classes: each pair of them gets a place of its own, where it overlaps no other. In double
    # precision, as sums with large numbers would move the boxes.
    image, candidate = valid.nonzero(as_tuple=True)
    found = labels[image, candidate]
    place = (image * levels[0].scores.shape[2] + found).double() * (max(size) + 1)
    apart = boxes[image, candidate].double() + place.unsqueeze(1)
    keep = nms(apart, scores[image, candidate].double(), threshold)
    kept = torch.zeros_like(scores).index_put((image[keep], candidate[keep]), scores[image[keep], candidate[keep]])
    top, index = kept.topk(min(detections, candidates * len(levels)), dim=1)
    is_object = top > 0
    boxes = boxes.gather(1, index.unsqueeze(2).expand(-1, -1, 4))
    return boxes * is_object.unsqueeze(2), top, labels.gather(1, index) * is_object


def all_candidates(levels: Sequence[LevelCandidates], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Boxes [N, L, 4] and scores [N, L, classes] of all positions; scores that are not allowed are 0."""
    boxes = torch.cat([level.boxes for level in levels], dim=1)
    scores = torch.cat([torch.where(level.allowed, level.scores, 0.0) for level in levels], dim=1)
    return clip(boxes, size), scores


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [..., 4] that lie inside of an image of `size` (height, width)."""
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack((x, y), dim=-1).flatten(-2)
