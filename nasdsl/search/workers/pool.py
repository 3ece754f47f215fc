"""A pool of workers: assigns texts to them, limits their time, and replaces workers that are lost."""

from __future__ import annotations

import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from nasdsl.search.errors import WorkerError
from nasdsl.search.evaluation import Outcome
from nasdsl.search.trial import FAILED, Thresholds

MAX_ATTEMPTS: Final = 2
"""Evaluations of a text, if workers are lost over it."""
MAX_FAILED_STARTS: Final = 2
"""Failures in a row of a worker to start, after which the pool does without it."""
START_TIMEOUT: Final = 300.0
"""Seconds that a worker may take to start: importing torch from a busy network drive takes time."""


class Finished(NamedTuple):
    """An outcome, the worker that returned it, the number of attempts, and why earlier attempts lost their workers."""

    number: int
    outcome: Outcome
    worker: str
    attempts: int
    lost: tuple[str, ...] = ()


class WorkerLost(Exception):
    """A worker died or cannot be used any more; the message says why."""


class CannotStart(WorkerError):
    """No worker starts: each was lost before it was ready, several times in a row."""


class CannotLoad(Exception):
    """A worker started, and cannot load `evaluate`."""


class Worker(Protocol):
    """The interface between the pool and one worker."""

    name: str

    def start(self) -> None:
        """Start, without waiting; it is ready when `receive` returns None."""
        ...

    def send(self, text: str, thresholds: Thresholds) -> None:
        """Have a text evaluated.

        Raises:
            WorkerLost: it has died.
        """
        ...

    def receive(self) -> Outcome | None:
        """The next message: None for "ready", or an outcome.

        Raises:
            WorkerLost: it has died, or sent something else.
            CannotLoad: it cannot load `evaluate`.
        """
        ...

    def kill(self) -> None:
        """End the worker at once, with the processes that it started."""
        ...


@dataclass
class _Task:
    number: int
    text: str
    thresholds: Thresholds
    lost: list[str] = field(default_factory=list)
    avoid: int | None = None  # index of the worker that was lost over it


class Pool:
    """Workers with a common queue.

    A worker that dies, exceeds the time limit or returns something other than a reward is killed and started anew. Its text is
    evaluated once more, by another worker if there are several, and fails if that one is lost as well. A worker that does not
    start any more, because its GPU or its machine is gone, is left out with a warning; the others go on.

    Args:
        poll: function of workers and seconds, which waits and returns the workers that have a message.
        timeout: limit of an evaluation in seconds.
        shutdown: called when the pool is closed.

    Raises:
        WorkerError: workers do not start.
    """

    evaluates_here = False

    def __init__(
        self,
        workers: Sequence[Worker],
        poll: Callable[[Sequence[Worker], float], Sequence[Worker]],
        timeout: float | None,
        shutdown: Callable[[], None] = lambda: None,
    ) -> None:
        self._workers = list(workers)
        self._poll = poll
        self._timeout = timeout
        self._shutdown = shutdown
        self._queue: deque[_Task] = deque()
        self._tasks: dict[int, _Task] = {}  # of busy workers, by index
        self._deadlines: dict[int, float] = {}  # of workers that are starting or busy, by index
        self._failed_starts = dict.fromkeys(range(len(self._workers)), 0)  # in a row, of workers that are not left out
        self._any_ready = False
        self._restarts = True
        try:
            for index in range(len(self._workers)):
                self._start(index)
            while self._deadlines:
                self._collect(1.0)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        return len(self._workers)

    def submit(self, number: int, text: str, thresholds: Thresholds) -> None:
        self._queue.append(_Task(number, text, thresholds))
        self._assign()

    def wait(self, seconds: float) -> list[Finished]:
        self._assign()
        finished = self._collect(seconds)
        self._assign()
        return finished

    def finish(self, seconds: float) -> list[Finished]:
        self._queue.clear()
        self._restarts = False
        finished: list[Finished] = []
        end = time.monotonic() + seconds
        while self._tasks and (left := end - time.monotonic()) > 0:
            finished += self._collect(min(left, 0.5))
        return finished

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._shutdown()

    # -------------------------------------------------------------------------------------- one step

    def _start(self, index: int) -> None:
        self._workers[index].start()
        self._deadlines[index] = time.monotonic() + START_TIMEOUT

    def _assign(self) -> None:
        """Send texts to idle workers."""
        for index, worker in enumerate(self._workers):
            if not self._queue:
                return
            if index in self._deadlines or index not in self._failed_starts:
                continue
            task = next((t for t in self._queue if t.avoid != index or len(self._failed_starts) == 1), None)
            if task is None:
                continue
            self._queue.remove(task)
            self._tasks[index] = task
            self._deadlines[index] = math.inf if self._timeout is None else time.monotonic() + self._timeout
            try:
                worker.send(task.text, task.thresholds)
            except WorkerLost:  # it died while idle, so not over this text
                del self._tasks[index]
                self._queue.appendleft(task)
                worker.kill()
                self._start(index)

    def _collect(self, seconds: float) -> list[Finished]:
        """Wait until there are messages, a deadline passes, or `seconds` are over."""
        if not self._deadlines:
            return []
        active = [self._workers[index] for index in self._deadlines]
        wait = min(seconds, max(0.0, min(self._deadlines.values()) - time.monotonic()))
        finished = []
        for worker in self._poll(active, wait):
            index = self._workers.index(worker)
            try:
                outcome = worker.receive()
            except CannotLoad as error:
                raise WorkerError(str(error)) from None
            except WorkerLost as error:
                finished += self._replace(index, str(error))
                continue
            if outcome is None:
                del self._deadlines[index]
                self._failed_starts[index] = 0
                self._any_ready = True
            elif index not in self._tasks:
                finished += self._replace(index, "sent a result without a task")
            elif outcome.retry:
                finished += self._replace(index, outcome.verdict.removeprefix(f"{FAILED}: "))
            else:
                finished.append(self._complete(index, outcome))
        now = time.monotonic()
        for index in [index for index, deadline in self._deadlines.items() if deadline <= now]:
            busy = index in self._tasks
            finished += self._replace(index, f"no result within {self._timeout:g} s" if busy else "did not start in time")
        return finished

    def _complete(self, index: int, outcome: Outcome) -> Finished:
        task = self._tasks.pop(index)
        del self._deadlines[index]
        return Finished(task.number, outcome, self._workers[index].name, len(task.lost) + 1, tuple(task.lost))

    def _replace(self, index: int, reason: str) -> list[Finished]:
        """Kill a worker and start it anew; returns its task as failed if that has had all its attempts."""
        worker = self._workers[index]
        worker.kill()
        task = self._tasks.pop(index, None)
        del self._deadlines[index]
        if task is None:
            self._count_failed_start(index, reason)
        if self._restarts and index in self._failed_starts:
            self._start(index)
        if task is None:
            return []
        task.lost.append(f"{worker.name}: {reason}")
        if not self._restarts:
            return []  # evaluated again after a resume
        if len(task.lost) < MAX_ATTEMPTS:
            task.avoid = index
            self._queue.appendleft(task)
            return []
        outcome = Outcome(f"{FAILED}: {reason}", None, {"error": reason}, 0.0)
        return [Finished(task.number, outcome, worker.name, len(task.lost), tuple(task.lost))]

    def _count_failed_start(self, index: int, reason: str) -> None:
        """Count a failure to start, and leave the worker out after `MAX_FAILED_STARTS` in a row.

        Raises:
            CannotStart: no worker is left; or so many failures of all workers together, if none has ever started.
        """
        self._failed_starts[index] += 1
        if not self._any_ready and sum(self._failed_starts.values()) < MAX_FAILED_STARTS:
            return
        if self._any_ready and self._failed_starts[index] < MAX_FAILED_STARTS:
            return
        del self._failed_starts[index]
        name = self._workers[index].name
        if not self._any_ready or not self._failed_starts:
            raise CannotStart(f"workers do not start; the last one, {name}, {reason}")
        left = len(self._failed_starts)
        warnings.warn(
            f"{name} does not start any more ({reason}); the search goes on with {left} of {self.size} workers", stacklevel=2
        )
