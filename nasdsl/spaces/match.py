"""Encoding of a filled text as integers, by comparing its program with the program of the space."""

from __future__ import annotations

from typing import Any

from nasdsl.diagnostics import Span
from nasdsl.semantics.attributes import UNKNOWN, evaluate
from nasdsl.semantics.elaborate_body import body_of_block, body_of_op
from nasdsl.semantics.elaborate_expression import is_of_prelude
from nasdsl.semantics.primitives import SECTION
from nasdsl.semantics.program import (
    Assign,
    Body,
    Call,
    Merge,
    Output,
    Program,
    Ref,
    SetWord,
    Slot,
    Statement,
    Target,
    fill_value,
    find_slot,
)
from nasdsl.semantics.vocabulary import Block, Op
from nasdsl.syntax import ast


class NoMatch(Exception):
    """Raised for a text that is no filling of the space; holds the place."""

    def __init__(self, span: Span) -> None:
        super().__init__()
        self.span = span


def match(space: Program, text: Program) -> list[int]:
    """The indices that fill a space to this text; decisions in alternatives that are not chosen are 0.

    Both are compared as programs, so that layout, `repeat`, the order of attributes and the names of definitions do not
    matter.

    Raises:
        NoMatch: there are none; it holds the first place that differs.
    """
    matcher = _Matcher({})
    if space.name != text.name or [i.name for i in space.inputs] != [i.name for i in text.inputs]:
        raise NoMatch(text.span)
    matcher.words(space.words, text.words, text.span)
    parts = (
        (space.fpn, text.fpn), (space.head, text.head), (space.predict, text.predict), (space.detector, text.detector),
    )  # fmt: skip
    for wanted, found in parts:
        if (wanted is None) != (found is None):
            raise NoMatch(text.span)
    if space.detector is not None and text.detector is not None:
        matcher.settings(space.detector.settings, text.detector.settings, text.detector.keyword)
    if space.fpn is not None and text.fpn is not None:
        matcher.settings(space.fpn.settings, text.fpn.settings, text.fpn.keyword)
        matcher.adapter(space.fpn.adapter, text.fpn.adapter, text.fpn.keyword)
        matcher.statements(space.fpn.statements, text.fpn.statements, text.fpn.keyword)
    if space.head is not None and text.head is not None:
        matcher.settings(space.head.settings, text.head.settings, text.head.keyword)
        if [c.label for c in space.head.chains] != [c.label for c in text.head.chains]:
            raise NoMatch(text.head.span)
        for chain, other in zip(space.head.chains, text.head.chains, strict=True):
            if len(chain.steps) != len(other.steps):
                raise NoMatch(other.span)
            for step, found_step in zip(chain.steps, other.steps, strict=True):
                matcher.operand(step.call, found_step.call)
    if space.predict is not None and text.predict is not None:
        if space.predict.detector != text.predict.detector:
            raise NoMatch(text.predict.span)
        matcher.settings(space.predict.settings, text.predict.settings, text.predict.span)
    return [matcher.known.get(d.number, 0) for d in space.decisions]


class _Matcher:
    """Compares pieces of two programs; a method that finds a difference raises `NoMatch`.

    Attributes:
        known: the alternative of each decision that was met.
    """

    def __init__(self, known: dict[int, int]) -> None:
        self.known = known
        self._same: set[tuple[int, int]] = set()  # definitions without slots that are equal

    # ------------------------------------------------------------------------------------------ statements

    def words(self, wanted: tuple[SetWord, ...], found: tuple[SetWord, ...], place: Span) -> None:
        """The `let`s of a body. Those without holes are in place already, and may be missing."""
        left = list(found)
        for word in wanted:
            at = next((i for i, other in enumerate(left) if other.name == word.name), None)
            if at is None:
                if find_slot(word.value) or word.name in SECTION:
                    raise NoMatch(place)
                continue
            self.value(word.value, left[at].value, left[at].span)
            del left[: at + 1]

    def statements(self, wanted: tuple[Statement, ...], found: tuple[Statement, ...], place: Span) -> None:
        self.words(_words(wanted), _words(found), place)
        rest = [s for s in found if not isinstance(s, SetWord)]
        own = [s for s in wanted if not isinstance(s, SetWord)]
        for statement, other in zip(own, rest, strict=False):
            self.statement(statement, other)
        if len(own) != len(rest):
            raise NoMatch(rest[len(own)].span if len(rest) > len(own) else place)

    def statement(self, wanted: Statement, found: Statement) -> None:
        if isinstance(wanted, Assign) and isinstance(found, Assign):
            if [t and t.name for t in wanted.targets] != [t and t.name for t in found.targets]:
                raise NoMatch(found.span)
            self.operand(wanted.value, found.value)
        elif isinstance(wanted, Output) and isinstance(found, Output):
            if wanted.name != found.name:
                raise NoMatch(found.span)
            self.operand(wanted.value, found.value)
        elif isinstance(wanted, Merge) and isinstance(found, Merge):
            if len(wanted.targets) != len(found.targets):
                raise NoMatch(found.span)
            for target, other in zip(wanted.targets, found.targets, strict=True):
                self.operand(target, other)
        else:
            raise NoMatch(found.span)

    # ----------------------------------------------------------------------------------------- expressions

    def operand(self, wanted: Any, found: Any) -> None:
        if isinstance(wanted, Slot):
            self.slot(wanted, found, self.operand)
        elif isinstance(wanted, Ref):
            if not isinstance(found, Ref) or found.name != wanted.name:
                raise NoMatch(found.span)
        elif isinstance(wanted, Call) and isinstance(found, Call):
            self.call(wanted, found)
        else:
            raise NoMatch(found.span)

    def call(self, wanted: Call, found: Call) -> None:
        """A call whose target may be a slot, with attributes of its own: ``conv(k=3)``."""
        first: NoMatch | None = None
        for target, chosen in _targets(wanted.target, {}):
            if any(self.known.get(number, index) != index for number, index in chosen.items()):
                continue
            trial = _Matcher({**self.known, **chosen})
            trial._same = self._same
            try:
                if not isinstance(found.target, Target):
                    raise NoMatch(found.span)
                trial.callee(target, found.target)
                trial.settings(target.settings + wanted.settings, found.target.settings + found.settings, found.span)
                if len(wanted.operands) != len(found.operands):
                    raise NoMatch(found.span)
                for operand, other in zip(wanted.operands, found.operands, strict=True):
                    trial.operand(operand, other)
            except NoMatch as error:
                first = first or error
                continue
            self.known = trial.known
            return
        raise first if first is not None and isinstance(wanted.target, Target) else NoMatch(found.span)

    def slot(self, slot: Slot, found: Any, compare: Any, place: Span | None = None) -> None:
        """Choose the first alternative of a slot that equals what was found."""
        number = slot.number
        tried = range(len(slot.alternatives)) if number not in self.known else (self.known[number],)
        for index in tried:
            before = dict(self.known)
            self.known[number] = index
            try:
                compare(slot.alternatives[index], found)
            except NoMatch:
                self.known = before
                continue
            return
        raise NoMatch(place or found.span)

    def callee(self, wanted: Target, found: Target) -> None:
        a, b = wanted.callee, found.callee
        if a is b and a is not None:
            return
        key = id(a), id(b)
        if key in self._same:
            return
        if isinstance(a, Op) and isinstance(b, Op) and not is_of_prelude(a) and not is_of_prelude(b):
            self.op(a, b, found.span)
        elif isinstance(a, Block) and isinstance(b, Block):
            self.block(a, b, found.span)
        else:
            raise NoMatch(found.span)
        if not a.has_slots:  # the holes of a definition are filled afresh for each call
            self._same.add(key)

    def op(self, a: Op, b: Op, place: Span) -> None:
        if a.operands != b.operands or a.attributes != b.attributes:
            raise NoMatch(place)
        self.operand(body_of_op(a), body_of_op(b))

    def block(self, a: Block, b: Block, place: Span) -> None:
        body, other = _body(a), _body(b)
        if body.parameters != other.parameters or body.results != other.results:
            raise NoMatch(place)
        self.statements(body.statements, other.statements, place)

    # ------------------------------------------------------------------------------------ attribute values

    def adapter(self, wanted: Any, found: Any, place: Span) -> None:
        if isinstance(wanted, Slot):
            self.slot(wanted, found, lambda a, b: self.adapter(a, b, place), place)
        elif isinstance(wanted, Target) and isinstance(found, Target):
            self.callee(wanted, found)
        elif wanted is not None or found is not None:
            raise NoMatch(place)

    def settings(self, wanted: tuple[ast.Setting, ...], found: tuple[ast.Setting, ...], place: Span) -> None:
        """Compare attributes, in any order. Adapters are compared as what they mean."""
        wanted = tuple(s for s in wanted if s.name != "adapter")
        found = tuple(s for s in found if s.name != "adapter")
        if not wanted and not found:
            return
        if sorted(s.name for s in wanted) != sorted(s.name for s in found):
            raise NoMatch(place)
        others = {s.name: s for s in found}
        for setting in wanted:
            self.value(setting.value, others[setting.name].value, others[setting.name].span)

    def value(self, wanted: Any, found: Any, place: Span) -> None:
        """Compare attribute values; brackets around them do not matter."""
        while isinstance(wanted, ast.Group):
            wanted = wanted.inner
        while isinstance(found, ast.Group):
            found = found.inner
        if isinstance(wanted, Slot):
            self.slot(wanted, found, lambda a, b: self.value(a, b, place), place)
        elif type(wanted) is not type(found):
            if not self.is_same_number(wanted, found) and not _is_same_name(wanted, found):
                raise NoMatch(place)
        elif isinstance(wanted, ast.Arithmetic):
            if wanted.operator != found.operator:
                raise NoMatch(place)
            self.value(wanted.left, found.left, place)
            self.value(wanted.right, found.right, place)
        elif isinstance(wanted, ast.Negative):
            self.value(wanted.operand, found.operand, place)
        elif wanted != found:
            raise NoMatch(place)

    def is_same_number(self, wanted: Any, found: Any) -> bool:
        """Whether a value that is computed from decisions which are known is the number that was found."""
        if not isinstance(found, ast.Number) or not find_slot(wanted):
            return False
        try:
            return evaluate(fill_value(wanted, self.known), {}, []) == found.value  # type: ignore[arg-type]  # by number
        except KeyError:
            return False


def _is_same_name(wanted: Any, found: Any) -> bool:
    """Whether two values are one name, in quotes and without."""
    names = [v.value if isinstance(v, ast.Text) else v.name for v in (wanted, found) if isinstance(v, ast.Text | ast.Reference)]
    return len(names) == 2 and names[0] == names[1]


def _words(statements: tuple[Statement, ...]) -> tuple[SetWord, ...]:
    return tuple(s for s in statements if isinstance(s, SetWord) and (s.is_written or s.name in SECTION))


def _targets(target: Target | Slot, chosen: dict[int, int]) -> list[tuple[Target, dict[int, int]]]:
    """What may stand before the brackets, each with the indices that put it there."""
    if isinstance(target, Target):
        return [(target, chosen)]
    found: list[tuple[Target, dict[int, int]]] = []
    for index, alternative in enumerate(target.alternatives):
        if chosen.get(target.number, index) == index:
            found += _targets(alternative, {**chosen, target.number: index})
    return found


def _body(block: Block) -> Body:
    return body_of_block(block, dict.fromkeys(SECTION, UNKNOWN), [])
