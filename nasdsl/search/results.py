"""The trials of a search, with its best ones and its Pareto fronts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from nasdsl.search.objective import COSTS
from nasdsl.search.pareto import pareto_front
from nasdsl.search.trial import DIVERGED, DUPLICATE, FAILED, OK, REJECTED, STOPPED, Trial


class Trials(Sequence[Trial]):
    """The trials of a search that have a verdict, by number.

    Attributes:
        start: first record of the journal: space, strategy, seed, objective, versions.
    """

    def __init__(self, trials: Sequence[Trial], start: Mapping[str, Any]) -> None:
        self._trials = tuple(trials)
        self.start = start

    @overload
    def __getitem__(self, at: int) -> Trial: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Trial, ...]: ...
    def __getitem__(self, at: int | slice) -> Trial | tuple[Trial, ...]:
        return self._trials[at]

    def __len__(self) -> int:
        return len(self._trials)

    def __repr__(self) -> str:
        best = self.best
        return f"<Trials: {len(self)}, best {'none' if best is None else f'{best.score:.6g}'}>"

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score, the first among equals; None if no trial has one."""
        return max(self.ok, key=lambda trial: (_score(trial), -trial.number), default=None)

    @property
    def ok(self) -> list[Trial]:
        """The evaluated trials that have a reward, without duplicates."""
        return [trial for trial in self if trial.verdict == OK]

    def top(self, count: int) -> list[Trial]:
        """The `count` best trials, best first, each a different decoder."""
        return sorted(self.ok, key=lambda trial: (-_score(trial), trial.number))[:count]

    def front(self, cost: str = "macs") -> list[Trial]:
        """The Pareto front of reward against a cost, one of `nasdsl.search.objective.COSTS`, by rising cost."""
        return pareto_front(self.ok, lambda trial: trial.reward, lambda trial: cost_of(trial, cost))

    def fronts(self) -> dict[str, list[Trial]]:
        """The Pareto front against each cost that any trial has."""
        return {cost: trials for cost in COSTS if (trials := self.front(cost))}

    @property
    def counts(self) -> dict[str, int]:
        """Number of trials by verdict; all failures count as ``failed``."""
        counts = dict.fromkeys((OK, DUPLICATE, REJECTED, DIVERGED, STOPPED, FAILED), 0)
        for trial in self:
            counts[trial.verdict.partition(":")[0]] += 1
        return counts


def cost_of(trial: Trial, cost: str) -> float | None:
    """A cost of a trial; None if it has none."""
    value = trial.details.get(cost) if cost == "latency" else trial.figures.get(cost)
    return None if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def _score(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score
