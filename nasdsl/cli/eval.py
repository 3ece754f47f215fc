"""``nasdsl eval``: COCO and VOC metrics of a trained detector."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nasdsl.cli.errors import FINDINGS, exit_on_error, fail
from nasdsl.cli.files import dataset_options, load_detector_for_inference
from nasdsl.cli.options import DATA, DEVICE, FORMAT, NO_GRAPHS, ON_ERROR, PRECISION, SPLIT_SEED, SPLIT_SHARE
from nasdsl.cli.output import echo_err, pluralize, progress_bar, stdout_console

if TYPE_CHECKING:
    from nasdsl.data import Dataset, Skipped
    from nasdsl.detection.detector import Detector
    from nasdsl.detection.precision import Precision
    from nasdsl.evaluation import Evaluation

METRIC_NAMES = ("coco", "voc07", "voc12")
"""Copy of `nasdsl.evaluation.METRICS`: importing it would load numpy for `--help`."""

CURVE_FORMATS = (".svg", ".png", ".pdf")
"""Copy of `nasdsl.evaluation.curves.SUFFIXES`, to refuse others before anything is evaluated."""


@click.command("eval")
@click.argument("run", metavar="RUN|RESULTS.json", type=click.Path(path_type=Path))
@DATA
@click.option("--split", default="val", show_default=True, help="Split to evaluate on.")
@SPLIT_SHARE
@SPLIT_SEED
@click.option(
    "--metrics", default="coco,voc12", show_default=True, help=f"Metrics, comma-separated: {', '.join(METRIC_NAMES)}."
)
@click.option("--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Images in a batch.")
@click.option("--workers", type=click.IntRange(0), default=2, show_default=True, help="Processes that load images.")
@click.option(
    "--results",
    "results_file",
    type=click.Path(path_type=Path),
    help="Also write the detections to this file, as COCO results.",
)
@click.option(
    "--curves", type=click.Path(path_type=Path), help="Also draw precision-recall curves to this file (.svg, .png or .pdf)."
)
@ON_ERROR
@click.option(
    "--bar", type=click.FloatRange(0, 100), help="Exit with 1 if AP (or the first of --metrics) is lower than this percentage."
)
@DEVICE
@PRECISION
@NO_GRAPHS
@FORMAT
def eval_(
    run: Path,
    spec: str,
    split: str,
    split_share: float | None,
    split_seed: int | None,
    metrics: str,
    batch_size: int,
    workers: int,
    results_file: Path | None,
    curves: Path | None,
    on_error: str,
    bar: float | None,
    device: str | None,
    precision: Precision | None,
    no_graphs: bool,
    format_: str,
) -> None:
    """Compute COCO and VOC metrics of a trained detector.

    RUN is the folder of a training (its model.pt), or its best.pt. RESULTS.json is a file of detections as COCO results.

    Where the training made the split of its dataset (--split-share), the same images are evaluated.

    \b
    nasdsl eval RUN --data voc:VOCdevkit/VOC2007 --split test --metrics voc07
    nasdsl eval RUN/results.json --data coco:COCO --curves curves.png
    """
    metric_names = _parse_metrics(metrics)
    for file in (results_file, curves):
        if file is not None and not file.parent.is_dir():
            fail(f"no folder {file.parent} to write {file.name} to")
    if curves is not None and curves.suffix.lower() not in CURVE_FORMATS:
        fail(f"--curves {curves}: expected a file that ends in {', '.join(CURVE_FORMATS)}")
    with exit_on_error():
        from nasdsl.data import open_dataset
        from nasdsl.evaluation import evaluate, read_results

        if run.suffix == ".json":
            dataset = open_dataset(spec, split, on_error=on_error, **dataset_options(None, run, split_share, split_seed))
            echo_err("\n".join(dataset.summary()))
            results = read_results(run, dataset.ground_truth())
            excluded = _unreadable_images(dataset, results)
            evaluation = evaluate(dataset.ground_truth(without=excluded), results, metric_names)
        else:
            detector = load_detector_for_inference(run, device, precision, graphs=not no_graphs)
            dataset = open_dataset(spec, split, on_error=on_error, **dataset_options(detector, run, split_share, split_seed))
            echo_err("\n".join(dataset.summary()))
            if dataset.left_out and not dataset.ground_truth()["annotations"]:
                fail(f"no object in {dataset.name} is of a class of the detector: {', '.join(detector.classes)}")
            results, excluded, evaluation = _evaluate(detector, dataset, metric_names, batch_size, workers)
        if results_file is not None:
            from nasdsl.evaluation import write_results

            write_results(results_file, results)
            echo_err(f"wrote {results_file}")
        if curves is not None:
            from nasdsl.evaluation import draw_curves, precision_recall

            draw_curves(precision_recall(dataset.ground_truth(without=excluded), results), curves)
            echo_err(f"wrote {curves}")
    _print(evaluation, format_)
    if bar is not None:
        name, value = _main_metric(evaluation, metric_names)
        if not value >= bar:  # also if it is nan, because there was nothing to evaluate
            echo_err(f"{name} {value:.1f} is below the bar of {bar:g}")
            sys.exit(FINDINGS)


def _evaluate(
    detector: Detector, dataset: Dataset, metrics: tuple[str, ...], batch_size: int, workers: int
) -> tuple[list[Any], list[Any], Evaluation]:
    """Results of a detector, ids of the images that were left out as unreadable, and the metrics."""
    from nasdsl.training.predict import compute_metrics, predict

    with progress_bar("evaluating") as before_batch:
        predictions = predict(
            detector,
            dataset,
            batch_size=batch_size,
            workers=workers,
            size_divisible=detector.transform.size_divisible,
            channels_last=True,
            before_batch=before_batch,
        )
    _report_skipped(predictions.skipped)
    excluded = [skip.image_id for skip in predictions.skipped if skip.image_id is not None and not skip.box]
    return predictions.results, excluded, compute_metrics(predictions, dataset, metrics)


def _unreadable_images(dataset: Dataset, results: list[Any]) -> list[Any]:
    """Ids of the unreadable images, which are left out so that a detector and its results file get the same metrics.

    Only images without a result are read: the others were readable for whoever wrote the results.

    Raises:
        UnreadableImage: the dataset was opened with ``on_error="refuse"`` and has an unreadable image.
    """
    from nasdsl.data import Skipped, UnreadableImage

    with_results = {result["image_id"] for result in results}
    missing = [index for index in range(len(dataset)) if dataset.image_id(index) not in with_results]
    skipped = []
    with progress_bar("reading images without results") as advance:
        for number, index in enumerate(missing):
            advance(number, len(missing))
            try:
                dataset[index]
            except UnreadableImage as error:
                if dataset.on_error == "refuse":
                    raise
                skipped.append(Skipped(error.file, error.reason, dataset.image_id(index)))
    _report_skipped(skipped)
    return [entry.image_id for entry in skipped]


def _report_skipped(skipped: Sequence[Skipped]) -> None:
    for entry in skipped:
        echo_err(f"left out, unreadable: {entry}")
    if skipped:
        echo_err(f"{pluralize(len(skipped), 'image')} left out")


def _parse_metrics(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in METRIC_NAMES]
    if unknown or not names:
        fail(f"--metrics {text}: expected some of {', '.join(METRIC_NAMES)}, with commas between them")
    return names


def _print(evaluation: Evaluation, format_: str) -> None:
    if format_ == "json":
        click.echo(json.dumps(evaluation.to_dict(), indent=1, ensure_ascii=False))
        return
    console = stdout_console()
    console.print(evaluation.table())
    console.print(f"\n{evaluation.summary()}", soft_wrap=True)


def _main_metric(evaluation: Evaluation, metrics: tuple[str, ...]) -> tuple[str, float]:
    """Name and percentage of the metric that --bar is about: AP if COCO's metrics are computed, else the first one."""
    if evaluation.coco is not None:
        return "AP", 100 * evaluation.coco.ap
    voc = evaluation.voc07 if metrics[0] == "voc07" else evaluation.voc12
    assert voc is not None
    return metrics[0].upper(), 100 * voc.mean_ap
