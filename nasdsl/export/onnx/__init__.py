"""Export a whole detector as an ONNX file: images to boxes, scores and labels.

Node names have the section first: ``preprocess/…``, ``backbone/…``, ``fpn/…``, ``head/…``, ``predict/…``, ``postprocess/…``.
"""

from __future__ import annotations

from collections.abc import Mapping

from nasdsl.backends.export import MissingExtra
from nasdsl.detection.detector import Detector, Size
from nasdsl.export.sizes import padded_size

try:
    import onnx

    from nasdsl.backends.onnx import make_model
    from nasdsl.backends.onnx.decoder import write_decoder
    from nasdsl.backends.onnx.writer import Writer
    from nasdsl.export.onnx.backbone import write_backbone
    from nasdsl.export.onnx.postprocess import write_candidates, write_detections
except ModuleNotFoundError as error:
    if (error.name or "").split(".")[0] != "onnx":
        raise
    raise MissingExtra("writing ONNX needs the package onnx: pip install 'nasdsl[onnx]'") from None


def detector_model(
    detector: Detector,
    *,
    size: Size | None,
    maps: Mapping[str, Size] | None,
    native_deform: bool,
    half: bool,
    nms: bool,
    metadata: Mapping[str, str],
) -> onnx.ModelProto:
    """A detector as an ONNX model in memory; see `nasdsl.export.export_detector`.

    Args:
        detector: from `nasdsl.for_inference`.
        size: (height, width) of all images; None: any.
        maps: (height, width) of the map of each level for that size; None: any.
        native_deform: deformable convolutions are DeformConv, not GridSample.
        half: weights and maps are float16.
        nms: with non-maximum suppression; without it, the outputs are all candidates.
        metadata: properties of the model.

    Raises:
        ExportError: the backbone, or a custom layer, cannot be written.
    """
    writer = Writer(half=half, native_deform=native_deform)
    images = write_preprocess(writer, detector)
    padded = None if size is None else padded_size(size, detector.transform.size_divisible)
    features = write_backbone(writer, detector.backbone, images, padded, half)
    writer.owner = "decoder."
    predictions = write_decoder(writer, detector.decoder, features, "predict/")
    classes = len(detector.classes)
    height, width = size or ("height", "width")
    inputs = [_value("images", onnx.TensorProto.FLOAT, "batch", 3, height, width)]
    if nms:
        limit = write_detections(writer, detector.method, predictions, "images", classes, maps)
        outputs = [
            _value("boxes", onnx.TensorProto.FLOAT, "batch", limit, 4),
            _value("scores", onnx.TensorProto.FLOAT, "batch", limit),
            _value("labels", onnx.TensorProto.INT64, "batch", limit),
        ]
    else:
        write_candidates(writer, detector.method, predictions, "images", classes)
        count = "candidates" if maps is None else _positions(detector, maps)
        outputs = [
            _value("boxes", onnx.TensorProto.FLOAT, "batch", count, 4),
            _value("scores", onnx.TensorProto.FLOAT, "batch", count, classes),
        ]
    return make_model(writer, detector.decoder.graph.name, inputs, outputs, metadata)


def write_preprocess(writer: Writer, detector: Detector) -> str:
    """Write the normalisation of images, and the padding that the detector adds; returns the name of the tensor."""
    backbone, divisible = detector.backbone, detector.transform.size_divisible
    with writer.at("preprocess/normalize"):
        writer.owner = "backbone."
        mean = writer.weight("pixel_mean", backbone.pixel_mean, exact=True)
        std = writer.weight("pixel_std", backbone.pixel_std, exact=True)
        images = writer.result(writer.op("Div", writer.op("Sub", "images", mean), std))
    if divisible > 1:
        with writer.at("preprocess/pad"):
            size, step = writer.op("Shape", images, start=2), writer.integers(divisible)
            missing = writer.op("Mod", writer.op("Sub", step, writer.op("Mod", size, step)), step)
            pads = writer.op("Concat", writer.integers(0, 0, 0, 0, 0, 0), missing, axis=0)
            images = writer.result(writer.op("Pad", images, pads))
    with writer.at("preprocess/round"):
        return writer.rounded(images)


def _positions(detector: Detector, maps: Mapping[str, Size]) -> int:
    """Number of locations, or anchors, of all levels."""
    at_each = getattr(detector.method, "anchors", 1)
    return sum(height * width * at_each for height, width in maps.values())


def _value(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, kind, list(shape))


__all__ = ["detector_model", "write_preprocess"]
