"""The files through which a search and its workers talk in a shared folder.

    workers/NAME                    heartbeat of a worker
    searches/ID/search.json         what is evaluated, and by which versions; see `FolderWorkers`
    searches/ID/evaluation.pickle   an evaluation of the user's own
    searches/ID/heartbeat           of the search
    searches/ID/waiting/TASK        a text to evaluate
    searches/ID/running/TASK@NAME   the same file, claimed by a worker: renamed
    searches/ID/results/TASK@NAME   what the worker found

Nothing is locked and no clock is read from the folder, so it may be on a network file system, and the machines' clocks may
differ. A task is claimed by a rename, which succeeds for one process only. Files are complete under their names, because they
are renamed to them. A process is silent if its heartbeat has not changed for some seconds of the observer's own clock.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from nasdsl.files import read_json, write_bytes
from nasdsl.search.trial import Thresholds

FORMAT: Final = "nasdsl worker folder 1"
BEAT: Final = 5.0
"""Seconds between two heartbeats."""
SILENT: Final = 60.0
"""Seconds without a heartbeat after which a process counts as gone. Network file systems may show files half a minute late."""
MAX_STEP: Final = 2.0
"""Seconds of silence that one look at a heartbeat can add, so that a pause of the observer is not taken for the others'."""

_NAME = re.compile(r"(?P<key>[0-9]{6,}-[0-9a-f]{8})\.(?P<attempt>[0-9]+)(?:@(?P<worker>[\w.-]+))?")


class TaskName(NamedTuple):
    """The name of a task's file.

    Attributes:
        key: number of the trial, and hash of what is evaluated.
        attempt: from 1; a task whose worker was lost is written again with the next.
        worker: that claimed it; empty for none.
    """

    key: str
    attempt: int
    worker: str = ""

    def __str__(self) -> str:
        return f"{self.key}.{self.attempt}" + (f"@{self.worker}" if self.worker else "")

    @staticmethod
    def parse(text: str) -> TaskName | None:
        """None for a file that is no task, such as one that is not complete."""
        match = _NAME.fullmatch(text)
        return None if match is None else TaskName(match["key"], int(match["attempt"]), match["worker"] or "")


def task_key(number: int, text: str, thresholds: Thresholds) -> str:
    """The key of a trial's task."""
    evaluated = json.dumps([text, sorted(thresholds.items())])
    return f"{number:06}-{sha256(evaluated.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class SearchFolder:
    """The folder of one search in the shared folder."""

    path: Path

    @property
    def settings(self) -> Path:
        return self.path / "search.json"

    @property
    def pickle(self) -> Path:
        return self.path / "evaluation.pickle"

    @property
    def heartbeat(self) -> Path:
        return self.path / "heartbeat"

    @property
    def waiting(self) -> Path:
        return self.path / "waiting"

    @property
    def running(self) -> Path:
        return self.path / "running"

    @property
    def results(self) -> Path:
        return self.path / "results"

    def make(self) -> None:
        for folder in (self.waiting, self.running, self.results):
            folder.mkdir(parents=True, exist_ok=True)


def search_folders(root: Path) -> list[SearchFolder]:
    """The searches of a shared folder, in a fixed order."""
    try:
        return [SearchFolder(path) for path in sorted((root / "searches").iterdir())]
    except FileNotFoundError:
        return []


def heartbeat_of(root: Path, worker: str) -> Path:
    """The heartbeat of a worker."""
    return root / "workers" / worker


def tasks_in(folder: Path) -> list[TaskName]:
    """The tasks whose files are in a folder, by number."""
    try:
        return sorted(name for file in os.listdir(folder) if (name := TaskName.parse(file)) is not None)
    except FileNotFoundError:
        return []


def read_mapping(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None if it is torn, or no mapping.

    Raises:
        FileNotFoundError: there is none.
    """
    try:
        value = read_json(path)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def write_mapping(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file, so that it is complete under its name."""
    write_bytes(path, json.dumps(value, ensure_ascii=False, allow_nan=False).encode())


def move(source: Path, target: Path) -> bool:
    """Rename a file; False if it is gone: another process was faster.

    A network file system may carry out a rename, lose its answer, and report at the repetition that there is no such file.
    """
    try:
        os.rename(source, target)
    except FileNotFoundError:
        return target.exists()
    return True


class Heartbeat:
    """A file whose content changes every few seconds while this process lives.

    Args:
        interval: in seconds.
    """

    def __init__(self, path: Path, interval: float) -> None:
        self.path, self._interval = path, interval
        self._count = 0
        self._last = -interval

    def beat(self) -> None:
        """Change the content, if it is time to. What the file system cannot do now is tried again at the next call."""
        if time.monotonic() - self._last < self._interval:
            return
        self._count += 1
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(f"{os.getpid()} {self._count}\n", encoding="ascii")
            self._last = time.monotonic()

    def stop(self) -> None:
        """Remove the file."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


class _Heard(NamedTuple):
    content: bytes
    silence: float
    changed: bool


class Listener:
    """Notices which heartbeats have stopped. `listen` is to be called often."""

    def __init__(self) -> None:
        self._heard: dict[Path, _Heard] = {}
        self._last = time.monotonic()

    def listen(self, paths: Iterable[Path]) -> None:
        """Read the heartbeats; others are forgotten."""
        now = time.monotonic()
        step = min(now - self._last, MAX_STEP)
        self._last = now
        heard = {}
        for path in paths:
            try:
                content = path.read_bytes()
            except OSError:
                content = b""
            before = self._heard.get(path)
            if before is None:
                heard[path] = _Heard(content, 0.0, False)
            elif content and content != before.content:
                heard[path] = _Heard(content, 0.0, True)
            else:
                heard[path] = _Heard(before.content, before.silence + step, before.changed)
        self._heard = heard

    def is_silent(self, path: Path, seconds: float) -> bool:
        """Whether a heartbeat has not changed for so long."""
        heard = self._heard.get(path)
        return heard is not None and heard.silence >= seconds

    def is_alive(self, path: Path, seconds: float) -> bool:
        """Whether a heartbeat has been seen to change, the last time not longer ago than this."""
        heard = self._heard.get(path)
        return heard is not None and heard.changed and heard.silence < seconds
