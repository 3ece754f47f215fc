"""``nasdsl report``: an HTML page about a training or a search."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nasdsl.cli.errors import exit_on_error, fail
from nasdsl.cli.output import echo_err

if TYPE_CHECKING:
    from nasdsl.data import Dataset
    from nasdsl.report.charts import Chart

TRAINING_REPORT = "report.html"
"""The page in the folder of a training."""


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default="report.html",
    show_default=True,
    help="File to write the page to.",
)
@click.option(
    "--charts",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write each chart to this folder, as SVG and PNG.",
)
@click.option(
    "--top",
    type=click.IntRange(1, 100),
    default=10,
    show_default=True,
    help="Number of decoders of a search, or of images with most errors of a training, to show.",
)
@click.option(
    "--data",
    "spec",
    metavar="SPEC",
    help="Where the data of a training are now, as for `nasdsl train`.  [default: as recorded]",
)
@click.option("--split", help="Split that the training was evaluated on.  [default: as recorded]")
def report(run: Path, output: Path, folder: Path | None, top: int, spec: str | None, split: str | None) -> None:
    """Write one HTML page about a training or a search. It needs no network to open.

    RUN is the folder of a training (`nasdsl train --out RUN`) or of a search (`nasdsl search --out RUN`). Either may still
    be running: the page shows what there is so far, and the same command updates it.

    The page about a training shows its losses and average precision over time, the curves and the confusion matrix of its
    last evaluation, and the images with most errors. For these, it reads the validation data again. `nasdsl train` writes
    this page at its end, as report.html in its folder.

    \b
    nasdsl report runs/search -o search.html
    nasdsl report runs/cells -o cells.html --charts charts
    """
    with exit_on_error():
        from nasdsl.files import write_bytes
        from nasdsl.report.training.data import is_training

        if is_training(run):
            html, charts = _training(run, output, top, spec, split)
        elif spec is not None or split is not None:
            fail(f"--data and --split are for the folder of a training; {run} has no config.json")
        else:
            html, charts = _search(run, top)
        write_bytes(output, html.encode())
        echo_err(f"wrote {output}")
        if folder is not None:
            from nasdsl.report.chart_files import write_charts

            written = write_charts(charts, folder)
            echo_err(f"wrote {len(written)} files to {folder}" if written else "there is nothing to draw yet")


def _search(run: Path, top: int) -> tuple[str, Iterable[tuple[str, Chart]]]:
    """The page about a search, and its charts with the names of their stages."""
    from nasdsl.report.search import charts, diagnostics, page, read_search, trainings

    if not any((run / name).is_file() for name in ("search.json", "journal.jsonl")):
        what = "it has no config.json, search.json or journal.jsonl" if run.exists() else "there is no such folder"
        fail(
            f"{run} is neither a training nor a search: {what}; expected the folder given to `nasdsl train --out` or "
            "`nasdsl search --out`"
        )
    search = read_search(run)
    return page(search, top), [
        (stage.name, chart)
        for stage in search.stages
        for chart in (*charts(stage), *trainings(stage.ranking), *diagnostics(stage))
    ]


def _training(
    run: Path, output: Path, top: int, spec: str | None, split: str | None
) -> tuple[str, Iterable[tuple[str, Chart]]]:
    """The page about a training, and its charts."""
    from nasdsl.report.training import (
        ReportError,
        evaluation_charts,
        open_validation,
        page,
        read_training,
        training_charts,
    )

    training = read_training(run)
    validation, problem = None, ""
    if training.metrics is not None:
        try:
            validation = open_validation(training, spec, split)
        except ReportError as error:
            if spec is not None or split is not None:  # what was asked for is not there
                raise
            problem = str(error)
            echo_err(f"the page is without curves, confusion matrix and images: {problem}")
    html = page(training, validation, problem, top=top, folder=output.parent)
    return html, [("", chart) for chart in (*training_charts(training), *evaluation_charts(training, validation))]


def write_training_report(run: Path, val: Dataset | None) -> None:
    """Write the page about a finished training into its folder; an error is a message, because the training is finished.

    Args:
        val: the validation data; None if there are none.
    """
    output = run / TRAINING_REPORT
    try:
        from nasdsl.report.training import write_report

        write_report(run, val, output)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        echo_err(f"the training is saved, but its report could not be written: {reason}")
    else:
        echo_err(f"wrote {output}")
