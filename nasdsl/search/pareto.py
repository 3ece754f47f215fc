"""The Pareto front of reward against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def pareto_front(items: Iterable[T], reward: Callable[[T], float | None], cost: Callable[[T], float | None]) -> list[T]:
    """The items that no other item dominates: none has a higher reward at the same cost or less, or the same reward at less.

    Items without reward or cost are left out; of items equal in both, the first is kept.

    Returns:
        Items by rising cost, and so by rising reward.
    """
    points = [(c, r, item) for item in items if (c := cost(item)) is not None and (r := reward(item)) is not None]
    kept: list[T] = []
    best = -math.inf
    for _, value, item in sorted(points, key=lambda point: (point[0], -point[1])):
        if value > best:
            kept.append(item)
            best = value
    return kept
