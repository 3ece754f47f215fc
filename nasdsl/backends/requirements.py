"""Requirements of a decoder (``require macs <= 20G``): the quantities they limit, and which ones are violated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nasdsl.backends.cost import Size, cost
from nasdsl.ir.graph import Graph
from nasdsl.syntax import ast

DEFAULT_SIZE: Size = (800, 1088)
"""Image size of a requirement that names none."""


class Quantities(NamedTuple):
    """The quantities that requirements limit.

    Attributes:
        macs: multiply-accumulates of fpn and head for one image, by image size.
        params: parameters of fpn and head.
        dangling: number of dangling values.
    """

    macs: dict[Size, int]
    params: int
    dangling: int


def violations(requirements: Sequence[ast.Require], quantities: Quantities) -> list[tuple[ast.Require, int]]:
    """The violated requirements, each with the value that violates it."""
    violated = []
    for requirement in requirements:
        if requirement.quantity == "macs":
            value = quantities.macs[requirement.size or DEFAULT_SIZE]
        else:
            value = quantities.params if requirement.quantity == "params" else quantities.dangling
        bound = requirement.bound.value
        holds = {
            "<=": value <= bound,
            ">=": value >= bound,
            "<": value < bound,
            ">": value > bound,
            "==": value == bound,
        }[requirement.comparison]
        if not holds:
            violated.append((requirement, value))
    return violated


def macs_sizes(requirements: Sequence[ast.Require]) -> tuple[Size, ...]:
    """The image sizes for which requirements limit multiply-accumulates; at least one."""
    return tuple(dict.fromkeys(r.size or DEFAULT_SIZE for r in requirements)) or (DEFAULT_SIZE,)


def measure(graph: Graph, sizes: Sequence[Size], classes: int, dangling: int) -> Quantities:
    """Count the quantities of a graph.

    Args:
        sizes: image sizes for which to count multiply-accumulates; at least one.
        classes: number of classes.
        dangling: number of dangling values, which the checker counts.
    """
    tables = {size: cost(graph, size, classes).decoder for size in sizes}
    return Quantities({size: t.macs for size, t in tables.items()}, tables[sizes[0]].params, dangling)
