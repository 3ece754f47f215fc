"""Help of a command with many options, under headings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click


class Grouped(click.Command):
    """A command whose help has its options under headings.

    Args:
        headings: names of parameters by heading, both in the order of the help. What is under none comes last.
    """

    def __init__(self, *args: Any, headings: Mapping[str, Sequence[str]], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.headings = headings

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = {param.name or "": param for param in self.get_params(ctx) if isinstance(param, click.Option)}
        for heading, names in self.headings.items():
            self._section(ctx, formatter, heading, [options.pop(name) for name in names])
        self._section(ctx, formatter, "Other", list(options.values()))

    def _section(
        self, ctx: click.Context, formatter: click.HelpFormatter, heading: str, options: Sequence[click.Option]
    ) -> None:
        records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
        if records:
            with formatter.section(heading):
                formatter.write_dl(records)
