"""Small sessions of a detector's parts, in any runtime: copies of a piece of the decoder, a backbone, or the postprocessing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends.cost import Size
from nasdsl.backends.inference import for_inference as fold_decoder
from nasdsl.backends.module import DecoderModule, Prediction
from nasdsl.decoder import loads
from nasdsl.detection.factory import detector, make_method
from nasdsl.detection.inference import for_inference
from nasdsl.detection.pyramid import stride_of
from nasdsl.diagnostics import Source, Span
from nasdsl.ir.graph import Graph, HeadGraph, Node
from nasdsl.latency.pieces import Part, Piece
from nasdsl.latency.session import LatencyError, import_runtime
from nasdsl.latency.timing import Run
from nasdsl.layers import Activation, Conv, Feature, Features, Input, Result
from nasdsl.predictions import Retinanet
from nasdsl.semantics.architecture import Value

if TYPE_CHECKING:
    from nasdsl.backends.onnx import Writer

Arrays: TypeAlias = dict[str, npt.NDArray[np.float32]]


class Probe(NamedTuple):
    """What is timed: inputs, a function of torch, and the same as ONNX.

    Attributes:
        inputs: arrays [1, …] by name.
        function: takes the inputs, channels-last, by name.
        onnx: makes the content of an ONNX file with these inputs.
    """

    inputs: Arrays
    function: Callable[[Mapping[str, Tensor]], Any]
    onnx: Callable[[], bytes]

    def runner(self, runtime: str, threads: int) -> Run:
        """A function that runs it once.

        Raises:
            LatencyError, ExportError: the runtime cannot run it, or it cannot be written as ONNX.
            MissingExtra, MissingRuntime: a package is missing.
        """
        if runtime == "onnxruntime":
            return _in_onnxruntime(self, threads)
        if runtime == "openvino":
            return _in_openvino(self, threads)
        return _in_torch(self)


def make_probe(part: Part, copies: int = 1) -> Probe:
    """The probe of a part.

    Args:
        copies: of a piece of the decoder; the backbone and the postprocessing are always alone.
    """
    if part.piece is not None:
        return piece_probe(part.piece, copies)
    if part.section == "backbone":
        return _backbone_probe(**part.request)
    return _postprocess_probe(**part.request)


def reference_piece() -> Piece:
    """The fixed network that times are relative to: 3x3 convolutions of 64 channels with ReLU on maps of 24x32."""
    span = Span(Source("reference", ""), 0, 0)
    value, x = Value("reference", "conv_3x3", "block", span), Feature(3, 64)
    conv = Node("conv", Conv(64, 3, bias=True), ("x",), (x,), x, value, span)
    act = Node("act", Activation("relu"), ("conv",), (x,), x, value, span)
    return Piece((conv, act), ((24, 32),), (24, 32), None)


# -------------------------------------------------------------------------------------------------------------- pieces


def piece_probe(piece: Piece, copies: int) -> Probe:
    """Copies of a piece, each with its own weights: one behind the other where the maps fit, else beside one another.

    Copies whose first layer has no weights have operands of their own: a runtime would compute it once.
    """
    graph, shapes = _graph(piece, copies)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = fold_decoder(DecoderModule(graph, 1).eval())
    return Probe(_inputs(shapes), module.fpn, lambda: _piece_model(module, shapes))


def _graph(piece: Piece, copies: int) -> tuple[Graph, dict[str, tuple[int, int, int]]]:
    """A graph of copies, and the shape [C, H, W] of each input."""
    value, span = piece.nodes[0].value, piece.nodes[0].span
    nodes: list[Node] = []
    shapes: dict[str, tuple[int, int, int]] = {}

    def add_input(name: str, feature: Feature, size: tuple[int, int]) -> str:
        nodes.append(Node(name, Input(name), (), (), feature, value, span))
        shapes[name] = (feature.width, *size)
        return name

    if piece.target is not None:  # sizes of levels follow from the inputs
        add_input("like", Feature(piece.out.level, 1), piece.target)
    outputs: dict[str, str] = {}
    operands: list[str] = []
    for copy in range(copies):
        if copy == 0 or not piece.shares_operands:
            operands = [
                add_input(f"x{copy}_{index}", feature, size)
                for index, (feature, size) in enumerate(zip(piece.operands, piece.maps, strict=True))
            ]
        before = tuple(operands)
        for index, node in enumerate(piece.nodes):
            name = f"c{copy}.n{index}"
            nodes.append(node._replace(id=name, inputs=before))
            before = (name,)
        last = nodes[-1]
        if isinstance(last.out, Features):  # the first of several results stands for them
            nodes.append(Node(f"c{copy}.first", Result(0), before, (last.out,), last.out.results[0], value, span))
            before = (nodes[-1].id,)
        outputs[f"y{copy}"] = before[0]
        if piece.repeats:
            operands, outputs = list(before), {"y": before[0]}
    levels = dict.fromkeys(outputs, piece.out.level or 0)
    widths = {name: shape[0] for name, shape in shapes.items()}
    head = HeadGraph(0, (), (), span)
    return Graph("piece", widths, tuple(nodes), outputs, levels, head, Retinanet(1), ()), shapes


def _piece_model(module: DecoderModule, shapes: Mapping[str, Sequence[int]]) -> bytes:
    from nasdsl.backends.onnx import Writer
    from nasdsl.backends.onnx.decoder import write_fpn

    writer = Writer()
    outputs = write_fpn(writer, module, {name: name for name in shapes})
    return _serialize(writer, shapes, dict.fromkeys(outputs.values(), 4))


# ----------------------------------------------------------------------------------------- backbone and postprocessing

_ALONE = """decoder alone {{ input c{level}; fpn(width=32) {{ output p{level} = conv_1x1(c{level}) }}
head(width=32) {{ skip }} predict {predict} }}"""
"""The smallest decoder, for a detector of which the backbone alone is timed."""


def _backbone_probe(backbone: str, size: Size) -> Probe:
    """Normalisation and backbone: images in, all features out."""
    first = next(iter(find_backbone(backbone).out_channels))
    built = for_inference(detector(loads(_ALONE.format(level=first[1:], predict="fcos")), backbone, classes=1, seed=0))
    shapes = {"images": (3, *size)}

    def onnx() -> bytes:
        from nasdsl.backends.onnx import Writer
        from nasdsl.export.onnx import write_preprocess
        from nasdsl.export.onnx.backbone import write_backbone

        writer = Writer()
        features = write_backbone(writer, built.backbone, write_preprocess(writer, built), size, False)
        return _serialize(writer, shapes, dict.fromkeys(features.values(), 4))

    return Probe(_inputs(shapes), lambda x: built.backbone(built.prepare(x["images"]).images), onnx)


def _postprocess_probe(predict: str, classes: int, method: Mapping[str, Any], maps: Mapping[str, Size], size: Size) -> Probe:
    """Predictions in, detections out. As for a detector with random weights, no score is above the threshold."""
    decoder = loads(_ALONE.format(level=3, predict=predict))
    options = make_method(decoder, method)
    predictions = decoder.lower({"c3": 32}).head.predictions
    channels = {p.name: p.channels(classes) for p in predictions}
    is_raw = {p.name: p.form == "raw" for p in predictions}["bbox_reg"]
    names = {level: {kind: f"{level}.{kind}" for kind in channels} for level in maps}
    shapes = {names[level][kind]: (count, *at) for level, at in maps.items() for kind, count in channels.items()}
    shapes["images"] = (3, *size)  # in files, boxes are clipped to their size
    inputs = _inputs(shapes)
    for level, of_level in names.items():
        inputs[of_level["cls_logits"]] = 0.01 * inputs[of_level["cls_logits"]] - _NO_OBJECT
        inputs[of_level["bbox_reg"]] = np.abs(inputs[of_level["bbox_reg"]]) * (1 if is_raw else stride_of(level))

    def run(x: Mapping[str, Tensor]) -> Any:
        predictions = {
            level: Prediction(*(x[of_level[kind]] if kind in of_level else None for kind in Prediction._fields))  # type: ignore[arg-type]  # only centerness may be missing
            for level, of_level in names.items()
        }
        return options.detect(predictions, [size])

    def onnx() -> bytes:
        from nasdsl.backends.onnx import Writer
        from nasdsl.export.onnx.postprocess import write_detections

        writer = Writer()
        write_detections(writer, options, names, "images", classes, maps)
        return _serialize(writer, shapes, {"boxes": 3, "scores": 2, "labels": 2})

    return Probe(inputs, run, onnx)


_NO_OBJECT = 4.6
"""Logits of minus this are scores of 0.01, as those of an untrained detector."""


# ------------------------------------------------------------------------------------------------------------ runtimes


def _in_torch(probe: Probe) -> Run:
    tensors = {
        name: torch.from_numpy(array).to(memory_format=torch.channels_last) if array.ndim == 4 else torch.from_numpy(array)
        for name, array in probe.inputs.items()
    }

    def run() -> Any:
        with torch.inference_mode():
            return probe.function(tensors)

    return run


def _in_onnxruntime(probe: Probe, threads: int) -> Run:
    """Results stay where they are: copies of the maps of a piece would be timed with it."""
    runtime = import_runtime("onnxruntime")
    from nasdsl.latency.onnx_runtime import make_session

    session = make_session(probe.onnx(), threads, ["CPUExecutionProvider"], name="a part of a detector")
    binding = session.io_binding()
    for one in session.get_inputs():
        binding.bind_ortvalue_input(one.name, runtime.OrtValue.ortvalue_from_numpy(probe.inputs[one.name]))
    for one in session.get_outputs():
        binding.bind_output(one.name)
    return lambda: session.run_with_iobinding(binding)


def _in_openvino(probe: Probe, threads: int) -> Run:
    openvino = import_runtime("openvino")
    from nasdsl.latency.openvino_runtime import compile_model, core, reason_of

    try:
        model = core().read_model(probe.onnx())
        names = [port.any_name for port in model.inputs]
        model.reshape({name: list(probe.inputs[name].shape) for name in names})
        request = compile_model(model, threads)
        for name in names:
            request.set_tensor(name, openvino.Tensor(probe.inputs[name]))
    except RuntimeError as error:
        raise LatencyError(f"openvino cannot run a part of a detector: {reason_of(error)}") from None
    return lambda: request.infer(share_outputs=True)


def _inputs(shapes: Mapping[str, Sequence[int]]) -> Arrays:
    """Noise [1, …] for each input."""
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((1, *shape), dtype=np.float32) for name, shape in shapes.items()}


def _serialize(writer: Writer, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, int]) -> bytes:
    """The content of an ONNX file.

    Args:
        inputs: shapes without the batch.
        outputs: number of dimensions.
    """
    from onnx import TensorProto, helper

    from nasdsl.backends.onnx import make_model

    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name, shape in inputs.items()]
    results = [
        helper.make_tensor_value_info(
            name,
            TensorProto.INT64 if name == "labels" else TensorProto.FLOAT,
            ["batch", *(f"{name}_{axis}" for axis in range(1, dimensions))],
        )
        for name, dimensions in outputs.items()
    ]
    content: bytes = make_model(writer, "part", given, results, {}).SerializeToString()
    return content
