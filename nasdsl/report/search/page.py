"""The report of a search as one self-contained HTML file."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from nasdsl.diagnostics import DiagnosticError
from nasdsl.report import formatting
from nasdsl.report.charts import moving_average
from nasdsl.report.html import chart_values, render_page
from nasdsl.report.search import statistics
from nasdsl.report.search.charts import charts, diagnostics, trainings
from nasdsl.report.search.data import RankedDecoder, Search, Stage
from nasdsl.report.search.diagrams import Diagram, draw_diagrams
from nasdsl.report.search.run_info import run_info
from nasdsl.search.detectors import described
from nasdsl.search.results import cost_of
from nasdsl.search.trial import DIVERGED, DUPLICATE, FAILED, OK, REJECTED, Trial
from nasdsl.syntax.formatter import format_text

TOP: Final = 10
REASONS: Final = 20
"""Largest number of failure reasons to list."""
RECENT: Final = 50
"""Number of latest rewards for the mean in the overview."""


COLUMNS: Final = {
    "macs": "MACs", "params": "params", "latency": "latency", "macs_total": "MACs with backbone",
    "params_total": "params with backbone",
}  # fmt: skip
"""Headings of the columns of costs."""


def page(search: Search, top: int = TOP, now: float | None = None) -> str:
    """The report of a search as HTML.

    Args:
        search: from `read_search`.
        top: number of decoders of each stage to list and draw.
        now: Unix time of the report; None: the current time.
    """
    stages = [_stage(stage, top) for stage in search.stages]
    return render_page(
        "search.html.jinja",
        has_charts=any(s["charts"] or s["diagnostics"] or s["ranking"] for s in stages),
        now=now,
        title=_title(search),
        summary=list(_summary(search)),
        running=any(stage.started and not stage.finished for stage in search.stages),
        stages=stages,
        best=_best(search),
    )


def _title(search: Search) -> str:
    names = [str(stage.trials.start.get("name") or "") for stage in search.stages]
    return names[0] if len(names) == 1 and names[0] else search.folder.resolve().name


def _summary(search: Search) -> Iterator[str]:
    if len(search.stages) > 1:
        yield f"progressive search: {', then '.join(stage.name for stage in search.stages)}"
    yield formatting.count(sum(len(stage.trials) for stage in search.stages), "trial")
    seconds = sum(stage.seconds for stage in search.stages)
    if seconds:
        yield f"{formatting.duration(seconds)} of searching"
    trained = {
        entry.folder or (stage.name, entry.name)
        for stage in search.stages
        for entry in (stage.ranking.entries if stage.ranking else ())
        if entry.ap is not None
    }
    if trained:
        yield formatting.count(len(trained), "full training")


def _best(search: Search) -> dict[str, Any] | None:
    if search.best is None:
        return None
    text = formatted(search.best)
    data = base64.b64encode(text.encode()).decode()
    return {"text": text, "file": search.best_file, "link": Markup(f"data:text/plain;charset=utf-8;base64,{data}")}


def formatted(text: str) -> str:
    """A decoder's text as `nasdsl fmt` formats it; unchanged if it cannot be parsed."""
    try:
        return format_text(text).strip() + "\n"
    except DiagnosticError:
        return text.strip() + "\n"


# ----------------------------------------------------------------------------------------------------- a stage


def _stage(stage: Stage, top: int) -> dict[str, Any]:
    return {
        "name": stage.name,
        "id": stage.name or "search",
        "started": stage.started,
        "state": _state(stage),
        "tiles": list(_tiles(stage)),
        "charts": [chart_values(chart, stage.name) for chart in charts(stage)],
        "notes": list(_notes(stage)),
        "top": _top(stage, top),
        "reasons": _reasons(stage),
        "ranking": _ranking(stage),
        "diagnostics": [chart_values(chart, stage.name) for chart in diagnostics(stage)],
        "run_info": run_info(stage),
    }


def _state(stage: Stage) -> str:
    if not stage.started:
        return "This stage has not started."
    done = f"{len(stage.trials):,}"
    if stage.finished:
        state = f"Finished after {formatting.count(len(stage.trials), 'trial')}"
    else:
        state = f"Not finished: {done}{'' if stage.requested is None else f' of {stage.requested:,}'} trials done"
    if stage.pending:
        state += f", {formatting.count(stage.pending, 'evaluation')} running or interrupted"
    return f"{state}. Last update {formatting.timestamp(stage.last)}."


def _tiles(stage: Stage) -> Iterator[tuple[str, str, str]]:
    """(label, value, note) of each tile of the overview."""
    counts, trials = stage.counts, stage.trials
    best = trials.best
    rewards = [trial.reward for trial in trials if trial.reward is not None]
    if best is not None:
        if trials.aims:
            yield "front", f"{len(trials.front()):,}", "decoders that none is better than"
            highest = max(trials.ok, key=lambda trial: trial.reward if trial.reward is not None else -math.inf)
            yield "best reward", formatting.reward(highest.reward), f"trial {highest.number:,}"
        else:
            yield "best reward", formatting.reward(best.reward), f"trial {best.number:,}"
        if stage.objective_costs:
            yield "its score", formatting.reward(best.score), "weighted by cost"
        mean = moving_average(rewards, RECENT)[-1]
        yield "recent mean", formatting.reward(mean), f"reward, last {min(RECENT, len(rewards))}"
    yield "completed", f"{counts[OK]:,}", f"of {formatting.count(len(trials), 'trial')}"
    for kind, label, note in (
        (DUPLICATE, "duplicates", "result already known"),
        (REJECTED, "rejected", "not evaluated"),
        ("stopped", "stopped early", "by the stopping rule"),
        (DIVERGED, "diverged", "reward not finite"),
        (FAILED, "failed", "see reasons below"),
    ):
        if counts[kind]:
            yield label, f"{counts[kind]:,}", note
    if stage.seconds > 0 and len(trials) > 1:
        yield "trials an hour", f"{3600 * len(trials) / stage.seconds:,.0f}", f"in {formatting.duration(stage.seconds)}"


def _notes(stage: Stage) -> Iterator[str]:
    """Notes about what the report cannot show."""
    if not stage.started:
        return
    if not stage.trials:
        yield "No trial is finished yet; make the report again later."
    elif not any(trial.reward is not None for trial in stage.trials):
        yield "No trial has a reward, so there are no charts of rewards and no best decoder. The reasons are below."
    elif not any("macs" in trial.figures for trial in stage.trials.ok):
        yield "The costs of the decoders were not counted in this search, so there is no chart of reward against MACs."
    if stage.space is None:
        yield f"The text of the space cannot be read, so there are no charts of its choices: {stage.space_error}"


# ------------------------------------------------------------------------------------------------------ tables


def _top(stage: Stage, top: int) -> dict[str, Any] | None:
    found = stage.trials.top(top)
    if not found:
        return None
    drawn = draw_diagrams([str(trial.text) for trial in found], f"{stage.name or 'search'}-", stage.trials.start)
    trained = stage.full_trainings
    detectors = described([str(trial.text) for trial in found])
    columns = ["reward", *(["score"] if stage.objective_costs else []), *detectors]
    counted = ["macs", "params", "latency"]
    if stage.searches_detectors:  # fpn and head alone do not compare
        counted = ["macs", "macs_total", "params_total", "latency"]
    known = {cost for cost in counted for trial in found if cost_of(trial, cost) is not None}
    columns += [COLUMNS[cost] for cost in counted if cost in known]
    columns += ["evaluation", *(["AP"] if any(trial.number in trained for trial in found) else [])]
    rows = [
        {
            "place": place,
            "trial": trial,
            "id": f"{stage.name or 'search'}-trial-{trial.number}",
            "cells": [
                detectors[column][place - 1] if column in detectors else _cell(column, trial, trained.get(trial.number))
                for column in columns
            ],
            "drawn": picture,
            "text": formatted(str(trial.text)),
        }
        for place, (trial, picture) in enumerate(zip(found, drawn, strict=True), 1)
    ]
    return {"columns": columns, "rows": rows, "problem": _common_problem(drawn)}


def _common_problem(drawn: list[Diagram]) -> str:
    """The problem that all diagrams have in common, such as a missing Graphviz; empty if there is none."""
    problems = {picture.problem for picture in drawn}
    return problems.pop() if len(problems) == 1 else ""


def _cell(column: str, trial: Trial, trained: RankedDecoder | None) -> str:
    match column:
        case "reward":
            return formatting.reward(trial.reward)
        case "score":
            return formatting.reward(trial.score)
        case "MACs" | "params" | "MACs with backbone" | "params with backbone":
            name = next(cost for cost, shown in COLUMNS.items() if shown == column)
            return formatting.amount(cost_of(trial, name))
        case "latency":
            return formatting.latency(cost_of(trial, column))
        case "AP":
            return formatting.MISSING if trained is None else formatting.points(trained.ap)
        case _:
            return formatting.duration(trial.seconds)


def _reasons(stage: Stage) -> dict[str, Any] | None:
    found = statistics.failure_reasons(stage.trials)
    duplicates = stage.counts[DUPLICATE]
    if not found and not duplicates:
        return None
    rows = [
        {"kind": r.kind, "words": r.words or formatting.MISSING, "count": f"{len(r.trials):,}", "trials": _numbers(r.trials)}
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
    detectors = described([entry.text for entry in ranking.entries]) if all(e.text for e in ranking.entries) else {}
    return {
        "columns": [
            *detectors,
            *(("MACs with backbone", "params with backbone") if _is_whole(detectors) else ("MACs", "params")),
        ],
        "metric": ranking.metric,
        "charts": [chart_values(chart, stage.name) for chart in trainings(ranking)],
        "where": ", ".join(
            filter(
                None,
                [
                    ranking.split,
                    "each at its own size"
                    if "size" in detectors
                    else f"{ranking.size[0]} x {ranking.size[1]} pixels"
                    if ranking.size
                    else "",
                ],
            )
        ),
        "tau": _correlation(ranking.metric, pairs),
        "rows": [_trained(place, entry, detectors) for place, entry in enumerate(ranking.entries, 1)],
    }


def _correlation(metric: str, pairs: list[tuple[float, float]]) -> str:
    tau = statistics.kendall_tau(pairs)
    if tau is None:
        trials = formatting.count(len(pairs), "trial")
        return f"Rank correlation of reward and {metric}: not defined yet ({trials} with both)."
    return (
        f"Rank correlation of reward and {metric}: Kendall's tau {formatting.signed(f'{tau:.2f}')} over {len(pairs)} trials "
        f"(1: same order, 0: unrelated){', which is uncertain with so few' if len(pairs) < 10 else ''}."
    )


def _is_whole(detectors: Mapping[str, object]) -> bool:
    """Whether decoders differ in size or backbone, so that only costs of the whole detector compare."""
    return not detectors.keys().isdisjoint(("size", "backbone"))


def _trained(place: int, entry: RankedDecoder, detectors: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    macs, params = (entry.macs_total, entry.params_total) if _is_whole(detectors) else (entry.macs, entry.params)
    ok = entry.verdict == OK
    return {
        "name": entry.name,
        "baseline": entry.trial is None,
        "note": "" if ok else entry.verdict if ":" in entry.verdict or not entry.error else f"{entry.verdict}: {entry.error}",
        "bad": not ok and entry.verdict != "waiting",
        "cells": [
            f"{place}" if ok else formatting.MISSING,
            formatting.points(entry.ap),
            formatting.points(entry.ap50),
            formatting.reward(entry.reward),
            formatting.MISSING if entry.proxy_rank is None else f"{entry.proxy_rank}",
            *(values[place - 1] for values in detectors.values()),
            formatting.amount(macs),
            formatting.amount(params),
            formatting.duration(entry.seconds),
        ],
    }
