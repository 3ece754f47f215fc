"""Losses over positive locations, and their normalisers across processes. The focal loss is torchvision's."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.distributed
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

BoxLoss: TypeAlias = Literal["iou", "linear_iou", "giou"]

SMALLEST_AREA = 1e-6
"""Square pixels. Areas below it count as this much in the logarithm of the IoU, which keeps it finite."""

SMALLEST_NORMALISER = 1e-6
"""Where there are no positives at all the losses over them are 0 divided by this."""


def box_loss(predicted: Tensor, targets: Tensor, kind: BoxLoss = "iou") -> Tensor:
    """The loss of each predicted box.

    Args:
        predicted, targets: [n, 4], distances to the left, top, right and bottom from the same place, in any one unit; not
            negative.
        kind: ``iou`` is -log IoU (arXiv:1608.01471), ``linear_iou`` 1 - IoU, ``giou`` 1 - GIoU (arXiv:1902.09630).

    Returns:
        [n]. ``iou`` has no smoothing constant: its gradient by the logarithm of a distance is at most 1 however bad the box.
    """
    if kind == "giou":
        loss: Tensor = generalized_box_iou_loss(_as_boxes(predicted), _as_boxes(targets))
        return loss
    left, top, right, bottom = torch.minimum(predicted, targets).unbind(1)
    intersection = (left + right) * (top + bottom)
    union = _area(predicted) + _area(targets) - intersection
    union = union.clamp(min=SMALLEST_AREA)
    if kind == "linear_iou":
        return 1 - intersection / union
    return union.log() - intersection.clamp(min=SMALLEST_AREA).log()


def centerness(distances: Tensor) -> Tensor:
    """sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)) of positive distances [..., 4]: [...] (arXiv:1904.01355, eq. 3)."""
    left, top, right, bottom = distances.unbind(-1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (horizontal * vertical).sqrt()


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of a number, or of several in one tensor, over the processes of a distributed run; x itself without one.

    Gradients are averaged over processes too, so that sums divided by the mean of their counts give together what one
    process would give for the whole batch.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return x
    total = x.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def _as_boxes(distances: Tensor) -> Tensor:
    """Distances from the origin as xyxy."""
    return torch.cat([-distances[:, :2], distances[:, 2:]], dim=1)


def _area(distances: Tensor) -> Tensor:
    return (distances[:, 0] + distances[:, 2]) * (distances[:, 1] + distances[:, 3])
