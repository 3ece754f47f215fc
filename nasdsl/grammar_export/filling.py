"""The fillings of a space as rules: every text that the rules give is a filling, but for what the notes name.

The tokens of a filling are a row with choices in it, and with parts that depend on choices made before: a turn of a `repeat`, a
definition that an alternative calls, a hole that is read twice. A grammar without context cannot look back, so a rule stands
for a place in the row together with what later parts need to know of the choices so far. Places that need to know nothing are
written where they are; the number of rules grows with what has to be remembered, and not with the number of fillings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from nasdsl.grammar_export import expressions as grammar
from nasdsl.grammar_export.expressions import EMPTY, Expression, Gap, Literal, Rule, optional, sequence
from nasdsl.semantics.conditions import ALWAYS, Condition, first_open, truth
from nasdsl.spaces.tokens import Choice, Item, Needed, Piece

MAX_RULES: Final = 2_000
"""Rules of a grammar, and alternatives in them. Where it would take more, dependence between holes is left out."""

_MAX_ALTERNATIVES: Final = 100_000

_State: TypeAlias = tuple[tuple[int, ...], tuple[tuple[int, int], ...]]


class TooManyRules(Exception):
    """Raised where a space needs more than `MAX_RULES`."""


@dataclass(frozen=True, eq=False, slots=True)
class _Place:
    """A place in the row: what comes next, and what follows.

    Attributes:
        conditions: those of all parts from here on.
        numbers: the decisions that choices from here on make.
    """

    item: Item
    rest: _Place | None
    conditions: Mapping[Condition[int], None]
    numbers: frozenset[int]

    def depends_on(self, number: int) -> bool:
        """Whether anything from here on depends on a decision."""
        return number in self.numbers or any(
            number == n for condition in self.conditions for case in condition for n, _ in case
        )


@dataclass
class FillingRules:
    """Makes the rules of a space.

    Args:
        items: of `nasdsl.spaces.tokens.items_of`.
        names: of the decisions, by number: what the rule of a choice is called.
        is_one_line: as `Space.decode` prints, with its spaces; else with any gaps, and with ``;`` or without.
        free: conditions that are left out: what depends on them is optional.
        ties: whether two choices of one decision are one.
    """

    items: tuple[Item, ...]
    names: Mapping[int, str]
    is_one_line: bool = True
    free: frozenset[Condition[int]] = frozenset()
    ties: bool = True
    rules: dict[str, Expression] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._places: dict[tuple[int, int, int], _Place | None] = {}
        self._names: dict[tuple[int, _State, str], str] = {}
        self._waiting: list[tuple[str, _Place, dict[int, int], str]] = []
        self._choices: dict[Expression, str] = {}
        self._used: set[str] = {"start", "root", "gap", "end"}
        self._count = 0
        self._decisions: dict[Condition[int], tuple[int, ...]] = {}
        self._left: dict[tuple[Condition[int], tuple[int | None, ...]], int] = {}
        self._rests: dict[Condition[int], int] = {}

    def write(self) -> dict[str, Expression]:
        """The rules; the first is ``root``, a filling without what may stand around it.

        Raises:
            TooManyRules: there would be too many.
        """
        place = self._push(self.items, None)
        assert place is not None
        self.rules["root"] = EMPTY
        self._waiting.append(("root", place, {}, "start"))
        while self._waiting:
            name, place, known, before = self._waiting.pop()
            self.rules[name], _ = self._from(place, known, before)
        return self.rules

    # ------------------------------------------------------------------------------------------- places

    def _push(self, items: tuple[Item, ...], rest: _Place | None) -> _Place | None:
        for item in reversed(items):
            conditions = dict(rest.conditions) if rest is not None else {}
            inner = conditions_in((item,))
            numbers = frozenset(_numbers_in((item,))) | (rest.numbers if rest is not None else frozenset())
            rest = _Place(item, rest, {**dict.fromkeys(c for c in inner if c not in self.free), **conditions}, numbers)
        return rest

    def _pushed(self, item: Choice | Needed, at: int, items: tuple[Item, ...], rest: _Place | None) -> _Place | None:
        """The place of `items` in front of `rest`: the same object each time, so that rules find it again."""
        key = (id(item), at, id(rest))
        if key not in self._places:
            self._places[key] = self._push(items, rest)
        return self._places[key]

    def _state(self, place: _Place | None, known: Mapping[int, int]) -> _State:
        """What a place needs to know of the choices so far."""
        if place is None:
            return ((), ())
        left = tuple([self._left_of(condition, known) for condition in place.conditions])
        tied = tuple(sorted((n, at) for n, at in known.items() if n in place.numbers)) if self.ties else ()
        return left, tied

    def _left_of(self, condition: Condition[int], known: Mapping[int, int]) -> int:
        """A number for what is left of a condition, the same for the same rest."""
        if condition not in self._decisions:
            self._decisions[condition] = tuple(sorted({number for case in condition for number, _ in case}))
        key = (condition, tuple([known.get(number) for number in self._decisions[condition]]))
        if key not in self._left:
            self._left[key] = self._rests.setdefault(_left_of(condition, known), len(self._rests))
        return self._left[key]

    # ------------------------------------------------------------------------------------------- expressions

    def _rule(self, place: _Place | None, known: dict[int, int], before: str) -> Expression:
        """What follows from a place, as a rule of its own."""
        if place is None:
            return EMPTY
        key = (id(place), self._state(place, known), before)
        if key not in self._names:
            self._names[key] = name = self._fresh("rest")
            self.rules[name] = EMPTY
            if len(self.rules) > MAX_RULES:
                raise TooManyRules
            self._waiting.append((name, place, known, before))
        return Rule(self._names[key])

    def _from(self, place: _Place | None, known: dict[int, int], before: str) -> tuple[Expression, str]:
        """What follows from a place, and the kind of its last token.

        Args:
            before: the kind of the token in front: ``word``, ``sign`` or ``semicolon``; ``start`` if there is none; empty if it
                is not known.
        """
        parts: list[Expression] = []
        while place is not None:
            item, rest = place.item, place.rest
            if isinstance(item, Piece):
                parts.append(self._token(item, before))
                before = _kind(item)
                place = rest
            elif isinstance(item, Needed):
                there = truth(item.condition, known)
                if item.condition in self.free:
                    inner, _ = self._from(self._pushed(item, 0, item.items, None), known, before)
                    parts.append(optional(inner))
                    before, place = "", rest
                elif there is None:
                    number = first_open(item.condition, known)
                    ways: dict[_State, dict[int, int]] = {}
                    for at in range(item.sizes[number]):
                        ways.setdefault(self._state(place, {**known, number: at}), {**known, number: at})
                    if len(ways) > 1:
                        return sequence([*parts, self._one_of([self._rule(place, k, before) for k in ways.values()])]), ""
                    known = next(iter(ways.values()))
                else:
                    place = self._pushed(item, 0, item.items, rest) if there else rest
            elif self.ties and item.number in known:
                at = known[item.number]
                place = self._pushed(item, at, item.alternatives[at], rest)
            else:
                found = self._choice(item, rest, known, before)
                parts.append(found[0])
                if found[1] is None:
                    return sequence(parts), ""
                known, before, place = found[1], found[2], rest
        return sequence(parts), before

    def _choice(
        self, item: Choice, rest: _Place | None, known: dict[int, int], before: str
    ) -> tuple[Expression, dict[int, int] | None, str]:
        """A choice, with what is known behind it and the kind of the last token; or with all that follows, and None."""
        groups: dict[_State, list[Expression]] = {}
        states: dict[_State, dict[int, int]] = {}
        ends: set[str] = set()
        threaded: list[Expression] = []
        for at, alternative in enumerate(item.alternatives):
            made = {**known, item.number: at}
            if rest is not None and any(n not in made and rest.depends_on(n) for n in _all_numbers(alternative)):
                threaded.append(self._rule(self._pushed(item, at, alternative, rest), made, before))
                continue
            expression, end = self._from(self._pushed(item, at, alternative, None), made, before)
            state = self._state(rest, made)
            groups.setdefault(state, []).append(expression)
            states.setdefault(state, made)
            ends.add(end)
        end = ends.pop() if len(ends) == 1 else ""
        if len(groups) == 1 and not threaded:
            (state,) = groups
            return self._named(groups[state], item.number), states[state], end
        found = [
            sequence([self._named(group, item.number), self._rule(rest, states[state], end)]) for state, group in groups.items()
        ]
        return self._one_of([*found, *threaded]), None, ""

    def _one_of(self, found: list[Expression]) -> Expression:
        self._count += len(found)
        if self._count > _MAX_ALTERNATIVES:
            raise TooManyRules
        return grammar.choice(found)

    def _named(self, alternatives: list[Expression], number: int) -> Expression:
        """A choice; of several alternatives, it is a rule, which has the name of the decision."""
        begin, alternatives = _common_begin(alternatives)
        made = self._one_of(alternatives)
        if isinstance(made, grammar.Choice):
            if made not in self._choices:
                self._choices[made] = name = self._fresh(self.names[number])
                self.rules[name] = made
            made = Rule(self._choices[made])
        return sequence([*begin, made])

    def _fresh(self, name: str) -> str:
        stem = name.lower().strip("_") or "hole"
        made, number = stem, 1
        while made in self._used:
            number += 1
            made = f"{stem}_{number}"
        self._used.add(made)
        return made

    def _token(self, piece: Piece, before: str) -> Expression:
        if self.is_one_line:
            token = Literal(" " * (piece.is_spaced and before != "start") + str(piece))
            return optional(token) if piece.is_optional else token
        if piece == ";":
            return EMPTY  # written with the token behind it
        if before == "semicolon":
            gap = grammar.choice([sequence([Gap(), Literal(";"), Gap()]), Gap(piece.is_spaced)])
        else:
            gap = Gap(piece.is_spaced and before != "sign" and _kind(piece) == "word")
        return sequence([gap, Literal(str(piece))] if before != "start" else [Literal(str(piece))])


def _common_begin(alternatives: list[Expression]) -> tuple[list[Expression], list[Expression]]:
    """The space or gap that all alternatives begin with, in front of them."""
    parts = [a.parts if isinstance(a, grammar.Sequence) else (a,) for a in alternatives]
    first = [p[0] if p else EMPTY for p in parts]
    if all(isinstance(f, Literal) and f.text[0] == " " and len(f.text) > 1 for f in first):
        cut = [Literal(f.text[1:]) if isinstance(f, Literal) else f for f in first]
        return [Literal(" ")], [sequence([c, *p[1:]]) for c, p in zip(cut, parts, strict=True)]
    if len(set(first)) == 1 and isinstance(first[0], Gap) and all(len(p) > 1 for p in parts):
        return [first[0]], [sequence(p[1:]) for p in parts]
    return [], alternatives


def _kind(piece: Piece) -> str:
    if piece == ";":
        return "semicolon"
    return "word" if piece[-1].isalnum() or piece[-1] == "_" else "sign"


def _left_of(condition: Condition[int], known: Mapping[int, int]) -> Condition[int]:
    """What is left of a condition; none of its cases where it does not hold."""
    left = []
    for case in condition:
        if all(number not in known or known[number] in alternatives for number, alternatives in case):
            left.append(tuple([term for term in case if term[0] not in known]))
            if not left[-1]:
                return ALWAYS
    return tuple(dict.fromkeys(left))


def conditions_in(items: Iterable[Item]) -> dict[Condition[int], None]:
    """The conditions in items, in their order, each once."""
    found: dict[Condition[int], None] = {}
    for item in items:
        if isinstance(item, Needed):
            found[item.condition] = None
            found |= conditions_in(item.items)
        elif isinstance(item, Choice):
            for alternative in item.alternatives:
                found |= conditions_in(alternative)
    return found


def _numbers_in(items: Iterable[Item]) -> set[int]:
    """The decisions that choices in items make."""
    found: set[int] = set()
    for item in items:
        if isinstance(item, Needed):
            found |= _numbers_in(item.items)
        elif isinstance(item, Choice):
            found.add(item.number)
            for alternative in item.alternatives:
                found |= _numbers_in(alternative)
    return found


def _all_numbers(items: tuple[Item, ...]) -> set[int]:
    """The decisions that choices in items make, or conditions in them name."""
    return _numbers_in(items) | {n for condition in conditions_in(items) for case in condition for n, _ in case}
