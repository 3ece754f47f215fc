"""render: draw a decoder."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nasdsl.cli.errors import FINDINGS, fail
from nasdsl.cli.files import load_decoder, write_file
from nasdsl.cli.options import BACKBONE, CLASSES, FILE, SIZE
from nasdsl.cli.output import print_diagnostics


@click.command()
@FILE
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="OUT.svg, .png, .pdf, .html, .dot or .mmd  [default: NAME.svg]"
)
@click.option("--diff", "other", metavar="NEW", help="Draw what NEW changes in FILE (as svg, png, pdf or dot).")
@BACKBONE
@SIZE
@CLASSES
def render(file: str, output: str | None, other: str | None, backbone: str, size: tuple[int, int], classes: int) -> None:
    """Draw a decoder. No Graphviz needs to be installed."""
    from nasdsl.backbones import UnknownBackbone
    from nasdsl.backbones import backbone as find_backbone
    from nasdsl.backends import diagrams
    from nasdsl.backends.cost import cost
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.ir import MissingFeature

    decoders = [load_decoder(name) for name in (file, other) if name is not None]
    path = output or f"{decoders[0].name}.svg"
    try:
        known = find_backbone(backbone)
        graphs = [d.lower(known.out_channels) for d in decoders]
        tables = [cost(g, size, classes, known) for g in graphs]
        if other is None:
            data = diagrams.render(graphs[0], tables[0], Path(path).suffix.lstrip("."))
        else:
            data = diagrams.render_diff(graphs[0], tables[0], graphs[1], tables[1], Path(path).suffix.lstrip("."))
    except DiagnosticError as error:
        print_diagnostics(error.diagnostics)
        sys.exit(FINDINGS)
    except (UnknownBackbone, MissingFeature, diagrams.RenderError, ValueError) as error:
        fail(str(error))
    write_file(path, data)
