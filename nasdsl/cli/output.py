"""What commands print besides their data: messages, diagnostics, progress."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from nasdsl.diagnostics import Diagnostic

MOST_SHOWN = 1000
"""Findings that are printed for people; a file with more is most likely no decoder at all."""


def say(text: str) -> None:
    click.echo(text, err=True)


def report(findings: Sequence[Diagnostic]) -> None:
    from nasdsl.diagnostics import render_all

    color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    shown = list(findings)[:MOST_SHOWN]
    say(render_all(shown, color=color))
    if len(findings) > len(shown):
        say(f"\n… and {len(findings) - len(shown):,} more (--format json has all of them)")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], object]]:
    """A bar on a terminal, and nothing elsewhere. The yielded function takes how much is done, and of how much."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def is_first_process() -> bool:
    """Under torchrun one process speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
