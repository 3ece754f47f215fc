"""ONNX files of whole detectors compute what the detectors compute, and say what is in them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import (
    FCOS,
    IMPROVED,
    RETINANET,
    check,
    check_candidates,
    images,
    level_candidates,
    onnx_runner,
    small,
    unique,
    zoo,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from lowest import runs_deform_conv
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d
from zoo_files import ZOO

from nasdsl.backends.export import MissingExtra
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.detection.detector import Detector
from nasdsl.export import ExportError, export_detector

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PREDICTIONS = pytest.mark.parametrize(
    "predict", [FCOS, pytest.param(IMPROVED, marks=pytest.mark.long), RETINANET], ids=["fcos", "improved", "retinanet"]
)


def exported(model: Detector, folder: Path, **options: Any) -> Any:
    """The runner of an exported file, after the checks that every file has to pass."""
    file = folder / "detector.onnx"
    export_detector(model, file, **options)
    program = onnx.load(file)
    onnx.checker.check_model(program, full_check=True)
    onnx.shape_inference.infer_shapes(program, check_type=True, strict_mode=True, data_prop=True)
    assert unique([node.name for node in program.graph.node])
    sections = {node.name.split("/")[0] for node in program.graph.node}
    towers = [*model.decoder.head.cls.parameters(), *model.decoder.head.box.parameters()]
    expected = {"preprocess", "backbone", "fpn", "head", "predict", "postprocess"}
    assert sections == (expected if towers else expected - {"head"})
    return onnx_runner(file)


@runs_deform_conv
def test_the_paper(tmp_path: Path) -> None:
    model = zoo(next(path for path in ZOO if path.stem == "nas_fcos"))
    check(exported(model, tmp_path, deform="native"), model, images(2, 75, 109))
    check_candidates(exported(model, tmp_path, nms=False), model, images(2, 75, 109))


@pytest.mark.long
@pytest.mark.parametrize("deform", ["native", "grid_sample"])
def test_the_whole_zoo(zoo_path: Path, deform: str, tmp_path: Path) -> None:
    model = zoo(zoo_path)
    for nms in (True, False):
        run = exported(model, tmp_path, deform=deform, nms=nms)
        for batch, height, width in ((1, 200, 333), (3, 75, 109)):
            (check if nms else check_candidates)(run, model, images(batch, height, width))


@PREDICTIONS
def test_any_batch_and_size(predict: str, tmp_path: Path) -> None:
    """Also images smaller than a cell of the coarsest level."""
    model = small(predict)
    run = exported(model, tmp_path)
    all_candidates = exported(model, tmp_path, nms=False)

    @settings(max_examples=10, deadline=None)
    @given(st.integers(1, 3), st.integers(1, 150), st.integers(1, 150), st.integers(0, 1000))
    def computes_the_same(batch: int, height: int, width: int, seed: int) -> None:
        x = images(batch, height, width, seed)
        check(run, model, x, share=0.98)
        check_candidates(all_candidates, model, x)

    computes_the_same()


OPTIONS: list[Any] = [
    pytest.param({"detections": 7}, marks=pytest.mark.long),
    {"candidates": 5},  # fewer candidates in all than detections
    {"nms": 0.0},
    pytest.param({"nms": 1.5}, marks=pytest.mark.long),
    pytest.param({"score_threshold": 0.3}, marks=pytest.mark.long),
    {"score_threshold": 1.0},  # no detections
    pytest.param({"classes": 1}, marks=pytest.mark.long),
    {"centerness_in_score": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(map(str, *options.items())))
def test_options_of_the_method(options: dict[str, Any], tmp_path: Path) -> None:
    model = small(FCOS, **options)
    run, x = exported(model, tmp_path), images(2, 64, 96)
    if "candidates" in options:
        boxes, scores, labels = run(x)
        assert boxes.shape == (2, 3 * 5, 4)
        padded = [np.pad(v, [(0, 0), (0, 85), (0, 0)][: v.ndim]) for v in (boxes, scores, labels)]
        count = check(lambda x: padded, model, x, share=0.98)
    else:
        count = check(run, model, x, share=0.98)
    assert (count == 0) == (options == {"score_threshold": 1.0})


def test_a_fixed_size(tmp_path: Path) -> None:
    """Small levels then keep no more candidates than they have."""
    model = small(RETINANET)
    run = exported(model, tmp_path, size=(64, 96))
    check(run, model, images(3, 64, 96))
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in _values(tmp_path)}
    assert shapes["images"] == ["batch", 3, 64, 96]
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run(images(1, 64, 104))
    run = exported(model, tmp_path, size=(64, 96), nms=False)
    check_candidates(run, model, images(2, 64, 96))
    assert [d.dim_value for d in _values(tmp_path)[1].type.tensor_type.shape.dim][1] == 9 * (8 * 12 + 4 * 6 + 2 * 3)


def test_the_printed_outputs_are_those_of_the_file(tmp_path: Path) -> None:
    """An image of a small fixed size has fewer candidates than the detector's `detections`."""
    model = small(FCOS)
    for size, count in ((None, 100), ((16, 24), 3 * (2 * 3 + 1 * 2 + 1))):
        written = export_detector(model, tmp_path / "detector.onnx", size=size)
        shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim][1:] for v in _values(tmp_path)[1:]]
        assert shapes == [[count, 4], [count], [count]]
        assert written.outputs == (
            f"boxes float32 [N, {count}, 4], xyxy in pixels of the input",
            f"scores float32 [N, {count}], 0 where there is no object",
            f"labels int64 [N, {count}], 0 to 2",
        )


def test_a_size_that_the_detector_cannot_process(tmp_path: Path) -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Conv2d(3 * 8 * 8, 8, 1)

        def forward(self, x: Tensor) -> list[Tensor]:
            c3 = self.embed(nn.functional.pixel_unshuffle(x, 8))
            return [c3, nn.functional.max_pool2d(c3, 2), nn.functional.max_pool2d(c3, 4)]

    model = small(FCOS, FeatureExtractor(Patches(), ("c3", "c4", "c5")))
    for name in ("d.onnx", "d.pt2", "d.py"):
        with pytest.raises(ExportError, match=r"cannot process images of 60x96: .*; try a multiple of 32"):
            export_detector(model, tmp_path / name, size=(60, 96))
    assert list(tmp_path.iterdir()) == []


def test_padding_is_that_of_the_detector(tmp_path: Path) -> None:
    """A detector pads images in lists to multiples of `size_divisible`, and clips boxes to the image without padding."""
    model = small(FCOS, size_divisible=32, fixed_size=(50, 75))
    run = exported(model, tmp_path)
    x = images(2, 50, 75)
    boxes, scores, _ = run(x)
    with torch.no_grad():
        expected = model(list(x))
    for box, score, one in zip(boxes, scores, expected, strict=True):
        count = len(one["scores"])
        np.testing.assert_allclose(score[:count], one["scores"], atol=1e-5)
        np.testing.assert_allclose(box[:count], one["boxes"], atol=1e-3)
    assert boxes[..., 2].max() <= 75


@runs_deform_conv
@pytest.mark.parametrize("predict", [FCOS, pytest.param(RETINANET, marks=pytest.mark.long)], ids=["fcos", "retinanet"])
def test_half_precision(predict: str, tmp_path: Path) -> None:
    """Weights and maps are half as large; boxes are near, as they are predicted in float32."""
    model = small(predict)
    exported(model, tmp_path)
    whole = (tmp_path / "detector.onnx").stat().st_size
    run = exported(model, tmp_path, precision="float16", nms=False)
    assert (tmp_path / "detector.onnx").stat().st_size < 0.65 * whole
    x = images(2, 64, 96)
    boxes, scores = run(x)
    wanted = (
        torch.cat([level.boxes for level in level_candidates(model, x)], dim=1)
        .clamp(min=0)
        .minimum(torch.tensor([96, 64, 96, 64]))
        .numpy()
    )
    assert boxes.dtype == scores.dtype == np.float32
    assert np.abs(boxes - wanted).max() < 1.5
    assert np.abs(boxes - wanted).mean() < 0.1
    for deform in ("native", "grid_sample"):
        check(exported(model, tmp_path, precision="float16", deform=deform), model, x, tolerance=1.0, share=0.85)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("mobilenet_v2", "train"),
        *(pytest.param(n, "frozen", marks=pytest.mark.long) for n in ("mobilenet_v2", "resnet50_v1.5")),
    ],
)
def test_backbones(name: str, norm: str, tmp_path: Path) -> None:
    model = small(FCOS, name, norm=norm)
    check(exported(model, tmp_path), model, images(1, 64, 90))
    names = {node.name for node in onnx.load(tmp_path / "detector.onnx").graph.node}
    expected = {"resnet50_v1.5": "backbone/layer2.0.downsample.0", "mobilenet_v2": "backbone/features.2.conv.0.0"}[name]
    assert expected in names
    assert not any("BatchNorm" in node.op_type for node in onnx.load(tmp_path / "detector.onnx").graph.node)


class _Custom(nn.Module):
    """A network with what the built-in ones lack: a norm in front, a squeeze, a concatenation, a dict of features."""

    def __init__(self, odd: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.odd = odd
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in ((3, 8), (8, 8), (16, 8), (8, 8), (8, 8)))
        self.gate, self.pool, self.act = nn.Conv2d(8, 8, 1), nn.AdaptiveAvgPool2d(1), nn.SiLU(inplace=True)
        self.ending = nn.Sigmoid()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features, x = {}, self.norm(x)
        for level, stage in enumerate(self.stages, 1):
            x = self.act(stage(x))
            x = x * self.ending(self.gate(self.pool(x)))
            if level == 2:
                x = torch.cat(tensors=[torch.cat([x], 1), x + x], dim=1)
            if self.odd:  # no rule of ours
                x = torch.nn.functional.softplus(x) + x.mean(dim=1, keepdim=True)
            features[f"c{level}"] = x
        return features


@pytest.mark.parametrize("odd", [False, pytest.param(True, marks=pytest.mark.long)], ids=["common", "by torch"])
def test_custom_backbones(odd: bool, tmp_path: Path) -> None:
    """Common layers are written by module; others are torch's to export."""
    if odd:
        pytest.importorskip("onnxscript")
    model = small(RETINANET, FeatureExtractor(_Custom(odd), ("c3", "c4", "c5")))
    run = exported(model, tmp_path)
    check(run, model, images(2, 64, 90))
    check(run, model, images(1, 128, 65))
    content = (tmp_path / "detector.onnx").read_bytes()
    assert str(Path(torch.__file__).parents[1]).encode() not in content
    assert str(Path(__file__).parent).encode() not in content
    if odd:
        check(exported(model, tmp_path, precision="float16"), model, images(1, 64, 90), tolerance=1.0, share=0.85)
        check(exported(model, tmp_path, size=(64, 96)), model, images(2, 64, 96))


def test_a_custom_backbone_needs_onnxscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match=r"_Custom.*pip install 'nasdsl\[onnx\]'"):
        export_detector(small(FCOS, FeatureExtractor(_Custom(True), ("c3", "c4", "c5"))), tmp_path / "detector.onnx")
    assert list(tmp_path.iterdir()) == []


class _Frozen(nn.Module):
    """Frozen norms and pooling; and layers whose results lead to no feature."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 2, 1), FrozenBatchNorm2d(8)
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(self.norm, name).copy_(torch.rand(8, generator=torch.Generator().manual_seed(0)) + 0.5)
        self.pools = nn.ModuleList([nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((3, 1), (2, 2), (1, 0)), *[nn.MaxPool2d(1, 2)] * 2])
        self.unread = nn.Softplus()

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.norm(self.first(x))]
        for pool in self.pools:
            features.append(pool(features[-1]))
        self.unread(self.unread(x))
        return features[2:]


def test_frozen_norms_and_pooling_are_written_by_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    model = small(RETINANET, FeatureExtractor(_Frozen(), ("c3", "c4", "c5")))
    check(exported(model, tmp_path), model, images(2, 64, 90))


class _Other(nn.Module):
    """Networks that have one thing for which there is no rule."""

    def __init__(self, thing: str) -> None:
        super().__init__()
        self.thing = thing
        self.stages = nn.ModuleList(nn.Conv2d(a, 8, 3, 2, 1) for a in (3, 8, 8, 8, 8))
        self.odd, self.halved = nn.Softplus(), nn.Conv2d(8, 8, 3, (2, 1), 1)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor, factor: float = 1.0) -> Any:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        match self.thing:
            case "a condition on values":
                x = x if x.sum() > 0 else -x
            case "another argument":
                x = x + factor
            case "a layer without a rule":
                x = self.odd(x)
            case "a layer by name":
                x = self.stages[4](input=features[3])
            case "a method":
                x = x.abs()
            case "a parameter":
                x = x * self.scale
            case "another function":
                x = torch.abs(x)
            case "a concatenation along the height":
                x = torch.cat([self.halved(x), self.halved(x)], 2)
            case "a number":
                x = x + 1.5
        return {"c3": features[2], "c4": features[3], "c5": x}


@pytest.mark.parametrize(
    "thing",
    [
        "a condition on values", "another argument", "a layer without a rule", "a layer by name", "a method", "a parameter",
        "another function", "a concatenation along the height", "a number",
    ],
)  # fmt: skip
def test_what_has_no_rule_is_left_to_torchs_exporter(thing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is written."""
    from nasdsl.backends.onnx.writer import Writer
    from nasdsl.export.onnx.backbone import write_backbone

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    writer = Writer()
    with pytest.raises(MissingExtra, match=r"the backbone \(_Other\) has operations that only torch's exporter can write"):
        write_backbone(writer, FeatureExtractor(_Other(thing), ("c3", "c4", "c5")).eval(), "images", None, False)
    assert writer.nodes == []


def test_an_activation_in_place_on_a_shared_map_is_not_lost(tmp_path: Path) -> None:
    """ONNX has no operations in place: that network is torch's to export, which knows them."""

    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList(nn.Conv2d(a, 8, 3, 2, 1) for a in (3, 8, 8, 8, 8))
            self.act = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> list[Tensor]:
            features = []
            for stage in self.stages:
                x = stage(x)
                self.act(x)
                features.append(x)
            return features[2:]

    from nasdsl.export.onnx.backbone import _traced

    assert _traced(InPlace()) is None


def test_metadata_and_names(tmp_path: Path) -> None:
    model = small(FCOS, classes=("a", "bé", "c"), category_ids=(3, 1, 7), fixed_size=(64, 96))
    export_detector(model, tmp_path / "detector.onnx")
    loaded = onnx.load(tmp_path / "detector.onnx")
    facts = {p.key: p.value for p in loaded.metadata_props}
    assert json.loads(facts["classes"]) == ["a", "bé", "c"]
    assert json.loads(facts["category_ids"]) == [3, 1, 7]
    assert json.loads(facts["size"]) == [64, 96]
    assert json.loads(facts["resize"])["fixed_size"] == [64, 96]
    assert len(facts["digest"]) == 64
    nodes = {node.name: node for node in loaded.graph.node}
    assert nodes["fpn/l3.deform_conv"].doc_string == "line 4: dconv_3x3(c3)"
    assert nodes["head/p4.cls.0.conv"].op_type == "Conv"
    assert {"predict/p5.bbox_reg", "postprocess/boxes", "backbone/c3.0", "preprocess/normalize"} <= set(nodes)
    weights = {w.name for w in loaded.graph.initializer if not w.name.startswith("constant.")}
    assert {"decoder.fpn.l3.deform_conv.weight", "backbone.pixel_mean", "backbone.body.c3.0.weight"} <= weights
    first = (tmp_path / "detector.onnx").read_bytes()
    export_detector(model, tmp_path / "detector.onnx")
    assert (tmp_path / "detector.onnx").read_bytes() == first


def _values(folder: Path) -> list[Any]:
    graph = onnx.load(folder / "detector.onnx").graph
    return [*graph.input, *graph.output]


@pytest.mark.long
@pytest.mark.parametrize("predict", [FCOS, RETINANET], ids=["fcos", "retinanet"])
def test_openvino(predict: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from nasdsl.latency.openvino_runtime import core

    model = small(predict)
    for options in ({}, {"size": (64, 96)}):
        export_detector(model, tmp_path / "detector.onnx", **options)  # type: ignore[arg-type]  # options of several types
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        compiled = core().compile_model(core().read_model(tmp_path / "detector.onnx"), "CPU", settings)
        check(lambda x, c=compiled: [c(x.numpy())[o] for o in c.outputs], model, images(2, 64, 96))  # type: ignore[misc]  # a lambda's default


def test_errors(tmp_path: Path) -> None:
    model = small()
    for name, options, message in (
        ("d.tflite", {}, r"ends in \.onnx, \.pt2 or \.py"),
        ("no/d.onnx", {}, "there is no folder"),
        ("d.onnx", {"deform": "dcn"}, "native or grid_sample"),
        ("d.onnx", {"precision": "int8"}, "float32 or float16"),
        ("d.onnx", {"size": (0, 5)}, "1 or more"),
        ("d-1.py", {}, "a Python module needs a name"),
        ("class.py", {}, "a Python module needs a name"),
        ("torch.py", {}, "would hide the module torch"),
    ):
        with pytest.raises(ExportError, match=message):
            export_detector(model, tmp_path / name, **options)  # type: ignore[arg-type]  # wrong on purpose
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["d.onnx", "d.py"])
def test_a_full_disk_leaves_nothing(name: str, tmp_path: Path) -> None:
    """A limit on the size of files stands for it."""
    resource = pytest.importorskip("resource", reason="limits of POSIX")
    model, limits = small(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"File too large: '.*d\.(onnx|pt)'"):
            export_detector(model, tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
