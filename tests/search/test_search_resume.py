"""Searches that are killed, interrupted and resumed: no finished evaluation is lost or repeated."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from small_search import (
    SPACE,
    Learner,
    LoggedEvaluation,
    comparable,
    finished_texts,
    logged,
    plain_value,
    quick_check,
    value,
)

from nasdsl.search import SearchRun, load_trials, search
from nasdsl.search.errors import JournalError
from nasdsl.search.evaluation import Outcome
from nasdsl.search.history import history_of
from nasdsl.search.journal import FORMAT, Journal, read_journal
from nasdsl.search.trial import Thresholds
from nasdsl.search.workers.pool import Finished
from nasdsl.spaces import Filled
from nasdsl.training import Interrupted
from nasdsl.training.checkpoint import load_checkpoint, previous_path
from nasdsl.training.signals import SignalHandler

HERE = Path(__file__).parent
TRIALS = 40


def run(out: Path, log: Path, workers: str = "inline", trials: int = TRIALS, seconds: float = 0.02, batch: int = 4) -> None:
    search(
        SPACE, LoggedEvaluation(log, seconds), Learner(SPACE), trials, out=out, resume=True, workers=workers, batch=batch,
        check=quick_check, quiet=True,
    )  # fmt: skip


def run_in_child(*arguments: object) -> int:
    """Fork a process that runs a search and saves its state often; returns its id."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        signal.alarm(60)
        import nasdsl.search.loop

        nasdsl.search.loop.SAVE_EVERY = 0.05
        run(*arguments)  # type: ignore[arg-type]
        code = 0
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for_exit(pid: int) -> int:
    """The exit code of a child."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def has_exited(pid: int) -> bool:
    """Whether a process has exited; zombies have."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return True


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """The trials of an uninterrupted search."""
    folder = tmp_path_factory.mktemp("whole")
    run(folder / "run", folder / "log", seconds=0)
    return comparable(load_trials(folder / "run"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("workers", "first", "kills", "seconds"),
    [("inline", 0.0, 14, 0.02), pytest.param("process:2", 0.3, 6, 0.08, marks=pytest.mark.long)],
)
def test_kills_at_random_times_lose_and_repeat_nothing(
    workers: str, first: float, kills: int, seconds: float, tmp_path: Path, whole: list[object]
) -> None:
    """The evaluations take so long altogether that three kills come before the end, however fast processes start."""
    out, log = tmp_path / "run", tmp_path / "log"
    rng = random.Random(workers)
    finished: set[str] = set()
    happened = 0
    while happened < kills:
        child = run_in_child(out, log, workers, TRIALS, seconds)
        time.sleep(first + rng.random() * 0.25)
        os.kill(child, signal.SIGKILL)
        code = wait_for_exit(child)
        begun = Counter(logged(log, "begin"))
        have = finished_texts(out)
        assert finished <= have  # nothing that the journal had is lost
        assert all(begun[text] == 1 or text not in finished for text in begun), "a finished evaluation was repeated"
        finished = {text for text in have if begun[text] == 1}
        if code == 0:
            break
        assert code == -signal.SIGKILL
        happened += 1
    assert happened >= 3
    before = Counter(logged(log, "begin"))
    known = finished_texts(out)
    assert wait_for_exit(run_in_child(out, log, workers, TRIALS, seconds)) == 0
    assert comparable(load_trials(out)) == whole
    after = Counter(logged(log, "begin"))
    assert {text for text in after if after[text] > before[text]} & known == set()
    # Each kill can cost what was under way, and not more.
    assert sum(after.values()) <= len(after) + happened * (2 if workers != "inline" else 1)
    assert set(finished_texts(out)) == set(after)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_journal_cut_after_or_within_any_record_is_resumed_to_the_same_trials(tmp_path: Path, whole: list[object]) -> None:
    """As a kill between any two writes leaves it, without a state of the strategy or with a later one."""
    run(tmp_path / "full", tmp_path / "log", seconds=0)
    data = SearchRun(tmp_path / "full").journal.read_bytes()
    state = SearchRun(tmp_path / "full").strategy.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    rng = random.Random(0)
    for end in [0, *ends[::9], *(rng.randrange(len(data)) for _ in range(7))]:
        part = SearchRun(tmp_path / f"cut {end}")
        part.folder.mkdir(exist_ok=True)
        part.journal.write_bytes(data[:end])
        if end % 2:
            part.strategy.write_bytes(state)
        known = finished_texts(part.folder)
        log = tmp_path / f"log {end}"
        run(part.folder, log, seconds=0)
        assert comparable(load_trials(part.folder)) == whole
        again = logged(log, "begin")
        assert len(again) == len(set(again))
        assert not known & set(again)


@pytest.mark.parametrize(
    ("workers", "signum"), [("inline", signal.SIGTERM), pytest.param("process:2", signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_signal_saves_exits_with_its_code_and_says_how_to_resume(
    workers: str, signum: signal.Signals, tmp_path: Path, whole: list[object]
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from pathlib import Path\nfrom small_search import SPACE, Learner, LoggedEvaluation, quick_check\n"
        "if __name__ == '__main__':\n"
        "    from nasdsl.search import search\n"
        f"    noted = LoggedEvaluation(Path({str(log)!r}), 0.05)\n"
        f"    search(SPACE, noted, Learner(SPACE), {TRIALS}, out={str(out)!r}, workers={workers!r}, batch=4,\n"
        "           check=quick_check)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    child = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 50
    while len(logged(log, "end")) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signum)
    said = child.communicate(timeout=50)[1]
    assert child.returncode == 128 + signum, said
    assert f"stopped by {signum.name}" in said
    assert f"in {out}; --resume" in said
    assert "Traceback" not in said
    assert Counter(logged(log, "begin")) == Counter(logged(log, "end"))  # they were within their time
    assert set(logged(log, "end")) == finished_texts(out)
    assert SearchRun(out).trials.exists()
    run(out, log, seconds=0)
    assert comparable(load_trials(out)) == whole
    assert max(Counter(logged(log, "begin")).values()) == 1


class SendsSignal(LoggedEvaluation):
    """Sends SIGTERM to this process during the fifth evaluation, which then takes long."""

    def __call__(self, text: str) -> object:
        if len(logged(self.file, "begin")) == 4:
            self.log("begin", text)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        return super().__call__(text)


def test_an_evaluation_that_takes_too_long_after_a_signal_is_abandoned_and_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: list[object]
) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    monkeypatch.setattr("nasdsl.search.loop.GRACE", 0.2)
    handler = signal.getsignal(signal.SIGTERM)
    began = time.monotonic()
    with pytest.raises(Interrupted) as leaving:
        search(SPACE, SendsSignal(log), Learner(SPACE), TRIALS, out=out, batch=4, check=quick_check, quiet=True)
    assert time.monotonic() - began < 5
    assert (leaving.value.code, leaving.value.step) == (143, 4)
    assert len(finished_texts(out)) == 4
    assert signal.getsignal(signal.SIGTERM) is handler
    run(out, log, seconds=0)
    assert comparable(load_trials(out)) == whole


def nested(text: str) -> float:
    """An evaluation with signal handlers of its own, which exits as trainings do."""
    raise Interrupted(signal.SIGINT, 3)


def test_an_evaluation_that_is_interrupted_itself_is_no_failure(tmp_path: Path) -> None:
    with pytest.raises(Interrupted) as leaving:
        search(SPACE, nested, Learner(SPACE), 3, out=tmp_path / "run", quiet=True)
    assert leaving.value.code == 130
    assert finished_texts(tmp_path / "run") == set()


def test_without_a_folder_signals_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SignalHandler, "_handle", lambda *_: pytest.fail("handled"))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has background processes ignore it

    def interrupt(text: str) -> float:
        signal.raise_signal(signal.SIGINT)  # raised here; by `os.kill` perhaps in some `__del__`
        return 0.0

    try:
        with pytest.raises(KeyboardInterrupt):
            search(SPACE, interrupt, Learner(SPACE), 3, quiet=True)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not Path("/proc").exists() or not hasattr(os, "fork"), reason="needs /proc and fork")
def test_workers_exit_with_a_search_that_is_killed(tmp_path: Path) -> None:
    out, log = tmp_path / "run", tmp_path / "log"
    child = run_in_child(out, log, "process:2", TRIALS, 30.0)
    deadline = time.monotonic() + 30
    while len(logged(log, "begin")) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    wait_for_exit(child)
    pids = {int(line.split()[1]) for line in log.read_text().splitlines()}
    assert len(pids) == 2
    assert child not in pids
    deadline = time.monotonic() + 5
    while not all(has_exited(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert all(has_exited(pid) for pid in pids)


class EndsLate:
    """Workers whose results come only while the search ends, after a signal."""

    size, evaluates_here = 1, False

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}

    def submit(self, number: int, text: str, thresholds: Thresholds) -> None:
        self.texts[number] = text

    def wait(self, seconds: float) -> list[Finished]:
        signal.raise_signal(signal.SIGTERM)
        return []

    def finish(self, seconds: float) -> list[Finished]:
        return [Finished(number, Outcome("ok", value(text), {}, 0.1), "late", 1) for number, text in self.texts.items()]

    def close(self) -> None:
        pass


def test_what_ends_after_a_signal_is_in_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.search.loop.make_workers", lambda *_: EndsLate())
    with pytest.raises(Interrupted) as leaving:
        search(SPACE, plain_value, Learner(SPACE), 9, out=tmp_path, batch=3, quiet=True)
    trials = load_trials(tmp_path)
    assert (leaving.value.code, leaving.value.step, len(trials)) == (143, 3, 3)
    assert [trial.reward for trial in trials] == [value(trial.text) for trial in trials]


# ------------------------------------------------------------------------------------ the strategy's state


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search that has ended."""
    folder = tmp_path_factory.mktemp("finished")
    run(folder / "run", folder / "log", seconds=0)
    return folder / "run"


def resumed_with(strategy: Learner, out: Path, whole: list[object]) -> str:
    """Resume a search that has all its results; returns how the journal says that the strategy was brought to its end."""
    search(SPACE, plain_value, strategy, TRIALS, out=out, resume=True, batch=4, check=quick_check, quiet=True)
    assert comparable(load_trials(out)) == whole
    records = read_journal(SearchRun(out).journal)[0]
    return str(next(record["restored"] for record in records if record["kind"] == "resume"))


def test_results_that_the_strategy_has_not_observed_are_given_to_it_though_nothing_is_left_to_evaluate(
    tmp_path: Path, finished: Path, whole: list[object]
) -> None:
    """As after a kill at the very end."""
    shutil.copytree(finished, tmp_path / "run")
    SearchRun(tmp_path / "run").strategy.unlink()
    strategy, expected = Learner(SPACE), Learner(SPACE)
    assert resumed_with(strategy, tmp_path / "run", whole) == f"{TRIALS} proposals replayed"
    load = load_checkpoint(SearchRun(tmp_path / "run").strategy)
    assert load is not None
    expected.load(load.state["strategy"])
    assert (load.state["observed"], expected.calls) == (TRIALS, strategy.calls)


class OfAnotherVersion(Learner):
    """A strategy that can read its initial state alone."""

    def load(self, state: Mapping[str, Any]) -> None:
        if state["calls"] != "seed 0":
            raise ValueError("state of another version")
        super().load(state)


@pytest.mark.parametrize("how", ["unreadable", "of another version"])
def test_a_state_that_cannot_be_used_is_made_anew_from_the_journal(
    how: str, tmp_path: Path, finished: Path, whole: list[object]
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    state = SearchRun(tmp_path / "run").strategy
    if how == "unreadable":
        for path in (state, previous_path(state)):
            path.write_bytes(b"no state")
    strategy = Learner(SPACE) if how == "unreadable" else OfAnotherVersion(SPACE)
    assert resumed_with(strategy, tmp_path / "run", whole) == f"{TRIALS} proposals replayed"


class CountsThreads(Learner):
    """Notes the number of torch's threads in each call."""

    def __init__(self) -> None:
        super().__init__(SPACE)
        self.threads: list[int] = []

    def propose(self) -> Filled:
        self.threads.append(torch.get_num_threads())
        return super().propose()

    def observe(self, text: Filled, reward: float | None) -> None:
        self.threads.append(torch.get_num_threads())


@pytest.mark.parametrize("imported", [True, False])
def test_strategies_compute_on_one_thread_where_torch_is_imported(imported: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums over several threads may differ from run to run."""
    if not imported:
        monkeypatch.setitem(sys.modules, "torch", None)
    strategy, before = CountsThreads(), torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        search(SPACE, lambda text: 0.0, strategy, 2, check=quick_check, quiet=True)
        assert set(strategy.threads) == ({1} if imported else {3})
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


# ------------------------------------------------------------------------------------ journals that nobody wrote


PROPOSAL = {
    "kind": "proposal", "number": 0, "observed": 0, "text": "decoder …", "indices": [0], "digest": "a", "figures": {},
    "time": 1.0,
}  # fmt: skip
RESULT = {
    "kind": "result", "number": 0, "verdict": "ok", "reward": -1.0, "score": -1.0, "details": {}, "seconds": 1.0, "attempts": 1,
    "worker": "inline", "time": 2.0,
}  # fmt: skip
START = {"kind": "start", "format": FORMAT}


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([{**START, "format": "nasdsl search 0"}], rf"journal.jsonl is not of the format '{FORMAT}'"),
        ([PROPOSAL], r"journal.jsonl is not of the format"),
        (
            [START, PROPOSAL, PROPOSAL],
            r"journal.jsonl:3: the record does not fit those before it: trial 0 where 1 was expected",
        ),
        ([START, PROPOSAL, RESULT, RESULT], r"journal.jsonl:4: .*: a second result of trial 0"),
        ([START, RESULT], r"journal.jsonl:2: the record does not fit those before it: "),
        ([START, PROPOSAL, {"kind": "result"}], r"journal.jsonl:3: .*: 'number'"),
    ],
)
def test_records_that_contradict_each_other_are_refused(records: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(JournalError, match=says):
        history_of(records, Path("journal.jsonl"))


def test_records_of_kinds_that_are_not_known_are_passed_over() -> None:
    history = history_of([START, PROPOSAL, {"kind": "of a later version"}, RESULT], None)
    assert [trial.reward for trial in history] == [-1.0]


def test_a_result_that_is_missing_though_proposals_depend_on_it_is_named(tmp_path: Path) -> None:
    run(tmp_path / "run", tmp_path / "log", trials=6, seconds=0, batch=1)
    folder = SearchRun(tmp_path / "run")
    records = read_journal(folder.journal)[0]
    (number, *_) = (record["number"] for record in records if record["kind"] == "result")
    folder.strategy.unlink()
    folder.journal.unlink()
    journal = Journal(folder.journal)
    for record in records:
        if (record["kind"], record.get("number")) != ("result", number):
            journal.append(record, sync=False)
    journal.close()
    says = f"proposals that were made after the result of trial {number}, but not that result"
    with pytest.raises(JournalError, match=says):
        run(tmp_path / "run", tmp_path / "log", trials=6, seconds=0, batch=1)


def test_a_complete_search_can_be_extended(tmp_path: Path) -> None:
    """With a batch of one, to the trials of a longer search."""
    run(tmp_path / "long", tmp_path / "log", seconds=0, batch=1)
    for trials in (0, 10, 25, TRIALS, 20):
        run(tmp_path / "short", tmp_path / "more log", trials=trials, seconds=0, batch=1)
    assert comparable(load_trials(tmp_path / "short")) == comparable(load_trials(tmp_path / "long"))
    assert max(Counter(logged(tmp_path / "more log", "begin")).values()) == 1
