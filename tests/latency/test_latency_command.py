"""`nasdsl latency`: what it prints for files of every kind, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
import torch
from exported import FOUND, decoder_program, onnx_detector, onnx_pixels, program
from onnx import TensorProto
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "cli"))

from in_process import invoke, refused
from small_runs import untrained_detector

from nasdsl.cli.latency import latency
from nasdsl.cli.latency_output import warn_disturbed, warn_unsteady
from nasdsl.detection.weights import save_detector
from nasdsl.export import metadata
from nasdsl.latency import Latency, Protocol
from nasdsl.latency.measuring import WholeTime
from nasdsl.latency.session import LatencyError, NodeTime, input_shape, make_profile, section_of
from nasdsl.latency.torch_runtime import DetectorSession, ProgramSession, size_of
from nasdsl.machine import cpu_name, machine
from nasdsl.semantics.elaborate import RUNTIMES

QUICK = Protocol(round_seconds=0.0, warmup_seconds=0.0, rounds=3)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds of three runs."""
    monkeypatch.setattr("nasdsl.latency.Protocol", lambda **options: QUICK)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_detector(untrained_detector(5), folder / "model.pt")
    return folder


def measured(*arguments: str | Path) -> dict[str, Any]:
    result = invoke("latency", *arguments, "--threads", "1", "--format", "json")
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    assert 0 < value["milliseconds"]["lower_quartile"] <= value["milliseconds"]["upper_quartile"]
    return value


def test_a_run_with_its_sections_and_modules(run: Path) -> None:
    before = torch.get_num_threads()
    value = measured(run)
    assert torch.get_num_threads() == before
    assert value["sha256"] == hashlib.sha256((run / "model.pt").read_bytes()).hexdigest()
    assert (value["runtime"]["name"], value["threads"], value["size"], value["decoder"]) == ("torch", 1, [64, 86], "retinanet")
    assert list(value["sections"]) == ["normalize", "backbone", "fpn", "head", "postprocess"]
    assert value["detections"] == 20
    names = [node["name"] for node in value["nodes"]]
    assert {"head.cls_logits", "fpn.p6.conv"} <= set(names)
    times = [node["milliseconds"] for node in value["nodes"]]
    assert times == sorted(times, reverse=True)
    of_head = sum(node["milliseconds"] for node in value["nodes"] if node["name"].startswith("head."))
    assert of_head < 4 * value["sections"]["head"], "the modules of a section take about as long as it"


def test_size_batch_and_image(run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "photo.png"
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(picture)
    value = measured(run / "model.pt", "--size", "96x64", "--batch", "2", "--image", picture)
    assert (value["size"], value["milliseconds"]["batch"], value["image"]) == ([96, 64], 2, str(picture))


def test_the_precision_is_noted(tmp_path: Path) -> None:
    """With few convolutions, because CPUs without bfloat16 take long for each."""
    text = "decoder d { input c4 fpn(width=32, norm=bn) { output p4 = c4 } head(width=32, norm=bn) { conv_1x1 } predict fcos }"
    (tmp_path / "small.nas").write_text(text)
    value = measured(tmp_path / "small.nas", "--backbone", "tiny", "--precision", "bfloat16", "--no-graphs", "--size", "32x43")
    assert value["notes"] == ["random weights", "bfloat16"]
    file = onnx_detector(tmp_path / "detector.onnx")
    assert "has a precision of its own" in refused("latency", file, "--precision", "float16")


def test_the_text_form_names_what_was_timed(run: Path) -> None:
    result = invoke("latency", run, "--threads", "1", "--size", "64x86")
    assert result.exit_code == 0
    for part in ("retinanet, digest ", "sha256 ", " ms for an image (quartiles ", "1 thread; batch of 1, 64x86", "backbone "):
        assert part in result.stdout


def test_an_onnx_file_in_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = onnx_detector(tmp_path / "detector.onnx")
    value = measured(file)
    assert (value["runtime"]["name"], value["size"], value["digest"]) == ("onnxruntime", [48, 64], "0123456789abcdef")
    assert value["detections"] == FOUND
    assert {"backbone", "head", "postprocess"} <= set(value["sections"])
    assert {"backbone.conv", "head.p3.conv"} <= {node["name"] for node in value["nodes"]}
    assert measured(file, "--size", "32x40", "--batch", "3")["size"] == [32, 40]


def test_a_fixed_onnx_file_in_half_precision(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = onnx_detector(tmp_path / "half.onnx", size=(48, 64), dtype=TensorProto.FLOAT16)
    assert measured(file)["detections"] == FOUND
    assert "takes images of 48x64 only, not of 40x40" in refused("latency", file, "--size", "40x40")


def test_an_onnx_file_in_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    value = measured(onnx_detector(tmp_path / "detector.onnx"), "--runtime", "openvino")
    assert (value["runtime"]["name"], value["size"], value["digest"]) == ("openvino", [48, 64], "0123456789abcdef")
    assert value["detections"] == FOUND
    assert {"backbone", "head", "postprocess"} <= set(value["sections"])


def test_a_program_of_torch_export(tmp_path: Path) -> None:
    value = measured(program(tmp_path / "detector.pt2"), "--batch", "2")
    assert (value["runtime"]["name"], value["size"], value["detections"]) == ("torch", [48, 64], FOUND)
    assert value["nodes"] is None


def test_a_decoder_at_random_weights() -> None:
    value = measured("zoo:fcos", "--backbone", "tiny", "--width", "32", "--size", "64x64", "--classes", "3")
    assert (value["notes"], value["detections"], value["sha256"]) == (["random weights"], 0, None)


def test_a_decoder_in_another_runtime() -> None:
    """It is exported at random weights."""
    pytest.importorskip("onnxruntime")
    options = ("--backbone", "tiny", "--size", "64x96", "--classes", "3", "--width", "32", "--runtime", "onnxruntime")
    value = measured("zoo:fcos", *options)
    assert (value["runtime"]["name"], value["size"], value["notes"]) == ("onnxruntime", [64, 96], ["random weights"])
    assert {"backbone", "fpn", "head", "predict", "postprocess"} <= set(value["sections"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["README.md"], "expected a detector (.onnx or .pt2), the folder of a training or its model.pt, or a .nas file"),
        (["nothing.onnx"], "no file nothing.onnx"),
        (["tests"], "tests has no model.pt"),
        (["zoo:fcos"], "give one by --backbone"),
        (["x.onnx", "--backbone", "resnet50"], "--backbone is for .nas files"),
        (["x.onnx", "--classes", "3"], "--classes is for .nas files and zoo:NAME; x.onnx has its own classes"),
        (["zoo:fcos", "--backbone", "tiny", "--predict", "--precision", "bfloat16"], "--precision is for what is measured"),
        (["zoo:fcos", "--backbone", "tiny", "--runtime", "openvino", "--no-graphs"], "--no-graphs is for torch, not openvino"),
    ],
)
def test_what_is_refused(arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert message in refused("latency", *arguments)


def test_runtimes_that_do_not_fit_the_file(run: Path, tmp_path: Path) -> None:
    assert "only .onnx files; export it by `nasdsl export RUN" in refused("latency", run, "--runtime", "onnxruntime")
    assert "torch does not run" in refused("latency", onnx_detector(tmp_path / "a.onnx"), "--runtime", "torch")


def test_a_program_runs_on_its_own_device(tmp_path: Path) -> None:
    (tmp_path / "detector.pt2").touch()
    message = "runs on the device for which it was exported; leave --device out"
    assert message in refused("latency", tmp_path / "detector.pt2", "--device", "cpu")


RUNTIME = pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])


@RUNTIME
def test_images_of_another_type_are_refused(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    file = onnx_pixels(tmp_path / "bytes.onnx", TensorProto.UINT8)
    kind = {"onnxruntime": "tensor(uint8); expected tensor(float)", "openvino": "uint8; expected float32"}[runtime]
    assert kind in refused("latency", file, "--runtime", runtime, "--size", "48x64")


@RUNTIME
def test_a_size_that_a_file_cannot_compute_is_the_runtimes_to_name(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip(runtime)
    file = onnx_pixels(tmp_path / "pixels.onnx")
    assert measured(file, "--runtime", runtime, "--size", "48x64")["digest"] is None
    said = refused("latency", file, "--runtime", runtime, "--size", "32x40")
    assert {"onnxruntime": "cannot run pixels.onnx: ", "openvino": f"cannot compile {file}: "}[runtime] in said
    assert len(said.splitlines()) == 1


def test_a_file_of_which_a_runtime_executes_nothing_has_no_table_of_times(tmp_path: Path) -> None:
    """A change of shape alone costs OpenVINO no node."""
    pytest.importorskip("openvino")
    file = onnx_pixels(tmp_path / "pixels.onnx")
    result = invoke("latency", file, "--runtime", "openvino", "--size", "48x64", "--threads", "1")
    assert result.exit_code == 0
    assert " ms for an image (quartiles " in result.stdout
    assert "where the time of a run goes" not in result.stdout


@pytest.mark.parametrize(
    ("runtime", "device", "message"),
    [
        ("onnxruntime", "mps", "onnxruntime runs on cpu or cuda here, not on 'mps'"),
        (
            "onnxruntime",
            "cuda",
            "this onnxruntime has no CUDA; it has CPUExecutionProvider (onnxruntime-gpu is another package)",
        ),
        ("openvino", "cuda", "openvino is timed on the cpu, not on 'cuda'"),
    ],
)
def test_devices_that_a_runtime_lacks(
    runtime: str, device: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip(runtime)
    if runtime == "onnxruntime":
        monkeypatch.setattr(module, "get_available_providers", lambda: ["CPUExecutionProvider"])
    file = onnx_detector(tmp_path / "detector.onnx")
    assert message in refused("latency", file, "--runtime", runtime, "--device", device)


def test_a_broken_file_in_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    said = refused("latency", tmp_path / "broken.onnx", "--runtime", "openvino")
    assert "openvino cannot read" in said
    assert "Exception from" not in said


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_broken_files(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / f"broken{suffix}").write_bytes(b"no model")
    assert "cannot load" in refused("latency", tmp_path / f"broken{suffix}")


def test_the_reason_of_openvino_is_the_operator_that_it_lacks() -> None:
    pytest.importorskip("openvino")
    from nasdsl.latency.openvino_runtime import reason_of

    message = "Exception from core.cpp:84:\nFrontEnd API failed:\nSummary:\n-- No conversion rule found for operations: X-20\n"
    assert reason_of(RuntimeError(message)) == "No conversion rule found for operations: X-20"
    assert (
        reason_of(RuntimeError("Exception from core.cpp:84:\nCheck 'x' failed\n  the shapes differ  \n")) == "the shapes differ"
    )
    assert reason_of(RuntimeError("Exception from core.cpp:84:\n")) == "Exception from core.cpp:84:"
    assert reason_of(RuntimeError()) == "RuntimeError"


def test_metadata_of_openvino_that_are_no_table_are_none() -> None:
    pytest.importorskip("openvino")
    from nasdsl.latency.openvino_runtime import _metadata

    class Model:
        def __init__(self, **information: Any) -> None:
            self.information = information

        def has_rt_info(self, path: list[str]) -> bool:
            return path[0] in self.information

        def get_rt_info(self, path: list[str]) -> Any:
            return self.information[path[0]]

    assert _metadata(Model()) == {}
    assert _metadata(Model(framework="onnx")) == {}
    assert _metadata(Model(framework="onnx", onnx={"digest": 1})) == {"digest": "1"}


def test_nodes_of_onnxruntime_are_those_of_the_file_as_far_as_they_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    from nasdsl.latency.onnx_runtime import _durations, _nodes_of_tensors

    file = onnx_detector(tmp_path / "detector.onnx")
    nodes = _nodes_of_tensors(file)
    assert nodes["features"] == "backbone.conv"
    times = [{"cat": "Node", "name": f"{name}_{what}", "dur": 2000, "args": {"op_name": "Conv"}} for name, what in
             (("features", "kernel_time"), ("features", "fence_before"), ("other", "kernel_time"))]  # fmt: skip
    warm = {"cat": "Session", "name": "model_run"}
    found = _durations([warm] * 9 + times, nodes)
    assert found == {("backbone.conv", "Conv"): [2.0], ("other", "Conv"): [2.0]}
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert _nodes_of_tensors(file) == {}


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_that_is_not_installed(runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = onnx_detector(tmp_path / "detector.onnx")
    monkeypatch.setitem(sys.modules, runtime, None)
    for name in ("onnx_runtime", "openvino_runtime"):
        monkeypatch.delitem(sys.modules, f"nasdsl.latency.{name}", raising=False)
    assert f"pip install 'nasdsl[{runtime}]'" in refused("latency", file, "--runtime", runtime)


def test_a_file_is_timed_at_the_size_of_its_detector() -> None:
    """A run and the file that was exported from it are timed with the same images, also where no size is fixed."""
    of_any = input_shape("a.onnx", ["images"], ["N", 3, "H", "W"])
    for options in ({"fixed_size": (64, 96)}, {"max_size": 80}, {"max_size": 800}, {"min_size": 800, "max_size": 1333}):
        detector = untrained_detector(2, **options)
        assert of_any.resolve("a.onnx", None, None, metadata(detector, None, "float32")) == (1, size_of(detector))
    assert of_any.resolve("a.onnx", None, None, {"size": "large"}) == (1, (800, 1088))


def test_a_decoder_alone_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    file = tmp_path / "fcos.onnx"
    assert invoke("compile", "zoo:fcos", "--width", "32", "--backbone", "tiny", "-o", file).exit_code == 0
    assert "has the inputs c3, c4, c5; that is a decoder alone" in refused("latency", file)
    assert "has the inputs c3, c4; that is a decoder alone" in refused("latency", decoder_program(tmp_path / "decoder.pt2"))


def test_inputs_that_are_no_images() -> None:
    for shape in ([1, 480, 640, 3], [1, 3, 640], []):
        with pytest.raises(LatencyError, match="expected images"):
            input_shape("a.onnx", ["x"], shape)
    assert input_shape("a.onnx", ["x"], ["N", 3, None, 640]) == (None, None, 640)


def test_a_batch_or_a_size_that_the_file_does_not_say() -> None:
    fixed = input_shape("a.onnx", ["images"], [2, 3, "H", "W"])
    assert fixed.resolve("a.onnx", None, None, {}) == (2, (800, 1088))
    with pytest.raises(LatencyError, match=r"a\.onnx takes batches of 2 only, not of 3; export it with a dynamic batch"):
        fixed.resolve("a.onnx", None, 3, {})


@pytest.mark.parametrize(
    ("outputs", "count"),
    [
        ({"scores": torch.tensor([[0.5, 0.0], [0.5, 0.5]])}, 1.5),
        ((torch.zeros(1, 2, 4), torch.tensor([[0.5, 0.0]]), torch.zeros(1, 2)), 1.0),
        ({"scores": torch.ones(3)}, None),
        ({}, None),
        ([torch.ones(1, 2)], None),
        (torch.ones(1, 2), None),
    ],
)
def test_detections_of_programs_that_are_no_detectors_are_not_known(
    outputs: object, count: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = object.__new__(ProgramSession)
    monkeypatch.setattr(ProgramSession, "_run", lambda self: outputs)
    assert session.detections() == count


def test_a_graph_that_is_replayed_runs_no_module_that_could_be_timed() -> None:
    session: Any = object.__new__(DetectorSession)
    session._batch, session._detector = SimpleNamespace(is_cuda=True), SimpleNamespace(graphs=True)
    assert session.profile() is None


def test_names_and_sections() -> None:
    names = {"fpn.x1.conv": "fpn", "/backbone/layer1/Conv": "backbone", "p3.cls_logits": "predict", "Reorder": "other"}
    assert {name: section_of(name) for name in names} == names
    made = make_profile({("head.a", "Conv"): [1.0, 9.0, 1.0], ("b", "Add"): [1.0, 1.0] * 3}, runs=3)
    assert made.nodes == [NodeTime("b", "Add", 2.0), NodeTime("head.a", "Conv", 1.0)]
    assert made.sections == {"head": 1.0, "other": 2.0}


def test_the_machine_is_described_as_far_as_its_system_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every system has a list of processors, a load, or a choice of cores."""
    known = machine()

    def absent(self: Path, **_: object) -> str:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("nasdsl.machine.cpu_name", cpu_name.__wrapped__)  # what it said before is kept
    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr("platform.processor", lambda: "a processor")
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    for name in ("sched_getaffinity", "getloadavg"):
        monkeypatch.delattr(os, name, raising=False)
    assert machine() == {"cpu": "a processor", "cores": 3, "system": known["system"], "python": known["python"]}


def test_a_module_that_runs_without_its_parts_has_no_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    session: Any = object.__new__(DetectorSession)
    session._batch, session._detector = torch.zeros(1, 3, 64, 64), untrained_detector(2)
    monkeypatch.setattr(DetectorSession, "_run", lambda self: None)
    assert session.profile(1) is None


def test_a_measurement_that_another_may_differ_from_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    found = Latency(2.0, 1.9, 2.1, (2.0, 2.0, 4.0), 1, 30, 10, warm=True, steady=True, batch=1)
    warn_unsteady(found)
    warn_disturbed(WholeTime(1.0, 2.0, 2.0, 0, 9))
    assert capsys.readouterr().err == ""
    warn_unsteady(replace(found, disturbed=0, warm=False, steady=False))
    assert capsys.readouterr().err == "warning: the times had not settled by the end of the warm-up\n"
    warn_unsteady(replace(found, warm=False, steady=False))
    warn_disturbed(WholeTime(1.0, 2.0, 2.0, 2, 9))
    assert capsys.readouterr().err.splitlines() == [
        "warning: the times had not settled by the end of the warm-up",
        "warning: not steady: 1 of 3 rounds were disturbed; close other programs and measure again",
        "warning: the machine was disturbed in 2 of 9 rounds; close other programs and measure again",
    ]


def test_a_required_latency_is_compared(tmp_path: Path) -> None:
    text = """decoder small {
      input c3
      require latency <= BOUND on torch at 64x86
      fpn(width=32, norm=bn) { output p3 = c3 }
      head(width=32) { conv_3x3 }
      predict fcos
    }"""
    for bound, kept, status in (("100s", True, 0), ("1us", False, 1)):
        (tmp_path / "small.nas").write_text(text.replace("BOUND", bound))
        options = [tmp_path / "small.nas", "--backbone", "tiny", "--threads", "1"]
        found = invoke("latency", *options, "--format", "json")
        value = json.loads(found.stdout)
        requirement = f"require latency <= {bound} on torch at 64x86"
        assert (found.exit_code, value["size"], value["runtime"]["name"]) == (status, [64, 86], "torch")
        assert value["requirements"] == [{"requirement": requirement, "kept": kept}]
    lines = invoke("latency", *options).stdout
    assert re.search(rf"^{re.escape(requirement)}: [\d.e+]+ ms, broken$", lines, re.MULTILINE)
    other = invoke("latency", *options, "--size", "64x64")
    assert other.exit_code == 0
    assert other.stdout.endswith(f"{requirement}: not compared, this is another runtime, size or batch\n")


def test_the_runtimes_of_a_requirement_are_those_of_the_command() -> None:
    (option,) = [option for option in latency.params if option.name == "runtime"]
    assert isinstance(option.type, click.Choice)
    assert sorted(option.type.choices) == sorted(RUNTIMES)
