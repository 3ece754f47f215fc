"""Logging of a training: progress on the terminal, ``log.jsonl``, trackers."""

from __future__ import annotations

import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from nasdsl.backends.layer_errors import first_line
from nasdsl.files import json_lines, read_bytes, sync_folder, write_bytes
from nasdsl.training.progress import LINE_EVERY, REFRESHES, duration
from nasdsl.training.trackers import Outcome, Tracker

T = TypeVar("T")


class Throughput:
    """Measures images per second, the share of time spent waiting for data, and the time left."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, float]] = deque(maxlen=10)
        self.reset()

    def reset(self) -> None:
        """Start a new measurement; the time since the last one is not counted."""
        self._start = time.perf_counter()
        self._waited = 0.0

    def time_loading(self, items: Iterator[T]) -> Iterator[T]:
        """The same items; the time that it takes to get them is counted as waiting."""
        while True:
            before = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._waited += time.perf_counter() - before
            yield item

    def measure(self, steps: int, images: int, remaining: int) -> dict[str, float]:
        """End a measurement and start a new one.

        Args:
            steps: number of steps since the last measurement.
            images: number of images in them, of all processes.
            remaining: number of steps until the end of the training.

        Returns:
            ``images``; ``seconds`` since the last measurement; ``images_per_s``; ``waiting``, the share of the time in which
            this process waited for data, 0 to 1; ``seconds_left``, for the remaining steps without evaluations, at the pace
            of the last ten measurements.
        """
        seconds = max(time.perf_counter() - self._start, 1e-9)
        self._recent.append((steps, seconds))
        pace = sum(s for _, s in self._recent) / max(1, sum(n for n, _ in self._recent))
        measured = {
            "images": images,
            "seconds": seconds,
            "images_per_s": images / seconds,
            "waiting": self._waited / seconds,
            "seconds_left": pace * remaining,
        }
        self.reset()
        return measured


class TrainingLogger:
    """Shows the progress of a training and writes its log. With `quiet` nothing is shown.

    Args:
        log: file that records are appended to, one JSON object a line; None: no file.
        total: steps of the training.
        step: where it begins. Records of later steps, left in the file by a training that was killed, are removed.
        trackers: get the figures as well, by name; they are finished when the training ends, in whatever way.
    """

    def __init__(
        self,
        log: Path | None,
        total: int,
        step: int = 0,
        *,
        quiet: bool = False,
        trackers: Mapping[str, Tracker] | None = None,
    ) -> None:
        self._total, self._quiet = total, quiet
        self._console = Console(stderr=True)
        self._last_line = -math.inf
        self._bar: Progress | None = None
        self._trackers = dict(trackers or {})
        self._log = log
        if log is not None:
            truncate_log(log, step)
        if not quiet and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[status]}"),
                console=self._console, refresh_per_second=REFRESHES,
            )  # fmt: skip
            self._task = self._bar.add_task("training", total=total, completed=step, status="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        interrupted = kind is not None and issubclass(kind, SystemExit | KeyboardInterrupt)
        outcome: Outcome = "finished" if kind is None else "interrupted" if interrupted else "failed"
        for name in list(self._trackers):
            self._call(name, lambda tracker: tracker.finish(outcome))

    def advance(self, step: int) -> None:
        """Move the progress bar to a step."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def info(self, text: str) -> None:
        """Print a message."""
        if not self._quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def record(self, record: Mapping[str, Any]) -> None:
        """Write a record to the log and to the trackers; records of the event ``train`` are also shown."""
        if self._log is not None:
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(json.dumps(finite(record), ensure_ascii=False) + "\n")
        self.track(record, record["step"])
        if record["event"] == "train" and not self._quiet:
            self._show(record)

    def sync(self) -> None:
        """Return when all records are on the disk."""
        if self._log is not None and self._log.exists():
            with open(self._log, "rb+") as file:
                os.fsync(file.fileno())
            sync_folder(self._log.parent)

    def track(self, record: Mapping[str, Any], step: int) -> None:
        """Pass the numbers of a record to the trackers alone."""
        scalars = {name: value for name, value in _scalars(record) if math.isfinite(value)}
        if scalars:
            for name in list(self._trackers):
                self._call(name, lambda tracker: tracker.log(scalars, step))

    def _call(self, name: str, do: Callable[[Tracker], None]) -> None:
        """Let a tracker do something. One that fails is left alone from then on: the training matters more."""
        try:
            do(self._trackers[name])
        except Exception as error:
            del self._trackers[name]
            self.info(f"warning: {name} failed and gets nothing more: {first_line(error)}")

    def _show(self, record: Mapping[str, Any]) -> None:
        losses = "  ".join(f"{name} {value:.3f}" for name, value in record["losses"].items())
        status = (
            f"loss {record['loss']:.3f} ({losses})  lr {record['lr']:.2e}  {record['images_per_s']:.1f} images/s  "
            f"{duration(record['seconds_left'])} left"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=record["step"], status=status)
        elif time.monotonic() - self._last_line >= LINE_EVERY or record["step"] >= self._total:
            self._last_line = time.monotonic()
            self.info(f"step {record['step']}/{self._total}  epoch {record['epoch']:.2f}  {status}")

    @contextmanager
    def subtask(self, description: str) -> Iterator[Any]:
        """A second progress bar; yields a function that takes how many items are done and how many there are."""
        if self._bar is None:
            yield lambda done, total: None
            return
        bar, task = self._bar, self._bar.add_task(description, status="")
        try:
            yield lambda done, total: bar.update(task, completed=done, total=total)
        finally:
            bar.remove_task(task)


def truncate_log(log: Path, step: int) -> None:
    """Remove records of later steps from a log, and an incomplete last line."""
    if not log.exists():
        return
    kept = [line + b"\n" for line, record in _records(log) if record["step"] <= step]
    write_bytes(log, b"".join(kept))


def read_log(log: Path) -> list[dict[str, Any]]:
    """The records of a log, without an incomplete last line; empty if there is no file."""
    return [record for _, record in _records(log)] if log.exists() else []


def _records(log: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    for line, record in json_lines(read_bytes(log)):
        if isinstance(record.get("step"), int) and isinstance(record.get("event"), str):
            yield line, record


def finite(value: Any) -> Any:
    """The value with null for numbers that JSON lacks."""
    if isinstance(value, Mapping):
        return {name: finite(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scalars(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of a record by path, such as ``train/losses/classification``."""
    prefix = prefix or f"{value['event']}/"
    for name, v in value.items():
        if isinstance(v, Mapping):
            yield from _scalars(v, f"{prefix}{name}/")
        elif isinstance(v, int | float) and not isinstance(v, bool) and name != "step":
            yield prefix + name, float(v)
