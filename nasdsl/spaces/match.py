"""Encoding of a filled text as integers, by comparing its program with the program of the space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

from nasdsl.diagnostics import Span
from nasdsl.semantics.attributes import UNKNOWN, evaluate
from nasdsl.semantics.conditions import ALWAYS, Condition, first_open, numbered, truth
from nasdsl.semantics.elaborate_body import body_of_block, body_of_op
from nasdsl.semantics.primitives import SECTION
from nasdsl.semantics.program import (
    Assign,
    Binding,
    Call,
    FpnProgram,
    HeadProgram,
    Merge,
    Nothing,
    Output,
    Program,
    Ref,
    SetWord,
    Shared,
    Slot,
    Statement,
    Target,
    When,
    find_slot,
    present,
)
from nasdsl.semantics.signature import words_of_call
from nasdsl.semantics.vocabulary import Block, Definition, Op, is_of_prelude
from nasdsl.spaces.match_values import NoMatch, ValueMatcher
from nasdsl.syntax import ast


def match(space: Program, text: Program) -> list[int]:
    """The indices that fill a space to this text; decisions in alternatives that are not chosen are 0.

    Both are compared as programs, so that layout, `repeat`, the order of attributes and the names of definitions do not
    matter. Of several lists of indices that give the same text, as two layers in a row that are both repeated may, it is the
    first.

    Raises:
        NoMatch: there are none; it holds the first place that differs.
    """
    try:
        return _match(space, text, are_names_exact=True)
    except NoMatch:
        if not _has_turns(space):
            raise
    # A text that was written with `repeat` numbers the values behind it otherwise than one with all turns.
    return _match(space, text, are_names_exact=False)


def _match(space: Program, text: Program, *, are_names_exact: bool) -> list[int]:
    matcher = _Matcher({}, [len(d.texts) for d in space.decisions], are_names_exact=are_names_exact)
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
        matcher.words_here = _section_words(text.fpn)
        matcher.adapter(space.fpn.adapter, text.fpn.adapter, text.fpn.keyword)
        matcher.statements(space.fpn.statements, text.fpn.statements, text.fpn.keyword)
    if space.head is not None and text.head is not None:
        matcher.settings(space.head.settings, text.head.settings, text.head.keyword)
        if [c.label for c in space.head.chains] != [c.label for c in text.head.chains]:
            raise NoMatch(text.head.span)
        matcher.words_here = _section_words(text.head)
        for chain, other in zip(space.head.chains, text.head.chains, strict=True):
            pairs = [(step.call, numbered(step.condition)) for step in chain.steps]
            matcher.sequence(pairs, [step.call for step in other.steps], other.span, _Matcher.operand)
    if space.predict is not None and text.predict is not None:
        if space.predict.detector != text.predict.detector:
            raise NoMatch(text.predict.span)
        own, theirs = (tuple(s for s in predict.settings if s.name != "conv") for predict in (space.predict, text.predict))
        matcher.settings(own, theirs, text.predict.span)
        matcher.adapter(space.predict.conv, text.predict.conv, text.predict.span)
    return [matcher.known.get(d.number, 0) for d in space.decisions]


def _section_words(section: FpnProgram | HeadProgram) -> dict[str, Any]:
    """What ``width``, ``norm`` and ``act`` mean in a section of a text, in front of its statements."""
    values = section.values or {}
    return {name: values.get(name, UNKNOWN) for name in SECTION}


class _Pairing:
    """Statements or layers of a space, of which conditions decide whether they are there, and those of a text.

    Attributes:
        failed: by `state`, the rests of the two that do not match, with the place that differs. There are exponentially many
            ways to cut up layers in a row that are alike, and few different rests.
    """

    def __init__(
        self, wanted: Sequence[tuple[Any, Condition[int]]], found: Sequence[Any], place: Span,
        compare: Callable[[_Matcher, Any, Any], None],
    ) -> None:  # fmt: skip
        self.wanted, self.found, self.place, self.compare = wanted, found, place, compare
        self.failed: dict[Any, NoMatch] = {}

    @cached_property
    def _decisions(self) -> list[set[int] | None]:
        """The decisions that matter from each part on; None: others may."""
        found: list[set[int] | None] = []
        later: set[int] | None = set()
        for part, condition in reversed(self.wanted):
            own = _decisions_in(part)
            if later is not None:
                named = {number for case in condition for number, _ in case}
                later = None if own is None else later | own | named
            found.append(later)
        return found[::-1]

    def state(self, first: int, at: int, known: Mapping[int, int], names: frozenset[tuple[str, str]]) -> Any:
        """What decides whether the rests match; None where it may be more than can be told."""
        matter = self._decisions[first]
        if matter is None:
            return None
        return first, at, names, *((number, known[number]) for number in matter if number in known)


def _decisions_in(part: Any) -> set[int] | None:
    """The decisions that a statement or a layer reads; None where the body of something with holes may read others."""
    numbers: set[int] = set()
    todo = [part]
    while todo:
        node = todo.pop()
        if isinstance(node, Slot):
            numbers.add(node.number)
            todo += node.alternatives
        elif (
            isinstance(node, Shared)
            or (isinstance(node, Op | Block) and node.has_slots)
            or (isinstance(node, Target) and isinstance(node.callee, str))
        ):
            return None
        elif isinstance(node, tuple):
            todo += node
        elif isinstance(node, ast.Setting):
            todo.append(node.value)
        elif isinstance(node, ast.Arithmetic):
            todo += (node.left, node.right)
        elif isinstance(node, ast.Negative):
            todo.append(node.operand)
        elif isinstance(node, ast.Group):
            todo.append(node.inner)
    return numbers


class _Matcher(ValueMatcher):
    """Compares pieces of two programs; a method that finds a difference raises `NoMatch`.

    Attributes:
        sizes: number of alternatives of each decision.
        are_names_exact: values have the names of filled texts, and not just the same name in front of their number.
    """

    def __init__(self, known: dict[int, int], sizes: Sequence[int], *, are_names_exact: bool) -> None:
        super().__init__(known)
        self.sizes = sizes
        self.are_names_exact = are_names_exact
        self.words_here: dict[str, Any] = dict.fromkeys(SECTION, UNKNOWN)  # in the body that is compared
        self._same: set[tuple[int, int]] = set()  # equal definitions without slots
        self._shared: dict[int, Op] = {}  # `shared` ops of the space, by identity, to those of the text in their place

    def _trial(self, known: dict[int, int]) -> _Matcher:
        """A matcher to try something with, whose findings `_adopt` takes over."""
        trial = _Matcher({**self.known, **known}, self.sizes, are_names_exact=self.are_names_exact)
        trial.names, trial.words_here = self.names, self.words_here
        trial._same, trial._shared = self._same, self._shared
        return trial

    def _adopt(self, trial: _Matcher) -> None:
        self.known, self.names = trial.known, trial.names

    # ------------------------------------------------------------------------------------------ statements

    def words(self, wanted: tuple[SetWord, ...], found: tuple[SetWord, ...], place: Span, shared: Collection[str] = ()) -> None:
        """The `let`s of a body. Those without holes are in place already, and may be missing.

        Args:
            shared: names of `shared` ops of the body, which texts may have by other names.
        """
        left = list(found)
        needed = Counter(word.name for word in wanted if _is_needed(word))
        there = Counter(word.name for word in found)
        for word in wanted:
            is_needed = _is_needed(word)
            needed[word.name] -= is_needed
            at = next((i for i, other in enumerate(left) if other.name == word.name), None)
            if at is None:
                if is_needed:
                    raise NoMatch(place)
                continue
            if not is_needed and there[word.name] <= needed[word.name]:
                continue  # what is there of this name are those that hide it
            self.word(word, left[at], shared)
            there.subtract(passed.name for passed in left[: at + 1])
            del left[: at + 1]

    def word(self, wanted: SetWord, found: SetWord, shared: Collection[str]) -> None:
        """A `let`; `shared` as of `words`."""
        if not isinstance(wanted.value, ast.Reference) or wanted.value.name not in shared:
            self.value(wanted.value, found.value, found.span)

    def statements(self, wanted: tuple[Statement, ...], found: tuple[Statement, ...], place: Span) -> None:
        pairs = list(_with_conditions(wanted))
        written = [s for s in present(found, None) if isinstance(s, SetWord) and _is_word(s)]
        lets = [(s, condition) for s, condition in pairs if isinstance(s, SetWord) and _is_word(s)]
        shared = {s.op.name for s, _ in pairs if isinstance(s, Shared)}
        words_at = self._words_at(found)

        def compare(matcher: _Matcher, wanted: Statement, found: Statement) -> None:
            if isinstance(wanted, SetWord) and isinstance(found, SetWord) and wanted.name == found.name:
                matcher.word(wanted, found, shared)
            else:
                matcher.words_here = words_at.get(id(found), matcher.words_here)
                matcher.statement(wanted, found)

        in_turns = {let.name for let, condition in lets if condition != ALWAYS}
        if in_turns and all(_is_needed(let) for let, _ in lets):  # their places tell which turns are there
            trial = self._trial({})
            trial.names = dict(self.names)
            with suppress(NoMatch):  # in a text that has its `let`s elsewhere
                trial.sequence(
                    [(s, condition) for s, condition in pairs if not isinstance(s, SetWord) or _is_word(s)],
                    [s for s in present(found, None) if not isinstance(s, SetWord) or _is_word(s)],
                    place,
                    compare,
                )
                self._adopt(trial)
                return
        certain = tuple(let for let, _ in lets if let.name not in in_turns)
        self.words(certain, tuple(let for let in written if let.name not in in_turns), place, shared)
        own = [(s, condition) for s, condition in pairs if not isinstance(s, SetWord)]
        self.sequence(own, [s for s in present(found, None) if not isinstance(s, SetWord)], place, compare)
        if in_turns:  # how many there are is known now, if anything tells it
            there = tuple(let for let, condition in lets if let.name in in_turns and truth(condition, self.known))
            self.words(there, tuple(let for let in written if let.name in in_turns), place, shared)

    def _words_at(self, found: tuple[Statement, ...]) -> dict[int, dict[str, Any]]:
        """What words mean in each statement of a text, by identity: how often a block repeats something may depend on it."""
        words, words_at = self.words_here, {}
        for statement in present(found, None):
            if isinstance(statement, SetWord):
                words = {**words, statement.name: evaluate(statement.value, words, [])}
            else:
                words_at[id(statement)] = words
        return words_at

    def sequence(
        self, wanted: Sequence[tuple[Any, Condition[int]]], found: Sequence[Any], place: Span,
        compare: Callable[[_Matcher, Any, Any], None],
    ) -> None:  # fmt: skip
        """Compare statements, or layers, with those that are there; what is not known of their conditions is tried."""
        self._sequence(_Pairing(wanted, found, place, compare), 0, 0)

    def _sequence(self, pairing: _Pairing, first: int, at: int) -> None:
        """The rest of a sequence: the wanted parts from the `first` one on are those that were found from `at` on."""
        for number in range(first, len(pairing.wanted)):
            part, condition = pairing.wanted[number]
            is_there = truth(condition, self.known)
            if is_there is None:
                self._try_alternatives(pairing, number, at)
                return
            if is_there:
                if at == len(pairing.found):
                    raise NoMatch(pairing.place)
                pairing.compare(self, part, pairing.found[at])
                at += 1
        if at < len(pairing.found):
            raise NoMatch(pairing.found[at].span)

    def _try_alternatives(self, pairing: _Pairing, first: int, at: int) -> None:
        """Try the alternatives of the decision that the next condition depends on."""
        names = frozenset() if self.are_names_exact else frozenset(self.names.items())  # in the first case, each is its own
        state = pairing.state(first, at, self.known, names)
        furthest = pairing.failed.get(state)
        if furthest is not None:  # tried before, behind other decisions that do not matter here
            raise furthest
        number = first_open(pairing.wanted[first][1], self.known)
        for index in range(self.sizes[number]):
            trial = self._trial({number: index})
            trial.names = dict(self.names)
            try:
                trial._sequence(pairing, first, at)
            except NoMatch as error:
                if furthest is None or error.span.start > furthest.span.start:
                    furthest = error.with_traceback(None)  # which would keep all that was tried
                continue
            self._adopt(trial)
            return
        furthest = furthest or NoMatch(pairing.place)
        if state is not None:
            pairing.failed[state] = furthest
        raise furthest

    def binding(self, wanted: Binding | None, found: Binding | None, place: Span) -> None:
        """Compare names that statements bind."""
        if wanted is None or found is None:
            raise NoMatch(place)
        if wanted.name != found.name and (self.are_names_exact or wanted.source != found.source):
            raise NoMatch(found.span)
        self.names[wanted.name] = found.name

    def statement(self, wanted: Statement, found: Statement) -> None:
        if isinstance(wanted, When) or isinstance(found, When):
            raise TypeError("its statements are compared one by one")
        if isinstance(wanted, Assign) and isinstance(found, Assign):
            if len(wanted.targets) != len(found.targets):
                raise NoMatch(found.span)
            self.operand(wanted.value, found.value)
            for bound, other_bound in zip(wanted.targets, found.targets, strict=True):
                self.binding(bound, other_bound, found.span)
        elif isinstance(wanted, Output) and isinstance(found, Output):
            if wanted.name != found.name:
                raise NoMatch(found.span)
            self.operand(wanted.value, found.value)
        elif isinstance(wanted, Merge) and isinstance(found, Merge):
            if len(wanted.targets) != len(found.targets):
                raise NoMatch(found.span)
            for target, other in zip(wanted.targets, found.targets, strict=True):
                self.operand(target, other)
        elif isinstance(wanted, Shared) and isinstance(found, Shared):
            self.shared(wanted.op, found.op, found.span)
        else:
            raise NoMatch(found.span)

    # ----------------------------------------------------------------------------------------- expressions

    def operand(self, wanted: Any, found: Any) -> None:
        if isinstance(wanted, Slot):
            self.slot(wanted, found, self.operand)
        elif isinstance(wanted, Ref):
            if not isinstance(found, Ref) or found.name != self.names.get(wanted.name, wanted.name):
                raise NoMatch(found.span)
        elif isinstance(wanted, Call) and isinstance(found, Call):
            self.call(wanted, found)
        elif isinstance(wanted, Nothing) and isinstance(found, Nothing):
            return
        else:
            raise NoMatch(found.span)

    def call(self, wanted: Call, found: Call) -> None:
        """A call whose target may be a slot, with attributes of its own: ``conv(k=3)``."""
        first: NoMatch | None = None
        for target, chosen in _targets(wanted.target, {}):
            if any(self.known.get(number, index) != index for number, index in chosen.items()):
                continue
            trial = self._trial(chosen)
            try:
                if not isinstance(found.target, Target):
                    raise NoMatch(found.span)
                settings = found.target.settings + found.settings
                if not isinstance(target.callee, Block):
                    trial.callee(target, found.target)
                trial.settings(target.settings + wanted.settings, settings, found.span)
                if isinstance(target.callee, Block):  # whose statements depend on its attributes, which are the same now
                    trial.callee(target, found.target, settings)
                if len(wanted.operands) != len(found.operands):
                    raise NoMatch(found.span)
                for operand, other in zip(wanted.operands, found.operands, strict=True):
                    trial.operand(operand, other)
            except NoMatch as error:
                first = first or error
                continue
            self._adopt(trial)
            return
        raise first if first is not None and isinstance(wanted.target, Target) else NoMatch(found.span)

    def adapter(self, wanted: Any, found: Any, place: Span) -> None:
        if isinstance(wanted, Slot):
            self.slot(wanted, found, lambda a, b: self.adapter(a, b, place), place)
        elif isinstance(wanted, Target) and isinstance(found, Target):
            self.callee(wanted, found)
        elif wanted is not None or found is not None:
            raise NoMatch(place)

    def callee(self, wanted: Target, found: Target, settings: tuple[ast.Setting, ...] = ()) -> None:
        a, b = wanted.callee, found.callee
        if a is b and a is not None:
            return
        if isinstance(a, str) and a == b:  # what an attribute names, which is compared where it is set
            return
        if isinstance(a, Op) and (a.is_shared or (isinstance(b, Op) and b.is_shared)):
            if self._shared.get(id(a)) is not b:
                raise NoMatch(found.span)
        elif isinstance(a, Op) and isinstance(b, Op) and not is_of_prelude(a) and not is_of_prelude(b):
            self.op(a, b, found.span)
        elif isinstance(a, Block) and isinstance(b, Block):
            self.block(a, b, settings, found.span)
        else:
            raise NoMatch(found.span)

    def shared(self, a: Op, b: Op, place: Span) -> None:
        """Compare two `shared` ops, whatever their names are."""
        if a.operands != b.operands:
            raise NoMatch(place)
        outer, self.names = self.names, {}
        try:
            self.operand(a.body, b.body)
        finally:
            self.names = outer
        self._shared[id(a)] = b

    def op(self, a: Op, b: Op, place: Span) -> None:
        if (id(a), id(b)) in self._same:
            return
        if a.operands != b.operands or a.attributes != b.attributes:
            raise NoMatch(place)
        outer, self.words_here = self.words_here, dict.fromkeys((*SECTION, *a.attributes), UNKNOWN)
        try:
            self.operand(body_of_op(a), body_of_op(b))
        finally:
            self.words_here = outer
        self._remember(a, b)

    def block(self, a: Block, b: Block, settings: tuple[ast.Setting, ...], place: Span) -> None:
        """Compare two blocks that are called with these attributes."""
        if (id(a), id(b)) in self._same:
            return
        if a.attributes != b.attributes:
            raise NoMatch(place)
        words = words_of_call(b, settings, self.words_here)
        body, other = body_of_block(a, words, []), body_of_block(b, words, [])
        if body.parameters != other.parameters or len(body.results) != len(other.results):
            raise NoMatch(place)
        outer, self.names = self.names, {}
        outer_words, self.words_here = self.words_here, words
        try:
            self.statements(body.statements, other.statements, place)
            for result, other_result in zip(body.results, other.results, strict=True):
                self.operand(result, other_result)
        finally:
            self.names, self.words_here = outer, outer_words
        if not b.attributes:
            self._remember(a, b)

    def _remember(self, a: Definition, b: Definition) -> None:
        """Two definitions are equal wherever they are called, unless their slots are filled afresh for each call."""
        if not a.has_slots:
            self._same.add((id(a), id(b)))


def _is_word(statement: SetWord) -> bool:
    """Whether a text has it, or what is called behind it reads it."""
    return statement.is_written or statement.name in SECTION


def _is_needed(statement: SetWord) -> bool:
    """Whether each filling has it: another one may stand in the place of its name."""
    return find_slot(statement.value) is not None or statement.name in SECTION


def _with_conditions(
    statements: tuple[Statement, ...], condition: Condition[int] = ALWAYS
) -> Iterator[tuple[Statement, Condition[int]]]:
    for statement in statements:
        if isinstance(statement, When):
            yield from _with_conditions(statement.statements, numbered(statement.condition))
        else:
            yield statement, condition


def _has_turns(space: Program) -> bool:
    """Whether values may be there in some fillings only; True also where holes stand in alternatives of others."""
    return any(d.condition != ALWAYS for d in space.decisions) or (
        space.fpn is not None and any(isinstance(s, When) for s in space.fpn.statements)
    )  # fmt: skip


def _targets(target: Target | Slot, chosen: dict[int, int]) -> list[tuple[Target, dict[int, int]]]:
    """What may stand before the brackets, each with the indices that put it there."""
    if isinstance(target, Target):
        return [(target, chosen)]
    found: list[tuple[Target, dict[int, int]]] = []
    for index, alternative in enumerate(target.alternatives):
        if chosen.get(target.number, index) == index:
            found += _targets(alternative, {**chosen, target.number: index})
    return found
