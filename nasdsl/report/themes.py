"""Light and dark themes of charts.

Charts use names of colours (``$line``), which a theme resolves, so that one specification serves both themes. The colours are
Okabe and Ito's palette (Color Universal Design, 2008), which is distinguishable with every kind of colour vision; only the
lightness of those with too little contrast is changed. Series differ in shape as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

FONT: Final = 'system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
FILE_FONT: Final = "Liberation Sans, Helvetica, Arial, sans-serif"
"""For files, which are rendered where ``system-ui`` is not available."""

_SERIES: Final = 8
"""Number of distinct colours; further series reuse them with other shapes."""

PALETTES: Final[Mapping[str, Mapping[str, str]]] = {
    "light": {
        "$dot": "#8aa0b8", "$line": "#0b5fa5", "$best": "#c2500a", "$bad": "#a3335c", "$rule": "#6b7480",
        "$0": "#0072b2", "$1": "#d55e00", "$2": "#009272", "$3": "#b65a94", "$4": "#a87400", "$5": "#5b5f66",
        "$6": "#3f9ad6", "$7": "#7a4fb5",
        "$ink": "#1c2127", "$soft": "#59636e", "$grid": "#e6eaee", "$edge": "#b9c1c9",
        "$page": "#ffffff", "$faint": "#f0f3f6",
    },
    "dark": {
        "$dot": "#5d7590", "$line": "#6cb6ff", "$best": "#f5924e", "$bad": "#f07da8", "$rule": "#9aa4af",
        "$0": "#56b4e9", "$1": "#ff8c42", "$2": "#2fc49b", "$3": "#e393c4", "$4": "#e6b53c", "$5": "#aab2bb",
        "$6": "#8fb8ff", "$7": "#b99bef",
        "$ink": "#e6edf3", "$soft": "#a2acb7", "$grid": "#262d35", "$edge": "#4a535d",
        "$page": "#0f1318", "$faint": "#1b2128",
    },
}  # fmt: skip

SHAPES: Final = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "triangle-right", "triangle-left")


def series_colours(count: int) -> list[str]:
    """Names of the colours of `count` series."""
    return [f"${number % _SERIES}" for number in range(count)]


def series_shapes(count: int) -> list[str]:
    """Shapes of `count` series; series with the same colour have different shapes."""
    return [SHAPES[(number + number // _SERIES) % len(SHAPES)] for number in range(count)]


def config(font: str = FONT) -> dict[str, Any]:
    """The configuration of Vega-Lite, with names of colours."""
    return {
        "background": "transparent",
        "font": font,
        "view": {"stroke": None},
        "axis": {
            "domainColor": "$edge", "tickColor": "$edge", "gridColor": "$grid", "labelColor": "$soft", "titleColor": "$soft",
            "labelFontSize": 11, "titleFontSize": 12, "titleFontWeight": "normal", "titlePadding": 8, "labelPadding": 4,
            "tickSize": 4, "labelOverlap": True,
        },
        "axisX": {"grid": False, "tickCount": 8},
        "axisY": {"domain": False, "ticks": False, "tickCount": 5},
        "legend": {
            "orient": "top", "title": None, "labelColor": "$ink", "labelFontSize": 12, "labelLimit": 240, "symbolSize": 70,
            "padding": 0, "offset": 10, "columnPadding": 14, "rowPadding": 4,
        },
        "title": {
            "anchor": "start", "color": "$ink", "fontSize": 15, "fontWeight": 600, "subtitleColor": "$soft",
            "subtitleFontSize": 11, "offset": 12, "subtitlePadding": 5,
        },
        "text": {"color": "$ink", "fontSize": 11},
    }  # fmt: skip


def apply_theme(value: Any, theme: str) -> Any:
    """Replace the names of colours in a chart or configuration by the colours of a theme."""
    if isinstance(value, Mapping):
        return {name: inner if name == "data" else apply_theme(inner, theme) for name, inner in value.items()}
    if isinstance(value, list):
        return [apply_theme(inner, theme) for inner in value]
    return PALETTES[theme].get(value, value) if isinstance(value, str) else value
