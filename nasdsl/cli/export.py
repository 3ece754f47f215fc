"""``nasdsl export``: write a whole trained detector to a file that runs without nasdsl."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasdsl.cli.errors import exit_on_error, warnings_as_messages
from nasdsl.cli.files import load_trained_detector
from nasdsl.cli.options import SizeType
from nasdsl.cli.output import echo_err

if TYPE_CHECKING:
    from nasdsl.export import Deform, Precision


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File to write: detector.onnx, detector.pt2 (torch.export), or detector.py (PyTorch source, with its weights in "
    "detector.pt).",
)
@click.option("--size", type=SizeType(), help="Take images of this height x width only.  [default: of any size]")
@click.option(
    "--deform",
    type=click.Choice(["native", "grid_sample"]),
    help="How deformable convolutions are written: as ONNX's DeformConv or torchvision's operator, or as sampling of a grid.  "
    "[default: grid_sample for .onnx, which more runtimes have; else native]",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Type of weights and maps. Inputs, outputs and boxes stay float32.",
)
@click.option("--no-nms", is_flag=True, help="Without non-maximum suppression: boxes and scores of all candidates.")
def export(
    run: Path, output: Path, size: tuple[int, int] | None, deform: Deform | None, precision: Precision, no_nms: bool
) -> None:
    """Export a trained detector, from images to boxes, to a file that runs without nasdsl.

    RUN is the folder of a training or its model.pt.

    \b
    nasdsl export runs/cells -o detector.onnx
    nasdsl export runs/cells -o detector.onnx --size 480x640 --precision float16

    Input: images, float32 [N, 3, H, W], RGB, 0 to 1. Outputs: boxes [N, K, 4] (xyxy in pixels of the input), scores [N, K],
    labels [N, K] from 0; rows without an object have score 0.
    """
    with exit_on_error(), warnings_as_messages():
        from nasdsl.export import check_arguments, export_detector

        check_arguments(output, size=size, deform=deform, precision=precision)
        detector = load_trained_detector(run, "cpu")
        if output.suffix == ".pt2":
            echo_err("tracing the detector; this may take a minute")
        written = export_detector(detector, output, size=size, deform=deform, precision=precision, nms=not no_nms)
    echo_err(f"wrote {' and '.join(map(str, written.files))} ({written.megabytes:.1f} MB)")
    for kind, values in (("input", written.inputs), ("output", written.outputs)):
        for value in values:
            echo_err(f"  {kind + ':':8}{value}")
    echo_err("to run it:")
    for line in written.usage:
        echo_err(f"  {line}")
