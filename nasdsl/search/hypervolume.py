"""Hypervolume: the volume that a set of points dominates. Every coordinate is minimised."""

from __future__ import annotations

from collections.abc import Sequence

from nasdsl.search.pareto import Point


def hypervolume(points: Sequence[Point], reference: Point) -> float:
    """The exact volume of the region that points dominate, up to a reference point.

    The region is cut into slabs along the last coordinate (hypervolume by slicing objectives, While et al. 2006), whose areas
    are swept in two dimensions: n log n steps for two coordinates, n times as many for each further one.

    Args:
        reference: the worst corner of the region; points that are not below it in every coordinate dominate nothing.
    """
    inside = [point for point in points if all(value < worst for value, worst in zip(point, reference, strict=True))]
    return _volume(inside, reference)


def _volume(points: list[Point], reference: Point) -> float:
    if not points:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(points)[0]
    if len(reference) == 2:
        return _area(points, reference)
    points = sorted(points, key=lambda point: point[-1])
    ends = [*(point[-1] for point in points[1:]), reference[-1]]
    return sum(
        (end - point[-1]) * _volume([p[:-1] for p in points[: count + 1]], reference[:-1])
        for count, (point, end) in enumerate(zip(points, ends, strict=True))
        if end > point[-1]
    )


def _area(points: list[Point], reference: Point) -> float:
    area, lowest = 0.0, reference[1]
    for x, y in sorted(points):
        if y < lowest:
            area += (reference[0] - x) * (lowest - y)
            lowest = y
    return area


def by_volume(points: Sequence[Point]) -> list[int]:
    """The places of the points of a front, in the order in which each adds most to the volume that those before it dominate.

    So the first point alone dominates most, and the first k are within a factor of 1 - 1/e of the best k (the volume is
    submodular). The region ends at the worst values in the front: its extremes, which dominate nothing there, come last.
    """
    if not points:
        return []
    axes = list(zip(*points, strict=True))
    low, span = [min(axis) for axis in axes], [max(axis) - min(axis) or 1.0 for axis in axes]
    scaled = [tuple((v - a) / s for v, a, s in zip(point, low, span, strict=True)) for point in points]
    reference = (1.0,) * len(axes)
    order: list[int] = []
    left = list(range(len(points)))
    while left:
        chosen = [scaled[place] for place in order]
        best = max(left, key=lambda place: (hypervolume([*chosen, scaled[place]], reference), -place))
        order.append(best)
        left.remove(best)
    return order
