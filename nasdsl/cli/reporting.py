"""report: a page about a search."""

from __future__ import annotations

from pathlib import Path

import click

from nasdsl.cli.common import refusals, say


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
        from nasdsl.files import write_atomically
        from nasdsl.report.search import charts, diagnostics, page, read_search, trainings, write_charts

        search = read_search(run)
        html = page(search, top).encode()
        write_atomically(output, lambda file: file.write(html))
        say(f"wrote {output}")
        if folder is not None:
            shown = [
                (stage.name, chart)
                for stage in search.stages
                for chart in (*charts(stage), *trainings(stage.ranking), *diagnostics(stage))
            ]
            written = write_charts(shown, folder)
            say(f"wrote {len(written)} files to {folder}" if written else "there is nothing to draw yet")
