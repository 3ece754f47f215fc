"""import: decoders written in other formats, as `.nas` text."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from nasdsl.cli.errors import FINDINGS, fail
from nasdsl.cli.output import report


@click.group("import")
def import_() -> None:
    """Turn decoders written down elsewhere into `.nas` text."""


@import_.command("nas-fcos")
@click.argument("lists", metavar="LISTS|CONFIG.yaml")
@click.option("--head", help="List of the head's layers, such as [5,1,5,0,4,4]  [default: FCOS's four convolutions]")
@click.option("--share", type=int, help="Index of the first layer whose weights all levels share  [default: 0]")
@click.option("--width", type=click.IntRange(1, 16384), help="Channels of fpn and head  [default: 256]")
def nas_fcos(lists: str, head: str | None, share: int | None, width: int | None) -> None:
    """Index lists of the NAS-FCOS code, or one of its YAML configuration files.

    LISTS are blocks [in1, in2, op1, op2, agg], each perhaps in a list of its own, and behind them perhaps [share] and the
    head's list, as the code's configurations have them.
    """
    from nasdsl.decoder import loads
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.imports.nas_fcos import nas_fcos_text, read_config, split_lists
    from nasdsl.semantics.files import UnreadableFile

    try:
        if not lists.lstrip().startswith("["):
            if head is not None or share is not None or width is not None:
                fail("--head, --share and --width go with lists; a configuration file has its own")
            click.echo(read_config(lists), nl=False)
            return
        parts = split_lists(_json(lists, "LISTS"))
        layers = parts.head if head is None else _json(head, "--head")
        text = nas_fcos_text(parts.fpn, layers, parts.share if share is None else share, width or 256)
        loads(text)
    except DiagnosticError as error:
        report(error.diagnostics)
        sys.exit(FINDINGS)
    except (UnreadableFile, ValueError, TypeError) as error:
        fail(str(error))
    click.echo(text, nl=False)


def _json(text: str, what: str) -> Any:
    try:
        return json.loads(text.replace("(", "[").replace(")", "]"))
    except (ValueError, RecursionError):
        fail(f"{what} is no list of integers: {text[:60]}")
