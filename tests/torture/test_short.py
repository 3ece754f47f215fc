"""A few cases of each subject of `make torture`, in seconds; longer ones are marked."""

from __future__ import annotations

import random
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from random_spaces import Bind, Hole, Name, RandomSpace, Repeat

from nasdsl.spaces import loads_space
from torture import crashes, disk, finite, metrics, pictures, spaces, targets, workers
from torture.runner import run
from torture.subject import Case, Report
from torture.subjects import subject

pytestmark = pytest.mark.usefixtures("own_garbage")

DATA = len(pictures.ALL)
"""Cases through `data`; as many follow through `train`, `detect` and `eval`."""


def findings(started: AbstractContextManager[Case], numbers: Iterable[int]) -> list[str]:
    """What cases find in this process."""
    found = []
    with started as case:
        for number in numbers:
            report = Report()
            case(number, report)
            found += [f"case {number}: {line}" for line in report.findings]
    return found


@pytest.mark.long
def test_power_cuts_and_failing_disks(tmp_path: Path) -> None:
    assert findings(crashes.start(tmp_path), range(60)) == []


def test_fillings_of_random_spaces(tmp_path: Path) -> None:
    assert findings(spaces.start(tmp_path), range(40)) == []


C3, X, V = (Name(word) for word in ("c3", "x", "v"))
REPEATS: dict[str, tuple[Repeat, tuple[int, ...], str]] = {
    "the second turn reads what the first has bound": (
        Repeat(2, [Bind(V, Hole([C3, X]), is_let=True), Bind(X, ["relu(", V, ")"])]),
        (1, 1),
        "x_1 = c3\nx_2 = relu(x_1)\n x_3 = relu(x_2)\n",
    ),
    "each turn has decisions of its own": (
        Repeat(Hole(["0", "1", "2"], "?(0..2)"), [Bind(X, [Hole(["conv_1x1", "skip"]), "(", X, ")"])]),
        (2, 0, 1),
        "x_1 = c3\nx_2 = conv_1x1(x_1)\n x_3 = skip(x_2)\n",
    ),
}


@pytest.mark.parametrize("name", REPEATS)
def test_the_text_that_is_written_turn_by_turn(name: str) -> None:
    """What fillings are compared with, for two spaces that can be looked through."""
    repeat, indices, expected = REPEATS[name]
    frame = "decoder t { input c3 fpn(width=32) { "
    made = RandomSpace((), [frame, Bind(X, C3), repeat, "output p3 = ", X, "} head(width=32) { conv_3x3 } predict fcos }"])
    filled = made.filled(loads_space(made.text), indices)
    assert filled.removeprefix(frame).partition("output")[0] == expected


def test_targets_equal_slow_ones(tmp_path: Path) -> None:
    assert findings(targets.start(tmp_path), range(12)) == []


def test_metrics_equal_those_of_pycocotools(tmp_path: Path) -> None:
    assert findings(metrics.start(tmp_path), range(12)) == []


@pytest.mark.parametrize("number", [0, pytest.param(3, marks=pytest.mark.long)])
def test_weights_stay_finite(number: int, tmp_path: Path) -> None:
    assert findings(finite.start(tmp_path, steps=8), [number]) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("kills", range(8)),
        ("pictures", range(0, DATA, 2)),  # through `data`
        ("pictures", [DATA * k + n for k in (1, 2, 3) for n in range(0, 20, 4)]),
        ("workers", [1]),
    ],
)
def test_commands(name: str, numbers: Iterable[int], tmp_path: Path) -> None:
    """In a process of their own, from which the commands are forked."""
    record = run(subject(name), numbers, folder=tmp_path)
    assert record.total == len(list(numbers))
    assert [f"case {f['case']}: {f['line']}" for f in record.findings] == []


@pytest.mark.long
def test_a_thousand_evaluations_of_which_three_in_ten_go_wrong(tmp_path: Path) -> None:
    """In one process; `test_commands` has those in workers."""
    faults = workers.Faults(0.0, tmp_path / "log")
    workers.run(tmp_path, "inline", 1000, faults)
    report = Report()
    workers.judge(workers.load_trials(tmp_path / "run"), faults, 1000, report)
    assert report.counts["evaluations: fine"] > 400
    assert all(report.counts[f"evaluations: {kind}"] > 30 for kind in workers.CHEAP)


def test_a_clock_that_jumps_changes_no_trial_and_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Back and forth by weeks, as a clock that is set does."""
    from click.testing import CliRunner

    from nasdsl.cli import cli

    crashes.run_search(tmp_path / "quiet", crashes.nothing)
    with monkeypatch.context() as patched:
        rng = random.Random(0)
        patched.setattr("time.time", lambda: 1.7e9 + rng.uniform(-1e6, 1e6))
        crashes.run_search(tmp_path / "jumping", crashes.nothing)
        shown = CliRunner().invoke(cli, ["report", str(tmp_path / "jumping" / "run"), "-o", str(tmp_path / "page.html")])
    assert shown.exit_code == 0, shown.output
    assert "</html>" in (tmp_path / "page.html").read_text()
    found, expected = (crashes.load_trials(tmp_path / name / "run") for name in ("jumping", "quiet"))
    assert crashes.comparable(found) == crashes.comparable(expected)


# ---------------------------------------------------------------------------- the torture finds what it is for


def test_a_rename_before_the_content_is_on_the_disk_is_found(tmp_path: Path) -> None:
    """The oldest mistake: write, rename, and no fsync between."""

    def careless(folder: Path, acknowledge: crashes.Acknowledge) -> None:
        for number, content in enumerate(crashes.CONTENTS):
            (folder / "new").write_bytes(content)
            (folder / "new").replace(folder / "table.csv")
            acknowledge(number)

    assert _found(crashes.Work("careless", careless, crashes.check_files, (OSError,)), tmp_path)


def test_a_record_that_is_not_synced_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = crashes.Journal.append
    monkeypatch.setattr(crashes.Journal, "append", lambda self, record, sync=True: append(self, record, sync=False))
    assert _found(next(work for work in crashes.WORKS if work.name == "journal"), tmp_path)


def _found(work: crashes.Work, folder: Path) -> bool:
    """Whether some power cut in a work is a finding."""
    calls = crashes.record(work, folder / "work").calls
    report = Report()
    for number in range(200):
        rng = random.Random(number)
        until, mode = rng.randrange(len(calls) + 1), rng.choice(disk.MODES)
        disk.write_state(calls, until, mode, rng, folder / str(number))
        crashes.judge(work, folder / str(number), disk.acknowledged(calls, until), report)
    return bool(report.findings)
