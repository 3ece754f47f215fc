"""What a rule of early stopping would have saved, and lost, in a search that went without one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from nasdsl.search.early_stopping import Past, Population, StoppingRule, curve_of, gives_up, weight_of
from nasdsl.search.errors import JournalError, SearchError
from nasdsl.search.journal import read_journal
from nasdsl.search.objective import Objective
from nasdsl.search.results import History
from nasdsl.search.run import SearchRun, history_of
from nasdsl.search.trial import OK, Trial


@dataclass(frozen=True)
class Judgement:
    """A rule, replayed over samples that were all evaluated to their end.

    Attributes:
        rule: as `StoppingRule.parse` reads it.
        samples: that were replayed.
        stopped: so many of them.
        saved: share of all training steps that would not have been trained.
        tenth: samples in the best 10 % by score, rounded up.
        lost_of_tenth: of those, stopped; `lost_of_five` of the best five.
        lost_best: the best was stopped.
        regret: score of the best, less that of the best that was not stopped; 0 where that is the best itself.
    """

    rule: str
    samples: int
    stopped: int
    saved: float
    tenth: int
    lost_of_tenth: int
    lost_of_five: int
    lost_best: bool
    regret: float


def judge(history: History, rule: StoppingRule, iterations: int | None = None) -> Judgement:
    """Replay a rule over a journal, proposal by proposal.

    For each sample the rule knows what the strategy had been told by then, and of the samples that it would have stopped it
    knows no more than it would have seen. What cannot be replayed is the strategy: told that a sample failed, it would have
    gone on to other samples.

    Args:
        iterations: steps of a whole training; None is what the journal's start says of the task.

    Raises:
        SearchError: the search had a rule, or reports no curves, or nobody knows the iterations.
    """
    start = history.start or {}
    if start.get("stopping") is not None:
        raise SearchError(
            f"the search stopped early itself ({start['stopping']}): expected one whose samples were all finished"
        )
    whole = iterations if iterations is not None else (start.get("task") or {}).get("iterations")
    if whole is None:
        raise SearchError("the journal does not say how many steps a training has: give iterations")
    objective = Objective.parse(start.get("objective", "reward"))
    finished = {n: trial for n, trial in sorted(history.results.items()) if trial.verdict == OK and curve_of(trial.details)}
    if not finished:
        raise SearchError("no sample has a curve: expected a search on the proxy task")
    stopped: dict[int, int] = {}
    seen: dict[int, Past] = {}
    past = Population()
    told = 0
    for number, trial in finished.items():
        while told < history.observed[number]:
            if told in seen:
                past.add(seen[told])
            told += 1
        seen[number] = _replayed(trial, rule, past, objective, stopped)
    best = sorted(finished.values(), key=lambda trial: (-_score(trial), trial.number))
    kept = [trial for trial in best if trial.number not in stopped]
    tenth = math.ceil(len(best) / 10)
    lost = [trial.number in stopped for trial in best]
    return Judgement(
        str(rule),
        len(best),
        len(stopped),
        sum(whole - step for step in stopped.values()) / (whole * len(best)),
        tenth,
        sum(lost[:tenth]),
        sum(lost[:5]),
        lost[0],
        _score(best[0]) - _score(kept[0]) if kept else math.inf,
    )


def load_history(folder: str | Path) -> History:
    """What the journal of a search says.

    Raises:
        JournalError: there is no journal, or it is broken.
    """
    path = SearchRun(Path(folder)).journal
    if not path.exists():
        raise JournalError(f"{folder} is no search: it has no {path.name}")
    return history_of(read_journal(path)[0], path)


def _replayed(trial: Trial, rule: StoppingRule, past: Population, objective: Objective, stopped: dict[int, int]) -> Past:
    """What the rule would have seen of a trial; where it would have stopped it, the step goes into `stopped`."""
    weight = weight_of(objective, trial.figures)
    bars = rule.bars(past, weight)
    seen: dict[int, float] = {}
    for step, loss in curve_of(trial.details).items():
        seen[step] = loss
        if gives_up(seen, bars, step):
            stopped[trial.number] = step
            break
    return Past({step: loss * weight for step, loss in seen.items()}, trial.number not in stopped)


def _score(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score
