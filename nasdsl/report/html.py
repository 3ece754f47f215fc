"""Pages with charts as one self-contained HTML file, from the templates of this package."""

from __future__ import annotations

import time
from functools import cache
from typing import Any, Final

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nasdsl.report import formatting
from nasdsl.report.chart_files import VEGA_LITE
from nasdsl.report.charts import Chart
from nasdsl.report.themes import PALETTES, apply_theme, config

LIBRARY: Final = "window.vegaEmbed = vegaEmbed;"
"""What the pages use of the JavaScript bundle."""


def render_page(template: str, *, has_charts: bool, now: float | None = None, **values: Any) -> str:
    """The page that a template makes of values.

    Args:
        template: name of a template that extends ``page.html.jinja``.
        has_charts: whether the page needs the script that draws charts.
        now: Unix time of the report; None: the current time.
        values: for the template.
    """
    environment = Environment(
        loader=PackageLoader("nasdsl.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Unsorted, because the order of the keys is that of legends and tooltips.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":"), "ensure_ascii": False}
    return environment.get_template(template).render(
        made=formatting.timestamp(time.time() if now is None else now),
        library=Markup(_library()) if has_charts else "",
        themes={name: {"config": apply_theme(config(), name), "palette": palette} for name, palette in PALETTES.items()},
        **values,
    )


def chart_values(chart: Chart, prefix: str = "") -> dict[str, Any]:
    """A chart as the templates read it. `prefix` makes its name unique in the page."""
    return {
        "id": f"{prefix}-{chart.name}" if prefix else chart.name,
        "title": chart.title,
        "caption": chart.caption,
        "spec": chart.spec,
        "height": chart.spec["height"],
    }


@cache
def _library() -> str:
    """Vega, Vega-Lite and vega-embed as one script. Making it takes two seconds."""
    return vl_convert.javascript_bundle(LIBRARY, vl_version=VEGA_LITE).replace("</script", "<\\/script")
