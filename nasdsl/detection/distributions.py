"""Sides of boxes as distributions over distances of 0, 1, …, bins strides, and the quality focal loss (arXiv:2006.04388).

Logits of a location are [4 * (bins + 1)], those of a side adjacent: left, top, right, bottom.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from nasdsl.detection.method import DecodingSource
from nasdsl.detection.postprocess import LevelCandidates, decode_boxes
from nasdsl.detection.pyramid import (
    DetectionError,
    Predictions,
    flatten_level,
    level_locations,
    shapes_of,
    strides_of,
)


def expected_distances(logits: Tensor) -> Tensor:
    """Distances [..., 4] in strides: the means of the distributions of logits [..., 4 * (bins + 1)]."""
    shaped = logits.reshape(*logits.shape[:-1], 4, logits.shape[-1] // 4)
    steps = torch.arange(shaped.shape[-1], dtype=shaped.dtype, device=shaped.device)
    means: Tensor = (shaped.softmax(dim=-1) * steps).sum(dim=-1)
    return means


def quality_focal_loss(logits: Tensor, quality: Tensor, beta: float) -> Tensor:
    """|quality - s|^beta times the binary cross entropy of s, the sigmoid of the logits, and the quality (equation 5).

    Args:
        logits, quality: of any one shape; quality is 0 … 1, and 0 for other classes and for the background.
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


def check_bins(predictions: Predictions, bins: int) -> None:
    """Refuse predictions of another kind.

    Raises:
        DetectionError: they have centerness, or another number of bins.
    """
    for level, prediction in predictions.items():
        values = prediction.bbox_reg.shape[1]
        if prediction.centerness is not None or values != 4 * (bins + 1):
            also = "" if prediction.centerness is None else " and centerness"
            raise DetectionError(
                f"level {level} predicts {values} values for a box{also}; "
                f"expected {4 * (bins + 1)} without centerness, of 'predict gfl(bins={bins})' or 'tal(bins={bins})'"
            )


def predicted_boxes(predictions: Predictions, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes [N, L, 4] of all levels in pixels, and the locations [L, 2] and strides [L, 1] that they are measured from.

    Args:
        logits: [N, L, 4 * (bins + 1)].
    """
    shapes = shapes_of(predictions)
    strides = strides_of(shapes)
    grid = [level_locations(shape, stride, logits.device) for shape, stride in zip(shapes.values(), strides, strict=True)]
    of_location = torch.cat([x.new_full((len(x), 1), stride) for x, stride in zip(grid, strides, strict=True)]).to(logits.dtype)
    locations = torch.cat(grid).to(logits.dtype)
    return decode_boxes(locations, expected_distances(logits) * of_location), locations, of_location


def distribution_candidates(predictions: Predictions, bins: int, score_threshold: float) -> list[LevelCandidates]:
    """The decoded predictions of each level, finest first.

    Raises:
        DetectionError: see `check_bins`.
    """
    check_bins(predictions, bins)
    levels = []
    shapes = shapes_of(predictions)
    for (level, prediction), stride in zip(predictions.items(), strides_of(shapes), strict=True):
        locations = level_locations(shapes[level], stride, prediction.bbox_reg.device)
        distances = expected_distances(flatten_level(prediction.bbox_reg, 4 * (bins + 1)).float()) * stride
        scores = flatten_level(prediction.cls_logits, prediction.cls_logits.shape[1]).float().sigmoid()
        levels.append(LevelCandidates(decode_boxes(locations, distances), scores, scores > score_threshold))
    return levels


def distribution_source(bins: int) -> DecodingSource:
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
