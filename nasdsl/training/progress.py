"""Progress display on the terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY: Final = 10.0
"""Seconds between two lines where standard error is no terminal."""
REFRESHES: Final = 2
"""Refreshes of a progress bar per second: drawing it takes time from the training."""


class ProgressBar:
    """Progress on standard error: a bar on a terminal, otherwise a line every `LINE_EVERY` seconds.

    Args:
        description: shown at the beginning.
        total: number of items.
        quiet: show nothing.
    """

    def __init__(self, description: str, total: int, quiet: bool) -> None:
        self._description, self._total, self._quiet = description, total, quiet
        self._console = Console(stderr=True)
        self._bar: Progress | None = None
        self._last_line = time.monotonic()
        self._first = 0
        self._start: tuple[float, int] | None = None  # time and number of items at the first update

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def resume(self, done: int) -> None:
        """Start from `done` items that an earlier process has finished."""
        self._first = done
        if done:
            self.print(f"{self._description}: resuming from {done} of {self._total}")

    def update(self, done: int) -> None:
        """Show that `done` items are finished."""
        if self._quiet:
            return
        if self._console.is_terminal:
            if self._bar is None:
                what = TextColumn("{task.description}", markup=False)  # it may have the name of a folder
                self._bar = Progress(what, BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn(), console=self._console)
                self._task = self._bar.add_task(self._description, total=self._total, completed=self._first)
                self._bar.start()
            self._bar.update(self._task, completed=done)
            return
        now = time.monotonic()
        # The first item is left out of the pace: it may include waiting and preparation.
        start, first = self._start = self._start or (now, done)
        if now - self._last_line >= LINE_EVERY:
            self._last_line = now
            left = f"  {duration((now - start) / (done - first) * (self._total - done))} left" if done > first else ""
            self.print(f"{self._description}: {done}/{self._total}{left}")

    def print(self, text: str) -> None:
        """Print a line."""
        if not self._quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """``2 h 05 min``, ``3 min 20 s``, ``12 s``."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"


def about_duration(seconds: float) -> str:
    """A duration in words as exact as an estimate: ``12 min``, ``40 s``, ``3 h 10 min``, ``12 days``."""
    if seconds >= 4 * 86400:
        return f"{seconds / 86400:,.0f} days"
    if seconds < 90:
        return f"{max(1, round(seconds / 5)) * 5} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    return duration(600 * round(seconds / 600))
