"""Predictions at locations, whatever assigns boxes to them: targets, the losses of FCOS, and decoding."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, get_args

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from torchvision.ops import sigmoid_focal_loss

from nasdsl.detection import onnx_decoding
from nasdsl.detection.losses import BoxLoss, box_loss, centerness
from nasdsl.detection.method import DecodingSource, LossTerm, Method
from nasdsl.detection.onnx_decoding import Places
from nasdsl.detection.positives import positives
from nasdsl.detection.postprocess import LevelCandidates, decode_boxes
from nasdsl.detection.pyramid import (
    DetectionError,
    Predictions,
    Shapes,
    flatten_level,
    flatten_levels,
    level_locations,
    one_hot,
    shapes_of,
    strides_of,
)

if TYPE_CHECKING:
    from nasdsl.backends.onnx import Writer


class LocationTargets(NamedTuple):
    """Training targets for N images with L locations each. The image is the first dimension, so that a cache can index it.

    Attributes:
        labels: [N, L] int64; -1 is background.
        distances: [N, L, 4] in pixels to the left, top, right and bottom side of the box; 0 for background.
        centerness: [N, L], 0 … 1 (arXiv:1904.01355, equation 3); 0 for background.
    """

    labels: Tensor
    distances: Tensor
    centerness: Tensor

    def select(self, images: Tensor | slice | list[int]) -> LocationTargets:
        """The targets of these images, in this order.

        Args:
            images: numbers or a mask of them, [N].
        """
        return LocationTargets(*(x[images] for x in self))


Assign = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From boxes [n, 4], n > 0, to the index of a box for each of L locations, and whether it is assigned to it; [L] each."""


def grid_of(shapes: Shapes, device: torch.device | None) -> list[Tensor]:
    """The locations of each level, [h * w, 2] in pixels."""
    return [level_locations(shape, stride, device) for shape, stride in zip(shapes.values(), strides_of(shapes), strict=True)]


def per_location(grid: Sequence[Tensor], values: Sequence[float]) -> Tensor:
    """A value per level, expanded to its locations: [L, 1]."""
    return torch.cat([level.new_full((len(level), 1), value) for level, value in zip(grid, values, strict=True)])


def check_top(top: int) -> None:
    """Refuse a number of candidates that assigns nothing.

    Raises:
        DetectionError: it is less than 1.
    """
    if top < 1:
        raise DetectionError(f"top is {top}; expected 1 or more")


def location_targets(locations: Tensor, pairs: Sequence[tuple[Tensor, Tensor]], assign: Assign) -> LocationTargets:
    """Targets of the images with these boxes and labels.

    Args:
        locations: [L, 2], of all levels.
    """
    device = locations.device
    labels = torch.full((len(pairs), len(locations)), -1, device=device)
    boxes = torch.zeros(len(pairs), len(locations), 4, device=device)
    for image, (gt_boxes, gt_labels) in enumerate(pairs):
        if len(gt_boxes) > 0:
            index, positive = assign(gt_boxes)
            labels[image] = torch.where(positive, gt_labels[index], -1)
            boxes[image] = gt_boxes[index]
    distances = torch.cat([locations - boxes[..., :2], boxes[..., 2:] - locations], dim=-1)
    positive = labels >= 0
    distances = torch.where(positive[..., None], distances, 0.0)
    return LocationTargets(labels, distances, torch.where(positive, centerness(distances), 0.0))


class DistanceMethod(Method):
    """Base of FCOS and ATSS: boxes are distances in pixels from locations to their sides, perhaps with centerness.

    Attributes:
        box_loss: ``giou`` is 1 - GIoU, ``linear_iou`` 1 - IoU, ``iou`` -log IoU.
        focal_alpha, focal_gamma: of the focal loss (arXiv:1708.02002).
        centerness_in_score: whether detections are ranked by class score times centerness instead of the class score.
        has_centerness: whether it is predicted.
    """

    __slots__ = ()

    at_locations = True
    has_fixed_losses = True

    if TYPE_CHECKING:
        box_loss: BoxLoss
        focal_alpha: float
        focal_gamma: float
        centerness_in_score: bool
        has_centerness: bool

    def __post_init__(self) -> None:
        if self.box_loss not in get_args(BoxLoss):
            raise DetectionError(f"unknown box loss {self.box_loss!r}; known are {', '.join(get_args(BoxLoss))}")

    def location_losses(self, predictions: Predictions, targets: LocationTargets, *, box_weight: float) -> dict[str, LossTerm]:
        """The losses of FCOS.

        - ``classification``: sum of the focal loss, divided by (positives + images);
        - ``bbox_regression``: mean box loss of the positives, weighted by the centerness targets, times `box_weight`;
        - ``bbox_ctrness``: mean binary cross entropy of the positives' centerness, if it is predicted.

        Without positives the latter two are 0, with gradients.

        Raises:
            DetectionError: centerness is predicted where it should not be, or not where it should, or the predictions do not
                match the targets.
        """
        levels = list(predictions.values())
        center_maps = self._centerness_maps(predictions)
        logits = flatten_levels([level.cls_logits for level in levels], levels[0].cls_logits.shape[1])
        distances = flatten_levels([level.bbox_reg for level in levels], 4)
        class_targets = one_hot(targets.labels, logits)

        found = positives(targets.labels >= 0)
        weights = found.rows(targets.centerness).to(logits.dtype)
        count = found.count(weights)
        focal: Tensor = sigmoid_focal_loss(logits, class_targets, self.focal_alpha, self.focal_gamma, reduction="sum")
        boxes = box_loss(found.rows(distances, 1.0), found.rows(targets.distances, 1.0).to(logits.dtype), self.box_loss)
        terms = {
            "classification": LossTerm(focal, count + len(logits)),
            "bbox_regression": LossTerm(box_weight * (boxes * weights).sum(), weights.sum()),
        }
        if center_maps is not None:
            center_logits = flatten_levels(center_maps, 1).squeeze(2)
            center = binary_cross_entropy_with_logits(found.rows(center_logits), weights, reduction="none")
            terms["bbox_ctrness"] = LossTerm(found.total(center), count)
        return terms

    def level_candidates(self, predictions: Predictions) -> list[LevelCandidates]:
        """The decoded predictions of each level, finest first.

        Raises:
            DetectionError: centerness is predicted where it should not be, or not where it should.
        """
        levels = []
        shapes = shapes_of(predictions)
        center_maps = self._centerness_maps(predictions)
        for number, ((level, prediction), stride) in enumerate(zip(predictions.items(), strides_of(shapes), strict=True)):
            locations = level_locations(shapes[level], stride, prediction.bbox_reg.device)
            boxes = decode_boxes(locations, flatten_level(prediction.bbox_reg, 4).float())
            scores = flatten_level(prediction.cls_logits, prediction.cls_logits.shape[1]).float().sigmoid()
            allowed = scores > self.score_threshold
            if center_maps is not None and self.centerness_in_score:
                scores = scores * flatten_level(center_maps[number], 1).float().sigmoid()
            levels.append(LevelCandidates(boxes, scores, allowed))
        return levels

    def write_scores(self, writer: Writer, tensors: Mapping[str, str]) -> tuple[str, str]:
        return onnx_decoding.sigmoid_scores(writer, tensors, self.score_threshold, centerness=self._ranks_by_centerness)

    def write_boxes(self, writer: Writer, level: str, places: Places, values: str) -> str:
        return onnx_decoding.boxes_of_distances(writer, level, places, values)

    def source(self, strides: Mapping[str, int]) -> DecodingSource:
        return _source(in_score=self._ranks_by_centerness)

    @property
    def _ranks_by_centerness(self) -> bool:
        return self.has_centerness and self.centerness_in_score

    def _centerness_maps(self, predictions: Predictions) -> list[Tensor] | None:
        """The centerness of each level; None where none is expected.

        Raises:
            DetectionError: there is some and none is expected, or the other way round.
        """
        maps = [prediction.centerness for prediction in predictions.values()]
        present = [x for x in maps if x is not None]
        if len(present) < len(maps) and self.has_centerness:
            raise DetectionError(
                "the predictions have no centerness; expected those of a decoder with 'predict fcos(…)', and "
                "has_centerness=False for 'centerness=none'"
            )
        if present and not self.has_centerness:
            raise DetectionError("the predictions have centerness, and has_centerness is False; expected those without")
        return present if self.has_centerness else None


def _source(*, in_score: bool) -> DecodingSource:
    """The decoding of distances as source."""
    lines = [
        "def level_candidates(predictions: dict[str, Prediction]) -> list[LevelCandidates]:",
        '    """Boxes and scores of each level."""',
        "    levels = []",
        "    for level, prediction in predictions.items():",
        "        locations = level_locations(prediction.cls_logits.shape[-2:], STRIDES[level], prediction.cls_logits.device)",
        "        boxes = decode_boxes(locations, flatten_level(prediction.bbox_reg, 4).float())",
        "        scores = flatten_level(prediction.cls_logits, len(CLASSES)).float().sigmoid()",
        "        allowed = scores > SCORE_THRESHOLD",
        *(["        scores = scores * flatten_level(prediction.centerness, 1).float().sigmoid()"] if in_score else []),
        "        levels.append(LevelCandidates(boxes, scores, allowed))",
        "    return levels",
    ]
    return DecodingSource(lines, (level_locations, decode_boxes))
