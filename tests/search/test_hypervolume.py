"""Hypervolume, fronts of several costs, non-dominated sorting, crowding."""

from __future__ import annotations

import itertools
import math
import random

import pytest

from nasdsl.search.hypervolume import by_volume, hypervolume
from nasdsl.search.pareto import crowding_distances, front_of, fronts_of, pareto_front


def counted(points: list[tuple[int, ...]], reference: tuple[int, ...]) -> int:
    """The unit cubes that whole points dominate, counted one by one."""
    cubes = itertools.product(*(range(-3, worst) for worst in reference))
    return sum(any(all(p <= c for p, c in zip(point, cube, strict=True)) for point in points) for cube in cubes)


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_the_volume_is_the_number_of_unit_cubes(axes: int) -> None:
    rng = random.Random(axes)
    for _ in range(60 if axes < 4 else 10):
        points = [tuple(rng.randrange(-3, 7) for _ in range(axes)) for _ in range(rng.randrange(9))]
        reference = tuple(rng.randrange(1, 6) for _ in range(axes))
        assert hypervolume(points, reference) == counted(points, reference)


def test_volumes_of_three_and_five_points() -> None:
    assert hypervolume([(1, 3), (2, 2), (3, 1)], (4, 4)) == 6
    assert hypervolume([(0.5, 0.5, 0.5)], (1, 1, 1)) == 0.125
    assert hypervolume([(0, 0), (math.inf, -5)], (1, 2)) == 2
    assert hypervolume([(1, 0)], (1, 5)) == 0
    assert hypervolume([], (1, 1)) == 0


@pytest.mark.parametrize("axes", [2, 3])
def test_points_in_order_of_the_volume_that_they_add(axes: int) -> None:
    """The first is the best single point, and each next one the best addition; the front's extremes come last."""
    rng = random.Random(axes)
    for _ in range(20):
        every = [tuple(rng.random() for _ in range(axes)) for _ in range(25)]
        points = [every[place] for place in front_of(every)]
        low, worst = ([bound(axis) for axis in zip(*points, strict=True)] for bound in (min, max))
        scaled = [tuple((v - a) / (b - a or 1.0) for v, a, b in zip(p, low, worst, strict=True)) for p in points]
        order = by_volume(points)
        assert sorted(order) == list(range(len(points)))
        for count in range(len(order)):
            volumes = {
                place: hypervolume([*(scaled[p] for p in order[:count]), scaled[place]], (1.0,) * axes)
                for place in order[count:]
            }
            assert volumes[order[count]] == max(volumes.values())
    assert by_volume([(0.0, 9.0), (1.0, 1.0), (9.0, 0.0)])[0] == 1
    assert by_volume([(5.0, 5.0)]) == [0]
    assert by_volume([]) == []


def dominates(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def test_fronts_against_comparing_all_pairs() -> None:
    rng = random.Random(5)
    for _ in range(150):
        axes = rng.randrange(1, 4)
        points = [tuple(rng.randrange(5) for _ in range(axes)) for _ in range(rng.randrange(16))]
        layers = list(fronts_of(points))
        assert sorted(place for layer in layers for place in layer) == list(range(len(points)))
        left = set(range(len(points)))
        for layer in layers:
            expected = {
                p for p in left if not any(dominates(points[q], points[p]) or (points[q] == points[p] and q < p) for q in left)
            }
            assert set(layer) == expected
            left -= expected


def test_the_front_of_a_reward_and_two_costs() -> None:
    rng = random.Random(9)
    for _ in range(100):
        items = [(rng.randrange(5), rng.randrange(5), rng.choice([None, 1, 2, 3]), i) for i in range(rng.randrange(12))]
        kept = pareto_front(items, lambda t: t[0], lambda t: t[1], lambda t: t[2])
        known = [(-r, c, d, i) for r, c, d, i in items if d is not None]
        expected = [p for p in known if not any(dominates(q[:3], p[:3]) or (q[:3] == p[:3] and q[3] < p[3]) for q in known)]
        assert sorted((-r, c, d, i) for r, c, d, i in kept) == sorted(expected)
        assert [item[1] for item in kept] == sorted(item[1] for item in kept)


def test_crowding_distances_of_deb() -> None:
    """Section III-B: infinite at the ends, else the sum of the sides of the box to the neighbours, by the range."""
    found = crowding_distances([(0.0, 10.0), (4.0, 4.0), (1.0, 6.0), (8.0, 0.0)])
    assert found == [math.inf, (8 - 1) / 8 + (6 - 0) / 10, (4 - 0) / 8 + (10 - 4) / 10, math.inf]
    assert crowding_distances([(1.0, 1.0), (1.0, 1.0), (1.0, 1.0)]).count(math.inf) >= 2
    assert crowding_distances([]) == []
