"""Box losses, centerness, and averaging over processes. The focal loss is torchvision's."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
import torch.distributed
from torch import Tensor

BoxLoss: TypeAlias = Literal["iou", "linear_iou", "giou"]

MIN_AREA = 1e-6
"""Lower bound of areas in the logarithm of the IoU, in square pixels; it keeps the loss finite."""

MIN_NORMALIZER = 1e-6
"""Lower bound of the divisor of losses over positives: without positives they are 0 divided by this."""


_GIOU_EPSILON = 1e-7
"""Added to areas that are divided by, as in torchvision."""


def box_loss(predicted: Tensor, targets: Tensor, kind: BoxLoss = "iou") -> Tensor:
    """The loss of each predicted box.

    Args:
        predicted, targets: [n, 4], non-negative distances to the left, top, right and bottom side from the same location, in
            the same unit.
        kind: ``iou`` is -log IoU (arXiv:1608.01471), ``linear_iou`` 1 - IoU, ``giou`` 1 - GIoU (arXiv:1902.09630).

    Returns:
        [n]. ``iou`` has no smoothing constant: its gradient by the logarithm of a distance is at most 1 however bad the box.
    """
    if kind == "giou":
        return giou_loss(_as_boxes(predicted), _as_boxes(targets))
    left, top, right, bottom = torch.minimum(predicted, targets).unbind(1)
    intersection = (left + right) * (top + bottom)
    union = _area(predicted) + _area(targets) - intersection
    union = union.clamp(min=MIN_AREA)
    if kind == "linear_iou":
        return 1 - intersection / union
    return union.log() - intersection.clamp(min=MIN_AREA).log()


def giou_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """1 - GIoU [n] of each of the boxes [n, 4] (xyxy) with the other one of its pair (arXiv:1902.09630).

    The values of torchvision's `generalized_box_iou_loss`, which selects the boxes that overlap: a GPU would wait for that.

    Args:
        predicted: [n, 4] xyxy.
        targets: [n, 4] xyxy.
    """
    x1, y1, x2, y2 = predicted.unbind(1)
    tx1, ty1, tx2, ty2 = targets.unbind(1)
    left, top, right, bottom = torch.max(x1, tx1), torch.max(y1, ty1), torch.min(x2, tx2), torch.min(y2, ty2)
    overlap = (bottom > top) & (right > left)
    intersection = torch.where(overlap, (right - left) * (bottom - top), 0.0)
    union = (x2 - x1) * (y2 - y1) + (tx2 - tx1) * (ty2 - ty1) - intersection
    # Not the numbers from above: gradients are then summed in torchvision's order, so that they are the same bit for bit.
    x1, y1, x2, y2 = predicted.unbind(1)
    hull_left, hull_top = torch.min(x1, tx1), torch.min(y1, ty1)
    hull = (torch.max(x2, tx2) - hull_left) * (torch.max(y2, ty2) - hull_top)
    return 1 - (intersection / (union + _GIOU_EPSILON) - (hull - union) / (hull + _GIOU_EPSILON))


def paired_iou(left: Tensor, right: Tensor) -> Tensor:
    """The IoU [n] of each of the boxes [n, 4] (xyxy) with the other one of its pair; 0 for two without area.

    Args:
        left: [n, 4] xyxy.
        right: [n, 4] xyxy.
    """
    size = (torch.minimum(left[:, 2:], right[:, 2:]) - torch.maximum(left[:, :2], right[:, :2])).clamp(min=0)
    intersection = size.prod(dim=1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(dim=1) for boxes in (left, right)]
    return intersection / (areas[0] + areas[1] - intersection).clamp(min=MIN_AREA)


def centerness(distances: Tensor) -> Tensor:
    """Centerness [...] of positive distances [..., 4]: sqrt(min(l, r) / max(l, r) * min(t, b) / max(t, b)).

    Source: arXiv:1904.01355, equation 3.
    """
    left, top, right, bottom = distances.unbind(-1)
    horizontal = torch.minimum(left, right) / torch.maximum(left, right)
    vertical = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (horizontal * vertical).sqrt()


def mean_over_processes(x: Tensor) -> Tensor:
    """The mean of `x` over the processes of a distributed run, without gradients; `x` itself in a single process.

    DDP averages gradients, so sums that each process divides by the mean count have together the gradient that a single
    process would compute for the whole batch.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return x
    total = x.detach().clone()
    torch.distributed.all_reduce(total)
    return total / torch.distributed.get_world_size()


def _as_boxes(distances: Tensor) -> Tensor:
    """Distances from the origin to xyxy."""
    return torch.cat([-distances[:, :2], distances[:, 2:]], dim=1)


def _area(distances: Tensor) -> Tensor:
    return (distances[:, 0] + distances[:, 2]) * (distances[:, 1] + distances[:, 3])
