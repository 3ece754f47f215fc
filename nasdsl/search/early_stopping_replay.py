"""Replay of an early-stopping rule over a search without one: the steps it would have saved, and the good samples lost."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from nasdsl.search.early_stopping import (
    LossCurve,
    LossStatistics,
    StoppingRule,
    check_objective,
    loss_weight,
    read_curve,
    should_stop,
)
from nasdsl.search.errors import SearchError
from nasdsl.search.history import History
from nasdsl.search.objective import Objective
from nasdsl.search.trial import OK, Trial


@dataclass(frozen=True)
class ReplayResult:
    """Result of replaying a rule over samples that were all evaluated to their end.

    Attributes:
        rule: as text; see `StoppingRule.parse`.
        samples: number of samples.
        stopped: number of samples that the rule stops.
        steps_saved: share of all training steps that the rule saves.
        top_tenth: number of samples in the best 10 % by score, rounded up.
        stopped_of_top_tenth, stopped_of_top_five: how many of these, and of the best five, are stopped.
        stopped_best: whether the best sample is stopped.
        rank_kept: rank by score of the best sample that is not stopped, from 1; 0 if all are.
        regret: score of the best sample minus that of the best one that is not stopped.
    """

    rule: str
    samples: int
    stopped: int
    steps_saved: float
    top_tenth: int
    stopped_of_top_tenth: int
    stopped_of_top_five: int
    stopped_best: bool
    rank_kept: int
    regret: float


def replay_rule(
    history: History, rule: StoppingRule, iterations: int | None = None, steps: Collection[int] | None = None
) -> ReplayResult:
    """Replay a rule over the proposals of a search.

    For each sample the rule knows the results that the strategy had observed when the sample was proposed, and the losses of
    stopped samples only up to where it stops them. The strategy is not replayed: had it observed failures in the place of these
    results, it would have proposed other samples.

    Args:
        iterations: training steps of an evaluation. None: as the journal says.
        steps: of the curves that the rule sees. None: all.

    Raises:
        SearchError: the search had a rule, has no curves, or does not say its iterations.
    """
    start = history.start or {}
    if start.get("stopping") is not None:
        raise SearchError(f"the search stopped early itself ({start['stopping']}); expected one without early stopping")
    length = iterations if iterations is not None else (start.get("task") or {}).get("iterations")
    if length is None:
        raise SearchError("the journal does not say how many steps a training has: give iterations")
    objective = Objective.parse(start.get("objective", "reward"))
    check_objective(objective, rule)
    shown = {n: _curve(trial, steps) for n, trial in sorted(history.results.items()) if trial.verdict == OK}
    trials = {n: history.results[n] for n, losses in shown.items() if losses}
    if not trials:
        where = "" if steps is None else f" at step {', '.join(map(str, steps))}"
        raise SearchError(f"no sample has a curve{where}; expected a search on the proxy task")
    stopped: dict[int, int] = {}
    curves: dict[int, LossCurve] = {}
    earlier = LossStatistics()
    observed = 0
    for number, trial in trials.items():
        while observed < history.observed_before[number]:
            if observed in curves:
                earlier.add(curves[observed])
            observed += 1
        curves[number], stopped_at = _replay_trial(trial, shown[number], rule, earlier, objective)
        if stopped_at is not None:
            stopped[number] = stopped_at
    best = sorted(trials.values(), key=lambda trial: (-_score(trial), trial.number))
    kept = [trial for trial in best if trial.number not in stopped]
    top_tenth = math.ceil(len(best) / 10)
    is_stopped = [trial.number in stopped for trial in best]
    return ReplayResult(
        str(rule),
        len(best),
        len(stopped),
        sum(length - step for step in stopped.values()) / (length * len(best)),
        top_tenth,
        sum(is_stopped[:top_tenth]),
        sum(is_stopped[:5]),
        is_stopped[0],
        is_stopped.index(False) + 1 if kept else 0,
        _score(best[0]) - _score(kept[0]) if kept else math.inf,
    )


def _curve(trial: Trial, steps: Collection[int] | None) -> dict[int, float]:
    return {step: loss for step, loss in read_curve(trial.details).items() if steps is None or step in steps}


def _replay_trial(
    trial: Trial, curve: Mapping[int, float], rule: StoppingRule, earlier: LossStatistics, objective: Objective
) -> tuple[LossCurve, int | None]:
    """The part of a trial's curve that the rule sees, and the step where it stops the trial, or None."""
    weight = loss_weight(objective, trial.figures)
    thresholds = rule.thresholds(earlier, weight)
    losses: dict[int, float] = {}
    stopped_at = None
    for step, loss in curve.items():
        losses[step] = loss
        if should_stop(losses, thresholds, step):
            stopped_at = step
            break
    return LossCurve({step: loss * weight for step, loss in losses.items()}, stopped_at is None), stopped_at


def _score(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score
