"""Pareto fronts: of reward against costs, and of points all of whose coordinates are minimised."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Point: TypeAlias = tuple[float, ...]
"""Coordinates that are minimised: costs, and minus the reward."""


def pareto_front(items: Iterable[T], reward: Callable[[T], float | None], *costs: Callable[[T], float | None]) -> list[T]:
    """The items that no other item dominates: none is at least as good in reward and all costs, and better in one.

    Items that lack the reward or a cost are left out; of items equal in all, the first is kept.

    Args:
        items: whatever has a reward and costs.
        reward: gives the reward of an item, higher is better; None where it has none.
        costs: each gives a cost of an item, lower is better; None where it has none.

    Returns:
        Items by rising first cost; with a single cost, also by rising reward.
    """
    kept: list[tuple[Point, T]] = []
    for item in items:
        value, prices = reward(item), [cost(item) for cost in costs]
        if value is not None and None not in prices:
            first, *others = [float(price) for price in prices if price is not None]
            kept.append(((first, -value, *others), item))
    return [kept[place][1] for place in front_of([point for point, _ in kept])]


def front_of(points: Sequence[Point]) -> list[int]:
    """The places of the points that no other point dominates, in lexicographic order; of equal points the first."""
    front: list[int] = []
    # A point is dominated only by points that come before it in this order.
    for place in sorted(range(len(points)), key=points.__getitem__):
        if not any(_at_most(points[other], points[place]) for other in front):
            front.append(place)
    return front


def fronts_of(points: Sequence[Point]) -> Iterator[list[int]]:
    """Non-dominated sorting: the front, the front of the points without it, and so on.

    Of equal points one is in each of several fronts, so that copies of a good point do not crowd out others.
    """
    left = list(range(len(points)))
    while left:
        front = [left[place] for place in front_of([points[place] for place in left])]
        yield front
        taken = set(front)
        left = [place for place in left if place not in taken]


def crowding_distances(points: Sequence[Point]) -> list[float]:
    """The crowding distance of each point of a front (NSGA-II, Deb et al. 2002, section III-B).

    It is the sum, over the coordinates, of the distance between the two neighbours in that coordinate, as a share of the range;
    infinite for the first and the last.
    """
    distances = [0.0] * len(points)
    for axis in range(len(points[0]) if points else 0):
        order = sorted(range(len(points)), key=lambda place: points[place][axis])
        span = points[order[-1]][axis] - points[order[0]][axis]
        distances[order[0]] = distances[order[-1]] = math.inf
        if span > 0:
            for before, place, after in zip(order, order[1:], order[2:], strict=False):
                distances[place] += (points[after][axis] - points[before][axis]) / span
    return distances


def _at_most(first: Point, second: Point) -> bool:
    """Whether the first point is at most the second in every coordinate."""
    return all(a <= b for a, b in zip(first, second, strict=True))
