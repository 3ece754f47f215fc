"""Features made once: in memory, or in a file that processes share and that a killed process leaves to be gone on with.

A folder of its own for each key, so that nothing that was made otherwise is ever read::

    features.bin    the numbers, picture after picture; written at its end only
    progress.json   how many pictures of it are on the disk, while it is being made
    features.json   the key and what was skipped; there when all of it is on the disk
    fpn.pt          of the second stage: the trained fpn
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor

from nasdsl.data import UnreadableImage
from nasdsl.training.checkpoint import write_atomically
from nasdsl.training.progress import LINE_EVERY, duration
from nasdsl.training.proxy.errors import NonFiniteFeatures, ProxyError
from nasdsl.training.proxy.features import Features, Layout, Maps

FORMAT: Final = 1
"""Of the file, and of how features are made: another number makes all of them anew."""
SYNC_EVERY: Final = 5.0
"""Seconds between two states on the disk that the work can go on from."""

Compute = Callable[[int], Maps]
"""Of a picture's number, its maps: [copies, C, h, w] of each level. Raises UnreadableImage."""


def make_features(
    what: str,
    key: Mapping[str, Any],
    layout: Layout,
    compute: Compute,
    dtype: torch.dtype,
    *,
    folder: str | Path | None,
    memory_limit: int,
    quiet: bool = False,
) -> Features:
    """Features of all pictures: those that are there under this key, or else made now.

    Args:
        what: for people.
        key: all that the features depend on, as plain values.
        folder: of all caches. None: in memory.
        memory_limit: bytes that may be in memory.

    Raises:
        ProxyError: there is not enough memory or space, the folder cannot be written, or features are not finite.
    """
    size = layout.starts[-1] * dtype.itemsize
    with Telling(what, len(layout.extents), quiet) as told:
        if folder is None:
            if size > memory_limit:
                raise ProxyError(
                    f"{what} take {_gigabytes(size)} of memory, and memory_limit is {_gigabytes(memory_limit)}: name a folder "
                    "as cache, or take fewer levels, dtype float16, or mirror=False"
                )
            values, skipped = torch.empty(layout.starts[-1], dtype=dtype), dict[int, str]()
            for picture in range(len(layout.extents)):
                numbers = _numbers(picture, layout, compute, dtype, skipped)
                values[layout.starts[picture] : layout.starts[picture + 1]] = numbers
                told.advance(picture + 1)
            return Features(values, layout, skipped, mapped=False)
        made = _Folder(folder_of(folder, key), json.loads(json.dumps(key)), size)
        try:
            return _from_folder(made, layout, compute, dtype, size <= memory_limit, told)
        except OSError as error:
            raise ProxyError(f"{what} cannot be kept in {made.path}: {error.strerror or error}") from error


def _from_folder(
    made: _Folder, layout: Layout, compute: Compute, dtype: torch.dtype, in_memory: bool, told: Telling
) -> Features:
    skipped = made.skipped(told)
    if skipped is None:
        made.path.mkdir(parents=True, exist_ok=True)
        with _alone(made.path / "lock", told):
            skipped = made.skipped(told)  # another process may have made them meanwhile
            if skipped is None:
                skipped = _make(made, layout, compute, dtype, told)
    # Not torch.from_file: its mapping could be written to, so that the system refuses one that is larger than its memory.
    mapped = np.memmap(made.values, np.uint8, mode="r")
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that nobody may write to it
        values = torch.from_numpy(mapped).view(dtype)
    return Features(values.clone() if in_memory else values, layout, skipped, mapped=not in_memory)


def _make(made: _Folder, layout: Layout, compute: Compute, dtype: torch.dtype, told: Telling) -> dict[int, str]:
    """Append picture after picture to the file. Pictures that cannot be read, and why."""
    done, skipped = made.progress()
    if not made.values.exists() or made.values.stat().st_size < layout.starts[done] * dtype.itemsize:
        done, skipped = 0, {}
    missing = made.size - layout.starts[done] * dtype.itemsize
    if shutil.disk_usage(made.path).free < missing:
        raise ProxyError(f"{made.path} has no space for the {_gigabytes(missing)} of features that are to be made")
    told.start_from(done)
    with open(made.values, "r+b" if done else "wb") as file:
        file.truncate(layout.starts[done] * dtype.itemsize)
        file.seek(0, os.SEEK_END)
        synced = time.monotonic()
        try:
            for picture in range(done, len(layout.extents)):
                file.write(_numbers(picture, layout, compute, dtype, skipped).view(torch.uint8).numpy().tobytes())
                done = picture + 1
                told.advance(done)
                if time.monotonic() - synced >= SYNC_EVERY:
                    made.keep_progress(file, done, skipped)
                    synced = time.monotonic()
        finally:
            made.keep_progress(file, done, skipped)
    made.finish(skipped)
    return skipped


def _numbers(picture: int, layout: Layout, compute: Compute, dtype: torch.dtype, skipped: dict[int, str]) -> Tensor:
    """All numbers of a picture, in the order of the layout."""
    try:
        maps = compute(picture)
    except UnreadableImage as error:
        skipped[picture] = str(error)
        return torch.zeros(layout.starts[picture + 1] - layout.starts[picture], dtype=dtype)
    parts = []
    for copy in range(layout.copies):
        for name, (_, channels) in layout.levels.items():
            found, expected = tuple(maps[name].shape), (layout.copies, channels, *layout.shape(picture, name))
            if found != expected:
                raise ProxyError(f"{name} of picture {picture} has the shape {list(found)}; expected {list(expected)}")
            parts.append(maps[name][copy].permute(1, 2, 0).reshape(-1).to("cpu", dtype))
    numbers = torch.cat(parts)
    if not bool(numbers.isfinite().all()):
        kept = str(dtype).removeprefix("torch.")
        cause = "weights" if kept == "float32" else "dtype or weights"
        raise NonFiniteFeatures(f"features of picture {picture} are not finite in {kept}: {cause} do not fit")
    return numbers


class _Folder:
    """Where the features of one key are."""

    def __init__(self, path: Path, key: Any, size: int) -> None:
        self.path, self.key, self.size = path, key, size
        self.values = self.path / "features.bin"
        self._finished, self._progress = self.path / "features.json", self.path / "progress.json"

    def skipped(self, told: Telling) -> dict[int, str] | None:
        """Of finished features, the pictures that could not be read; None where there are no finished ones."""
        state = self._read(self._finished)
        if state is None:
            return None
        if not self.values.exists() or self.values.stat().st_size != self.size:
            told.say(f"{self.values} is not as long as {self._finished.name} says: it is made anew")
            return None
        return _by_number(state["skipped"])

    def progress(self) -> tuple[int, dict[int, str]]:
        """How many pictures are on the disk, and which of them could not be read."""
        state = self._read(self._progress)
        return (0, {}) if state is None else (int(state["pictures"]), _by_number(state["skipped"]))

    def keep_progress(self, file: Any, pictures: int, skipped: Mapping[int, str]) -> None:
        file.flush()
        os.fsync(file.fileno())
        self._write(self._progress, {"pictures": pictures, "skipped": skipped})

    def finish(self, skipped: Mapping[int, str]) -> None:
        self._write(self._finished, {"skipped": skipped, "torch": torch.__version__})
        self._progress.unlink(missing_ok=True)

    def _read(self, file: Path) -> dict[str, Any] | None:
        """What a state says; None where there is none, or it is not of this key."""
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return None
        return state if isinstance(state, dict) and state.get("key") == self.key else None

    def _write(self, path: Path, state: Mapping[str, Any]) -> None:
        text = json.dumps({**state, "key": self.key}, indent=1)
        write_atomically(path, lambda file: file.write(text.encode()))


def digest_of(key: Any) -> str:
    """Hash of plain values: 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def folder_of(caches: str | Path, key: Mapping[str, Any]) -> Path:
    """Where the features of a key are kept."""
    return Path(caches).expanduser() / digest_of({"format": FORMAT, **key})[:16]


class Telling:
    """How far the features are: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, what: str, total: int, quiet: bool) -> None:
        self._what, self._total, self._quiet = what, total, quiet
        self._console = Console(stderr=True)
        self._bar: Bar | None = None
        self._began = self._last_line = time.monotonic()
        self._first = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start_from(self, done: int) -> None:
        """Pictures that are there already."""
        self._first = done
        if done:
            self.say(f"{self._what}: going on from picture {done} of {self._total}")

    def advance(self, done: int) -> None:
        if self._quiet:
            return
        if self._console.is_terminal:
            if self._bar is None:
                columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
                self._bar = Bar(*columns, console=self._console)
                self._task = self._bar.add_task(self._what, total=self._total, completed=self._first)
                self._bar.start()
            self._bar.update(self._task, completed=done)
            return
        now = time.monotonic()
        if now - self._last_line >= LINE_EVERY:
            self._last_line = now
            left = (now - self._began) / (done - self._first) * (self._total - done)
            self.say(f"{self._what}: {done}/{self._total}  {duration(left)} left")

    def say(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _alone(path: Path, told: Telling) -> Iterator[None]:
    """One process at a time; the lock of one that dies is free. Where files cannot be locked, all go on."""
    try:
        import fcntl
    except ImportError:  # not on Windows: there, let one process make the features before others start
        yield
        return
    with open(path, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            told.say("another process is making the features: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # some network file systems
            pass
        yield


def _by_number(skipped: Mapping[str, str]) -> dict[int, str]:
    return {int(picture): reason for picture, reason in skipped.items()}


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
