"""Plain Ray actors, on this machine or a cluster. Ray is an extra: ``pip install 'nasdsl[ray]'``."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any, cast

from nasdsl.search.errors import WorkerError
from nasdsl.search.trial import Bars, Evaluate, Outcome, run_evaluation
from nasdsl.search.workers.pool import Lost, Pool, Worker
from nasdsl.search.workers.process import outcome_of


class Evaluator:
    """What runs in an actor. Its method has a plain mapping to give, so that drivers of other versions can read it."""

    def __init__(self, evaluate: bytes) -> None:
        self._payload = evaluate
        self._evaluate: Evaluate | None = None

    def load(self) -> dict[str, Any]:
        """Load `evaluate`; whether that was possible."""
        try:
            self._evaluate = import_module("ray.cloudpickle").loads(self._payload)
        except BaseException as error:
            return {"cannot_load": f"evaluate cannot be loaded in a Ray worker: {type(error).__name__}: {error}"}
        return {"ready": True}

    def run(self, text: str, bars: Bars) -> dict[str, Any]:
        """The outcome of one text."""
        assert self._evaluate is not None
        return asdict(run_evaluation(self._evaluate, text, bars))


def start_actors(evaluate: Evaluate, count: int | None, address: str | None, timeout: float | None) -> Pool:
    """Actors that are ready, with a GPU each where the cluster has GPUs, and a core each.

    Args:
        count: None is as many as the cluster has GPUs, or else cores.
        address: of a cluster, as ``ray.init`` takes it. None is that of ``RAY_ADDRESS``, or else a cluster that begins and
            ends with the search. A Ray that is initialised already is used and left alone.

    Raises:
        WorkerError: Ray is not installed, no cluster answers, or it has too little for so many actors.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise WorkerError("Ray is not installed: pip install 'nasdsl[ray]', or use process:N") from None
    try:
        payload = import_module("ray.cloudpickle").dumps(evaluate)
    except Exception as error:
        raise WorkerError(f"evaluate ({evaluate!r}) cannot be sent to Ray workers: {error}") from None
    ours = not ray.is_initialized()
    if ours:
        ends = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, include_dashboard=False if address is None else None, log_to_driver=False)
        except Exception as error:
            raise WorkerError(f"no Ray cluster at {address or 'this machine'}: {error}") from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, ends)  # Ray sets its own, which leaves at once
    end = ray.shutdown if ours else lambda: None
    try:
        has = ray.cluster_resources()
        gpus, cores = int(has.get("GPU", 0)), int(has.get("CPU", 0))
        count = count or gpus or cores
        if count > (gpus or cores):
            raise WorkerError(
                f"{count} Ray workers need {count} {'GPUs' if gpus else 'cores'}, and the cluster has {gpus or cores}"
            )
        actor = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=0)(Evaluator)
        workers = [_Actor(f"actor {place}", ray, actor, payload) for place in range(count)]
        return Pool(workers, lambda active, seconds: _reporting(ray, active, seconds), timeout, end)
    except BaseException:
        end()
        raise


class _Actor:
    """An actor and what it is at."""

    def __init__(self, name: str, ray: Any, actor: Any, payload: bytes) -> None:
        self.name = name
        self._ray = ray
        self._class = actor
        self._payload = payload
        self._actor: Any = None
        self.pending: Any = None

    def start(self) -> None:
        self._actor = self._class.remote(self._payload)
        self.pending = self._actor.load.remote()

    def give(self, text: str, bars: Bars) -> None:
        self.pending = self._actor.run.remote(text, dict(bars))

    def take(self) -> Outcome | None:
        pending, self.pending = self.pending, None
        try:
            message = self._ray.get(pending)
        except Exception as error:  # RayActorError, RayTaskError, a lost object, a lost node
            said = " ".join(str(error).split())
            raise Lost(f"{type(error).__name__}: {said[:160]}") from None
        return outcome_of(message)

    def kill(self) -> None:
        actor, self._actor = self._actor, None
        if actor is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(actor, no_restart=True)


def _reporting(ray: Any, workers: Sequence[Worker], seconds: float) -> list[Worker]:
    actors = [cast("_Actor", worker) for worker in workers]
    ready, _ = ray.wait([actor.pending for actor in actors], num_returns=1, timeout=seconds)
    return [actor for actor in actors if actor.pending in ready]
