"""``nasdsl latency``: milliseconds of an image."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasdsl.cli import completion
from nasdsl.cli.errors import FINDINGS, exit_on_error, fail
from nasdsl.cli.options import CLASSES, DEVICE, FORMAT, NO_GRAPHS, PRECISION, WIDTH, SizeType, is_default
from nasdsl.cli.output import progress_bar

if TYPE_CHECKING:
    from nasdsl.cli.latency_output import Whole
    from nasdsl.cli.latency_requirements import Compared
    from nasdsl.decoder import Decoder
    from nasdsl.detection.precision import Precision
    from nasdsl.latency import PredictedLatency
    from nasdsl.latency.session import Session


@click.command()
@click.argument("file", metavar="FILE|RUN", shell_complete=completion.DECODERS)
@click.option(
    "--runtime",
    type=click.Choice(["torch", "onnxruntime", "openvino"]),
    help="What runs it.  [default: onnxruntime for .onnx and --predict, else torch]",
)
@click.option("--size", type=SizeType(), help="Image size, height x width in pixels.  [default: the file's, or 800x1088]")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="CPU threads.  [default: all cores]")
@click.option("--batch", type=click.IntRange(1), metavar="N", help="Images in a batch.  [default: the file's, or 1]")
@click.option("--rounds", type=click.IntRange(3), default=15, show_default=True, help="Undisturbed rounds that are needed.")
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    help="Image to run on, resized to --size.  [default: images of the data set shapes]",
)
@DEVICE
@PRECISION
@NO_GRAPHS
@click.option(
    "--backbone",
    metavar="NAME",
    shell_complete=completion.BACKBONES,
    help="For a .nas file: the backbone to build it with, at random weights.  [default: that of its detector]",
)
@CLASSES
@WIDTH
@click.option(
    "--predict", is_flag=True,
    help="For a .nas file: predict the latency from measured parts, without building it. Parts that were never measured are.",
)  # fmt: skip
@click.option("--measure", is_flag=True, help="With --predict: measure it as well, and show both.")
@click.option(
    "--table",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --predict: file of the measured parts.  [default: nasdsl/latency.json in the user's cache]",
)
@FORMAT
def latency(
    file: str,
    runtime: str | None,
    size: tuple[int, int] | None,
    threads: int | None,
    batch: int | None,
    rounds: int,
    image: Path | None,
    device: str | None,
    precision: Precision | None,
    no_graphs: bool,
    backbone: str | None,
    classes: int,
    width: int | None,
    predict: bool,
    measure: bool,
    table: Path | None,
    format_: str,
) -> None:
    """Measure the milliseconds that a detector takes for an image, with everything from image to boxes, or predict them.

    FILE is an exported detector (.onnx, .pt2), RUN the folder of a training or its model.pt. A .nas file or zoo:NAME is
    built with --backbone at random weights, and for onnxruntime and openvino exported; it finds no objects, so non-maximum
    suppression costs nothing.

    After a warm-up that lasts until times are stable, it is timed in rounds of several runs each. The latency is the median
    of the rounds' medians. A round is replaced if its median is more than 5 % above the lower quartile of all: another
    program disturbed it. Close other programs; two measurements of a quiet machine agree within 5 %.

    --predict adds up the times of the detector's parts from a table, which takes milliseconds once they are known.

    A text with `require latency <= 15ms on onnxruntime at 480x640` is measured so; the exit status is 1 if it takes longer.

    \b
    nasdsl latency runs/cells
    nasdsl latency detector.onnx --threads 1
    nasdsl latency zoo:fcos --backbone mobilenet_v2 --width 32 --size 240x320 --predict
    """
    is_nas = file.endswith(".nas") or file.startswith("zoo:")
    for name, given in (("--backbone", backbone), ("--width", width), ("--predict", predict)):
        if given and not is_nas:
            fail(f"{name} is for .nas files and zoo:NAME; {file} is a whole detector")
    if not is_nas and not is_default("classes"):
        fail(f"--classes is for .nas files and zoo:NAME; {file} has its own classes")
    if not predict and (measure or table is not None):
        fail(f"{'--measure' if measure else '--table'} goes with --predict")
    if predict and (precision is not None or no_graphs):
        fail(f"{'--precision' if precision else '--no-graphs'} is for what is measured; leave it out with --predict")
    if predict and (batch is not None or device not in (None, "cpu")):
        fail("--predict is for one image on a CPU; leave --batch and --device out")
    decoder = _decoder(file, width) if is_nas else None
    if decoder is not None:
        from nasdsl.cli.latency_requirements import wanted

        on, at = wanted(decoder)
        runtime, size = runtime or on, size or at or decoder.size
        backbone = backbone or decoder.backbone
        if backbone is None:
            fail(f"{file} names no backbone; give one by --backbone, such as --backbone resnet50")
        if (precision is not None or no_graphs) and runtime not in (None, "torch"):
            fail(f"{'--precision' if precision else '--no-graphs'} is for torch, not {runtime}; leave it out")
    options: dict[str, Any] = {"size": size, "batch": batch, "threads": threads, "image": image, "device": device}
    options |= {"precision": precision, "graphs": not no_graphs}
    if predict:
        assert decoder is not None
        assert backbone is not None
        _predict(
            file, decoder, backbone, classes, runtime or "onnxruntime", options, rounds if measure else None, table, format_
        )
    else:
        _measure(file, decoder, backbone, classes, runtime, options, rounds, format_)


def _decoder(file: str, width: int | None) -> Decoder:
    from nasdsl.cli.files import load_decoder

    decoder = load_decoder(file)
    with exit_on_error():
        return decoder if width is None else decoder.with_width(width)


def _measure(
    file: str,
    decoder: Decoder | None,
    backbone: str | None,
    classes: int,
    runtime: str | None,
    options: dict[str, Any],
    rounds: int,
    format_: str,
) -> None:
    """Measure a file, or a decoder at random weights."""
    with exit_on_error(), ExitStack() as stack:
        from nasdsl.cli.latency_output import Measured, measured_json, measured_lines, warn_unsteady
        from nasdsl.cli.latency_requirements import compare
        from nasdsl.latency import Protocol, measure_latency
        from nasdsl.latency.artifact import find_artifact, open_session
        from nasdsl.machine import machine

        sha256 = None
        if decoder is not None:
            assert backbone is not None
            session = _session_of_text(stack, decoder, backbone, classes, runtime or "torch", options)
        else:
            artifact = find_artifact(Path(file))
            sha256 = artifact.sha256
            session = open_session(artifact, runtime, **options)
            stack.callback(session.close)
        with progress_bar("timing") as on_round:
            found = measure_latency(
                session.run, batch=session.batch, protocol=Protocol(rounds=rounds), timer=session.timer, on_round=on_round
            )
        measured = Measured(file, sha256, session, found, session.profile(), session.detections(), options["image"], machine())
        compared = compare(decoder, session.runtime, session.size, found.median, session.batch)
    warn_unsteady(found)
    _show(measured_json(measured), measured_lines(measured), compared, format_)


def _session_of_text(
    stack: ExitStack, decoder: Decoder, backbone: str, classes: int, runtime: str, options: dict[str, Any]
) -> Session:
    """A detector with random weights, in torch or exported for another runtime; the stack closes it."""
    from nasdsl.backends.requirements import DEFAULT_SIZE
    from nasdsl.detection.factory import detector, to_device
    from nasdsl.machine import usable_cores

    built = detector(decoder, backbone, classes=classes, seed=0)
    session: Session
    if runtime == "torch":
        from nasdsl.latency.torch_runtime import DetectorSession

        rest = {name: options[name] for name in ("size", "batch", "image", "precision", "graphs")}
        threads = options["threads"] or usable_cores()
        placed = to_device(built, options["device"] or "auto")
        session = DetectorSession(placed, threads=threads, notes=["random weights"], **rest)
    else:
        from nasdsl.export import export_detector
        from nasdsl.latency.artifact import find_artifact, open_session

        file = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "detector.onnx"
        export_detector(built, file, size=options["size"] or DEFAULT_SIZE)
        session = open_session(find_artifact(file), runtime, **options)
        session.notes.append("random weights")
    stack.callback(session.close)
    return session


def _predict(
    file: str,
    decoder: Decoder,
    backbone: str,
    classes: int,
    runtime: str,
    options: dict[str, Any],
    rounds: int | None,
    table: Path | None,
    format_: str,
) -> None:
    """Predict the latency of a decoder's detector, and measure it if `rounds` are given."""
    with exit_on_error():
        from nasdsl.backends.requirements import DEFAULT_SIZE
        from nasdsl.cli.latency_output import predicted_json, predicted_lines, warn_disturbed
        from nasdsl.cli.latency_requirements import compare
        from nasdsl.latency import LatencyPredictor
        from nasdsl.latency.table import Table
        from nasdsl.machine import usable_cores

        opened = Table(table)
        threads = options["threads"] or usable_cores()
        size = options["size"] or DEFAULT_SIZE
        with progress_bar("measuring parts") as on_part:
            predictor = LatencyPredictor(
                runtime, threads, backbone, size, classes, table=opened.path, on_part=on_part
            )  # fmt: skip
            found = predictor.predict(decoder, backbone, size)
        whole = None
        if rounds is not None:
            whole = _measure_beside(decoder, found, opened, {**options, "size": size}, rounds)
            warn_disturbed(whole.time)
    compared = compare(decoder, runtime, size, found.milliseconds if whole is None else whole.at_the_tables_pace)
    _show(predicted_json(file, found, opened.path, whole), predicted_lines(file, found, opened.path, whole), compared, format_)


def _show(value: dict[str, Any], lines: Iterable[str], compared: Sequence[Compared], format_: str) -> None:
    """Print a latency and what it means for the requirements of the text; exit with `FINDINGS` if one is broken."""
    if format_ == "json":
        if compared:
            value["requirements"] = [one.to_json() for one in compared]
        click.echo(json.dumps(value, indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join([*lines, *(one.line for one in compared)]))
    if any(one.kept is False for one in compared):
        sys.exit(FINDINGS)


def _measure_beside(decoder: Decoder, found: PredictedLatency, table: Any, options: dict[str, Any], rounds: int) -> Whole:
    """Measure a predicted detector beside the table's reference. The table keeps it, for its correction."""
    from nasdsl.cli.latency_output import Whole
    from nasdsl.latency.measuring import Effort, Measurer

    options = {**options, "threads": found.context.threads, "device": "cpu"}
    reference = table.times(found.context).reference
    with ExitStack() as stack:
        session = _session_of_text(stack, decoder, found.backbone, found.classes, found.context.runtime, options)
        with table.lock(), progress_bar("timing") as on_round:
            effort = Effort(rounds=rounds, fewer_rounds=rounds, slice_seconds=0.2, warmup_seconds=1.0)
            time = Measurer(found.context, effort, reference).measure_whole(session.run, on_round)
            size = f"{found.size[0]}x{found.size[1]}"
            name = f"{decoder.digest[:16]}, {found.backbone}, {size}, {found.classes} classes"
            table.add_detector(found.context, name, found.total, time.relative)
        profile = session.profile()
    assert reference is not None  # a prediction has measured it
    pace = reference / time.reference
    sections = {} if profile is None else {name: value * pace for name, value in profile.sections.items()}
    return Whole(time, reference, sections)
