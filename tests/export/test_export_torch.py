"""Programs (.pt2) and sources (.py) of whole detectors compute what the detectors compute, without nasdsl."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
import zipfile
from dataclasses import dataclass
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
    program_runner,
    randomized,
    small,
    zoo,
)
from lowest import exports_programs
from PIL import Image
from torch import nn

import nasdsl
from nasdsl.data import read_image
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.detection.detector import Detector
from nasdsl.detection.inference import for_inference
from nasdsl.detection.weights import save_detector
from nasdsl.export import ExportError, export_detector
from nasdsl.export.postprocess import all_candidates, select_detections
from nasdsl.export.program import DetectionProgram
from nasdsl.layers import Cost, CustomLayer, Feature, primitive

PREDICTIONS = pytest.mark.parametrize("predict", [FCOS, IMPROVED, RETINANET], ids=["fcos", "improved", "retinanet"])


def module_of(file: Path) -> Any:
    """The module of an exported source."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ------------------------------------------------------------------------------------------------ postprocessing


@PREDICTIONS
def test_the_batched_postprocessing(predict: str) -> None:
    """It is what programs contain, run without tracing; also more images than one, many classes, and few candidates."""
    for number, options in enumerate(({}, {"classes": 40}, {"nms": 0.1}, {"candidates": 5, "detections": 15})):
        model = small(predict, seed=number, **options)  # type: ignore[arg-type]  # options of several types

        def detections(x: torch.Tensor, model: Detector = model) -> list[Any]:
            size, method = (x.shape[2], x.shape[3]), model.method
            found = select_detections(level_candidates(model, x), size, method.candidates, method.nms, method.detections)
            return [v.numpy() for v in found]

        def candidates(x: torch.Tensor, model: Detector = model) -> list[Any]:
            return [v.numpy() for v in all_candidates(level_candidates(model, x), (x.shape[2], x.shape[3]))]

        for batch, height, width in ((1, 64, 96), (3, 50, 75), (2, 9, 5)):
            check(detections, model, images(batch, height, width), share=0.98)
        check_candidates(candidates, model, images(2, 64, 96))


# ------------------------------------------------------------------------------------------------ programs


def untraced(model: Detector, nms: bool = True) -> Any:
    """The runner of what is traced for a program, which takes seconds."""
    program = DetectionProgram(for_inference(model, graphs=False), native_deform=True, half=False, nms=nms)

    def run(x: torch.Tensor) -> list[Any]:
        with torch.no_grad():
            return [value.numpy() for value in program(x)]

    return run


def test_what_a_program_computes() -> None:
    model = small(RETINANET)
    check(untraced(model), model, images(2, 50, 75))
    check_candidates(untraced(model, nms=False), model, images(2, 50, 75))


def test_a_program_pads_as_the_detector_does() -> None:
    model = small(RETINANET, size_divisible=32, fixed_size=(50, 75))
    x = images(2, 50, 75)
    with torch.no_grad():
        expected = model(list(x))
    for boxes, scores, _, one in zip(*untraced(model)(x), expected, strict=True):
        np.testing.assert_allclose(scores[: len(one["scores"])], one["scores"], atol=1e-5)
        np.testing.assert_allclose(boxes[: len(one["boxes"])], one["boxes"], atol=1e-3)


@exports_programs
@pytest.mark.parametrize(
    ("size", "message"),
    [
        (
            None,
            "torch.export cannot trace the detector for any size of images; with a size (--size HxW) it may be possible: no",
        ),
        ((64, 96), "torch.export cannot trace the detector: no"),
    ],
)
def test_a_detector_that_torch_cannot_trace(
    size: tuple[int, int] | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise NotImplementedError("no\nsuch thing")

    monkeypatch.setattr("torch.export.export", refuse)
    with pytest.raises(ExportError) as caught:
        export_detector(small(), tmp_path / "d.pt2", size=size)
    assert str(caught.value) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long  # tracing takes seconds, and several times as long for any size
@pytest.mark.parametrize(
    ("predict", "options"),
    [
        (RETINANET, {"nms": False, "size": (64, 96)}),
        (FCOS, {}),
        (RETINANET, {}),
        (IMPROVED, {"deform": "grid_sample"}),
        (FCOS, {"nms": False}),
    ],
)
@exports_programs
def test_a_program(predict: str, options: dict[str, Any], tmp_path: Path) -> None:
    model = small(predict)
    export_detector(model, tmp_path / "d.pt2", **options)
    run = program_runner(tmp_path / "d.pt2")
    shapes = [(1, 64, 96), (3, 64, 96)] if "size" in options else [(1, 64, 96), (3, 50, 75), (2, 9, 5), (1, 200, 130)]
    for batch, height, width in shapes:
        x = images(batch, height, width)
        if options.get("nms", True):
            check(run, model, x, share=0.98)
        else:
            check_candidates(run, model, x)
    with zipfile.ZipFile(tmp_path / "d.pt2") as file:
        content = {name: file.read(name) for name in file.namelist()}
    properties = json.loads(next(value for name, value in content.items() if name.endswith("nasdsl.json")))
    assert json.loads(properties["classes"]) == list(model.classes)
    assert not any(str(Path(nasdsl.__file__).parent).encode() in value for value in content.values())
    has_operator = any(
        b"torchvision.deform_conv2d" in value or b"torchvision::deform_conv2d" in value for value in content.values()
    )
    assert has_operator == (options.get("deform") != "grid_sample")


@exports_programs
@pytest.mark.long
def test_a_program_in_half_precision(tmp_path: Path) -> None:
    model = small(FCOS)
    export_detector(model, tmp_path / "d.pt2", precision="float16", size=(64, 96))
    check(program_runner(tmp_path / "d.pt2"), model, images(2, 64, 96), tolerance=1.0, share=0.85)


@exports_programs
@pytest.mark.parametrize("threshold", [0.99, 0.05], ids=["none", "some"])
def test_a_program_of_a_fixed_size_with_and_without_detections(threshold: float, tmp_path: Path) -> None:
    """The number of candidates is known only when it runs: the trace's own must not become a condition."""
    text = """decoder one { input c5; fpn(width=32, norm=none) { output p5 = conv_1x1(c5) }
    head(width=32, norm=none) { conv_1x1 }; predict fcos(centerness=cls) }"""
    model = randomized(
        nasdsl.detector(nasdsl.loads(text), "tiny", classes=2, min_size=64, max_size=128, score_threshold=threshold)
    )
    export_detector(model, tmp_path / "d.pt2", size=(64, 64))
    run = program_runner(tmp_path / "d.pt2")
    for batch in (1, 3):
        found = check(run, model, images(batch, 64, 64))
        assert (found > 0) == (threshold < 0.5)


@exports_programs
@pytest.mark.long
def test_a_program_of_a_custom_backbone(tmp_path: Path) -> None:
    class Body(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stages = nn.ModuleList(nn.Conv2d(a, 8, 3, 2, 1) for a in (3, 8, 8, 8, 8))

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            features = []
            for stage in self.stages:
                x = nn.functional.softplus(stage(x))
                features.append(x)
            return features[2:]

    model = small(FCOS, FeatureExtractor(Body(), ("c3", "c4", "c5")))
    export_detector(model, tmp_path / "d.pt2")
    check(program_runner(tmp_path / "d.pt2"), model, images(2, 64, 90))
    with pytest.raises(ExportError, match=r"the backbone Body has no source .* as \.onnx or \.pt2"):
        export_detector(model, tmp_path / "d.py")


# ------------------------------------------------------------------------------------------------ sources


def check_source(model: Detector, folder: Path, **options: Any) -> Any:
    """Check that an exported source detects what the detector does, in a batch and in an image of another size."""
    export_detector(model, folder / "exported.py", **options)
    module = module_of(folder / "exported.py")
    loaded = module.load()
    with torch.no_grad():
        for x in (images(2, 64, 96), images(1, 33, 50)):
            for found, expected in zip(loaded(x), model(x), strict=True):
                assert found["labels"].tolist() == expected["labels"].tolist()
                torch.testing.assert_close(found["scores"], expected["scores"], rtol=0, atol=1e-5)
                torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=0, atol=1e-3)
    image = (images(1, 150, 70)[0] * 255).to(torch.uint8)
    found, expected = loaded.detect(image), model.detect(image)
    torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=0, atol=1e-3)
    return module


@PREDICTIONS
def test_a_source(predict: str, tmp_path: Path) -> None:
    module = check_source(small(predict, classes=("a", "bé"), category_ids=(5, 2)), tmp_path)
    assert (module.CLASSES, module.CATEGORY_IDS) == (("a", "bé"), (5, 2))
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in ast.walk(_tree(tmp_path))
             if isinstance(node, ast.Import | ast.ImportFrom)}  # fmt: skip
    assert {str(name).split(".")[0] for name in names} <= {
        "math",
        "sys",
        "pathlib",
        "typing",
        "collections",
        "torch",
        "torchvision",
        "PIL",
    }


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("mobilenet_v2", {"fixed_size": (48, 80), "centerness_in_score": False}),
        pytest.param("resnet50", {"norm": "frozen"}, marks=pytest.mark.long),
    ],
)
def test_sources_of_backbones(backbone: str, options: dict[str, Any], tmp_path: Path) -> None:
    check_source(small(FCOS, backbone, **options), tmp_path, deform="grid_sample")


@pytest.mark.long
def test_sources_of_the_zoo(zoo_path: Path, tmp_path: Path) -> None:
    """Computed in double precision: float32 rounds the maps to 1e-5 and more. Weights and norms were folded in float32."""
    model = zoo(zoo_path)
    export_detector(model, tmp_path / "exported.py")
    x = images(2, 64, 96).double()
    with torch.no_grad():
        for found, expected in zip(module_of(tmp_path / "exported.py").load().double()(x), model.double()(x), strict=True):
            torch.testing.assert_close(found["scores"], expected["scores"], rtol=0, atol=1e-5)


def test_a_source_uses_what_it_imports(tmp_path: Path) -> None:
    for options in ({}, {"nms": False}, {"precision": "float16"}):
        export_detector(small(RETINANET), tmp_path / "exported.py", **options)  # type: ignore[arg-type]  # options of several types
        command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F,E9", str(tmp_path / "exported.py")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_source_without_suppression_and_in_half_precision(tmp_path: Path) -> None:
    model, x = small(FCOS), images(2, 64, 96)
    export_detector(model, tmp_path / "exported.py", nms=False)
    with torch.no_grad():
        found = module_of(tmp_path / "exported.py").load()(x)
    check_candidates(lambda _: [np.stack([one[k].numpy() for one in found]) for k in ("boxes", "scores")], model, x)
    whole = (tmp_path / "exported.pt").stat().st_size
    export_detector(model, tmp_path / "exported.py", precision="float16", size=(64, 96))
    assert (tmp_path / "exported.pt").stat().st_size < 0.7 * whole
    module = module_of(tmp_path / "exported.py")
    assert module.FIXED_SIZE == (64, 96)
    with torch.no_grad():
        found, expected = module.load()(x), model(x)
    near = [np.abs(a["scores"].numpy() - b["scores"].numpy()).max() for a, b in zip(found, expected, strict=True)]
    assert 0 < max(near) < 0.02


def test_weights_of_a_source_do_not_overwrite_a_detector(tmp_path: Path) -> None:
    """``nasdsl export RUN -o RUN/model.py`` would write its weights over the run's."""
    model = small()
    save_detector(model, tmp_path / "model.pt")
    with pytest.raises(ExportError, match="would overwrite"):
        export_detector(model, tmp_path / "model.py")
    assert nasdsl.load_detector(tmp_path / "model.pt").classes == model.classes


def test_weights_of_a_source_replace_what_is_no_detector(tmp_path: Path) -> None:
    """As a file that was not written to its end."""
    (tmp_path / "d.pt").write_bytes(b"torn")
    export_detector(small(), tmp_path / "d.py")
    assert (tmp_path / "d.pt").read_bytes() != b"torn"


def test_a_source_that_cannot_be_written_leaves_earlier_weights(tmp_path: Path) -> None:
    export_detector(small(seed=0), tmp_path / "d.py")
    before = {name: (tmp_path / name).read_bytes() for name in ("d.py", "d.pt")}
    (tmp_path / ".d.py.unfinished").mkdir()  # stands for a disk that fails
    with pytest.raises(OSError, match=r"directory: .*/d\.py"):
        export_detector(small(seed=1), tmp_path / "d.py")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_a_custom_layer_without_a_source(tmp_path: Path) -> None:
    @primitive("sourceless")
    @dataclass(frozen=True)
    class Sourceless(CustomLayer):
        def infer(self, inputs: Any) -> Feature:
            result: Feature = inputs[0]
            return result

        def cost(self, inputs: Any, out: Feature, area: int) -> Cost:
            return Cost(0, 0, 0)

        def module(self, inputs: Any, out: Feature) -> nn.Module:
            return nn.Identity()

    text = (
        "decoder d { input c3 fpn(width=32) { output p3 = sourceless(c3) } head(width=32) { conv_3x3 }"
        " predict fcos(centerness=cls) }"
    )
    model = nasdsl.detector(nasdsl.loads(text), "tiny", classes=2)
    with pytest.raises(ExportError, match="sourceless"):
        export_detector(model, tmp_path / "d.py")
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ without nasdsl

ALONE = """
import sys
sys.modules["nasdsl"] = None  # importing it fails
import runpy
import torch, torchvision
x = torch.load("x.pt", weights_only=True)
outputs = []
with torch.no_grad():
    if "pt2" in sys.argv:
        outputs = torch.export.load("d.pt2").module()(x)
    sys.path.insert(0, ".")
    import d
    found = d.load()(x)
sys.argv = ["d.py", "a.png"]
runpy.run_path("d.py", run_name="__main__")
torch.save(([o for o in outputs], [[one[k] for k in ("boxes", "scores", "labels")] for one in found]), "out.pt")
"""


@pytest.mark.long  # in a new process; test_export_predictions.py runs sources in this one
@pytest.mark.parametrize("form", ["py", "pt2"])
def test_files_need_no_nasdsl(form: str, tmp_path: Path) -> None:
    text = (
        "decoder d { input c3 fpn(width=32) { output p3 = dconv_3x3(c3) } head(width=32) { conv_3x3 }"
        " predict fcos(centerness=cls) }"
    )
    model = randomized(nasdsl.detector(nasdsl.loads(text), "tiny", classes=2, min_size=64, max_size=128))
    x = images(2, 50, 75)
    if form == "pt2":
        export_detector(model, tmp_path / "d.pt2")
    export_detector(model, tmp_path / "d.py")
    torch.save(x, tmp_path / "x.pt")
    picture = Image.fromarray((images(1, 80, 60)[0] * 255).to(torch.uint8).permute(1, 2, 0).numpy())
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    picture.save(tmp_path / "a.png", exif=exif)
    done = subprocess.run([sys.executable, "-c", ALONE, form], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    program, source = torch.load(tmp_path / "out.pt", weights_only=True)
    if form == "pt2":
        check(lambda _: [value.numpy() for value in program], model, x)
    with torch.no_grad():
        for (boxes, scores, _), expected in zip(source, model(x), strict=True):
            torch.testing.assert_close(boxes, expected["boxes"], rtol=0, atol=1e-3)
            torch.testing.assert_close(scores, expected["scores"], rtol=0, atol=1e-5)
    # As a program, the source prints the boxes of an image file, upright.
    expected = model.detect(read_image(tmp_path / "a.png"))
    lines = done.stdout.splitlines()
    assert lines[0] == "a.png"
    assert len(lines) == 1 + len(expected["scores"])
    x1, _, x2, _ = expected["boxes"][0].tolist()
    assert lines[1].startswith(f"  class {expected['labels'][0]} {expected['scores'][0]:.3f}  x {x1:.1f} to {x2:.1f}")


def _tree(folder: Path) -> ast.Module:
    return ast.parse((folder / "exported.py").read_text())
