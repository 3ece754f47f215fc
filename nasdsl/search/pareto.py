"""The Pareto front of reward against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def front(items: Iterable[T], reward: Callable[[T], float | None], cost: Callable[[T], float | None]) -> list[T]:
    """The items that no other beats: none costs at most as much and has a higher reward, or costs less and has as much.

    Items without reward or cost are left out; of equal ones the first is kept.

    Returns:
        by rising cost, and so by rising reward.
    """
    points = [(c, r, item) for item in items if (c := cost(item)) is not None and (r := reward(item)) is not None]
    kept: list[T] = []
    best = -math.inf
    for _, found, item in sorted(points, key=lambda point: (point[0], -point[1])):
        if found > best:
            kept.append(item)
            best = found
    return kept
