"""FCOS: targets, losses and detections (arXiv:1904.01355).

The defaults are those of the first version of FCOS, which the NAS-FCOS paper uses (arXiv:1906.04423, section 4.1); the
improvements in the last rows of its Table 2 are ``Fcos(**IMPROVED)`` with a decoder that predicts `IMPROVED_PREDICTION`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import sigmoid_focal_loss

from nasdsl.detection.losses import MIN_NORMALIZER, BoxLoss, box_loss, centerness, mean_over_processes
from nasdsl.detection.postprocess import LevelCandidates, decode_boxes, postprocess_detections
from nasdsl.detection.pyramid import (
    DetectionError,
    Predictions,
    RawDetections,
    Shapes,
    Target,
    boxes_and_labels,
    flatten_level,
    flatten_levels,
    level_locations,
    level_of,
    one_hot,
    shapes_of,
    strides_of,
)

IMPROVED_PREDICTION = "fcos(centerness=box, boxes=relu)"
"""The prediction of a decoder with the improvements: centerness on the box tower, distances in strides."""

IMPROVED: dict[str, Any] = {"center_radius": 1.5, "box_loss": "giou"}
"""Options of `Fcos` with the improvements: center sampling and GIoU loss. All together: +1.6 AP with ResNet-50 (Table 2)."""


class FcosTargets(NamedTuple):
    """Training targets for N images with L locations each. The image is the first dimension, so that a cache can index it.

    Attributes:
        labels: [N, L] int64; -1 is background.
        distances: [N, L, 4] in pixels to the left, top, right and bottom side of the box; 0 for background.
        centerness: [N, L], 0 … 1 (equation 3); 0 for background.
    """

    labels: Tensor
    distances: Tensor
    centerness: Tensor

    def select(self, images: Tensor | slice | list[int]) -> FcosTargets:
        """The targets of these images, in this order."""
        return FcosTargets(*(x[images] for x in self))


@dataclass(frozen=True, slots=True)
class Fcos:
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

    def __post_init__(self) -> None:
        if self.box_loss not in get_args(BoxLoss):
            raise DetectionError(f"unknown box loss {self.box_loss!r}; known are {', '.join(get_args(BoxLoss))}")
        if self.ranges is not None:
            object.__setattr__(self, "ranges", tuple(float(bound) for bound in self.ranges))  # JSON has lists
            _check_increasing(self.ranges)
        for name in ("reference_size", "center_radius"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DetectionError(f"{name} is {value}; expected a positive number or None")

    def targets(self, shapes: Shapes, image_size: tuple[int, int], targets: Sequence[Target]) -> FcosTargets:
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
        pairs = [boxes_and_labels(target, image) for image, target in enumerate(targets)]
        device = pairs[0][0].device if pairs else None
        strides = strides_of(shapes)
        grid = [level_locations(shape, stride, device) for shape, stride in zip(shapes.values(), strides, strict=True)]
        bounds = [0.0, *self._size_bounds(tuple(shapes), image_size), float("inf")]
        lower, upper = (_per_location(grid, values) for values in (bounds[:-1], bounds[1:]))
        radius = None
        if self.center_radius is not None:
            radius = _per_location(grid, [self.center_radius * stride for stride in strides])
        locations = torch.cat(grid)

        labels = torch.full((len(pairs), len(locations)), -1, device=device)
        boxes = torch.zeros(len(pairs), len(locations), 4, device=device)
        for image, (gt_boxes, gt_labels) in enumerate(pairs):
            if len(gt_boxes) > 0:
                index, positive = _assign_boxes(locations, lower, upper, radius, gt_boxes)
                labels[image] = torch.where(positive, gt_labels[index], -1)
                boxes[image] = gt_boxes[index]
        distances = torch.cat([locations - boxes[..., :2], boxes[..., 2:] - locations], dim=-1)
        positive = labels >= 0
        distances = torch.where(positive[..., None], distances, 0.0)
        return FcosTargets(labels, distances, torch.where(positive, centerness(distances), 0.0))

    def losses(self, predictions: Predictions, targets: FcosTargets) -> dict[str, Tensor]:
        """The three losses of a batch, scalars.

        - ``classification``: sum of the focal loss, divided by (positives + images);
        - ``bbox_regression``: mean box loss of the positives, weighted by the centerness targets;
        - ``bbox_ctrness``: mean binary cross entropy of the positives' centerness.

        In a distributed run the counts are means over the processes. Without positives the latter two are 0, with gradients.

        Raises:
            DetectionError: the predictions have no centerness, or do not match the targets.
        """
        levels = list(predictions.values())
        logits = flatten_levels([level.cls_logits for level in levels], levels[0].cls_logits.shape[1])
        distances = flatten_levels([level.bbox_reg for level in levels], 4)
        center_logits = flatten_levels(_centerness_logits(predictions), 1).squeeze(2)
        class_targets = one_hot(targets.labels, logits)

        positive = torch.nonzero(targets.labels >= 0, as_tuple=True)
        weights = targets.centerness[positive].to(logits.dtype)
        positives, weight_sum = mean_over_processes(torch.stack([weights.new_ones(len(weights)).sum(), weights.sum()]))
        focal: Tensor = sigmoid_focal_loss(logits, class_targets, self.focal_alpha, self.focal_gamma, reduction="sum")
        boxes = box_loss(distances[positive], targets.distances[positive].to(logits.dtype), self.box_loss)
        center = binary_cross_entropy_with_logits(center_logits[positive], weights, reduction="sum")
        return {
            "classification": focal / (positives + len(logits)),
            "bbox_regression": (boxes * weights).sum() / weight_sum.clamp(min=MIN_NORMALIZER),
            "bbox_ctrness": center / positives.clamp(min=MIN_NORMALIZER),
        }

    def detect(self, predictions: Predictions, sizes: Sequence[tuple[int, int]]) -> list[RawDetections]:
        """The detections of each image of a batch; see `postprocess_detections`.

        Args:
            predictions: of the batch.
            sizes: (height, width) of each image in pixels, without the padding of the batch.

        Raises:
            DetectionError: the predictions have no centerness, or the number of sizes is not that of the images.
        """
        return postprocess_detections(self.level_candidates(predictions), sizes, self.candidates, self.nms, self.detections)

    def level_candidates(self, predictions: Predictions) -> list[LevelCandidates]:
        """The decoded predictions of each level, finest first.

        Raises:
            DetectionError: the predictions have no centerness.
        """
        levels = []
        shapes = shapes_of(predictions)
        center_logits = _centerness_logits(predictions)
        for (level, prediction), center, stride in zip(predictions.items(), center_logits, strides_of(shapes), strict=True):
            locations = level_locations(shapes[level], stride, prediction.bbox_reg.device)
            boxes = decode_boxes(locations, flatten_level(prediction.bbox_reg, 4).float())
            scores = flatten_level(prediction.cls_logits, prediction.cls_logits.shape[1]).float().sigmoid()
            allowed = scores > self.score_threshold
            if self.centerness_in_score:
                scores = scores * flatten_level(center, 1).float().sigmoid()
            levels.append(LevelCandidates(boxes, scores, allowed))
        return levels

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


def _per_location(grid: Sequence[Tensor], values: Sequence[float]) -> Tensor:
    """A value per level, expanded to its locations: [L, 1]."""
    return torch.cat([level.new_full((len(level), 1), value) for level, value in zip(grid, values, strict=True)])


def _centerness_logits(predictions: Predictions) -> list[Tensor]:
    logits = [prediction.centerness for prediction in predictions.values()]
    present = [x for x in logits if x is not None]
    if len(present) < len(logits):
        raise DetectionError("the predictions have no centerness; expected those of a decoder with 'predict fcos(…)'")
    return present


def _check_increasing(bounds: Sequence[float]) -> None:
    if any(a >= b for a, b in pairwise([0.0, *bounds])):
        raise DetectionError(f"ranges are {', '.join(map(str, bounds))}; expected positive numbers of pixels, increasing")
