"""``nasdsl latency``: milliseconds of an image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasdsl.cli.errors import exit_on_error, fail
from nasdsl.cli.options import CLASSES, DEVICE, FORMAT, SizeType, is_default
from nasdsl.cli.output import echo_err, pluralize, progress_bar

if TYPE_CHECKING:
    from nasdsl.latency import Latency
    from nasdsl.latency.session import Profile, Session

SHOWN_NODES = 10


@click.command()
@click.argument("file", metavar="FILE|RUN")
@click.option(
    "--runtime",
    type=click.Choice(["torch", "onnxruntime", "openvino"]),
    help="What runs it.  [default: onnxruntime for .onnx, else torch]",
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
@click.option(
    "--backbone",
    metavar="NAME",
    help="For a .nas file: the backbone to build it with, at random weights.  [default: that of its detector]",
)
@CLASSES
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
    backbone: str | None,
    classes: int,
    format_: str,
) -> None:
    """Measure the milliseconds that a detector takes for an image, with everything from image to boxes.

    FILE is an exported detector (.onnx, .pt2), RUN the folder of a training or its model.pt. A .nas file or zoo:NAME is
    built with --backbone at random weights; it finds no objects, so non-maximum suppression costs nothing.

    After a warm-up that lasts until times are stable, it is timed in rounds of several runs each. The latency is the median
    of the rounds' medians. A round is replaced if its median is more than 5 % above the lower quartile of all: another
    program disturbed it. Close other programs; two measurements of a quiet machine agree within 5 %.
    """
    is_nas = file.endswith(".nas") or file.startswith("zoo:")
    if backbone is not None and not is_nas:
        fail(f"--backbone is for .nas files and zoo:NAME; {file} has its own backbone")
    if not is_nas and not is_default("classes"):
        fail(f"--classes is for .nas files and zoo:NAME; {file} has its own classes")
    if is_nas and runtime not in (None, "torch"):
        fail(f"a .nas file is timed in torch; {runtime} runs .onnx files")
    with exit_on_error():
        from nasdsl.latency import Protocol, measure_latency
        from nasdsl.latency.artifact import find_artifact, machine, open_session

        options: dict[str, Any] = {"size": size, "batch": batch, "threads": threads, "image": image}
        if is_nas:
            sha256 = None
            session = _session_of_text(file, backbone, classes, device, options)
        else:
            artifact = find_artifact(Path(file))
            sha256 = artifact.sha256
            session = open_session(artifact, runtime, device=device, **options)
        try:
            with progress_bar("timing") as on_round:
                found = measure_latency(
                    session.run,
                    batch=session.batch,
                    protocol=Protocol(rounds=rounds),
                    timer=session.timer,
                    on_round=on_round,
                )
            profile, detections = session.profile(), session.detections()
        finally:
            session.close()
        where = machine()
    _warn(found)
    if format_ == "json":
        value = {
            "file": file,
            "sha256": sha256,
            "digest": session.metadata.get("digest"),
            "decoder": session.metadata.get("decoder"),
            "runtime": {"name": session.runtime, "version": session.version},
            "device": session.device,
            "threads": session.threads,
            "size": list(session.size),
            "image": str(image) if image else "shapes",
            "detections": detections,
            "machine": where,
            "milliseconds": found.to_dict(),
            "sections": profile.sections if profile else None,
            "nodes": [node._asdict() for node in profile.nodes] if profile else None,
            "notes": session.notes,
        }
        click.echo(json.dumps(value, indent=1, ensure_ascii=False))
    else:
        click.echo("\n".join(_report(file, sha256, session, found, profile, detections, image, where)))


def _session_of_text(file: str, backbone: str | None, classes: int, device: str | None, options: dict[str, Any]) -> Session:
    """A detector with random weights."""
    from nasdsl.cli.files import load_decoder
    from nasdsl.detection.factory import detector, to_device
    from nasdsl.latency.artifact import usable_cores
    from nasdsl.latency.torch_runtime import DetectorSession

    decoder = load_decoder(file)
    if backbone is None and decoder.backbone is None:
        fail(f"{file} names no backbone; give one by --backbone, such as --backbone resnet50")
    built = detector(decoder, backbone, classes=classes, seed=0)
    options = {**options, "threads": options["threads"] or usable_cores()}
    return DetectorSession(to_device(built, device or "auto"), notes=["random weights"], **options)


def _warn(found: Latency) -> None:
    if not found.warm:
        echo_err("warning: the times had not settled by the end of the warm-up")
    if not found.steady:
        echo_err(
            f"warning: not steady: {found.disturbed} of {pluralize(len(found.rounds), 'round')} were disturbed; close other "
            "programs and measure again"
        )


def _report(
    file: str,
    sha256: str | None,
    session: Session,
    found: Latency,
    profile: Profile | None,
    detections: float | None,
    image: Path | None,
    where: dict[str, Any],
) -> list[str]:
    height, width = session.size
    names = [session.metadata["decoder"]] if session.metadata.get("decoder") else []
    names += [f"digest {session.metadata['digest'][:12]}"] if session.metadata.get("digest") else []
    names += [f"sha256 {sha256[:12]}"] if sha256 else []
    source = image or "the data set shapes"
    per_image = "" if detections is None else f", {detections:.3g} detections in an image"
    lines = [
        f"{file}: {', '.join([*names, *session.notes])}",
        f"{session.runtime} {session.version} on {session.device}, {pluralize(session.threads, 'thread')}; batch of "
        f"{session.batch}, {height}x{width}, {source}{per_image}",
        "",
        f"{found.median:.2f} ms for an image (quartiles {found.lower_quartile:.2f} to {found.upper_quartile:.2f}), "
        f"{1000 / found.median:.1f} images a second",
        f"median of {len(found.rounds) - found.disturbed} rounds with {pluralize(found.runs, 'run')} in all, after "
        f"{pluralize(found.warmup_runs, 'run')} of warm-up; {pluralize(found.disturbed, 'disturbed round')} left out",
    ]
    if profile is not None:
        lines += ["", *_profile_lines(profile)]
    load = f", load {where['load']}" if "load" in where else ""
    lines += ["", f"{where['cpu']}, {pluralize(where['cores'], 'core')}{load}; {where['system']}, Python {where['python']}"]
    return lines


def _profile_lines(profile: Profile) -> list[str]:
    """Milliseconds of a run by section, and of the slowest nodes."""
    total = sum(profile.sections.values()) or 1.0
    rows = [(name, "", value) for name, value in profile.sections.items()]
    shown = [(node.name, node.op, node.milliseconds) for node in profile.nodes[:SHOWN_NODES]]
    return [
        "where the time of a run goes (profiled runs of their own, which are slower):",
        *_table(rows, total),
        *(["", f"the slowest of {pluralize(len(profile.nodes), 'node')}:", *_table(shown, total)] if shown else []),
    ]


def _table(rows: Sequence[tuple[str, str, float]], total: float) -> list[str]:
    names = max(len(name) for name, _, _ in rows)
    ops = max(len(op) for _, op, _ in rows)
    return [f"  {name:<{names}}  {op:<{ops}}  {value:9.3f} ms {value / total:6.1%}" for name, op, value in rows]
