"""Files of results: a line of JSON for each commit and machine on which cases of a subject have been run."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nasdsl.files import write_bytes

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results"
SLOWEST = 10
MAX_FINDINGS = 100


@dataclass
class Record:
    """What was run of a subject on one commit and machine.

    Attributes:
        cases: ranges of numbers, ``[first, last]``, in order.
        counts: sums of what the cases counted.
        seconds: processor time of all cases.
        steps: the longest processor time of each step.
        slowest: the cases that took longest: number, seconds, text.
        findings: number, line and text of each.
        megabytes: the largest peak of a process.
    """

    subject: str
    commit: str
    machine: str
    cases: list[list[int]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    steps: dict[str, float] = field(default_factory=dict)
    slowest: list[dict[str, Any]] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    megabytes: float = 0.0

    @property
    def total(self) -> int:
        """Number of cases."""
        return sum(last - first + 1 for first, last in self.cases)

    def has(self, number: int) -> bool:
        """Whether this case is among those that were run."""
        return any(first <= number <= last for first, last in self.cases)

    def add(self, done: dict[str, Any]) -> None:
        """Enter a case, as a child of `torture.child` tells it."""
        number = done["done"]
        if self.has(number):  # run again: what was found then is replaced
            self.findings = [f for f in self.findings if f["case"] != number]
        else:
            self._extend(number)
            for name, times in done["counts"].items():
                self.counts[name] = self.counts.get(name, 0) + times
            self.seconds = round(self.seconds + done["seconds"], 3)
        for name, seconds in done["steps"].items():
            self.steps[name] = round(max(seconds, self.steps.get(name, 0.0)), 3)
        self.megabytes = round(max(self.megabytes, done["megabytes"]), 1)
        slow = {"case": number, "seconds": round(done["seconds"], 3), "text": done["text"]}
        others = [s for s in self.slowest if s["case"] != number]
        self.slowest = sorted([*others, slow], key=lambda s: -s["seconds"])[:SLOWEST]
        for line in done["findings"]:
            if len(self.findings) < MAX_FINDINGS:
                self.findings.append({"case": number, "line": line, "text": done["text"]})
            self.counts["findings"] = self.counts.get("findings", 0) + 1

    def _extend(self, number: int) -> None:
        ranges = sorted([*self.cases, [number, number]])
        merged: list[list[int]] = []
        for first, last in ranges:
            if merged and first <= merged[-1][1] + 1:
                merged[-1][1] = max(merged[-1][1], last)
            else:
                merged.append([first, last])
        self.cases = merged


def path_of(subject: str, folder: Path = RESULTS) -> Path:
    """The file of a subject's results."""
    return folder / f"{subject}.jsonl"


def read(subject: str, folder: Path = RESULTS) -> list[Record]:
    """The records of a subject, the oldest first."""
    path = path_of(subject, folder)
    return [Record(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def write(records: list[Record], subject: str, folder: Path = RESULTS) -> None:
    """Write a subject's file of results anew, as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(asdict(record), ensure_ascii=True) for record in records]
    write_bytes(path_of(subject, folder), "".join(line + "\n" for line in lines).encode())


def not_run(records: list[Record], aim: int) -> Iterator[int]:
    """The numbers below `aim` that no record has, in rising order."""
    first = 0
    for begin, end in sorted((begin, end) for record in records for begin, end in record.cases):
        yield from range(first, min(begin, aim))
        first = max(first, end + 1)
    yield from range(first, aim)


def open_findings(records: list[Record]) -> list[int]:
    """Numbers of cases with a finding that no later record has without one."""
    state: dict[int, bool] = {}
    for record in records:
        found = {finding["case"] for finding in record.findings}
        for number in set(state):
            if record.has(number):
                state[number] = number in found
        state |= dict.fromkeys(found, True)
    return sorted(number for number, is_open in state.items() if is_open)


def commit() -> str:
    """The commit of the working tree, with a ``+`` where package or tests differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "nasdsl", "grammars", "genotypes", "tests", ":!tests/torture/results")
        return git("rev-parse", "--short=10", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "none"  # an unpacked sdist


def machine() -> str:
    """Processor, number of cores, and versions of what matters."""
    from importlib.metadata import version

    from nasdsl.machine import cpu_name

    return f"{cpu_name()}, Python {platform.python_version()}, torch {version('torch')}"
