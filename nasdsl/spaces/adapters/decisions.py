"""What the adapters share: names of decisions, rewards, requirements, and messages about missing packages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, TypeAlias

from nasdsl.backends.requirements import violations
from nasdsl.spaces.space import Filled, Space, SpaceError

Evaluate: TypeAlias = Callable[[str], Any]
"""Function from the text of a decoder to its reward, higher is better: a number, a mapping with ``reward``, or an object with
``reward`` such as `nasdsl.search.EvaluationResult`."""


class AdapterError(SpaceError):
    """Parameters or configurations that are not of the space, or an evaluation without a reward."""


class MissingExtra(AdapterError, ImportError):
    """The package of an adapter is not installed."""


def load_package(module: str, extra: str) -> ModuleType:
    """Import the package of an adapter.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtra(f"this needs the package {module} ({error}): pip install 'nasdsl[{extra}]'") from None


def decision_names(space: Space) -> tuple[str, ...]:
    """A name for each decision: ``d07_op``, the number and the name of its choice.

    Args:
        space: whose decisions are named, in the order of its `domains`.
    """
    width = len(str(len(space.domains) - 1))
    return tuple(f"d{domain.index:0{width}}_{domain.name or 'hole'}" for domain in space.domains)


def walk(space: Space, choose: Callable[[int], int]) -> Filled:
    """Decide all active decisions in the order of the text.

    Args:
        choose: from the number of a decision to its alternative; called for active ones only.
    """
    indices: list[int] = []
    for domain in space.domains:
        indices.append(choose(domain.index) if domain.condition.holds(indices) else 0)
    return space.decode(indices)


def excess(space: Space, indices: Sequence[int]) -> list[float]:
    """By how much a filling breaks each requirement, as a share of its bound; 0 where it keeps it.

    A filling that cannot be built breaks all by 1. Without requirements one number says whether it can be built.
    """
    figures = space.figures(indices)
    requirements = space.program.requirements
    if figures is None:
        return [1.0] * max(1, len(requirements))
    broken = {id(r): abs(value - r.bound.value) / max(1, abs(r.bound.value)) for r, value in violations(requirements, figures)}
    # Above 0 also where it is equal to a bound that excludes it.
    return [max(broken[id(r)], 1e-9) if id(r) in broken else 0.0 for r in requirements] or [0.0]


def reward_of(result: Any) -> tuple[float | None, Mapping[str, Any]]:
    """Reward and details of what an evaluation returned; None for a reward that is missing or not finite.

    Raises:
        AdapterError: it is no number, and has none.
    """
    reward, details = result, {}
    if isinstance(result, Mapping):
        reward, details = result.get("reward"), {k: v for k, v in result.items() if k != "reward"}
    elif hasattr(result, "reward"):
        reward, details = result.reward, getattr(result, "details", {})
    if reward is None:
        return None, details
    try:
        number = float(reward)
    except (TypeError, ValueError):
        raise AdapterError(f"the evaluation returned {result!r}; expected a number, or something with `reward`") from None
    return (number if math.isfinite(number) else None), details
