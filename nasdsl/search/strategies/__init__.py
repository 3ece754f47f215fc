"""Search strategies by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from nasdsl.search.strategies.bayes import BayesianSearch
from nasdsl.search.strategies.evolution import Evolution
from nasdsl.search.strategies.llm import LanguageModelSearch
from nasdsl.search.strategies.nsga2 import NSGA2
from nasdsl.search.strategies.ppo import PPO
from nasdsl.search.strategies.random import RandomSearch
from nasdsl.search.strategies.strategy import Aims, FrontStrategy, Strategy, StrategyError
from nasdsl.spaces import Space

__all__ = [
    "DEFAULT_STRATEGY",
    "FRONT_STRATEGIES",
    "STRATEGIES",
    "Aims",
    "FrontStrategy",
    "Strategy",
    "StrategyError",
    "make_strategy",
]

FRONT_STRATEGIES: Mapping[str, type[FrontStrategy]] = MappingProxyType(
    {strategy.name: strategy for strategy in (BayesianSearch, NSGA2, RandomSearch)}
)
"""The strategies that take several aims."""

STRATEGIES: Mapping[str, type[Strategy]] = MappingProxyType(
    {strategy.name: strategy for strategy in (BayesianSearch, PPO, Evolution, NSGA2, LanguageModelSearch, RandomSearch)}
)
"""All strategies by name. They take the space, the seed, and options by name."""

DEFAULT_STRATEGY = BayesianSearch.name


def make_strategy(name: str, space: Space, seed: int = 0, aims: Aims | None = None, **options: Any) -> Strategy:
    """Make a strategy by its name.

    Args:
        name: one of `STRATEGIES`.
        space: whose fillings it proposes.
        seed: of its random numbers.
        aims: costs to minimise while the reward is maximised. None: the reward alone.
        options: of the strategy, by name.

    Raises:
        StrategyError: there is no strategy with this name, it has no such option, an option is out of range, or the strategy
            cannot search for a front.
    """
    if name not in STRATEGIES:
        near = difflib.get_close_matches(name, STRATEGIES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise StrategyError(f"there is no strategy {name!r}; expected one of {', '.join(STRATEGIES)}{hint}")
    strategy = STRATEGIES[name]
    known = [p.name for p in inspect.signature(strategy).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        if option not in known:
            expected = f"expected one of {', '.join(known)}" if known else "it has no options"
            raise StrategyError(f"the strategy {name!r} has no option {option!r}; {expected}")
    if aims is None:
        return strategy(space, seed, **options)
    if name not in FRONT_STRATEGIES:
        raise StrategyError(
            f"the strategy {name!r} maximises one figure; for several aims expected one of {', '.join(FRONT_STRATEGIES)}"
        )
    return FRONT_STRATEGIES[name](space, seed, aims, **options)
