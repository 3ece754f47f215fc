"""Files of strangers at a small size, and that an attack which works would be seen."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from nasdsl import torch_files
from torture import attacks, strangers
from torture.strangers import KINDS
from torture.subject import Report

pytestmark = pytest.mark.usefixtures("own_garbage")


@pytest.mark.parametrize("name", KINDS)
def test_a_right_file_is_read(name: str, tmp_path: Path) -> None:
    """Else its attacks would prove nothing."""
    KINDS[name].read(KINDS[name].make(tmp_path))


@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1000, 5000, 1000))])
def test_attacks(first: int, tmp_path: Path) -> None:
    report = Report()
    for number in range(first, first + (3 * len(KINDS) if first == 0 else 20 * len(KINDS))):
        strangers.attack(number, report, tmp_path / "files")
        assert report.findings == [], (number, report.text)
    assert report.counts["refused with a message"] > report.counts["read"] / 2


@pytest.mark.parametrize("payload", range(5))
def test_payloads_work_where_they_are_let_in(payload: int, tmp_path: Path) -> None:
    marker = tmp_path / attacks.WAS_RUN
    made = pickle.loads(pickle.dumps(attacks.payloads(marker)[payload]))
    if payload == 4:
        made(f"touch '{marker}'")
    assert marker.exists()


def test_code_that_is_run_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = torch.load
    monkeypatch.setattr(torch_files.torch, "load", lambda file, **options: right(file, **options | {"weights_only": False}))
    monkeypatch.setattr(strangers, "KINDS", {"weights": KINDS["weights"]})
    found = Report()
    for number in range(60):
        strangers.attack(number, found, tmp_path / "files")
    assert "code of the file was run" in found.findings
