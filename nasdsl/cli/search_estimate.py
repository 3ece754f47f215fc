"""What a search will take: `--estimate`, and the part of it that is known without measuring."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import click

from nasdsl.cli.output import echo_err, pluralize, stdout_console
from nasdsl.training.progress import about_duration

if TYPE_CHECKING:
    from nasdsl.cli.search_setup import PreparedSearch
    from nasdsl.search.estimate import Estimate


def print_estimate(prepared: PreparedSearch, options: SimpleNamespace, format_: str) -> None:
    """Measure a few steps of the search, and print what it takes; nothing is written."""
    from nasdsl.search.estimate import estimate

    found = estimate(prepared, echo_err)
    if format_ == "json":
        click.echo(json.dumps(found.to_dict(), indent=1))
        return
    _print_tables(found)
    echo_err(f"nothing was written; the same command without --estimate searches, in {options.out}")


def _print_tables(found: Estimate) -> None:
    from rich.table import Table

    out = stdout_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("part", overflow="fold")
    table.add_column("time", overflow="fold", justify="right")
    table.add_column("of", overflow="fold")
    for part in found.parts:
        table.add_row(part.name, "unknown" if part.seconds is None else about_duration(part.seconds), part.detail)
    table.add_row("all", about_duration(found.seconds), "")
    out.print(table)
    for title, sizes in (("disk", found.disk), ("memory at most", found.memory)):
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column(title)
        table.add_column("", justify="right")
        for name, size in sizes.items():
            table.add_row(name, format_bytes(size))
        if title == "disk":
            table.add_row("all", format_bytes(sum(sizes.values())))
        out.print()
        out.print(table)
    for number, note in enumerate(found.notes):
        out.print(*(["\n"] if not number else []), note, sep="")


def format_bytes(size: int) -> str:
    """``340 MiB``, ``12.3 GiB``."""
    if size >= 2**30:
        return f"{size / 2**30:,.1f} GiB"
    return f"{size / 2**20:,.0f} MiB" if size >= 2**20 else f"{max(1, round(size / 2**10))} KiB"


def announce_costs(prepared: PreparedSearch) -> None:
    """Print what is known of a search without measuring: how much is trained, and for how long."""
    stages = prepared.stages
    epochs = prepared.options.finetune_backbone
    parts = [f"fine-tuning of {training.plan.backbone}: {_epochs(epochs)}" for training in prepared.backbones]
    names = ("fpn trials", "head trials") if prepared.heads is not None and prepared.first is not None else ("trials",)
    parts += [f"{stage.trials:,} {name}" for stage, name in zip(stages, names, strict=False)]
    if prepared.full is not None:
        number = sum(stage.top for stage in stages) + len(prepared.full.beside)
        minutes, recipe = prepared.full.minutes, prepared.full.plan.recipe
        length = f"{recipe.steps:,} steps" if recipe.steps is not None else _epochs(recipe.epochs)
        if minutes is not None:
            length = f"{minutes:g} minutes each, {about_duration(60 * minutes * number)} in all"
        parts.append(f"{pluralize(number, 'full training')} of {length}")
    echo_err(f"to do: {', '.join(parts)}; how long a trial takes is not known yet: --estimate measures it")


def _epochs(number: float | None) -> str:
    return f"{number:g} epoch{'' if number == 1 else 's'}"
