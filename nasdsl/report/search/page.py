"""The page: everything that a report says, in one HTML file that loads nothing."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any, Final

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from nasdsl.diagnostics import DiagnosticError
from nasdsl.report.search import figures, series
from nasdsl.report.search.charts import Chart, charts, diagnostics, trainings
from nasdsl.report.search.data import Ranked, Search, Stage
from nasdsl.report.search.diagrams import Drawn, draw_all
from nasdsl.report.search.facts import facts
from nasdsl.report.search.files import VEGA_LITE
from nasdsl.report.search.themes import PALETTES, coloured, config
from nasdsl.search.results import cost_of
from nasdsl.search.trial import DIVERGED, DUPLICATE, FAILED, OK, REJECTED, Trial
from nasdsl.syntax.formatter import format_text

TOP: Final = 10
LIBRARY: Final = "window.vegaEmbed = vegaEmbed;"
"""What the page takes out of the charts' library."""
REASONS: Final = 20
"""Reasons that are listed; a search with more has most likely one cause that prints itself in many ways."""
RECENT: Final = 50
"""Trials that the mean in the overview is taken over, as in the progress of a running search."""


def page(search: Search, top: int = TOP, now: float | None = None) -> str:
    """The report of a search as HTML.

    Args:
        top: decoders that are listed and drawn, of each stage.
        now: Unix time that the page says it was made at; None for the clock's.
    """
    environment = Environment(
        loader=PackageLoader("nasdsl.report.search", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Keys keep their order: that of the legend and of tooltips.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":"), "ensure_ascii": False}
    stages = [_stage(stage, top) for stage in search.stages]
    return environment.get_template("search.html.jinja").render(
        title=_title(search),
        summary=list(_summary(search)),
        made=figures.moment(time.time() if now is None else now),
        running=any(stage.begun and not stage.done for stage in search.stages),
        stages=stages,
        best=_best(search),
        library=Markup(_library()) if any(s["charts"] or s["diagnostics"] or s["ranking"] for s in stages) else "",
        themes={name: {"config": coloured(config(), name), "palette": palette} for name, palette in PALETTES.items()},
    )


def _library() -> str:
    """Vega, Vega-Lite and their embedding, as one script."""
    return vl_convert.javascript_bundle(LIBRARY, vl_version=VEGA_LITE).replace("</script", "<\\/script")


def _title(search: Search) -> str:
    names = [str(stage.trials.start.get("name") or "") for stage in search.stages]
    return names[0] if len(names) == 1 and names[0] else search.folder.resolve().name


def _summary(search: Search) -> Iterator[str]:
    if len(search.stages) > 1:
        yield f"progressive search: {', then '.join(stage.name for stage in search.stages)}"
    yield figures.count(sum(len(stage.trials) for stage in search.stages), "trial")
    seconds = sum(stage.seconds for stage in search.stages)
    if seconds:
        yield f"{figures.duration(seconds)} of searching"
    trained = [e for stage in search.stages if stage.ranking for e in stage.ranking.entries if e.ap is not None]
    if trained:
        yield figures.count(len(trained), "full training")


def _best(search: Search) -> dict[str, Any] | None:
    if search.best is None:
        return None
    text = pretty(search.best)
    data = base64.b64encode(text.encode()).decode()
    return {"text": text, "file": search.best_file, "link": Markup(f"data:text/plain;charset=utf-8;base64,{data}")}


def pretty(text: str) -> str:
    """A decoder's text in the layout of `nasdsl fmt`; as it is where it cannot be read."""
    try:
        return format_text(text).strip() + "\n"
    except DiagnosticError:
        return text.strip() + "\n"


# ----------------------------------------------------------------------------------------------------- a stage


def _stage(stage: Stage, top: int) -> dict[str, Any]:
    return {
        "name": stage.name,
        "id": stage.name or "search",
        "begun": stage.begun,
        "state": _state(stage),
        "tiles": list(_tiles(stage)),
        "charts": [_chart(stage, chart) for chart in charts(stage)],
        "notes": list(_notes(stage)),
        "top": _top(stage, top),
        "reasons": _reasons(stage),
        "ranking": _ranking(stage),
        "diagnostics": [_chart(stage, chart) for chart in diagnostics(stage)],
        "facts": facts(stage),
    }


def _chart(stage: Stage, chart: Chart) -> dict[str, Any]:
    return {
        "id": f"{stage.name}-{chart.name}" if stage.name else chart.name,
        "title": chart.title,
        "says": chart.says,
        "spec": chart.spec,
        "height": chart.spec["height"],
    }


def _state(stage: Stage) -> str:
    if not stage.begun:
        return "This stage has not begun."
    done = f"{len(stage.trials):,}"
    if stage.done:
        words = f"Finished after {figures.count(len(stage.trials), 'trial')}"
    else:
        words = f"Not finished: {done}{'' if stage.planned is None else f' of {stage.planned:,}'} trials have a verdict"
    if stage.waiting:
        words += f", {figures.count(stage.waiting, 'evaluation')} under way, or cut off"
    return f"{words}. Last record {figures.moment(stage.last)}."


def _tiles(stage: Stage) -> Iterator[tuple[str, str, str]]:
    """(words, figure, small print) of the overview."""
    counts, trials = stage.counts, stage.trials
    best = trials.best
    rewards = [trial.reward for trial in trials if trial.reward is not None]
    if best is not None:
        yield "best reward", figures.reward(best.reward), f"trial {best.number:,}"
        if stage.weighs:
            yield "its score", figures.reward(best.score), "weighed by cost"
        mean = series.moving_average(rewards, RECENT)[-1]
        yield "recent mean", figures.reward(mean), f"reward, last {min(RECENT, len(rewards))}"
    yield "evaluated", f"{counts[OK]:,}", f"of {figures.count(len(trials), 'trial')}"
    for kind, words, small in (
        (DUPLICATE, "duplicates", "answered from the journal"),
        (REJECTED, "rejected", "cost no evaluation"),
        ("stopped", "stopped early", "given up as hopeless"),
        (DIVERGED, "diverged", "reward not finite"),
        (FAILED, "failed", "see the reasons"),
    ):
        if counts[kind]:
            yield words, f"{counts[kind]:,}", small
    if stage.seconds > 0 and len(trials) > 1:
        yield "trials an hour", f"{3600 * len(trials) / stage.seconds:,.0f}", f"in {figures.duration(stage.seconds)}"


def _notes(stage: Stage) -> Iterator[str]:
    """What a reader would look for in vain."""
    if not stage.begun:
        return
    if not stage.trials:
        yield "No trial has a verdict yet; make the report again when there are some."
    elif not any(trial.reward is not None for trial in stage.trials):
        yield "No trial has a reward, so there is nothing to draw over time, and no best decoder. The reasons are below."
    elif not any("macs" in trial.figures for trial in stage.trials.ok):
        yield "The costs of the decoders were not counted in this search, so there is no front of reward against MACs."
    if stage.space is None:
        yield f"The text of the space cannot be read here, so there are no charts of its choices: {stage.unread}"


# ------------------------------------------------------------------------------------------------------ tables


def _top(stage: Stage, top: int) -> dict[str, Any] | None:
    found = stage.trials.top(top)
    if not found:
        return None
    drawn = draw_all([str(trial.text) for trial in found], f"{stage.name or 'search'}-", stage.trials.start)
    trained = stage.trained
    columns = ["reward", *(["score"] if stage.weighs else [])]
    known = {cost for cost in ("macs", "params", "latency") for trial in found if cost_of(trial, cost) is not None}
    columns += [{"macs": "MACs"}.get(cost, cost) for cost in ("macs", "params", "latency") if cost in known]
    columns += ["evaluation", *(["AP"] if any(trial.number in trained for trial in found) else [])]
    rows = [
        {
            "place": place,
            "trial": trial,
            "id": f"{stage.name or 'search'}-trial-{trial.number}",
            "cells": [_cell(column, trial, trained.get(trial.number)) for column in columns],
            "drawn": picture,
            "text": pretty(str(trial.text)),
        }
        for place, (trial, picture) in enumerate(zip(found, drawn, strict=True), 1)
    ]
    return {"columns": columns, "rows": rows, "problem": _common_problem(drawn)}


def _common_problem(drawn: list[Drawn]) -> str:
    """A problem that all diagrams have, such as a missing Graphviz, is told once."""
    problems = {picture.problem for picture in drawn}
    return problems.pop() if len(problems) == 1 else ""


def _cell(column: str, trial: Trial, trained: Ranked | None) -> str:
    match column:
        case "reward":
            return figures.reward(trial.reward)
        case "score":
            return figures.reward(trial.score)
        case "MACs" | "params":
            return figures.amount(cost_of(trial, column.lower()))
        case "latency":
            return figures.latency(cost_of(trial, column))
        case "AP":
            return figures.MISSING if trained is None else figures.points(trained.ap)
        case _:
            return figures.duration(trial.seconds)


def _reasons(stage: Stage) -> dict[str, Any] | None:
    found = series.reasons(stage.trials)
    duplicates = stage.counts[DUPLICATE]
    if not found and not duplicates:
        return None
    rows = [
        {"kind": r.kind, "words": r.words or figures.MISSING, "count": f"{len(r.trials):,}", "trials": _numbers(r.trials)}
        for r in found[:REASONS]
    ]
    return {"rows": rows, "more": len(found) - len(rows), "duplicates": duplicates, "trials": len(stage.trials)}


def _numbers(trials: tuple[int, ...], most: int = 5) -> str:
    shown = ", ".join(f"{number:,}" for number in trials[:most])
    return f"{shown}, …" if len(trials) > most else shown


def _ranking(stage: Stage) -> dict[str, Any] | None:
    ranking = stage.ranking
    if ranking is None or not ranking.entries:
        return None
    pairs = ranking.pairs
    return {
        "metric": ranking.metric,
        "charts": [_chart(stage, chart) for chart in trainings(ranking)],
        "where": ", ".join(
            filter(None, [ranking.split, f"{ranking.size[0]} x {ranking.size[1]} pixels" if ranking.size else ""])
        ),
        "tau": _correlation(ranking.metric, pairs),
        "rows": [_trained(place, entry) for place, entry in enumerate(ranking.entries, 1)],
    }


def _correlation(metric: str, pairs: list[tuple[float, float]]) -> str:
    tau = series.kendall_tau(pairs)
    if tau is None:
        few = "nothing can be said yet of how well the reward predicts it"
        return f"{figures.count(len(pairs), 'trial')} with both a reward and an {metric}: {few}."
    return (
        f"Rank correlation of reward and {metric}: Kendall's tau {figures.signed(f'{tau:.2f}')} over {len(pairs)} trials "
        f"(1 is the same order, 0 none){'; so few say little' if len(pairs) < 10 else ''}."
    )


def _trained(place: int, entry: Ranked) -> dict[str, Any]:
    fine = entry.verdict == OK
    return {
        "name": entry.name,
        "baseline": entry.trial is None,
        "note": "" if fine else entry.verdict if ":" in entry.verdict or not entry.error else f"{entry.verdict}: {entry.error}",
        "bad": not fine and entry.verdict != "waiting",
        "cells": [
            f"{place}" if fine else figures.MISSING,
            figures.points(entry.ap),
            figures.points(entry.ap50),
            figures.reward(entry.reward),
            figures.MISSING if entry.proxy_rank is None else f"{entry.proxy_rank}",
            figures.amount(entry.macs),
            figures.amount(entry.params),
            figures.duration(entry.seconds),
        ],
    }
