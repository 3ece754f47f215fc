"""Output of `nasdsl search`: the best trials as tables or JSON, and a summary."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace
from typing import Any

import click

from nasdsl.cli.output import echo_err, pluralize
from nasdsl.report.tables import console, humanise
from nasdsl.search.detectors import described, detector_key
from nasdsl.search.progressive import SearchResult
from nasdsl.search.results import aim_of
from nasdsl.search.stages import StageResult
from nasdsl.search.trial import Trial
from nasdsl.training.proxy.spec import ProxySpec

TABLE_ROWS = 10
"""Number of trials in the table of a stage."""


def print_outcome(outcome: SearchResult, options: SimpleNamespace, proxy: ProxySpec, format_: str) -> None:
    """Print the best trials to standard output and a summary to standard error."""
    if format_ == "json":
        click.echo(json.dumps(as_json(outcome), indent=1, ensure_ascii=False))
    else:
        for stage in outcome.stages:
            _print_stage(stage)
    _print_summary(outcome, options, proxy)


def as_json(outcome: SearchResult) -> dict[str, Any]:
    """JSON of ``--format json``: the best decoder, number of trials by verdict, and the best trials of each stage."""
    best = outcome.best
    counts: dict[str, int] = {}
    for stage in outcome.stages:
        for verdict, number in stage.trials.counts.items():
            counts[verdict] = counts.get(verdict, 0) + number
    return {
        "folder": str(outcome.folder),
        "best": None if best is None or best.best is None else {"stage": best.name, **_best_trial(best, best.best)},
        "counts": counts,
        "stages": [_stage(stage) for stage in outcome.stages],
    }


def _best_trial(stage: StageResult, trial: Trial) -> dict[str, Any]:
    trained = stage.trained
    return {**_trial(trial), "text": str(trial.text), "ap": None if trained is None else trained.ap}


def _stage(stage: StageResult) -> dict[str, Any]:
    best = stage.best
    return {
        "name": stage.name,
        "folder": str(stage.folder),
        "trials": len(stage.trials),
        "counts": stage.trials.counts,
        "best": None if best is None else _best_trial(stage, best),
        "front": {cost: [trial.number for trial in found] for cost, found in _fronts(stage).items()},
        "top": [_trial(trial) for trial in stage.trials.top(TABLE_ROWS)],
        "ranking": None if stage.ranking is None else [
            {"name": e.name, "trial": e.trial, "verdict": e.verdict, "ap": e.ap, "ap50": e.ap50} for e in stage.ranking.entries
        ],
    }  # fmt: skip


def _fronts(stage: StageResult) -> dict[str, list[Trial]]:
    """The front against each cost; with several aims also theirs, first."""
    aims = stage.trials.aims
    return ({",".join(("reward", *aims)): stage.trials.front()} if aims else {}) | stage.trials.fronts()


def _trial(trial: Trial) -> dict[str, Any]:
    known = {"trial": trial.number, "reward": trial.reward, "score": trial.score, "digest": trial.digest}
    return {**known, **trial.figures}


def _print_stage(stage: StageResult) -> None:
    """Print the best trials of a stage, and the ranking of the fully trained ones."""
    from rich.table import Table

    out = console()
    if stage.name:
        out.print(f"[bold]stage {stage.name}[/bold]")
    table = Table(box=None, pad_edge=False, header_style="bold")
    trials = stage.trials
    top = trials.top(TABLE_ROWS)
    weighted = any(trial.score != trial.reward for trial in top)
    detectors = described([str(trial.text) for trial in top])
    figures = {"MACs": "macs", "params": "params"}
    if trials.aims:
        figures = {"MACs with backbone": "macs_total", "params with backbone": "params_total"}
    elif detectors.keys() & {"size", "backbone"}:  # fpn and head alone do not compare
        figures = {"MACs": "macs", "MACs with backbone": "macs_total", "params with backbone": "params_total"}
    predicted = any("latency_total" in trial.figures for trial in top)
    measured = {"ms": "latency"} if predicted or "latency" in trials.aims else {}
    for name in ("rank", "trial", "reward", *(["score"] if weighted else []), *detectors, *figures, *measured, "digest"):
        table.add_column(name, justify="left" if name == "digest" else "right", no_wrap=True)
    for rank, trial in enumerate(top, 1):
        rewards = [f"{trial.reward:.4f}", *([f"{trial.score:.4f}"] if weighted else [])]
        own = [values[rank - 1] for values in detectors.values()]
        costs = [humanise(int(trial.figures[name])) if name in trial.figures else "" for name in figures.values()]
        costs += [f"{1000 * seconds:.2f}" for aim in measured.values() if (seconds := aim_of(trial, aim)) is not None]
        table.add_row(str(rank), str(trial.number), *rewards, *own, *costs, (trial.digest or "")[:12])
    if table.row_count:
        out.print(table)
    if stage.ranking is not None:
        _print_ranking(stage)


def _print_ranking(stage: StageResult) -> None:
    from rich.table import Table

    out = console()
    assert stage.ranking is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    entries = stage.ranking.entries
    detectors = described([entry.text for entry in entries])
    macs = ("MACs with backbone", "params with backbone") if detectors.keys() & {"size", "backbone"} else ("MACs", "params")
    for name in ("fully trained", "proxy rank", "AP", "AP50", *detectors, *macs, "minutes"):
        table.add_column(name, justify="left" if name == "fully trained" else "right", no_wrap=True)
    for number, entry in enumerate(entries):
        own = [values[number] for values in detectors.values()]
        figures = [f"{100 * value:.1f}" if value is not None else "" for value in (entry.ap, entry.ap50)]
        counted = (entry.macs, entry.params) if macs[0] == "MACs" else (entry.macs_total, entry.params_total)
        costs = ("" if value is None else humanise(value) for value in counted)
        rank = "" if entry.proxy_rank is None else str(entry.proxy_rank)
        note = "" if entry.error is None else f"  ({entry.verdict})"
        table.add_row(f"{entry.name}{note}", rank, *figures, *own, *costs, f"{entry.seconds / 60:.1f}")
    out.print()
    out.print(table)


def _print_summary(outcome: SearchResult, options: SimpleNamespace, proxy: ProxySpec) -> None:
    """Print the number of trials, the best one, where it is, and the commands to run next."""
    for stage in outcome.stages:
        parts = [f"{number} {verdict}" for verdict, number in stage.trials.counts.items() if number]
        fronts = [f"{len(found)} on the front of {cost}" for cost, found in _fronts(stage).items()]
        name = f"stage {stage.name}: " if stage.name else ""
        echo_err(f"{name}{pluralize(len(stage.trials), 'trial')}: {', '.join([*parts, *fronts]) or 'none'}")
    best = outcome.best
    if best is None or best.best is None:
        echo_err(f"no trial has a reward; {outcome.stages[-1].folder / 'trials.csv'} has the verdict on each")
        return
    trained = best.trained
    ap = "" if trained is None or trained.ap is None else f", AP {100 * trained.ap:.1f} after full training"
    stage_name = f" of the stage {best.name}" if best.name else ""
    name = "best"
    if best.trials.aims and trained is None:
        name = "best compromise (it alone dominates most of the front's range)"
        echo_err(f"the front is in {best.folder / 'front.csv'}")
    echo_err(f"{name}: trial {best.best.number}{stage_name}, reward {best.best.reward:.6g}{ap}")
    folder = outcome.folder
    decoder = folder / "best.nas"
    if trained is not None and not best.name:
        decoder = best.folder / "full" / trained.folder / "decoder.nas"
    echo_err(f"the search is in {folder}; the best decoder is {decoder}")
    train = ["nasdsl", "train", str(decoder), "--data", options.full_data or options.spec]
    if detector_key(str(best.best.text))[0] is None:
        train += ["--backbone", proxy.backbone]
    if options.evaluate == "supernet" and decoder.parent == folder:
        train += ["--weights", str(folder)]
    echo_err(f"next: nasdsl report {shlex.quote(str(folder))} -o report.html")
    echo_err(f"      {shlex.join([*train, '--out', 'runs/best'])}")
