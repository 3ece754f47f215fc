"""When a statement, a layer of a chain or a hole is there: conditions on the decisions of a space.

A condition is a tuple of cases, of which one must hold. A case is a tuple of terms, all of which must hold. A term is a key (a
`Decision`, or its number) with the alternatives that the decision may have. A condition names everything that it depends on:
that of a hole in the third turn of a `repeat` which stands in an alternative of another hole has a term for each of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

K = TypeVar("K", bound=Hashable)
Case: TypeAlias = tuple[tuple[K, frozenset[int]], ...]
Condition: TypeAlias = tuple[Case[K], ...]

ALWAYS: Final[tuple[tuple[()]]] = ((),)
"""The condition that always holds."""

NEVER: Final[tuple[()]] = ()
"""The condition that never holds."""


MAX_CASES: Final = 32
"""Most cases of a condition."""

MAX_DEPENDENCIES: Final = 64
"""Most decisions that what a name means may depend on."""

MAX_ANSWERS: Final = 4_000
"""Most combinations of decisions by which what a name means is told apart."""


class TooMany(Exception):
    """Raised where more decisions decide something than `MAX_DEPENDENCIES`, or in more than `MAX_ANSWERS` ways."""


class Branch(NamedTuple):
    """What depends on a decision: something for each of its alternatives, which may be a further branch."""

    decision: Any
    alternatives: tuple[Any, ...]


def both(first: Condition[K], second: Condition[K]) -> Condition[K]:
    """The condition that two conditions hold."""
    if first == ALWAYS:
        return second
    if second == ALWAYS:
        return first
    found: dict[Case[K], None] = {}
    for case in first:
        for other in second:
            terms = dict(case)
            for key, alternatives in other:
                terms[key] = terms[key] & alternatives if key in terms else alternatives
            if all(terms.values()):
                found[tuple(terms.items())] = None
    return tuple(found)


def implies(first: Condition[K], second: Condition[K]) -> bool:
    """Whether a condition can be seen to hold where another one holds; False where it takes more than comparing cases."""
    return all(any(_is_part(case, other) for other in second) for case in first)


def _is_part(case: Case[K], other: Case[K]) -> bool:
    if case is other:
        return True
    terms = dict(case)
    return all(key in terms and terms[key] <= alternatives for key, alternatives in other)


def truth(condition: Condition[K], known: Mapping[K, int]) -> bool | None:
    """Whether a condition holds where some decisions are known; None where it depends on the others."""
    is_open = False
    for case in condition:
        state: bool | None = True
        for key, alternatives in case:
            index = known.get(key)
            if index is None:
                state = None
            elif index not in alternatives:
                state = False
                break
        if state:
            return True
        is_open = is_open or state is None
    return None if is_open else False


def first_open(condition: Condition[K], known: Mapping[K, int]) -> K:
    """The first decision that a condition depends on where some are known; `truth` is None there."""
    for case in condition:
        if all(key not in known or known[key] in alternatives for key, alternatives in case):
            return next(key for key, _ in case if key not in known)
    raise ValueError("nothing is open")


def holds(condition: Condition[Any], indices: Sequence[int] | Mapping[int, int]) -> bool:
    """Whether a condition holds for a filling. Inactive decisions may have any index.

    Args:
        condition: on decisions or their numbers; with a mapping of `indices`, on their numbers.
    """
    for case in condition:
        for number, alternatives in case:
            if indices[number] not in alternatives:
                break
        else:
            return True
    return False


def numbered(condition: Condition[Any]) -> Condition[int]:
    """A condition on decisions as one on their numbers."""
    return tuple([tuple([(decision.number, alternatives) for decision, alternatives in case]) for case in condition])


def where(tree: Any, test: Callable[[Any], bool]) -> Condition[Any]:
    """When what a `Branch` leads to passes a test."""
    if not isinstance(tree, Branch):
        return ALWAYS if test(tree) else NEVER
    groups: dict[Condition[Any], set[int]] = {}
    for at, alternative in enumerate(tree.alternatives):
        groups.setdefault(where(alternative, test), set()).add(at)
    if len(groups) == 1:
        return next(iter(groups))
    return tuple(((tree.decision, frozenset(found)), *case) for condition, found in groups.items() for case in condition)


def expand(ask: Callable[[Mapping[Any, int], int], Any], context: Condition[Any], limit: int = MAX_ANSWERS) -> Any:
    """Ask a question until it is answered, deciding what it depends on.

    Args:
        ask: gives an answer where some decisions are known, or, as `Open`, the decision that the answer depends on. It is also
            given the `Open.at` of where fewer were known, 0 at first.
        context: what holds where the answer is needed; alternatives that contradict it are not asked for.
        limit: most questions.

    Returns:
        the answer, or a `Branch` of answers. Alternatives that contradict the context have any answer.

    Raises:
        TooMany: it depends on too many decisions.
    """
    asked = 0

    def following(known: dict[Any, int], since: int) -> Any:
        nonlocal asked
        asked += 1
        if asked > limit or len(known) > MAX_DEPENDENCIES:
            raise TooMany
        answer = ask(known, since)
        if not isinstance(answer, Open):
            return answer
        decision = answer.decision
        found = {}
        for at in range(len(decision.texts)):
            more = {**known, decision: at}
            if truth(context, more) is not False:
                found[at] = following(more, answer.at)
        first = next(iter(found.values()))
        if all(other == first for other in found.values()):
            return first
        return Branch(decision, tuple([found.get(at, first) for at in range(len(decision.texts))]))

    return following({}, 0)


class Open(NamedTuple):
    """The decision that an answer depends on.

    Attributes:
        at: how many of the things that are looked at in turn have no part in the answer, however much more is known.
    """

    decision: Any
    at: int = 0


# ---------------------------------------------------------------------------------------------- values by condition


class Cases(NamedTuple):
    """A name that does not mean the same value in every filling: the first whose condition holds; none if no condition does.

    The values are unique names of a body; None is one whose mistake is reported already.
    """

    cases: tuple[tuple[Condition[Any], str | None], ...]


class Unbound(NamedTuple):
    """Nothing: the name is bound in other fillings."""


Bound: TypeAlias = "str | Cases | None"
"""What a name in scope means."""


def cases_of(value: Bound | Unbound) -> tuple[tuple[Condition[Any], str | None], ...]:
    """A value as cases."""
    if isinstance(value, Unbound):
        return ()
    return value.cases if isinstance(value, Cases) else ((ALWAYS, value),)


def bound_if(condition: Condition[Any], value: Bound, otherwise: Bound | Unbound) -> Cases:
    """What a name means behind statements that are not always there."""
    inner, outer = cases_of(value), cases_of(otherwise)
    if inner[len(inner) - len(outer) :] == outer:  # what a `repeat` in there leaves as it was
        inner = inner[: len(inner) - len(outer)]
    found = [(both(condition, c), v) for c, v in inner]
    if outer and any(c == outer[0][0] for c, _ in found):  # what an earlier turn of a `repeat` bound in the same fillings
        outer = outer[1:]
    return Cases((*((c, v) for c, v in found if c), *outer))


def meaning(value: Bound, context: Condition[Any]) -> Any:
    """The unique name that a value has where a condition holds, or a `Branch` of such names; `Unbound` where there is none."""
    if not isinstance(value, Cases):
        return value
    if implies(context, value.cases[0][0]):  # as in a turn of a `repeat` what the turn before it has bound
        return value.cases[0][1]

    def ask(known: Mapping[Any, int], since: int) -> Any:
        for at in range(since, len(value.cases)):
            condition, name = value.cases[at]
            state = truth(condition, known)
            if state:
                return name
            if state is None:
                return Open(first_open(condition, known), at)
        return Unbound()

    return expand(ask, context)


def is_bound(meant: Any) -> bool:
    """Whether a meaning is a value in each of its alternatives."""
    if isinstance(meant, Branch):
        return all(is_bound(alternative) for alternative in meant.alternatives)
    return not isinstance(meant, Unbound)
