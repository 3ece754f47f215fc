"""A subject of torture: numbered cases, each with a seed of its own, and the report that a case fills."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from machine_speed import slowness

MAX_TEXT = 2000
"""Characters kept of the text of a finding, or of a slow case."""


@dataclass
class Report:
    """What one case does and finds.

    Attributes:
        counts: how often something was done, by its name in the table of docs/reliability.md.
        findings: a line for each thing that is wrong. An exception of the case is one too.
        text: the text that the case is about, for those who look at a finding or a slow case.
        seconds: the longest processor time of a step, by its name.
    """

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    text: str = ""
    seconds: dict[str, float] = field(default_factory=dict)

    def count(self, name: str, times: int = 1) -> None:
        """Count something that was done, or came out."""
        self.counts[name] += times

    def finding(self, line: str) -> None:
        """Report something that is wrong; the case goes on."""
        self.findings.append(line[:MAX_TEXT])

    def about(self, text: str) -> None:
        """Say what the case is about."""
        self.text = text[:MAX_TEXT]

    @contextmanager
    def step(self, name: str, at_most: float | None = None) -> Iterator[None]:
        """Time a step; it is a finding where it takes more than `at_most` seconds of processor time on the nominal core."""
        start = time.process_time()
        try:
            yield
        finally:
            taken = time.process_time() - start
            self.seconds[name] = max(taken, self.seconds.get(name, 0.0))
            if at_most is not None and taken > at_most and taken > (bound := at_most * slowness()):
                self.finding(f"{name} takes {taken:.2f} s of processor time, and allowed are {bound:.2f} s")


Case = Callable[[int, Report], None]
"""Runs the case of a number; all that is random in it follows from the number."""


@dataclass(frozen=True)
class Subject:
    """What ``make torture ONLY=name`` runs.

    Attributes:
        name: also of its file of results.
        unit: what one case is, in the plural ("texts").
        aim: number of cases that ``make torture`` runs altogether.
        start: prepares a process for the cases, given a scratch folder; the context gives the function that runs one.
        hang: seconds of processor time after which a case is ended, which is a finding.
        megabytes: that a process of cases may take at its peak; None: not watched.
        per_process: cases after which a process ends and the next one begins.
    """

    name: str
    unit: str
    aim: int
    start: Callable[[Path], AbstractContextManager[Case]]
    hang: float = 120.0
    megabytes: float | None = None
    per_process: int = 5000
