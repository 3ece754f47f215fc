"""Routes of a diagram's arrows: from the right side of a box, past those between, to the left side of another one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from nasdsl.backends.diagrams.diagram import Arrow

STRAIGHT_END = 34.0
"""Length of the straight end of an arrow, on which the mark of a resize is drawn."""
PORT_DISTANCE = 13.0
"""Distance between arrows that end at one box, so that their marks do not overlap."""


class Point(NamedTuple):
    x: float
    y: float


class Rectangle(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    @property
    def center(self) -> Point:
        return Point((self.left + self.right) / 2, (self.top + self.bottom) / 2)


class Route(NamedTuple):
    """Route of an arrow: control points of a chain of cubic curves, the tip, and the position of the mark."""

    curve: tuple[Point, ...]
    tip: Point
    mark: Point


def connect(
    arrows: Sequence[Arrow],
    boxes: Mapping[str, Rectangle],
    passages: Sequence[Sequence[Rectangle]] | None = None,
    upward: Iterable[Arrow] = (),
) -> list[Route]:
    """Routes from the right side of each arrow's source to the left side of its target, with the ends spread over the sides.

    Args:
        passages: where each arrow crosses columns.
        upward: arrows between outputs, which run vertically.
    """
    crossings = passages or [()] * len(arrows)
    vertical = set(upward)
    leaving: dict[str, list[tuple[float, int]]] = {}
    entering: dict[str, list[tuple[float, int]]] = {}
    for index, (arrow, crossed) in enumerate(zip(arrows, crossings, strict=True)):
        if arrow not in vertical:
            leaving.setdefault(arrow.source, []).append((crossed[0].top if crossed else boxes[arrow.target].center.y, index))
            entering.setdefault(arrow.target, []).append((crossed[-1].top if crossed else boxes[arrow.source].center.y, index))
    start, end = _ports(leaving, boxes), _ports(entering, boxes)
    routes = []
    for index, (arrow, crossed) in enumerate(zip(arrows, crossings, strict=True)):
        source, target = boxes[arrow.source], boxes[arrow.target]
        if arrow in vertical:
            routes.append(_upward(source, target))
            continue
        points = [Point(source.right, start[index])]
        for passage in crossed:
            points += [Point(passage.left, passage.top), Point(passage.right, passage.top)]
        tip = Point(target.left, end[index])
        run = min(STRAIGHT_END if arrow.mark else 12.0, (tip.x - points[-1].x) / 2)
        points += [Point(tip.x - run, tip.y), Point(tip.x - 6.0, tip.y)]
        routes.append(Route(_curve(points), tip, Point(tip.x - 20.0, tip.y)))
    return routes


def _ports(ends: Mapping[str, list[tuple[float, int]]], boxes: Mapping[str, Rectangle]) -> dict[int, float]:
    ports = {}
    for name, found in ends.items():
        box = boxes[name]
        step = min((box.bottom - box.top) / len(found), PORT_DISTANCE)
        for place, (_, index) in enumerate(sorted(found)):
            ports[index] = box.center.y + step * (place - (len(found) - 1) / 2)
    return ports


def _curve(points: Sequence[Point]) -> tuple[Point, ...]:
    """Chain of cubic curves through points, horizontal at every point."""
    curve = [points[0]]
    for before, after in pairwise(points):
        half = (after.x - before.x) / 2
        curve += [Point(before.x + half, before.y), Point(after.x - half, after.y), after]
    return tuple(curve)


def _upward(source: Rectangle, target: Rectangle) -> Route:
    """Vertical route between two outputs, which stand above each other."""
    up = target.top < source.top
    begin = Point(source.center.x, source.top if up else source.bottom)
    tip = Point(target.center.x, target.bottom if up else target.top)
    end = Point(tip.x, tip.y + (6.0 if up else -6.0))
    third = (end.y - begin.y) / 3
    curve = (begin, Point(begin.x, begin.y + third), Point(end.x, end.y - third), end)
    return Route(curve, tip, Point(tip.x, (begin.y + tip.y) / 2))
