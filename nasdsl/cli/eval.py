"""eval: what a trained detector is worth."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasdsl.cli.errors import FINDINGS, fail, refusals
from nasdsl.cli.files import classes_of, load_run
from nasdsl.cli.options import DATA, DEVICE, FORMAT, ON_ERROR
from nasdsl.cli.output import count, progress, say

if TYPE_CHECKING:
    from nasdsl.data import Dataset, Skipped
    from nasdsl.detection.detector import Detector
    from nasdsl.evaluation import Evaluation

METRIC_NAMES = ("coco", "voc07", "voc12")
"""`nasdsl.evaluation.METRICS`, repeated here because importing it would load numpy for `--help`."""

CURVES = (".svg", ".png", ".pdf")
"""`nasdsl.evaluation.curves.SUFFIXES`: what is wrong is said before anything is evaluated."""


@click.command("eval")
@click.argument("run", metavar="RUN|RESULTS.json", type=click.Path(path_type=Path))
@DATA
@click.option("--split", default="val", show_default=True, help="Part of the data to evaluate on.")
@click.option("--metrics", default="coco,voc12", show_default=True, help=f"Some of {', '.join(METRIC_NAMES)}.")
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Pictures at a time.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Processes that load pictures.")
@click.option("--results", "results_file", type=click.Path(path_type=Path), help="Write the detections here (COCO results).")
@click.option("--curves", type=click.Path(path_type=Path), help="Draw precision and recall here (.svg, .png or .pdf).")
@ON_ERROR
@click.option(
    "--bar", type=click.FloatRange(0, 100), help="Exit with 1 where AP (or the first of --metrics) is lower, in per cent."
)
@DEVICE
@FORMAT
def eval_(
    run: Path,
    spec: str,
    split: str,
    metrics: str,
    batch_size: int,
    workers: int,
    results_file: Path | None,
    curves: Path | None,
    on_error: str,
    bar: float | None,
    device: str | None,
    format_: str,
) -> None:
    """COCO and VOC metrics of a trained detector, or of a file of COCO results.

    \b
    nasdsl eval RUN --data voc:VOCdevkit/VOC2007 --split test --metrics voc07
    nasdsl eval RUN/results.json --data coco:COCO --curves curves.png
    """
    wanted = _metrics(metrics)
    for file in (results_file, curves):
        if file is not None and not file.parent.is_dir():
            fail(f"no folder {file.parent} to write {file.name} to")
    if curves is not None and curves.suffix.lower() not in CURVES:
        fail(f"--curves {curves}: expected a file that ends in {', '.join(CURVES)}")
    with refusals():
        from nasdsl.data import open_dataset
        from nasdsl.evaluation import evaluate, read_results

        if run.suffix == ".json":
            dataset = open_dataset(spec, split, on_error=on_error)
            say("\n".join(dataset.summary()))
            found = read_results(run, dataset.ground_truth())
            without = _unreadable(dataset, found)
            measured = evaluate(dataset.ground_truth(without=without), found, wanted)
        else:
            detector = load_run(run, device)
            dataset = open_dataset(spec, split, on_error=on_error, **classes_of(detector, spec))
            say("\n".join(dataset.summary()))
            if dataset.left_out and not dataset.ground_truth()["annotations"]:
                fail(f"no object in {dataset.name} is of a class of the detector: {', '.join(detector.classes)}")
            found, without, measured = _evaluate(detector, dataset, wanted, batch_size, workers)
        if results_file is not None:
            from nasdsl.evaluation import write_results

            write_results(results_file, found)
            say(f"wrote {results_file}")
        if curves is not None:
            from nasdsl.evaluation import draw_curves, precision_recall

            draw_curves(precision_recall(dataset.ground_truth(without=without), found), curves)
            say(f"wrote {curves}")
    _print(measured, format_)
    if bar is not None:
        name, figure = _headline(measured, wanted)
        if not figure >= bar:  # also where nothing could be measured: nan
            say(f"{name} {figure:.1f} is below the bar of {bar:g}")
            sys.exit(FINDINGS)


def _evaluate(
    detector: Detector, dataset: Dataset, metrics: tuple[str, ...], batch_size: int, workers: int
) -> tuple[list[Any], list[Any], Evaluation]:
    from nasdsl.training.predict import measure, predict

    with progress("evaluating") as before_batch:
        predictions = predict(
            detector,
            dataset,
            batch_size=batch_size,
            workers=workers,
            size_divisible=detector.transform.size_divisible,
            channels_last=True,
            before_batch=before_batch,
        )
    _say_left_out(predictions.skipped)
    without = [skip.image_id for skip in predictions.skipped if skip.image_id is not None and not skip.box]
    return predictions.results, without, measure(predictions, dataset, metrics)


def _unreadable(dataset: Dataset, results: list[Any]) -> list[Any]:
    """Ids of the pictures that no detector could have read, so that a detector and its results are worth the same.

    Only those without a result are read: what has one was readable for who wrote it.

    Raises:
        UnreadableImage: there is one, and the data set was opened to refuse those.
    """
    from nasdsl.data import Skipped, UnreadableImage

    with_results = {result["image_id"] for result in results}
    missing = [index for index in range(len(dataset)) if dataset.image_id(index) not in with_results]
    skipped = []
    with progress("reading pictures without results") as before:
        for number, index in enumerate(missing):
            before(number, len(missing))
            try:
                dataset[index]
            except UnreadableImage as error:
                if dataset.on_error == "refuse":
                    raise
                skipped.append(Skipped(error.file, error.reason, dataset.image_id(index)))
    _say_left_out(skipped)
    return [entry.image_id for entry in skipped]


def _say_left_out(skipped: Sequence[Skipped]) -> None:
    for entry in skipped:
        say(f"left out, unreadable: {entry}")
    if skipped:
        say(f"{count(len(skipped), 'picture')} left out")


def _metrics(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in METRIC_NAMES]
    if unknown or not names:
        fail(f"--metrics {text}: expected some of {', '.join(METRIC_NAMES)}, with commas between them")
    return names


def _print(measured: Evaluation, format_: str) -> None:
    if format_ == "json":
        click.echo(json.dumps(measured.to_dict(), indent=1, ensure_ascii=False))
        return
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    console.print(measured.table())
    console.print(f"\n{measured.summary()}", soft_wrap=True)


def _headline(measured: Evaluation, metrics: tuple[str, ...]) -> tuple[str, float]:
    """AP, or the first of the metrics, in per cent."""
    if measured.coco is not None:
        return "AP", 100 * measured.coco.ap
    voc = measured.voc07 if metrics[0] == "voc07" else measured.voc12
    assert voc is not None
    return metrics[0].upper(), 100 * voc.mean_ap
