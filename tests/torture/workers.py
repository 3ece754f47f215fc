"""Searches whose evaluations go wrong in every way, in workers of every kind: each trial gets the verdict that it must get.

What an evaluation does is a hash of its text: three in ten go wrong. Some raise; some return nan, or what is no number; some
end their process, are killed, take more memory than they may, or hang.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "search"))

from small_search import SPACE, Learner, value

from nasdsl.search import load_trials, search
from nasdsl.search.check import CheckResult
from nasdsl.search.results import Trials
from nasdsl.spaces import Filled
from torture.processes import Command
from torture.subject import Case, Report, Subject

WRONG = 0.3
"""Share of evaluations that go wrong."""
CHEAP = ("raise", "memory", "nan")
"""What a worker survives."""
DEAR = ("garbage", "exit", "kill", "hang", "allocate")
"""What costs the worker, and is tried twice; or takes more memory than it may."""
KINDS = ("inline", "process:2", "process:3", "folder:{folder}/shared")
MEGABYTES = 256
TIMEOUT = 10.0


@dataclass(frozen=True)
class Faults:
    """An evaluation.

    Attributes:
        dear: share of the wrong ones that cost their worker.
        log: file that gets a line for each evaluation that begins.
    """

    dear: float
    log: Path

    def kind(self, text: str) -> str:
        """What happens to a text."""
        rng = random.Random(sha256(text.encode()).hexdigest())
        if rng.random() >= WRONG:
            return "fine"
        return rng.choice(DEAR if rng.random() < self.dear else CHEAP)

    def __call__(self, text: str) -> Any:
        with open(self.log, "a") as file:
            file.write(json.dumps(text) + "\n")
        match self.kind(text):
            case "raise":
                raise RuntimeError("no such luck")
            case "memory":
                raise MemoryError
            case "nan":
                return math.nan
            case "garbage":
                return {"reward": "good"}
            case "exit":
                os._exit(7)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hang":
                time.sleep(10_000)
            case "allocate":
                now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + (4 << 30)
                resource.setrlimit(resource.RLIMIT_AS, (now, now))
                return float(len(bytes(1 << 40)))
        return value(text)


def check(text: Filled) -> CheckResult:
    """A fast check, of which few texts are duplicates."""
    return CheckResult(sha256(text.encode()).hexdigest(), {"macs": len(text), "params": 1})


def run(folder: Path, kind: str, trials: int, faults: Faults) -> None:
    """The search, which goes on where there is one."""
    search(
        SPACE, faults, Learner(SPACE), trials, out=folder / "run", resume=True, workers=kind.format(folder=folder), batch=4,
        check=check, quiet=True, timeout=None if kind == "inline" else TIMEOUT,
    )  # fmt: skip


def judge(found: Trials, faults: Faults, trials: int, report: Report) -> None:
    """Compare each trial with what its text does."""
    assert len(found) == trials, f"{len(found)} trials of {trials}"
    for trial in found:
        if trial.verdict in ("rejected", "duplicate"):
            continue
        kind = faults.kind(str(trial.text))
        report.count(f"evaluations: {kind}")
        if kind == "fine":
            assert (trial.verdict, trial.reward) == ("ok", value(str(trial.text))), f"{trial.number}: {trial.verdict}"
        else:
            assert trial.verdict not in ("ok", ""), f"trial {trial.number}, {kind}, has the verdict {trial.verdict!r}"
            assert trial.reward is None or not math.isfinite(trial.reward), f"{trial.number}: {trial.reward}"
    best = max((t for t in found if t.verdict == "ok"), key=lambda t: t.reward or -math.inf)
    assert found.best is not None
    assert found.best.reward == best.reward


@contextmanager
def start(folder: Path, trials: int = 1000, dear: float = 0.04) -> Iterator[Case]:
    """
    Args:
        trials: of a search.
        dear: of the wrong evaluations of workers in processes of their own.
    """
    import nasdsl.search.loop  # noqa: F401  # for those that are forked

    def case(number: int, report: Report) -> None:
        kind = KINDS[number % len(KINDS)]
        place = folder / f"case {number}"
        place.mkdir()
        faults = Faults(0.0 if kind == "inline" else dear, place / "log of evaluations")
        report.about(f"{trials} trials, {kind}, case {number}")
        report.count(f"trials, {kind.partition(':')[0]}", trials)
        here = str(Path(__file__).parents[1] / "search")
        os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([here, *filter(None, sys.path)]))  # for spawned workers
        workers = []
        if kind.startswith("folder"):
            for n in range(2):
                arguments = ["worker", str(place / "shared"), "--idle", "300", "--trust-pickle"]
                workers.append(Command(arguments, place / f"worker {n}"))
                workers[-1].start()
        command = Command(lambda: run(place, kind, trials, faults), place / "log")
        try:
            with report.step(kind.partition(":")[0]):
                code = command.run()
            if code:
                report.finding(f"{report.text}: it ended with code {code}: {(place / 'log').read_text()[-1500:]}")
                return
            if left := command.left_behind():
                report.finding(f"{report.text}: it leaves processes: {left}")
                command.kill_all()
            try:
                judge(load_trials(place / "run"), faults, trials, report)
            except AssertionError as error:
                report.finding(f"{report.text}: {error}")
        finally:
            for worker in workers:
                os.kill(worker.pid, signal.SIGTERM)
                worker.wait(60)
                if left := worker.left_behind():
                    report.finding(f"{report.text}: a worker leaves processes: {left}")
                    worker.kill_all()

    yield case


SUBJECT = Subject("workers", "searches", 8, start, hang=3600, per_process=1)
