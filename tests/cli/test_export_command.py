"""``nasdsl export``: what it writes and prints, and what it refuses."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from in_process import invoke, refused
from small_runs import untrained_detector

from nasdsl.detection.weights import save_detector


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    save_detector(untrained_detector(("dog", "cat"), fixed_size=(64, 96)), folder / "model.pt")
    return folder


def test_onnx(run: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    result = invoke("export", run, "-o", tmp_path / "d.onnx", "--size", "64x96", "--no-nms", "--precision", "float16")
    assert result.exit_code == 0
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    megabytes = (tmp_path / "d.onnx").stat().st_size / 1e6
    assert lines[0] == f"wrote {tmp_path / 'd.onnx'} ({megabytes:.1f} MB)"
    assert lines[1] == "  input:  images float32 [N, 3, 64, 96], RGB, 0 to 1"
    assert lines[3] == "  output: scores float32 [N, L, 2]"
    assert onnxruntime.InferenceSession(tmp_path / "d.onnx").get_inputs()[0].shape == ["batch", 3, 64, 96]


@pytest.mark.parametrize("suffix", [".onnx", ".py"])
def test_the_printed_lines_run_it(run: Path, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    lines = invoke("export", run, "-o", tmp_path / f"written_detector{suffix}").stderr.splitlines()
    code = [line.strip() for line in lines[lines.index("to run it:") + 1 :]]
    assert len(code) == 3
    if suffix == ".py":
        from PIL import Image

        Image.new("RGB", (96, 64), "red").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    exec("\n".join(code), {})  # the lines that a user is told to run


@pytest.mark.parametrize(("suffix", "slow"), [(".pt2", True), (".onnx", False)])
def test_an_export_that_takes_long_says_so(
    run: Path, suffix: str, slow: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = SimpleNamespace(files=["d"], megabytes=1.0, inputs=[], outputs=[], usage=[])
    monkeypatch.setattr("nasdsl.export.export_detector", lambda *_, **__: written)
    lines = invoke("export", run, "-o", tmp_path / f"d{suffix}").stderr.splitlines()
    said = ["tracing the detector; this may take a minute"] if slow else []
    assert lines == [*said, "wrote d (1.0 MB)", "to run it:"]


def test_what_is_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "d.onnx"
    assert "expected a name that ends in .onnx, .pt2 or .py" in refused("export", run, "-o", tmp_path / "d.tflite")
    assert "there is no folder" in refused("export", run, "-o", tmp_path / "no" / "d.onnx")
    assert "has no model.pt" in refused("export", tmp_path, "-o", out)
    assert "no file" in refused("export", tmp_path / "none", "-o", out)
    assert "is no size" in refused("export", run, "-o", out, "--size", "64")
    assert "Missing option" in refused("export", run)
    assert "would overwrite" in refused("export", run, "-o", run / "model.py")
    monkeypatch.setitem(sys.modules, "onnx", None)
    for name in [name for name in sys.modules if name.startswith(("nasdsl.backends.onnx", "nasdsl.export.onnx"))]:
        monkeypatch.delitem(sys.modules, name)
    assert "pip install 'nasdsl[onnx]'" in refused("export", run, "-o", out)
    assert list(tmp_path.iterdir()) == []
