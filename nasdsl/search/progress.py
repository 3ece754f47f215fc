"""Progress of a search on standard error: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import math
import time
from collections import deque
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as ProgressBar

from nasdsl.search.trial import DUPLICATE, OK, REJECTED, STOPPED, Trial
from nasdsl.training.progress import LINE_EVERY, REFRESHES, duration

RECENT: Final = 50
"""Trials over which mean reward and speed are computed."""


class SearchProgress:
    """Progress display of a search: numbers of trials by verdict, best and mean reward, speed.

    Args:
        total: trials of the whole search.
        quiet: show nothing.
    """

    def __init__(self, total: int, *, quiet: bool = False) -> None:
        self._total, self._quiet = total, quiet
        self._console = Console(stderr=True)
        self.done = 0
        self.cached = self.rejected = self.stopped = self.failed = 0
        self.best: Trial | None = None
        self._rewards: deque[float] = deque(maxlen=RECENT)
        self._times: deque[float] = deque(maxlen=RECENT)
        self._last_line = time.monotonic()
        self._bar: ProgressBar | None = None
        if not quiet and self._console.is_terminal:
            self._bar = ProgressBar(
                TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[summary]}"),
                console=self._console, refresh_per_second=REFRESHES,
            )  # fmt: skip
            self._task = self._bar.add_task("searching", total=total, summary="")

    def __enter__(self) -> Self:
        self._times.append(time.monotonic())
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line."""
        if not self._quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def add(self, trial: Trial, *, resumed: bool = False) -> None:
        """Count a trial.

        Args:
            resumed: it is from before a resume, and does not count for the speed.
        """
        self.done += 1
        if trial.verdict == OK:
            assert trial.reward is not None
            assert trial.score is not None
            self._rewards.append(trial.reward)
            if self.best is None or self.best.score is None or trial.score > self.best.score:
                self.best = trial
        elif trial.verdict == DUPLICATE:
            self.cached += 1
        elif trial.verdict == REJECTED:
            self.rejected += 1
        elif trial.verdict == STOPPED:
            self.stopped += 1
        else:
            self.failed += 1
        if not resumed:
            self._times.append(time.monotonic())

    @property
    def per_hour(self) -> float:
        """Trials an hour over the last `RECENT`; 0 if there are none yet."""
        start = self._times[0] if self._times else math.inf
        seconds = time.monotonic() - start
        return 3600 * (len(self._times) - 1) / seconds if seconds > 0 and len(self._times) > 1 else 0.0

    def summary(self) -> str:
        """All figures on one line."""
        parts = []
        per_hour = self.per_hour
        if per_hour:
            parts.append(f"{per_hour:.0f} trials/hour")
        if self.best is not None:
            parts.append(f"best {self.best.score:.4g} (trial {self.best.number})")
        if self._rewards:
            parts.append(f"mean {math.fsum(self._rewards) / len(self._rewards):.4g}")
        stopped = f"{self.stopped} stopped  " if self.stopped else ""
        parts.append(f"{self.cached} cached  {self.rejected} rejected  {stopped}{self.failed} failed")
        if per_hour and self.done < self._total:
            parts.append(f"{duration(3600 * (self._total - self.done) / per_hour)} left")
        return "  ".join(parts)

    def refresh(self, *, last: bool = False) -> None:
        """Update the bar; without one, print a line if it is time for one or this is the last."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, summary=self.summary())
        elif last or time.monotonic() - self._last_line >= LINE_EVERY:
            self._last_line = time.monotonic()
            self.say(f"trial {self.done}/{self._total}  {self.summary()}")
