"""Logging of a training: terminal, log file, throughput."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nasdsl.training.logger import Throughput, TrainingLogger, truncate_log


def record(step: int, **others: Any) -> dict[str, Any]:
    speed = {"images_per_s": 10.0, "waiting": 0.0, "seconds_left": 75.0}
    return {"event": "train", "step": step, "epoch": 1.0, "lr": 0.01, "loss": 1.5, "losses": {"a": 1.5}, **speed, **others}


def test_the_log_is_valid_json_for_all_numbers(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with TrainingLogger(log, 10, quiet=True) as logger:
        logger.record(record(1, loss=float("nan"), losses={"a": float("inf")}))
    text = log.read_text()
    assert "NaN" not in text
    assert json.loads(text)["loss"] is None


def test_records_after_the_checkpoint_are_removed_on_resume(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with TrainingLogger(log, 10, quiet=True) as logger:
        for step in range(1, 7):
            logger.record(record(step))
    log.write_text(log.read_text() + '{"event": "train", "st')  # killed while writing a line
    with TrainingLogger(log, 10, 4, quiet=True) as logger:
        logger.record(record(5, loss=9.0))
    found = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(r["step"], r["loss"]) for r in found] == [(1, 1.5), (2, 1.5), (3, 1.5), (4, 1.5), (5, 9.0)]
    truncate_log(tmp_path / "none", 3)


def test_lines_without_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    """The first record, then one every ten seconds, and the last."""
    with TrainingLogger(None, 100) as logger:
        for step in (1, 2, 3, 100):
            logger.advance(step)
            logger.record(record(step))
        logger.record({"event": "evaluation", "step": 100})
    captured = capfd.readouterr()
    lines = captured.err.splitlines()
    assert [line.split()[1] for line in lines] == ["1/100", "100/100"]
    assert "loss 1.500 (a 1.500)  lr 1.00e-02  10.0 images/s  1 min 15 s left" in lines[0]
    assert captured.out == ""


def test_progress_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    with TrainingLogger(None, 100) as logger:
        logger.advance(40)
        assert logger._bar is not None
        assert logger._bar.tasks[0].completed == 40
        logger.record(record(40))
        with logger.subtask("evaluating") as count:
            count(1, 2)
        logger.info("[not markup]")
    status = capfd.readouterr().err
    assert "images/s" in status
    assert "evaluating" in status or "training" in status
    assert "[not markup]" in status


def test_without_a_log_there_is_nothing_to_sync(tmp_path: Path) -> None:
    for log in (None, tmp_path / "log.jsonl"):
        TrainingLogger(log, 10, quiet=True).sync()
    assert list(tmp_path.iterdir()) == []


def test_items_that_end_are_all_given() -> None:
    assert list(Throughput().time_loading(iter("abc"))) == ["a", "b", "c"]


def test_throughput(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def slow() -> Any:
        while True:
            now[0] += 3
            yield None

    throughput = Throughput()
    items = throughput.time_loading(slow())
    for _ in range(2):
        next(items)
        now[0] += 1
    measured = throughput.measure(2, 13, 100)
    assert measured == {"images": 13, "seconds": 8.0, "images_per_s": 1.625, "waiting": 0.75, "seconds_left": 400.0}
