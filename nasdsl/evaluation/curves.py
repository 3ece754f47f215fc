"""Plots of precision-recall curves."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from nasdsl.evaluation.errors import EvaluationError
from nasdsl.evaluation.voc import Curve
from nasdsl.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES: Final = (".svg", ".png", ".pdf")
MAX_TOGETHER: Final = 8
"""Most classes in one panel: there are no more colours that colour-blind people can tell apart."""

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c6d31")
"""Okabe and Ito's, with a darker yellow: https://jfly.uni-koeln.de/color/"""


def draw_curves(curves: Sequence[Curve], path: str | Path, title: str = "Precision and recall at IoU 0.5") -> None:
    """Plot precision-recall curves to a file.

    Up to `MAX_TOGETHER` classes share one panel; more get a small panel each. They are sorted by VOC 2012's average
    precision, the best first; classes without boxes have no curve and are counted below the title. Equal curves give equal
    files.

    Args:
        curves: from `precision_recall`.
        path: ends in `.svg`, `.png` or `.pdf`, which is the format.

    Raises:
        EvaluationError: the path has another suffix, or no class has boxes.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise EvaluationError(f"{path}: a picture ends in {', '.join(SUFFIXES)}; found {path.suffix or 'no suffix'!r}")
    drawn = sorted((curve for curve in curves if curve.boxes), key=lambda curve: -curve.ap("voc12"))
    if not drawn:
        raise EvaluationError(f"{path}: no class has boxes that count, so there is no curve to draw")
    # Imported here because it takes a second. No pyplot, which would look for a screen.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    mean = sum(curve.ap("voc12") for curve in drawn) / len(drawn)
    without = f", {len(curves) - len(drawn)} without boxes" if len(drawn) < len(curves) else ""
    below = f"mean area {100 * mean:.1f} % over {len(drawn)} class{'' if len(drawn) == 1 else 'es'}{without}"
    spines: dict[Any, Any] = {"axes.spines.top": False, "axes.spines.right": False}
    files: dict[Any, Any] = {"svg.fonttype": "path", "svg.hashsalt": "precision and recall"}  # the salt makes equal files
    with rc_context({"font.size": 9, "text.parse_math": False, **spines, **files}):
        if len(drawn) <= MAX_TOGETHER:
            figure = Figure(layout="constrained")
            _one_panel(figure, drawn).set_title(f"{title}\n{below}", loc="left", fontsize=10)
        else:
            figure = Figure()
            _panels(figure, drawn)
            figure.suptitle(f"{title}\n{below}", fontsize=11, y=1 - 0.08 / figure.get_figheight(), va="top")
        suffix = path.suffix.lower()
        dates = {".svg": "Date", ".pdf": "CreationDate"}.get(suffix)
        content = io.BytesIO()
        figure.savefig(content, format=suffix.removeprefix("."), dpi=150, metadata={dates: None} if dates else {})
    write_bytes(path, content.getvalue())


def _one_panel(figure: Figure, curves: Sequence[Curve]) -> Axes:
    figure.set_size_inches(7.2, 4.4)
    axes = figure.add_subplot()
    fifths = [fifth / 5 for fifth in range(6)]
    for curve, colour in zip(curves, COLOURS, strict=False):
        recall, precision = _thinned(curve, bins=400)
        label = f"{_shortened(curve.name, 28)}  {100 * curve.ap('voc12'):.1f} %  ({curve.boxes})"
        axes.plot(recall, precision, color=colour, linewidth=1.6, label=label)
    _frame(axes, fifths)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, title="class  area  (boxes)", alignment="left")
    return axes


def _panels(figure: Figure, curves: Sequence[Curve]) -> None:
    columns = min(10, math.ceil(math.sqrt(1.4 * len(curves))))
    rows = math.ceil(len(curves) / columns)
    width, height = 1.35 * columns + 0.6, 1.35 * rows + 1.1
    figure.set_size_inches(width, height)
    # Margins in inches: computing them takes several seconds with 80 panels.
    figure.subplots_adjust(0.55 / width, 0.5 / height, 1 - 0.1 / width, 1 - 0.75 / height, wspace=0.12, hspace=0.3)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, curve in zip(grid.flat, curves, strict=False):
        recall, precision = _thinned(curve, bins=100)
        axes.fill_between(recall, precision, color=COLOURS[0], alpha=0.18, linewidth=0)
        axes.plot(recall, precision, color=COLOURS[0], linewidth=1)
        axes.set_title(f"{_shortened(curve.name, 16)}  {100 * curve.ap('voc12'):.0f}", fontsize=7.5, pad=3)
        _frame(axes, (0, 0.5, 1))
        axes.tick_params(labelsize=6)
    for axes in grid.flat[len(curves) :]:
        axes.set_visible(False)
    figure.supxlabel("recall", fontsize=9, y=0.08 / height, va="bottom")
    figure.supylabel("precision", fontsize=9, x=0.08 / width, ha="left")


def _frame(axes: Axes, ticks: Sequence[float]) -> None:
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.03)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.grid(alpha=0.25, linewidth=0.5)


def _thinned(curve: Curve, bins: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision from recall 0 on, with only the first and the last of the points in each of `bins` intervals."""
    recall, precision = curve.recall, curve.precision
    if not len(recall):
        return np.zeros(1), np.zeros(1)
    changes = np.flatnonzero(np.diff(np.floor(recall * bins)))
    kept = np.unique(np.concatenate(([0], changes, changes + 1, [len(recall) - 1])))
    return np.concatenate(([0.0], recall[kept])), np.concatenate((precision[:1], precision[kept]))


def _shortened(name: str, longest: int) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"
