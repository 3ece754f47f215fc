"""Postprocessing for GPUs: candidates of a whole batch in tensors of fixed size, so that the CPU waits once.

The detections are those of `nasdsl.detection.postprocess`, which goes image by image and level by level. That is faster on a
CPU, where sorting all scores of a map takes longer than finding those above the threshold; on a GPU each search for them would
wait until all work before it is done, and no CUDA graph could hold it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from nasdsl.detection.postprocess import LevelCandidates
from nasdsl.detection.pyramid import RawDetections

NEVER = -1.0
"""Score of what is no candidate: below all others."""


class Candidates(NamedTuple):
    """The candidates of N images, best first, and behind them places without one.

    Attributes:
        boxes: [N, K, 4], xyxy in pixels, clipped to the images.
        scores: [N, K]; `NEVER` where there is no candidate.
        labels: [N, K].
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def select_candidates(levels: Sequence[LevelCandidates], sizes: Tensor, limit: int) -> Candidates:
    """The best candidates of each level. The CPU waits for nothing.

    Args:
        levels: decoded predictions of each level.
        sizes: [N, 2], (height, width) of each image in pixels, without the padding of the batch.
        limit: number of candidates that are kept of each level.
    """
    finite = (level._replace(allowed=level.allowed & level.scores.isfinite()) for level in levels)
    best = [top_candidates(level, limit) for level in finite]
    boxes, scores, labels = (torch.cat(tensors, dim=1) for tensors in zip(*best, strict=True))
    boxes = torch.minimum(boxes.clamp(min=0), sizes.flip(1).repeat(1, 2).unsqueeze(1).to(boxes.dtype))
    valid = (boxes[..., 2:] > boxes[..., :2]).all(dim=2)
    scores, order = torch.where(valid, scores, NEVER).sort(dim=1, descending=True, stable=True)
    return Candidates(boxes.gather(1, order.unsqueeze(2).expand(-1, -1, 4)), scores, labels.gather(1, order))


def suppress(candidates: Candidates, nms: float, detections: int) -> list[RawDetections]:
    """The detections of each image, best first.

    Args:
        candidates: of the batch.
        nms: IoU threshold of the class-wise non-maximum suppression.
        detections: maximum number of detections of an image.
    """
    results = []
    for image, count in enumerate((candidates.scores > NEVER).sum(dim=1).tolist()):
        boxes, scores, labels = (of_all[image, :count] for of_all in candidates)
        keep = batched_nms(boxes, scores, labels, nms)[:detections]
        results.append({"boxes": boxes[keep], "labels": labels[keep], "scores": scores[keep]})
    return results


def top_candidates(level: LevelCandidates, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [N, limit, 4], scores [N, limit] and labels [N, limit] of the best candidates of a level.

    Args:
        level: with scores of 0 and more.
        limit: places; where there are fewer candidates, the others have the score `NEVER`.
    """
    classes, positions = level.scores.shape[2], level.scores.shape[1]
    scores = torch.where(level.allowed, level.scores, NEVER).flatten(1)
    scores, index = F.pad(scores, (0, limit), value=NEVER).topk(limit, dim=1)  # a small map has fewer than `limit`
    position = torch.div(index, classes, rounding_mode="floor").clamp(max=positions - 1)
    boxes = level.boxes.gather(1, position.unsqueeze(2).expand(-1, -1, 4))
    return boxes, scores, index % classes
