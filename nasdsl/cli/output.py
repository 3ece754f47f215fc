"""Messages, diagnostics and progress on standard error, and the console for standard output."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from nasdsl.diagnostics import Diagnostic
    from nasdsl.spaces import Rejections

MAX_DIAGNOSTICS = 1000
"""Diagnostics that are printed for people; a file with more is most likely no decoder at all."""


def echo_err(text: str) -> None:
    click.echo(text, err=True)


def print_diagnostics(diagnostics: Sequence[Diagnostic]) -> None:
    """Print diagnostics with the source lines they point at, in color on a terminal (unless ``NO_COLOR`` is set)."""
    from nasdsl.diagnostics import render_all

    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    printed = list(diagnostics)[:MAX_DIAGNOSTICS]
    echo_err(render_all(printed, color=color))
    if len(diagnostics) > len(printed):
        echo_err(f"\n… and {len(diagnostics) - len(printed):,} more (--format json has all of them)")


def stdout_console() -> Console:
    """Console on standard output, without colours for numbers; 110 columns wide where that is no terminal."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 110)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], object]]:
    """Progress bar on a terminal, nothing elsewhere. Call what it yields with the number of steps done and in all."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    with Progress(TextColumn(label), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


class RejectionReporter:
    """Prints how many samples of a space were rejected in a row, with the time left; see `Space.on_rejections`.

    On a terminal every report, elsewhere one at 10,000, 30,000, 100,000, 300,000 and so on.
    """

    def __init__(self) -> None:
        self._previous: tuple[int, float] | None = None
        self._next = 0

    def __call__(self, rejections: Rejections) -> None:
        now, count = time.monotonic(), rejections.count
        if self._previous is None or count <= self._previous[0]:
            self._previous, self._next = None, count
        if self._previous is None:
            left = ""
        else:
            pace = (now - self._previous[1]) / (count - self._previous[0])
            left = f", up to {pace * (rejections.attempts - count):.0f} s left"
        self._previous = count, now
        if count >= self._next or sys.stderr.isatty():
            self._next = 3 * count if str(count).startswith("1") else 10 * count // 3
            echo_err(
                f"{count:,} samples in a row rejected, of at most {rejections.attempts:,}{left}; the last {rejections.reason}"
            )


def is_main_process() -> bool:
    """Whether this process prints: under torchrun only the one of rank 0 does."""
    return os.environ.get("RANK", "0") == "0"


def pluralize(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
