"""Charts of a search with several aims: the front, and the hypervolume that it dominates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import altair as alt

from nasdsl.report import formatting
from nasdsl.report.charts import Chart, as_series, color_scale, inline_data, specification
from nasdsl.report.search import statistics
from nasdsl.report.search.data import Stage
from nasdsl.search.hypervolume import hypervolume
from nasdsl.search.pareto import Point, front_of
from nasdsl.search.results import aim_of
from nasdsl.search.trial import OK

_MEGA = "format(datum.value / 1e6, '~g') + ' M'"
AXES = {
    "macs": ("MACs of the detector", f"datum.value >= 1e9 ? format(datum.value / 1e9, '~g') + ' G' : {_MEGA}"),
    "params": ("parameters of the detector", _MEGA),
    "latency": ("latency", "format(datum.value * 1e3, '~g') + ' ms'"),
}
"""Title of each cost that is an aim, and the expression of its axis labels."""


def front_charts(stage: Stage) -> Iterator[Chart]:
    """The reward against each aim with the front of all aims, and the hypervolume over trials; nothing with a single aim."""
    known = [trial for trial in stage.trials.ok if stage.trials.aims and stage.trials.point(trial) is not None]
    if not known:
        return
    for aim in stage.trials.aims:
        yield _reward_against(stage, aim)
    if len(known) > 1:
        yield _volume(stage)


def _reward_against(stage: Stage, aim: str) -> Chart:
    trials = stage.trials
    title, label = AXES[aim]
    best = trials.best
    assert best is not None
    front = trials.front()
    rows: list[dict[str, Any]] = []
    for trial in trials.ok:
        cost = aim_of(trial, aim)
        if cost is None or trial.reward is None:
            continue
        shown = formatting.latency(cost) if aim == "latency" else formatting.amount(cost)
        rows.append({"trial": trial.number, "cost": cost, "reward": formatting.round_digits(trial.reward), "words": shown})
    numbers = {trial.number for trial in front}
    names = ["each trial", "front", "best compromise"]
    colour = alt.Color(
        "series:N",
        scale=color_scale(names, ["$dot", "$line", "$best"]),
        legend=alt.Legend(symbolType="circle", symbolOpacity=1),
    )
    values = [float(row["reward"]) for row in rows]
    bound = statistics.outlier_bound(values)
    scale = alt.Scale(zero=False, nice=True)
    if bound is not None:
        scale = alt.Scale(domain=[min(v for v in values if v >= bound), max(values)], clamp=True, nice=True)
    encoded = {
        "x": alt.X("cost:Q", title=title, scale=alt.Scale(zero=False, padding=8), axis=alt.Axis(labelExpr=label)),
        "y": alt.Y("reward:Q", title="reward", scale=scale),
        "color": colour,
        "tooltip": [
            alt.Tooltip("trial:Q", format=",d"),
            alt.Tooltip("reward:Q", format=".5g"),
            alt.Tooltip("words:N", title=title),
        ],
    }
    on_front = [row for row in rows if row["trial"] in numbers]
    dots = alt.Chart(inline_data(rows)).mark_circle(size=22, opacity=0.55)
    if len(trials.aims) == 1:
        line = alt.Chart(inline_data(on_front)).mark_line(
            interpolate="step-after", strokeWidth=1.8, point=alt.OverlayMarkDef(size=44, filled=True)
        )
    else:  # a front of three figures is no line in two
        line = alt.Chart(inline_data(on_front)).mark_point(size=44, filled=True, opacity=1)
    star = alt.Chart(inline_data([row for row in rows if row["trial"] == best.number])).mark_point(
        shape="diamond", size=150, filled=True, opacity=1
    )
    others = "" if len(trials.aims) == 1 else " in all aims"
    return Chart(
        f"front_{aim}",
        f"Front: reward against {title}",
        f"All evaluated decoders; none is better than those of the front{others} (better is up and left). The diamond is the "
        f"best compromise, trial {best.number:,}: alone it dominates the largest part of the front's range.",
        specification(
            alt.layer(
                as_series(dots.encode(**encoded), names[0]),
                as_series(line.encode(**encoded), names[1]),
                as_series(star.encode(**encoded), names[2]),
            )
        ),
    )


def volumes(stage: Stage) -> list[tuple[int, float]]:
    """The hypervolume after each trial, as a share of the box from the best to the worst of each aim.

    The worst reward is that of the worst trial that is no outlier.
    """
    points = {trial.number: point for trial in stage.trials.ok if (point := stage.trials.point(trial)) is not None}
    axes = [list(axis) for axis in zip(*points.values(), strict=True)]
    bound = statistics.outlier_bound([-value for value in axes[0]])
    if bound is not None:
        axes[0] = [value for value in axes[0] if -value >= bound]
    best, worst = [min(axis) for axis in axes], [max(axis) for axis in axes]
    scaled = {
        number: tuple((v - low) / (high - low or 1.0) for v, low, high in zip(point, best, worst, strict=True))
        for number, point in points.items()
    }
    front: list[Point] = []
    found: list[tuple[int, float]] = []
    share = 0.0
    for trial in stage.trials:
        if trial.verdict == OK and trial.number in scaled:
            front.append(scaled[trial.number])
            kept = [front[place] for place in front_of(front)]
            if front[-1] in kept:
                share = hypervolume(kept, (1.0,) * len(best))
            front = kept
        found.append((trial.number, share))
    return found


def _volume(stage: Stage) -> Chart:
    rows = [{"trial": number, "volume": formatting.round_digits(share)} for number, share in volumes(stage)]
    chart = alt.Chart(inline_data(rows)).mark_line(strokeWidth=2.2, interpolate="step-after", color="$line")
    aims = " and ".join(AXES[aim][0] for aim in stage.trials.aims)
    return Chart(
        "hypervolume",
        "Hypervolume of the front",
        "The volume that the front dominates after each trial, as a share of the box between the best and the worst reward "
        f"and {aims} of all trials (outliers aside). It grows with each decoder that joins the front; where it is flat, the "
        "search gains nothing more.",
        specification(
            chart.encode(
                x=alt.X("trial:Q", title="trial", axis=alt.Axis(format=",d", tickMinStep=1), scale=alt.Scale(nice=False)),
                y=alt.Y("volume:Q", title="hypervolume", axis=alt.Axis(format=".0%"), scale=alt.Scale(zero=False, nice=True)),
                tooltip=[alt.Tooltip("trial:Q", format=",d"), alt.Tooltip("volume:Q", title="hypervolume", format=".2%")],
            )
        ),
    )
