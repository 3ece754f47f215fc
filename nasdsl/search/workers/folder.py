"""Workers without a server: a search writes tasks into a shared folder, and any number of ``nasdsl worker`` take them."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nasdsl.files import write_bytes
from nasdsl.search.errors import WorkerError
from nasdsl.search.evaluation import Evaluate, Outcome
from nasdsl.search.trial import FAILED, Thresholds
from nasdsl.search.versions import versions
from nasdsl.search.workers.folder_files import (
    BEAT,
    FORMAT,
    SILENT,
    Heartbeat,
    Listener,
    SearchFolder,
    TaskName,
    heartbeat_of,
    read_mapping,
    task_key,
    tasks_in,
    write_mapping,
)
from nasdsl.search.workers.pool import MAX_ATTEMPTS, Finished, WorkerLost
from nasdsl.search.workers.process import parse_message, pickle_evaluation

SIZE: Final = 8
"""Workers that the default number of trials in flight is for: it must not depend on who happens to be there."""
POLL: Final = (0.02, 0.5)
"""Seconds between two looks into the folder, from a result on and at most."""
LOOK: Final = 1.0
"""Seconds between two looks at the workers' heartbeats."""
LONELY: Final = 30.0
"""Seconds without any worker after which this is said."""


@dataclass
class _Task:
    number: int
    text: str
    thresholds: Thresholds
    attempt: int = 1
    lost: list[str] = field(default_factory=list)
    avoid: str = ""  # the worker that was lost over it


class FolderWorkers:
    """The workers of a shared folder, seen from the search.

    Workers join and leave at any time. A task whose worker is silent, died or returned no reward is evaluated once more, by
    another worker if there is one, and then fails. A result that comes after all is used if there is none yet.

    The search may be killed at any time as well: workers finish what they have begun, and a search with the same `identity`
    finds it.

    Args:
        root: the shared folder.
        timeout: limit of an evaluation in seconds.
        identity: of the search; equal after a resume, and of no other search.

    Raises:
        WorkerError: the folder cannot be written, or `evaluate` cannot be sent to other processes.
    """

    evaluates_here = False
    size = SIZE

    def __init__(self, root: Path, evaluate: Evaluate, timeout: float | None, identity: str) -> None:
        self._root = root.expanduser().absolute()
        self._folder = SearchFolder(self._root / "searches" / identity)
        self._tasks: dict[str, _Task] = {}  # without a result, by key
        self._returned: set[str] = set()  # keys of results that may not be in the journal yet
        self._missing_since: dict[str, float] = {}  # tasks of which there is no file
        self._listener = Listener()
        self._looked = -math.inf
        self._heartbeat = Heartbeat(self._folder.heartbeat, BEAT)
        self._pause = POLL[0]
        self._alone_since: float | None = None
        self._most = 0  # tasks at a time
        self._finished = 0
        self._warned_of_many = False
        settings = {"format": FORMAT, "versions": versions(), "directory": os.getcwd(), "timeout": timeout}
        try:
            self._folder.make()
            (self._root / "workers").mkdir(exist_ok=True)
            settings |= self._write_evaluation(evaluate)
            write_mapping(self._folder.settings, settings)
            self._known = self._read_known()
        except OSError as error:
            raise WorkerError(f"the folder of the workers cannot be used: {error}") from None
        self._heartbeat.beat()

    def submit(self, number: int, text: str, thresholds: Thresholds) -> None:
        key = task_key(number, text, thresholds)
        self._tasks[key] = task = _Task(number, text, thresholds)
        self._most = max(self._most, len(self._tasks))
        content, attempt = self._known.pop(key, ({}, 0))
        if attempt:  # from before a resume; results are found when they are collected
            task.attempt, task.lost, task.avoid = attempt, list(content.get("lost", ())), content.get("avoid", "")
        else:
            self._write(key, task)

    def wait(self, seconds: float) -> Sequence[Finished]:
        self._returned.clear()
        return self._wait(seconds)

    def finish(self, seconds: float) -> Sequence[Finished]:
        for name in tasks_in(self._folder.waiting):
            self._remove(self._folder.waiting, name)
        finished: list[Finished] = []
        end = time.monotonic() + seconds
        while tasks_in(self._folder.running) and (left := end - time.monotonic()) > 0:
            finished += self._wait(min(left, 0.5))
        return [*finished, *self._read_results()]

    def close(self) -> None:
        """Leave the folder, and remove it unless it has, or will have, what a resumed search can use."""
        self._heartbeat.stop()
        # After an error, the results that were returned last may not be in the journal.
        if not self._tasks and sys.exc_info()[0] is None:
            self._folder.settings.unlink(missing_ok=True)
            shutil.rmtree(self._folder.path, ignore_errors=True)

    # -------------------------------------------------------------------------------------- files

    def _write_evaluation(self, evaluate: Evaluate) -> dict[str, Any]:
        """The evaluation for ``search.json``: plain settings if it is nasdsl's own; others are pickled beside it."""
        from nasdsl.search.detectors import DetectorEvaluation
        from nasdsl.search.proxy_evaluation import ProxyEvaluation

        # Not isinstance: a subclass may evaluate otherwise.
        if type(evaluate) is ProxyEvaluation or type(evaluate) is DetectorEvaluation:
            return {"proxy": evaluate.settings()}
        write_bytes(self._folder.pickle, pickle_evaluation(evaluate))
        return {"proxy": None}

    def _read_known(self) -> dict[str, tuple[dict[str, Any], int]]:
        """Content and attempt of the tasks that are in the folder from before a resume, by key."""
        known: dict[str, tuple[dict[str, Any], int]] = {}
        for folder in (self._folder.waiting, self._folder.running, self._folder.results):
            for name in tasks_in(folder):
                content = None
                with suppress(FileNotFoundError):  # claimed in this moment, and so in the next folder
                    content = read_mapping(folder / str(name))
                if content is not None and name.attempt > known.get(name.key, ({}, 0))[1]:
                    known[name.key] = content, name.attempt
        return known

    def _write(self, key: str, task: _Task) -> None:
        """Offer a task to the workers."""
        content = {"text": task.text, "thresholds": list(task.thresholds.items()), "lost": task.lost, "avoid": task.avoid}
        try:
            write_mapping(self._folder.waiting / str(TaskName(key, task.attempt)), content)
        except OSError as error:
            raise WorkerError(f"the folder of the workers cannot be written: {error}") from None

    @staticmethod
    def _remove(folder: Path, name: TaskName) -> None:
        with suppress(OSError):  # gone already, or tried again later
            (folder / str(name)).unlink(missing_ok=True)

    # -------------------------------------------------------------------------------------- one look

    def _wait(self, seconds: float) -> list[Finished]:
        end = time.monotonic() + seconds
        while True:
            self._heartbeat.beat()
            finished = self._read_results()
            if time.monotonic() - self._looked >= LOOK:
                self._looked = time.monotonic()
                finished += self._look_at_workers()
            left = end - time.monotonic()
            if finished or not self._tasks or left <= 0:
                self._pause = POLL[0] if finished else self._pause
                return finished
            time.sleep(min(left, self._pause))
            self._pause = min(1.5 * self._pause, POLL[1])

    def _read_results(self) -> list[Finished]:
        """The results that are new. Files that have been used, or come too late, are removed."""
        finished = []
        for name in tasks_in(self._folder.results):
            task = self._tasks.get(name.key)
            if task is not None:
                finished += self._read_result(name, task)
            elif name.key not in self._returned:
                self._remove(self._folder.results, name)
        return finished

    def _read_result(self, name: TaskName, task: _Task) -> list[Finished]:
        try:
            message = read_mapping(self._folder.results / str(name))
        except OSError:  # a network file system may list a file before it has it
            return []
        reason = "wrote a result that cannot be read" if message is None else message.get("reason")
        outcome: Outcome | None = None
        if reason is None:
            try:
                outcome = parse_message((message or {}).get("outcome"))
            except WorkerLost as error:
                reason = str(error)
        if outcome is not None and reason is None:
            del self._tasks[name.key]
            self._returned.add(name.key)
            self._finished += 1
            return [Finished(task.number, outcome, name.worker, len(task.lost) + 1, tuple(task.lost))]
        finished = self._lose(name, task, reason or "sent a message that is no result") if name.attempt == task.attempt else []
        self._remove(self._folder.results, name)
        return finished

    def _lose(self, name: TaskName, task: _Task, reason: str) -> list[Finished]:
        """Offer a task anew that lost its worker, or return it as failed."""
        task.lost.append(f"{name.worker}: {reason}")
        if len(task.lost) < MAX_ATTEMPTS:
            task.attempt, task.avoid = task.attempt + 1, name.worker
            self._write(name.key, task)
            return []
        del self._tasks[name.key]
        outcome = Outcome(f"{FAILED}: {reason}", None, {"error": reason}, 0.0)
        return [Finished(task.number, outcome, name.worker, len(task.lost), tuple(task.lost))]

    def _look_at_workers(self) -> list[Finished]:
        """Take tasks from silent workers, withdraw tasks that are done, and write anew those whose files are gone."""
        root, running, waiting = self._root, tasks_in(self._folder.running), tasks_in(self._folder.waiting)
        try:
            workers = {name for name in os.listdir(root / "workers") if not name.startswith(".")}
        except OSError:
            workers = set()
        busy = {name.worker for name in running}
        self._listener.listen(heartbeat_of(root, worker) for worker in workers | busy)
        finished = []
        for name in running:
            task = self._tasks.get(name.key)
            if task is None or name.attempt < task.attempt:
                self._remove(self._folder.running, name)  # the worker notices, and evaluates something else
            elif self._listener.is_silent(heartbeat_of(root, name.worker), SILENT):
                finished += self._lose(name, task, f"has been silent for {SILENT:g} s")
                self._remove(self._folder.running, name)
        for name in waiting:
            if name.key not in self._tasks or name.attempt < self._tasks[name.key].attempt:
                self._remove(self._folder.waiting, name)
        self._rewrite_missing({name.key for name in (*running, *waiting, *tasks_in(self._folder.results))})
        for worker in workers:
            if self._listener.is_silent(heartbeat_of(root, worker), SILENT):
                with suppress(OSError):
                    heartbeat_of(root, worker).unlink(missing_ok=True)  # if it lives after all, it writes it again
        alive = {worker for worker in workers if self._listener.is_alive(heartbeat_of(root, worker), SILENT)}
        self._warn(len(alive | busy))
        return finished

    def _rewrite_missing(self, present: set[str]) -> None:
        """Write tasks anew whose files have not been seen for a while, because somebody removed them."""
        now = time.monotonic()
        self._missing_since = {key: self._missing_since.get(key, now) for key in self._tasks if key not in present}
        for key, since in self._missing_since.items():
            if now - since >= SILENT:
                self._write(key, self._tasks[key])

    def _warn(self, workers: int) -> None:
        """Say that there are no workers, or more than can be busy."""
        now = time.monotonic()
        self._alone_since = None if workers or not self._tasks else now if self._alone_since is None else self._alone_since
        if self._alone_since is not None and now - self._alone_since >= LONELY:
            self._alone_since = math.inf  # once
            warnings.warn(f"no worker takes the search's tasks: start some with `nasdsl worker {self._root}`", stacklevel=2)
        if workers > self._most and self._finished > 2 * self._most and not self._warned_of_many:
            self._warned_of_many = True
            warnings.warn(
                f"{workers} workers share {self._most} trials in flight, so that some are idle: more of them (--batch, batch=) "
                "would keep all busy",
                stacklevel=2,
            )
