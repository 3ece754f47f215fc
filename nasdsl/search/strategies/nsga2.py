"""NSGA-II (Deb et al. 2002): non-dominated sorting and crowding; in its steady-state form, for few evaluations."""

from __future__ import annotations

import random
from typing import Any, ClassVar, NamedTuple

from nasdsl.search.pareto import Point, crowding_distances, fronts_of
from nasdsl.search.strategies.mutation import cross, mutate
from nasdsl.search.strategies.rewards import finite_or_none
from nasdsl.search.strategies.strategy import (
    MAX_DRAWS,
    Aims,
    Costs,
    Indices,
    StrategyError,
    base_state,
    load_base_state,
)
from nasdsl.spaces import Filled, Space


class Member(NamedTuple):
    """An observed filling.

    Attributes:
        point: coordinates that are minimised; None if it has no reward.
        order: its front, and minus its crowding distance there; the lower, the better.
    """

    indices: Indices
    point: Point | None
    order: tuple[int, float]


class NSGA2:
    """Proposes uniform samples until `population` are made, then children of two members that won a tournament.

    The best `population` of all observations are kept: by the front that they are on, and in the last front that fits by
    crowding distance. Two tournaments of two, by front and crowding distance, choose the parents; a child takes each decision
    from one of them, and then each of its decisions changes with a probability of one over their number. As in Durillo et al.
    (2009), each observation replaces the worst member at once, instead of a generation a time: that converges with fewer
    evaluations, and any number of proposals may be in flight.

    Fillings that have no reward are dominated by all others (Deb's rule for constraints, with one degree of violation). Those
    that break requirements or budgets are not proposed, nor are those that were proposed before, if others are found. With the
    reward as the only aim, it is a genetic algorithm.

    Args:
        population: number of members.
        crossover: probability that a child has two parents.
    """

    name: ClassVar[str] = "nsga2"

    def __init__(
        self, space: Space, seed: int = 0, aims: Aims | None = None, *, population: int = 30, crossover: float = 0.9
    ) -> None:
        if population < 2 or not 0 <= crossover <= 1:
            raise StrategyError(
                f"population is {population} and crossover {crossover:g}; expected 2 or more, and a number from 0 to 1"
            )
        self.space = space
        self.aims = aims
        self.population = population
        self.crossover = crossover
        self._rng = random.Random(seed)
        self._proposed = self._observed = 0
        self._seen: set[Indices] = set()
        self._members: list[Member] = []  # best first

    # ------------------------------------------------------------------------------------------ propose, observe

    def propose(self) -> Filled:
        self._proposed += 1
        # Samples that others proposed belong to the first population as well.
        first = max(self._proposed, self._observed + 1) <= self.population
        text = self._sample_unseen() if first or not self._members or not self.space.domains else self._child()
        self._seen.add(text.indices)
        return text

    def _sample_unseen(self) -> Filled:
        text = self.space.sample(self._rng)
        for _ in range(20):
            if text.indices not in self._seen:
                break
            text = self.space.sample(self._rng)
        return text

    def _child(self) -> Filled:
        for _ in range(MAX_DRAWS):
            child = self._parent()
            if self._rng.random() < self.crossover:
                child = cross(self.space, child, self._parent(), self._rng)
            count = sum(self.space.active(child))
            for _ in range(sum(self._rng.random() < 1 / count for _ in range(count))):
                child = mutate(self.space, child, self._rng)
            if child not in self._seen and self.space.keeps(child):
                return self.space.decode(child)
        return self._sample_unseen()

    def _parent(self) -> Indices:
        one, other = self._rng.choice(self._members), self._rng.choice(self._members)
        return min(one, other, key=lambda member: member.order).indices

    def observe(self, text: Filled, reward: float | None, costs: Costs | None = None) -> None:
        self._observed += 1
        self._seen.add(text.indices)
        value = finite_or_none(reward)
        point: Point | None = None
        if value is not None:
            point = (-value,) if self.aims is None else self.aims.point(value, costs or {})
        if any(member.indices == text.indices for member in self._members):
            return  # observed twice: a copy would only take the place of another
        self._members = self._select([*self._members, Member(text.indices, point, (0, 0.0))])

    def _select(self, members: list[Member]) -> list[Member]:
        """Sort members by front and crowding distance, and keep the best."""
        valid = [member for member in members if member.point is not None]
        points = [member.point for member in valid if member.point is not None]
        last = len(members)
        ranked = [member._replace(order=(last, 0.0)) for member in members if member.point is None]
        for rank, front in enumerate(fronts_of(points)):
            distances = crowding_distances([points[place] for place in front])
            ranked += [valid[place]._replace(order=(rank, -far)) for place, far in zip(front, distances, strict=True)]
        ranked.sort(key=lambda member: member.order)
        return ranked[: self.population]

    # ------------------------------------------------------------------------------------------ state

    def state(self) -> dict[str, Any]:
        return {
            **base_state(self.name, self.space, self._rng),
            "proposed": self._proposed,
            "observed": self._observed,
            "seen": sorted(list(indices) for indices in self._seen),
            "members": [[list(m.indices), m.point and list(m.point), list(m.order)] for m in self._members],
        }

    def load(self, state: dict[str, Any]) -> None:
        with load_base_state(state, self.name, self.space, self._rng):
            self._proposed, self._observed = state["proposed"], state["observed"]
            self._seen = {tuple(indices) for indices in state["seen"]}
            self._members = [Member(tuple(i), point and tuple(point), tuple(order)) for i, point, order in state["members"]]

    def diagnostics(self) -> dict[str, float]:
        if not self._members:
            return {}
        on_front = sum(member.order[0] == 0 and member.point is not None for member in self._members)
        return {"members": float(len(self._members)), "members_on_front": float(on_front)}
