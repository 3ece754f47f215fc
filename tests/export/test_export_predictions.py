"""Every kind of prediction with every attribute the whole way: text, digest, cost, module, source, ONNX, program, latency."""

from __future__ import annotations

import re
from pathlib import Path

import exports
import pytest
import torch
from torch import nn

import nasdsl
from nasdsl.backends.inference import for_inference
from nasdsl.backends.onnx import export_onnx
from nasdsl.backends.source import emit_source
from nasdsl.detection.detector import Detector
from nasdsl.detection.weights import read_weights, save_detector
from nasdsl.export import export_detector
from nasdsl.latency.pieces import parts_of
from nasdsl.latency.probes import make_probe
from nasdsl.nn import DeformConv2d

PREDICTIONS = [
    "fcos(centerness=none)", "atss(centerness=box)", "atss(centerness=cls, boxes=exp, kernel=1)", "gfl(bins=4)",
    "gfl(bins=3, share=false)", "tal(bins=4, conv=deep)", "tal(bins=2, share=false, conv=deep)",
    "retinanet(anchors=3, conv=dconv_3x3)", "fcos(boxes=relu, share=false, kernel=1)",
]  # fmt: skip
OPS = "op deep(x) = conv_1x1(relu(conv_3x3(x, width=24, norm=bn)))\n"
"""A prediction of several layers, among them a norm that is folded."""


def text_of(predict: str) -> str:
    return OPS + exports.TEXT.replace("PREDICT", predict)


def built(predict: str) -> Detector:
    """A detector in which every prediction matters."""
    decoder = nasdsl.loads(text_of(predict))
    model = nasdsl.detector(decoder, "tiny", classes=3, seed=0, min_size=64, max_size=128).eval()
    torch.manual_seed(1)
    head = model.decoder.head
    with torch.no_grad():
        for prediction in head.predictions.values():
            for part in head.get_submodule(prediction.name).modules():
                if isinstance(part, nn.BatchNorm2d):
                    part.running_mean.uniform_(-0.2, 0.2)
                    part.running_var.uniform_(0.5, 1.5)
                elif isinstance(part, DeformConv2d | nn.Conv2d):
                    part.weight.normal_(std=0.12)
                    if part.bias is not None and part.bias.numel():
                        low = -2.0 if prediction.name == "cls_logits" else 0.5
                        part.bias.uniform_(low, low + 1)
    return model


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_text_digest_cost_and_weights(predict: str) -> None:
    decoder = nasdsl.loads(text_of(predict))
    again = nasdsl.loads(decoder.canonical)
    assert (again.canonical, again.digest) == (decoder.canonical, decoder.digest)
    model = nasdsl.detector(decoder, "tiny", classes=3, seed=0)
    cost = decoder.cost(size=(64, 96), backbone="tiny", classes=3)
    assert cost.head.params == sum(p.numel() for p in model.decoder.head.parameters())
    again_model = nasdsl.detector(again, "tiny", classes=3, seed=0)
    ours = [tuple(v.shape) for v in model.decoder.head.state_dict().values()]
    assert sorted(ours) == sorted(tuple(v.shape) for v in again_model.decoder.head.state_dict().values())


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_decoders_in_every_form(predict: str, tmp_path: Path) -> None:
    import onnxruntime

    model = built(predict)
    module = model.decoder
    graph = module.graph
    features = {n: torch.randn(1, w, -(-13 // 2**k), -(-9 // 2**k)) for k, (n, w) in enumerate(graph.in_channels.items())}
    with torch.no_grad():
        expected = module(features)
        folded = for_inference(module)(features)
    namespace: dict[str, object] = {"__name__": "emitted"}
    text = emit_source(graph, 3)
    assert not re.search(r"\b(import|from) nasdsl", text)
    exec(compile(text, "emitted", "exec"), namespace)
    emitted = namespace["Decoder"]().eval()  # type: ignore[operator]
    emitted.load_state_dict(module.state_dict())
    with torch.no_grad():
        found = emitted(features)
    export_onnx(module, tmp_path / "d.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "d.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    values = dict(zip(names, session.run(None, {n: x.numpy() for n, x in features.items()}), strict=True))
    for level, prediction in expected.items():
        for name, tensor in prediction._asdict().items():
            assert (tensor is None) == (f"{level}.{name}" not in values)
            if tensor is not None:
                assert torch.allclose(getattr(found[level], name), tensor, atol=1e-5)
                assert torch.allclose(getattr(folded[level], name), tensor, rtol=1e-4, atol=1e-4)
                assert torch.allclose(torch.from_numpy(values[f"{level}.{name}"]), tensor, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_whole_detectors_as_onnx_and_source(predict: str, tmp_path: Path) -> None:
    model = built(predict)
    x = exports.images(2, 64, 96)
    export_detector(model, tmp_path / "d.onnx")
    assert exports.check(exports.onnx_runner(tmp_path / "d.onnx"), model, x) > 10
    export_detector(model, tmp_path / "all.onnx", nms=False)
    exports.check_candidates(exports.onnx_runner(tmp_path / "all.onnx"), model, x)
    export_detector(model, tmp_path / "d.py")
    namespace: dict[str, object] = {"__name__": "emitted", "__file__": str(tmp_path / "d.py")}
    exec(compile((tmp_path / "d.py").read_text(), str(tmp_path / "d.py"), "exec"), namespace)
    emitted = namespace["load"]()  # type: ignore[operator]
    with torch.no_grad():
        expected = model(x)
        found = emitted(x)
    as_arrays = [(one["boxes"].numpy(), one["scores"].numpy(), one["labels"].numpy()) for one in found]
    assert exports.check_detections(as_arrays, expected, share=1.0) > 10


@pytest.mark.long
@pytest.mark.parametrize("predict", ["gfl(bins=3, share=false)", "tal(bins=4, conv=deep)"])
def test_a_program(predict: str, tmp_path: Path) -> None:
    model = built(predict)
    export_detector(model, tmp_path / "d.pt2", size=(64, 96))
    exports.check(exports.program_runner(tmp_path / "d.pt2"), model, exports.images(2, 64, 96))


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_parts_of_the_latency(predict: str) -> None:
    """The predictions' pieces have their layers, and the postprocessing of each kind can be timed."""
    decoder = nasdsl.loads(text_of(predict))
    graph = nasdsl.detector(decoder, "tiny", classes=3, seed=0).decoder.graph
    parts = list(parts_of(graph, "tiny", (64, 96), 3))
    convs = sum(len(part.piece.nodes) for part in parts if part.section == "predict" and part.piece is not None)
    assert convs >= len(graph.levels) * len(graph.head.predictions)
    (postprocess,) = (part for part in parts if part.section == "postprocess")
    probe = make_probe(postprocess)
    assert len(probe.runner("torch", 1)()) == 1
    probe.runner("onnxruntime", 1)()
    last = next(part for part in parts if part.section == "predict" and part.name.startswith("p3.bbox_reg"))
    make_probe(last).runner("onnxruntime", 1)()


@pytest.mark.parametrize(
    ("before", "after", "box"),
    [
        ("gfl(bins=4)", "tal(bins=4)", True),
        ("fcos(boxes=relu)", "atss(centerness=box)", True),
        ("fcos(boxes=exp)", "atss(centerness=box)", False),
        ("gfl(bins=4)", "gfl(bins=3)", False),
        ("gfl(bins=4, conv=deep)", "gfl(bins=4, conv=deep, share=false)", True),
        ("gfl(bins=4)", "gfl(bins=4, kernel=1)", False),
    ],
)
def test_weights_that_are_inherited(before: str, after: str, box: bool, tmp_path: Path) -> None:
    """Boxes inherit from a kind that measures them in the same way; shared predictions give theirs to every level."""
    origin = built(before)
    save_detector(origin, tmp_path / "model.pt")
    new = nasdsl.detector(nasdsl.loads(text_of(after)), "tiny", classes=3, seed=5, min_size=64, max_size=128)
    told = read_weights(tmp_path / "model.pt").inherit(new)
    part = next(part for part in told.parts if part.name == "box layer")
    assert (part.inherited == part.total) == box, str(told)
    assert (part.inherited > 0) == box
