"""The option --show-settings and the tables it prints."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table


def show_settings_option(*tables: Callable[[], Table]) -> Callable[[Any], Any]:
    """The option --show-settings, which prints these tables and exits."""

    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if not value or ctx.resilient_parsing:
            return
        from rich.console import Console

        console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140)
        for number, table in enumerate(tables):
            console.print(*(["\n"] if number else []), table())
        ctx.exit()

    return click.option(
        "--show-settings", is_flag=True, is_eager=True, expose_value=False, callback=show,
        help=f"List all settings of the {'proxy task and the ' if len(tables) > 1 else ''}recipes and exit.",
    )  # fmt: skip


def recipe_table() -> Table:
    """Settings of the recipes, with their value in each recipe."""
    from rich.table import Table

    from nasdsl.training.recipe import RECIPES, SETTINGS

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("setting", *RECIPES, "description"):
        table.add_column(name)
    values = [recipe.to_dict() for recipe in RECIPES.values()]
    for name, help in SETTINGS.items():
        table.add_row(name, *(_format_value(v[name]) for v in values), help)
    return table


def proxy_table() -> Table:
    """Settings of the proxy task, with their defaults."""
    from rich.table import Table

    from nasdsl.training.proxy.spec import ProxySpec, setting_descriptions

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("setting of the proxy task", "default", "description"):
        table.add_column(name)
    descriptions = setting_descriptions()
    for field in dataclasses.fields(ProxySpec):
        if field.name not in ("data", "fpn"):
            table.add_row(field.name, _format_value(getattr(ProxySpec("shapes"), field.name)), descriptions[field.name])
    return table


def _format_value(value: Any) -> str:
    import json

    return json.dumps(_round(value))


def _round(value: Any) -> Any:
    """Round floats, also those in lists, to four significant digits."""
    if isinstance(value, list):
        return [_round(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
