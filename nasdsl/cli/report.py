"""``nasdsl report``: an HTML page about a search."""

from __future__ import annotations

from pathlib import Path

import click

from nasdsl.cli.errors import exit_on_error
from nasdsl.cli.output import echo_err


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
@click.option("--top", type=click.IntRange(1, 100), default=10, show_default=True, help="Number of decoders to list and draw.")
def report(run: Path, output: Path, folder: Path | None, top: int) -> None:
    """Write one HTML page about a search. It needs no network to open.

    RUN is the folder of a search (`nasdsl search --out RUN`). The search may still be running: the page shows its trials
    so far, and the same command updates it.
    """
    with exit_on_error():
        from nasdsl.files import write_atomically
        from nasdsl.report.search import charts, diagnostics, page, read_search, trainings, write_charts

        search = read_search(run)
        html = page(search, top).encode()
        write_atomically(output, lambda file: file.write(html))
        echo_err(f"wrote {output}")
        if folder is not None:
            named_charts = [
                (stage.name, chart)
                for stage in search.stages
                for chart in (*charts(stage), *trainings(stage.ranking), *diagnostics(stage))
            ]
            written = write_charts(named_charts, folder)
            echo_err(f"wrote {len(written)} files to {folder}" if written else "there is nothing to draw yet")
