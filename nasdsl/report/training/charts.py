"""Charts of a training, as Vega-Lite specifications made with Altair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, Final

import altair as alt
import numpy as np
from numpy.typing import NDArray

from nasdsl.evaluation import Curve, f1_scores, mean_f1
from nasdsl.report import formatting
from nasdsl.report.charts import Chart, color_scale, inline_data, moving_average, specification
from nasdsl.report.themes import series_colours, series_shapes
from nasdsl.report.training.data import Training, average_precision, classes_of, number_of
from nasdsl.report.training.validation import Validation

POINTS: Final = 400
"""Largest number of points of a loss; longer logs are averaged in groups."""
TOGETHER: Final = 8
"""Largest number of classes with a colour each."""
NUMBERED: Final = 12
"""Largest number of classes whose confusion matrix has its counts in the cells."""
ROW: Final = 24
"""Height of a bar."""
TALL: Final = 330
"""Height of the curves of the classes."""
BINS: Final = 20
"""Number of intervals of the histogram of scores."""


def training_charts(training: Training) -> list[Chart]:
    """Charts of the steps and of the evaluations over time; those without data are left out."""
    return [*losses(training), *precision_over_time(training), *learning_rate(training)]


def evaluation_charts(training: Training, validation: Validation | None) -> list[Chart]:
    """Charts of the last evaluation; without the boxes of its data set only the precision of the classes."""
    found: list[Chart] = []
    if validation is not None:
        found += precision_recall_curves(validation.curves)
        found += f1_over_threshold(validation)
        found += confusion(validation)
        found += score_histogram(validation)
    return [*found, *class_precision(training)]


# ------------------------------------------------------------------------------------------------------ over time


def _epoch_axis(training: Training) -> alt.X:
    """Epochs, with the time that they took below."""
    pace = training.seconds / 60 / training.epochs if training.epochs else 0.0
    digits = 1 if pace * training.epochs < 10 else 0
    label = f"[datum.label, format(datum.value * {pace:.6g}, '.{digits}f') + ' min']"
    return alt.X(
        "epoch:Q",
        title="epoch, and minutes of training",
        scale=alt.Scale(domain=[0, formatting.round_digits(training.epochs)] if training.epochs else [0, 1], nice=False),
        axis=alt.Axis(labelExpr=label, tickMinStep=0.1),
    )


def losses(training: Training) -> Iterator[Chart]:
    """Each loss and their sum: as recorded, and smoothed."""
    groups = _groups(training.steps)
    names = list(dict.fromkeys(name for record in training.steps for name in record.get("losses") or ()))
    series = {"sum": [number_of(r, "loss") for r in training.steps]} if len(names) != 1 else {}
    series |= {name: [number_of(r, "losses", name) for r in training.steps] for name in names}
    epochs = [number_of(record, "epoch") or 0.0 for record in training.steps]
    window = max(1, len(groups) // 15)
    rows = []
    for name, values in series.items():
        points = []
        for group in groups:
            known = [value for number in group if (value := values[number]) is not None]
            if known:
                points.append((epochs[group[-1]], fmean(known)))
        smooth = moving_average([value for _, value in points], window)
        rows += [
            {
                "loss": name,
                "epoch": formatting.round_digits(epoch),
                "value": formatting.round_digits(value),
                "smooth": formatting.round_digits(mean),
            }
            for (epoch, value), mean in zip(points, smooth, strict=True)
        ]
    if not rows:
        return
    color = alt.Color(
        "loss:N",
        scale=color_scale(list(series), ["$ink", *series_colours(len(series))] if "sum" in series else series_colours(1)),
        legend=_line_legend(len(series)),
    )
    base = alt.Chart(inline_data(rows)).encode(x=_epoch_axis(training), color=color)
    tips = [
        alt.Tooltip("loss:N"),
        alt.Tooltip("epoch:Q", format=".2f"),
        alt.Tooltip("value:Q", format=".4g"),
        *([alt.Tooltip("smooth:Q", title=f"mean of {window}", format=".4g")] if window > 1 else []),
    ]
    y = alt.Y("value:Q", title="loss", scale=alt.Scale(zero=True, nice=True))
    steps = training.steps[groups[0][-1]]["step"]
    smoothed = f" Lines: moving averages over {window} points." if window > 1 else ""
    yield Chart(
        "losses",
        "Losses",
        f"Points: means over {formatting.count(int(steps), 'step')}.{smoothed} "
        "Losses that still fall at the end mean that a longer training would probably pay.",
        specification(
            alt.layer(
                base.mark_circle(size=16, opacity=0.4).encode(y=y, tooltip=tips),
                base.mark_line(strokeWidth=2).encode(y="smooth:Q"),
            )
        ),
    )


def _line_legend(count: int) -> alt.Legend:
    """A legend of lines; more than four names do not fit into a row."""
    columns = 2 if count > 4 else alt.Undefined
    return alt.Legend(symbolType="stroke", symbolStrokeWidth=3, symbolOpacity=1, columns=columns)


def _groups(records: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Numbers of the records, in at most `POINTS` groups of consecutive ones."""
    size = -(-len(records) // POINTS) or 1
    return [list(range(i, min(i + size, len(records)))) for i in range(0, len(records), size)]


def learning_rate(training: Training) -> Iterator[Chart]:
    """The learning rate over time."""
    rows = []
    for group in _groups(training.steps):
        record = training.steps[group[-1]]
        rate, epoch = number_of(record, "lr"), number_of(record, "epoch")
        if rate is not None and epoch is not None:
            rows.append({"epoch": formatting.round_digits(epoch), "rate": formatting.round_digits(rate)})
    if not rows:
        return
    chart = alt.Chart(inline_data(rows)).encode(
        x=_epoch_axis(training),
        y=alt.Y("rate:Q", title="learning rate", axis=alt.Axis(format="~e"), scale=alt.Scale(zero=True)),
        tooltip=[alt.Tooltip("epoch:Q", format=".2f"), alt.Tooltip("rate:Q", title="learning rate", format=".3e")],
    )
    points = alt.OverlayMarkDef(color="$line", size=24) if len(rows) < 60 else False
    caption = "Of the decoder; the backbone's may be a multiple of it."
    spec = specification(chart.mark_line(strokeWidth=2, color="$line", point=points))
    yield Chart("learning_rate", "Learning rate", caption, spec)


def precision_over_time(training: Training) -> Iterator[Chart]:
    """Average precision of all evaluations, if there are several."""
    if len(training.evaluations) < 2:
        return
    metrics = {"AP": ("coco", "ap"), "AP50": ("coco", "ap50"), "AP75": ("coco", "ap75")}
    if all(number_of(record, "coco", "ap") is None for record in training.evaluations):
        metrics = {"VOC12": ("voc12", "mean_ap"), "VOC07": ("voc07", "mean_ap")}
    rows = [
        {
            "metric": name,
            "epoch": formatting.round_digits(training.epoch_at(record["step"])),
            "minutes": formatting.round_digits(training.seconds_at(record["step"]) / 60),
            "value": round(100 * value, 3),
        }
        for name, path in metrics.items()
        for record in training.evaluations
        if (value := number_of(record, *path)) is not None
    ]
    names = [name for name in metrics if any(row["metric"] == name for row in rows)]
    if not rows:
        return
    base = alt.Chart(inline_data(rows)).encode(
        x=_epoch_axis(training),
        y=alt.Y("value:Q", title="AP in points", scale=alt.Scale(zero=True, nice=True)),
        color=alt.Color("metric:N", scale=color_scale(names, ["$line", "$1", "$2"][: len(names)])),
    )
    dots = base.mark_point(size=46, filled=True, opacity=1).encode(
        shape=alt.Shape("metric:N", scale=color_scale(names, series_shapes(len(names)))),
        tooltip=[
            alt.Tooltip("metric:N"),
            alt.Tooltip("value:Q", format=".1f"),
            alt.Tooltip("epoch:Q", format=".2f"),
            alt.Tooltip("minutes:Q", format=".1f"),
        ],
    )
    yield Chart(
        "precision_over_time",
        "Average precision over time",
        f"After each of {formatting.count(len(training.evaluations), 'evaluation')}. The minutes are those of the training, "
        "without evaluations.",
        specification(alt.layer(base.mark_line(strokeWidth=2), dots).resolve_legend(shape="shared")),
    )


# ------------------------------------------------------------------------------------------------ the last evaluation


def class_precision(training: Training) -> Iterator[Chart]:
    """AP of each class."""
    classes = classes_of(training.metrics)
    rows: list[dict[str, Any]] = []
    for entry in classes:
        value = number_of(entry, "ap")
        if value is not None:
            name = formatting.truncate(str(entry.get("name")), 40)
            rows.append({"class": name, "ap": round(100 * value, 2), "boxes": number_of(entry, "boxes")})
    if len(rows) < 2:
        return
    rows.sort(key=lambda row: -row["ap"])
    metric, mean = average_precision(training.metrics)
    names = [row["class"] for row in rows]
    base = alt.Chart(inline_data(rows)).encode(
        x=alt.X("ap:Q", title=f"{metric} in points", scale=alt.Scale(domain=[0, 100])),
        y=alt.Y("class:N", title=None, sort=list(dict.fromkeys(names)), axis=alt.Axis(labelLimit=150, labelOverlap=False)),
    )
    tips = [alt.Tooltip("class:N"), alt.Tooltip("ap:Q", title=metric, format=".1f"), alt.Tooltip("boxes:Q", format=",d")]
    bars = base.mark_bar(color="$line", height={"band": 0.7}).encode(tooltip=tips)
    layers: list[alt.Chart] = [bars, base.mark_text(align="left", dx=5).encode(text=alt.Text("ap:Q", format=".1f"))]
    if mean is not None:
        line = alt.Chart(inline_data([{"ap": round(100 * mean, 2)}]))
        layers.append(line.mark_rule(strokeDash=[5, 4], color="$rule").encode(x="ap:Q"))
    missing = len(classes) - len(rows)
    without = f" {missing} class{'' if missing == 1 else 'es'} without boxes." if missing else ""
    yield Chart(
        "class_precision",
        f"{metric} by class",
        f"Dashed: the mean over the classes.{without}",
        specification(alt.layer(*layers), max(120, ROW * len(rows))),
    )


def precision_recall_curves(curves: Sequence[Curve]) -> Iterator[Chart]:
    """Precision over recall at IoU 0.5, of each class."""
    drawn = sorted((curve for curve in curves if curve.boxes), key=lambda curve: -curve.ap("voc12"))
    if not drawn:
        return
    coloured = drawn if len(drawn) <= TOGETHER else [*drawn[:3], *drawn[-3:]]
    labels = {curve.category_id: f"{formatting.truncate(curve.name)} {formatting.points(curve.ap('voc12'))}" for curve in drawn}
    rows: list[dict[str, Any]] = []
    for curve in drawn:
        shown = labels[curve.category_id] if curve in coloured else "others"
        for recall, precision, score in _thinned(curve, 120 if len(drawn) <= TOGETHER else 40):
            rows.append(
                {
                    "class": shown,
                    "name": labels[curve.category_id],
                    "recall": round(recall, 4),
                    "precision": round(precision, 4),
                    "score": round(score, 3),
                }
            )
    names = [labels[curve.category_id] for curve in coloured]
    colours = series_colours(len(coloured))
    if len(coloured) < len(drawn):
        names, colours = ["others", *names], ["$edge", *colours]
    axis = alt.Axis(format=".0%")
    chart = alt.Chart(inline_data(rows)).encode(
        x=alt.X("recall:Q", scale=alt.Scale(domain=[0, 1]), axis=axis),
        y=alt.Y("precision:Q", scale=alt.Scale(domain=[0, 1]), axis=axis),
        color=alt.Color("class:N", scale=color_scale(names, colours), legend=_line_legend(len(names))),
        detail="name:N",
        order=alt.Order("score:Q", sort="descending"),
        tooltip=[
            alt.Tooltip("name:N", title="class"),
            *(alt.Tooltip(f"{what}:Q", format=".1%") for what in ("recall", "precision")),
            alt.Tooltip("score:Q", title="from score", format=".2f"),
        ],
    )
    others = (
        f" Of {len(drawn)} classes, the three best and the three worst have a colour." if len(coloured) < len(drawn) else ""
    )
    yield Chart(
        "precision_recall",
        "Precision and recall",
        "At IoU 0.5, from the highest score (left) to the lowest. The number beside a class is the area below its curve in "
        f"points.{others}",
        specification(chart.mark_line(strokeWidth=1.8), TALL),
    )


def _thinned(curve: Curve, bins: int) -> list[tuple[float, float, float]]:
    """Recall, precision and score at the ends of each of `bins` intervals of recall."""
    if not len(curve.scores):
        return [(0.0, 0.0, 1.0)]
    recall, precision = curve.recall, curve.precision
    changes = np.flatnonzero(np.diff(np.floor(recall * bins)))
    kept = np.unique(np.concatenate(([0], changes, changes + 1, [len(recall) - 1])))
    return [(float(recall[i]), float(precision[i]), float(curve.scores[i])) for i in kept]


def confusion(validation: Validation) -> Iterator[Chart]:
    """The confusion matrix at the best threshold."""
    matrix = validation.matrix
    count = len(matrix.categories)
    if not matrix.counts.any():
        return
    names = _distinct([formatting.truncate(category.name, 24) for category in matrix.categories])
    true, found = [*names, "background"], [*names, "missed"]
    sums = matrix.counts.sum(axis=1)
    rows = [
        {
            "true": true[i],
            "detected": found[j],
            "boxes": int(n),
            "share": round(int(n) / max(1, int(sums[i])), 4),
            "what": "right" if i == j else "missed" if j == count else "false" if i == count else "another class",
        }
        for (i, j), n in np.ndenumerate(matrix.counts)
        if n or (count <= NUMBERED and (i, j) != (count, count))
    ]
    axis: dict[str, Any] = {"labelLimit": 120, "domain": False, "ticks": False, "grid": False, "labelOverlap": count > NUMBERED}
    base = alt.Chart(inline_data(rows)).encode(
        x=alt.X(
            "detected:N", sort=found, scale=alt.Scale(domain=found), title="detected as", axis=alt.Axis(labelAngle=-40, **axis)
        ),
        y=alt.Y("true:N", sort=true, scale=alt.Scale(domain=true), title="annotated as", axis=alt.Axis(**axis)),
        tooltip=[
            alt.Tooltip("true:N", title="annotated"),
            alt.Tooltip("detected:N"),
            alt.Tooltip("boxes:Q", title="number", format=",d"),
            alt.Tooltip("share:Q", title="of its row", format=".1%"),
            alt.Tooltip("what:N"),
        ],
    )
    cells = base.mark_rect(cornerRadius=2 if count <= NUMBERED else 0).encode(
        color=alt.Color("share:Q", scale=alt.Scale(domain=[0, 1], range=["$faint", "$line"]), legend=None)
    )
    layers: list[alt.Chart] = [cells]
    if count <= NUMBERED:
        ink = alt.condition("datum.share > 0.5", alt.value("$page"), alt.value("$ink"))
        layers.append(base.mark_text(fontSize=13).encode(text=alt.Text("boxes:Q", format=",d"), color=ink))
    yield Chart(
        "confusion",
        "Confusion matrix",
        f"Of the detections with a score of at least {validation.threshold:.3f}, at IoU 0.5. Each row: the annotated boxes of "
        "a class, by the class that was detected; the last column: those that were missed. The last row: detections where "
        "nothing is annotated. The colour is the share of the row.",
        specification(alt.layer(*layers), min(760, max(180, (44 if count <= NUMBERED else 9) * (count + 1)))),
    )


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, with numbers behind those that occur before."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def f1_over_threshold(validation: Validation) -> Iterator[Chart]:
    """F1 of the classes and their mean over the threshold of the score."""
    curves, best = [curve for curve in validation.curves if curve.boxes], validation.best
    if best is None:
        return
    thresholds = np.unique(np.append(np.arange(101) / 100, best.score))
    series: dict[str, NDArray[np.float64]] = {}
    if 1 < len(curves) <= TOGETHER:
        names = _distinct([formatting.truncate(curve.name) for curve in curves])
        series = {name: f1_scores(curve, thresholds) for name, curve in zip(names, curves, strict=True)}
    mean = "mean of the classes" if len(curves) > 1 else formatting.truncate(curves[0].name)
    series[mean] = mean_f1(curves, thresholds)
    rows = [
        {"class": name, "threshold": round(float(t), 3), "f1": round(float(value), 4)}
        for name, values in series.items()
        for t, value in zip(thresholds, values, strict=True)
    ]
    colours = [*series_colours(len(series) - 1), "$ink"]
    base = alt.Chart(inline_data(rows)).encode(
        x=alt.X("threshold:Q", title="threshold of the score", scale=alt.Scale(domain=[0, 1])),
        y=alt.Y("f1:Q", title="F1", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("class:N", scale=color_scale(list(series), colours), legend=_line_legend(len(series))),
        tooltip=[
            alt.Tooltip("class:N"),
            alt.Tooltip("threshold:Q", format=".2f"),
            alt.Tooltip("f1:Q", title="F1", format=".3f"),
        ],
    )
    width = alt.condition(f"datum['class'] === {mean!r}", alt.value(2.6), alt.value(1.4))
    mark = alt.Chart(inline_data([{"threshold": best.score, "f1": round(best.f1, 4)}])).encode(x="threshold:Q")
    yield Chart(
        "f1",
        "F1 over the threshold",
        f"Harmonic mean of precision and recall at IoU 0.5. Best mean: {best.f1:.3f} at a threshold of {best.score:.3f} "
        f"(dashed), as with nasdsl detect --threshold {best.score:g}.",
        specification(
            alt.layer(
                base.mark_line().encode(strokeWidth=width),
                mark.mark_rule(strokeDash=[5, 4], color="$rule"),
                mark.mark_point(shape="diamond", size=110, filled=True, opacity=1, color="$best").encode(y="f1:Q"),
            ),
            TALL,
        ),
    )


def score_histogram(validation: Validation) -> Iterator[Chart]:
    """How many detections are right and false, by their scores."""
    scores = np.concatenate([curve.scores for curve in validation.curves] or [np.zeros(0)])
    right = np.concatenate([np.diff(curve.true_positives, prepend=0) > 0 for curve in validation.curves] or [np.zeros(0, bool)])
    if not len(scores):
        return
    edges = np.linspace(min(0.0, float(scores.min())), max(1.0, float(scores.max())), BINS + 1)
    counts = {name: np.histogram(scores[which], edges)[0] for name, which in (("right", right), ("false", ~right))}
    rows = [
        {"what": name, "from": round(float(edges[i]), 3), "to": round(float(edges[i + 1]), 3), "detections": int(n)}
        for name, values in counts.items()
        for i, n in enumerate(values)
    ]
    most = max(int(values.max()) for values in counts.values())
    ticks = [0, *(10**power for power in range(len(str(most)) + 1) if 10**power <= most)]
    names = list(counts)
    gap = (edges[1] - edges[0]) / 2
    base = alt.Chart(inline_data(rows)).transform_calculate(
        zero="0",
        left=f"datum.what === 'right' ? datum.from : datum.from + {gap:.6g}",
        right=f"datum.what === 'right' ? datum.from + {gap:.6g} : datum.to",
    )
    bars = base.mark_bar(stroke=None, clip=True).encode(
        x=alt.X("left:Q", title="score", scale=alt.Scale(domain=[float(edges[0]), float(edges[-1])], nice=False)),
        x2="right:Q",
        y=alt.Y("detections:Q", title="detections", scale=alt.Scale(type="symlog"), axis=alt.Axis(values=ticks, format=",d")),
        y2="zero:Q",
        color=alt.Color("what:N", scale=color_scale(names, ["$line", "$best"])),
        tooltip=[
            alt.Tooltip("what:N"),
            alt.Tooltip("from:Q", format=".2f"),
            alt.Tooltip("to:Q", format=".2f"),
            alt.Tooltip("detections:Q", format=",d"),
        ],
    )
    rule = alt.Chart(inline_data([{"threshold": validation.threshold}]))
    yield Chart(
        "scores",
        "Scores of right and false detections",
        "A logarithmic scale. The better the two are apart, the less the threshold (dashed) matters. Right: the first "
        "detection of a box, of its class, at IoU 0.5.",
        specification(alt.layer(bars, rule.mark_rule(strokeDash=[5, 4], color="$rule").encode(x="threshold:Q"))),
    )
