"""Tables on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from nasdsl.backends.cost import CostTable


def console() -> Console:
    """Console on standard output; if that is no terminal, it is wide enough that no table is cut."""
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def humanise(number: int) -> str:
    """``185752464896`` is ``185.75 G``."""
    for unit, scale in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return str(number)


def _table(columns: Sequence[str], left: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=True)
    return table


def print_cost(name: str, digest: str, backbone: str, table: CostTable) -> None:
    """Print the cost of a decoder: by part, by value, and of removed values."""
    out = console()
    height, width = table.size
    out.print(f"[bold]{name}[/bold] on {backbone}, {height}x{width}, {table.classes} classes, digest {digest[:12]}\n")
    parts = _table(("part", "MACs", "params", "trained", "FLOPs (Table 2)"), 1)
    for part, figures in (("backbone", table.backbone), ("fpn", table.fpn), ("head", table.head), ("total", table.total)):
        cells = (figures.macs, figures.params, figures.trainable_params, figures.published_flops)
        parts.add_row(part, *(humanise(c) for c in cells), style="bold" if part == "total" else "")
    out.print(parts)
    out.print()
    out.print("[bold]by value[/bold]")
    values = _table(("line", "value", "op", "level", "channels x height x width", "MACs", "params"), 3)
    for node in table.nodes:
        shape = " x ".join("·" if s is None else str(s) for s in node.shape)
        level = "all" if node.level is None else str(node.level)
        values.add_row(str(node.line), node.name, node.op, level, shape, humanise(node.macs), humanise(node.params))
    out.print(values)
    if table.removed:
        out.print()
        out.print("[bold]removed, because no output depends on it[/bold]")
        removed = _table(("line", "value", "MACs", "params"), 2)
        for entry in table.removed:
            removed.add_row(str(entry.line), entry.name, humanise(entry.macs), humanise(entry.params))
        out.print(removed)


def print_zoo(decoders: Sequence[Mapping[str, Any]], spaces: Sequence[Mapping[str, Any]]) -> None:
    """Print the decoders (costs of fpn and head on ResNet-50 at 800x1088 with 80 classes) and spaces of the package."""
    out = console()
    table = _table(("decoder", "MACs", "params", "about"), 1)
    for row in decoders:
        table.add_row(f"zoo:{row['name']}", humanise(row["macs"]), humanise(row["params"]), _truncate(row["about"]))
    table.columns[-1].justify = "left"
    out.print(table)
    out.print("\nMACs and params of fpn and head, on ResNet-50 features of an 800x1088 image, 80 classes.\n")
    table = _table(("space", "decisions", "decoders", "about"), 1)
    for row in spaces:
        table.add_row(f"zoo:{row['name']}", str(row["decisions"]), f"{row['size']:,}", _truncate(row["about"]))
    table.columns[-1].justify = "left"
    out.print(table)
    out.print("\n`nasdsl zoo NAME` prints a text.")


def _truncate(text: str, longest: int = 90) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"
