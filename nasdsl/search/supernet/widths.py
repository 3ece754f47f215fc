"""Decisions of a space that only change widths, and the widest form of a filling."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from nasdsl.diagnostics import DiagnosticError
from nasdsl.ir.graph import Graph
from nasdsl.layers import Layer
from nasdsl.spaces import Space

PROBES: Final = 5
"""Fillings on which it is tried what a decision changes."""
_WIDTHS: Final = ("width", "groups")
"""Fields of layers that follow the width."""

Lower = Callable[[str], Graph]
"""Function from a filled text to its graph."""


class Widths:
    """The width decisions of a space: those among numbers that change nothing but the widths of layers.

    ``let w = ?(32 | 64)`` with ``fpn(width=w)`` is one; the sharing index of a head and the number of turns of a ``repeat`` are
    none.

    Args:
        lower: makes the graph of a filling.

    Attributes:
        decisions: their numbers.
    """

    def __init__(self, space: Space, lower: Lower, seed: int = 0) -> None:
        self._space, self._lower = space, lower
        values = {
            domain.index: [int(text) for text in domain.alternatives]
            for domain in space.domains
            if domain.size > 1 and all(text.isdigit() for text in domain.alternatives)
        }
        rng = random.Random(seed)
        probes = [_draw(space, rng) for _ in range(PROBES)] if values else []
        self.decisions = tuple(n for n, numbers in values.items() if self._is_width(n, numbers, probes))
        self._largest = {n: values[n].index(max(values[n])) for n in self.decisions}
        self._smallest = {n: values[n].index(min(values[n])) for n in self.decisions}

    def widest(self, indices: Sequence[int]) -> tuple[int, ...]:
        """The filling with all widths at their largest."""
        return tuple(self._largest.get(number, index) for number, index in enumerate(indices))

    def narrowest(self, indices: Sequence[int]) -> tuple[int, ...]:
        """The filling with all widths at their smallest."""
        return tuple(self._smallest.get(number, index) for number, index in enumerate(indices))

    def _is_width(self, number: int, values: list[int], probes: Sequence[Sequence[int]]) -> bool:
        changes = False
        for probe in probes:
            if not self._space.active(probe)[number]:
                continue
            least, most = (self._graph(probe, number, values.index(value)) for value in (min(values), max(values)))
            if least is None or most is None:
                continue
            if layer_kinds(least) != layer_kinds(most):
                return False
            changes = changes or _all_widths(least) != _all_widths(most)
        return changes

    def _graph(self, probe: Sequence[int], number: int, index: int) -> Graph | None:
        """The graph of a filling with another index of one decision; None if it cannot be built."""
        try:
            return self._lower(self._space.decode([*probe[:number], index, *probe[number + 1 :]]))
        except DiagnosticError:
            return None


def layer_kinds(graph: Graph) -> dict[str, tuple[object, ...]]:
    """What each layer computes, but for its width, by the path of its parameters."""
    kinds: dict[str, tuple[object, ...]] = {f"fpn.{node.id}": (kind(node.layer), node.inputs) for node in graph.nodes}
    for tower in graph.head.chains:
        for layer in tower.layers:
            kinds |= {
                f"head.{tower.name}.{layer.index}.{node.id}": (
                    kind(node.layer),
                    node.inputs,
                    layer.shared,
                    layer.norms_per_level,
                )
                for node in layer.nodes
            }
    return kinds


def kind(layer: Layer) -> str:
    """What a layer computes, but for its width."""
    fields = getattr(layer, "__dataclass_fields__", {})
    shown = {name: getattr(layer, name) for name in fields if name not in _WIDTHS}
    grouped = getattr(layer, "groups", 1) != 1
    return f"{type(layer).__name__}{'*' if grouped else ''} {shown}"


def _all_widths(graph: Graph) -> list[int]:
    return [node.out.width for node in graph.nodes] + [tower.width for tower in graph.head.chains]


def _draw(space: Space, rng: random.Random) -> tuple[int, ...]:
    return tuple(int(rng.random() * domain.size) for domain in space.domains)
