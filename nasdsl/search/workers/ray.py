"""Workers as Ray actors, on this machine or a cluster. Ray is an extra: ``pip install 'nasdsl[ray]'``."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Sequence
from dataclasses import asdict
from importlib import import_module
from typing import Any, cast

from nasdsl.search.errors import WorkerError
from nasdsl.search.evaluation import Evaluate, Outcome, run_evaluation
from nasdsl.search.trial import Thresholds
from nasdsl.search.workers.pool import Pool, Worker, WorkerLost
from nasdsl.search.workers.process import parse_message


class Evaluator:
    """The class of the actors. Its methods return plain mappings, which do not depend on the version of nasdsl.

    Args:
        payload: `evaluate`, pickled.
    """

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._evaluate: Evaluate | None = None

    def load(self) -> dict[str, Any]:
        """Load `evaluate`; the message says whether that worked."""
        try:
            self._evaluate = import_module("ray.cloudpickle").loads(self._payload)
        except BaseException as error:
            return {"cannot_load": f"evaluate cannot be loaded in a Ray worker: {type(error).__name__}: {error}"}
        return {"ready": True}

    def run(self, text: str, thresholds: Thresholds) -> dict[str, Any]:
        """Evaluate a text; the fields of its `Outcome`."""
        assert self._evaluate is not None
        return asdict(run_evaluation(self._evaluate, text, thresholds))


def start_actors(evaluate: Evaluate, count: int | None, address: str | None, timeout: float | None) -> Pool:
    """Start actors, and return them when they are ready. Each has a core, and a GPU if the cluster has any.

    Args:
        count: None: as many as the cluster has GPUs, or else cores.
        address: of a cluster, as in ``ray.init``. None: that of ``RAY_ADDRESS``, or else a new cluster, which ends with the
            search. If Ray is initialised already, it is used and not shut down.

    Raises:
        WorkerError: Ray is not installed, no cluster answers, or it has too few resources.
    """
    try:
        ray: Any = import_module("ray")
    except ImportError:
        raise WorkerError("Ray is not installed: pip install 'nasdsl[ray]', or use process:N") from None
    try:
        payload = import_module("ray.cloudpickle").dumps(evaluate)
    except Exception as error:
        raise WorkerError(f"evaluate ({evaluate!r}) cannot be sent to Ray workers: {error}") from None
    starts_ray = not ray.is_initialized()
    if starts_ray:
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(address=address, include_dashboard=False if address is None else None, log_to_driver=False)
        except Exception as error:
            raise WorkerError(f"no Ray cluster at {address or 'this machine'}: {error}") from None
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)  # Ray installs its own, which exits at once
    shutdown = ray.shutdown if starts_ray else lambda: None
    try:
        resources = ray.cluster_resources()
        gpus, cores = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
        count = count or gpus or cores
        if count > (gpus or cores):
            raise WorkerError(
                f"{count} Ray workers need {count} {'GPUs' if gpus else 'cores'}, and the cluster has {gpus or cores}"
            )
        actor = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=0)(Evaluator)
        workers = [_Actor(f"actor {index}", ray, actor, payload) for index in range(count)]
        return Pool(workers, lambda active, seconds: _poll(ray, active, seconds), timeout, shutdown)
    except BaseException:
        shutdown()
        raise


class _Actor:
    """An actor and its pending call."""

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

    def send(self, text: str, thresholds: Thresholds) -> None:
        self.pending = self._actor.run.remote(text, dict(thresholds))

    def receive(self) -> Outcome | None:
        pending, self.pending = self.pending, None
        try:
            message = self._ray.get(pending)
        except Exception as error:  # RayActorError, RayTaskError, a lost object, a lost node
            reason = " ".join(str(error).split())
            raise WorkerLost(f"{type(error).__name__}: {reason[:160]}") from None
        return parse_message(message)

    def kill(self) -> None:
        actor, self._actor = self._actor, None
        if actor is not None:
            with contextlib.suppress(Exception):
                self._ray.kill(actor, no_restart=True)


def _poll(ray: Any, workers: Sequence[Worker], seconds: float) -> list[Worker]:
    """Wait for messages, and return the workers that have one."""
    actors = [cast("_Actor", worker) for worker in workers]
    ready, _ = ray.wait([actor.pending for actor in actors], num_returns=1, timeout=seconds)
    return [actor for actor in actors if actor.pending in ready]
