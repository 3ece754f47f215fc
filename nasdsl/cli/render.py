"""``nasdsl render``: draw a decoder."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from nasdsl.cli.errors import FINDINGS, fail
from nasdsl.cli.files import load_decoder, write_file
from nasdsl.cli.options import BACKBONE, CLASSES, FILE, SIZE
from nasdsl.cli.output import echo_err, print_diagnostics


@click.command()
@FILE
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="File to write: OUT.svg, .png, .pdf, .html, .dot or .mmd (Mermaid).  [default: NAME.svg]",
)
@click.option("--diff", "other", metavar="NEW", help="Draw the changes from FILE to the decoder NEW (svg, png, pdf or dot).")
@BACKBONE
@SIZE
@CLASSES
def render(file: str, output: str | None, other: str | None, backbone: str, size: tuple[int, int], classes: int) -> None:
    """Draw a decoder as a diagram.

    FILE is a .nas file, `-` for standard input, zoo:NAME, or the folder of a training or search (its decoder.nas or
    best.nas).

    The diagram shows the values of the decoder by level, with their costs. Data flows from left to right; a decoder that
    is too wide for one row is drawn in several. Graphviz need not be installed.
    """
    from nasdsl.backbones import UnknownBackbone
    from nasdsl.backbones import backbone as find_backbone
    from nasdsl.backends import diagrams
    from nasdsl.backends.cost import cost
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.ir import MissingFeature

    decoders = [load_decoder(name) for name in (file, other) if name is not None]
    path = output or f"{decoders[0].name}.svg"
    fmt = Path(path).suffix.removeprefix(".").lower()
    try:
        found = find_backbone(backbone)
        graphs = [d.lower(found.out_channels) for d in decoders]
        costs = [cost(g, size, classes, found) for g in graphs]
        if other is None:
            data = diagrams.render(graphs[0], costs[0], fmt)
            rows = diagrams.count_rows(graphs[0], costs[0])
        else:
            data = diagrams.render_diff(graphs[0], costs[0], graphs[1], costs[1], fmt)
            rows = diagrams.count_rows(graphs[0], costs[0], (graphs[1], costs[1]))
    except DiagnosticError as error:
        print_diagnostics(error.diagnostics)
        sys.exit(FINDINGS)
    except (UnknownBackbone, MissingFeature, diagrams.RenderError, ValueError) as error:
        fail(str(error))
    if rows > 1:
        how = "from top to bottom" if fmt == "mmd" else f"in {rows} rows; a dotted frame stands for a value of another row"
        echo_err(f"{decoders[0].name} is too wide for one row and is drawn {how}")
    write_file(path, data)
