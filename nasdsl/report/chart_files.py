"""Charts as SVG and PNG files, rendered without a browser."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import altair as alt
import vl_convert

from nasdsl.files import write_bytes
from nasdsl.report.charts import Chart
from nasdsl.report.themes import FILE_FONT, apply_theme, config

VEGA_LITE: Final = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
"""Version of Vega-Lite that Altair writes, in the notation of vl-convert."""
WIDTH: Final = 760
SCALE: Final = 2
"""Pixels of a PNG for each pixel of the page."""


def write_charts(charts: Iterable[tuple[str, Chart]], folder: Path) -> list[Path]:
    """Write each chart as SVG and PNG, on a white background, with its title.

    Args:
        charts: with the name of their stage, which becomes a prefix of the file names; empty for a plain search.

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
            write_bytes(path, data)
            written.append(path)
    return written


def standalone(chart: Chart) -> dict[str, Any]:
    """The specification of a chart outside of the page: with title, width and light colours."""
    spec = copy.deepcopy(chart.spec)
    spec |= {"width": WIDTH, "title": chart.title, "config": config(FILE_FONT) | {"background": "white"}, "padding": 12}
    found: dict[str, Any] = apply_theme(spec, "light")
    return found
