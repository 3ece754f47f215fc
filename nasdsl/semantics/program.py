"""The straight-line program of a decoder: what elaboration makes of a text, and all that later stages read.

A program has no `repeat`, no `let`, no numbered names and no sections of other files: they are resolved. Each statement binds
names that no other statement of its body binds. A hole is a `Slot` with a number; a decoder is a program without slots.

Where a hole decides how often something is repeated, the program has all turns, each with a condition (`When`,
`Step.condition`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.semantics import attributes
from nasdsl.semantics.architecture import Group
from nasdsl.semantics.attributes import UNKNOWN, Accepts
from nasdsl.semantics.conditions import ALWAYS, Condition, holds
from nasdsl.syntax import ast

if TYPE_CHECKING:
    from nasdsl.semantics.expansion_cache import StatementCache
    from nasdsl.semantics.primitives import Primitive
    from nasdsl.semantics.vocabulary import Block, Op

SlotKind: TypeAlias = Literal["choice", "pool", "range"]


@dataclass(slots=True, eq=False)
class Slot:
    """A hole: one of several alternatives.

    A hole that is drawn once and read in several places (a `let`) gives one slot for each place, all with one `decision`.

    Attributes:
        decision: what is decided here.
        alternatives: what may stand in its place: expressions for an operand, a `Target` each before brackets, attribute
            values for an attribute. They may hold further slots.
        span: the place that reads it.
        let: name of the `let` that the hole stands in; None for a hole in its own place.
    """

    decision: Decision
    alternatives: tuple[Any, ...]
    span: Span
    let: str | None = None

    @property
    def number(self) -> int:
        return self.decision.number


@dataclass(slots=True, eq=False)
class Decision:
    """What fills a hole.

    Attributes:
        number: its place in the order of the text; the index into the integers of a filling.
        kind: ``choice``, ``pool`` or ``range``.
        name: of the choice, ``pool``, or empty for a hole with its alternatives in place.
        texts: each alternative as the text has it.
        condition: when the hole is there: the alternatives and turns in which it stands.
        span: the hole in the text.
        weights: how often each alternative is drawn, in proportion to the others; empty where all are drawn alike.
    """

    number: int
    kind: SlotKind
    name: str
    texts: tuple[str, ...]
    condition: Condition[Decision]
    span: Span
    weights: tuple[float, ...] = ()

    def __index__(self) -> int:
        """Its number: a filling is read by decisions."""
        return self.number


class Ref(NamedTuple):
    """A value of the body, by name."""

    name: str
    span: Span


class Missing(NamedTuple):
    """An operand, or an attribute value, whose mistake is reported already.

    `is_left_out`: a syntax error has left it out, and how many more it has left out is not known.
    """

    span: Span
    is_left_out: bool = False


class Nothing(NamedTuple):
    """``none`` as an operand: it is left out."""

    span: Span


class Target(NamedTuple):
    """What stands before the brackets of a call.

    Attributes:
        callee: an op, block or primitive; the name of an op's attribute that holds the name of one (``op f(x, o=conv_3x3) =
            o(x)``); None for a name that nothing defines, which is reported already.
        settings: attributes that an alternative such as ``conv(k=3)`` brings along.
        name: as the text has it.
    """

    callee: Op | Block | Primitive | str | None
    settings: tuple[ast.Setting, ...]
    name: str
    span: Span


class Call(NamedTuple):
    """``target(operand, …, name=value, …)``.

    Attributes:
        settings: attributes; words that `let` and `repeat` bind are put in place of their names.
        has_slots: whether a value among the settings is a slot, or is computed from one.
        span: the call; `callee_span` is the part before the brackets.
        is_distinct: no two operands may be the same.
    """

    target: Target | Slot
    operands: tuple[Operand, ...]
    settings: tuple[ast.Setting, ...]
    has_slots: bool
    span: Span
    callee_span: Span
    is_distinct: bool = False


Operand: TypeAlias = Ref | Call | Slot | Nothing | Missing


class Binding(NamedTuple):
    """The left side of an assignment.

    Attributes:
        name: unique in the body: ``a3``, or ``a3_2`` where the text binds a3 again.
        source: the name as the text has it.
    """

    name: str
    source: str
    span: Span


class Assign(NamedTuple):
    """``a, b = value``; a target is None if its name is not known, which is reported already.

    Attributes:
        turns: the repeats that it comes from, and the turn of each. With any, other statements may report the same mistake.
        cache: its layers in earlier versions of the text, of a statement that is kept.
    """

    targets: tuple[Binding | None, ...]
    value: Operand
    span: Span
    turns: tuple[Group, ...]
    cache: StatementCache | None = None


class Output(NamedTuple):
    """``p5 = value`` of an `output` statement.

    Attributes:
        level: None for a name that no level has, which is reported already.
        span: the binding; `statement_span` is the whole statement, which may have several.
    """

    name: str
    name_span: Span
    level: int | None
    value: Operand
    span: Span
    statement_span: Span
    turns: tuple[Group, ...]


class Merge(NamedTuple):
    """``merge dangling into p3, p4``."""

    targets: tuple[Ref | Slot, ...]
    span: Span
    turns: tuple[Group, ...]


class SetWord(NamedTuple):
    """A `let`. Its uses are resolved already, but for ``width``, ``norm`` and ``act``, which later calls read.

    `is_written`: the statement stands in the text, and is not the end of a `repeat` that had a word of this name.
    """

    name: str
    value: Any
    span: Span
    is_written: bool


class When(NamedTuple):
    """Statements that some fillings do not have: a turn of a `repeat` whose count a hole decides."""

    condition: Condition[Decision]
    statements: tuple[Statement, ...]


class Shared(NamedTuple):
    """A `shared` op: calls of it behind this statement have one set of weights, each time the statement is met a new one.

    `turns`: as of `Assign`.
    """

    op: Op
    span: Span
    turns: tuple[Group, ...]


Plain: TypeAlias = Assign | Output | Merge | SetWord | Shared
Statement: TypeAlias = Plain | When


class Body(NamedTuple):
    """The statements of a block.

    Attributes:
        parameters: names of the operands.
        results: value of each result, None where nothing binds it.
        weight: about how many layers it becomes.
        lost_names: names that are not bound because of a mistake, which is reported already, or of a count that is not known.
    """

    parameters: tuple[str, ...]
    statements: tuple[Statement, ...]
    results: tuple[Ref | Slot | None, ...]
    weight: int
    lost_names: frozenset[str]


class Input(NamedTuple):
    """``input c5``: the backbone feature of stride 2**level."""

    name: str
    level: int
    span: Span


@dataclass(frozen=True, slots=True)
class FpnProgram:
    """The section ``fpn``.

    Attributes:
        settings: attributes of the section. The value of ``adapter`` is not read: `adapter` is what it means.
        values: the values of the attributes; None where slots decide them.
        adapter: the op behind each input; None for none.
        keyword: span of the word ``fpn``.
        from_span: span of the statement ``fpn from "file"``; None for a section of the text itself.
    """

    settings: tuple[ast.Setting, ...]
    values: dict[str, Any] | None
    adapter: Target | Slot | None
    statements: tuple[Statement, ...]
    keyword: Span
    from_span: Span | None


class Step(NamedTuple):
    """One layer of a chain: a call of one operand, which is what the layer before it gives.

    `condition`: when it is there. In every filling a chain has at least one layer.
    """

    call: Call
    span: Span
    condition: Condition[Decision] = ALWAYS


class Chain(NamedTuple):
    """A tower of the head; `label` is None for one chain that both towers have."""

    label: str | None
    steps: tuple[Step, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class HeadProgram:
    """The section ``head``; `settings` and `values` as of `FpnProgram`."""

    settings: tuple[ast.Setting, ...]
    values: dict[str, Any] | None
    chains: tuple[Chain, ...]
    span: Span
    keyword: Span


@dataclass(frozen=True, slots=True)
class DetectorProgram:
    """``detector(…)``: the detector that the decoder is for."""

    settings: tuple[ast.Setting, ...]
    span: Span
    keyword: Span


@dataclass(frozen=True, slots=True)
class PredictProgram:
    """``predict fcos(…)``.

    Attributes:
        settings: attributes. The value of ``conv`` is not read: `conv` is what it means.
        conv: the op in the place of the prediction convolutions; None for the plain ones.
    """

    detector: str
    settings: tuple[ast.Setting, ...]
    span: Span
    detector_span: Span
    conv: Target | Slot | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Program:
    """A decoder, or a search space.

    Attributes:
        inputs: the backbone features that it names, in the order of the text.
        words: `let`s of the decoder itself, outside its sections.
        fpn, head, predict: its parts; None where one is missing, which is reported already.
        detector: the detector that it is for; None where it names none.
        decisions: what a filling decides, by number.
        passed: ops that calls name in an attribute: ``f(x, o=mine)``.
    """

    name: str
    span: Span
    inputs: tuple[Input, ...]
    requirements: tuple[ast.Require, ...]
    words: tuple[SetWord, ...]
    fpn: FpnProgram | None
    head: HeadProgram | None
    predict: PredictProgram | None
    decisions: tuple[Decision, ...]
    passed: tuple[Op | Block, ...] = ()
    detector: DetectorProgram | None = None


def present(statements: Sequence[Statement], indices: Sequence[int] | None) -> Iterator[Plain]:
    """The statements that a filling has; without `indices` those of all turns."""
    for statement in statements:
        if not isinstance(statement, When):
            yield statement
        elif indices is None or holds(statement.condition, indices):
            yield from present(statement.statements, indices)


def present_steps(chain: Chain, indices: Sequence[int] | None) -> tuple[Step, ...]:
    """The layers that a filling has; without `indices` those of all turns and alternatives."""
    if indices is None:
        return chain.steps
    return tuple([s for s in chain.steps if holds(s.condition, indices)])


def chosen(node: Any, indices: Sequence[int] | Mapping[int, int]) -> Any:
    """The node itself, or the alternative that fills its slot."""
    while type(node) is Slot:
        node = node.alternatives[indices[node.decision.number]]
    return node


def fill_value(value: Any, indices: Sequence[int] | Mapping[int, int]) -> Any:
    """An attribute value with alternatives in the place of its slots."""
    kind = type(value)
    if kind is Slot:
        return fill_value(chosen(value, indices), indices)
    if kind is ast.Arithmetic:
        return ast.Arithmetic(value.span, value.operator, fill_value(value.left, indices), fill_value(value.right, indices))
    if kind is ast.Negative:
        return ast.Negative(value.span, fill_value(value.operand, indices))
    if kind is ast.Group:
        return ast.Group(value.span, fill_value(value.inner, indices))
    return value


def fill_settings(settings: tuple[ast.Setting, ...], indices: Sequence[int] | Mapping[int, int]) -> tuple[ast.Setting, ...]:
    """Attributes with alternatives in the place of their slots."""
    return tuple([ast.Setting(s.span, s.name, s.name_span, fill_value(s.value, indices)) for s in settings])


def section_values(
    section: FpnProgram | HeadProgram,
    accepted: Mapping[str, Accepts],
    problems: list[Diagnostic],
    indices: Sequence[int] | None,
) -> dict[str, Any]:
    """The values of a section's attributes; what is wrong with those that slots decide is added to `problems`.

    Args:
        accepted: the attributes of the section.
        indices: the alternative that fills each slot; None leaves slots open.
    """
    if section.values is not None:
        return section.values
    settings = section.settings if indices is None else fill_settings(section.settings, indices)
    owner = section.keyword.text
    values = attributes.settings(settings, accepted, owner, section.keyword, {}, problems)
    return dict.fromkeys(accepted, UNKNOWN) if values is None else values


def possible_values(value: Any) -> list[Any]:
    """What an attribute value may be: itself, or all that its slot can hold; nothing where it is computed from slots."""
    if type(value) is Slot:
        return [found for alternative in value.alternatives for found in possible_values(alternative)]
    return [] if find_slot(value) else [value]


def find_slot(value: Any) -> Slot | None:
    """The first slot that an attribute value is computed from."""
    kind = type(value)
    if kind is Slot:
        return value  # type: ignore[no-any-return]  # `kind` says so
    if kind is ast.Arithmetic:
        return find_slot(value.left) or find_slot(value.right)
    if kind is ast.Negative:
        return find_slot(value.operand)
    return find_slot(value.inner) if kind is ast.Group else None
