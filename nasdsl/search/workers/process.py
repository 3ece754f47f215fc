"""Worker processes on this machine, spawned; they share the GPUs, if there are any, in turn."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final, cast

from nasdsl.search.errors import WorkerError
from nasdsl.search.evaluation import Evaluate, Outcome, run_evaluation
from nasdsl.search.trial import Thresholds
from nasdsl.search.workers.pool import CannotLoad, CannotStart, Pool, Worker, WorkerLost

MAIN_GUARD: Final = "a script that searches with processes needs its code under `if __name__ == '__main__':`"


def start_processes(evaluate: Evaluate, count: int, timeout: float | None) -> Pool:
    """Start `count` processes, and return them when they are ready.

    Each sees one GPU, in turn; the cores are divided among them by ``OMP_NUM_THREADS``, unless that is set.

    Raises:
        WorkerError: `evaluate` cannot be sent, or the processes do not start.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise WorkerError(f"a worker started a search itself: {MAIN_GUARD}")
    payload = pickle_evaluation(evaluate)
    gpus = _visible_gpus()
    environment: dict[str, str] = {}
    if "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // count))
    workers = []
    for index in range(count):
        gpu = {"CUDA_VISIBLE_DEVICES": gpus[index % len(gpus)]} if gpus else {}
        workers.append(ProcessWorker(f"process {index}", payload, environment | gpu))
    try:
        return Pool(workers, _poll, timeout)
    except CannotStart as error:
        raise CannotStart(f"{error}; {MAIN_GUARD}") from None


def shared_gpus(count: int) -> list[str]:
    """The GPUs that several of `count` processes see, by the names that these have in ``CUDA_VISIBLE_DEVICES``."""
    gpus = _visible_gpus()
    return gpus[: max(0, count - len(gpus))]


def pickle_evaluation(evaluate: Evaluate) -> bytes:
    """Pickle `evaluate`.

    Raises:
        WorkerError: it is a lambda or a nested function, or holds something that cannot be pickled.
    """
    try:
        return pickle.dumps(evaluate)
    except Exception as error:  # whatever __reduce__ raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WorkerError(
            f"evaluate ({evaluate!r}) cannot be sent to other processes: {reason}. Expected a function at the top level of a "
            "module, functools.partial of one, or an object of a class at the top level with values that can be pickled"
        ) from None


class ProcessWorker:
    """A worker process and the pipe to it."""

    def __init__(self, name: str, payload: bytes, variables: Mapping[str, str]) -> None:
        self.name = name
        self._payload = payload
        self._variables = variables
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        parent_end, child_end = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_run_worker, args=(child_end, self._payload), name=f"nasdsl {self.name}", daemon=False
        )
        with _environment(self._variables):  # inherited, and so set before anything is imported there
            process.start()
        child_end.close()
        self._process, self._pipe = process, parent_end

    def send(self, text: str, thresholds: Thresholds) -> None:
        assert self._pipe is not None
        try:
            self._pipe.send_bytes(json.dumps([text, list(thresholds.items())]).encode())
        except OSError as error:
            raise WorkerLost(self._exit_reason()) from error

    def receive(self) -> Outcome | None:
        assert self._pipe is not None
        if not self._pipe.poll():
            raise WorkerLost(self._exit_reason())
        try:
            message = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise WorkerLost(self._exit_reason()) from None
        except ValueError:
            raise WorkerLost("sent a message that is no result") from None
        return parse_message(message)

    @property
    def pipe(self) -> Connection:
        """Readable when there is a message, and when no process holds the other end any more."""
        assert self._pipe is not None
        return self._pipe

    def has_died(self) -> bool:
        """Whether it has exited. Children that it forked may still hold its end of the pipe."""
        return self._process is not None and not self._process.is_alive()

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.pid is not None
        # Once it runs, the process leads a group of its own, which includes what it started.
        with contextlib.suppress(OSError, AttributeError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        if self._pipe is not None:
            self._pipe.close()
        process.close()

    def _exit_reason(self) -> str:
        if self._process is None:
            return "ended"
        self._process.join(5)
        code = self._process.exitcode
        if code is None:
            return "closed its pipe"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def parse_message(message: Any) -> Outcome | None:
    """Parse the message of a worker: None for ``{"ready": true}``, or an outcome.

    Raises:
        WorkerLost: it is neither.
        CannotLoad: it says that the worker cannot load `evaluate`.
    """
    if isinstance(message, dict) and message.get("ready") is True:
        return None
    if isinstance(message, dict) and isinstance(message.get("cannot_load"), str):
        raise CannotLoad(message["cannot_load"])
    try:
        outcome = Outcome(**message)
    except TypeError:
        raise WorkerLost("sent a message that is no result") from None
    types = (outcome.verdict, str), (outcome.details, dict), (outcome.seconds, int | float), (outcome.retry, bool)
    is_valid = all(isinstance(value, kind) for value, kind in types)
    if not is_valid or not (outcome.reward is None or isinstance(outcome.reward, int | float)):
        raise WorkerLost("sent a message that is no result")
    return outcome


def _poll(workers: Sequence[Worker], seconds: float) -> list[Worker]:
    """Wait for messages, and return the workers that have one or have died."""
    processes = [cast("ProcessWorker", worker) for worker in workers]
    ready = wait([process.pipe for process in processes], seconds)
    return [process for process in processes if process.pipe in ready or process.has_died()]


# -------------------------------------------------------------------------------------- in the worker process


def _run_worker(pipe: Connection, payload: bytes) -> None:
    """Evaluate texts until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process of the search handles Ctrl-C
    with contextlib.suppress(OSError, AttributeError):
        os.setpgid(0, 0)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    try:
        evaluate = pickle.loads(payload)
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        pipe.send_bytes(json.dumps({"cannot_load": f"evaluate cannot be loaded in another process: {reason}"}).encode())
        return
    with contextlib.suppress(EOFError, OSError):
        pipe.send_bytes(json.dumps({"ready": True}).encode())
        while True:
            text, thresholds = json.loads(pipe.recv_bytes())
            outcome = run_evaluation(evaluate, text, dict(thresholds))
            sys.stdout.flush()
            pipe.send_bytes(json.dumps(asdict(outcome), allow_nan=False).encode())


def _exit_with_parent() -> None:
    """Wait until the process of the search is gone, then end this one and what it started."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    with contextlib.suppress(OSError, AttributeError):
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
    os._exit(1)


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _visible_gpus() -> list[str]:
    """The GPUs that this process may use, by their names in ``CUDA_VISIBLE_DEVICES``."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip() and gpu.strip() != "-1"]
    import torch

    return [str(gpu) for gpu in range(torch.cuda.device_count())]
