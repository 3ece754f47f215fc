"""Sides of boxes as distributions over distances of 0, 1, …, bins strides, and the quality focal loss (arXiv:2006.04388).

Logits of a location are [4 * (bins + 1)], those of a side adjacent: left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from nasdsl.detection import onnx_decoding
from nasdsl.detection.locations import check_top, grid_of, per_location
from nasdsl.detection.method import DecodingSource, Method
from nasdsl.detection.onnx_decoding import Places
from nasdsl.detection.postprocess import LevelCandidates, decode_boxes
from nasdsl.detection.pyramid import (
    DetectionError,
    Predictions,
    flatten_level,
    flatten_levels,
    level_locations,
    shapes_of,
    strides_of,
)

if TYPE_CHECKING:
    from nasdsl.backends.onnx import Writer


def expected_distances(logits: Tensor) -> Tensor:
    """Distances [..., 4] in strides: the means of the distributions of logits [..., 4 * (bins + 1)]."""
    shaped = logits.reshape(*logits.shape[:-1], 4, logits.shape[-1] // 4)
    steps = torch.arange(shaped.shape[-1], dtype=shaped.dtype, device=shaped.device)
    means: Tensor = (shaped.softmax(dim=-1) * steps).sum(dim=-1)
    return means


def quality_focal_loss(logits: Tensor, quality: Tensor, beta: float) -> Tensor:
    """|quality - s|^beta times the binary cross entropy of s, the sigmoid of the logits, and the quality (equation 5).

    Args:
        logits: of any shape.
        quality: of the same shape, 0 … 1; 0 for other classes and for the background.
        beta: exponent of the weight; 2 in the paper.
    """
    cross = binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return (quality - logits.sigmoid()).abs().pow(beta) * cross


def distribution_focal_loss(logits: Tensor, distances: Tensor) -> Tensor:
    """Cross entropy of the two bins around a distance, weighted by how near it is to each (equation 6).

    Args:
        logits: [n, 4 * (bins + 1)].
        distances: [n, 4] in strides; those beyond the last bin count as just before it.

    Returns:
        [n], the mean of the four sides.
    """
    shaped = logits.reshape(4 * len(logits), logits.shape[1] // 4)  # [n * 4, bins + 1]
    bins = shaped.shape[1] - 1
    wanted = distances.flatten().clamp(min=0, max=bins)
    left = wanted.floor().clamp(max=bins - 1)
    share = wanted - left  # of the bin to the right
    low, high = (cross_entropy(shaped, (left + k).long(), reduction="none") for k in (0, 1))
    return (low * (1 - share) + high * share).reshape(len(logits), 4).mean(dim=1)


class FlatDistributions(NamedTuple):
    """Predictions of N images at L locations, flattened over all levels.

    Attributes:
        logits: [N, L, classes].
        sides: logits of the distributions, [N, L, 4 * (bins + 1)].
        boxes: the boxes of their means, [N, L, 4], xyxy in pixels.
        locations, strides: that boxes are measured from, [L, 2] in pixels, and in, [L, 1].
    """

    logits: Tensor
    sides: Tensor
    boxes: Tensor
    locations: Tensor
    strides: Tensor


class DistributionMethod(Method):
    """Base of GFL and task-aligned assignment: sides of boxes are distributions over distances, without centerness.

    Attributes:
        bins: the largest distance in strides.
        top: number of candidates of the assignment.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        bins: int
        top: int

    def __post_init__(self) -> None:
        check_top(self.top)
        if self.bins < 1:
            raise DetectionError(f"bins is {self.bins}; expected 1 or more")

    @property
    def box_values(self) -> int:
        return 4 * (self.bins + 1)

    def flatten(self, predictions: Predictions) -> FlatDistributions:
        """The predictions of all levels, in float32 or better.

        Raises:
            DetectionError: they are of another kind.
        """
        self._check(predictions)
        levels = list(predictions.values())
        logits = flatten_levels([level.cls_logits for level in levels], levels[0].cls_logits.shape[1])
        sides = flatten_levels([level.bbox_reg for level in levels], self.box_values)
        shapes = shapes_of(predictions)
        grid = grid_of(shapes, sides.device)
        strides = per_location(grid, strides_of(shapes)).to(sides.dtype)
        locations = torch.cat(grid).to(sides.dtype)
        return FlatDistributions(
            logits, sides, decode_boxes(locations, expected_distances(sides) * strides), locations, strides
        )

    def level_candidates(self, predictions: Predictions) -> list[LevelCandidates]:
        """The decoded predictions of each level, finest first.

        Raises:
            DetectionError: the predictions are of another kind.
        """
        self._check(predictions)
        levels = []
        shapes = shapes_of(predictions)
        for (level, prediction), stride in zip(predictions.items(), strides_of(shapes), strict=True):
            locations = level_locations(shapes[level], stride, prediction.bbox_reg.device)
            distances = expected_distances(flatten_level(prediction.bbox_reg, self.box_values).float()) * stride
            scores = flatten_level(prediction.cls_logits, prediction.cls_logits.shape[1]).float().sigmoid()
            levels.append(LevelCandidates(decode_boxes(locations, distances), scores, scores > self.score_threshold))
        return levels

    def write_boxes(self, writer: Writer, level: str, places: Places, values: str) -> str:
        distances = onnx_decoding.expected_distances(writer, level, values, self.bins)
        return onnx_decoding.boxes_of_distances(writer, level, places, distances)

    def source(self, strides: Mapping[str, int]) -> DecodingSource:
        return _source(self.bins)

    def _check(self, predictions: Predictions) -> None:
        """Refuse predictions of another kind.

        Raises:
            DetectionError: they have centerness, or another number of bins.
        """
        for level, prediction in predictions.items():
            values = prediction.bbox_reg.shape[1]
            if prediction.centerness is not None or values != self.box_values:
                also = "" if prediction.centerness is None else " and centerness"
                raise DetectionError(
                    f"level {level} predicts {values} values for a box{also}; expected {self.box_values} without centerness, "
                    f"of 'predict gfl(bins={self.bins})' or 'tal(bins={self.bins})'"
                )


def _source(bins: int) -> DecodingSource:
    """The decoding of distributions as source."""
    lines = [
        "def level_candidates(predictions: dict[str, Prediction]) -> list[LevelCandidates]:",
        '    """Boxes and scores of each level."""',
        "    levels = []",
        "    for level, prediction in predictions.items():",
        "        locations = level_locations(prediction.cls_logits.shape[-2:], STRIDES[level], prediction.cls_logits.device)",
        "        distances = expected_distances(flatten_level(prediction.bbox_reg, 4 * (BINS + 1)).float()) * STRIDES[level]",
        "        scores = flatten_level(prediction.cls_logits, len(CLASSES)).float().sigmoid()",
        "        levels.append(LevelCandidates(decode_boxes(locations, distances), scores, scores > SCORE_THRESHOLD))",
        "    return levels",
    ]
    return DecodingSource(
        lines,
        (level_locations, decode_boxes, expected_distances),
        (f"BINS = {bins}  # largest distance of a side, in strides",),
    )
