"""The progress display of feature extraction."""

from __future__ import annotations

import pytest

from nasdsl.training.progress import ProgressBar, duration


def test_durations() -> None:
    assert [duration(s) for s in (0.2, 59.4, 60, 3599, 7505)] == ["0 s", "59 s", "1 min 00 s", "59 min 59 s", "2 h 05 min"]


@pytest.mark.parametrize("first", [0, 2])
def test_time_left_follows_from_the_pace_of_items_alone(
    first: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not from waiting for another process, nor from what is prepared for the first item, such as the training of an fpn."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with ProgressBar("features", 10, quiet=False) as progress:
        now += 1000
        progress.resume(first)
        now += 500
        for done in range(first + 1, 11):
            now += 20
            progress.update(done)
    lines = capsys.readouterr().err.splitlines()
    expected = [f"features: {done}/10  {duration(20 * (10 - done))} left" for done in range(first + 2, 11)]
    resumed = [f"features: resuming from {first} of 10"] if first else []
    assert lines == [*resumed, f"features: {first + 1}/10", *expected]


@pytest.mark.parametrize("name", ["features of voc:/data/[old]", "features of voc:/data/[/old]"])
def test_on_a_terminal_there_is_a_bar_from_where_an_earlier_process_ended(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name of a folder is no markup, though it may look like it."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")
    with ProgressBar(name, 10, quiet=False) as progress:
        progress.resume(4)
        progress.update(5)
        assert progress._bar is not None
        assert [(task.completed, task.total) for task in progress._bar.tasks] == [(5, 10)]
        progress.update(10)
    assert progress._bar.finished
    shown = capsys.readouterr().err
    assert name in shown
    assert "10/10" in shown
    assert shown.endswith("\x1b[?25h"), "the cursor is shown again"
