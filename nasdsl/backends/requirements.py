"""What `require` bounds, counted, and which requirements a decoder breaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from nasdsl.backends.cost import Size, cost
from nasdsl.ir.graph import Graph
from nasdsl.syntax import ast

DEFAULT_SIZE: Size = (800, 1088)
"""Where a requirement names no size."""


class Quantities(NamedTuple):
    """What requirements bound: figures of fpn and head for one image, and the number of dangling blocks.

    `macs` has one entry for each size that the requirements name.
    """

    macs: dict[Size, int]
    params: int
    dangling: int


def violations(requirements: Sequence[ast.Require], figures: Quantities) -> list[tuple[ast.Require, int]]:
    """The requirements that figures break, each with the figure."""
    found = []
    for requirement in requirements:
        if requirement.quantity == "macs":
            value = figures.macs[requirement.size or DEFAULT_SIZE]
        else:
            value = figures.params if requirement.quantity == "params" else figures.dangling
        bound = requirement.bound.value
        kept = {
            "<=": value <= bound,
            ">=": value >= bound,
            "<": value < bound,
            ">": value > bound,
            "==": value == bound,
        }[requirement.comparison]
        if not kept:
            found.append((requirement, value))
    return found


def macs_sizes(requirements: Sequence[ast.Require]) -> tuple[Size, ...]:
    """The image sizes at which multiply-accumulates are bounded; at least one."""
    return tuple(dict.fromkeys(r.size or DEFAULT_SIZE for r in requirements)) or (DEFAULT_SIZE,)


def measure(graph: Graph, sizes: Sequence[Size], classes: int, dangling: int) -> Quantities:
    """The figures of a graph; `dangling` is counted by the checker."""
    tables = {size: cost(graph, size, classes).decoder for size in sizes}
    return Quantities({size: t.macs for size, t in tables.items()}, tables[sizes[0]].params, dangling)
