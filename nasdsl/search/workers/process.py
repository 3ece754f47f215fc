"""Processes on this machine, started anew (spawn), one a GPU where there are GPUs."""

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
from nasdsl.search.trial import Bars, Evaluate, Outcome, run_evaluation
from nasdsl.search.workers.pool import CannotLoad, CannotStart, Lost, Pool, Worker

GUARD: Final = "a script that searches with processes needs its code under `if __name__ == '__main__':`"


def start_processes(evaluate: Evaluate, count: int, timeout: float | None) -> Pool:
    """`count` processes that are ready.

    Each sees one GPU, in turn; cores are shared out among them (``OMP_NUM_THREADS``, unless it is set).

    Raises:
        WorkerError: `evaluate` cannot be sent, or the processes do not start.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise WorkerError(f"a worker came to start a search itself: {GUARD}")
    payload = picklable(evaluate)
    gpus = _visible_gpus()
    environment: dict[str, str] = {}
    if "OMP_NUM_THREADS" not in os.environ:
        environment["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // count))
    workers = []
    for place in range(count):
        own = {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {}
        workers.append(_Process(f"process {place}", payload, environment | own))
    try:
        return Pool(workers, _reporting, timeout)
    except CannotStart as error:
        raise CannotStart(f"{error}; {GUARD}") from None


def picklable(evaluate: Evaluate) -> bytes:
    """`evaluate` as bytes.

    Raises:
        WorkerError: it is a lambda, a function within a function, or holds what cannot be sent.
    """
    try:
        return pickle.dumps(evaluate)
    except Exception as error:  # whatever __reduce__ raises
        said = " ".join(str(error).split()) or type(error).__name__
        raise WorkerError(
            f"evaluate ({evaluate!r}) cannot be sent to other processes: {said}. Expected a function at the top level of a "
            "module, functools.partial of one, or an object of a class at the top level with values that can be pickled"
        ) from None


class _Process:
    """A process and the pipe to it."""

    def __init__(self, name: str, payload: bytes, environment: Mapping[str, str]) -> None:
        self.name = name
        self._payload = payload
        self._environment = environment
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def start(self) -> None:
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(theirs, self._payload), name=f"nasdsl {self.name}", daemon=False
        )
        with _set(self._environment):  # inherited from the first instruction on, before anything is imported there
            process.start()
        theirs.close()
        self._process, self._pipe = process, ours

    def give(self, text: str, bars: Bars) -> None:
        assert self._pipe is not None
        try:
            self._pipe.send_bytes(json.dumps([text, list(bars.items())]).encode())
        except OSError as error:
            raise Lost(self._ended()) from error

    def take(self) -> Outcome | None:
        assert self._pipe is not None
        if not self._pipe.poll():
            raise Lost(self._ended())
        try:
            message = json.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise Lost(self._ended()) from None
        except ValueError:
            raise Lost("sent what is no result") from None
        return outcome_of(message)

    def waits_for(self) -> Connection:
        """What is ready when there is a message, and when nobody holds the other end any more."""
        assert self._pipe is not None
        return self._pipe

    def has_died(self) -> bool:
        """Whether it is gone. Children that it forked may still hold its end of the pipe."""
        return self._process is not None and not self._process.is_alive()

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.pid is not None
        # Once it has begun, the process leads a group of its own: with it goes what it started.
        with contextlib.suppress(OSError, AttributeError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        if self._pipe is not None:
            self._pipe.close()
        process.close()

    def _ended(self) -> str:
        if self._process is None:
            return "ended"
        self._process.join(5)
        code = self._process.exitcode
        if code is None:
            return "closed its pipe"
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def outcome_of(message: Any) -> Outcome | None:
    """A worker's message: None for ``{"ready": true}``, or an outcome.

    Raises:
        Lost: it is neither.
        CannotLoad: it says that `evaluate` cannot be loaded.
    """
    if isinstance(message, dict) and message.get("ready") is True:
        return None
    if isinstance(message, dict) and isinstance(message.get("cannot_load"), str):
        raise CannotLoad(message["cannot_load"])
    try:
        outcome = Outcome(**message)
    except TypeError:
        raise Lost("sent what is no result") from None
    kinds = (outcome.verdict, str), (outcome.details, dict), (outcome.seconds, int | float), (outcome.garbage, bool)
    fits = all(isinstance(value, kind) for value, kind in kinds)
    if not fits or not (outcome.reward is None or isinstance(outcome.reward, int | float)):
        raise Lost("sent what is no result")
    return outcome


def _reporting(workers: Sequence[Worker], seconds: float) -> list[Worker]:
    processes = [cast("_Process", worker) for worker in workers]
    ready = wait([process.waits_for() for process in processes], seconds)
    return [process for process in processes if process.waits_for() in ready or process.has_died()]


# -------------------------------------------------------------------------------------- in the process


def _work(pipe: Connection, payload: bytes) -> None:
    """Evaluate texts until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the searching process's affair
    with contextlib.suppress(OSError, AttributeError):
        os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        evaluate = pickle.loads(payload)
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
        pipe.send_bytes(json.dumps({"cannot_load": f"evaluate cannot be loaded in another process: {said}"}).encode())
        return
    with contextlib.suppress(EOFError, OSError):
        pipe.send_bytes(json.dumps({"ready": True}).encode())
        while True:
            text, bars = json.loads(pipe.recv_bytes())
            outcome = run_evaluation(evaluate, text, dict(bars))
            sys.stdout.flush()
            pipe.send_bytes(json.dumps(asdict(outcome), allow_nan=False).encode())


def _end_with_parent() -> None:
    """A search that is killed takes its workers, and what they started, along."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    with contextlib.suppress(OSError, AttributeError):
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
    os._exit(1)


@contextlib.contextmanager
def _set(variables: Mapping[str, str]) -> Iterator[None]:
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
    """GPUs that may be used, as ``CUDA_VISIBLE_DEVICES`` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu.strip() for gpu in named.split(",") if gpu.strip() and gpu.strip() != "-1"]
    import torch

    return [str(gpu) for gpu in range(torch.cuda.device_count())]
