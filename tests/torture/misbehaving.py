"""A subject whose cases do all that a case can do wrong, for the tests of the harness."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torture.subject import Case, Report, Subject

RAISES, ENDS, HANGS, REPORTS, GROWS, WAITS = 3, 5, 7, 9, 10, 12


@contextmanager
def start(folder: Path) -> Iterator[Case]:
    assert folder.is_dir()
    kept: list[bytes] = []

    def case(number: int, report: Report) -> None:
        report.about(f"case {number}")
        report.count("run")
        with report.step("think"):
            pass
        if number == RAISES:
            raise ValueError("raised")
        if number == ENDS:
            os.kill(os.getpid(), signal.SIGKILL)
        while number == HANGS:
            pass
        if number == WAITS:
            time.sleep(60)
        if number == REPORTS:
            report.finding("reported")
        if number == GROWS:
            kept.append(bytes(range(256)) * 800_000)  # 205 MB

    yield case


SUBJECT = Subject("misbehaving", "cases", 20, start, hang=0.5, megabytes=150)
