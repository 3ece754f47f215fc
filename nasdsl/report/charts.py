"""Charts as Vega-Lite specifications made with Altair, and what all of them share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import altair as alt

HEIGHT: Final = 270


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        name: unique in its page, or in its stage of a search; also the name of its file.
        caption: what it shows and what to look for.
        spec: Vega-Lite, with names of colours from `nasdsl.report.themes`.
    """

    name: str
    title: str
    caption: str
    spec: dict[str, Any]


def inline_data(rows: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    """Rows as the data of a chart."""
    return alt.InlineData(values=[dict(row) for row in rows])


def specification(chart: alt.Chart | alt.LayerChart | alt.FacetChart, height: int = HEIGHT) -> dict[str, Any]:
    """The specification of a chart that is as wide as its place in the page."""
    found: dict[str, Any] = chart.properties(width="container", height=height).to_dict()
    for outside in ("$schema", "config"):  # set once for the whole page
        found.pop(outside, None)
    return found


def color_scale(names: Sequence[str], palette: Sequence[str]) -> alt.Scale:
    """The scale of a legend: a colour or shape for each name."""
    return alt.Scale(domain=list(names), range=list(palette))


def as_series(layer: alt.Chart, name: str) -> alt.Chart:
    """The layer as one series of the legend."""
    return layer.transform_calculate(series=json.dumps(name))


def moving_average(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and up to `window` - 1 values before it."""
    return [math.fsum(part) / len(part) for i in range(len(values)) for part in [values[max(0, i + 1 - window) : i + 1]]]
