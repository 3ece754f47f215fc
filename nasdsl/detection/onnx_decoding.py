"""From predicted maps to scores and boxes as ONNX nodes: what the kinds of prediction share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from nasdsl.backends.export import ExportError
from nasdsl.detection.pyramid import stride_of

if TYPE_CHECKING:
    from nasdsl.backends.onnx import Writer


class Places(NamedTuple):
    """Names of tensors [N or 1, T] int64 about some positions of a level.

    Attributes:
        row, column: of the location in the map.
        position: index among all positions of the level; those of one location are adjacent.
    """

    row: str
    column: str
    position: str


def not_written(cls: type, what: str) -> ExportError:
    """The error about a method that does not say how its decoding is written."""
    return ExportError(f"{cls.__module__}.{cls.__qualname__} does not say how its boxes are written as {what}")


def channels_last(writer: Writer, tensor: str) -> str:
    """Write a map [N, C, h, w] as [N, h, w, C]."""
    return writer.op("Transpose", tensor, perm=[0, 2, 3, 1])


def sigmoid_scores(writer: Writer, tensors: Mapping[str, str], threshold: float, *, centerness: bool) -> tuple[str, str]:
    """Write scores [N, h, w, C] as sigmoids of the logits, and whether they are above the threshold.

    Args:
        centerness: multiply them, after the comparison, by the predicted centerness.
    """
    scores = writer.op("Sigmoid", channels_last(writer, tensors["cls_logits"]))
    allowed = writer.op("Greater", scores, writer.number(threshold, exact=True))
    if centerness:
        scores = writer.op("Mul", scores, writer.op("Sigmoid", channels_last(writer, tensors["centerness"])))
    return scores, allowed


def corners(writer: Writer, level: str, places: Places) -> str:
    """Write x and y of the upper left corner of some cells, [N or 1, T, 2] in pixels."""
    import onnx

    corner = writer.op("Concat", *(writer.op("Unsqueeze", n, writer.integers(2)) for n in (places.column, places.row)), axis=2)
    return writer.op("Mul", writer.op("Cast", corner, to=onnx.TensorProto.FLOAT), writer.number(stride_of(level), exact=True))


def boxes_of_distances(writer: Writer, level: str, places: Places, distances: str) -> str:
    """Write the boxes of distances [N, T, 4] in pixels from the locations to their sides."""
    location = writer.op("Add", corners(writer, level, places), writer.number(stride_of(level) // 2, exact=True))
    before, after = writer.ops("Split", distances, outputs=2, axis=2, num_outputs=2)
    return writer.op("Concat", writer.op("Sub", location, before), writer.op("Add", location, after), axis=2)


def expected_distances(writer: Writer, level: str, logits: str, bins: int) -> str:
    """Write distances [N, T, 4] in pixels: the means of distributions over 0, 1, …, bins strides.

    Args:
        logits: [N, T, 4 * (bins + 1)].
    """
    shaped = writer.op("Reshape", logits, writer.integers(0, 0, 4, bins + 1))
    steps = writer.constant(np.arange(bins + 1, dtype=np.float32).reshape(-1, 1) * stride_of(level))
    means = writer.op("MatMul", writer.op("Softmax", shaped, axis=3), steps)
    return writer.op("Squeeze", means, writer.integers(3))
