"""Messages, diagnostics and progress on standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nasdsl.diagnostics import Diagnostic

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


def is_main_process() -> bool:
    """Whether this process prints: under torchrun only the one of rank 0 does."""
    return os.environ.get("RANK", "0") == "0"


def pluralize(number: int, noun: str) -> str:
    """``1 file``, ``2 files``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
