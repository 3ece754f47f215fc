"""The decisions of a space: their alternatives, and what of a detector they decide."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from nasdsl.diagnostics import Span
from nasdsl.semantics.program import Program, Slot, SlotKind
from nasdsl.spaces.condition import Condition


@dataclass(frozen=True, slots=True)
class Domain:
    """One decision.

    Attributes:
        index: its number, in the order of the text.
        name: of the choice, ``pool``, or empty for a hole with its alternatives in place.
        kind: ``choice``, ``pool`` or ``range``.
        alternatives: text of each.
        condition: when it counts: the alternatives and turns in which the hole stands.
        span: the hole in the text.
        role: what of the detector it decides: ``size``, ``backbone`` or ``width`` (of fpn and head), ``fpn width`` or
            ``head width``; empty for all others.
        weights: how often samples hold each, in proportion to the others; empty where all are drawn alike.
    """

    index: int
    name: str
    kind: SlotKind
    alternatives: tuple[str, ...]
    condition: Condition
    span: Span
    role: str = ""
    weights: tuple[float, ...] = ()

    def draw(self, rng: random.Random) -> int:
        """The index of an alternative, drawn as often as its weight says.

        Args:
            rng: the generator to draw with; its state changes.
        """
        if self.weights:
            return rng.choices(range(self.size), self.weights)[0]
        return int(rng.random() * self.size)

    @property
    def size(self) -> int:
        """Number of alternatives."""
        return len(self.alternatives)

    def __len__(self) -> int:
        return len(self.alternatives)


def roles_of(program: Program) -> dict[int, str]:
    """What decisions decide of the detector, by number."""
    sections = {"": program.detector, "fpn ": program.fpn, "head ": program.head}
    roles: dict[int, set[str]] = {}
    for prefix, section in sections.items():
        for setting in section.settings if section is not None else ():
            value: Any = setting.value  # a program has slots where the tree has holes
            if isinstance(value, Slot) and (not prefix or setting.name == "width"):
                roles.setdefault(value.number, set()).add(prefix + setting.name)
    return {number: "width" if len(found) > 1 else found.pop() for number, found in roles.items()}
