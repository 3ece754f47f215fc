"""``nasdsl compile``: check a decoder, print its cost, and export it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasdsl.cli.errors import exit_on_error, fail
from nasdsl.cli.files import load_decoder, write_file
from nasdsl.cli.options import BACKBONE, CLASSES, FILE, FORMAT, SIZE, WIDTH
from nasdsl.cli.output import echo_err

if TYPE_CHECKING:
    from nasdsl.ir import Graph


@click.command("compile")
@FILE
@BACKBONE
@SIZE
@CLASSES
@WIDTH
@FORMAT
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="Also export the decoder: OUT.py (PyTorch source that needs only torch), OUT.onnx, or OUT.pt2 (torch.export). "
    "Weights are freshly initialized.",
)
def compile_(
    file: str,
    backbone: str | None,
    size: tuple[int, int] | None,
    classes: int,
    width: int | None,
    format_: str,
    output: str | None,
) -> None:
    """Print the exact cost of a decoder, and export it.

    The cost is in multiply-accumulates and parameters, for one image. A decoder with mistakes is reported as by
    `nasdsl check`.

    FILE is a .nas file, `-` for standard input, zoo:NAME, or the folder of a training or search (its decoder.nas or
    best.nas).

    \b
    nasdsl compile mine.nas
    nasdsl compile zoo:nas_fcos --backbone mobilenet_v2 --size 320x400 --classes 3
    nasdsl compile zoo:nas_fcos -o decoder.py
    """
    from nasdsl.backbones import backbone as find_backbone
    from nasdsl.backends.cost import cost, to_json
    from nasdsl.backends.requirements import DEFAULT_SIZE
    from nasdsl.decoder import REFERENCE_BACKBONE

    if output is not None and Path(output).suffix not in (".py", ".onnx", ".pt2"):
        fail(f"cannot write {output}: expected a name that ends in .py, .onnx or .pt2")
    decoder = load_decoder(file)
    with exit_on_error():
        if width is not None:
            decoder = decoder.with_width(width)
        backbone, size = backbone or decoder.backbone or REFERENCE_BACKBONE, size or decoder.size or DEFAULT_SIZE
        found = find_backbone(backbone)
        graph = decoder.lower(found.out_channels)
        table = cost(graph, size, classes, found)
    if format_ == "json":
        head = {
            "name": decoder.name, "digest": decoder.digest, "size": list(size), "backbone": backbone, "classes": classes,
        }  # fmt: skip
        click.echo(json.dumps({**head, **to_json(table)}, indent=1))
    else:
        from nasdsl.report.tables import print_cost

        print_cost(decoder.name, decoder.digest, backbone, table)
    if output is not None:
        _export(graph, classes, output, decoder.source.text)


def _export(graph: Graph, classes: int, output: str, text: str) -> None:
    """Write the decoder, with freshly initialized weights, in the format that the suffix of `output` names."""
    if output.endswith(".py"):
        from nasdsl import __version__
        from nasdsl.backends.source import emit_source

        try:
            write_file(output, emit_source(graph, classes, text=text, version=__version__).encode())
        except TypeError as error:
            fail(str(error))
        return
    from nasdsl.backends.module import build

    with exit_on_error():
        if output.endswith(".onnx"):
            from nasdsl.backends.onnx import export_onnx as export
        else:
            from nasdsl.backends.torch_export import export_program as export
        try:
            export(build(graph, classes).eval(), output)
        except OSError as error:
            fail(f"cannot write {output}: {error.strerror or error}")
    echo_err(f"wrote {output} (weights as freshly initialised)")
