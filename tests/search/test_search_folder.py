"""Workers that share a folder with the search: who takes what, and what is left when one of them is killed."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from cli.in_process import invoke
from small_search import (
    SPACE,
    FaultyEvaluation,
    Learner,
    LoggedEvaluation,
    comparable,
    finished_texts,
    logged,
    plain_value,
    quick_check,
    value,
)

from nasdsl.cli.worker import LINE_EVERY, _Display
from nasdsl.search import SearchError, WorkerError, load_trials, search
from nasdsl.search.evaluation import Evaluate, Outcome, run_evaluation
from nasdsl.search.proxy_evaluation import ProxyEvaluation
from nasdsl.search.trial import Thresholds
from nasdsl.search.workers import folder as search_side
from nasdsl.search.workers import folder_worker as worker_side
from nasdsl.search.workers import make_workers, parse_workers
from nasdsl.search.workers.folder import FolderWorkers
from nasdsl.search.workers.folder_files import (
    Heartbeat,
    Listener,
    SearchFolder,
    TaskName,
    move,
    search_folders,
    tasks_in,
    write_mapping,
)
from nasdsl.search.workers.folder_worker import FolderWorker, WorkerOptions
from nasdsl.training.proxy import ProxySpec


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats of a tenth of a second, and silence after one."""
    for module in (search_side, worker_side):
        monkeypatch.setattr(module, "BEAT", 0.1)
        monkeypatch.setattr(module, "SILENT", 1.0)
    monkeypatch.setattr(worker_side, "POLL", (0.02, 0.1))
    monkeypatch.setattr(search_side, "LOOK", 0.05)
    monkeypatch.setattr(search_side, "LONELY", 0.3)


# ------------------------------------------------------------------------------------ a worker by hand


class ByHand:
    """A worker that does what a test says, file by file."""

    def __init__(self, root: Path, name: str, identity: str = "id") -> None:
        self.name, self.folder = name, SearchFolder(root / "searches" / identity)
        self.heartbeat = Heartbeat(root / "workers" / name, 0.0)
        self.heartbeat.beat()

    def claim(self) -> TaskName:
        name = tasks_in(self.folder.waiting)[0]
        assert move(self.folder.waiting / str(name), self.folder.running / f"{name}@{self.name}")
        return name._replace(worker=self.name)

    def finish(self, name: TaskName, reward: float) -> None:
        outcome = {"verdict": "ok", "reward": reward, "details": {}, "seconds": 0.5, "retry": False}
        write_mapping(self.folder.results / str(name), {"outcome": outcome, "lost": []})
        (self.folder.running / str(name)).unlink(missing_ok=True)


def by_hand(root: Path, timeout: float | None = None) -> FolderWorkers:
    workers = make_workers(f"folder:{root}", plain_value, timeout, "id")
    assert isinstance(workers, FolderWorkers)
    return workers


def results(workers: FolderWorkers, seconds: float = 0.2) -> list[tuple[int, str, float | None, str, int]]:
    return [(f.number, f.outcome.verdict, f.outcome.reward, f.worker, f.attempts) for f in workers.wait(seconds)]


def test_a_task_goes_to_one_worker_and_its_result_to_the_search(tmp_path: Path) -> None:
    workers = by_hand(tmp_path)
    for number in range(3):
        workers.submit(number, f"text {number}", {7: 0.25})
    one, two = ByHand(tmp_path, "one"), ByHand(tmp_path, "two")
    first, second = one.claim(), two.claim()
    assert first.key != second.key
    content = json.loads((one.folder.running / str(first)).read_text())
    assert (content["text"], content["thresholds"]) == ("text 0", [[7, 0.25]])
    assert not move(one.folder.waiting / str(first._replace(worker="")), one.folder.running / "elsewhere")
    two.finish(second, 0.1 + 0.2)  # results come in any order, and exactly
    assert results(workers) == [(1, "ok", 0.1 + 0.2, "two", 1)]
    one.finish(first, 2)
    assert results(workers) == [(0, "ok", 2, "one", 1)]
    assert results(workers, 0) == []
    workers.close()
    assert one.folder.settings.exists()  # trial 2 is not done


def test_a_silent_worker_loses_its_task_and_its_late_result_is_harmless(tmp_path: Path) -> None:
    workers = by_hand(tmp_path)
    workers.submit(0, "text", {})
    slow, other = ByHand(tmp_path, "slow"), ByHand(tmp_path, "other")
    claimed = slow.claim()
    end = time.monotonic() + 1.3
    while time.monotonic() < end:  # while it has a heartbeat, it keeps it
        slow.heartbeat.beat()
        assert results(workers, 0.05) == []
    assert tasks_in(slow.folder.running) == [claimed]
    end = time.monotonic() + 10
    while not tasks_in(slow.folder.waiting) and time.monotonic() < end:
        other.heartbeat.beat()
        assert results(workers, 0.05) == []
    assert not (slow.folder.running / str(claimed)).exists()
    again = other.claim()
    assert (again.key, again.attempt) == (claimed.key, 2)
    content = json.loads((other.folder.running / str(again)).read_text())
    assert (content["avoid"], content["lost"]) == ("slow", ["slow: has been silent for 1 s"])
    slow.finish(claimed, 5)  # it was not dead
    assert results(workers) == [(0, "ok", 5, "slow", 2)]
    other.finish(again, 5)
    results(workers, 0.2)
    assert tasks_in(other.folder.results) == []
    workers.close()
    assert not other.folder.path.exists()


def test_a_clock_that_is_wrong_and_a_pause_of_the_search_do_not_matter(tmp_path: Path) -> None:
    workers = by_hand(tmp_path)
    workers.submit(0, "text", {})
    worker = ByHand(tmp_path, "worker")
    claimed = worker.claim()
    end, hour = time.monotonic() + 1.5, 3600
    while time.monotonic() < end:
        worker.heartbeat.beat()
        os.utime(worker.heartbeat.path, (hour, hour))  # as if it were always the same time there
        assert results(workers, 0.05) == []
    listener = Listener()
    listener.listen([worker.heartbeat.path])
    listener._last -= 1000  # the observer was stopped
    listener.listen([worker.heartbeat.path])
    assert not listener.is_silent(worker.heartbeat.path, 3)
    assert tasks_in(worker.folder.running) == [claimed]


def test_torn_files(tmp_path: Path) -> None:
    workers = by_hand(tmp_path)
    workers.submit(0, "text", {})
    one = ByHand(tmp_path, "one")
    for attempt in (1, 2):
        claimed = one.claim()
        assert claimed.attempt == attempt
        (one.folder.results / f".{claimed}.unfinished").write_text('{"outcome": {"verd')  # not there yet
        assert results(workers, 0.1) == []
        (one.folder.results / str(claimed)).write_text('{"outcome": {"verd')
        (one.folder.running / str(claimed)).unlink()
        expected = [] if attempt == 1 else [(0, "failed: wrote a result that cannot be read", None, "one", 2)]
        assert results(workers, 0.1) == expected


def test_files_that_somebody_removed_are_written_anew(tmp_path: Path) -> None:
    workers = by_hand(tmp_path)
    workers.submit(0, "text", {})
    folder = SearchFolder(tmp_path / "searches" / "id")
    (folder.waiting / str(tasks_in(folder.waiting)[0])).unlink()
    with pytest.warns(UserWarning, match=r"no worker takes the search's tasks: start some with `nasdsl worker "):
        results(workers, 1.3)
    assert len(tasks_in(folder.waiting)) == 1


def test_a_search_that_was_killed_finds_what_its_workers_did_meanwhile(tmp_path: Path) -> None:
    killed = by_hand(tmp_path)
    for number in range(5):
        killed.submit(number, f"text {number}", {})
    worker = ByHand(tmp_path, "worker")
    claimed = [worker.claim() for _ in range(4)]
    assert results(killed, 0.1) == []
    worker.finish(claimed[0], 10)  # after the last look of the search
    write_mapping(worker.folder.results / str(claimed[3]), {"reason": "killed by SIGKILL", "lost": []})
    (worker.folder.running / str(claimed[3])).unlink()

    resumed = by_hand(tmp_path)
    for number in range(5):
        resumed.submit(number, f"text {number}", {})
    assert results(resumed) == [(0, "ok", 10, "worker", 1)]
    assert tasks_in(worker.folder.running) == claimed[1:3]  # nobody does again what is under way
    assert [(name.key[:6], name.attempt) for name in tasks_in(worker.folder.waiting)] == [("000003", 2), ("000004", 1)]
    worker.finish(claimed[1], 11)
    assert results(resumed) == [(1, "ok", 11, "worker", 1)]
    resumed.submit(9, "text 0", {})  # another trial
    assert len(tasks_in(worker.folder.waiting)) == 3


def test_an_error_of_the_search_leaves_the_results(tmp_path: Path) -> None:
    workers = by_hand(tmp_path)
    workers.submit(0, "text", {})
    worker = ByHand(tmp_path, "worker")
    worker.finish(worker.claim(), 1)

    def loop() -> None:
        try:
            assert len(results(workers)) == 1
            raise OSError("the journal's disk is full")
        finally:
            workers.close()

    with pytest.raises(OSError, match="full"):
        loop()
    again = by_hand(tmp_path)
    again.submit(0, "text", {})
    assert results(again) == [(0, "ok", 1, "worker", 1)]
    again.close()
    assert not worker.folder.path.exists()


def test_a_search_that_is_interrupted_leaves_what_is_under_way(tmp_path: Path) -> None:
    workers = by_hand(tmp_path)
    for number in range(3):
        workers.submit(number, f"text {number}", {})
    worker = ByHand(tmp_path, "worker")
    quick, slow = worker.claim(), worker.claim()
    threading.Timer(0.1, worker.finish, (quick, 1.0)).start()
    assert [done.number for done in workers.finish(0.8)] == [0]
    assert tasks_in(worker.folder.waiting) == []  # nobody begins anything now
    assert [name.key for name in tasks_in(worker.folder.results)] == [quick.key]  # it may not be in the journal yet
    workers.close()
    worker.finish(slow, 2.0)
    again = by_hand(tmp_path)
    for number in (1, 2):
        again.submit(number, f"text {number}", {})
    assert [done.number for done in again.wait(0.2)] == [1]
    assert len(tasks_in(worker.folder.waiting)) == 1


def test_a_result_that_is_none_costs_an_attempt_and_one_that_is_not_there_yet_is_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = by_hand(tmp_path)
    workers.submit(0, "text", {})
    one = ByHand(tmp_path, "one")
    claimed = one.claim()
    write_mapping(one.folder.results / str(claimed), {"outcome": {"verdict": "ok"}})
    (one.folder.running / str(claimed)).unlink()
    assert results(workers, 0) == []
    again = one.claim()
    assert again.attempt == 2
    (reason,) = json.loads((one.folder.running / str(again)).read_text())["lost"]
    assert re.fullmatch("one: sent .* that is no result", reason)
    one.finish(again, 7)
    with monkeypatch.context() as patched:

        def not_yet(path: Path) -> dict[str, Any]:
            raise FileNotFoundError(path)

        patched.setattr(search_side, "read_mapping", not_yet)
        assert results(workers, 0) == []
    assert results(workers) == [(0, "ok", 7, "one", 2)]


def test_a_resumed_search_goes_on_with_the_latest_attempt(tmp_path: Path) -> None:
    killed = by_hand(tmp_path)
    killed.submit(0, "text", {})
    worker = ByHand(tmp_path, "worker")
    first = worker.claim()
    content = json.loads((worker.folder.running / str(first)).read_text())
    second = TaskName(first.key, 2)
    write_mapping(worker.folder.waiting / str(second), {**content, "lost": ["worker: was silent"], "avoid": "worker"})

    resumed = by_hand(tmp_path)
    resumed.submit(0, "text", {})
    assert tasks_in(worker.folder.waiting) == [second]
    worker.finish(worker.claim(), 3)
    (done,) = resumed.wait(0.2)
    assert (done.outcome.reward, done.attempts, done.lost) == (3, 2, ("worker: was silent",))


def test_what_waits_though_it_is_done_is_withdrawn(tmp_path: Path) -> None:
    workers = by_hand(tmp_path)
    for number in range(2):
        workers.submit(number, f"text {number}", {})
    worker = ByHand(tmp_path, "worker")
    done, waiting = worker.claim(), tasks_in(worker.folder.waiting)[0]
    worker.finish(done, 1)
    write_mapping(worker.folder.waiting / str(done._replace(attempt=2, worker="")), {})
    assert len(results(workers)) == 1
    results(workers, 0.1)
    assert tasks_in(worker.folder.waiting) == [waiting]


def test_more_workers_than_tasks_are_told_how_to_be_busy_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_side, "LOOK", 0)
    workers = by_hand(tmp_path)
    present = [ByHand(tmp_path, f"worker-{number}") for number in range(3)]
    says = r"3 workers share 1 trials in flight, so that some are idle: more of them \(--batch, batch=\) would keep all busy"

    def work() -> None:
        for number in range(6):
            workers.submit(number, "text", {})
            assert results(workers, 0) == []
            for worker in present:
                worker.heartbeat.beat()
            present[0].finish(present[0].claim(), number)
            assert len(results(workers, 1)) == 1

    with pytest.warns(UserWarning, match=says) as warned:
        work()
    assert len(warned) == 1


def test_shared_folders_that_are_gone_have_nothing_in_them_and_those_that_are_none_are_named(tmp_path: Path) -> None:
    workers = by_hand(tmp_path / "shared")
    assert search_folders(tmp_path / "shared") == [workers._folder]
    workers.submit(0, "text", {})
    shutil.rmtree(tmp_path / "shared")
    assert search_folders(tmp_path / "shared") == []
    assert results(workers, 0) == []
    shutil.rmtree(tmp_path / "shared", ignore_errors=True)  # a heartbeat may have made it again
    (tmp_path / "shared").write_text("")
    with pytest.raises(WorkerError, match=r"^the folder of the workers cannot be written: .*Not a directory"):
        workers.submit(1, "text", {})


def test_nasdsls_own_evaluations_are_given_to_workers_as_settings_and_others_as_a_pickle(tmp_path: Path) -> None:
    own = ProxyEvaluation(ProxySpec("shapes", backbone="resnet18"))
    workers = make_workers(f"folder:{tmp_path}", own, None, "own")
    assert isinstance(workers, FolderWorkers)
    folder = workers._folder
    assert json.loads(folder.settings.read_text())["proxy"]["spec"]["backbone"] == "resnet18"
    assert not folder.pickle.exists()
    other = by_hand(tmp_path)._folder
    assert json.loads(other.settings.read_text())["proxy"] is None
    assert pickle.loads(other.pickle.read_bytes()) is plain_value


# ------------------------------------------------------------------------------------ workers, evaluating in threads


class InThread:
    """Stands for the process in which a worker evaluates."""

    def __init__(self, name: str, payload: bytes, variables: object) -> None:
        import pickle

        self._load, self._lost = (lambda: pickle.loads(payload)), threading.Event()
        self.pipe: Connection
        self._evaluate: Evaluate

    def start(self) -> None:
        self.pipe, self._end = Pipe()
        self._evaluate = self._load()
        self._end.send(None)

    def send(self, text: str, thresholds: Thresholds) -> None:
        end, evaluate = self._end, self._evaluate

        def work() -> None:
            outcome = run_evaluation(evaluate, text, thresholds)
            if end is self._end:
                end.send(outcome)

        threading.Thread(target=work, daemon=True).start()

    def receive(self) -> Outcome | None:
        outcome: Outcome | None = self.pipe.recv()
        return outcome

    def has_died(self) -> bool:
        return False

    def kill(self) -> None:
        self._end = None  # type: ignore[assignment]


@contextmanager
def threads(root: Path, count: int, options: WorkerOptions | None = None) -> Iterator[list[FolderWorker]]:
    """Workers in threads of this process."""
    stop = threading.Event()
    options = options or WorkerOptions(trust_pickle=True)
    workers = [FolderWorker(root, options, lambda text: None) for _ in range(count)]
    running = [threading.Thread(target=worker.run, args=(stop.is_set,), daemon=True) for worker in workers]
    for thread in running:
        thread.start()
    try:
        yield workers
    finally:
        stop.set()
        for thread in running:
            thread.join(5)


@pytest.fixture
def _in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_side, "ProcessWorker", InThread)
    monkeypatch.setattr(worker_side, "PATIENCE", 0.5)


@pytest.mark.usefixtures("_in_threads")
def test_trials_are_those_of_an_inline_worker(tmp_path: Path) -> None:
    trials = {}
    with threads(tmp_path / "shared", 3) as workers:
        for kind in ("inline", f"folder:{tmp_path / 'shared'}"):
            log = LoggedEvaluation(tmp_path / kind[:6], 0.005)
            found = search(SPACE, log, Learner(SPACE), 40, workers=kind, batch=6, check=quick_check, quiet=True)
            assert max(Counter(logged(tmp_path / kind[:6], "begin")).values()) == 1
            trials[kind] = comparable(found)
        names = {worker.name for worker in workers if worker.evaluated}
        assert {trial.worker for trial in found if trial.evaluated} == names
        assert len(names) > 1
    inline, shared = trials.values()
    assert inline == shared
    assert list((tmp_path / "shared" / "searches").iterdir()) == []
    assert list((tmp_path / "shared" / "workers").iterdir()) == []


@pytest.mark.usefixtures("_in_threads")
@pytest.mark.parametrize("count", [1, 2])
def test_a_text_without_a_reward_is_left_to_another_worker_if_there_is_one(count: int, tmp_path: Path) -> None:
    evaluate = FaultyEvaluation(tmp_path / "log", once=True, kinds="garbage")
    with threads(tmp_path / "shared", count):
        trials = search(SPACE, evaluate, Learner(SPACE), 3, workers=f"folder:{tmp_path / 'shared'}", batch=3, quiet=True)
    for trial in trials:
        assert (trial.verdict, trial.reward, trial.attempts) == ("ok", value(trial.text), 2)
        loser, _, reason = trial.details["lost"][0].partition(": ")
        assert reason.startswith("evaluate returned 'good'")
        assert (loser == trial.worker) == (count == 1)


@pytest.mark.usefixtures("_in_threads")
def test_workers_take_part_in_several_searches_and_not_in_those_of_a_search_that_is_gone(tmp_path: Path) -> None:
    gone = by_hand(tmp_path)
    gone.submit(0, "text", {})
    gone._heartbeat.stop()
    with threads(tmp_path, 1) as (worker,):
        for seed in (1, 2):
            found = search(SPACE, plain_value, Learner(SPACE, seed), 4, workers=f"folder:{tmp_path}", batch=2, quiet=True)
            assert [trial.reward for trial in found] == [value(trial.text) for trial in found]
        assert worker.evaluated == 8
    assert len(tasks_in(SearchFolder(tmp_path / "searches" / "id").waiting)) == 1


@pytest.mark.usefixtures("_in_threads")
def test_workers_that_must_not_take_part_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = by_hand(tmp_path)
    workers.submit(0, "text", {})
    alive = threading.Event()

    def live() -> None:
        while not alive.wait(0.05):
            workers.wait(0)

    threading.Thread(target=live, daemon=True).start()

    def refusal(**options: Any) -> str:
        with pytest.raises(WorkerError) as refused:
            FolderWorker(tmp_path, WorkerOptions(**options), lambda text: None).run(lambda: False)
        return str(refused.value)

    assert "whoever can write this file can run any code here: if you trust them, start the worker with --trust-pickle" in (
        refusal()
    )
    monkeypatch.setattr(worker_side, "versions", lambda: {"nasdsl": "9", "torch": "1.0"})
    assert "nasdsl 0.1.0 (here 9), torch " in refusal(trust_pickle=True)
    settings = SearchFolder(tmp_path / "searches" / "id").settings
    write_mapping(settings, {**json.loads(settings.read_text()), "format": "nasdsl worker folder 2"})
    assert "not of the format 'nasdsl worker folder 1'" in refusal(trust_pickle=True)
    alive.set()


@pytest.mark.usefixtures("_in_threads")
def test_an_idle_worker_ends_if_it_is_to(tmp_path: Path) -> None:
    worker = FolderWorker(tmp_path, WorkerOptions(idle=0.1), lambda text: None)
    worker.run(lambda: False)
    assert worker.evaluated == 0
    assert list((tmp_path / "workers").iterdir()) == []


def test_specifications(tmp_path: Path) -> None:
    assert parse_workers("folder:/a:b@c", 3.0) == ("folder", None, "/a:b@c")
    for wrong in ("folder:", "folder"):
        with pytest.raises(SearchError, match=r"expected inline, .* or folder:DIR"):
            parse_workers(wrong)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkerError, match=r"the folder of the workers cannot be used: .*file"):
        make_workers(f"folder:{tmp_path / 'file'}", plain_value)
    with pytest.raises(WorkerError, match="cannot be sent to other processes"):
        make_workers(f"folder:{tmp_path / 'shared'}", lambda text: 0.0)
    with pytest.raises(WorkerError, match="file cannot be used as the folder of a search"):
        FolderWorker(tmp_path / "file", WorkerOptions(), lambda text: None)


# ------------------------------------------------------------------------------------ real processes


QUICK = """
from nasdsl.search.workers import folder, folder_worker
for module in (folder, folder_worker):
    module.BEAT, module.SILENT = 0.1, 1.5
folder.LOOK = folder_worker.PATIENCE = 0.1
"""


def start_worker(root: Path) -> subprocess.Popen[str]:
    """``nasdsl worker`` with quick heartbeats."""
    code = f"{QUICK}\nif __name__ == '__main__':\n    from nasdsl.cli import cli\n    cli()\n"
    script = root.parent / "worker.py"
    script.write_text(code)
    command = [sys.executable, str(script), "worker", str(root), "--trust-pickle", "--threads", "1"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:no worker takes the search's tasks")  # on a slow machine they start late
def test_workers_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    """Two real ones: one is killed in the midst, and what it was evaluating ends with it; the other is ended by SIGTERM."""
    shared, log = tmp_path / "shared", tmp_path / "log"
    killed, stopped = start_worker(shared), start_worker(shared)

    def kill() -> None:
        mine: list[str] = []
        while not mine:
            time.sleep(0.02)
            mine = [p.name for p in shared.glob("searches/*/running/*") if f"-{killed.pid}-" in p.name]
        killed.kill()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    evaluate = LoggedEvaluation(log, 0.3)
    found = search(SPACE, evaluate, Learner(SPACE), 8, workers=f"folder:{shared}", batch=4, check=quick_check, quiet=True)
    killer.join(10)
    stopped.terminate()
    assert "ends after" in stopped.communicate(timeout=20)[1]
    assert stopped.returncode == 128 + signal.SIGTERM
    killed.communicate(timeout=20)
    assert killed.returncode == -signal.SIGKILL
    inline = search(SPACE, LoggedEvaluation(log, 0), Learner(SPACE), 8, batch=4, check=quick_check, quiet=True)
    assert [(t.verdict, t.reward, t.text) for t in found] == [(t.verdict, t.reward, t.text) for t in inline]
    lost = [trial for trial in found if trial.attempts == 2 and trial.evaluated]
    assert len(lost) == 1
    assert lost[0].details["lost"][0].endswith("has been silent for 1 s")


@pytest.mark.long
def test_searches_that_are_killed_and_resumed_lose_and_repeat_nothing(tmp_path: Path) -> None:
    out, log, shared = tmp_path / "run", tmp_path / "log", tmp_path / "shared"
    code = (
        f"{QUICK}\nimport sys\nfrom pathlib import Path\n"
        "from small_search import SPACE, Learner, LoggedEvaluation, quick_check\n"
        "from nasdsl.search import search\n"
        f"search(SPACE, LoggedEvaluation(Path({str(log)!r}), 0.1), Learner(SPACE), 24, out={str(out)!r}, resume=True,\n"
        f"       workers='folder:{shared}', batch=4, check=quick_check, quiet=True)\n"
    )
    (tmp_path / "search.py").write_text(code)
    workers = [start_worker(shared) for _ in range(2)]
    try:
        for kills in range(20):  # noqa: B007
            ran = subprocess.Popen([sys.executable, str(tmp_path / "search.py")])
            known = finished_texts(out)
            while ran.poll() is None and len(finished_texts(out)) < len(known) + 5:
                time.sleep(0.02)
            if ran.poll() is not None:
                break
            ran.kill()
            ran.wait()
            time.sleep(0.5)  # meanwhile the workers end what they have
        assert ran.returncode == 0
        assert kills >= 3
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.communicate(timeout=20)
    whole = search(SPACE, LoggedEvaluation(tmp_path / "other", 0), Learner(SPACE), 24, batch=4, check=quick_check, quiet=True)
    assert comparable(load_trials(out)) == comparable(whole)
    assert max(Counter(logged(log, "begin")).values()) == 1  # no kill of the search has cost an evaluation


# ------------------------------------------------------------------------------------------------ the command


class Idle:
    """Stands for a worker, whose run is a function."""

    run: Any

    def __init__(self, folder: Path, options: Any, say: Any, show: Any) -> None:
        self.name, self.status, self.show = "here", "waits", show
        self.evaluated, self.seconds, self.lost = 0, 0.0, 0


def test_the_first_ctrl_c_lets_the_evaluation_end_and_the_second_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    monkeypatch.setattr(worker_side, "FolderWorker", Idle)
    received: list[int] = []

    def run(self: Idle, stopped: Any) -> None:
        for count, number in enumerate(received):
            assert stopped() == (count > 0)
            handlers[number](number, None)
        assert stopped()

    monkeypatch.setattr(Idle, "run", run, raising=False)
    for received[:] in ([signal.SIGTERM], [signal.SIGINT, signal.SIGTERM], [signal.SIGINT, signal.SIGINT]):
        shown = invoke("worker", tmp_path)
        ended = "here ends after 0 evaluations\n" if received[-1] == signal.SIGTERM else ""
        assert (shown.exit_code, shown.stderr) == (128 + received[0], f"here takes trials from {tmp_path}\n{ended}")
        written = capfd.readouterr().err
        notice = f"\nthe evaluation under way has {worker_side.GRACE:g} s to end; Ctrl-C again leaves at once\n"
        assert written == notice * (1 + (received[-1] == signal.SIGTERM and len(received) == 2))


def test_the_status_of_a_worker_is_a_line_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    worker: Any = Idle(tmp_path, None, None, None)
    display = _Display()
    display.worker = worker
    with display:
        for now[0], evaluated in ((1.0, 1), (LINE_EVERY + 1, 2), (2 * LINE_EVERY, 3), (3 * LINE_EVERY, 2), (4 * LINE_EVERY, 4)):
            worker.evaluated, worker.seconds = evaluated, 1.5 * evaluated
            display.show()
        worker.lost, now[0] = 1, 5 * LINE_EVERY
        display.show()
    assert capsys.readouterr().err.splitlines() == [
        "waits  2 evaluations, 1.5 s each", "waits  4 evaluations, 1.5 s each", "waits  4 evaluations, 1.5 s each, 1 lost",
    ]  # fmt: skip


def test_the_status_of_a_worker_is_in_place_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    display = _Display()
    worker: Any = Idle(tmp_path, None, None, None)
    display.worker = worker
    with display:
        for worker.evaluated in (1, 2):
            display.show()
    shown = capfd.readouterr().err
    assert "2 evaluations, 0.0 s each" in shown
    assert shown.count("\n") <= 2
