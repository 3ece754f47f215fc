"""ATSS: adaptive training sample selection (arXiv:1912.02424) for predictions at locations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_iou

from nasdsl.detection.locations import (
    DistanceMethod,
    LocationTargets,
    check_top,
    grid_of,
    location_targets,
    per_location,
)
from nasdsl.detection.losses import BoxLoss
from nasdsl.detection.method import LossTerm
from nasdsl.detection.pyramid import Predictions, Shapes, Target, annotated, strides_of

ANCHOR_SIZE = 8
"""Side of the one square anchor of a location, in strides (section 4.2)."""


@dataclass(frozen=True, slots=True)
class Atss(DistanceMethod):
    """Options of ATSS, with its targets, losses and detections. Losses are those of FCOS.

    Attributes:
        top: number of locations of each level, nearest to a box's center, that are candidates for it.
        box_loss: ``giou`` is 1 - GIoU, ``linear_iou`` 1 - IoU, ``iou`` -log IoU.
        box_weight: of the box loss.
        focal_alpha, focal_gamma: of the focal loss (arXiv:1708.02002).
        score_threshold: minimum class score of detections, exclusive, before centerness.
        candidates: number of candidates of each level that non-maximum suppression sees.
        nms: IoU threshold of non-maximum suppression.
        detections: maximum number of detections of an image.
        centerness_in_score: whether detections are ranked by class score times centerness instead of the class score.
        has_centerness: as of `nasdsl.detection.fcos.Fcos`.
    """

    top: int = 9
    box_loss: BoxLoss = "giou"
    box_weight: float = 2.0
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    score_threshold: float = 0.05
    candidates: int = 1000
    nms: float = 0.6
    detections: int = 100
    centerness_in_score: bool = True
    has_centerness: bool = True

    def __post_init__(self) -> None:
        DistanceMethod.__post_init__(self)
        check_top(self.top)

    def targets(self, shapes: Shapes, image_size: tuple[int, int], targets: Sequence[Target]) -> LocationTargets:
        """Training targets of a batch; see `atss_targets`. The size of the images is not used."""
        return atss_targets(shapes, targets, self.top)

    def loss_terms(self, predictions: Predictions, targets: LocationTargets) -> dict[str, LossTerm]:
        """The losses of a batch; see `location_losses`."""
        return self.location_losses(predictions, targets, box_weight=self.box_weight)


def atss_targets(shapes: Shapes, targets: Sequence[Target], top: int) -> LocationTargets:
    """Targets of a batch by adaptive training sample selection.

    Args:
        shapes: (height, width) of the map of each level, finest first.
        targets: ground truth of each image.
        top: number of candidates of each level.

    Raises:
        DetectionError: a target is malformed.
    """
    pairs = annotated(targets)
    grid = grid_of(shapes, pairs[0][0].device if pairs else None)
    strides = strides_of(shapes)
    return location_targets(torch.cat(grid), pairs, lambda boxes: assign(grid, strides, boxes, top))


def assign(grid: Sequence[Tensor], strides: Sequence[int], boxes: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Assign boxes to L locations: the index of a box for each, and whether there is one; [L] each.

    Candidates of a box are the `top` locations of each level whose centers are nearest to its own. Assigned are those with an
    anchor whose IoU with the box is at least the mean plus the standard deviation (the sample's, as torch's ``std``) of the
    candidates', and that lie strictly inside the box. Of several boxes a location gets the one of the highest IoU, of equal
    ones the first. (Algorithm 1.)

    Args:
        grid: locations of each level, [h * w, 2].
        boxes: [n, 4], n > 0.
    """
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    candidates, offset = [], 0
    for locations in grid:
        distance = torch.cdist(centers, locations, compute_mode="donot_use_mm_for_euclid_dist")  # [n, h * w]
        nearest = distance.topk(min(top, len(locations)), dim=1, largest=False).indices
        candidates.append(nearest + offset)
        offset += len(locations)
    index = torch.cat(candidates, dim=1)  # [n, k]
    locations = torch.cat(list(grid))
    sides = per_location(grid, [ANCHOR_SIZE * stride / 2 for stride in strides])
    iou = box_iou(boxes, torch.cat([locations - sides, locations + sides], dim=1))  # [n, L]
    own = iou.gather(1, index)
    threshold = own.mean(dim=1, keepdim=True)
    if index.shape[1] > 1:
        threshold = threshold + own.std(dim=1, keepdim=True)
    x, y = locations[index].unbind(-1)
    x1, y1, x2, y2 = (side[:, None] for side in boxes.unbind(1))
    inside = (x > x1) & (x < x2) & (y > y1) & (y < y2)
    chosen = torch.zeros_like(iou, dtype=torch.bool).scatter(1, index, inside & (own >= threshold))
    best, of_box = torch.where(chosen, iou, -1.0).max(dim=0)
    return of_box, best >= 0
