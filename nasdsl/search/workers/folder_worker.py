"""The worker of a shared folder: takes tasks of its searches one at a time, and evaluates them in a process of its own.

It does not import torch; the process in which it evaluates does.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final, TypeAlias
from uuid import uuid4

from nasdsl.search.errors import WorkerError
from nasdsl.search.evaluation import Evaluate
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
    move,
    read_mapping,
    search_folders,
    tasks_in,
    write_mapping,
)
from nasdsl.search.workers.pool import MAX_FAILED_STARTS, CannotLoad, WorkerLost
from nasdsl.search.workers.process import ProcessWorker, pickle_evaluation

GRACE: Final = 10.0
"""Seconds that an evaluation has to end after a signal; then its task is given back."""
PATIENCE: Final = 10.0
"""Seconds for which a worker leaves a task to others that it has failed at before."""
POLL: Final = (0.05, 1.0)
"""Seconds between two looks for a task, at first and at most."""
MUST_MATCH: Final = ("nasdsl", "torch")
"""Packages whose versions rewards depend on."""

Say: TypeAlias = Callable[[str], object]
Stopped: TypeAlias = Callable[[], bool]
"""Whether the worker is to end, because of a signal."""


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What a worker does differently from the search.

    Attributes:
        changes: of the proxy task's spec: where things are on this machine, see `ProxyEvaluation.from_settings`.
        threads: CPU threads of an evaluation. None: ``OMP_NUM_THREADS``, or all cores.
        trust_pickle: load evaluations of the user's own. Loading a pickle runs code that is in it.
        idle: seconds without a task after which the worker ends. None: it waits without end.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None
    trust_pickle: bool = False
    idle: float | None = None


class ProxyLoader:
    """Loads a proxy task, or those of several detectors, in the process that unpickles it, from plain settings."""

    def __init__(self, settings: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
        self._settings, self._changes = settings, changes

    def __reduce__(self) -> tuple[Callable[..., Evaluate], tuple[Any, ...]]:
        from nasdsl.search.detectors import DetectorEvaluation
        from nasdsl.search.proxy_evaluation import ProxyEvaluation

        kind = DetectorEvaluation if "detectors" in self._settings else ProxyEvaluation
        return kind.from_settings, (dict(self._settings), dict(self._changes))

    def __call__(self, text: str) -> float:
        raise NotImplementedError("it is another object where it has been unpickled")


class FolderWorker:
    """A worker.

    Attributes:
        name: unique among the workers of the folder.
        status: what it does now, for the user.
        evaluated, lost: numbers of evaluations with a result, and without.
        seconds: of all evaluations with a result.

    Args:
        root: the shared folder.
        say: prints a line.
        show: called often, to show the status.

    Raises:
        WorkerError: the folder cannot be written.
    """

    def __init__(self, root: Path, options: WorkerOptions, say: Say, show: Callable[[], object] = lambda: None) -> None:
        self.name = f"{re.sub(r'[^A-Za-z0-9-]', '-', socket.gethostname())}-{os.getpid()}-{uuid4().hex[:4]}"
        self.status, self.evaluated, self.lost, self.seconds = "waiting for a search", 0, 0, 0.0
        self._root = root.expanduser().absolute()
        self._options, self._say, self._show = options, say, show
        self._directory = os.getcwd()
        self._heartbeat = Heartbeat(heartbeat_of(self._root, self.name), BEAT)
        self._listener = Listener()
        self._listened = 0.0
        self._process: ProcessWorker | None = None
        self._of: tuple[Path, Any] | None = None  # folder and settings of the search whose evaluation the process has
        self._seen: dict[Path, float] = {}  # when tasks that are left to others were first seen
        self._troubled = False
        try:
            for folder in ("workers", "searches"):
                (self._root / folder).mkdir(parents=True, exist_ok=True)
            (self._root / "workers" / self.name).write_text("", encoding="ascii")
        except OSError as error:
            raise WorkerError(f"{root} cannot be used as the folder of a search: {error.strerror or error}") from None

    def run(self, stopped: Stopped) -> None:
        """Evaluate tasks until it is stopped, or until there has been none for `WorkerOptions.idle` seconds.

        Raises:
            WorkerError: this worker cannot take part in a search in the folder; the message says why.
        """
        pause, idle_since = POLL[0], time.monotonic()
        try:
            while not stopped():
                self._live()
                try:
                    worked = self._work(stopped)
                    self._troubled = False
                except OSError as error:  # of a network file system; what was begun is tried again
                    worked = False
                    self._trouble(error)
                if worked:
                    pause, idle_since = POLL[0], time.monotonic()
                    continue
                self.status = "waiting for a task" if self._of else "waiting for a search"
                if self._options.idle is not None and time.monotonic() - idle_since >= self._options.idle:
                    return
                time.sleep(pause)
                pause = min(1.5 * pause, POLL[1])
        finally:
            self._kill()
            self._heartbeat.stop()

    # -------------------------------------------------------------------------------------- one task

    def _live(self) -> None:
        """Tell the search that this worker lives, hear which searches do, and show the status."""
        self._heartbeat.beat()
        if time.monotonic() - self._listened >= 0.5:
            self._listened = time.monotonic()
            with suppress(OSError):
                self._listener.listen(folder.heartbeat for folder in search_folders(self._root))
        self._show()

    def _work(self, stopped: Stopped) -> bool:
        """Evaluate one task; False if there is none."""
        folder = self._next_search()
        if folder is None or not self._prepare(folder, stopped):
            return False
        name = next((name for name in tasks_in(folder.waiting) if self._may_take(folder, name)), None)
        if name is None:
            return False
        mine = name._replace(worker=self.name)
        if not move(folder.waiting / str(name), folder.running / str(mine)):
            return True  # another worker was faster; there may be more
        try:
            self._evaluate(folder, mine, stopped)
        except FileNotFoundError:  # withdrawn in this moment
            pass
        except SystemExit:  # a second Ctrl-C
            self._give_back(folder, mine)
            raise
        return True

    def _next_search(self) -> SearchFolder | None:
        """A search that runs and has a task for this worker: the one whose evaluation is loaded, if it has."""
        running = [
            folder
            for folder in search_folders(self._root)
            if self._listener.is_alive(folder.heartbeat, SILENT)
            and any(self._may_take(folder, name) for name in tasks_in(folder.waiting))
        ]
        loaded = [folder for folder in running if self._of is not None and folder.path == self._of[0]]
        return next(iter(loaded + running), None)

    def _may_take(self, folder: SearchFolder, name: TaskName) -> bool:
        """Whether a task is for this worker. One that it was lost over is left to others for a while."""
        if name.attempt == 1:
            return True
        path = folder.waiting / str(name)
        try:
            content = read_mapping(path)
        except OSError:
            return False
        since = self._seen.setdefault(path, time.monotonic())
        avoid = None if content is None else content.get("avoid")
        return avoid != self.name or time.monotonic() - since >= PATIENCE

    def _prepare(self, folder: SearchFolder, stopped: Stopped) -> bool:
        """Have a process with the search's evaluation; False if the search has ended meanwhile, or when stopped.

        Raises:
            WorkerError: this worker cannot evaluate for the search.
        """
        try:
            settings = read_mapping(folder.settings)
        except FileNotFoundError:
            return False
        if settings is None:
            raise WorkerError(f"{folder.settings} cannot be read")
        if self._process is not None and self._of == (folder.path, settings):
            return True
        self._kill()
        payload = self._payload(folder, settings)
        with suppress(OSError):  # paths of the data may be relative to it
            os.chdir(self._directory)
            os.chdir(settings["directory"])
        self.status = "loading the evaluation and its features"
        threads = {} if self._options.threads is None else {"OMP_NUM_THREADS": str(self._options.threads)}
        self._process = ProcessWorker("worker", payload, threads)
        failed = 0
        self._process.start()
        while not stopped() and folder.settings.exists():
            self._live()
            if not self._answers():
                continue
            try:
                self._process.receive()
            except CannotLoad as error:
                raise WorkerError(f"this worker cannot take part in the search of {settings['directory']}: {error}") from None
            except WorkerLost as error:
                failed += 1
                self._process.kill()
                if failed >= MAX_FAILED_STARTS:
                    raise WorkerError(f"the process of the evaluation does not start: {error}") from None
                self._process.start()
                continue
            self._of = folder.path, settings
            return True
        self._kill()
        return False

    def _payload(self, folder: SearchFolder, settings: Mapping[str, Any]) -> bytes:
        """The evaluation, for a process to unpickle.

        Raises:
            WorkerError: it must not be, or its results would be others.
        """
        where = f"the search of {settings.get('directory')}"
        if settings.get("format") != FORMAT:
            raise WorkerError(f"{folder.settings} is not of the format {FORMAT!r}: the search runs another version of nasdsl")
        theirs, ours = settings["versions"], versions()
        wrong = [name for name in MUST_MATCH if _public(theirs.get(name)) != _public(ours.get(name))]
        if wrong:
            found = ", ".join(f"{name} {theirs.get(name)} (here {ours.get(name)})" for name in wrong)
            raise WorkerError(f"{where} runs {found}, so that its rewards would differ: install the same versions here")
        if settings["proxy"] is not None:
            return pickle_evaluation(ProxyLoader(settings["proxy"], self._options.changes))
        if not self._options.trust_pickle:
            raise WorkerError(
                f"{where} has an evaluation of its own, {folder.pickle}, and whoever can write this file can run any code "
                "here: if you trust them, start the worker with --trust-pickle"
            )
        return folder.pickle.read_bytes()

    def _evaluate(self, folder: SearchFolder, name: TaskName, stopped: Stopped) -> None:
        """Evaluate a claimed task and write its result, unless it is withdrawn or given back."""
        claim = folder.running / str(name)
        content = read_mapping(claim)
        if content is None:
            self._finish(folder, name, {"reason": "the file of the task cannot be read", "lost": []}, stopped)
            return
        assert self._process is not None
        assert self._of is not None
        timeout = self._of[1]["timeout"]
        self.status = f"evaluating trial {int(name.key.partition('-')[0])}"
        began = looked = time.monotonic()
        reason = None
        stopped_at: float | None = None
        try:
            self._process.send(content["text"], {int(step): loss for step, loss in content["thresholds"]})
        except WorkerLost as error:  # it died while idle, so not over this text
            self._say(f"the process of the evaluation was lost: {error}")
            self._give_back(folder, name)
            return
        outcome = None
        while outcome is None and reason is None:
            self._live()
            now = time.monotonic()
            if self._answers():
                try:
                    outcome = self._process.receive()
                except (WorkerLost, CannotLoad) as error:
                    reason = str(error)
                if outcome is not None and outcome.retry:
                    reason = outcome.verdict.partition(": ")[2]
            elif timeout is not None and now - began >= timeout:
                reason = f"no result within {timeout:g} s"
            elif now - looked >= 1.0:
                looked = now
                if not _exists(claim):
                    self._say(f"trial {int(name.key.partition('-')[0])} was taken from this worker, and is abandoned")
                    self._kill()
                    return
            if stopped() and outcome is None:
                stopped_at = stopped_at or now
                if now - stopped_at >= GRACE:
                    self._give_back(folder, name)
                    return
        if reason is not None:
            self.lost += 1
            self._kill()
            self._finish(folder, name, {"reason": reason, "lost": content["lost"]}, stopped)
            return
        assert outcome is not None
        self.evaluated += 1
        self.seconds += outcome.seconds
        self._finish(folder, name, {"outcome": asdict(outcome), "lost": content["lost"]}, stopped)

    def _finish(self, folder: SearchFolder, name: TaskName, result: Mapping[str, Any], stopped: Stopped) -> None:
        """Write a result. While the folder cannot be written, go on trying, until the search has ended or a second signal."""
        while True:
            try:
                write_mapping(folder.results / str(name), result)
                (folder.running / str(name)).unlink(missing_ok=True)
                return
            except FileNotFoundError:  # the search has ended
                return
            except OSError as error:
                self._trouble(error)
                if stopped():
                    return
                self._live()
                time.sleep(POLL[1])

    def _give_back(self, folder: SearchFolder, name: TaskName) -> None:
        """Stop evaluating, and leave the task to another worker."""
        self._kill()
        with suppress(OSError):
            move(folder.running / str(name), folder.waiting / str(name._replace(worker="")))

    # -------------------------------------------------------------------------------------- the process

    def _answers(self) -> bool:
        """Whether the process has a message or has died, within a moment."""
        assert self._process is not None
        return bool(wait([self._process.pipe], 0.1)) or self._process.has_died()

    def _kill(self) -> None:
        process, self._process, self._of = self._process, None, None
        if process is not None:
            process.kill()

    def _trouble(self, error: OSError) -> None:
        """Say once that the folder cannot be used for now."""
        if not self._troubled:
            self._troubled = True
            self._say(f"the folder cannot be used now ({error}); trying again")


def _exists(path: Path) -> bool:
    """Whether a file is there; a file system that does not answer well says nothing about it."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        pass
    return True


def _public(version: str | None) -> str | None:
    """A version without its local part, which names the kind of the build: ``2.6.0+cu124``."""
    return None if version is None else version.partition("+")[0]
