"""`--help` of a command with many options, in groups under headings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click


class GroupedCommand(click.Command):
    """Command whose help shows its options in groups.

    Args:
        option_groups: names of parameters by heading, both in the order of the help. Options in no group come last.
    """

    def __init__(self, *args: Any, option_groups: Mapping[str, Sequence[str]], **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.option_groups = option_groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        options = {param.name or "": param for param in self.get_params(ctx) if isinstance(param, click.Option)}
        for heading, names in self.option_groups.items():
            self._format_group(ctx, formatter, heading, [options.pop(name) for name in names])
        self._format_group(ctx, formatter, "Other", list(options.values()))

    def _format_group(
        self, ctx: click.Context, formatter: click.HelpFormatter, heading: str, options: Sequence[click.Option]
    ) -> None:
        records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
        if records:
            with formatter.section(heading):
                formatter.write_dl(records)
