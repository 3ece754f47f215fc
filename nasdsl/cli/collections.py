"""Commands about collections of decoders: zoo, import, sample."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from nasdsl.cli.common import FINDINGS, FORMAT, fail, path_of, report, say


@click.command()
@click.argument("name", required=False)
@FORMAT
def zoo(name: str | None, format_: str) -> None:
    """List the decoders and spaces that come with the package; with a NAME, print its text."""
    from nasdsl import resources
    from nasdsl.decoder import load
    from nasdsl.spaces import load_space

    if name is not None:
        click.echo(Path(path_of(f"zoo:{name}")).read_text(encoding="utf-8"), nl=False)
        return
    decoders, spaces = [], []
    for path in sorted(resources.folder("genotypes").rglob("*.nas")):
        text = path.read_text(encoding="utf-8")
        about = text.splitlines()[0].lstrip("# ").rstrip(":,. ")
        entry = {"name": path.stem, "about": about, "path": str(path)}
        if path.parent.name == "spaces":
            space = load_space(path)
            spaces.append({**entry, "decisions": len(space.domains), "size": space.size})
        else:
            total = load(path).cost().decoder
            decoders.append({**entry, "macs": total.macs, "params": total.params})
    if format_ == "json":
        click.echo(json.dumps({"decoders": decoders, "spaces": spaces}, indent=1))
        return
    from nasdsl.report.tables import print_zoo

    print_zoo(decoders, spaces)


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


@click.command()
@click.argument("file", metavar="SPACE")
@click.option("-n", "count", type=click.IntRange(0), default=1, show_default=True, help="How many.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draw.")
@click.option("--backbone", default="resnet50", show_default=True, help="Backbone that requirements are counted for.")
@click.option("--classes", type=click.IntRange(1, 100_000), default=80, show_default=True, help="Classes, likewise.")
@FORMAT
def sample(file: str, count: int, seed: int, backbone: str, classes: int, format_: str) -> None:
    """Filled decoders of a space, one a line."""
    from nasdsl.backbones import UnknownBackbone
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.semantics.files import UnreadableFile
    from nasdsl.spaces import SpaceError, load_space

    try:
        space = load_space(path_of(file), backbone=backbone, classes=classes)
        for text in space.samples(count, seed):
            click.echo(json.dumps({"indices": list(text.indices), "text": text}) if format_ == "json" else text)
    except DiagnosticError as error:
        report(error.diagnostics)
        sys.exit(FINDINGS)
    except SpaceError as error:
        say(f"nasdsl: {error}")
        sys.exit(FINDINGS)
    except (UnreadableFile, UnknownBackbone) as error:
        fail(str(error))
