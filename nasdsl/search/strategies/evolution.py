"""Regularised evolution (Real et al. 2019, arXiv:1802.01548, algorithm 1): the oldest member is removed, not the worst."""

from __future__ import annotations

import random
from collections import deque
from typing import Any, ClassVar

from nasdsl.search.strategies.mutation import mutate
from nasdsl.search.strategies.rewards import finite_or_none
from nasdsl.search.strategies.strategy import MAX_DRAWS, Indices, StrategyError, base_state, load_base_state
from nasdsl.spaces import Filled, Space


class Evolution:
    """Proposes uniform samples until `population` are made, then mutants of the best of `sample` random members.

    A mutant differs from its parent in one active decision, drawn uniformly, and in the decisions that become active with it.
    Members are drawn with replacement, as in the authors' code. If a mutant breaks a requirement, another parent is drawn.

    Args:
        population: number of the latest observations that may be parents (P in the paper).
        sample: number of members drawn to choose the parent from (S in the paper).
    """

    name: ClassVar[str] = "evolution"

    def __init__(self, space: Space, seed: int = 0, *, population: int = 50, sample: int = 10) -> None:
        if population < 1 or sample < 1:
            raise StrategyError(f"population is {population} and sample {sample}; expected at least 1 each")
        self.space = space
        self.population = population
        self.sample = sample
        self._rng = random.Random(seed)
        self._proposed = self._observed = 0
        self._members: deque[tuple[Indices, float | None]] = deque(maxlen=population)

    def propose(self) -> Filled:
        self._proposed += 1
        # Samples that others proposed belong to the first population as well.
        if max(self._proposed, self._observed + 1) <= self.population or not self._members:
            return self.space.sample(self._rng)
        for _ in range(MAX_DRAWS):
            child = mutate(self.space, self._parent(), self._rng)
            if self.space.keeps(child):
                return self.space.decode(child)
        return self.space.sample(self._rng)

    def _parent(self) -> Indices:
        drawn = [self._rng.choice(self._members) for _ in range(self.sample)]
        return max(drawn, key=lambda member: float("-inf") if member[1] is None else member[1])[0]

    def observe(self, text: Filled, reward: float | None) -> None:
        self._members.append((text.indices, finite_or_none(reward)))
        self._observed += 1

    def state(self) -> dict[str, Any]:
        return {
            **base_state(self.name, self.space, self._rng),
            "proposed": self._proposed,
            "observed": self._observed,
            "members": [[list(indices), reward] for indices, reward in self._members],
        }

    def load(self, state: dict[str, Any]) -> None:
        with load_base_state(state, self.name, self.space, self._rng):
            self._proposed, self._observed = state["proposed"], state["observed"]
            self._members.clear()
            self._members.extend((tuple(indices), reward) for indices, reward in state["members"])

    def diagnostics(self) -> dict[str, float]:
        rewards = [reward for _, reward in self._members if reward is not None]
        if not rewards:
            return {}
        return {"population_mean": sum(rewards) / len(rewards), "population_best": max(rewards)}
