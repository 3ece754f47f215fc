"""What a training tells while it runs: a bar or lines for people, ``log.jsonl`` for programs, TensorBoard if asked."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from nasdsl.training.checkpoint import write_atomically
from nasdsl.training.errors import TrainingError
from nasdsl.training.progress import LINE_EVERY, REFRESHES, duration

T = TypeVar("T")


class Throughput:
    """Speed, the share of time spent waiting for pictures, and the time left."""

    def __init__(self) -> None:
        self._recent: deque[tuple[int, float]] = deque(maxlen=10)
        self.reset()

    def reset(self) -> None:
        """Count from now on; what happened since the last lap is forgotten."""
        self._start = time.perf_counter()
        self._waited = 0.0

    def time_loading(self, items: Iterator[T]) -> Iterator[T]:
        """The same items; the time that they take to come is counted as waiting."""
        while True:
            before = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._waited += time.perf_counter() - before
            yield item

    def measure(self, steps: int, images: int, remaining: int) -> dict[str, float]:
        """``images_per_s``, ``waiting`` (0 to 1) and ``seconds_left``, for the steps since the last lap."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        self._recent.append((steps, seconds))
        pace = sum(s for _, s in self._recent) / max(1, sum(n for n, _ in self._recent))
        lap = {"images_per_s": images / seconds, "waiting": self._waited / seconds, "seconds_left": pace * remaining}
        self.reset()
        return lap


class TrainingLogger:
    """Where a training reports. In a process that is not the main one, or with `quiet`, nothing is logger or written.

    Args:
        log: the file that records are added to, a JSON object a line; None: no file.
        total: steps of the training.
        step: where it begins; records of later steps, which a killed training left in the file, are removed.
        tensorboard: a folder for TensorBoard's event files.

    Raises:
        TrainingError: TensorBoard was asked for and is not installed.
    """

    def __init__(
        self, log: Path | None, total: int, step: int = 0, *, quiet: bool = False, tensorboard: Path | None = None
    ) -> None:
        self._total, self._quiet = total, quiet
        self._console = Console(stderr=True)
        self._last_line = -math.inf
        self._bar: Bar | None = None
        self._writer = _tensorboard(tensorboard, step) if tensorboard is not None else None
        self._log = log
        if log is not None:
            truncate_log(log, step)
        if not quiet and self._console.is_terminal:
            self._bar = Bar(
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
        if self._writer is not None:
            self._writer.close()

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def info(self, text: str) -> None:
        """A line for people."""
        if not self._quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def record(self, record: Mapping[str, Any]) -> None:
        """A record for the log; training records are also logger."""
        if self._log is not None:
            with open(self._log, "a", encoding="utf-8") as file:
                file.write(json.dumps(_plain(record), ensure_ascii=False) + "\n")
        if self._writer is not None:
            for name, value in _scalars(record):
                self._writer.add_scalar(name, value, record["step"])
        if record["event"] == "train" and not self._quiet:
            self._show(record)

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
    def subtask(self, what: str) -> Iterator[Any]:
        """A second bar for something else: the yielded function takes how much is done, and of how much."""
        if self._bar is None:
            yield lambda done, total: None
            return
        bar, task = self._bar, self._bar.add_task(what, status="")
        try:
            yield lambda done, total: bar.update(task, completed=done, total=total)
        finally:
            bar.remove_task(task)


def truncate_log(log: Path, step: int) -> None:
    """Remove the records of later steps from a log, and a last line that a kill cut off."""
    if not log.exists():
        return
    kept = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_atomically(log, lambda file: file.write("".join(kept).encode()))


def _plain(value: Any) -> Any:
    """Numbers that JSON lacks become null."""
    if isinstance(value, Mapping):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _scalars(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Numbers of a record by path, such as ``train/losses/classification``."""
    prefix = prefix or f"{value['event']}/"
    for name, v in value.items():
        if isinstance(v, Mapping):
            yield from _scalars(v, f"{prefix}{name}/")
        elif isinstance(v, int | float) and not isinstance(v, bool) and name != "step":
            yield prefix + name, float(v)


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise TrainingError("TensorBoard is not installed: pip install 'nasdsl[tensorboard]', or leave it out") from None
    return SummaryWriter(str(folder), purge_step=step + 1)
