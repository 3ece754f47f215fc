"""Charts of a search, as Vega-Lite specifications made with Altair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import altair as alt

from nasdsl.report import formatting
from nasdsl.report.charts import HEIGHT, Chart, as_series, color_scale, inline_data, moving_average, specification
from nasdsl.report.search import statistics
from nasdsl.report.search.data import Ranking, Stage
from nasdsl.report.search.front import front_charts
from nasdsl.report.search.objectives import objective_words
from nasdsl.report.themes import series_colours, series_shapes
from nasdsl.search.results import cost_of
from nasdsl.search.trial import DUPLICATE, Trial

MARGIN: Final = 18
"""Height of the strip below the values, for the marks of trials without a value."""
DIAGNOSTIC_HEIGHT: Final = 150

COSTS: Final[Mapping[str, tuple[str, str]]] = {
    "macs": ("MACs", "datum.value >= 1e9 ? format(datum.value / 1e9, '~g') + ' G' : format(datum.value / 1e6, '~g') + ' M'"),
    "params": ("Parameters", "format(datum.value / 1e6, '~g') + ' M'"),
    "macs_total": (
        "MACs with backbone",
        "datum.value >= 1e9 ? format(datum.value / 1e9, '~g') + ' G' : format(datum.value / 1e6, '~g') + ' M'",
    ),
    "params_total": ("Parameters with backbone", "format(datum.value / 1e6, '~g') + ' M'"),
    "latency": ("Latency", "format(datum.value * 1e3, '~g') + ' ms'"),
}
"""Title of each cost, and the expression of its axis labels."""


def charts(stage: Stage) -> list[Chart]:
    """All charts of the trials of a stage; those without data are left out."""
    return [*rewards(stage), *sharing(stage), *frequencies(stage), *importances(stage), *front_charts(stage), *costs(stage)]


def _trial_axis(name: str = "trial") -> alt.X:
    return alt.X(f"{name}:Q", title="trial", axis=alt.Axis(format=",d", tickMinStep=1), scale=alt.Scale(zero=True, nice=False))


def _scale(values: Sequence[float]) -> alt.Scale:
    """A vertical scale for values; outliers far below are clamped to its lower edge."""
    bound = statistics.outlier_bound(values)
    if bound is None:
        return alt.Scale(zero=False, nice=True)
    inside = min(value for value in values if value >= bound)
    return alt.Scale(domain=[formatting.round_digits(inside), formatting.round_digits(max(values))], clamp=True, nice=True)


# ------------------------------------------------------------------------------------------------------ reward


def rewards(stage: Stage) -> Iterator[Chart]:
    """The reward over time (Figure 2); if costs are part of the objective, the score as well."""
    yield from _over_time(stage, "reward")
    if stage.objective_costs:
        yield from _over_time(stage, "score")


def _over_time(stage: Stage, what: str) -> Iterator[Chart]:
    known = [(t, float(value)) for t in stage.trials if (value := getattr(t, what)) is not None]
    if not known:
        return
    values = [value for _, value in known]
    window = statistics.average_window(len(values))
    bound = statistics.outlier_bound(values)
    outliers = sum(value < bound for value in values) if bound is not None else 0
    edge = min(value for value in values if bound is None or value >= bound)
    # Clamped, because a single outlier would dominate the average.
    average, best = moving_average([max(value, edge) for value in values], window), statistics.best_so_far(values)
    rows = [
        {
            "trial": trial.number,
            "value": formatting.round_digits(value),
            "mean": formatting.round_digits(mean),
            "best": formatting.round_digits(top),
            "verdict": trial.verdict if trial.duplicate_of is None else f"duplicate of trial {trial.duplicate_of}",
        }
        for (trial, value), mean, top in zip(known, average, best, strict=True)
    ]
    scale = _scale(values)
    failed = statistics.trials_without_reward(stage.trials)
    if failed:
        scale.range = [HEIGHT - MARGIN, 0]
    names = ["each trial", f"mean of {window}", "best so far", *(["no reward"] if failed else [])]
    legend = color_scale(names, ["$dot", "$line", "$best", "$bad"][: len(names)])

    colour = alt.Color("series:N", scale=legend, legend=alt.Legend(symbolType="circle", symbolOpacity=1))

    base = alt.Chart(inline_data(rows)).encode(x=_trial_axis(), color=colour)
    tips = [
        alt.Tooltip("trial:Q", format=",d"),
        alt.Tooltip("value:Q", title=what, format=".5g"),
        alt.Tooltip("mean:Q", title=names[1], format=".5g"),
        alt.Tooltip("best:Q", title=names[2], format=".5g"),
        alt.Tooltip("verdict:N"),
    ]
    y = alt.Y("value:Q", title=what, scale=scale)
    layers: list[alt.Chart] = [
        as_series(base.mark_circle(size=22 if len(rows) < 600 else 12, opacity=0.55).encode(y=y, tooltip=tips), names[0]),
        as_series(base.mark_line(strokeWidth=1.6, interpolate="step-after").encode(y="best:Q"), names[2]),
        as_series(base.mark_line(strokeWidth=2.4).encode(y="mean:Q"), names[1]),
    ]
    if failed:
        missing = [{"trial": t.number, "verdict": t.verdict} for t in failed]
        ticks = alt.Chart(inline_data(missing)).mark_tick(orient="vertical", size=10, thickness=1.5, opacity=0.9)
        tips = [alt.Tooltip("trial:Q", format=",d"), alt.Tooltip("verdict:N")]
        layers.append(
            as_series(ticks.encode(x=_trial_axis(), y=alt.value(HEIGHT - 5), color=colour, tooltip=tips), names[3])
        )  # fmt: skip
    duplicates = " Duplicates have the reward of the decoder that they repeat." if stage.counts[DUPLICATE] else ""
    clamped = (
        f" {formatting.count(outliers, 'outlier')} far below the others {'is' if outliers == 1 else 'are'} drawn at the edge."
    )
    weighted = (
        f" The score is the reward weighted by {objective_words(stage.trials.start.get('objective'))}."
        if what == "score"
        else ""
    )
    yield Chart(
        what,
        "Reward" if what == "reward" else "Score",
        f"The {what} of each trial, and its moving average over {window} trials. If the strategy learns, the average rises, "
        f"not only the best.{weighted}{duplicates}{clamped if outliers else ''}",
        specification(alt.layer(*layers)),
    )


# ----------------------------------------------------------------------------------------------------- windows


def sharing(stage: Stage) -> Iterator[Chart]:
    """Proportion of heads that share all weights between the levels (Figure 5)."""
    if stage.space is None or not len(stage.trials):
        return
    found = statistics.fully_shared_heads(stage.trials, stage.space)
    slot = statistics.share_slot(stage.space)
    if slot is None:
        return
    probability = statistics.uniform_probability(slot, "0")
    rows = [_window(w) | {"whole": w.total == statistics.WINDOW} for w in found]
    base = alt.Chart(inline_data(rows)).encode(
        x=_trial_axis("last"),
        y=alt.Y("share:Q", title="fully shared", axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, 1])),
    )
    random = alt.Chart(inline_data([{"share": probability}])).mark_rule(strokeDash=[5, 4], color="$rule").encode(y="share:Q")
    dots = base.mark_point(size=60, filled=True, color="$line").encode(
        opacity=alt.condition("datum.whole", alt.value(1), alt.value(0.45)),
        tooltip=_window_tips("fully shared"),
    )
    part = found[-1].total
    tail = f" The last window (pale) has {formatting.count(part, 'trial')}." if part < statistics.WINDOW else ""
    yield Chart(
        "sharing",
        "Fully shared heads",
        f"Proportion of heads that share all weights between the levels, in windows of {statistics.WINDOW} trials. Dashed: "
        f"{formatting.percent(probability)}, as under uniform sampling. A rise means that the strategy prefers sharing.{tail}",
        specification(alt.layer(random, base.mark_line(strokeWidth=2, color="$line"), dots)),
    )


def frequencies(stage: Stage) -> Iterator[Chart]:
    """How often each operation and aggregation is sampled."""
    if stage.space is None or not len(stage.trials):
        return
    size = statistics.window_size(len(stage.trials))
    for number, choice in enumerate(statistics.choices(stage.space)):
        found = statistics.frequencies(stage.trials, stage.space, choice, size)
        rows = [{"choice": name, **_window(w)} for name, rows in found.items() for w in rows]
        if not rows:
            continue
        count = len(choice.alternatives)
        names = [formatting.truncate(name) for name in choice.alternatives]
        for row in rows:
            row["choice"] = formatting.truncate(row["choice"])
        top = min(1.0, 1.1 * max(row["share"] for row in rows))
        y = alt.Y("share:Q", title="sampled", axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, top], nice=True))
        base = alt.Chart(inline_data(rows)).encode(
            x=_trial_axis("last"),
            y=y,
            color=alt.Color("choice:N", scale=color_scale(names, series_colours(count))),
        )
        dots = base.mark_point(size=42, filled=True, opacity=1).encode(
            shape=alt.Shape("choice:N", scale=color_scale(names, series_shapes(count))),
            tooltip=[alt.Tooltip("choice:N", title="choice"), *_window_tips("share")],
        )
        holes = formatting.count(len(choice.domains), "hole")
        yield Chart(
            f"choice_{number}",
            f"Choices of {formatting.truncate(choice.name, 60)}",
            f"How often each alternative was sampled for {holes}, in windows of {size} trials. Under uniform sampling each has "
            f"{formatting.percent(1 / count)}; the strategy prefers those that rise above it.",
            specification(alt.layer(base.mark_line(strokeWidth=1.8), dots).resolve_legend(shape="shared")),
        )


def _window(window: statistics.Window) -> dict[str, Any]:
    trials = f"{window.first:,} to {window.last:,}"
    return {
        "last": window.last,
        "trials": trials,
        "share": round(window.share, 4),
        "n": f"{window.matching:,} of {window.total:,}",
    }


def _window_tips(title: str) -> list[alt.Tooltip]:
    return [alt.Tooltip("trials:N"), alt.Tooltip("share:Q", title=title, format=".1%"), alt.Tooltip("n:N", title="count")]


# -------------------------------------------------------------------------------------------------- importance


def importances(stage: Stage) -> Iterator[Chart]:
    """How much of the differences between rewards goes with each choice, of a search that decides on the detector."""
    if stage.space is None or not any(domain.role for domain in stage.space.domains):
        return
    found = statistics.importances(stage.trials.ok, stage.space)
    if not found:
        return
    rows = [
        {
            "choice": formatting.truncate(one.name, 40) + (f" (mean of {one.decisions})" if one.decisions > 1 else ""),
            "share": round(one.share, 4),
        }
        for one in found
    ]
    order = [str(row["choice"]) for row in rows]
    bars = alt.Chart(inline_data(rows)).encode(
        y=alt.Y("choice:N", title=None, sort=order),
        x=alt.X("share:Q", title="share of the variance of rewards", axis=alt.Axis(format="%"), scale=alt.Scale(zero=True)),
        tooltip=[alt.Tooltip("choice:N"), alt.Tooltip("share:Q", format=".1%")],
    )
    yield Chart(
        "importance",
        "Importance of the decisions",
        "The share of the differences between rewards that goes with what was chosen (eta squared: the variance between the "
        "means of the alternatives over that of all rewards). A strategy that tries good alternatives more often makes shares "
        "smaller than uniform sampling would.",
        specification(alt.layer(bars.mark_bar(color="$line")), max(60, 26 * len(rows))),
    )


# ------------------------------------------------------------------------------------------------------- costs


def costs(stage: Stage) -> Iterator[Chart]:
    """Reward against MACs and the other costs of the objective, with the Pareto front.

    Where trials differ in backbone or size, the MACs are those of the whole detector.
    """
    if stage.trials.aims:
        return  # the front of the aims has its own charts
    first = "macs_total" if stage.searches_detectors else "macs"
    for cost in (first, *(cost for cost in stage.objective_costs if cost != first)):
        known = [(trial, value) for trial in stage.trials.ok if (value := cost_of(trial, cost)) is not None]
        if known:
            yield _against(stage, cost, known)


def _against(stage: Stage, cost: str, known: Sequence[tuple[Trial, float]]) -> Chart:
    title, label = COSTS[cost]
    word = title if title[:4] == "MACs" else title.lower()
    as_text = formatting.latency if cost == "latency" else formatting.amount

    def row(trial: Trial) -> dict[str, Any]:
        assert trial.reward is not None
        value = cost_of(trial, cost)
        shown = {"trial": trial.number, "cost": value, "reward": formatting.round_digits(trial.reward), "words": as_text(value)}
        return (
            shown
            if trial.score == trial.reward or trial.score is None
            else shown | {"score": formatting.round_digits(trial.score)}
        )

    front = stage.trials.front(cost)
    best = stage.trials.best
    assert best is not None
    values = [float(trial.reward) for trial, _ in known if trial.reward is not None]
    scale = _scale(values)
    names = ["each trial", "Pareto front", "best score" if stage.objective_costs else "best reward"]
    legend = color_scale(names, ["$dot", "$line", "$best"])

    colour = alt.Color("series:N", scale=legend, legend=alt.Legend(symbolType="circle", symbolOpacity=1))

    tips = [
        alt.Tooltip("trial:Q", format=",d"),
        alt.Tooltip("reward:Q", format=".5g"),
        *([alt.Tooltip("score:Q", format=".5g")] if stage.objective_costs else []),
        alt.Tooltip("words:N", title=title),
    ]
    encoded = {
        "x": alt.X("cost:Q", title=title, scale=alt.Scale(zero=False, padding=8), axis=alt.Axis(labelExpr=label)),
        "y": alt.Y("reward:Q", title="reward", scale=scale),
        "tooltip": tips,
        "color": colour,
    }
    small = 22 if len(known) < 600 else 12
    trials = alt.Chart(inline_data([row(trial) for trial, _ in known])).mark_circle(size=small, opacity=0.55)
    line = alt.Chart(inline_data([row(trial) for trial in front])).mark_line(
        interpolate="step-after", strokeWidth=1.8, point=alt.OverlayMarkDef(size=44, filled=True)
    )
    star = alt.Chart(inline_data([row(best)])).mark_point(shape="diamond", size=150, filled=True, opacity=1)
    return Chart(
        f"reward_{cost}",
        f"Reward against {word}",
        f"All evaluated decoders. None is better than those of the Pareto front in both reward and {word} (better is up and "
        "left). Where the front is flat, a higher cost gains little.",
        specification(
            alt.layer(
                as_series(trials.encode(**encoded), names[0]),
                as_series(line.encode(**encoded), names[1]),
                as_series(star.encode(**encoded), names[2]),
            )
        ),
    )


# --------------------------------------------------------------------------------------------- full trainings


def trainings(ranking: Ranking | None) -> Iterator[Chart]:
    """AP after full training against the reward in the search (Figure 6)."""
    if ranking is None or not ranking.pairs:
        return
    trained = [
        {"name": e.name, "reward": formatting.round_digits(e.reward), "ap": round(100 * e.ap, 3)}
        for e in ranking.entries
        if e.trial is not None and e.reward is not None and e.ap is not None
    ]
    others = [{"name": e.name, "ap": round(100 * e.ap, 3)} for e in ranking.entries if e.trial is None and e.ap is not None]
    found = [reward for reward, _ in ranking.pairs]
    middle = (min(found) + max(found)) / 2
    y = alt.Y("ap:Q", title=ranking.metric, scale=alt.Scale(zero=False, nice=True))
    x = alt.X("reward:Q", title="reward in the search", scale=alt.Scale(zero=False, padding=24))
    tips = [alt.Tooltip("name:N"), alt.Tooltip("reward:Q", format=".5g"), alt.Tooltip("ap:Q", title="AP", format=".1f")]
    base = alt.Chart(inline_data(trained)).encode(x=x, y=y)
    names = base.encode(text="name:N")
    layers: list[alt.Chart] = [
        base.mark_point(size=70, filled=True, opacity=0.9, color="$line").encode(tooltip=tips),
        # On the side with more space, so that no name is cut off.
        names.transform_filter(f"datum.reward <= {middle}").mark_text(align="left", dx=8, dy=-6, color="$soft"),
        names.transform_filter(f"datum.reward > {middle}").mark_text(align="right", dx=-8, dy=-6, color="$soft"),
    ]
    if others:
        lines = alt.Chart(inline_data(others)).encode(y=y)
        layers = [
            lines.mark_rule(strokeDash=[5, 4], color="$best", strokeWidth=1.4).encode(tooltip=tips[::2]),
            lines.mark_text(align="left", dx=4, dy=-6, color="$best").encode(x=alt.value(0), text="name:N"),
            *layers,
        ]
    baselines = " Dashed: baselines trained with the same recipe." if others else ""
    yield Chart(
        "trainings",
        f"{ranking.metric} against reward",
        f"{ranking.metric} after full training against the reward in the search. The more the points rise to the right, the "
        f"better the reward predicts {ranking.metric}.{baselines}",
        specification(alt.layer(*layers)),
    )


# ------------------------------------------------------------------------------------------------- diagnostics


def diagnostics(stage: Stage) -> list[Chart]:
    """One small chart for each diagnostic of the strategy."""
    found = []
    for number, (name, rows) in enumerate(statistics.diagnostics(stage.trials).items()):
        values = [{"trial": trial, "value": formatting.round_digits(value)} for trial, value in rows]
        y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=4))
        chart = alt.Chart(inline_data(values)).mark_line(strokeWidth=1.6, color="$line", point=len(rows) < 60)
        shown = chart.encode(
            x=_trial_axis(), y=y, tooltip=[alt.Tooltip("trial:Q", format=",d"), alt.Tooltip("value:Q", format=".5g")]
        )  # fmt: skip
        if len(rows) < 60:
            shown.mark.point = alt.OverlayMarkDef(color="$line", size=24)
        found.append(Chart(f"diagnostic_{number}", formatting.truncate(name, 60), "", specification(shown, DIAGNOSTIC_HEIGHT)))
    return found
