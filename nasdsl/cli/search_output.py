"""What `nasdsl search` prints at its end."""

from __future__ import annotations

import json
import shlex
from types import SimpleNamespace
from typing import Any

import click

from nasdsl.cli.output import count, say
from nasdsl.report.tables import console, humanise
from nasdsl.search.progressive import Outcome
from nasdsl.search.stages import Found
from nasdsl.search.trial import Trial
from nasdsl.training.proxy.spec import ProxySpec

SHOWN = 10
"""Trials in the table of a stage."""


def show(outcome: Outcome, asked: SimpleNamespace, proxy: ProxySpec, format_: str) -> None:
    """The best trials to standard output; the rest to standard error."""
    if format_ == "json":
        click.echo(json.dumps(as_json(outcome), indent=1, ensure_ascii=False))
    else:
        for stage in outcome.stages:
            _print(stage)
    _say(outcome, asked, proxy)


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Best text, reward and digest; counts; stages with their best trials and their ranking."""
    best = outcome.best
    counts: dict[str, int] = {}
    for stage in outcome.stages:
        for verdict, number in stage.trials.counts.items():
            counts[verdict] = counts.get(verdict, 0) + number
    return {
        "folder": str(outcome.folder),
        "best": None if best is None or best.best is None else {"stage": best.name, **_best(best, best.best)},
        "counts": counts,
        "stages": [_stage(stage) for stage in outcome.stages],
    }


def _best(stage: Found, trial: Trial) -> dict[str, Any]:
    trained = stage.trained
    return {**_trial(trial), "text": str(trial.text), "ap": None if trained is None else trained.ap}


def _stage(stage: Found) -> dict[str, Any]:
    best = stage.best
    return {
        "name": stage.name,
        "folder": str(stage.folder),
        "trials": len(stage.trials),
        "counts": stage.trials.counts,
        "best": None if best is None else _best(stage, best),
        "front": {cost: [trial.number for trial in found] for cost, found in stage.trials.fronts().items()},
        "top": [_trial(trial) for trial in stage.trials.top(SHOWN)],
        "ranking": None if stage.ranking is None else [
            {"name": e.name, "trial": e.trial, "verdict": e.verdict, "ap": e.ap, "ap50": e.ap50} for e in stage.ranking.entries
        ],
    }  # fmt: skip


def _trial(trial: Trial) -> dict[str, Any]:
    known = {"trial": trial.number, "reward": trial.reward, "score": trial.score, "digest": trial.digest}
    return {**known, **trial.figures}


def _print(stage: Found) -> None:
    """Tables for people: the best trials, and the ranking of those that were trained."""
    from rich.table import Table

    out = console()
    if stage.name:
        out.print(f"[bold]stage {stage.name}[/bold]")
    table = Table(box=None, pad_edge=False, header_style="bold")
    weighed = any(trial.score != trial.reward for trial in stage.trials.top(SHOWN))
    for name in ("rank", "trial", "reward", *(["score"] if weighed else []), "MACs", "params", "digest"):
        table.add_column(name, justify="left" if name == "digest" else "right", no_wrap=True)
    for rank, trial in enumerate(stage.trials.top(SHOWN), 1):
        rewards = [f"{trial.reward:.4f}", *([f"{trial.score:.4f}"] if weighed else [])]
        costs = (humanise(int(trial.figures[name])) if name in trial.figures else "" for name in ("macs", "params"))
        table.add_row(str(rank), str(trial.number), *rewards, *costs, (trial.digest or "")[:12])
    if table.row_count:
        out.print(table)
    if stage.ranking is not None:
        _print_ranking(stage)


def _print_ranking(stage: Found) -> None:
    from rich.table import Table

    out = console()
    assert stage.ranking is not None
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("fully trained", "proxy rank", "AP", "AP50", "MACs", "params", "minutes"):
        table.add_column(name, justify="left" if name == "fully trained" else "right", no_wrap=True)
    for entry in stage.ranking.entries:
        figures = [f"{100 * value:.1f}" if value is not None else "" for value in (entry.ap, entry.ap50)]
        costs = ("" if value is None else humanise(value) for value in (entry.macs, entry.params))
        rank = "" if entry.proxy_rank is None else str(entry.proxy_rank)
        note = "" if entry.error is None else f"  ({entry.verdict})"
        table.add_row(f"{entry.name}{note}", rank, *figures, *costs, f"{entry.seconds / 60:.1f}")
    out.print()
    out.print(table)


def _say(outcome: Outcome, asked: SimpleNamespace, proxy: ProxySpec) -> None:
    """What a person wants to know next."""
    for stage in outcome.stages:
        told = [f"{number} {verdict}" for verdict, number in stage.trials.counts.items() if number]
        fronts = [f"{len(found)} on the front of {cost}" for cost, found in stage.trials.fronts().items()]
        name = f"stage {stage.name}: " if stage.name else ""
        say(f"{name}{count(len(stage.trials), 'trial')}: {', '.join([*told, *fronts]) or 'none'}")
    best = outcome.best
    if best is None or best.best is None:
        say(f"no trial has a reward; {outcome.stages[-1].folder / 'trials.csv'} says what became of each")
        return
    trained = best.trained
    ap = "" if trained is None or trained.ap is None else f", AP {100 * trained.ap:.1f} after full training"
    stage_name = f" of the stage {best.name}" if best.name else ""
    say(f"best: trial {best.best.number}{stage_name}, reward {best.best.reward:.6g}{ap}")
    folder = outcome.folder
    decoder = folder / "best.nas"
    if trained is not None and not best.name:
        decoder = best.folder / "full" / trained.folder / "decoder.nas"
    say(f"all of it is in {folder}; the best decoder is {decoder}")
    train = ["nasdsl", "train", str(decoder), "--data", asked.full_data or asked.spec, "--backbone", proxy.backbone]
    say(f"next: nasdsl report {shlex.quote(str(folder))} -o report.html")
    say(f"      {shlex.join([*train, '--out', 'runs/best'])}")
