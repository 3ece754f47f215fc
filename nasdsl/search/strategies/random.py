"""Random search: the baseline of all strategies."""

from __future__ import annotations

import random
from typing import Any, ClassVar

from nasdsl.search.strategies.strategy import Aims, Costs, base_state, load_base_state
from nasdsl.spaces import Filled, Space


class RandomSearch:
    """Proposes uniform samples that keep the requirements, whatever it observes."""

    name: ClassVar[str] = "random"

    def __init__(self, space: Space, seed: int = 0, aims: Aims | None = None) -> None:
        self.space = space
        self.aims = aims
        self._rng = random.Random(seed)

    def propose(self) -> Filled:
        return self.space.sample(self._rng)

    def observe(self, text: Filled, reward: float | None, costs: Costs | None = None) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return base_state(self.name, self.space, self._rng)

    def load(self, state: dict[str, Any]) -> None:
        with load_base_state(state, self.name, self.space, self._rng):
            pass

    def diagnostics(self) -> dict[str, float]:
        return {}
