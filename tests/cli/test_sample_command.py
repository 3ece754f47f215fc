"""`nasdsl sample`: what it says of requirements that nothing meets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from in_process import invoke

SPACE = Path(__file__).parents[2] / "genotypes" / "spaces" / "nas_fcos_head.nas"


def test_rejected_samples_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An early word, the time left, and then the reason; all on standard error."""
    monkeypatch.setattr("nasdsl.spaces.space.REPORT_EVERY", 100)
    monkeypatch.setattr("nasdsl.spaces.space.MAX_ATTEMPTS", 1000)
    space = tmp_path / "space.nas"
    space.write_text(SPACE.read_text().replace("input ", "require macs <= 1M at 64x64\n  input ", 1))
    result = invoke("sample", space)
    assert (result.exit_code, result.stdout) == (1, "")
    lines = result.stderr.splitlines()
    assert lines[0].startswith("100 samples in a row rejected, of at most 1,000; the last has ")
    assert re.match(r"300 samples in a row rejected, of at most 1,000, up to \d+ s left; the last has ", lines[1])
    assert [line.split()[0] for line in lines[:-1]] == ["100", "300", "1,000"]
    assert lines[-1].startswith("nasdsl: none of 1,000 samples")


def test_samples_that_are_found_say_nothing() -> None:
    result = invoke("sample", SPACE, "-n", "20")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(set(result.stdout.splitlines())) > 15


def test_definitions_alone_are_no_space(tmp_path: Path) -> None:
    (tmp_path / "ops.nas").write_text("op twice(x) = relu(relu(x))\n")
    result = invoke("sample", tmp_path / "ops.nas")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error[NAS401]: the text holds definitions and no decoder")
