"""Requirements of a decoder (``require macs <= 20G``): the quantities they limit, and which ones are violated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from nasdsl.backends.cost import Size, cost
from nasdsl.ir.graph import Graph
from nasdsl.syntax import ast

LATENCY: Final = "latency"
"""The quantity whose requirements are kept by `nasdsl latency` and by searches."""

DEFAULT_SIZE: Size = (800, 1088)
"""Image size of a requirement that names none, in a decoder that names none either."""


class Quantities(NamedTuple):
    """The quantities that requirements limit.

    Attributes:
        macs: multiply-accumulates of fpn and head for one image, by image size.
        params: parameters of fpn and head.
        dangling: number of dangling values.
        size: image size of the detector that the decoder is for, and of requirements that name none.
        calls: how often it calls the ops that requirements count.
    """

    macs: dict[Size, int]
    params: int
    dangling: int
    size: Size = DEFAULT_SIZE
    calls: Mapping[str, int] = {}


def counted_ops(requirements: Sequence[ast.Require]) -> tuple[str, ...]:
    """The ops whose calls requirements limit."""
    return tuple(dict.fromkeys(r.subject.name for r in requirements if r.subject is not None))


def quantity_of(requirement: ast.Require) -> str:
    """What a requirement limits, behind a number: ``macs``, ``calls of dconv_3x3``."""
    return requirement.quantity if requirement.subject is None else f"calls of {requirement.subject.name}"


def violations(requirements: Sequence[ast.Require], quantities: Quantities) -> list[tuple[ast.Require, int]]:
    """The violated requirements, each with the value that violates it.

    Those of a latency are passed over: it is measured, and not counted from a text.
    """
    violated = []
    for requirement in requirements:
        if requirement.quantity == LATENCY:
            continue
        if requirement.subject is not None:
            value = quantities.calls[requirement.subject.name]
        elif requirement.quantity == "macs":
            value = quantities.macs[requirement.size or quantities.size]
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


def macs_sizes(requirements: Sequence[ast.Require], own: Size | None = None) -> tuple[Size, ...]:
    """The image sizes for which requirements limit multiply-accumulates; at least one.

    Args:
        own: image size of the detector that the decoder is for.
    """
    size = own or DEFAULT_SIZE
    return tuple(dict.fromkeys(r.size or size for r in requirements if r.quantity != LATENCY)) or (size,)


def latency_requirements(requirements: Sequence[ast.Require]) -> list[ast.Require]:
    """The requirements of a latency, such as ``require latency <= 15ms on onnxruntime at 480x640``."""
    return [r for r in requirements if r.quantity == LATENCY]


def measure(graph: Graph, sizes: Sequence[Size], classes: int, dangling: int, own: Size | None = None) -> Quantities:
    """Count the quantities of a graph.

    Args:
        sizes: image sizes for which to count multiply-accumulates; at least one.
        classes: number of classes.
        dangling: number of dangling values, which the checker counts.
        own: image size of the detector that the decoder is for.
    """
    tables = {size: cost(graph, size, classes).decoder for size in sizes}
    macs = {size: t.macs for size, t in tables.items()}
    return Quantities(macs, tables[sizes[0]].params, dangling, own or DEFAULT_SIZE)
