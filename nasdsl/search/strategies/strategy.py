"""What a search strategy is, and what all of them share: random states, moves in a space, and rewards as normal scores."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias

import torch
from torch import Tensor

from nasdsl.spaces import Filled, Space

Indices: TypeAlias = tuple[int, ...]
"""The decisions of a filling; those that do not count are 0."""

ATTEMPTS = 100
"""How often a strategy proposes anew what breaks a requirement, before it takes a uniform sample that keeps them."""


class StrategyError(ValueError):
    """No strategy of this name, an option that it does not have, or a state that is not its own."""


class Strategy(Protocol):
    """Chooses what a search tries next. Rewards are maximised.

    The same space, seed, options, and order of calls give the same proposals on the same machine.
    """

    name: ClassVar[str]

    def __init__(self, space: Space, seed: int = 0) -> None: ...

    def propose(self) -> Filled:
        """The next sample. It may be asked for several before any is observed.

        Raises:
            SpaceError: nothing in the space keeps its requirements.
        """

    def observe(self, text: Filled, reward: float | None) -> None:
        """Take a sample's reward, in any order; also of samples that this strategy has not proposed.

        Args:
            reward: None for one that failed, diverged, was stopped early or rejected: worse than every number. What is not
                finite counts as None.
        """

    def state(self) -> dict[str, Any]:
        """Everything that later proposals depend on: plain values and tensors, a copy of their own."""

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a state, of a strategy that was made for the same space with the same options.

        Raises:
            StrategyError: the state is of another strategy, or of another space.
        """

    def diagnostics(self) -> dict[str, float]:
        """Figures for the log; empty before there are any."""


def begin_state(name: str, space: Space, rng: random.Random) -> dict[str, Any]:
    """What every state holds: whose it is, the sizes of the decisions, and the random state."""
    version, internal, gauss = rng.getstate()
    return {"strategy": name, "sizes": [d.size for d in space.domains], "rng": [version, list(internal), gauss]}


def begin_load(state: dict[str, Any], name: str, space: Space, rng: random.Random) -> None:
    """Check whose state it is, and set the random state. Raises StrategyError."""
    if state.get("strategy") != name:
        raise StrategyError(f"this is a state of the strategy {state.get('strategy')!r}; expected one of {name!r}")
    sizes = [d.size for d in space.domains]
    if list(state["sizes"]) != sizes:
        raise StrategyError(
            f"this state is of a space with decisions of {list(state['sizes'])} alternatives; {space.name} has {sizes}"
        )
    version, internal, gauss = state["rng"]
    rng.setstate((version, tuple(internal), gauss))


# ---------------------------------------------------------------------------------------------------------- moves


def settled(space: Space, indices: Sequence[int]) -> Indices:
    """The decisions with those that do not count set to 0, as `Space.decode` gives them."""
    return tuple(index if flag else 0 for index, flag in zip(indices, space.active(indices), strict=True))


def moved(space: Space, indices: Sequence[int], place: int, index: int, rng: random.Random) -> Indices:
    """The filling with one decision changed; decisions that this opens are drawn uniformly."""
    before = space.active(indices)
    found = list(indices)
    found[place] = index
    after: list[bool] = []
    for domain in space.domains:  # a hole comes before those inside its alternatives
        parent = domain.parent
        after.append(parent is None or (after[parent[0]] and found[parent[0]] == parent[1]))
        if not after[-1]:
            found[domain.index] = 0
        elif not before[domain.index]:
            found[domain.index] = rng.randrange(domain.size)
    return tuple(found)


def mutated(space: Space, indices: Sequence[int], rng: random.Random) -> Indices:
    """The filling with one decision that counts, drawn uniformly, changed to another alternative."""
    flags = space.active(indices)
    places = [d.index for d in space.domains if flags[d.index] and d.size > 1]
    if not places:
        return tuple(indices)
    place = rng.choice(places)
    index = rng.randrange(space.domains[place].size - 1)
    return moved(space, indices, place, index + (index >= indices[place]), rng)


def neighbours(space: Space, indices: Sequence[int], rng: random.Random) -> Iterator[Indices]:
    """Every filling with one decision that counts changed; what a change opens is drawn uniformly."""
    given = tuple(indices)
    opening = {domain.parent for domain in space.domains}
    for domain, flag in zip(space.domains, space.active(given), strict=True):
        place, before = domain.index, given[domain.index]
        for index in range(domain.size if flag else 0):
            if index == before:
                continue
            if (place, before) in opening or (place, index) in opening:
                yield moved(space, given, place, index, rng)
            else:
                yield (*given[:place], index, *given[place + 1 :])


def draw(space: Space, rng: random.Random) -> Indices:
    """A filling drawn uniformly over the decisions, whatever the requirements."""
    return settled(space, [rng.randrange(domain.size) for domain in space.domains])


# -------------------------------------------------------------------------------------------------------- rewards


def finite(reward: float | None) -> float | None:
    """The reward as a finite number; None, a failure, for everything else."""
    return float(reward) if reward is not None and math.isfinite(reward) else None


def normal_scores(rewards: Sequence[float | None]) -> Tensor:
    """Rewards by their rank alone, as quantiles of the normal distribution: the i-th least of n has quantile (i - 1/2)/n.

    Equal rewards have the mean of their ranks; failures (None) are equal to each other, and less than every number. So
    neither the unit of a reward nor one that is far out matters.

    Returns:
        float64 [n].
    """
    if not rewards:
        return torch.zeros(0, dtype=torch.float64)
    lowest = float("-inf")
    values = torch.tensor([lowest if r is None else r for r in rewards], dtype=torch.float64)
    _, group, count = torch.unique(values, return_inverse=True, return_counts=True)
    last = count.cumsum(0)
    rank = last.double() - (count - 1) / 2  # from 1; the mean rank of each group of equals
    scores: Tensor = torch.special.ndtri((rank[group] - 0.5) / len(rewards))
    return scores
