"""The trials of a search, with its best ones and its Pareto fronts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any, overload

from nasdsl.search.hypervolume import by_volume
from nasdsl.search.objective import COSTS, Objective, aim_cost
from nasdsl.search.pareto import Point, fronts_of, pareto_front
from nasdsl.search.trial import DIVERGED, DUPLICATE, FAILED, OK, REJECTED, STOPPED, Trial


class Trials(Sequence[Trial]):
    """The trials of a search that have a verdict, by number.

    Attributes:
        start: first record of the journal: space, strategy, seed, objective, versions.
    """

    def __init__(self, trials: Sequence[Trial], start: Mapping[str, Any]) -> None:
        """
        Args:
            trials: those with a verdict, by number.
            start: first record of the journal.
        """
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

    @cached_property
    def aims(self) -> tuple[str, ...]:
        """The costs that the search minimised beside the reward; empty if its objective is a single figure."""
        return Objective.parse(str(self.start.get("objective", "reward"))).aims

    @property
    def best(self) -> Trial | None:
        """The trial with the highest score, the first among equals; None if no trial has one.

        With several aims no trial is better than the others of the front. This is then the first of `top`: the one that alone
        dominates the largest volume, up to the worst values on the front. It is no extreme of the front, if that has others.
        """
        return next(iter(self.top(1)), None)

    @property
    def ok(self) -> list[Trial]:
        """The evaluated trials that have a reward, without duplicates."""
        return [trial for trial in self if trial.verdict == OK]

    def top(self, count: int) -> list[Trial]:
        """The `count` best trials, best first, each a different decoder.

        With several aims these are first the trials of the front, in the order in which each adds most to the volume that those
        before it dominate, so that a few of them are spread over the front; then the others, front by front, by reward.
        """
        if not self.aims:
            return sorted(self.ok, key=lambda trial: (-_score(trial), trial.number))[:count]
        known = [(trial, point) for trial in self.ok if (point := self.point(trial)) is not None]
        points = [point for _, point in known]
        ranked: list[Trial] = []
        for number, front in enumerate(fronts_of(points)):
            if len(ranked) >= count:
                break
            if number == 0:
                front = [front[place] for place in by_volume([points[place] for place in front])]
            else:
                front = sorted(front, key=lambda place: points[place][0])
            ranked += [known[place][0] for place in front]
        return ranked[:count]

    def front(self, *costs: str) -> list[Trial]:
        """The Pareto front of reward against costs, by rising first cost.

        Args:
            costs: of `nasdsl.search.objective.COSTS`. None: the aims of the search, or ``macs`` if it had a single one.
        """
        if costs or not self.aims:
            return pareto_front(
                self.ok, lambda trial: trial.reward, *(partial(cost_of, cost=cost) for cost in costs or ("macs",))
            )
        return pareto_front(self.ok, lambda trial: trial.reward, *(partial(aim_of, aim=aim) for aim in self.aims))

    def fronts(self) -> dict[str, list[Trial]]:
        """The Pareto front against each cost that any trial has."""
        return {cost: trials for cost in COSTS if (trials := self.front(cost))}

    def point(self, trial: Trial) -> Point | None:
        """Minus the reward of a trial and its costs that are aims; None if it lacks one of them.

        Args:
            trial: one of the trials.
        """
        costs = [aim_of(trial, aim) for aim in self.aims]
        if trial.reward is None or None in costs:
            return None
        return (-trial.reward, *(cost for cost in costs if cost is not None))

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


def aim_of(trial: Trial, aim: str) -> float | None:
    """A cost of a trial's whole detector, a key of `nasdsl.search.objective.AIMS`; None if it has none."""
    return aim_cost(aim, trial.figures, trial.details)


def _score(trial: Trial) -> float:
    assert trial.score is not None
    return trial.score
