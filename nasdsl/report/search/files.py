"""Charts as files, drawn without a browser."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import altair as alt
import vl_convert

from nasdsl.report.search.charts import Chart
from nasdsl.report.search.themes import FILE_FONT, coloured, config

VEGA_LITE: Final = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""The version that Altair's charts are written in, as vl-convert names it."""
WIDTH: Final = 760
SCALE: Final = 2
"""Pixels of a PNG for one of the page."""


def write_charts(charts: Iterable[tuple[str, Chart]], folder: Path) -> list[Path]:
    """Write each chart as SVG and PNG, on white, with its title.

    Args:
        charts: with the name of the stage, which begins the name of the file; empty for a plain search.

    Raises:
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for stage, chart in charts:
        spec = standalone(chart)
        pictures = {
            "svg": vl_convert.vegalite_to_svg(spec, vl_version=VEGA_LITE).encode(),
            "png": vl_convert.vegalite_to_png(spec, vl_version=VEGA_LITE, scale=SCALE),
        }
        for suffix, data in pictures.items():
            path = folder / f"{f'{stage}_' if stage else ''}{chart.name}.{suffix}"
            write_whole(path, data)
            written.append(path)
    return written


def standalone(chart: Chart) -> dict[str, Any]:
    """The chart as one that needs no page: title, width, light colours."""
    spec = copy.deepcopy(chart.spec)
    spec |= {"width": WIDTH, "title": chart.title, "config": config(FILE_FONT) | {"background": "white"}, "padding": 12}
    found: dict[str, Any] = coloured(spec, "light")
    return found


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that readers find whole, the old one or the new.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_bytes(data)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
