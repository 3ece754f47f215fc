"""``nasdsl import``: decoders in other formats, converted to `.nas` text."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from nasdsl.cli.errors import FINDINGS, fail
from nasdsl.cli.output import print_diagnostics


@click.group("import")
def import_() -> None:
    """Convert decoders from other formats to `.nas` text."""


@import_.command("nas-fcos")
@click.argument("lists", metavar="LISTS|CONFIG.yaml")
@click.option("--head", metavar="LIST", help="Layers of the head, such as [5,1,5,0,4,4].  [default: FCOS's 4 convolutions]")
@click.option("--share", type=int, help="Index of the first head layer whose weights all levels share.  [default: 0]")
@click.option("--width", type=click.IntRange(1, 16384), help="Channels of fpn and head.  [default: 256]")
def nas_fcos(lists: str, head: str | None, share: int | None, width: int | None) -> None:
    """Convert decoders of the NAS-FCOS code.

    The text is printed to standard output. CONFIG.yaml is a configuration file of that code.

    LISTS is a list of blocks [in1, in2, op1, op2, agg]. It may end with [share] and the list of the head's layers, and
    each block may be in a list of its own, as in the configuration files.

    \b
    nasdsl import nas-fcos '[[3,3,4,4,1], [2,3,4,3,1], [1,2,4,3,1]]' --head '[5,1,5,0]' > decoder.nas
    """
    from nasdsl.decoder import loads
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.importers.nas_fcos import nas_fcos_text, read_config, split_lists
    from nasdsl.semantics.files import UnreadableFile

    try:
        if not lists.lstrip().startswith("["):
            if head is not None or share is not None or width is not None:
                fail("--head, --share and --width are for LISTS; a configuration file has its own values")
            click.echo(read_config(lists), nl=False)
            return
        parts = split_lists(_parse_json(lists, "LISTS"))
        layers = parts.head if head is None else _parse_json(head, "--head")
        text = nas_fcos_text(parts.fpn, layers, parts.share if share is None else share, width or 256)
        loads(text)
    except DiagnosticError as error:
        print_diagnostics(error.diagnostics)
        sys.exit(FINDINGS)
    except (UnreadableFile, ValueError, TypeError) as error:
        fail(str(error))
    click.echo(text, nl=False)


def _parse_json(text: str, what: str) -> Any:
    """Parse a list, also one in parentheses as Python and YAML files have it."""
    try:
        return json.loads(text.replace("(", "[").replace(")", "]"))
    except (ValueError, RecursionError):
        fail(f"{what} is no list of integers: {text[:60]}")
