"""Runs cases of a subject in processes of their own, and keeps the file of results."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torture import records
from torture.records import Record
from torture.subject import Subject

START_SECONDS = 300
"""In which a process has to begin with its first case."""
PATIENCE = 20.0
"""Times `Subject.hang` that a case may take by the clock: it may wait, and the machine may be busy."""
SAVE_EVERY = 30.0


class Failed(Exception):
    """A process of cases that ended before it ran one."""


def run(
    subject: Subject,
    numbers: Iterable[int],
    *,
    seconds: float | None = None,
    folder: Path = records.RESULTS,
    say: Any = None,
) -> Record:
    """Run cases, enter them into the file of results, and return what was run on this commit and machine.

    Args:
        subject: what is tortured.
        numbers: of the cases, in rising order.
        seconds: after which no other case begins; None: all are run.
        folder: of the file of results.
        say: called with a line now and then.
    """
    known = records.read(subject.name, folder)
    commit, machine = records.commit(), records.machine()
    own = next((r for r in known if (r.commit, r.machine) == (commit, machine)), None)
    if own is None:
        own = Record(subject.name, commit, machine)
        known.append(own)
    began = saved = time.monotonic()
    try:
        rest = iter(numbers)
        while part := list(islice(rest, subject.per_process)):
            for done in _cases(subject, part):
                own.add(done)
                for line in done["findings"]:
                    if say is not None:
                        say(f"{subject.name} {done['done']}: {line}")
                now = time.monotonic()
                if now - saved > SAVE_EVERY:
                    saved = now
                    records.write(known, subject.name, folder)
                    if say is not None:
                        say(f"{subject.name}: {own.total} {subject.unit}, {len(own.findings)} findings")
                if seconds is not None and now - began > seconds:
                    return own
    finally:
        if own.cases:
            records.write(known, subject.name, folder)
    return own


def _cases(subject: Subject, numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Run cases in a process; where it ends or hangs in a case, this is its finding, and another one goes on."""
    while numbers:
        ended = ""
        with _Process(subject, numbers) as process:
            running: int | None = None
            try:
                while (
                    said := process.next_line(PATIENCE * subject.hang if running is not None else START_SECONDS)
                ) is not None:
                    if "begin" in said:
                        running = said["begin"]
                    else:
                        yield said
                        numbers, running = numbers[1:], None
                        process.has_run = True
            except queue.Empty:
                ended = f"it has not ended after {PATIENCE * subject.hang:.0f} s"
        if running is not None:
            ended = ended or f"the process ended with code {process.code}"
            yield {
                "done": running, "counts": {}, "findings": [ended], "text": "", "steps": {}, "seconds": 0.0, "megabytes": 0.0,
            }  # fmt: skip
            numbers = numbers[1:]
        elif not process.has_run:
            raise Failed(f"{subject.name}: a process ended with code {process.code} before its first case")


class _Process:
    """A child, whose lines are read by a thread so that waiting for one can end."""

    def __init__(self, subject: Subject, numbers: Sequence[int]) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "torture.child", subject.name, *map(str, numbers)]
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.has_run = False

    def _read(self) -> None:
        assert self._child.stdout is not None
        for line in self._child.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def next_line(self, seconds: float) -> dict[str, Any] | None:
        """The next line; None at the end. Raises queue.Empty after `seconds`."""
        line = self._lines.get(timeout=seconds)
        found: dict[str, Any] | None = None if line is None else json.loads(line)
        return found

    @property
    def code(self) -> int | None:
        return self._child.returncode

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._lines.empty() or self._reader.is_alive():
            self._child.kill()
        self._child.wait()
        self._reader.join()
        assert self._child.stdout is not None
        self._child.stdout.close()
