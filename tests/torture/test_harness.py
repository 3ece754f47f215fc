"""The harness itself: what goes wrong in a case is found, what was run is kept, and the page says what the files say."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from torture import misbehaving, page, records, runner
from torture.misbehaving import ENDS, GROWS, HANGS, RAISES, REPORTS, WAITS
from torture.records import Record
from torture.runner import run
from torture.subject import Report, Subject
from torture.subjects import MODULES, subject

NAMED = replace(misbehaving.SUBJECT, name="torture.misbehaving", hang=0.5, per_process=6)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.mark.long
def test_what_goes_wrong_in_a_case_is_found(results: Path) -> None:
    record = run(NAMED, range(13), folder=results)
    assert record.cases == [[0, 12]]
    assert {f["case"] for f in record.findings} == {
        RAISES,
        ENDS,
        HANGS,
        REPORTS,
        WAITS,
        *([GROWS] if sys.platform == "linux" else []),
    }
    lines = {f["case"]: f["line"] for f in record.findings}
    assert lines[RAISES].endswith("ValueError: raised")
    assert '"tests/torture/misbehaving.py"' in lines[RAISES], "a path of this machine in a file that others read"
    assert lines[ENDS] == "the process ended with code -9"
    assert lines[HANGS].startswith("it has not ended after 0 s of processor time, in\n")
    assert "misbehaving.py" in lines[HANGS]
    assert lines[WAITS] == "it has not ended after 10 s"
    assert lines[REPORTS] == "reported"
    assert record.counts["run"] == 11, "of a process that ended nothing is counted"
    assert records.read(NAMED.name, results) == [record]
    assert list(records.not_run([record], 15)) == [13, 14]
    again = run(NAMED, [13, 14], folder=results)
    assert again.cases == [[0, 14]]


def test_what_is_left_is_run_whatever_was_run_of_it_alone() -> None:
    one = Record(NAMED.name, "earlier", "this", cases=[[2, 3], [7, 7]])
    other = Record(NAMED.name, "later", "this", cases=[[3, 4], [20, 30]])
    assert list(records.not_run([one, other], 10)) == [0, 1, 5, 6, 8, 9]
    assert list(records.not_run([one, other], 3)) == [0, 1]
    assert list(records.not_run([], 2)) == [0, 1]


def test_a_finding_is_closed_by_a_later_run_without_it(results: Path) -> None:
    before = Record(NAMED.name, "earlier", "this", cases=[[0, 9]], findings=[{"case": 2, "line": "wrong", "text": ""}])
    records.write([before], NAMED.name, results)
    assert records.open_findings(records.read(NAMED.name, results)) == [2]
    run(NAMED, [2], folder=results)
    found = records.read(NAMED.name, results)
    assert found[0] == before, "what was found stays written"
    assert records.open_findings(found) == []
    run(NAMED, [REPORTS], folder=results)
    assert records.open_findings(records.read(NAMED.name, results)) == [REPORTS]


def test_cases_with_gaps_between_them_share_a_process(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process imports torch."""
    started = []

    class Counted(runner._Process):
        def __init__(self, known: Subject, numbers: Sequence[int]) -> None:
            started.append(list(numbers))
            super().__init__(known, numbers)

    monkeypatch.setattr(runner, "_Process", Counted)
    assert run(NAMED, [0, 2, 4, 6, 8, 10, 20, 22], folder=results).total == 8
    assert started == [[0, 2, 4, 6, 8, 10], [20, 22]]


def test_a_run_ends_in_time(results: Path) -> None:
    start = time.monotonic()
    record = run(NAMED, range(HANGS + 1, 100_000), seconds=0.2, folder=results)
    assert 0 < record.total < 99_000
    assert time.monotonic() - start < 60


def test_slow_steps_are_found() -> None:
    report = Report()
    with report.step("think", 0.0):
        sum(range(100_000))
    assert report.findings
    assert report.findings[0].startswith("think takes 0.0")
    with report.step("think", 100.0):
        pass
    assert len(report.findings) == 1


def test_the_page_says_what_the_files_of_results_say() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text) == text, "`python -m torture --help` says how the tables are made anew"
    for name in MODULES:
        assert subject(name).name == name
        assert f"make torture ONLY={name}" in text, name
