"""The report of a search: ``read_search`` reads its folder, ``page`` makes the page, ``write_charts`` the pictures.

data: the folder as values; series: trials as rows; charts: rows as Vega-Lite; themes: their colours; diagrams: decoders
as SVG; facts: what was searched, and how; page: all of it as HTML; files: charts as SVG and PNG.
"""

from nasdsl.report.search.charts import charts, diagnostics, trainings
from nasdsl.report.search.data import ReportError, Search, Stage, read_search
from nasdsl.report.search.files import write_charts, write_whole
from nasdsl.report.search.page import TOP, page

__all__ = [
    "TOP", "ReportError", "Search", "Stage", "charts", "diagnostics", "page", "read_search", "trainings", "write_charts",
    "write_whole",
]  # fmt: skip
