"""Progress display of a search."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console
from small_search import SPACE, Learner, plain_value, quick_check

from nasdsl.search import Trial, search
from nasdsl.search.progress import SearchProgress
from nasdsl.spaces import Filled


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("nasdsl.search.progress.time.monotonic", lambda: now[0])
    return now


def trial(number: int, verdict: str = "ok", reward: float | None = None) -> Trial:
    return Trial(number, Filled("", ()), "", verdict, reward, reward)


def test_figures(clock: list[float]) -> None:
    progress = SearchProgress(100, quiet=True)
    progress.add(trial(0, reward=-9.0), resumed=True)
    with progress:
        clock[0] += 20
        assert "trials/hour" not in progress.summary()
        for number, reward in enumerate((-2.0, -1.0, -3.0), 1):
            progress.add(trial(number, reward=reward))
        for number, verdict in enumerate(("duplicate", "duplicate", "rejected", "diverged", "failed: x"), 4):
            progress.add(trial(number, verdict))
        assert "stopped" not in progress.summary()
    assert progress.per_hour == pytest.approx(3600 * 8 / 20)
    assert progress.summary() == (
        "1440 trials/hour  best -1 (trial 2)  mean -3.75  2 cached  1 rejected  2 failed  3 min 48 s left"
    )
    progress.add(trial(9, "stopped"))
    assert "1 rejected  1 stopped  2 failed" in progress.summary()


def test_the_speed_is_that_of_the_last_trials(clock: list[float]) -> None:
    progress = SearchProgress(1000, quiet=True)
    with progress:
        for number in range(100):
            clock[0] += 10
            progress.add(trial(number, reward=0.0))
        for number in range(100, 160):
            clock[0] += 1
            progress.add(trial(number, reward=0.0))
        assert progress.per_hour == pytest.approx(3600)


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    search(SPACE, plain_value, Learner(SPACE), 30, check=quick_check)
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 1  # it took less than the time between two
    assert lines[0].startswith("trial 30/30  ")
    assert "\x1b" not in said.err


def test_nothing_when_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    search(SPACE, plain_value, Learner(SPACE), 3, quiet=True)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()

    def terminal(**options: Any) -> Console:
        return Console(file=screen, force_terminal=True, width=140)

    monkeypatch.setattr("nasdsl.search.progress.Console", terminal)
    search(SPACE, plain_value, Learner(SPACE), 30, check=quick_check)
    assert "30/30" in screen.getvalue()
    assert "best -1.0" in screen.getvalue()
