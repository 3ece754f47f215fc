"""The README's first page, on real images in YOLO's form: each of its commands, from a folder of images to an ONNX file."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from folder_layouts import from_voc, write_yolo_with_yaml

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
WEIGHTS = SHARED / "weights/mobilenet_v2_imagenet_features.pth"
HEADING = "## Your images in, a detector out"

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared: images of blood cells, weights of MobileNetV2"),
]


def first_commands() -> list[list[str]]:
    """The commands of the first page."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition(HEADING)[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return [shlex.split(line, comments=True) for line in block[1].replace("\\\n", " ").splitlines() if line.strip()]


def shortened(command: list[str]) -> list[str]:
    """A training of some steps from a file with the weights, instead of minutes from weights that are downloaded."""
    if command[1] != "train":
        return command
    at = command.index("--minutes")
    short = ["--steps", "40", "--size", "192x256", "--backbone-weights", str(WEIGHTS)]
    return [*command[:at], *command[at + 2 :], *short]


def test_every_command_works(tmp_path: Path) -> None:
    """Images of ours, written in YOLO's form, become an ONNX file that finds cells."""
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    write_yolo_with_yaml(tmp_path / "cells", from_voc(SHARED / "data/bccd_voc", first=40))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = first_commands()
    assert [command[1] for command in commands] == ["data", "train", "eval", "detect", "export", "latency"]
    for command in commands:
        assert command[0] == "nasdsl"
        done = subprocess.run(
            [sys.executable, "-m", *shortened(command)], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    for name in ("sheet.png", "runs/cells/report.html", "found/sheet.png", "found/detections.csv"):
        assert (tmp_path / name).is_file(), name
    session = runtime.InferenceSession(tmp_path / "detector.onnx", providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == ["Platelets", "RBC", "WBC"]
    boxes, scores, labels = session.run(None, {"images": np.zeros((1, 3, 192, 256), np.float32)})
    assert boxes.shape[:2] == scores.shape == labels.shape
    assert labels.dtype == np.int64
