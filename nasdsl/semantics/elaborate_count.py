"""Elaboration of counts: how often a `repeat` runs, and a step of a chain stands in a row. Holes may decide it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any, Final, Literal, NamedTuple

from nasdsl.diagnostics import Span
from nasdsl.diagnostics.catalogue import holes, types
from nasdsl.semantics.attributes import Unknown, evaluate
from nasdsl.semantics.conditions import ALWAYS, Branch, Condition, Open, expand, where
from nasdsl.semantics.elaborate_attribute import names_in, parts_of
from nasdsl.semantics.elaborate_expression import ExpressionElaborator
from nasdsl.semantics.program import Decision, Missing, Slot, fill_value, find_slot
from nasdsl.syntax import ast

MAX_COUNTS: Final = 500
"""Most counts that the holes of one count may give together."""


class Count(NamedTuple):
    """How often something is repeated.

    Attributes:
        ends: the first and the last number, or a `Branch` of such ends.
        turns: all numbers that some filling has.
    """

    ends: Any
    turns: range

    def parts(self) -> Iterator[tuple[Condition[Decision], range]]:
        """The turns that are there together, in their order, and when they are."""
        turns = self.turns
        if not isinstance(self.ends, Branch):
            yield ALWAYS, turns
            return
        changes = {at for first, last in _leaves(self.ends) for at in (first, last + 1) if at in turns}
        for first, end in pairwise(sorted({turns.start, *changes, turns.stop})):
            yield where(self.ends, partial(_has, first)), range(first, end)


def count(
    expressions: ExpressionElaborator, first: ast.Attribute | None, last: ast.Attribute, what: Literal["repeat", "step"]
) -> Count | None:
    """The count ``first..last``, or ``1..last`` where `first` is None.

    None where it is not known: with a diagnostic, or in the body of an op or a block whose attributes are not known.
    """
    low, high = 1 if first is None else _number(first), _number(last)
    if low is not None and high is not None and low <= high:  # what most counts are
        return Count((low, high), range(low, high + 1))
    values = [None if first is None else expressions.attribute(first, everything=True)]
    values.append(expressions.attribute(last, everything=True))
    if not _may_be_counted(expressions, values, last.span):
        return None
    is_unknown = False
    before = len(expressions.problems)

    def ask(known: Mapping[Any, int], _: int) -> Any:
        nonlocal is_unknown
        ends = []
        for value, place in zip(values, (last if first is None else first, last), strict=True):
            if value is None:
                ends.append(1)
                continue
            decision = _open_decision(value, known)
            if decision is not None:
                return Open(decision)
            numbers = defaultdict(int, {d.number: at for d, at in known.items()})  # of a hole with one alternative the first
            number = evaluate(fill_value(value, numbers), expressions.words, expressions.problems)
            if isinstance(number, Unknown):
                is_unknown = True
            elif not isinstance(number, int) or number < 0:
                is_unknown = True
                hole = next((d.span for d in known if _reads(value, d, known)), place.span)
                expressions.problems.append(types.repeat_count(hole, number, what, place.span))
            else:
                ends.append(number)
        if len(ends) == 2:
            return ends[0], ends[1]
        return 1, 0

    ends = expand(ask, expressions.condition, 2 * MAX_COUNTS)  # whose number is checked already
    if is_unknown:
        found = {(p.code, p.span): p for p in reversed(expressions.problems[before:])}  # of several values the first
        expressions.problems[before:] = found.values()
        return None
    leaves = _leaves(ends)
    runs = [leaf for leaf in leaves if leaf[0] <= leaf[1]]
    may_be_none = expressions.condition != ALWAYS and any(find_slot(v) for v in values)
    may_be_attribute = expressions.has_attributes and any([*names_in(first), *names_in(last)])
    if not runs and not may_be_none and not may_be_attribute:
        expressions.problems.append(types.no_rounds(last.span, *leaves[0], what))
        return None
    return Count(ends, range(min((a for a, _ in runs), default=1), max((b for _, b in runs), default=0) + 1))


def _number(node: ast.Attribute) -> int | None:
    """The integer that a text has, not less than zero; None for anything else."""
    return node.value if type(node) is ast.Number and isinstance(node.value, int) and node.value >= 0 else None


def _may_be_counted(expressions: ExpressionElaborator, values: list[Any], place: Span) -> bool:
    """Whether the holes give at most `MAX_COUNTS` counts; a diagnostic says so if not."""
    sizes: dict[Decision, int] = {}
    todo = list(values)
    while todo:
        value = todo.pop()
        if isinstance(value, Missing):
            return False  # reported already
        if isinstance(value, Slot):
            sizes[value.decision] = len(value.alternatives)
            todo += value.alternatives
        todo += parts_of(value)
    product = 1
    for size in sizes.values():
        product *= size
        if product > MAX_COUNTS:
            expressions.problems.append(holes.too_many_counts(place, MAX_COUNTS))
            return False
    return True


def _open_decision(value: Any, known: Mapping[Any, int]) -> Decision | None:
    """The first decision that a value depends on and that is not known. One of a single alternative is none to ask for."""
    if isinstance(value, Slot):
        index = known.get(value.decision, 0 if len(value.alternatives) == 1 else None)
        return value.decision if index is None else _open_decision(value.alternatives[index], known)
    found = (_open_decision(part, known) for part in parts_of(value))
    return next((decision for decision in found if decision is not None), None)


def _reads(value: Any, decision: Decision, known: Mapping[Any, int]) -> bool:
    """Whether a value depends on a decision, given the others."""
    return _open_decision(value, {d: at for d, at in known.items() if d is not decision}) is decision


def _has(turn: int, ends: tuple[int, int]) -> bool:
    return ends[0] <= turn <= ends[1]


def _leaves(ends: Any) -> list[tuple[int, int]]:
    if not isinstance(ends, Branch):
        return [ends]
    return [leaf for alternative in ends.alternatives for leaf in _leaves(alternative)]
