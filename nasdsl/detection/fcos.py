"""FCOS: targets, losses and detections (arXiv:1904.01355).

The defaults are those of the first version of FCOS, which the NAS-FCOS paper uses (arXiv:1906.04423, section 4.1); the
improvements in the last rows of its Table 2 are ``Fcos(**IMPROVED)`` with a decoder that predicts `IMPROVED_PREDICTION`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from nasdsl.detection.locations import DistanceMethod, LocationTargets, grid_of, location_targets, per_location
from nasdsl.detection.losses import BoxLoss
from nasdsl.detection.method import LossTerm
from nasdsl.detection.pyramid import DetectionError, Predictions, Shapes, Target, annotated, level_of, strides_of

IMPROVED_PREDICTION = "fcos(centerness=box, boxes=relu)"
"""The prediction of a decoder with the improvements: centerness on the box tower, distances in strides."""

IMPROVED: dict[str, Any] = {"center_radius": 1.5, "box_loss": "giou"}
"""Options of `Fcos` with the improvements: center sampling and GIoU loss. All together: +1.6 AP with ResNet-50 (Table 2)."""


@dataclass(frozen=True, slots=True)
class Fcos(DistanceMethod):
    """Options of FCOS, with its targets, losses and detections.

    Attributes:
        ranges: size bounds between neighbouring levels in pixels: a box is assigned to the level for which max(l, t, r, b) at
            the location lies between the level's two bounds, inclusive. None: the upper bound of level k is
            ``64 * 2 ** (k - 3)``: 64, 128, 256, 512 for p3 … p7.
        reference_size: shorter side in pixels of the images that `ranges` is meant for; for other images it is scaled. None: it
            is not scaled.
        center_radius: locations must be nearer to the box's center than this, in strides (center sampling of later FCOS: 1.5).
            None: all locations inside the box are assigned.
        box_loss: ``iou`` is -log IoU, ``linear_iou`` 1 - IoU, ``giou`` 1 - GIoU.
        focal_alpha, focal_gamma: of the focal loss (arXiv:1708.02002).
        score_threshold: minimum class score of detections, exclusive, before centerness.
        candidates: number of candidates of each level that non-maximum suppression sees.
        nms: IoU threshold of non-maximum suppression.
        detections: maximum number of detections of an image.
        centerness_in_score: whether detections are ranked by class score times centerness instead of the class score.
        has_centerness: whether it is predicted; it follows from the text of the decoder. Without, there is no loss for it, and
            detections are ranked by the class score. Its targets weight the box loss anyhow.
    """

    ranges: tuple[float, ...] | None = None
    reference_size: float | None = 800.0
    center_radius: float | None = None
    box_loss: BoxLoss = "iou"
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
        if self.ranges is not None:
            object.__setattr__(self, "ranges", tuple(float(bound) for bound in self.ranges))  # JSON has lists
            _check_increasing(self.ranges)
        for name in ("reference_size", "center_radius"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DetectionError(f"{name} is {value}; expected a positive number or None")

    def targets(self, shapes: Shapes, image_size: tuple[int, int], targets: Sequence[Target]) -> LocationTargets:
        """Training targets of a batch.

        A location is assigned a box if it lies strictly inside the box and its level matches the box's size there; of several,
        the one with the smallest area, and of equal ones the first. Locations in the padding of a batch are background.

        Args:
            shapes: (height, width) of the map of each level, finest first.
            image_size: (H, W) in pixels; only its shorter side is used, to scale `ranges`. It need not be the size of the
                padded batch: for a detector that resizes shorter sides to 800 it is (800, 800).
            targets: ground truth of each image.

        Raises:
            DetectionError: `ranges` does not have one bound less than there are levels, or a target is malformed.
        """
        pairs = annotated(targets)
        strides = strides_of(shapes)
        grid = grid_of(shapes, pairs[0][0].device if pairs else None)
        bounds = [0.0, *self._size_bounds(tuple(shapes), image_size), float("inf")]
        lower, upper = (per_location(grid, values) for values in (bounds[:-1], bounds[1:]))
        radius = None
        if self.center_radius is not None:
            radius = per_location(grid, [self.center_radius * stride for stride in strides])
        locations = torch.cat(grid)

        return location_targets(locations, pairs, lambda boxes: _assign_boxes(locations, lower, upper, radius, boxes))

    def loss_terms(self, predictions: Predictions, targets: LocationTargets) -> dict[str, LossTerm]:
        """The losses of a batch, see `location_losses`; the box loss has the weight 1.

        Args:
            predictions: of the levels, finest first, ``{"p3": …}``.
            targets: of the batch, from `targets`.

        Raises:
            DetectionError: see `location_losses`.
        """
        return self.location_losses(predictions, targets, box_weight=1.0)

    def _size_bounds(self, levels: tuple[str, ...], image_size: tuple[int, int]) -> list[float]:
        """Size bounds between the levels, in pixels of the image."""
        bounds = self.ranges
        if bounds is None:
            bounds = tuple(64 * 2.0 ** (level_of(level) - 3) for level in levels[:-1])
        if len(bounds) != len(levels) - 1:
            raise DetectionError(
                f"ranges has {len(bounds)} bounds for the {len(levels)} levels {', '.join(levels)}; expected "
                f"{len(levels) - 1}, one between each two neighbours, or None for the default"
            )
        scale = 1.0 if self.reference_size is None else min(image_size) / self.reference_size
        return [bound * scale for bound in bounds]


def _assign_boxes(
    locations: Tensor, lower: Tensor, upper: Tensor, radius: Tensor | None, boxes: Tensor
) -> tuple[Tensor, Tensor]:
    """Assign boxes to L locations: the index of a box (of n > 0) for each, and whether there is one; [L] each.

    Args:
        locations: [L, 2].
        lower, upper: [L, 1], the range of max(l, t, r, b).
        radius: [L, 1], largest distance from the box's center, for center sampling.
        boxes: [n, 4].
    """
    x, y = locations[:, :1], locations[:, 1:]
    x1, y1, x2, y2 = boxes.unbind(1)
    left, top, right, bottom = x - x1, y - y1, x2 - x, y2 - y
    # A few [L, n] tensors: one of [L, n, 4] would take gigabytes for crowded images.
    nearest = torch.minimum(torch.minimum(left, right), torch.minimum(top, bottom))
    farthest = torch.maximum(torch.maximum(left, right), torch.maximum(top, bottom))
    matches = (nearest > 0) & (farthest >= lower) & (farthest <= upper)
    if radius is not None:
        # |x - center of the box| is half the difference of the distances to its two sides.
        matches &= torch.maximum((left - right).abs(), (top - bottom).abs()) < 2 * radius
    area = torch.where(matches, (x2 - x1) * (y2 - y1), float("inf"))
    smallest, index = area.min(dim=1)
    return index, smallest.isfinite()


def _check_increasing(bounds: Sequence[float]) -> None:
    if any(a >= b for a, b in pairwise([0.0, *bounds])):
        raise DetectionError(f"ranges are {', '.join(map(str, bounds))}; expected positive numbers of pixels, increasing")
