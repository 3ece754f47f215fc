"""The report of a training: ``read_training`` reads its folder, ``page`` renders the HTML, ``write_report`` does both.

Modules: `data` (the folder of a run as values), `validation` (the last evaluation with the data set's boxes), `charts`
(Vega-Lite specifications), `sheet` (the images with most errors), `page` (HTML).
"""

from nasdsl.report.reading import ReportError
from nasdsl.report.training.charts import evaluation_charts, training_charts
from nasdsl.report.training.data import Training, read_training
from nasdsl.report.training.page import page, write_report
from nasdsl.report.training.validation import Validation, make_validation, open_validation

__all__ = [
    "ReportError", "Training", "Validation", "evaluation_charts", "make_validation", "open_validation", "page",
    "read_training", "training_charts", "write_report",
]  # fmt: skip
