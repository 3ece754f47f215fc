"""``nasdsl import``: decoders in other formats, converted to `.nas` text."""

from __future__ import annotations

import sys
from typing import Any

import click

from nasdsl.cli.errors import FINDINGS, fail
from nasdsl.cli.output import print_diagnostics
from nasdsl.files import parse_json


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
        if not lists.lstrip().startswith(("[", "(")):
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


@import_.command("yolo")
@click.argument("file", metavar="FILE.yaml")
@click.option("--scale", metavar="NAME", help="Entry of the file's `scales`.  [default: the file's `scale`, or its first one]")
@click.option("--name", default=None, metavar="NAME", help="Name of the decoder.  [default: that of the file]")
def yolo(file: str, scale: str | None, name: str | None) -> None:
    """Convert the head of a YOLO model file.

    FILE.yaml has layers in the form [from, repeats, module, args] in `backbone` and `head`. The text is printed to standard
    output: the values have names by level and way (td4 on the way down the pyramid, bu4 on the way up), the modules are
    blocks that are written out in the language, and holes can be put in by hand. Known modules: Conv, Bottleneck, C3, C2f,
    C3k2, SPPF, nn.Upsample, Concat and Detect.

    \b
    nasdsl import yolo model.yaml --scale n > neck.nas
    """
    import re
    from pathlib import Path

    from nasdsl.decoder import loads
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.importers.yolo import yolo_text
    from nasdsl.semantics.files import UnreadableFile, read_source

    try:
        source = read_source(file)
        words = re.sub(r"\W+", "_", Path(file).stem, flags=re.ASCII).strip("_")
        text = yolo_text(source, name or (words if words[:1].isalpha() else f"yolo_{words}".rstrip("_")), scale)
        loads(text)
    except DiagnosticError as error:
        print_diagnostics(error.diagnostics)
        sys.exit(FINDINGS)
    except UnreadableFile as error:
        fail(str(error))
    click.echo(text, nl=False)


def _parse_json(text: str, what: str) -> Any:
    """Parse a list, also one in parentheses as Python and YAML files have it."""
    try:
        return parse_json(text.replace("(", "[").replace(")", "]"))
    except ValueError:
        fail(f"{what} is no list of integers: {text[:60]}")
