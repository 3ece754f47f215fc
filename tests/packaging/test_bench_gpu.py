"""`make bench-gpu` on a CPU, with small shapes, where nothing is installed but what a machine with torch has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TABLES = {
    "Rates of the device": 3,
    "Dilated depthwise convolutions": 8,
    "Deformable convolution": 6,
    "Detectors, from images to boxes": 4,
    "The proxy task of a search": 2,
    "Launches and copies": 3,
}
"""Rows of each table."""


def bench(*arguments: str | Path, timeout: float = 1000) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-P", ROOT / "tests/packaging/only_torch.py", ROOT / "benchmarks/gpu.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**environment, "OMP_NUM_THREADS": "1"})


def test_it_is_imported_with_torch_alone() -> None:
    done = bench("--help")
    assert done.returncode == 0, done.stderr
    assert "in at most six minutes" in done.stdout


@pytest.mark.long
def test_all_tables(tmp_path: Path) -> None:
    done = bench("--cpu", "--minutes", "15", "--out", tmp_path / "gpu.json")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "gpu.json").read_text())
    assert {table["title"]: len(table["rows"]) for table in written["tables"]} == TABLES
    assert [table["left_out"] for table in written["tables"]] == [[]] * len(TABLES)
    for table in written["tables"]:
        assert f"## {table['title']}" in done.stdout
    kernels = [row for table in written["tables"][1:3] for row in table["rows"]]
    errors = [row["error against float64"] for row in kernels if row["error against float64"] is not None]
    assert 0 < max(errors) < 0.05
    detectors = {row["detector"]: row for row in written["tables"][3]["rows"]}
    assert detectors["nas_fcos, float32, CUDA graph"]["error"] < 1e-4
    assert detectors["nas_fcos, float32, CUDA graph"]["detections"] > 0
    assert written["tables"][4]["rows"][0]["trial, s"] > 0


@pytest.mark.long
def test_what_there_is_no_time_for_is_said(tmp_path: Path) -> None:
    done = bench("--cpu", "--minutes", "0", "--out", tmp_path / "gpu.json", "--only", "depthwise", "deform")
    assert done.returncode == 0, done.stderr
    tables = json.loads((tmp_path / "gpu.json").read_text())["tables"]
    assert [len(table["rows"]) for table in tables[1:]] == [0, 0]
    assert "3x3, dilation 3, float32: no time" in tables[1]["left_out"]
    assert "Left out: 3x3, dilation 3, float32: no time" in done.stdout
