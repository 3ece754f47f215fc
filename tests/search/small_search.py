"""A space, evaluations and a strategy for the tests of the search. Worker processes import this module."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

from nasdsl.search.check import CheckResult
from nasdsl.search.journal import read_journal
from nasdsl.search.results import Trials
from nasdsl.spaces import Filled, Space, SpaceError, loads_space

SPACE = loads_space("""
choice op = sep_3x3 | sep_3x3_d3 | skip | conv_3x3
choice agg = psum | cat

decoder small {
  input c3, c4, c5
  fpn(width=32, norm=bn) {
    repeat t in 1..3 { x[t] = ?agg(?op(?pool), ?op(?pool)) }
    output p5 = x1, p4 = x2, p3 = x3
    merge dangling into p3, p4, p5
  }
  head(width=32, norm=gn) { conv_3x3 }
  predict fcos(centerness=cls)
}
""")


def value(text: str) -> float:
    """A reward between -2 and -1, a hash of the text."""
    return -1 - int(sha256(text.encode()).hexdigest()[:6], 16) / 2**24


def quick_check(text: Filled) -> CheckResult:
    """A fast check: one text in eight is rejected, and many are duplicates."""
    number = int(sha256(text.encode()).hexdigest()[:4], 16)
    if number % 8 == 0:
        raise SpaceError("rejected for the test")
    return CheckResult(str(number % 97), {"macs": 70000 - number, "params": 10 + number % 7})


class Learner:
    """A strategy whose proposals depend on all calls before them, and on their order."""

    name: ClassVar[str] = "learner"

    def __init__(self, space: Space, seed: int = 0) -> None:
        self.space, self.calls = space, f"seed {seed}"

    def propose(self) -> Filled:
        self.calls = sha256(f"{self.calls} propose".encode()).hexdigest()
        rng = random.Random(self.calls)
        return self.space.decode([rng.randrange(domain.size) for domain in self.space.domains])

    def observe(self, text: Filled, reward: float | None) -> None:
        self.calls = sha256(f"{self.calls} {text} {reward!r}".encode()).hexdigest()

    def state(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load(self, state: Mapping[str, Any]) -> None:
        self.calls = state["calls"]

    def diagnostics(self) -> dict[str, float]:
        return {"entropy": int(self.calls[:4], 16) / 65536}


class LoggedEvaluation:
    """An evaluation that logs its start and end to a file, one line each."""

    def __init__(self, file: Path, seconds: float = 0.0) -> None:
        self.file, self.seconds = file, seconds

    def log(self, event: str, text: str) -> None:
        with open(self.file, "a") as file:
            file.write(f"{event} {os.getpid()} {text}\n")

    def __call__(self, text: str) -> dict[str, Any]:
        self.log("begin", text)
        time.sleep(self.seconds * (0.5 - value(text) - 1))  # of different durations, so that results come out of order
        self.log("end", text)
        return {"reward": value(text), "losses": {"cls": -value(text) / 2}, "length": len(text)}


def logged(file: Path, event: str) -> list[str]:
    """The texts that were logged with an event, ``begin`` or ``end``."""
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.split(" ", 2)[2] for line in lines if line.startswith(f"{event} ")]


def comparable(trials: Trials) -> list[Any]:
    """The trials without times and workers, which may differ between equal searches."""
    names = "number text indices digest verdict reward score details figures duplicate_of diagnostics".split()
    return [tuple(getattr(trial, name) for name in names) for trial in trials]


def finished_texts(folder: Path) -> set[str]:
    """The texts whose results are in the journal."""
    path = folder / "journal.jsonl"
    records = read_journal(path)[0] if path.exists() else []
    texts = {r["number"]: r["text"] for r in records if r["kind"] == "proposal"}
    return {texts[r["number"]] for r in records if r["kind"] == "result"}


# ------------------------------------------------------------------------------------ other evaluations


def plain_value(text: str) -> float:
    return value(text)


def burn(text: str, seconds: float = 0.2) -> float:
    """Compute for some seconds of processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        sum(range(1000))
    return value(text)


def slow_value(text: str, seconds: float) -> float:
    """Sleep, without taking processor time."""
    time.sleep(seconds)
    return value(text)


class FaultyEvaluation:
    """Raises, ends the process, hangs or returns no reward, as a hash of the text chooses among `kinds`; once or always."""

    def __init__(self, file: Path, once: bool, kinds: str) -> None:
        self.file, self.once, self.kinds = file, once, kinds.split()

    def __call__(self, text: str) -> Any:
        kind = self.kinds[int(sha256(text.encode()).hexdigest()[:4], 16) % len(self.kinds)]
        seen = text in logged(self.file, "begin")
        LoggedEvaluation(self.file).log("begin", text)
        if kind != "fine" and not (seen and self.once):
            match kind:
                case "exit":
                    os._exit(7)
                case "leave":
                    sys.exit(3)
                case "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "hang":
                    time.sleep(1000)
                case "garbage":
                    return "good"
                case "raise":
                    raise RuntimeError("no such luck")
                case "nan":
                    return float("nan")
                case "memory":
                    raise MemoryError
        return value(text)


class Unloadable:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> Any:
        return int, ("no number",)

    def __call__(self, text: str) -> float:
        return 0.0


class HoldsFile:
    """Holds an open file, and cannot be pickled."""

    def __init__(self, file: object) -> None:
        self.file = file

    def __call__(self, text: str) -> float:
        return 0.0


class LeavesChild:
    """Forks a child that keeps all files open, and exits."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __call__(self, text: str) -> float:
        if not self.file.exists():
            if os.fork() == 0:
                self.file.write_text(str(os.getpid()))
                time.sleep(60)
            while not self.file.exists():
                time.sleep(0.01)
            os._exit(1)
        return 0.5


def with_curve(text: str, thresholds: Mapping[int, float] | None = None) -> dict[str, Any]:
    """A training whose losses at three steps approach the final one, and which stops as its thresholds say."""
    curve: dict[int, float] = {}
    for step, share in ((10, 0.5), (20, 0.3), (30, 0.1)):
        curve[step] = -value(text) - share * value(f"{text} {step}")
        if thresholds and step in thresholds and min(curve.values()) > thresholds[step]:
            return {"reward": None, "curve": curve, "stopped_at": step, "thresholds": dict(thresholds)}
    return {"reward": value(text), "curve": curve, "thresholds": dict(thresholds or {})}


def environment(text: str) -> dict[str, object]:
    """The GPU and the number of threads of a worker."""
    time.sleep(0.05)
    return {"reward": 0, "gpu": os.environ["CUDA_VISIBLE_DEVICES"], "threads": os.environ["OMP_NUM_THREADS"]}
