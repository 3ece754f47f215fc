"""Workers as Ray actors: on Ray if it is installed, and on a fake with the few calls that they make."""

from __future__ import annotations

import importlib.util
import signal
import sys
import time
import types
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest
from small_search import SPACE, FaultyEvaluation, Learner, LoggedEvaluation, comparable, plain_value, quick_check

from nasdsl.search import WorkerError, search
from nasdsl.search.workers.ray import _Actor as RayWorker

HAS_RAY = importlib.util.find_spec("ray") is not None


class _Died(Exception):
    """Like RayActorError and RayTaskError."""


class _Method:
    def __init__(self, actor: _Actor, name: str) -> None:
        self.actor, self.name = actor, name

    def remote(self, *arguments: Any) -> Future[Any]:
        return self.actor.submit(self.name, arguments)


class _Actor:
    """Runs one call at a time, as Ray's do; after `kill` all its calls fail."""

    def __init__(self, kind: type, arguments: tuple[Any, ...]) -> None:
        self._made = kind(*arguments)
        self._thread = ThreadPoolExecutor(1)
        self._open: list[Future[Any]] = []

    def __getattr__(self, name: str) -> _Method:
        return _Method(self, name)

    def submit(self, name: str, arguments: tuple[Any, ...]) -> Future[Any]:
        answer: Future[Any] = Future()
        self._open.append(answer)

        def work() -> None:
            try:
                value = getattr(self._made, name)(*arguments)
            except BaseException as raised:
                error = _Died(repr(raised))
                self.answer(answer, lambda: answer.set_exception(error))
            else:
                self.answer(answer, lambda: answer.set_result(value))

        self._thread.submit(work)
        return answer

    def answer(self, answer: Future[Any], how: Callable[[], None]) -> None:
        if answer in self._open:
            self._open.remove(answer)
            how()

    def kill(self) -> None:
        for answer in list(self._open):
            self.answer(answer, lambda answer=answer: answer.set_exception(_Died("the actor died")))  # type: ignore[misc]


def fake_ray(resources: dict[str, float]) -> types.ModuleType:
    """A module with the calls of Ray that the workers make."""
    import pickle

    ray: Any = types.ModuleType("ray")
    ray.calls = []
    ray.is_initialized = lambda: False
    ray.init = lambda **how: ray.calls.append(("init", how.get("address")))
    ray.shutdown = lambda: ray.calls.append(("shutdown",))
    ray.cluster_resources = lambda: resources
    ray.get = lambda answer: answer.result(0)

    def remote(**asked: Any) -> Callable[[type], Any]:
        ray.calls.append(("remote", asked))
        return lambda kind: types.SimpleNamespace(remote=lambda *arguments: _Actor(kind, arguments))

    def waiting(answers: list[Future[Any]], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        ready = wait(answers, timeout, FIRST_COMPLETED).done
        return list(ready)[:num_returns], []

    ray.remote, ray.wait = remote, waiting
    ray.kill = lambda actor, no_restart: actor.kill()
    ray.cloudpickle = types.ModuleType("ray.cloudpickle")
    ray.cloudpickle.dumps, ray.cloudpickle.loads = pickle.dumps, pickle.loads
    return ray


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    made: Any = fake_ray({"CPU": 3.0})
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setitem(sys.modules, "ray.cloudpickle", made.cloudpickle)
    return made


def test_actors_give_the_trials_of_an_inline_worker(ray: Any, tmp_path: Path) -> None:
    trials = [
        search(
            SPACE,
            LoggedEvaluation(tmp_path / kind, 0.01),
            Learner(SPACE),
            40,
            workers=kind,
            batch=5,
            check=quick_check,
            quiet=True,
        )
        for kind in ("inline", "ray@head:6379")
    ]
    assert comparable(trials[0]) == comparable(trials[1])
    assert {t.worker for t in trials[1] if t.evaluated} == {"actor 0", "actor 1", "actor 2"}
    assert ray.calls[0] == ("init", "head:6379")
    assert ray.calls[-1] == ("shutdown",)
    assert ray.calls[1] == ("remote", {"num_cpus": 1, "num_gpus": 0, "max_restarts": 0})


def test_each_actor_has_a_gpu_if_there_are_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    made: Any = fake_ray({"CPU": 8.0, "GPU": 2.0})
    monkeypatch.setitem(sys.modules, "ray", made)
    monkeypatch.setitem(sys.modules, "ray.cloudpickle", made.cloudpickle)
    search(SPACE, plain_value, Learner(SPACE), 3, workers="ray", quiet=True)
    assert made.calls[1] == ("remote", {"num_cpus": 1, "num_gpus": 1, "max_restarts": 0})
    with pytest.raises(WorkerError, match="3 Ray workers need 3 GPUs, and the cluster has 2"):
        search(SPACE, plain_value, Learner(SPACE), 3, workers="ray:3", quiet=True)
    assert made.calls[-1] == ("shutdown",)


class FailsOnce:
    """Fails at its first evaluation of each text."""

    def __init__(self, how: str) -> None:
        self.how = how
        self.seen = SEEN.setdefault(how, set())

    def __reduce__(self) -> Any:
        return FailsOnce, (self.how,)

    def __call__(self, text: str) -> Any:
        if text not in self.seen:
            self.seen.add(text)
            if self.how == "hang":
                time.sleep(1.5)
            if self.how == "die":
                raise KeyboardInterrupt  # not caught by the evaluation: the method raises, as a lost actor's does
            return "good"
        return plain_value(text)


SEEN: dict[str, set[str]] = {}


@pytest.mark.parametrize(
    ("how", "says"), [("hang", "no result within 0.3 s"), ("die", "KeyboardInterrupt"), ("garbage", "returned 'good'")]
)
def test_lost_actors(ray: Any, how: str, says: str) -> None:
    SEEN.clear()
    trials = search(SPACE, FailsOnce(how), Learner(SPACE), 3, workers="ray:2", timeout=0.3, quiet=True)
    assert [(t.verdict, t.attempts) for t in trials] == [("ok", 2)] * 3
    for trial in trials:
        assert says in trial.details["lost"][0]
        assert not trial.details["lost"][0].startswith(trial.worker)


def test_without_ray_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(WorkerError, match=r"pip install 'nasdsl\[ray\]', or use process:N"):
        search(SPACE, plain_value, Learner(SPACE), 3, workers="ray", quiet=True)


@pytest.mark.parametrize(("address", "named"), [("head:6379", "head:6379"), (None, "this machine")])
def test_a_cluster_that_does_not_answer_is_named(address: str | None, named: str, ray: Any) -> None:
    def init(**how: Any) -> None:
        raise ConnectionError("nobody answers")

    ray.init = init
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(WorkerError, match=f"^no Ray cluster at {named}: nobody answers$"):
        search(SPACE, plain_value, Learner(SPACE), 3, workers="ray" + (f"@{address}" if address else ""), quiet=True)
    assert signal.getsignal(signal.SIGTERM) is before
    assert ray.calls == []


def test_an_evaluation_that_cannot_be_sent_to_a_cluster_is_named(ray: Any) -> None:
    with pytest.raises(WorkerError, match=r"evaluate \(<function .*lambda.*\) cannot be sent to Ray workers: .*pickle"):
        search(SPACE, lambda text: 0.0, Learner(SPACE), 3, workers="ray", quiet=True)


def test_a_cluster_that_was_there_before_the_search_is_there_after_it(ray: Any) -> None:
    ray.is_initialized = lambda: True
    search(SPACE, plain_value, Learner(SPACE), 3, workers="ray:1", quiet=True)
    assert [call[0] for call in ray.calls] == ["remote"]


def test_in_a_thread_signals_are_left_alone(ray: Any) -> None:
    """Python allows handlers in the main thread alone."""
    with ThreadPoolExecutor(1) as threads:
        trials = threads.submit(search, SPACE, plain_value, Learner(SPACE), 3, workers="ray:1", quiet=True).result()
    assert trials.counts["ok"] == 3
    assert [call[0] for call in ray.calls] == ["init", "remote", "shutdown"]


def test_an_actor_that_was_not_started_can_be_ended(ray: Any) -> None:
    """As the others are when one of them cannot be started."""
    RayWorker("actor 0", ray, None, b"").kill()
    assert ray.calls == []


# ---------------------------------------------------------------------------------------------- the real one


@pytest.mark.long
@pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed (pip install 'nasdsl[ray]'): only the stand-in was tested")
def test_a_real_ray(tmp_path: Path) -> None:
    import ray as real

    here = {"PYTHONPATH": str(Path(__file__).parent)}
    real.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": here})
    try:
        evaluate = FaultyEvaluation(tmp_path / "log", once=True, kinds="fine kill hang garbage")
        trials = search(SPACE, evaluate, Learner(SPACE, 3), 6, workers="ray:2", batch=6, timeout=1.0, quiet=True)
        assert [(t.verdict, t.reward) for t in trials] == [("ok", plain_value(t.text)) for t in trials]
        assert sorted({t.attempts for t in trials}) == [1, 2]
        assert real.is_initialized()  # it was not the search's, which leaves it alone
    finally:
        real.shutdown()
