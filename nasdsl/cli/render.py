"""``nasdsl render``: draw a decoder."""

from __future__ import annotations

from pathlib import Path

import click

from nasdsl.cli.errors import exit_on_error, fail
from nasdsl.cli.files import load_decoder, write_file
from nasdsl.cli.options import BACKBONE, CLASSES, FILE, SIZE
from nasdsl.cli.output import echo_err


@click.command()
@FILE
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="File to write: OUT.svg, .png, .pdf, .html, .dot or .mmd (Mermaid).  [default: NAME.svg]",
)
@click.option("--diff", "other", metavar="NEW", help="Draw the changes from FILE to the decoder NEW (svg, png, pdf or dot).")
@click.option(
    "--fold/--no-fold",
    default=None,
    help="Draw each block and each repeat as one box, or every value.  [default: fold what does not fit in one row]",
)
@BACKBONE
@SIZE
@CLASSES
def render(
    file: str,
    output: str | None,
    other: str | None,
    fold: bool | None,
    backbone: str | None,
    size: tuple[int, int] | None,
    classes: int,
) -> None:
    """Draw a decoder as a diagram.

    FILE is a .nas file, `-` for standard input, zoo:NAME, or the folder of a training or search (its decoder.nas or
    best.nas).

    The diagram shows the values of the decoder by level, with their costs. Data flows from left to right. In a decoder
    that is too wide for one row, each block and repeat is one box as far as is needed; in an .html page these boxes open at a
    click. What is still too wide is drawn in several rows. Graphviz need not be installed.

    \b
    nasdsl render mine.nas -o mine.svg
    nasdsl render zoo:nas_fpn -o nas_fpn.html
    nasdsl render old.nas --diff new.nas -o changes.png
    """
    from nasdsl.backbones import backbone as find_backbone
    from nasdsl.backends import diagrams
    from nasdsl.decoder import REFERENCE_BACKBONE

    decoders = [load_decoder(name) for name in (file, other) if name is not None]
    path = output or f"{decoders[0].name}.svg"
    fmt = Path(path).suffix.removeprefix(".").lower()
    formats = diagrams.FORMATS if other is None else diagrams.DIFF_FORMATS
    if fmt not in formats:
        fail(f"cannot draw {path}: expected a name that ends in .{', .'.join(formats)}")
    if fold and other is not None:
        fail("--fold and --diff do not go together: a difference shows every value")
    with exit_on_error():
        graphs = [d.lower(find_backbone(backbone or d.backbone or REFERENCE_BACKBONE).out_channels) for d in decoders]
        costs = [d.cost(size, backbone, classes) for d in decoders]
        first, *second = zip(graphs, costs, strict=True)
        try:
            if second:
                data, rows, folded = (
                    diagrams.render_diff(*first, *second[0], fmt),
                    diagrams.count_diff_rows(*first, *second[0]),
                    0,
                )
            else:
                folding = diagrams.fold_graph(*first, fold)
                data, rows, folded = diagrams.render_folding(folding, fmt), folding.rows, len(folding.closed)
        except diagrams.RenderError as error:
            fail(str(error))
    if fold is None and folded:
        boxes = "one box stands for a block or a repeat" if folded == 1 else f"{folded} boxes stand for blocks and repeats"
        how = "a click opens it" if fmt == "html" else "--no-fold draws every value"
        echo_err(f"{decoders[0].name} is too wide for one row: {boxes}; {how}")
    if rows > 1:
        how = "from top to bottom" if fmt == "mmd" else f"in {rows} rows; a dotted frame stands for a value of another row"
        echo_err(f"{decoders[0].name} is too wide for one row and is drawn {how}")
    write_file(path, data)
