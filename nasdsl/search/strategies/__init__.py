"""Search strategies by name."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from nasdsl.search.strategies.bayes import BayesianSearch
from nasdsl.search.strategies.evolution import Evolution
from nasdsl.search.strategies.ppo import PPO
from nasdsl.search.strategies.random import RandomSearch
from nasdsl.search.strategies.strategy import Strategy, StrategyError
from nasdsl.spaces import Space

__all__ = ["DEFAULT_STRATEGY", "STRATEGIES", "Strategy", "StrategyError", "make_strategy"]

STRATEGIES: Mapping[str, type[Strategy]] = MappingProxyType(
    {strategy.name: strategy for strategy in (BayesianSearch, PPO, Evolution, RandomSearch)}
)
"""All strategies by name. They take the space, the seed, and options by name."""

DEFAULT_STRATEGY = BayesianSearch.name


def make_strategy(name: str, space: Space, seed: int = 0, **options: Any) -> Strategy:
    """Make a strategy by its name.

    Raises:
        StrategyError: there is no strategy with this name, it has no such option, or an option is out of range.
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
    return strategy(space, seed, **options)
