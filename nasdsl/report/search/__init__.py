"""The report of a search: ``read_search`` reads its folder, ``page`` renders the HTML, ``write_charts`` writes the charts.

Modules: `data` (the folder of a search as values), `statistics` (averages, windows and frequencies of trials), `charts`
(Vega-Lite specifications), `diagrams` (decoders as SVG), `run_info` (settings and duration), `objectives` (in words), `page`.
"""

from nasdsl.report.chart_files import write_charts
from nasdsl.report.reading import ReportError
from nasdsl.report.search.charts import charts, diagnostics, trainings
from nasdsl.report.search.data import Search, Stage, read_search
from nasdsl.report.search.page import TOP, page

__all__ = [
    "TOP", "ReportError", "Search", "Stage", "charts", "diagnostics", "page", "read_search", "trainings", "write_charts",
]  # fmt: skip
