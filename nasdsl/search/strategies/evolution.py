"""Regularised evolution (Real et al. 2019, arXiv:1802.01548, algorithm 1): the oldest dies, not the worst."""

from __future__ import annotations

import random
from collections import deque
from typing import Any, ClassVar

from nasdsl.search.strategies.strategy import (
    ATTEMPTS,
    Indices,
    StrategyError,
    begin_state,
    finite,
    loading,
    mutated,
)
from nasdsl.spaces import Filled, Space


class Evolution:
    """The first `population` proposals are uniform; each later one is a mutant of the best of `sample` drawn members.

    A mutant differs in one decision that counts, drawn uniformly among them, and in what that decision opens. Members are
    drawn with replacement, as in the authors' code. Mutants that break a requirement are made again, parent and all.

    Args:
        population: how many of the latest observations can be parents (the paper's P).
        sample: how many of them compete to be one (its S).
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
        # Both are counted: what others proposed belongs to the first population as well.
        if max(self._proposed, self._observed + 1) <= self.population or not self._members:
            return self.space.sample(self._rng)
        for _ in range(ATTEMPTS):
            child = mutated(self.space, self._parent(), self._rng)
            if self.space.keeps(child):
                return self.space.decode(child)
        return self.space.sample(self._rng)

    def _parent(self) -> Indices:
        drawn = [self._rng.choice(self._members) for _ in range(self.sample)]
        return max(drawn, key=lambda member: float("-inf") if member[1] is None else member[1])[0]

    def observe(self, text: Filled, reward: float | None) -> None:
        self._members.append((text.indices, finite(reward)))
        self._observed += 1

    def state(self) -> dict[str, Any]:
        return {
            **begin_state(self.name, self.space, self._rng),
            "proposed": self._proposed,
            "observed": self._observed,
            "members": [[list(indices), reward] for indices, reward in self._members],
        }

    def load(self, state: dict[str, Any]) -> None:
        with loading(state, self.name, self.space, self._rng):
            self._proposed, self._observed = state["proposed"], state["observed"]
            self._members.clear()
            self._members.extend((tuple(indices), reward) for indices, reward in state["members"])

    def diagnostics(self) -> dict[str, float]:
        rewards = [reward for _, reward in self._members if reward is not None]
        if not rewards:
            return {}
        return {"population_mean": sum(rewards) / len(rewards), "population_best": max(rewards)}
