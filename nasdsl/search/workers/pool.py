"""Several workers at once: who gets which text, limits of time, and what happens when a worker is lost."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from nasdsl.search.errors import WorkerError
from nasdsl.search.trial import FAILED, Bars, Outcome

ATTEMPTS: Final = 2
"""Evaluations of a text at the most, when workers are lost over it."""
STARTS: Final = 2
"""Times in a row that a worker may fail to start before the search gives up."""
START_LIMIT: Final = 300.0
"""Seconds that a worker may take to start: importing torch on a busy network drive takes its time."""


class Finished(NamedTuple):
    """A result, who gave it, and how many attempts it took; `lost` says why the earlier ones failed."""

    number: int
    outcome: Outcome
    worker: str
    attempts: int
    lost: tuple[str, ...] = ()


class Lost(Exception):
    """A worker that cannot be used any more; the message says why."""


class CannotStart(WorkerError):
    """Workers that were lost again and again before they were ready."""


class CannotLoad(Exception):
    """A worker that started and could not load `evaluate`."""


class Worker(Protocol):
    """One worker as the pool knows it."""

    name: str

    def start(self) -> None:
        """Begin to start; it is ready when `take` gives None."""
        ...

    def give(self, text: str, bars: Bars) -> None:
        """Have it evaluate a text, with these bars where there are any.

        Raises:
            Lost: it died meanwhile.
        """
        ...

    def take(self) -> Outcome | None:
        """What it reports: None for "ready", or a result.

        Raises:
            Lost: it died, or reports what makes no sense.
            CannotLoad: `evaluate` cannot be loaded there.
        """
        ...

    def kill(self) -> None:
        """End it at once, and what it started."""
        ...


@dataclass
class _Task:
    number: int
    text: str
    bars: Bars
    lost: list[str] = field(default_factory=list)
    avoid: int | None = None  # the worker that was lost over it


class Pool:
    """Workers that are kept busy.

    A worker that dies, exceeds the limit or returns garbage is ended and started anew. Its text is given once more, to
    another worker where there are several, and fails if that is lost as well.

    Args:
        reporting: from workers and seconds to the workers that have something to take.
        timeout: seconds that an evaluation may take.

    Raises:
        WorkerError: workers do not start.
    """

    evaluates_here = False

    def __init__(
        self,
        workers: Sequence[Worker],
        reporting: Callable[[Sequence[Worker], float], Sequence[Worker]],
        timeout: float | None,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        self._workers = list(workers)
        self._reporting = reporting
        self._timeout = timeout
        self._end = end
        self._waiting: deque[_Task] = deque()
        self._tasks: dict[int, _Task] = {}  # of busy workers
        self._limits: dict[int, float] = {}  # of workers that start or are busy
        self._failed_starts = 0
        self._open = True
        try:
            for place in range(len(self._workers)):
                self._start(place)
            while self._limits:
                self._collect(1.0)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        return len(self._workers)

    def submit(self, number: int, text: str, bars: Bars) -> None:
        self._waiting.append(_Task(number, text, bars))
        self._assign()

    def wait(self, seconds: float) -> list[Finished]:
        self._assign()
        finished = self._collect(seconds)
        self._assign()
        return finished

    def finish(self, seconds: float) -> list[Finished]:
        self._waiting.clear()
        self._open = False
        finished: list[Finished] = []
        end = time.monotonic() + seconds
        while self._tasks and (left := end - time.monotonic()) > 0:
            finished += self._collect(min(left, 0.5))
        return finished

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._end()

    # -------------------------------------------------------------------------------------- one step

    def _start(self, place: int) -> None:
        self._workers[place].start()
        self._limits[place] = time.monotonic() + START_LIMIT

    def _assign(self) -> None:
        for place, worker in enumerate(self._workers):
            if not self._waiting:
                return
            if place in self._limits:
                continue
            task = next((t for t in self._waiting if t.avoid != place or self.size == 1), None)
            if task is None:
                continue
            self._waiting.remove(task)
            self._tasks[place] = task
            self._limits[place] = math.inf if self._timeout is None else time.monotonic() + self._timeout
            try:
                worker.give(task.text, task.bars)
            except Lost:  # it died while idle: no fault of the text
                del self._tasks[place]
                self._waiting.appendleft(task)
                worker.kill()
                self._start(place)

    def _collect(self, seconds: float) -> list[Finished]:
        """Wait for reports or limits, `seconds` at the most."""
        if not self._limits:
            return []
        active = [self._workers[place] for place in self._limits]
        wait = min(seconds, max(0.0, min(self._limits.values()) - time.monotonic()))
        finished = []
        for worker in self._reporting(active, wait):
            place = self._workers.index(worker)
            try:
                outcome = worker.take()
            except CannotLoad as error:
                raise WorkerError(str(error)) from None
            except Lost as error:
                finished += self._lose(place, str(error))
                continue
            if outcome is None:
                del self._limits[place]
                self._failed_starts = 0
            elif place not in self._tasks:
                finished += self._lose(place, "gave a result that nobody asked for")
            elif outcome.garbage:
                finished += self._lose(place, outcome.verdict.removeprefix(f"{FAILED}: "))
            else:
                finished.append(self._done(place, outcome))
        now = time.monotonic()
        for place in [place for place, limit in self._limits.items() if limit <= now]:
            busy = place in self._tasks
            finished += self._lose(place, f"no result within {self._timeout:g} s" if busy else "did not start in time")
        return finished

    def _done(self, place: int, outcome: Outcome) -> Finished:
        task = self._tasks.pop(place)
        del self._limits[place]
        return Finished(task.number, outcome, self._workers[place].name, len(task.lost) + 1, tuple(task.lost))

    def _lose(self, place: int, reason: str) -> list[Finished]:
        """End a worker and start it anew; the result, if its text has had all its attempts."""
        worker = self._workers[place]
        worker.kill()
        task = self._tasks.pop(place, None)
        del self._limits[place]
        if task is None:
            self._failed_starts += 1
            if self._failed_starts >= STARTS:
                raise CannotStart(f"workers do not start; the last one, {worker.name}, {reason}")
        if self._open:
            self._start(place)
        if task is None:
            return []
        task.lost.append(f"{worker.name}: {reason}")
        if not self._open:
            return []  # it has no other attempt now; after a resume it has
        if len(task.lost) < ATTEMPTS:
            task.avoid = place
            self._waiting.appendleft(task)
            return []
        outcome = Outcome(f"{FAILED}: {reason}", None, {"error": reason}, 0.0)
        return [Finished(task.number, outcome, worker.name, len(task.lost), tuple(task.lost))]
