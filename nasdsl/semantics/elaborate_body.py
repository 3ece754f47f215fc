"""Elaboration of statements and expressions: `repeat`, `let`, numbered names (``x[t-1]``) and holes to a straight-line body.

Nothing behind this stage knows these constructs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import holes, names, structure, types
from nasdsl.semantics import attributes, primitives
from nasdsl.semantics.attributes import UNKNOWN, Unknown, Value
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import (
    Assign,
    Binding,
    Body,
    Call,
    Decision,
    Merge,
    Missing,
    Operand,
    Output,
    Ref,
    SetWord,
    Slot,
    SlotKind,
    Statement,
    Target,
    find_slot,
)
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary, prelude
from nasdsl.syntax import ast

MAX_STATEMENTS: Final = 100_000
"""Most statements that `repeat` may expand into."""

MAX_FAILED_ROUNDS: Final = 200
"""Rounds of a `repeat` with mistakes, after which the others are left out: they would only repeat the mistakes."""

MAX_DECISIONS: Final = 100_000
"""Most holes that a decoder may have, those in a `repeat` counted once a round, those in a definition once a call."""

MAX_RANGE: Final = 10_000
"""Most alternatives of a range."""

MAX_CALLS: Final = 150
"""Deepest nesting of calls, those in the bodies of ops and blocks included: well inside the interpreter's own stack."""

MOST_GUESSES: Final = 200
"""Findings in front of which a misspelling is looked for: a text with so many has other mistakes than misspellings."""

PYRAMID_NAME = re.compile(r"p([1-9]|1[0-2])")
_FEATURE_NAME = re.compile(r"c[1-7]")
_HOLES: Final = (ast.NamedHole, ast.ChoiceHole, ast.RangeHole)

SECTION_WORDS: Final = frozenset(primitives.SECTION)

Word: TypeAlias = Any
"""What a name stands for among attributes: a number or word, `UNKNOWN`, a slot, or a value that is reckoned from one."""

Position: TypeAlias = Literal["operand", "callee", "attribute", "let"]


@dataclass(slots=True)
class Context:
    """What the elaboration of one decoder has in common.

    Attributes:
        problems: findings.
        hole_problems: findings about alternatives of holes.
        lost: names whose absence is not reported, because text that could not be read may bind them; None where all was read.
        decisions: those met so far.
        passed: definitions that attributes name.
        duplicates: alternatives that are reported to stand twice.
        open: choices whose alternatives are being read, and definitions that are being copied.
        is_full: a limit was met, and reported.
    """

    problems: list[Diagnostic]
    hole_problems: list[Diagnostic] = field(default_factory=list)
    lost: frozenset[str] | None = None
    decisions: list[Decision] = field(default_factory=list)
    open: list[object] = field(default_factory=list)
    passed: list[Definition] = field(default_factory=list)
    duplicates: set[Span] = field(default_factory=set)
    is_full: bool = False


class BodyElaborator:
    """Elaborates the statements and expressions of one body: an fpn, a block, an op's expression, or a head.

    Args:
        vocabulary: what names of ops, blocks and choices mean.
        words: what names of attributes mean.
        kept: words that stay in the program by name, because the section or the call of an op sets them.
        scope: names of the values that are there from the beginning; None for one whose mistake is reported already.
        later: names that statements further down bind.
        is_fpn: `output` and `merge` are allowed.
        parent: decision and alternative in which the body stands.
    """

    def __init__(
        self,
        context: Context,
        vocabulary: Vocabulary,
        words: dict[str, Word],
        *,
        kept: frozenset[str] = SECTION_WORDS,
        scope: Iterable[tuple[str, str | None, Span]] = (),
        later: dict[str, Span] | None = None,
        is_fpn: bool = False,
        parent: tuple[Decision, int] | None = None,
    ) -> None:
        self.context = context
        self.problems = context.problems
        self.vocabulary = vocabulary
        self.words = words
        self.kept = kept
        self.scope: dict[str, tuple[str | None, Span]] = {name: (unique, span) for name, unique, span in scope}
        self._callees: dict[str, Definition | Primitive] = {}  # by name, those without slots
        self.pool = list(self.scope)  # what `?pool` draws from
        self.statements: list[Statement] = []
        self.outputs: dict[str, Span] = {}
        self.later = later or {}
        self.is_fpn = is_fpn
        self._parent = parent
        self._pooled = set(self.scope)
        self._taken = set(self.scope)
        self._numbers: dict[str, int] = {}  # the number last given to a name, so that many bindings of one name stay cheap
        self.lost_names: set[str] = set()  # not bound because of a mistake, or in a `repeat` whose count is not known
        self._nesting = 0  # depth of `repeat`, in which a name may be bound again
        self._rounds = 1  # of all `repeat`s around

    def named_inputs(self, written: Iterable[str]) -> None:
        """`?pool` draws from the inputs in the order in which the text names them."""
        self.pool = list(dict.fromkeys(written))
        self._pooled = set(self.pool)

    # ----------------------------------------------------------------------------------------- statements

    def run(self, statements: tuple[ast.Statement, ...]) -> tuple[Statement, ...]:
        """The program of these statements."""
        for statement in statements:
            self.statement(statement)
        return tuple(self.statements)

    def statement(self, node: ast.Statement) -> None:
        if isinstance(node, ast.Assign):
            self._assign(node)
        elif isinstance(node, ast.Repeat):
            self._repeat(node)
        elif isinstance(node, ast.Let):
            self.let(node)
        elif not self.is_fpn:
            word = "output" if isinstance(node, ast.Output) else "merge"
            self.problems.append(structure.only_in_fpn(node.span, word))
        elif isinstance(node, ast.Output):
            for binding in node.bindings:
                self._output(binding, node.span)
        else:
            targets = [self._reference(t) for t in node.targets]
            kept = tuple([t for t in targets if isinstance(t, Ref | Slot)])
            self.statements.append(Merge(kept, node.span, self._nesting > 0))

    def _assign(self, node: ast.Assign) -> None:
        sources = [self._index_name(t.name, t.index) for t in node.targets]
        self.lost_names.update(t.name for t, source in zip(node.targets, sources, strict=True) if source is None)
        value: Operand
        if len(sources) > 1 and isinstance(node.value, ast.Reference):
            self.problems.append(types.one_value(node.span, len(sources)))
            value = Missing(node.value.span)
        else:
            value = self.operand(node.value)
        targets = [
            None if source is None else self._bind(source, target.span)
            for source, target in zip(sources, node.targets, strict=True)
        ]
        self.statements.append(Assign(tuple(targets), value, node.span, self._nesting > 0))

    def _bind(self, source: str, span: Span) -> Binding:
        before = self.scope.get(source)
        unique = source
        if before is not None and not self._nesting:
            self.problems.append(names.value_bound_twice(span, source, before[1]))
        if source not in self._pooled:
            self._pooled.add(source)
            self.pool.append(source)
        if unique in self._taken:
            number = self._numbers.get(source, 1)
            while unique in self._taken:
                number += 1
                unique = f"{source}_{number}"
            self._numbers[source] = number
        self._taken.add(unique)
        self.scope[source] = unique, span
        return Binding(unique, source, span)

    def _output(self, node: ast.OutputBinding, statement: Span) -> None:
        match = PYRAMID_NAME.fullmatch(node.name)
        if match is None:
            self.problems.append(structure.no_pyramid_level(node.name_span, node.name))
        elif node.name in self.outputs:
            self.problems.append(names.output_bound_twice(node.name_span, node.name, self.outputs[node.name]))
        value = self.operand(node.value)
        level = None if match is None else int(match[1])
        if match is not None:
            before = self.scope.get(node.name)
            if before is not None and node.name not in self.outputs:
                self.problems.append(names.output_named_as_value(node.name_span, node.name, before[1]))
            self.outputs.setdefault(node.name, node.span)
            self.scope[node.name] = node.name, node.name_span
            self._taken.add(node.name)
        repeated = self._nesting > 0
        self.statements.append(Output(node.name, node.name_span, level, value, node.span, statement, repeated))

    def let(self, node: ast.Let) -> SetWord:
        """Enter what a `let` binds."""
        written = self._hole_of_let(node) if isinstance(node.value, _HOLES) else self.attribute(node.value)
        everything = self.attribute(written, everything=True)
        self.words[node.name] = everything if find_slot(everything) else self._evaluate(everything)
        statement = SetWord(node.name, written, node.span, True)
        self.statements.append(statement)
        return statement

    def _hole_of_let(self, node: ast.Let) -> Any:
        made = self._slot(node.value, "let")
        if isinstance(made, Slot):
            made.let = node.name
        return made

    def _repeat(self, node: ast.Repeat) -> None:
        first = 1 if node.first is None else self._count(node.first)
        last = self._count(node.last)
        if first is None or last is None:
            for name, span in names_bound_in(node.body).items():  # that they are missing is no second mistake
                self.scope.setdefault(name, (None, span))
                self.lost_names.add(name)
            return
        rounds = max(0, last - first + 1)
        if rounds == 0:
            self.problems.append(types.no_rounds(node.last.span, first, last))
            return
        if self._rounds * rounds * max(1, len(node.body)) > MAX_STATEMENTS:
            self.problems.append(structure.too_many_statements(node.last.span, MAX_STATEMENTS, rounds))
            return
        outer = self.words
        self._rounds *= rounds
        self._nesting += 1
        reported: set[tuple[str, Span]] = set()
        failed = 0
        for number in range(first, first + rounds):
            before = len(self.problems)
            self.words = dict(outer)
            if node.variable:
                self.words[node.variable] = number
                if node.variable in self.kept:
                    self.statements.append(SetWord(node.variable, _literal(number, node.span), node.span, False))
            for statement in node.body:
                self.statement(statement)
            if self.context.is_full:
                break
            if len(self.problems) > before:  # a mistake is one finding, not one a round
                self.problems[before:] = [p for p in self.problems[before:] if (p.code, p.span) not in reported]
                reported.update((p.code, p.span) for p in self.problems[before:])
                failed += 1
                if failed == MAX_FAILED_ROUNDS:
                    self.lost_names.update(names_bound_in(node.body))
                    break
        self._nesting -= 1
        self._rounds //= rounds
        for name in self.kept:  # a `let width = …` in the rounds ends with them
            if self.words.get(name) is not outer.get(name):
                self.statements.append(SetWord(name, _literal(outer.get(name), node.span), node.span, False))
        self.words = outer

    def _count(self, value: ast.Attribute) -> int | None:
        number, slot = self._constant(value)
        if slot is not None:
            self.problems.append(holes.hole_as_count(slot, value.span))
            return None
        if isinstance(number, Unknown):
            return None
        if not isinstance(number, int) or number < 0:
            self.problems.append(types.repeat_count(value.span, number))
            return None
        return number

    # ---------------------------------------------------------------------------------------- expressions

    def operand(self, node: ast.Operand | ast.Number) -> Operand:
        """The program of an expression."""
        kind = type(node)
        if kind is ast.Reference:
            return self._reference(node)  # type: ignore[arg-type]
        if kind is ast.Call:
            return self.call(node)  # type: ignore[arg-type]
        if kind is ast.Number:
            self.problems.append(holes.not_a_value(node.span))
            return Missing(node.span)
        made = self._slot(node, "operand")
        return made if isinstance(made, Slot | Missing) else Missing(node.span)

    def _reference(self, node: ast.Reference) -> Operand:
        name = node.name if node.index is None else self._index_name(node.name, node.index, read=True)
        if name is None:
            return Missing(node.span)
        found = self.scope.get(name)
        if found is not None:
            return Missing(node.span) if found[0] is None else Ref(found[0], node.span)
        if name in self.kept and name not in primitives.SECTION:
            return Ref(name, node.span)  # an attribute of the op, which may hold anything
        word = self.words.get(name)
        if isinstance(word, Unknown) and name not in primitives.SECTION:
            return Missing(node.span)
        if isinstance(word, str) and word in self.scope:
            unique = self.scope[word][0]
            return Missing(node.span) if unique is None else Ref(unique, node.span)
        if isinstance(word, Slot):
            return self._operand_of_let(word, name, node.span)
        if not self._is_lost(name):
            self._unknown_value(name, node.span)
        return Missing(node.span)

    def _operand_of_let(self, word: Slot, name: str, span: Span) -> Operand:
        """``let k = ?pool`` where a value is expected: k is the value of that name."""
        made: list[Operand] = []
        for alternative in word.alternatives:
            if isinstance(alternative, Slot):
                made.append(self._operand_of_let(alternative, name, span))
            elif isinstance(alternative, ast.Reference) and alternative.name in self.scope:
                unique = self.scope[alternative.name][0]
                made.append(Missing(span) if unique is None else Ref(unique, span))
            else:
                self._unknown_value(name, span, self.context.hole_problems)
                made.append(Missing(span))
        return Slot(word.decision, tuple(made), span, word.let)

    def _is_lost(self, name: str) -> bool:
        """Whether text that could not be read may have bound a name: as itself, or numbered as in ``x[t]``."""
        stem = name.rstrip("0123456789")
        if name in self.lost_names or stem in self.lost_names:
            return True
        return self.context.lost is not None and (name in self.context.lost or stem in self.context.lost)

    def _unknown_value(self, name: str, span: Span, problems: list[Diagnostic] | None = None) -> None:
        problems = self.problems if problems is None else problems
        if name in self.later:
            problems.append(names.forward(span, name, self.later[name]))
            return
        is_op = self.vocabulary.find(name) is not None or primitives.find(name) is not None
        problems.append(
            names.unknown_value(
                span, name, self.scope, is_op=is_op, is_feature=_FEATURE_NAME.fullmatch(name) is not None,
                guess=len(problems) < MOST_GUESSES,
            )
        )  # fmt: skip

    def call(self, node: ast.Call) -> Call:
        settings = node.settings
        target = self.target(node.callee, node.callee_span, settings)
        operand, reference = self.operand, self._reference
        operands = tuple([reference(o) if type(o) is ast.Reference else operand(o) for o in node.operands])
        has_slots = False
        if settings:
            settings = self.settings(settings, takes_feature=_takes_feature(target))
            self._note_passed_ops(settings)
            has_slots = any(find_slot(s.value) for s in settings)
        return Call(target, operands, settings, has_slots, node.span, node.callee_span)

    def _named_target(
        self, name: str, span: Span, settings: tuple[ast.Setting, ...], *, problems: list[Diagnostic] | None = None
    ) -> Target | Slot:
        """What a name before brackets means."""
        known = self._callees.get(name)
        if known is not None:
            return Target(known, (), name, span)
        problems = self.problems if problems is None else problems
        callee: Definition | Primitive | None = self.vocabulary.find(name) or primitives.find(name)
        if callee is None and name in self.kept and name not in primitives.SECTION:
            return Target(name, (), name, span)
        meant = name
        if callee is None:
            word = self.words.get(name)
            if isinstance(word, Slot):
                return self._target_of_let(word, name, span, settings)
            if isinstance(word, Unknown) and name not in primitives.SECTION:
                return Target(None, (), name, span)
            if isinstance(word, str):  # let k = conv_3x3
                meant = word
                callee = self.vocabulary.find(meant) or primitives.find(meant)
        if callee is None:
            if not self._is_lost(meant) and self.vocabulary.is_whole:
                others = [*self.vocabulary.known(), *primitives.known()] if len(problems) < MOST_GUESSES else []
                problems.append(names.unknown_op(span, meant, others, is_value=meant in self.scope, fixable=True))
            return Target(None, (), name, span)
        if not isinstance(callee, Primitive) and callee.has_slots:
            return Target(self._copy(callee, settings, span), (), name, span)
        if meant is name:
            self._callees[name] = callee
        return Target(callee, (), name, span)

    def _target_of_let(self, word: Slot, name: str, span: Span, settings: tuple[ast.Setting, ...]) -> Slot:
        """``let k = ?op`` before brackets: k is the op of that name."""
        made: list[Target | Slot] = []
        outer = self._parent
        for at, alternative in enumerate(word.alternatives):
            self._parent = word.decision, at
            if isinstance(alternative, Slot):
                made.append(self._target_of_let(alternative, name, span, settings))
            elif isinstance(alternative, ast.Reference):
                made.append(self._named_target(alternative.name, span, settings, problems=self.context.hole_problems))
            elif isinstance(alternative, ast.Call):
                made.append(self._target_with_settings(alternative, span))
            else:
                problems = self.context.hole_problems
                problems.append(names.unknown_op(span, name, self.vocabulary.known(), is_value=False, fixable=False))
                made.append(Target(None, (), name, span))
        self._parent = outer
        return Slot(word.decision, tuple(made), span, word.let)

    def _target_with_settings(self, node: ast.Call, span: Span) -> Target | Slot:
        """An alternative such as ``conv(k=3)``."""
        assert isinstance(node.callee, str)
        target = self._named_target(node.callee, span, node.settings)
        if not isinstance(target, Target):
            return target
        return target._replace(settings=self.settings(node.settings, takes_feature=_takes_feature(target)))

    def _note_passed_ops(self, settings: tuple[ast.Setting, ...]) -> None:
        for setting in settings:
            if type(setting.value) is ast.Reference:
                found = self.vocabulary.find(setting.value.name)
                if found is not None and not is_of_prelude(found):
                    self.context.passed.append(found)

    def settings(self, settings: tuple[ast.Setting, ...], *, takes_feature: bool = False) -> tuple[ast.Setting, ...]:
        """Attributes, with what `let` and `repeat` bind in the place of names.

        `takes_feature`: ``to=`` names a value, whose unique name is put in its place.
        """
        made = []
        for setting in settings:
            value: Any
            if takes_feature and setting.name == "to":
                value = self._feature(setting.value)
            else:
                value = self.attribute(setting.value)
            made.append(
                setting if value is setting.value else ast.Setting(setting.span, setting.name, setting.name_span, value)
            )
        return tuple(made)

    def _feature(self, node: Any) -> Any:
        """The value of ``to=``: a reference to a value, or a number."""
        if isinstance(node, ast.Reference) and node.name in self.scope and node.index is None:
            unique = self.scope[node.name][0]
            return Missing(node.span) if unique is None else ast.Reference(node.span, unique)
        if isinstance(node, ast.Reference) and not isinstance(self.words.get(node.name), int | Slot):
            made = self._reference(node)
            return ast.Reference(node.span, made.name) if isinstance(made, Ref) else Missing(node.span)
        return self._named_features(self.attribute(node))

    def _named_features(self, value: Any) -> Any:
        """Names of values in the alternatives of a slot, made unique."""
        if isinstance(value, Slot):
            return Slot(value.decision, tuple(self._named_features(a) for a in value.alternatives), value.span, value.let)
        if isinstance(value, ast.Reference) and value.name in self.scope:
            unique = self.scope[value.name][0]
            return Missing(value.span) if unique is None else ast.Reference(value.span, unique)
        return value

    # ------------------------------------------------------------------------------------ attribute values

    def attribute(self, node: Any, *, everything: bool = False) -> Any:
        """An attribute value with what `let` and `repeat` bind in the place of names; `everything`: also the kept words."""
        kind = type(node)
        if kind is ast.Number or kind is Slot or kind is Missing:
            return node
        if kind is ast.Reference:
            if node.index is not None:
                name = self._index_name(node.name, node.index)
                return Missing(node.span) if name is None else ast.Reference(node.span, name)
            if node.name not in self.words or (node.name in self.kept and not everything):
                return node
            word = self.words[node.name]
            if isinstance(word, Slot):
                return Slot(word.decision, word.alternatives, node.span, word.let)
            return _literal(word, node.span)
        if kind is ast.Arithmetic:
            left, right = self.attribute(node.left, everything=everything), self.attribute(node.right, everything=everything)
            same = left is node.left and right is node.right
            return node if same else ast.Arithmetic(node.span, node.operator, left, right)
        if kind is ast.Negative:
            inner = self.attribute(node.operand, everything=everything)
            return node if inner is node.operand else ast.Negative(node.span, inner)
        if kind is ast.Group:
            inner = self.attribute(node.inner, everything=everything)
            return node if inner is node.inner else ast.Group(node.span, inner)
        if kind is ast.Call:  # among the alternatives of a `let`
            return node
        return self._slot(node, "attribute")

    def _evaluate(self, value: Any) -> Value | Unknown:
        return attributes.evaluate(value, self.words, self.problems)

    def _constant(self, value: Any) -> tuple[Value | Unknown, Span | None]:
        """The number or word that a value stands for; or the span of the hole that it depends on."""
        made = self.attribute(value, everything=True)
        hole = _find_hole(made)
        return (UNKNOWN, hole) if hole is not None else (self._evaluate(made), None)

    def _index_name(self, name: str, index: ast.Attribute | None, *, read: bool = False) -> str | None:
        """``x[t-1]`` with t = 3 is ``x2``; None where the number cannot be told, which is reported."""
        if index is None:
            return name
        number, hole = self._constant(index)
        if hole is not None:
            self.problems.append(holes.hole_as_index(hole, index.span))
            return None
        if isinstance(number, Unknown):
            return None
        if not isinstance(number, int) or number < 0:
            self.problems.append(types.index_value(index.span, name, number, read=read))
            return None
        return f"{name}{number}"

    def adapter(self, value: Any, span: Span) -> Target | Slot | None:
        """The op that ``adapter=`` names; None for ``adapter=none``."""
        if isinstance(value, str):
            return self._adapter_named(value, span)
        made = self._slot(value, "callee", is_adapter=True) if isinstance(value, _HOLES) else self.attribute(value)
        if isinstance(made, Slot):
            if isinstance(value, _HOLES):
                return made
            alternatives = tuple(self._adapter_of_word(a, span) for a in made.alternatives)
            return Slot(made.decision, alternatives, span, made.let)
        word = self._evaluate(made)
        return None if isinstance(word, Unknown) else self._adapter_named(word if isinstance(word, str) else span.text, span)

    def _adapter_of_word(self, value: Any, span: Span) -> Any:
        if isinstance(value, Slot):
            return Slot(value.decision, tuple(self._adapter_of_word(a, span) for a in value.alternatives), span, value.let)
        return self._adapter_named(value.name if isinstance(value, ast.Reference) else value.span.text, span)

    def _adapter_named(self, name: str, span: Span) -> Target | Slot | None:
        if name == "none":
            return None
        if self.vocabulary.find(name) is None and primitives.find(name) is None:
            self.problems.append(names.unknown_adapter(span, name, [*self.vocabulary.known(), *primitives.known()]))
            return self._named_target("conv_1x1", span, ())
        return self._named_target(name, span, ())

    def target(self, callee: str | ast.Hole, span: Span, settings: tuple[ast.Setting, ...]) -> Target | Slot:
        """What a name or a hole before brackets, or in a head's chain, means."""
        if isinstance(callee, str):
            return self._named_target(callee, span, settings)
        made = self._slot(callee, "callee")
        return made if isinstance(made, Slot) else Target(None, (), "?", span)

    # ----------------------------------------------------------------------------------------------- holes

    def _slot(self, node: Any, position: Position, *, is_adapter: bool = False) -> Slot | Missing:
        """A hole as a slot with a decision of its own."""
        if isinstance(node, ast.NamedHole) and not node.name:  # put in where a syntax error has left something out
            return Missing(node.span, True)
        context = self.context
        if len(context.decisions) >= MAX_DECISIONS:
            if not context.is_full:
                context.is_full = True
                context.problems.append(structure.too_many_holes(node.span, MAX_DECISIONS))
            return Missing(node.span)
        outer_problems, self.problems = self.problems, context.hole_problems
        kind, name, raw = self._alternatives(node)
        decision = Decision(len(context.decisions), kind, name, tuple(_text(a, kind) for a in raw), self._parent, node.span)
        context.decisions.append(decision)
        outer = self._parent
        context.open.append(_choice_key(node, self.vocabulary))
        made = []
        for at, alternative in enumerate(raw):
            self._parent = decision, at
            if is_adapter and isinstance(alternative, ast.Reference):
                made.append(self._adapter_named(alternative.name, alternative.span))
            else:
                made.append(self._alternative(alternative, position))
        context.open.pop()
        self._parent = outer
        self.problems = outer_problems
        return Slot(decision, tuple(made), node.span)

    def _alternative(self, node: Any, position: Position) -> Any:
        if isinstance(node, Missing):
            return Target(None, (), "?", node.span) if position == "callee" else node
        if position == "operand":
            return self.operand(node)
        if position == "callee":
            return self._callee_alternative(node)
        if isinstance(node, _HOLES):
            return self._slot(node, position)
        if isinstance(node, ast.Call) and position == "attribute":
            self.problems.append(holes.not_a_word(node.span))
            return Missing(node.span)
        return self.attribute(node)

    def _callee_alternative(self, node: Any) -> Any:
        """What may stand before the brackets: a name, a name with attributes (``conv(k=3)``), or a further hole."""
        if isinstance(node, ast.Reference) and node.index is None:
            return self._named_target(node.name, node.span, ())
        if isinstance(node, ast.Call) and not node.operands and isinstance(node.callee, str):
            return self._target_with_settings(node, node.callee_span)
        if isinstance(node, ast.NamedHole | ast.ChoiceHole):
            made = self._slot(node, "callee")
            return made if isinstance(made, Slot) else Target(None, (), "?", node.span)
        self.problems.append(holes.not_callable(node.span))
        return Target(None, (), "?", node.span)

    def _alternatives(self, node: Any) -> tuple[SlotKind, str, tuple[Any, ...]]:
        """Kind, name and alternatives of a hole, as the tree has them."""
        if isinstance(node, ast.ChoiceHole):
            self._all_different(node.alternatives)
            return "choice", "", node.alternatives
        if isinstance(node, ast.RangeHole):
            first, last = self._bound(node.first), self._bound(node.last)
            if first is None or last is None:
                return "range", "", (Missing(node.span),)
            if last < first or last - first >= MAX_RANGE:
                self.problems.append(holes.bad_range(node.span, first, last, MAX_RANGE))
                last = first
            return "range", "", tuple(ast.Number(node.span, i, str(i)) for i in range(first, last + 1))
        if node.name == "pool":
            if not self.pool:
                self.problems.append(holes.empty_pool(node.span))
                return "pool", "pool", (Missing(node.span),)
            return "pool", "pool", tuple(ast.Reference(node.span, n) for n in self.pool)
        choice = self.vocabulary.find_choice(node.name)
        if choice is None:
            self.problems.append(holes.unknown_choice(node.span, node.name, self.vocabulary.known_choices()))
        elif any(choice is o for o in self.context.open):
            self.problems.append(holes.choice_in_circle(node.span, node.name))
        else:
            self._all_different(choice.alternatives)
            return "choice", node.name, choice.alternatives
        return "choice", node.name, (Missing(node.span),)

    def _bound(self, value: ast.Attribute) -> int | None:
        number, hole = self._constant(value)
        if hole is not None:
            self.problems.append(holes.hole_as_bound(hole, value.span))
            return None
        return number if isinstance(number, int) else 0

    def _all_different(self, alternatives: tuple[Any, ...]) -> None:
        seen: list[Any] = []
        for alternative in alternatives:
            if alternative in seen and alternative.span not in self.context.duplicates:
                self.context.duplicates.add(alternative.span)
                self.problems.append(holes.same_alternative(alternative.span, seen[seen.index(alternative)].span))
            seen.append(alternative)

    def _copy(self, definition: Definition, settings: tuple[ast.Setting, ...], span: Span) -> Definition | None:
        """A definition with holes, for one call of it; None, with a diagnostic, where that would never end."""
        context = self.context
        if definition.broken:
            return definition
        copied = [o for o in context.open if isinstance(o, Op | Block)]
        if any(o is definition for o in copied):
            self.problems.append(names.recursive(definition.definition.name_span, definition.name, [definition.name] * 2))
            return None
        if len(copied) >= MAX_CALLS:
            if not context.is_full:
                context.is_full = True
                context.problems.append(structure.calls_too_deep(span, MAX_CALLS))
            return None
        context.open.append(definition)
        before = len(context.problems)
        words = {name: self.words[name] for name in primitives.SECTION if name in self.words}
        copy: Definition
        if isinstance(definition, Op):
            copy = Op(definition.definition, definition.home, definition.operands, definition.attributes, has_slots=True)
            copy.body = elaborate_op(definition, context, self._words_of_op(definition, settings), self._parent)
        else:
            copy = Block(definition.definition, definition.home, has_slots=True)
            copy.only_body = elaborate_block(definition, context, words, self._parent)
        copy.weight = definition.weight
        context.open.pop()
        show_at_call(context.problems, before, span)
        return copy

    def _words_of_op(self, op: Op, settings: tuple[ast.Setting, ...]) -> dict[str, Word]:
        """What words mean in the body of an op that is called with these attributes; a hole stands for itself."""
        section = {name: self.words[name] for name in primitives.SECTION if name in self.words}
        inside = BodyElaborator(self.context, op.home, section, kept=frozenset())
        inner = dict(section)
        for name, default in op.attributes.items():
            inner[name] = inside._word(default)
        for setting in settings:
            if setting.name in op.attributes:
                inner[setting.name] = setting.value if _find_hole(setting.value) else self._word(setting.value)
        return inner

    def _word(self, value: ast.Attribute) -> Word:
        """What a value without holes of its own stands for."""
        made = self.attribute(value, everything=True)
        return made if _find_hole(made) else attributes.evaluate(made, self.words, [])


# --------------------------------------------------------------------------------------------------- definitions


def elaborate_op(op: Op, context: Context, words: dict[str, Word], parent: tuple[Decision, int] | None = None) -> Operand:
    """The expression of an op, in which its attributes stay by name."""
    span = op.definition.name_span
    scope = [(name, name, span) for name in op.operands]
    kept = SECTION_WORDS.union(op.attributes)
    body = BodyElaborator(context, op.home, words, kept=kept, scope=scope, parent=parent)
    return body.operand(op.definition.body)


def elaborate_block(block: Block, context: Context, words: dict[str, Word], parent: tuple[Decision, int] | None = None) -> Body:
    """The statements of a block, for a call with these words."""
    node = block.definition
    scope = [(p.name, p.name, p.span) for p in node.parameters]
    elaborator = BodyElaborator(context, block.home, dict(words), scope=scope, parent=parent)
    statements = elaborator.run(node.body)
    results = tuple([elaborator.scope[r.name][0] if r.name in elaborator.scope else None for r in node.results])
    weight = sum(weight_of(s.value) for s in statements if isinstance(s, Assign))
    lost = frozenset(r.name for r in node.results if elaborator.scope.get(r.name, ("",))[0] is None)
    return Body(tuple(p.name for p in node.parameters), statements, results, weight, lost | elaborator.lost_names)


def body_of_op(op: Op) -> Operand:
    """The elaborated expression of an op; one of the prelude, or of a file that is not checked, is elaborated at first use."""
    if op.body is None:
        context = Context([])
        op.body = Missing(op.definition.span)  # what an op that calls itself sees
        op.body = elaborate_op(op, context, dict.fromkeys((*primitives.SECTION, *op.attributes), UNKNOWN))
        op.has_slots = bool(context.decisions)
        op.weight = op.weight or max(1, weight_of(op.body))
    return op.body


def body_of_block(block: Block, words: dict[str, Word], problems: list[Diagnostic]) -> Body:
    """The elaborated statements of a block for a call with these words; findings that depend on the words are reported."""
    if block.only_body is not None:
        return block.only_body
    key = tuple(words.items())
    found = block.bodies.get(key)
    if found is None:
        before = len(problems)
        found = elaborate_block(block, Context(problems, lost=block.lost), words)
        if len(problems) == before:
            block.bodies[key] = found
    return found


def weight_of(operand: Operand) -> int:
    """About how many layers an expression becomes; of alternatives the heaviest."""
    if isinstance(operand, Slot):
        return max((weight_of(a) for a in operand.alternatives), default=0)
    if not isinstance(operand, Call):
        return 0
    return _weight_of_target(operand.target) + sum(weight_of(o) for o in operand.operands)


def _weight_of_target(target: Target | Slot) -> int:
    if isinstance(target, Slot):
        return max((_weight_of_target(a) for a in target.alternatives), default=0)
    return target.callee.weight if isinstance(target.callee, Op | Block | Primitive) else 0


def names_bound_in(statements: tuple[ast.Statement, ...]) -> dict[str, Span]:
    """Names that statements bind, those in a `repeat` included; a numbered name without its number."""
    bound: dict[str, Span] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                bound.setdefault(target.name, target.span)
        elif isinstance(statement, ast.Output):
            for binding in statement.bindings:
                bound.setdefault(binding.name, binding.name_span)
        elif isinstance(statement, ast.Repeat):
            bound |= {k: v for k, v in names_bound_in(statement.body).items() if k not in bound}
    return bound


# -------------------------------------------------------------------------------------------------------- details


def show_at_call(problems: list[Diagnostic], since: int, call: Span) -> None:
    """Move findings about the body of what is called to the call, with their own place beside it."""
    for number in range(since, len(problems)):
        found = problems[number]
        if found.span != call:
            related = ((found.span, found.label), *found.related)
            problems[number] = replace(found, span=call, label="in what this calls", fix=None, related=related)


def _literal(word: Word, span: Span) -> Any:
    """A word as an attribute value at this place."""
    if isinstance(word, str):
        return ast.Reference(span, word)
    if isinstance(word, int | float):
        return ast.Number(span, word, str(word))
    return Missing(span) if isinstance(word, Unknown) or word is None else word


def _find_hole(value: Any) -> Span | None:
    """Where the hole stands that a value is reckoned from."""
    kind = type(value)
    if kind is Slot:
        return value.decision.span  # type: ignore[no-any-return]
    if kind is ast.Arithmetic:
        return _find_hole(value.left) or _find_hole(value.right)
    if kind is ast.Negative:
        return _find_hole(value.operand)
    if kind is ast.Group:
        return _find_hole(value.inner)
    return value.span if isinstance(value, _HOLES) else None


def _takes_feature(target: Any) -> bool:
    """Whether ``to=`` of this callee, or of one that may stand in its slot, names a value."""
    if isinstance(target, Slot):
        return any(_takes_feature(a) for a in target.alternatives)
    callee = target.callee if isinstance(target, Target) else None
    return isinstance(callee, Primitive) and "to" in callee.attributes


def _choice_key(node: Any, vocabulary: Vocabulary) -> object:
    """What is open while the alternatives of a hole are read: its choice."""
    found = vocabulary.find_choice(node.name) if isinstance(node, ast.NamedHole) else None
    return found if found is not None else node


def _text(alternative: Any, kind: SlotKind) -> str:
    """An alternative as the text has it."""
    if isinstance(alternative, Missing):
        return "?"
    if isinstance(alternative, ast.Number):
        return alternative.text
    if kind == "pool":
        assert isinstance(alternative, ast.Reference)
        return alternative.name
    return " ".join(alternative.span.text.split())


def is_of_prelude(definition: object) -> bool:
    """Whether a definition is one of the prelude, which every text can name."""
    return isinstance(definition, Op | Block) and prelude().definitions.get(definition.name) is definition
