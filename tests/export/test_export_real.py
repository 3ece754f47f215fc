"""On real images, exported files have the AP and the boxes of the detector: a small part of benchmarks/export.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
DATA, WEIGHTS = SHARED / "data" / "bccd_voc", SHARED / "weights" / "mobilenet_v2_imagenet_features.pth"


@pytest.mark.long
@pytest.mark.skipif(not (DATA.is_dir() and WEIGHTS.is_file()), reason=f"needs {DATA} and {WEIGHTS}")
def test_average_precision_and_boxes(tmp_path: Path) -> None:
    forms = ["onnx", "onnx, batches of 5", "onnx, float16", "py"]
    subprocess.run(
        [
            sys.executable, str(ROOT / "benchmarks" / "export.py"), "--data", str(DATA), "--weights", str(WEIGHTS),
            "--decoders", "fcos", "--epochs", "3", "--forms", *forms, "--json", str(tmp_path / "rows.json"),
        ],
        check=True,
    )  # fmt: skip
    reference, *rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["form"] for row in rows] == forms
    assert reference["ap"] > 10  # else equal figures would say little
    for row in rows:
        half = "float16" in row["form"]
        assert abs(row["ap"] - reference["ap"]) <= (0.5 if half else 0.05)
        assert row["alike"] >= (0.9 if half else 0.999)
