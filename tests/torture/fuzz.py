"""Fuzzing: mutants of right texts, sentences of the grammar and texts that grow, through all that happens before torch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torture import fuzz_texts
from torture.exercise import exercise
from torture.subject import Case, Report, Subject


@contextmanager
def start(folder: Path) -> Iterator[Case]:
    """Nothing is prepared: no case writes a file."""

    def case(number: int, report: Report) -> None:
        exercise(fuzz_texts.text(number), random.Random(number), report, editor=number % 3 == 0)

    yield case


SUBJECT = Subject("fuzz", "texts", 1_000_000, start, hang=60, megabytes=500, per_process=2000)
