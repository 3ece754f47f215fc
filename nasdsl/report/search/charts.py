"""Charts of a search, as Vega-Lite specifications made with Altair: rows in, a chart out, nothing drawn yet."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import altair as alt

from nasdsl.report.search import figures, series
from nasdsl.report.search.data import Ranking, Stage
from nasdsl.report.search.themes import colours, shapes
from nasdsl.search.results import cost_of
from nasdsl.search.trial import DUPLICATE, Trial

HEIGHT: Final = 270
MARGIN: Final = 18
"""Below the values, for the marks of trials without one."""
LOW: Final = 150
"""Height of a chart of the diagnostics."""

COSTS: Final[Mapping[str, tuple[str, str]]] = {
    "macs": ("MACs", "datum.value >= 1e9 ? format(datum.value / 1e9, '~g') + ' G' : format(datum.value / 1e6, '~g') + ' M'"),
    "params": ("Parameters", "format(datum.value / 1e6, '~g') + ' M'"),
    "latency": ("Latency", "format(datum.value * 1e3, '~g') + ' ms'"),
}
"""Name of a cost and how its axis is labelled."""


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        name: unique in its stage; also of its file.
        says: one sentence: what it shows and what to look for.
        spec: Vega-Lite, with names of colours of `nasdsl.report.search.themes`.
    """

    name: str
    title: str
    says: str
    spec: dict[str, Any]


def charts(stage: Stage) -> list[Chart]:
    """The charts that a stage's trials have something to show in."""
    return [*rewards(stage), *sharing(stage), *frequencies(stage), *costs(stage)]


def _data(rows: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=[dict(row) for row in rows])


def _spec(chart: alt.Chart | alt.LayerChart | alt.FacetChart, height: int = HEIGHT) -> dict[str, Any]:
    found: dict[str, Any] = chart.properties(width="container", height=height).to_dict()
    for outside in ("$schema", "config"):  # the page has one of its own for all
        found.pop(outside, None)
    return found


def _trial_axis(name: str = "trial") -> alt.X:
    return alt.X(f"{name}:Q", title="trial", axis=alt.Axis(format=",d", tickMinStep=1), scale=alt.Scale(zero=True, nice=False))


def _legend(names: Sequence[str], palette: Sequence[str]) -> alt.Scale:
    return alt.Scale(domain=list(names), range=list(palette))


def _scale(values: Sequence[float]) -> alt.Scale:
    """A vertical scale for values; those that would flatten it are drawn at its lower edge."""
    fence = series.far_below(values)
    if fence is None:
        return alt.Scale(zero=False, nice=True)
    inside = min(value for value in values if value >= fence)
    return alt.Scale(domain=[figures.brief(inside), figures.brief(max(values))], clamp=True, nice=True)


def _named(layer: alt.Chart, name: str) -> alt.Chart:
    """A layer whose marks are one series of the legend."""
    return layer.transform_calculate(series=json.dumps(name))


# ------------------------------------------------------------------------------------------------------ reward


def rewards(stage: Stage) -> Iterator[Chart]:
    """The reward over time (Figure 2); where the objective weighs costs, the score as well."""
    yield from _over_time(stage, "reward")
    if stage.weighs:
        yield from _over_time(stage, "score")


def _over_time(stage: Stage, what: str) -> Iterator[Chart]:
    known = [(t, float(value)) for t in stage.trials if (value := getattr(t, what)) is not None]
    if not known:
        return
    values = [value for _, value in known]
    window = series.average_window(len(values))
    fence = series.far_below(values)
    below = sum(value < fence for value in values) if fence is not None else 0
    edge = min(value for value in values if fence is None or value >= fence)
    # One value a hundred times as far off as the others would hide in the average what the others do.
    average, best = series.moving_average([max(value, edge) for value in values], window), series.best_so_far(values)
    rows = [
        {
            "trial": trial.number,
            "value": figures.brief(value),
            "mean": figures.brief(mean),
            "best": figures.brief(top),
            "verdict": trial.verdict if trial.duplicate_of is None else f"duplicate of trial {trial.duplicate_of}",
        }
        for (trial, value), mean, top in zip(known, average, best, strict=True)
    ]
    scale = _scale(values)
    lost = series.unrewarded(stage.trials)
    if lost:
        scale.range = [HEIGHT - MARGIN, 0]
    names = ["each trial", f"mean of {window}", "best so far", *(["no reward"] if lost else [])]
    legend = _legend(names, ["$dot", "$line", "$best", "$bad"][: len(names)])

    colour = alt.Color("series:N", scale=legend, legend=alt.Legend(symbolType="circle", symbolOpacity=1))

    base = alt.Chart(_data(rows)).encode(x=_trial_axis(), color=colour)
    tips = [
        alt.Tooltip("trial:Q", format=",d"),
        alt.Tooltip("value:Q", title=what, format=".5g"),
        alt.Tooltip("mean:Q", title=names[1], format=".5g"),
        alt.Tooltip("best:Q", title=names[2], format=".5g"),
        alt.Tooltip("verdict:N"),
    ]
    y = alt.Y("value:Q", title=what, scale=scale)
    layers: list[alt.Chart] = [
        _named(base.mark_circle(size=22 if len(rows) < 600 else 12, opacity=0.55).encode(y=y, tooltip=tips), names[0]),
        _named(base.mark_line(strokeWidth=1.6, interpolate="step-after").encode(y="best:Q"), names[2]),
        _named(base.mark_line(strokeWidth=2.4).encode(y="mean:Q"), names[1]),
    ]
    if lost:
        missing = [{"trial": t.number, "verdict": t.verdict} for t in lost]
        ticks = alt.Chart(_data(missing)).mark_tick(orient="vertical", size=10, thickness=1.5, opacity=0.9)
        tips = [alt.Tooltip("trial:Q", format=",d"), alt.Tooltip("verdict:N")]
        layers.append(
            _named(ticks.encode(x=_trial_axis(), y=alt.value(HEIGHT - 5), color=colour, tooltip=tips), names[3])
        )  # fmt: skip
    kept = " Duplicates count with the reward of the decoder that they repeat." if stage.counts[DUPLICATE] else ""
    far = (
        f" {figures.count(below, 'value')} far below the others {'is' if below == 1 else 'are'} drawn and averaged at the edge."
    )
    weighed = (
        f" The score is the reward weighed by {figures.objective(stage.trials.start.get('objective'))}."
        if what == "score"
        else ""
    )
    yield Chart(
        what,
        "Reward" if what == "reward" else "Score",
        f"The {what} of each proposal in order, with its moving average over {window}: a strategy that learns lifts the "
        f"average, not only the best.{weighed}{kept}{far if below else ''}",
        _spec(alt.layer(*layers)),
    )


# ----------------------------------------------------------------------------------------------------- windows


def sharing(stage: Stage) -> Iterator[Chart]:
    """Proportion of heads that share all weights (Figure 5)."""
    if stage.space is None or not len(stage.trials):
        return
    found = series.fully_shared(stage.trials, stage.space)
    slot = series.share_slot(stage.space)
    if slot is None:
        return
    chance = series.chance(slot, "0")
    rows = [_window(w) | {"whole": w.of == series.PERIOD} for w in found]
    base = alt.Chart(_data(rows)).encode(
        x=_trial_axis("last"),
        y=alt.Y("share:Q", title="fully shared", axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, 1])),
    )
    random = alt.Chart(_data([{"share": chance}])).mark_rule(strokeDash=[5, 4], color="$rule").encode(y="share:Q")
    dots = base.mark_point(size=60, filled=True, color="$line").encode(
        opacity=alt.condition("datum.whole", alt.value(1), alt.value(0.45)),
        tooltip=_window_tips("fully shared"),
    )
    part = found[-1].of
    tail = f" The last, paler window has {figures.count(part, 'trial')} so far." if part < series.PERIOD else ""
    yield Chart(
        "sharing",
        "Fully shared heads",
        f"How many heads of each {series.PERIOD} proposals share all weights between the levels, against the "
        f"{figures.percent(chance)} of uniform drawing (dashed): a rise says that sharing pays.{tail}",
        _spec(alt.layer(random, base.mark_line(strokeWidth=2, color="$line"), dots)),
    )


def frequencies(stage: Stage) -> Iterator[Chart]:
    """How often each operation and aggregation is drawn."""
    if stage.space is None or not len(stage.trials):
        return
    size = series.period(len(stage.trials))
    for number, choice in enumerate(series.choices(stage.space)):
        found = series.frequencies(stage.trials, stage.space, choice, size)
        rows = [{"choice": name, **_window(w)} for name, rows in found.items() for w in rows]
        if not rows:
            continue
        count = len(choice.alternatives)
        names = [figures.shortened(name) for name in choice.alternatives]
        for row in rows:
            row["choice"] = figures.shortened(row["choice"])
        top = min(1.0, 1.1 * max(row["share"] for row in rows))
        y = alt.Y("share:Q", title="drawn", axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, top], nice=True))
        base = alt.Chart(_data(rows)).encode(
            x=_trial_axis("last"),
            y=y,
            color=alt.Color("choice:N", scale=_legend(names, colours(count))),
        )
        dots = base.mark_point(size=42, filled=True, opacity=1).encode(
            shape=alt.Shape("choice:N", scale=_legend(names, shapes(count))),
            tooltip=[alt.Tooltip("choice:N", title="drawn"), *_window_tips("share")],
        )
        holes = figures.count(len(choice.domains), "hole")
        yield Chart(
            f"choice_{number}",
            f"Choices of {figures.shortened(choice.name, 60)}",
            f"What {'its' if len(choice.domains) == 1 else 'the'} {holes} drew in each {size} proposals; uniform drawing gives "
            f"each {figures.percent(1 / count)}, so what rises above that is what the strategy came to prefer.",
            _spec(alt.layer(base.mark_line(strokeWidth=1.8), dots).resolve_legend(shape="shared")),
        )


def _window(window: series.Window) -> dict[str, Any]:
    trials = f"{window.first:,} to {window.last:,}"
    return {"last": window.last, "trials": trials, "share": round(window.share, 4), "n": f"{window.having:,} of {window.of:,}"}


def _window_tips(words: str) -> list[alt.Tooltip]:
    return [alt.Tooltip("trials:N"), alt.Tooltip("share:Q", title=words, format=".1%"), alt.Tooltip("n:N", title="count")]


# ------------------------------------------------------------------------------------------------------- costs


def costs(stage: Stage) -> Iterator[Chart]:
    """Reward against MACs, and against the other costs that the objective weighs, with the Pareto front."""
    for cost in ("macs", *(cost for cost in stage.weighs if cost != "macs")):
        known = [(trial, value) for trial in stage.trials.ok if (value := cost_of(trial, cost)) is not None]
        if known:
            yield _against(stage, cost, known)


def _against(stage: Stage, cost: str, known: Sequence[tuple[Trial, float]]) -> Chart:
    title, label = COSTS[cost]
    word = title if cost == "macs" else title.lower()
    words = figures.latency if cost == "latency" else figures.amount

    def row(trial: Trial) -> dict[str, Any]:
        assert trial.reward is not None
        value = cost_of(trial, cost)
        shown = {"trial": trial.number, "cost": value, "reward": figures.brief(trial.reward), "words": words(value)}
        return shown if trial.score == trial.reward or trial.score is None else shown | {"score": figures.brief(trial.score)}

    front = stage.trials.front(cost)
    best = stage.trials.best
    assert best is not None
    values = [float(trial.reward) for trial, _ in known if trial.reward is not None]
    scale = _scale(values)
    names = ["each trial", "Pareto front", "best score" if stage.weighs else "best reward"]
    legend = _legend(names, ["$dot", "$line", "$best"])

    colour = alt.Color("series:N", scale=legend, legend=alt.Legend(symbolType="circle", symbolOpacity=1))

    tips = [
        alt.Tooltip("trial:Q", format=",d"),
        alt.Tooltip("reward:Q", format=".5g"),
        *([alt.Tooltip("score:Q", format=".5g")] if stage.weighs else []),
        alt.Tooltip("words:N", title=title),
    ]
    encoded = {
        "x": alt.X("cost:Q", title=title, scale=alt.Scale(zero=False, padding=8), axis=alt.Axis(labelExpr=label)),
        "y": alt.Y("reward:Q", title="reward", scale=scale),
        "tooltip": tips,
        "color": colour,
    }
    small = 22 if len(known) < 600 else 12
    trials = alt.Chart(_data([row(trial) for trial, _ in known])).mark_circle(size=small, opacity=0.55)
    line = alt.Chart(_data([row(trial) for trial in front])).mark_line(
        interpolate="step-after", strokeWidth=1.8, point=alt.OverlayMarkDef(size=44, filled=True)
    )
    star = alt.Chart(_data([row(best)])).mark_point(shape="diamond", size=150, filled=True, opacity=1)
    return Chart(
        f"reward_{cost}",
        f"Reward against {word}",
        f"Every decoder that was evaluated; none beats one of the Pareto front in both reward and {word} (up and left is "
        "better). Where the front flattens, more cost buys little.",
        _spec(
            alt.layer(
                _named(trials.encode(**encoded), names[0]),
                _named(line.encode(**encoded), names[1]),
                _named(star.encode(**encoded), names[2]),
            )
        ),
    )


# --------------------------------------------------------------------------------------------- full trainings


def trainings(ranking: Ranking | None) -> Iterator[Chart]:
    """AP of full trainings beside the reward of the search (Figure 6)."""
    if ranking is None or not ranking.pairs:
        return
    trained = [
        {"name": e.name, "reward": figures.brief(e.reward), "ap": round(100 * e.ap, 3)}
        for e in ranking.entries
        if e.trial is not None and e.reward is not None and e.ap is not None
    ]
    others = [{"name": e.name, "ap": round(100 * e.ap, 3)} for e in ranking.entries if e.trial is None and e.ap is not None]
    found = [reward for reward, _ in ranking.pairs]
    middle = (min(found) + max(found)) / 2
    y = alt.Y("ap:Q", title=ranking.metric, scale=alt.Scale(zero=False, nice=True))
    x = alt.X("reward:Q", title="reward of the search", scale=alt.Scale(zero=False, padding=24))
    tips = [alt.Tooltip("name:N"), alt.Tooltip("reward:Q", format=".5g"), alt.Tooltip("ap:Q", title="AP", format=".1f")]
    base = alt.Chart(_data(trained)).encode(x=x, y=y)
    names = base.encode(text="name:N")
    layers: list[alt.Chart] = [
        base.mark_point(size=70, filled=True, opacity=0.9, color="$line").encode(tooltip=tips),
        # On the side where there is room, so that no name leaves the chart.
        names.transform_filter(f"datum.reward <= {middle}").mark_text(align="left", dx=8, dy=-6, color="$soft"),
        names.transform_filter(f"datum.reward > {middle}").mark_text(align="right", dx=-8, dy=-6, color="$soft"),
    ]
    if others:
        lines = alt.Chart(_data(others)).encode(y=y)
        layers = [
            lines.mark_rule(strokeDash=[5, 4], color="$best", strokeWidth=1.4).encode(tooltip=tips[::2]),
            lines.mark_text(align="left", dx=4, dy=-6, color="$best").encode(x=alt.value(0), text="name:N"),
            *layers,
        ]
    baselines = " Dashed: decoders that were trained beside them." if others else ""
    yield Chart(
        "trainings",
        f"{ranking.metric} against reward",
        f"The {ranking.metric} after full training beside the reward that the search went by; the more the points rise to the "
        f"right, the better the cheap reward predicts.{baselines}",
        _spec(alt.layer(*layers)),
    )


# ------------------------------------------------------------------------------------------------- diagnostics


def diagnostics(stage: Stage) -> list[Chart]:
    """A small chart for each diagnostic of the strategy."""
    found = []
    for number, (name, rows) in enumerate(series.diagnostics(stage.trials).items()):
        values = [{"trial": trial, "value": figures.brief(value)} for trial, value in rows]
        y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))
        chart = alt.Chart(_data(values)).mark_line(strokeWidth=1.6, color="$line", point=len(rows) < 60)
        shown = chart.encode(
            x=_trial_axis(), y=y, tooltip=[alt.Tooltip("trial:Q", format=",d"), alt.Tooltip("value:Q", format=".5g")]
        )  # fmt: skip
        if len(rows) < 60:
            shown.mark.point = alt.OverlayMarkDef(color="$line", size=24)
        found.append(Chart(f"diagnostic_{number}", figures.shortened(name, 60), "", _spec(shown, LOW)))
    return found
