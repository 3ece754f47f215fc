"""When a decision counts, given the others; and how many fillings there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from nasdsl.semantics import conditions
from nasdsl.semantics.conditions import ALWAYS

Cases: TypeAlias = conditions.Condition[int]


@dataclass(frozen=True, slots=True)
class Condition:
    """When a decision counts: where the alternative is chosen, and the turn is there, in which its hole stands.

    Attributes:
        cases: one of these holds. A case is pairs (decision, alternatives): each of these decisions has one of these
            alternatives. All decisions come before the one whose condition it is.
    """

    cases: Cases

    @property
    def is_always(self) -> bool:
        """Whether the decision counts in every filling."""
        return self.cases == ALWAYS

    def holds(self, indices: Sequence[int] | Mapping[int, int]) -> bool:
        """Whether it holds for a filling, of which the decisions before this one suffice.

        Args:
            indices: the decisions, or those before this one.
        """
        return conditions.holds(self.cases, indices)

    def depends_on(self) -> set[int]:
        """The decisions that it names."""
        return {number for case in self.cases for number, _ in case}

    def changes(self, number: int, before: int, after: int) -> bool:
        """Whether it tells two alternatives of a decision apart.

        Args:
            number: of the decision whose alternatives are compared.
            before: one alternative.
            after: the other one.
        """
        return any(
            (before in alternatives) != (after in alternatives)
            for case in self.cases
            for n, alternatives in case
            if n == number
        )

    def __str__(self) -> str:
        """``always``, ``where 7 is 1``, ``where 0 is 2 or 3, and 4 is 1``."""
        if self.is_always:
            return "always"
        return "where " + "; or ".join(
            ", and ".join(f"{number} is {' or '.join(str(at) for at in sorted(found))}" for number, found in case)
            for case in self.cases
        )


def count_fillings(sizes: Sequence[int], cases: Sequence[Cases]) -> int:
    """Number of different fillings, of which each has the decisions whose conditions hold.

    Decisions that do not depend on each other multiply; of the others the first is decided, and what is left counted for each
    of its alternatives.

    Args:
        sizes: number of alternatives of each decision.
        cases: the condition of each, on decisions before it.
    """
    read = {number for condition in cases for case in condition for number, _ in case}
    left: dict[int, Cases] = {}
    merged, first = list(sizes), dict[Cases, int]()
    for number, condition in enumerate(cases):
        at = number if number in read else first.setdefault(condition, number)
        if at == number:
            left[number] = condition
        else:  # on both nothing depends, and they are there together: they count as one
            merged[at] *= sizes[number]
    return _count(left, merged, {})


_Counted: TypeAlias = dict[tuple[tuple[int, Cases], ...], int]
"""Fillings of decisions with what is left of their conditions, so that the same rest is counted once."""


def _count(left: dict[int, Cases], sizes: Sequence[int], counted: _Counted) -> int:
    total = 1
    for group in _groups(left):
        if len(group) == 1:
            total *= sizes[group[0]]
            continue
        key = tuple([(number, left[number]) for number in group])
        found = counted.get(key)
        if found is None:  # the condition of the first depends on nothing that is left
            found = counted[key] = _count_with(group[0], dict(key[1:]), sizes, counted)
        total *= found
    return total


def _count_with(first: int, rest: dict[int, Cases], sizes: Sequence[int], counted: _Counted) -> int:
    """Fillings of a decision and those that depend on it."""
    told_apart = list({alternatives for cases in rest.values() for case in cases for n, alternatives in case if n == first})
    alike: dict[tuple[bool, ...], list[int]] = {}
    for at in range(sizes[first]):
        alike.setdefault(tuple([at in alternatives for alternatives in told_apart]), []).append(at)
    total = 0
    for alternatives in alike.values():
        left = {number: _decided(cases, first, alternatives[0]) for number, cases in rest.items()}
        total += len(alternatives) * _count({number: cases for number, cases in left.items() if cases}, sizes, counted)
    return total


def _decided(cases: Cases, number: int, at: int) -> Cases:
    """A condition once a decision is made; no cases where it does not hold."""
    left = []
    for case in cases:
        if all(n != number or at in alternatives for n, alternatives in case):
            left.append(tuple([term for term in case if term[0] != number]))
            if not left[-1]:
                return ALWAYS
    return tuple(left)


def _groups(left: dict[int, Cases]) -> list[list[int]]:
    """Decisions that depend on each other, in ascending order."""
    root = {number: number for number in left}

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = root[root[number]]
            number = root[number]
        return number

    for number, cases in left.items():
        for case in cases:
            for other, _ in case:
                root[find(number)] = find(other)
    groups: dict[int, list[int]] = {}
    for number in sorted(left):
        groups.setdefault(find(number), []).append(number)
    return list(groups.values())
