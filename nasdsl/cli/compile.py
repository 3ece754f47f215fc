"""compile: check a decoder, print its cost, and write it for use without nasdsl."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasdsl.cli.errors import FINDINGS, fail
from nasdsl.cli.files import load_decoder, write
from nasdsl.cli.options import BACKBONE, CLASSES, FILE, FORMAT, SIZE, WIDTH
from nasdsl.cli.output import report, say

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
    help="Also write the decoder: OUT.py (PyTorch source that needs torch only), OUT.onnx or OUT.pt2 (torch.export).",
)
def compile_(
    file: str, backbone: str, size: tuple[int, int], classes: int, width: int | None, format_: str, output: str | None
) -> None:
    """Check, lower, and print the exact cost of a decoder."""
    from nasdsl.backbones import UnknownBackbone
    from nasdsl.backbones import backbone as find_backbone
    from nasdsl.backends.cost import cost, to_json
    from nasdsl.diagnostics import DiagnosticError
    from nasdsl.ir import MissingFeature

    if output is not None and Path(output).suffix not in (".py", ".onnx", ".pt2"):
        fail(f"cannot write {output}: expected a name that ends in .py, .onnx or .pt2")
    decoder = load_decoder(file)
    try:
        if width is not None:
            decoder = decoder.with_width(width)
        known = find_backbone(backbone)
        graph = decoder.lower(known.out_channels)
        table = cost(graph, size, classes, known)
    except DiagnosticError as error:
        report(error.diagnostics)
        sys.exit(FINDINGS)
    except (UnknownBackbone, MissingFeature) as error:
        fail(str(error))
    if format_ == "json":
        head = {
            "name": decoder.name, "digest": decoder.digest, "size": list(size), "backbone": backbone, "classes": classes,
        }  # fmt: skip
        click.echo(json.dumps({**head, **to_json(table)}, indent=1))
    else:
        from nasdsl.report.tables import print_cost

        print_cost(decoder.name, decoder.digest, backbone, table)
    if output is not None:
        _write_decoder(graph, classes, output, decoder.source.text)


def _write_decoder(graph: Graph, classes: int, output: str, text: str) -> None:
    """A decoder as a file that runs without nasdsl. Exported weights are those of a fresh module."""
    if output.endswith(".py"):
        from nasdsl import __version__
        from nasdsl.backends.source import emit_source

        try:
            write(output, emit_source(graph, classes, text=text, version=__version__).encode())
        except TypeError as error:
            fail(str(error))
        return
    from nasdsl.backends.export import ExportError
    from nasdsl.backends.module import build
    from nasdsl.backends.onnx import export_onnx
    from nasdsl.backends.torch_export import export_program

    try:
        (export_onnx if output.endswith(".onnx") else export_program)(build(graph, classes).eval(), output)
    except ExportError as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot write {output}: {error.strerror or error}")
    say(f"wrote {output} (weights as freshly initialised)")
