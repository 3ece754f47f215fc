"""``nasdsl sample``: random decoders of a search space."""

from __future__ import annotations

import json
import sys

import click

from nasdsl.cli import completion
from nasdsl.cli.errors import FINDINGS, exit_on_error
from nasdsl.cli.files import SPACE_FILES, find_nas_file
from nasdsl.cli.options import FORMAT
from nasdsl.cli.output import RejectionReporter, echo_err


@click.command()
@click.argument("file", metavar="SPACE", shell_complete=completion.SPACES)
@click.option("-n", "count", type=click.IntRange(0), default=1, show_default=True, help="Number of decoders.")
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option("--backbone", metavar="NAME", shell_complete=completion.BACKBONES,
              help="Backbone for which the space's requirements are checked.  "
              "[default: that of SPACE's detector, or resnet50]")  # fmt: skip
@click.option("--classes", type=click.IntRange(1, 100_000), default=80, show_default=True,
              help="Number of object classes for which they are checked.")  # fmt: skip
@FORMAT
def sample(file: str, count: int, seed: int, backbone: str | None, classes: int, format_: str) -> None:
    """Print random decoders of a search space, one a line.

    SPACE is a .nas file with holes, `-` for standard input, zoo:NAME, or the folder of a search (its space.nas). All
    decoders printed meet the requirements of the space.

    \b
    nasdsl sample zoo:nas_fcos_fpn
    nasdsl sample mine.nas -n 100 --seed 1 --format json > samples.jsonl
    """
    from nasdsl.spaces import SpaceError, load_space

    with exit_on_error():
        try:
            space = load_space(find_nas_file(file, SPACE_FILES), backbone=backbone, classes=classes)
            space.on_rejections = RejectionReporter()
            for text in space.samples(count, seed):
                click.echo(json.dumps({"indices": list(text.indices), "text": text}) if format_ == "json" else text)
        except SpaceError as error:
            echo_err(f"nasdsl: {error}")
            sys.exit(FINDINGS)
