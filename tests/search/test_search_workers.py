"""Workers that die, hang, return no reward or do not start; and the speed of several."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_search import (
    SPACE,
    FaultyEvaluation,
    HoldsFile,
    Learner,
    LeavesChild,
    LoggedEvaluation,
    Unloadable,
    comparable,
    environment,
    logged,
    plain_value,
    quick_check,
    slow_value,
    value,
)

from nasdsl.search import SearchError, Trial, WorkerError, search
from nasdsl.search.evaluation import Outcome
from nasdsl.search.trial import Thresholds
from nasdsl.search.workers import make_workers, parse_workers
from nasdsl.search.workers.inline import InlineWorker
from nasdsl.search.workers.pool import CannotLoad, Finished, Pool, WorkerLost
from nasdsl.search.workers.process import ProcessWorker, _environment, parse_message

HERE = Path(__file__).parent


def kind_of(trial: Trial, kinds: str) -> str:
    """What `FaultyEvaluation` does with the trial's text."""
    return kinds.split()[int(sha256(trial.text.encode()).hexdigest()[:4], 16) % len(kinds.split())]


@pytest.mark.parametrize("workers", ["process:1", "process:3"])
def test_trials_do_not_depend_on_the_workers(workers: str, tmp_path: Path) -> None:
    trials = {}
    for kind in ("inline", workers):
        log = tmp_path / kind
        trials[kind] = search(
            SPACE, LoggedEvaluation(log, 0.01), Learner(SPACE), 60, workers=kind, batch=5, check=quick_check, quiet=True
        )
        assert max(Counter(logged(log, "begin")).values()) == 1
    assert comparable(trials[workers]) == comparable(trials["inline"])
    pids = {line.split()[1] for line in (tmp_path / workers).read_text().splitlines()}
    assert len(pids) == int(workers[-1])
    assert str(os.getpid()) not in pids


LOST = {
    "kill": "killed by SIGKILL",
    "exit": "ended with code 7",
    "hang": "no result within 0.5 s",
    "garbage": "evaluate returned 'good'; expected a number, EvaluationResult, or a mapping with `reward`",
}


@pytest.mark.parametrize("workers", [pytest.param("process:1", marks=pytest.mark.long), "process:2"])
def test_the_sample_of_a_lost_worker_is_evaluated_once_more_by_another(workers: str, tmp_path: Path) -> None:
    kinds = "fine kill exit hang garbage"
    evaluate = FaultyEvaluation(tmp_path / "log", once=True, kinds=kinds)
    trials = search(SPACE, evaluate, Learner(SPACE, 6), 6, workers=workers, batch=6, timeout=0.5, quiet=True)
    seen = Counter()
    for trial in trials:
        assert (trial.verdict, trial.reward) == ("ok", value(trial.text))
        kind = kind_of(trial, kinds)
        seen[kind] += 1
        assert trial.attempts == (1 if kind == "fine" else 2)
        if kind != "fine":
            worker, _, reason = trial.details["lost"][0].partition(": ")
            assert reason == LOST[kind]
            assert workers == "process:1" or worker != trial.worker
    assert set(seen) == set(kinds.split())


@pytest.mark.long
def test_a_sample_that_loses_two_workers_fails(tmp_path: Path) -> None:
    kinds = "fine kill exit hang garbage"
    evaluate = FaultyEvaluation(tmp_path / "log", once=False, kinds=kinds)
    trials = search(SPACE, evaluate, Learner(SPACE, 6), 6, workers="process:2", batch=6, timeout=0.5, quiet=True)
    assert {kind_of(trial, kinds) for trial in trials} == set(kinds.split())
    for trial in trials:
        kind = kind_of(trial, kinds)
        if kind == "fine":
            assert (trial.verdict, trial.attempts) == ("ok", 1)
        else:
            assert (trial.verdict, trial.reward, trial.attempts) == (f"failed: {LOST[kind]}", None, 2)
            assert len({lost.partition(":")[0] for lost in trial.details["lost"]}) == 2
    assert max(Counter(logged(tmp_path / "log", "begin")).values()) == 2


def test_a_sample_that_raises_fails_at_once_and_the_worker_goes_on(tmp_path: Path) -> None:
    kinds = "fine raise nan memory leave"
    evaluate = FaultyEvaluation(tmp_path / "log", once=False, kinds=kinds)
    trials = search(SPACE, evaluate, Learner(SPACE, 6), 6, workers="process:1", batch=6, quiet=True)
    verdicts = {kind_of(trial, kinds): trial.verdict for trial in trials}
    assert verdicts == {
        "fine": "ok",
        "raise": "failed: RuntimeError: no such luck",
        "nan": "diverged",
        "memory": "failed: out of memory",
        "leave": "failed: SystemExit: 3",
    }
    assert {trial.attempts for trial in trials} == {1}
    lines = (tmp_path / "log").read_text().splitlines()
    assert len({line.split()[1] for line in lines}) == 1
    assert "no such luck" in next(t for t in trials if "luck" in t.verdict).details["traceback"]


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
def test_a_dead_worker_is_noticed_and_its_children_are_killed(tmp_path: Path) -> None:
    began = time.monotonic()
    trial = search(SPACE, LeavesChild(tmp_path / "pid"), Learner(SPACE), 1, workers="process:1", quiet=True)[0]
    assert (trial.verdict, trial.attempts) == ("ok", 2)
    assert time.monotonic() - began < 20
    status = Path(f"/proc/{(tmp_path / 'pid').read_text()}/status")
    deadline = time.monotonic() + 5
    while status.exists() and "\nState:\tZ" not in status.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not status.exists() or "\nState:\tZ" in status.read_text()


def test_evaluations_that_cannot_be_pickled(tmp_path: Path) -> None:
    with open(os.devnull) as file:
        for evaluate in (lambda text: 0.0, HoldsFile(file)):
            with pytest.raises(WorkerError, match=r"cannot be sent to other processes: .*Expected a function at the top level"):
                search(SPACE, evaluate, Learner(SPACE), 3, out=tmp_path / "run", workers="process:1", quiet=True)
    with pytest.raises(WorkerError, match=r"cannot be loaded in another process: ValueError: .*no number"):
        search(SPACE, Unloadable(), Learner(SPACE), 3, workers="process:2", quiet=True)
    # The folder is not spoilt: with an evaluation that works, it goes on.
    trials = search(SPACE, plain_value, Learner(SPACE), 3, out=tmp_path / "run", resume=True, quiet=True)
    assert [t.verdict for t in trials] == ["ok"] * 3


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "says"),
    [
        (
            "from nasdsl.search.workers import make_workers\nmake_workers('process:1', lost)\n",
            "needs its code under `if __name__",
        ),
        ("if __name__ == '__main__':\n def here(text): return 0.0\n {search}", "cannot be loaded in another process"),
        ("def here(text): return 0.0\nif __name__ == '__main__':\n {search}", ""),
    ],
    ids=["no guard", "under the guard", "right"],
)
def test_scripts_with_and_without_the_guard_that_spawn_needs(script: str, says: str, tmp_path: Path) -> None:
    text = "from small_search import SPACE, Learner, plain_value as lost\n" + script.replace(
        "{search}",
        "from nasdsl.search import search; print(search(SPACE, here, Learner(SPACE), 2, workers='process:1', quiet=True))",
    )
    (tmp_path / "script.py").write_text(text)
    ran = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, check=False, timeout=100
    )
    assert (ran.returncode == 0) == (not says), ran.stderr
    assert says in ran.stderr


def test_cores_and_gpus_are_divided_among_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    trials = search(SPACE, environment, Learner(SPACE), 12, workers="process:3", quiet=True)
    seen = {(trial.worker, trial.details["gpu"], trial.details["threads"]) for trial in trials}
    threads = str(max(1, (os.cpu_count() or 1) // 3))
    assert seen == {("process 0", "3", threads), ("process 1", "GPU-5", threads), ("process 2", "3", threads)}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3,GPU-5"
    assert "OMP_NUM_THREADS" not in os.environ
    with _environment({"CUDA_VISIBLE_DEVICES": "1", "NASDSL_NEW": "x"}):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert "NASDSL_NEW" not in os.environ


@pytest.mark.parametrize(
    "message",
    [
        None, 3, "ok", [], {}, {"verdict": "ok"}, {"ready": 1},
        {"verdict": "ok", "reward": "1", "details": {}, "seconds": 0, "retry": False},
        {"verdict": "ok", "reward": 1, "details": [], "seconds": 0, "retry": False},
        {"verdict": 1, "reward": 1, "details": {}, "seconds": 0, "retry": False},
        {"verdict": "ok", "reward": 1, "details": {}, "seconds": 0, "retry": False, "more": 1},
    ],
)  # fmt: skip
def test_invalid_messages(message: object) -> None:
    with pytest.raises(WorkerLost, match="no result"):
        parse_message(message)


def test_messages() -> None:
    assert parse_message({"ready": True}) is None
    assert parse_message({"verdict": "ok", "reward": 1.5, "details": {}, "seconds": 2, "retry": False}) == Outcome(
        "ok", 1.5, {}, 2
    )
    with pytest.raises(CannotLoad, match="why"):
        parse_message({"cannot_load": "why"})


class NeverStarts:
    """A worker that never starts."""

    name = "broken"
    starts = 0

    def start(self) -> None:
        self.starts += 1

    def send(self, text: str, thresholds: Thresholds) -> None:
        raise AssertionError

    def receive(self) -> Outcome | None:
        raise WorkerLost("is out of order")

    def kill(self) -> None:
        pass


def test_workers_that_never_start_raise_an_error() -> None:
    worker = NeverStarts()
    with pytest.raises(WorkerError, match="do not start; the last one, broken, is out of order"):
        Pool([worker], lambda workers, seconds: workers, None)
    assert worker.starts == 2


class Scripted:
    """A worker whose starts and evaluations succeed or fail as listed; after the end of a list they fail.

    Attributes:
        texts: that it was given.
    """

    def __init__(self, name: str, starts: str, evaluations: str) -> None:
        self.name, self._starts, self._evaluations = name, list(starts), list(evaluations)
        self.texts: list[str] = []
        self._next: list[str] = []

    def start(self) -> None:
        self._next = self._starts

    def send(self, text: str, thresholds: Thresholds) -> None:
        self.texts.append(text)
        self._next = self._evaluations

    def receive(self) -> Outcome | None:
        if not self._next or self._next.pop(0) != "+":
            raise WorkerLost("is gone")
        return None if self._next is self._starts else Outcome("ok", 1.0, {}, 0.0)

    def kill(self) -> None:
        pass


def results_of(workers: list[Scripted], texts: int) -> dict[int, tuple[str, int]]:
    """Verdict and attempts of each text."""
    pool = Pool(workers, lambda active, seconds: active[:1], None)
    for number in range(texts):
        pool.submit(number, f"text {number}", {})
    finished: dict[int, tuple[str, int]] = {}
    while len(finished) < texts:
        finished |= {done.number: (done.outcome.verdict, done.attempts) for done in pool.wait(0)}
    pool.close()
    return finished


def test_a_worker_that_is_gone_for_good_does_not_end_the_search() -> None:
    """As when a GPU fails, or a machine of a Ray cluster."""
    good, gone = Scripted("good", "+", "+" * 6), Scripted("gone", "+--", "+-")
    with pytest.warns(UserWarning, match=r"gone does not start any more \(is gone\); the search goes on with 1 of 2 workers"):
        finished = results_of([gone, good], 6)
    assert [verdict for verdict, _ in finished.values()] == ["ok"] * 6
    assert sorted(attempts for _, attempts in finished.values()) == [1, 1, 1, 1, 1, 2]
    assert len(gone.texts) == 2


def test_the_last_worker_may_repeat_a_text_that_it_was_lost_over() -> None:
    gone, last = Scripted("gone", "+--", "-"), Scripted("last", "++", "-++")
    with pytest.warns(UserWarning, match="gone does not start"):
        finished = results_of([gone, last], 2)
    assert list(finished.values()) == [("ok", 2)] * 2
    assert last.texts == ["text 1", "text 0", "text 1"]


def test_a_worker_that_starts_at_the_second_attempt_is_kept() -> None:
    often = Scripted("often", "+" + "-+" * 4, "-" * 4 + "+" * 9)
    assert {verdict for verdict, _ in results_of([often, Scripted("good", "+", "+" * 9)], 6).values()} == {"ok"}


def test_when_all_workers_are_gone_the_search_ends() -> None:
    with pytest.warns(UserWarning, match="does not start"), pytest.raises(WorkerError, match="workers do not start"):
        results_of([Scripted("a", "+--", "-"), Scripted("b", "+--", "-")], 3)


def first_of(active: Sequence[Any], seconds: float) -> Sequence[Any]:
    return active[:1]


def summary(finished: Sequence[Finished]) -> list[tuple[int, str, int, tuple[str, ...]]]:
    return [(done.number, done.outcome.verdict, done.attempts, done.lost) for done in finished]


def test_a_text_that_loses_its_workers_twice_fails_with_both_reasons() -> None:
    pool = Pool([Scripted("one", "++", "-+"), Scripted("two", "++", "-+")], first_of, None)
    pool.submit(5, "text", {})
    finished: list[Finished] = []
    while not finished:
        finished += pool.wait(0)
    assert summary(finished) == [(5, "failed: is gone", 2, ("one: is gone", "two: is gone"))]
    assert finished[0].outcome.details == {"error": "is gone"}
    while pool._deadlines:  # the lost workers start anew
        pool.wait(0)
    assert pool.wait(0) == []  # nothing is under way
    pool.submit(6, "another", {})
    assert summary(pool.wait(0)) == [(6, "ok", 1, ())]


def test_a_search_that_ends_neither_starts_workers_nor_counts_what_they_lose() -> None:
    """The texts are evaluated again after a resume."""
    lost, good = Scripted("lost", "+", "-"), Scripted("good", "+", "+")
    pool = Pool([lost, good], first_of, None)
    for number in range(3):
        pool.submit(number, f"text {number}", {})
    assert summary(pool.finish(10)) == [(1, "ok", 1, ())]
    assert (lost.texts, good.texts) == (["text 0"], ["text 1"])
    pool = Pool([Scripted("one", "++", "-"), Scripted("two", "+", "-")], first_of, None)
    pool.submit(0, "text", {})
    assert pool.wait(0) == []  # lost for the first time
    assert pool.finish(10) == []


class DiesIdle(Scripted):
    """A worker that cannot be sent the second text."""

    def send(self, text: str, thresholds: Thresholds) -> None:
        super().send(text, thresholds)
        if len(self.texts) == 2:
            raise WorkerLost("ended with code 1")


def test_a_worker_that_dies_while_it_is_idle_is_started_anew_and_the_text_has_lost_nothing() -> None:
    worker = DiesIdle("idle", "++", "+++")
    assert results_of([worker], 3) == dict.fromkeys(range(3), ("ok", 1))
    assert worker.texts == ["text 0", "text 1", "text 1", "text 2"]


class TooEarly(Scripted):
    """A worker that has a result before it was given a text."""

    begun = 0

    def start(self) -> None:
        self.begun += 1
        super().start()

    def receive(self) -> Outcome | None:
        return super().receive() or (Outcome("ok", 9.0, {}, 0.0) if len(self._starts) == 2 else None)


def test_a_result_without_a_task_is_nobodys_and_its_worker_is_started_anew() -> None:
    worker = TooEarly("early", "+++", "+")
    pool = Pool([worker], first_of, None)
    pool.submit(0, "text", {})
    (done,) = pool.wait(0)
    assert (done.outcome.reward, done.attempts) == (1.0, 1)
    assert worker.begun == 2


@pytest.mark.parametrize(
    ("sent", "code", "reason"),
    [
        (b"no json", None, "sent a message that is no result"),
        (b'"ok"', None, "sent .*no result"),
        (None, None, "closed its pipe"),
        (None, 3, "ended with code 3"),
        (None, -9, "killed by SIGKILL"),
        (None, "gone", "ended"),
    ],
)
def test_why_a_process_is_lost(sent: bytes | None, code: int | str | None, reason: str) -> None:
    worker = ProcessWorker("0", b"", {})
    worker.kill()  # it was not started
    worker._pipe, end = Pipe()
    if code != "gone":
        worker._process = SimpleNamespace(join=lambda seconds: None, exitcode=code)  # type: ignore[assignment]  # what is asked of one
    if sent is not None:
        end.send_bytes(sent)
    end.close()
    with pytest.raises(WorkerLost, match=reason):
        worker.receive()
    if sent is None:
        with pytest.raises(WorkerLost, match=reason):
            worker.send("text", {})


def test_without_a_text_an_inline_worker_does_not_wait() -> None:
    worker = InlineWorker(plain_value)
    assert worker.wait(1000) == []
    worker.submit(0, "text", {})
    assert summary(worker.wait(1000)) == [(0, "ok", 1, ())]
    assert worker.wait(1000) == []


def test_specifications() -> None:
    assert parse_workers("ray:4@auto") == ("ray", 4, "auto")
    assert parse_workers("ray@ray://head:10001") == ("ray", None, "ray://head:10001")
    assert parse_workers("process:12") == ("process", 12, None)
    for wrong in ("", "ray:", "process:-1", "inline:2", "process: 2", "process:2 ", "Ray"):
        with pytest.raises(SearchError, match="expected inline"):
            make_workers(wrong, plain_value)


def test_two_workers_are_twice_as_fast_as_one() -> None:
    """With evaluations that sleep, so that the overhead of the search is measured, on a busy machine as well."""
    paces = {}
    for count in (1, 2):
        workers = make_workers(f"process:{count}", partial(slow_value, seconds=0.1))
        for number in range(10 * count):
            workers.submit(number, f"text {number}", {})
        began, done = time.perf_counter(), 0
        while done < 10 * count:
            done += len(workers.wait(0.5))
        paces[count] = done / (time.perf_counter() - began)
        workers.close()
    assert paces[2] / paces[1] > 1.6
