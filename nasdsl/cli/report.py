"""report: a page about a search."""

from __future__ import annotations

from pathlib import Path

import click

from nasdsl.cli.errors import refusals
from nasdsl.cli.output import say


@click.command()
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default="report.html",
    show_default=True,
    help="The page.",
)
@click.option(
    "--charts",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also each chart as SVG and PNG.",
)
@click.option("--top", type=click.IntRange(1, 100), default=10, show_default=True, help="Decoders listed and drawn.")
def report(run: Path, output: Path, folder: Path | None, top: int) -> None:
    """Make one HTML page about a search, which opens without a network.

    RUN is the folder of `nasdsl search --out`, plain or progressive. The search may still be running: the page shows what
    its journal has, and the same command brings it up to date.
    """
    with refusals():
        from nasdsl.report.search import charts, diagnostics, page, read_search, trainings, write_charts, write_whole

        search = read_search(run)
        write_whole(output, page(search, top).encode())
        say(f"wrote {output}")
        if folder is not None:
            shown = [
                (stage.name, chart)
                for stage in search.stages
                for chart in (*charts(stage), *trainings(stage.ranking), *diagnostics(stage))
            ]
            written = write_charts(shown, folder)
            say(f"wrote {len(written)} files to {folder}" if written else "there is nothing to draw yet")
