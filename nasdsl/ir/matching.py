"""Which nodes of two sections compute the same: the same layers of the same inputs, whatever they are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nasdsl.ir.canonical import Section
from nasdsl.ir.graph import Node

_MOST_MARKS = 32  # twins that are told apart one by one; beyond that, those that have the same names or the same order
_MOST_ROUNDS = 64


class Match(NamedTuple):
    """Nodes of two sections that compute the same.

    Attributes:
        pairs: target id to source id.
        operands: for each target id in `pairs`, the place of each of its operands among those of the source.
    """

    pairs: dict[str, str]
    operands: dict[str, tuple[int, ...]]


def match_nodes(
    source: Sequence[Node],
    target: Sequence[Node],
    source_outputs: Mapping[str, str],
    target_outputs: Mapping[str, str],
) -> Match:
    """Pair the nodes of two sections that compute the same sub-graph, from the inputs on.

    Operands of paired nodes are paired. Of several nodes that compute the same, those are paired that are read alike, and
    of those the ones of the same name. Of equal nodes without parameters, only the first is paired.

    Args:
        source, target: nodes, operands before their readers.
        source_outputs, target_outputs: output name to node id.
    """
    return _Matching(Section(source, source_outputs), Section(target, target_outputs)).run()


class _Matching:
    """Pairs nodes, those of equal colors; twins are marked when they are paired, so that their readers come apart."""

    def __init__(self, source: Section, target: Section) -> None:
        self.source, self.target = source, target
        self.pairs: dict[str, str] = {}
        self.free = {node.id for node in source.kept}
        self.marks: tuple[dict[str, bytes], dict[str, bytes]] = ({}, {})
        self._color()

    def run(self) -> Match:
        for node in self.target.kept:
            while node.id not in self.pairs:
                computed = self.colors[0][1][node.id]
                twins = [n.id for n in self.target.kept if n.id not in self.pairs and self.colors[0][1][n.id] == computed]
                candidates = [n.id for n in self.source.kept if n.id in self.free and self.colors[0][0][n.id] == computed]
                options = [(s, t) for t in twins for s in candidates if self._operands_match(s, t)]
                if not options:
                    break
                best = max(options, key=lambda pair: (self._agreement(*pair), pair[0] == pair[1]))
                self._pair(*best, ambiguous=len(twins) > 1 or len(candidates) > 1)
        return Match(self.pairs, {target: self._operand_places(source, target) for target, source in self.pairs.items()})

    def _operand_places(self, source: str, target: str) -> tuple[int, ...]:
        left = self.source.inputs(self.source.nodes[source])
        places = []
        for operand in self.target.inputs(self.target.nodes[target]):
            place = left.index(self.pairs[operand])
            left[place] = ""  # an operand may stand twice
            places.append(place)
        return tuple(places)

    def _pair(self, source: str, target: str, *, ambiguous: bool) -> None:
        self.pairs[target] = source
        self.free.discard(source)
        if ambiguous and len(self.marks[0]) < _MOST_MARKS:
            mark = str(len(self.marks[0])).encode()
            self.marks[0][source] = self.marks[1][target] = mark
            self._color()

    def _color(self) -> None:
        """Colors of both sections by round: of what is computed, then refined by the readers, again and again."""
        sections = (self.source, self.target)
        computed = [section.computed_colors(marks) for section, marks in zip(sections, self.marks, strict=True)]
        self.colors = [tuple(computed)]
        colors = [section.with_output_names(color) for section, color in zip(sections, computed, strict=True)]
        counts: list[int] = []
        for _ in range(_MOST_ROUNDS):
            self.colors.append(tuple(colors))
            before, counts = counts, [len(set(color.values())) for color in colors]
            if counts == before or counts == [len(color) for color in colors]:
                break
            colors = [section.refine(color) for section, color in zip(sections, colors, strict=True)]

    def _agreement(self, source: str, target: str) -> int:
        """The number of rounds in which two nodes have the same color."""
        return sum(left[source] == right[target] for left, right in self.colors)

    def _operands_match(self, source: str, target: str) -> bool:
        left = self.source.inputs(self.source.nodes[source])
        right = [self.pairs.get(i, "") for i in self.target.inputs(self.target.nodes[target])]
        return left == right if self.source.is_ordered(self.source.nodes[source]) else sorted(left) == sorted(right)
