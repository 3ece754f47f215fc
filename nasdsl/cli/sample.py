"""sample: decoders drawn at random from a search space."""

from __future__ import annotations

import json
import sys

import click

from nasdsl.cli.errors import FINDINGS, fail
from nasdsl.cli.files import path_of
from nasdsl.cli.options import FORMAT
from nasdsl.cli.output import report, say


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
