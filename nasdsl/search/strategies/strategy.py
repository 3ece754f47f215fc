"""The interfaces of search strategies, and the part of their state that all have."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol, TypeAlias

from nasdsl.search.costs import Indices as Indices
from nasdsl.search.costs import KnownCosts
from nasdsl.search.pareto import Point
from nasdsl.spaces import Filled, Space

Costs: TypeAlias = Mapping[str, float]
"""Costs of a sample by name."""

MAX_DRAWS: Final = 100
"""Fillings that a strategy draws until one keeps the requirements; then it takes a uniform sample that keeps them."""


class StrategyError(ValueError):
    """There is no strategy with this name, it has no such option, or a state belongs to another strategy or space."""


@dataclass(frozen=True)
class Aims:
    """What a search minimises while it maximises the reward.

    Attributes:
        costs: names of the costs.
        known: those costs that are known before an evaluation, for any filling. The others are measured by evaluations.
    """

    costs: tuple[str, ...]
    known: KnownCosts

    def point(self, reward: float, costs: Costs) -> Point:
        """Minus the reward, and the costs: coordinates that are minimised.

        Args:
            reward: of a sample.
            costs: of the sample, by name; all of the aims.
        """
        return (-reward, *(float(costs[name]) for name in self.costs))


class Strategy(Protocol):
    """Proposes the fillings that a search evaluates, to maximise the reward.

    The same space, seed, options and order of calls give the same proposals on the same machine.

    Args:
        space: whose fillings it proposes.
        seed: of its random numbers.
    """

    name: ClassVar[str]

    def __init__(self, space: Space, seed: int = 0) -> None: ...

    def propose(self) -> Filled:
        """Propose the next sample. Several may be proposed before any is observed.

        Raises:
            SpaceError: no filling of the space keeps the requirements.
        """

    def observe(self, text: Filled, reward: float | None) -> None:
        """Learn the reward of a sample. Samples come in any order, and may be other than this strategy's own.

        Args:
            text: the sample: any filling of the space.
            reward: None if the sample failed, diverged, was stopped early or rejected; worse than any number. A reward that is
                not finite counts as None.
        """

    def state(self) -> dict[str, Any]:
        """A copy of everything that later proposals depend on, as plain values and tensors."""

    def load(self, state: dict[str, Any]) -> None:
        """Load a state of a strategy with the same space and options.

        Args:
            state: what `state` returned, perhaps in another process.

        Raises:
            StrategyError: the state is of another strategy or space, or of options or a version with other contents. The
                strategy is then unusable until another state is loaded.
        """

    def diagnostics(self) -> dict[str, float]:
        """Figures for the log; empty at the beginning."""


class RecordedStrategy(Strategy, Protocol):
    """A strategy that cannot make its proposals again, because it asks somebody: a resumed search has them from its journal."""

    def note(self) -> dict[str, Any]:
        """What later proposals depend on beside the trials, after a proposal, as plain values. The journal records it."""

    def repropose(self, text: Filled, note: Mapping[str, Any]) -> None:
        """Come to the state after a proposal that the journal has.

        Args:
            note: that of `note`; empty if the journal has none.
        """


class FrontStrategy(Strategy, Protocol):
    """A strategy that can also search the front of reward and costs.

    Attributes:
        space: whose fillings it proposes.
        seed: of its random numbers.
        aims: None: it maximises the reward alone.
    """

    aims: Aims | None

    def __init__(self, space: Space, seed: int = 0, aims: Aims | None = None) -> None: ...

    def observe(self, text: Filled, reward: float | None, costs: Costs | None = None) -> None:
        """Learn the reward and the costs of a sample; see `Strategy.observe`.

        Args:
            text: the sample.
            reward: see `Strategy.observe`.
            costs: all costs of the aims by name; not needed without aims, or if there is no reward.
        """


def base_state(name: str, space: Space, rng: random.Random) -> dict[str, Any]:
    """The part that every state has: the strategy's name, the sizes of the decisions, and the random state.

    Args:
        name: of the strategy.
        space: that it searches.
        rng: its generator.
    """
    version, internal, gauss = rng.getstate()
    return {"strategy": name, "sizes": [d.size for d in space.domains], "rng": [version, list(internal), gauss]}


@contextmanager
def load_base_state(state: dict[str, Any], name: str, space: Space, rng: random.Random) -> Iterator[None]:
    """Context manager that loads the part made by `base_state`; the block loads the rest.

    Args:
        state: the whole state of the strategy.
        name: of the strategy.
        space: that it searches.
        rng: its generator, which gets the state.

    Raises:
        StrategyError: the state is of another strategy or space, or the block finds something missing or invalid.
    """
    if state.get("strategy") != name:
        raise StrategyError(f"this is a state of the strategy {state.get('strategy')!r}; expected one of {name!r}")
    try:
        sizes = [d.size for d in space.domains]
        if list(state["sizes"]) != sizes:
            raise StrategyError(
                f"this state is of a space with decisions of {list(state['sizes'])} alternatives; {space.name} has {sizes}"
            )
        version, internal, gauss = state["rng"]
        rng.setstate((version, tuple(internal), gauss))
        yield
    except StrategyError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # RuntimeError: torch's, for tensors of other shapes
        what = f"lacks {error}" if isinstance(error, KeyError) else f"does not fit ({error})"
        raise StrategyError(
            f"this state of {name!r} {what}; expected one that the same version wrote, with the same options"
        ) from error
