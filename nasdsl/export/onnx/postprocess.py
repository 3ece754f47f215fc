"""From predictions to boxes as ONNX nodes: what `postprocess_detections` computes, for a batch and in tensors of fixed size.

In the comments N is the batch size, C the number of classes, P the positions of a level (locations, or anchors), V the
values that are predicted for a box, T the candidates of a level that are kept, M those of all levels, and K the largest number
of detections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import onnx

from nasdsl.backends.onnx.writer import Writer
from nasdsl.detection import onnx_decoding
from nasdsl.detection.method import Method

_NEVER = -1.0
"""Score of what is no candidate: below all others."""


class Candidates(NamedTuple):
    """Names of tensors: ``boxes`` [N, T, 4], ``scores`` [N, T], and ``labels`` [N, T] where a candidate has one class."""

    boxes: str
    scores: str
    labels: str


def write_detections(
    writer: Writer,
    method: Method,
    predictions: Mapping[str, Mapping[str, str]],
    images: str,
    classes: int,
    sizes: Mapping[str, tuple[int, int]] | None,
) -> int:
    """Write ``boxes`` [N, K, 4], ``scores`` [N, K] and ``labels`` [N, K] of the detections of each image, best first.

    Args:
        predictions: names of the tensors of each level.
        images: name of the tensor [N, 3, H, W] whose size the boxes are clipped to.
        sizes: (height, width) of the map of each level, where they are fixed.

    Returns:
        K.
    """
    levels = [
        _top_candidates(writer, method, level, tensors, classes, sizes[level] if sizes else None)
        for level, tensors in predictions.items()
    ]
    counts = [_kept(method, classes, sizes[level] if sizes else None) for level in predictions]
    with writer.at("postprocess/candidates"):
        boxes, scores, labels = (
            writer.op("Concat", *tensors, axis=1) if len(levels) > 1 else tensors[0] for tensors in zip(*levels, strict=True)
        )
    boxes = _clip(writer, boxes, images)
    with writer.at("postprocess/valid"):
        x1, y1, x2, y2 = writer.ops("Split", boxes, outputs=4, axis=2, num_outputs=4)
        wide, high = writer.op("Greater", x2, x1), writer.op("Greater", y2, y1)
        valid = writer.op("Squeeze", writer.op("And", wide, high), writer.integers(2))
        scores = writer.result(writer.op("Where", valid, scores, _zero(writer)))  # [N, M]
    scores = _non_maximum_suppression(writer, method, boxes, scores, labels, classes)
    limit = min(method.detections, sum(counts))
    with writer.at("postprocess/best"):
        best, index = writer.ops("TopK", scores, writer.integers(limit), outputs=2, axis=1)
        is_object = writer.op("Greater", best, _zero(writer))
    _output(writer, "scores", "Where", is_object, best, _zero(writer))
    with writer.at("postprocess/best"):
        found = writer.op("GatherElements", labels, index, axis=1)
    _output(writer, "labels", "Where", is_object, found, writer.constant(np.array(0, np.int64)))
    with writer.at("postprocess/best"):
        found = _gather(writer, boxes, index)
        is_object = writer.op("Unsqueeze", is_object, writer.integers(2))
    _output(writer, "boxes", "Where", is_object, found, _zero(writer))
    return limit


def write_candidates(
    writer: Writer, method: Method, predictions: Mapping[str, Mapping[str, str]], images: str, classes: int
) -> None:
    """Write ``boxes`` [N, L, 4] and ``scores`` [N, L, C] of all L positions of all levels, finest first.

    The score of a class whose detections the detector would drop, as they are below its threshold, is 0.
    """
    all_boxes, all_scores = [], []
    for level, tensors in predictions.items():
        with writer.at(f"postprocess/{level}"):
            scores, allowed = method.write_scores(writer, tensors)  # [N, h, w, A * C]
            scores = writer.op("Where", allowed, scores, _zero(writer))
            all_scores.append(writer.op("Reshape", scores, writer.integers(0, -1, classes)))
            zero, one = (writer.constant(np.array(v, np.int64)) for v in (0, 1))
            count = writer.op("Squeeze", writer.op("Shape", all_scores[-1], start=1, end=2))
            positions = writer.op("Unsqueeze", writer.op("Range", zero, count, one), writer.integers(0))  # [1, P]
            all_boxes.append(_decode(writer, method, level, tensors, positions, _values(writer, method, tensors)))
    with writer.at("postprocess/candidates"):
        boxes = writer.op("Concat", *all_boxes, axis=1)
    clipped = _clip(writer, boxes, images)
    _output(writer, "boxes", "Identity", clipped)
    _output(writer, "scores", "Concat", *all_scores, axis=1)


def _top_candidates(
    writer: Writer, method: Method, level: str, tensors: Mapping[str, str], classes: int, size: tuple[int, int] | None
) -> Candidates:
    """Write the best candidates of a level: [N, T] each."""
    count = _kept(method, classes, size)
    with writer.at(f"postprocess/{level}"):
        scores, allowed = method.write_scores(writer, tensors)
        scores = writer.op("Where", allowed, scores, writer.number(_NEVER, exact=True))
        scores = writer.op("Reshape", scores, writer.integers(0, -1))  # [N, P * C]
        if size is None:  # a small image may have fewer positions
            pads = writer.integers(0, 0, 0, method.candidates)
            scores = writer.op("Pad", scores, pads, writer.number(_NEVER, exact=True))
        scores, index = writer.ops("TopK", scores, writer.integers(count), outputs=2, axis=1)
        classes_ = writer.constant(np.array(classes, np.int64))
        labels = writer.op("Mod", index, classes_)
        positions = writer.op("Div", index, classes_)
        values = _values(writer, method, tensors)
        if size is None:
            last = writer.op("Sub", writer.op("Shape", values, start=1, end=2), writer.integers(1))
            positions = writer.op("Min", positions, last)
        boxes = _decode(writer, method, level, tensors, positions, _gather(writer, values, positions))
        return Candidates(boxes, scores, labels)


def _kept(method: Method, classes: int, size: tuple[int, int] | None) -> int:
    """T, the number of candidates of a level."""
    if size is None:
        return method.candidates
    return min(method.candidates, size[0] * size[1] * method.positions * classes)


def _values(writer: Writer, method: Method, tensors: Mapping[str, str]) -> str:
    """Write the predicted values of the boxes of a level, [N, P, V]."""
    maps = onnx_decoding.channels_last(writer, tensors["bbox_reg"])
    return writer.op("Reshape", maps, writer.integers(0, -1, method.box_values))


def _decode(writer: Writer, method: Method, level: str, tensors: Mapping[str, str], positions: str, values: str) -> str:
    """Write the boxes [N, T, 4] of predictions ``values`` [N, T, V] at ``positions`` [N or 1, T]."""
    width = writer.op("Shape", tensors["cls_logits"], start=3, end=4)
    cell = positions
    if method.positions > 1:
        cell = writer.op("Div", positions, writer.constant(np.array(method.positions, np.int64)))
    places = onnx_decoding.Places(writer.op("Div", cell, width), writer.op("Mod", cell, width), positions)
    return method.write_boxes(writer, level, places, values)


def _clip(writer: Writer, boxes: str, images: str) -> str:
    """Write boxes that lie inside of the image."""
    with writer.at("postprocess/clip"):
        height = writer.op("Shape", images, start=2, end=3)
        width = writer.op("Shape", images, start=3, end=4)
        limits = writer.op("Cast", writer.op("Concat", width, height, width, height, axis=0), to=onnx.TensorProto.FLOAT)
        return writer.result(writer.op("Min", writer.op("Max", boxes, _zero(writer)), limits))


def _non_maximum_suppression(writer: Writer, method: Method, boxes: str, scores: str, labels: str, classes: int) -> str:
    """Write the scores [N, M] of the candidates that non-maximum suppression keeps in each class; those of others are 0."""
    with writer.at("postprocess/nms"):
        names = writer.constant(np.arange(classes, dtype=np.int64).reshape(1, -1, 1))
        of_class = writer.op("Equal", writer.op("Unsqueeze", labels, writer.integers(1)), names)
        by_class = writer.op("Where", of_class, writer.op("Unsqueeze", scores, writer.integers(1)), _zero(writer))
        selected = writer.op(
            "NonMaxSuppression",
            boxes,
            by_class,  # [N, C, M]
            writer.integers(method.detections),
            writer.number(min(method.nms, 1.0), exact=True),
            _zero(writer),
        )  # [selected, 3]: image, class, candidate
        places = writer.op("Gather", selected, writer.integers(0, 2), axis=1)
        none = writer.op("Mul", scores, _zero(writer))
        return writer.result(writer.op("ScatterND", none, places, writer.op("GatherND", scores, places)))


def _gather(writer: Writer, values: str, index: str) -> str:
    """Write the rows ``index`` [N, T] of ``values`` [N, P, V]: [N, T, V]."""
    return writer.op("GatherND", values, writer.op("Unsqueeze", index, writer.integers(2)), batch_dims=1)


def _zero(writer: Writer) -> str:
    return writer.number(0.0, exact=True)


def _output(writer: Writer, name: str, kind: str, *inputs: str, **attributes: int) -> None:
    """Write the node of an output of the model, which has its name."""
    with writer.at(name):
        writer.result(writer.op(kind, *inputs, **attributes))
    writer.nodes[-1].name = f"postprocess/{name}"
