"""Elaboration of expressions and attribute values: names, `let`, numbered names (``x[t-1]``), holes, definitions with holes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, TypeAlias

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import holes, names, structure, types
from nasdsl.semantics import attributes, primitives
from nasdsl.semantics.attributes import UNKNOWN, Quoted, Size, Unknown, Value
from nasdsl.semantics.conditions import (
    ALWAYS,
    MAX_CASES,
    MAX_DEPENDENCIES,
    Bound,
    Branch,
    Cases,
    Condition,
    TooMany,
    both,
    is_bound,
    meaning,
)
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import (
    Body,
    Call,
    Decision,
    Missing,
    Operand,
    Ref,
    SetWord,
    Slot,
    SlotKind,
    Target,
    find_slot,
)
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary, prelude
from nasdsl.syntax import ast

DEFAULT_ADAPTER: Final = "conv_1x1"
"""The op behind each input of an fpn that sets no ``adapter``."""

MAX_DECISIONS: Final = 100_000
"""Most holes that a decoder may have, those in a `repeat` counted once a round, those in a definition once a call."""

MAX_RANGE: Final = 10_000
"""Most alternatives of a range."""

MAX_CALLS: Final = 150
"""Deepest nesting of calls, those in the bodies of ops and blocks included: well inside the interpreter's own stack."""

MOST_GUESSES: Final = 200
"""Findings in front of which a misspelling is looked for: a text with so many has other mistakes than misspellings."""

_FEATURE_NAME = re.compile(r"c[1-7]")
_NUMBERS: Final = (ast.Number, ast.Size, ast.Text, ast.Arithmetic, ast.Negative, ast.Group)
_HOLES: Final = (ast.NamedHole, ast.ChoiceHole, ast.RangeHole)

SECTION_WORDS: Final = frozenset(primitives.SECTION)

Word: TypeAlias = Any
"""What a name stands for among attributes: a number or word, `UNKNOWN`, a slot, or a value that is computed from one."""

Position: TypeAlias = Literal["operand", "callee", "attribute", "let"]


@dataclass(slots=True)
class Context:
    """What the elaboration of one decoder has in common.

    Attributes:
        problems: findings.
        elaborate_block: elaborates the statements of a block with holes, for one call of it.
        hole_problems: findings about alternatives of holes.
        lost: names whose absence is not reported, because text that could not be read may bind them; None where all was read.
        decisions: those met so far.
        passed: definitions that attributes name.
        duplicates: alternatives that are reported to stand twice.
        open: choices whose alternatives are being read, and definitions that are being copied.
        is_full: a limit was met, and reported.
    """

    problems: list[Diagnostic]
    elaborate_block: Callable[[Block, Context, dict[str, Word], Condition[Decision]], Body]
    hole_problems: list[Diagnostic] = field(default_factory=list)
    lost: frozenset[str] | None = None
    decisions: list[Decision] = field(default_factory=list)
    open: list[object] = field(default_factory=list)
    passed: list[Definition] = field(default_factory=list)
    duplicates: set[Span] = field(default_factory=set)
    is_full: bool = False


class ExpressionElaborator:
    """Elaborates the expressions and attribute values of one body: an fpn, a block, an op, or a head.

    Args:
        vocabulary: what names of ops, blocks and choices mean.
        words: what names of attributes mean.
        kept: words that stay in the program by name, because the section or the call of an op sets them.
        scope: names of the values that are there from the beginning; None for one whose mistake is reported already.
        later: names that statements further down bind.
        condition: when the body is there.

    Attributes:
        scope: what each name of the text means, and where it is bound.
        condition: when what is elaborated is there.
        pool: names that `?pool` draws from.
        lost_names: names that are not bound because of a mistake, or in a `repeat` whose count is not known.
        shared: the `shared` ops that can be called here, by name.
        later_shared: those of all statements of the body.
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
        condition: Condition[Decision] = ALWAYS,
    ) -> None:
        self.context = context
        self.problems = context.problems
        self.vocabulary = vocabulary
        self.words = words
        self.kept = kept
        self.scope: dict[str, tuple[Bound, Span]] = {name: (unique, span) for name, unique, span in scope}
        self.pool = list(self.scope)
        self.later = later or {}
        self.lost_names: set[str] = set()
        self.condition = condition
        self.shared: dict[str, Target] = {}
        self.later_shared: dict[str, Span] = {}
        self._targets: dict[str, Target] = {}  # what names before brackets mean, where that is the same for each call

    # ---------------------------------------------------------------------------------------- expressions

    def operand(self, node: ast.Operand | ast.Attribute) -> Operand:
        """The program of an expression."""
        kind = type(node)
        if kind is ast.Reference:
            return self.reference(node)  # type: ignore[arg-type]  # `kind` says so
        if kind is ast.Call:
            return self.call(node)  # type: ignore[arg-type]  # `kind` says so
        if isinstance(node, _NUMBERS):
            self.problems.append(holes.not_a_value(node.span))
            return Missing(node.span)
        made = self._slot(node, "operand")
        return made if isinstance(made, Slot | Missing) else Missing(node.span)

    def reference(self, node: ast.Reference) -> Operand:
        name = node.name if node.index is None else self.index_name(node.name, node.index, read=True)
        if name is None:
            return Missing(node.span)
        found = self.scope.get(name)
        if found is not None:
            return self.read(found[0], name, node.span)
        if name in self.kept and name not in primitives.SECTION:
            return Ref(name, node.span)  # an attribute of the op, which may hold anything
        word = self.words.get(name)
        if isinstance(word, Unknown) and name not in primitives.SECTION:
            return Missing(node.span)
        if isinstance(word, str) and word in self.scope:
            return self.read(self.scope[word][0], word, node.span)
        if isinstance(word, Slot):
            return self._operand_of_let(word, name, node.span)
        if not self._is_lost(name):
            self._unknown_value(name, node.span)
        return Missing(node.span)

    def read(self, value: Bound, name: str, span: Span) -> Ref | Slot | Missing:
        """What a name that is bound means here: a value, or one for each alternative of a decision."""
        if isinstance(value, str):
            return Ref(value, span)
        try:
            meant = meaning(value, self.condition)
        except TooMany:
            self.too_many_dependencies(span, f"what `{name}` means")
            return Missing(span)
        if not is_bound(meant):
            self.problems.append(holes.not_always_bound(span, name, self.scope[name][1]))
            return Missing(span)

        return _as_value(meant, span)

    def too_many_dependencies(self, span: Span, what: str) -> None:
        """Report, once, that too many holes decide something."""
        if not self.context.is_full:
            self.context.is_full = True
            self.context.problems.append(structure.too_many_dependencies(span, what, MAX_DEPENDENCIES, MAX_CASES))

    def _operand_of_let(self, word: Slot, name: str, span: Span) -> Operand:
        """``let k = ?pool`` where a value is expected: k is the value of that name."""
        made: list[Operand] = []
        for alternative in word.alternatives:
            if isinstance(alternative, Slot):
                made.append(self._operand_of_let(alternative, name, span))
            elif isinstance(alternative, ast.Reference) and alternative.name in self.scope:
                made.append(self.read(self.scope[alternative.name][0], alternative.name, span))
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
        callee = node.callee
        target: Target | Slot | None = self._known_target(callee) if isinstance(callee, str) else None
        if target is None:
            target = self.target(callee, node.callee_span, settings)
        operand, reference = self.operand, self.reference
        operands = tuple([reference(o) if type(o) is ast.Reference else operand(o) for o in node.operands])
        has_slots = False
        if settings:
            settings = self.settings(settings, takes_feature=_takes_feature(target))
            self._note_passed_ops(settings)
            has_slots = any(find_slot(s.value) for s in settings)
        return Call(target, operands, settings, has_slots, node.span, node.callee_span)

    def _named_target(
        self, name: str, span: Span, settings: tuple[ast.Setting, ...], *, problems: list[Diagnostic] | None = None,
        is_word: bool = False,
    ) -> Target | Slot:  # fmt: skip
        """What a name before brackets means.

        `is_word`: it is itself what a `let` means, so that no `let` of this name is looked for.
        """
        known = self._known_target(name)
        if known is not None:
            return known
        problems = self.problems if problems is None else problems
        callee: Definition | Primitive | None = self.vocabulary.find(name) or primitives.find(name)
        if callee is None and name in self.kept and name not in primitives.SECTION:
            return Target(name, (), name, span)
        meant = name
        if callee is None and not is_word:
            word = self.words.get(name)
            if isinstance(word, Slot):
                return self._target_of_let(word, name, span, settings)
            if isinstance(word, Unknown) and name not in primitives.SECTION:
                return Target(None, (), name, span)
            if isinstance(word, str):  # let k = conv_3x3
                meant = word
                if meant in self.shared:
                    return self.shared[meant]
                callee = self.vocabulary.find(meant) or primitives.find(meant)
        if callee is None and meant in self.later_shared:
            problems.append(names.shared_elsewhere(span, meant, self.later_shared[meant]))
            return Target(None, (), name, span)
        if callee is None:
            if not self._is_lost(meant) and self.vocabulary.is_whole:
                others = [*self.shared, *self.vocabulary.known(), *primitives.known()] if len(problems) < MOST_GUESSES else []
                problems.append(names.unknown_op(span, meant, others, is_value=meant in self.scope, fixable=True))
            return Target(None, (), name, span)
        if not isinstance(callee, Primitive) and callee.has_slots:
            return Target(self._copy(callee, settings, span), (), name, span)
        target = Target(callee, (), name, span)
        if meant is name:  # what a `let` means may change
            self._targets[name] = target
        return target

    def _known_target(self, name: str) -> Target | None:
        return self.shared.get(name) or self._targets.get(name)

    def share(self, node: ast.OpDef) -> Op:
        """Enter a `shared` op: from here on its name means it. Its holes are filled once, for all calls."""
        operands = tuple(p.name for p in node.parameters if p.default is None)
        op = Op(node, self.vocabulary, operands, {}, is_shared=True)
        before = len(self.problems)
        seen: dict[str, Span] = {}
        for parameter in node.parameters:
            if parameter.name in seen:
                self.problems.append(names.defined_twice(parameter.span, "parameter", parameter.name, seen[parameter.name]))
            elif parameter.default is not None:
                self.problems.append(structure.shared_attribute(parameter.span, node.name))
            seen.setdefault(parameter.name, parameter.span)
        scope = [(name, name if name in operands else None, span) for name, span in seen.items()]
        body = ExpressionElaborator(
            self.context, self.vocabulary, dict(self.words), kept=self.kept, scope=scope, condition=self.condition
        )
        body.shared, body.later_shared = self.shared, self.later_shared
        body.lost_names, body.problems = self.lost_names, self.problems
        op.body = body.operand(node.body)
        op.has_slots = _has_slots(op.body)
        op.broken = len(self.problems) > before
        self.shared = {**self.shared, node.name: Target(op, (), node.name, node.name_span)}
        return op

    def _target_of_let(self, word: Slot, name: str, span: Span, settings: tuple[ast.Setting, ...]) -> Slot:
        """``let k = ?op`` before brackets: k is the op of that name."""
        made: list[Target | Slot] = []
        outer = self.condition
        for at, alternative in enumerate(word.alternatives):
            self.condition = both(outer, _only(word.decision, at))
            if isinstance(alternative, Slot):
                made.append(self._target_of_let(alternative, name, span, settings))
            elif isinstance(alternative, ast.Reference):
                found = self._named_target(alternative.name, span, settings, problems=self.context.hole_problems, is_word=True)
                made.append(found)
            elif isinstance(alternative, ast.Call) and not alternative.operands and isinstance(alternative.callee, str):
                made.append(self._target_with_settings(alternative, span, is_word=True))
            else:
                problems = self.context.hole_problems
                problems.append(names.unknown_op(span, name, self.vocabulary.known(), is_value=False, fixable=False))
                made.append(Target(None, (), name, span))
        self.condition = outer
        return Slot(word.decision, tuple(made), span, word.let)

    def _target_with_settings(self, node: ast.Call, span: Span, *, is_word: bool = False) -> Target | Slot:
        """An alternative such as ``conv(k=3)``."""
        assert isinstance(node.callee, str)
        target = self._named_target(node.callee, span, node.settings, is_word=is_word)
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
            return self._named_features(node)
        if isinstance(node, ast.Reference) and not isinstance(self.words.get(node.name), int | Slot):
            return _as_feature(self.reference(node))
        return self._named_features(self.attribute(node))

    def _named_features(self, value: Any) -> Any:
        """Names of values in the alternatives of a slot, made unique."""
        if isinstance(value, Slot):
            return Slot(value.decision, tuple(self._named_features(a) for a in value.alternatives), value.span, value.let)
        if isinstance(value, ast.Reference) and value.name in self.scope:
            return _as_feature(self.read(self.scope[value.name][0], value.name, value.span))
        return value

    # ------------------------------------------------------------------------------------ attribute values

    def let(self, node: ast.Let) -> SetWord:
        """Enter what a `let` binds."""
        written = self._hole_of_let(node) if isinstance(node.value, _HOLES) else self.attribute(node.value)
        everything = self.attribute(written, everything=True)
        self.words[node.name] = everything if find_slot(everything) else self._evaluate(everything)
        return SetWord(node.name, written, node.span, True)

    def _hole_of_let(self, node: ast.Let) -> Any:
        made = self._slot(node.value, "let")
        if isinstance(made, Slot):
            made.let = node.name
        return made

    def attribute(self, node: Any, *, everything: bool = False) -> Any:
        """An attribute value with what `let` and `repeat` bind in the place of names; `everything`: also the kept words."""
        kind = type(node)
        if kind is ast.Number or kind is Slot or kind is Missing or kind is ast.Size or kind is ast.Text:
            return node
        if kind is ast.Reference:
            if node.index is not None:
                name = self.index_name(node.name, node.index)
                return Missing(node.span) if name is None else ast.Reference(node.span, name)
            if node.name not in self.words or (node.name in self.kept and not everything):
                return node
            word = self.words[node.name]
            if isinstance(word, Slot):
                return Slot(word.decision, word.alternatives, node.span, word.let)
            return literal(word, node.span)
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
        if kind is ast.Call or kind is ast.Chain:  # among the alternatives of a `let`
            return node
        return self._slot(node, "attribute")

    def _evaluate(self, value: Any) -> Value | Unknown:
        return attributes.evaluate(value, self.words, self.problems)

    def constant(self, value: Any) -> tuple[Value | Unknown, Span | None]:
        """The number or word that a value stands for; or the span of the hole that it depends on."""
        made = self.attribute(value, everything=True)
        hole = _find_hole(made)
        return (UNKNOWN, hole) if hole is not None else (self._evaluate(made), None)

    def index_name(self, name: str, index: ast.Attribute | None, *, read: bool = False) -> str | None:
        """``x[t-1]`` with t = 3 is ``x2``; None if the number is not known, which is reported."""
        if index is None:
            return name
        number, hole = self.constant(index)
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
            return self._named_target(DEFAULT_ADAPTER, span, ())
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

        def make(alternative: Any) -> Any:
            if is_adapter and isinstance(alternative, ast.Reference):
                return self._adapter_named(alternative.name, alternative.span)
            return self._alternative(alternative, position)

        made = self.decide(node, make)
        return made if isinstance(made, Missing) else Slot(made[0], tuple(made[1]), node.span)

    def decide(self, node: Any, make: Callable[[Any], Any]) -> tuple[Decision, list[Any]] | Missing:
        """The decision of a hole, and what `make` makes of each of its alternatives."""
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
        decision = Decision(len(context.decisions), kind, name, tuple(_text(a, kind) for a in raw), self.condition, node.span)
        context.decisions.append(decision)
        outer = self.condition
        context.open.append(_choice_key(node, self.vocabulary))
        made = []
        for at, alternative in enumerate(raw):
            self.condition = both(outer, _only(decision, at))
            made.append(make(alternative))
        context.open.pop()
        self.condition = outer
        self.problems = outer_problems
        return decision, made

    def _alternative(self, node: Any, position: Position) -> Any:
        if isinstance(node, Missing):
            return Target(None, (), "?", node.span) if position == "callee" else node
        if _is_chain(node):
            self.problems.append(holes.chain_outside_head(node.span))
            return Target(None, (), "?", node.span) if position == "callee" else Missing(node.span)
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
            pool = [name for name in self.pool if self._is_always_bound(name)]
            if not pool:
                self.problems.append(holes.empty_pool(node.span))
                return "pool", "pool", (Missing(node.span),)
            return "pool", "pool", tuple(ast.Reference(node.span, n) for n in pool)
        choice = self.vocabulary.find_choice(node.name)
        if choice is None:
            self.problems.append(holes.unknown_choice(node.span, node.name, self.vocabulary.known_choices()))
        elif any(choice is o for o in self.context.open):
            self.problems.append(holes.choice_in_circle(node.span, node.name))
        else:
            self._all_different(choice.alternatives)
            return "choice", node.name, choice.alternatives
        return "choice", node.name, (Missing(node.span),)

    def _is_always_bound(self, name: str) -> bool:
        value = self.scope[name][0] if name in self.scope else None
        try:
            return not isinstance(value, Cases) or is_bound(meaning(value, self.condition))
        except TooMany:
            return False

    def _bound(self, value: ast.Attribute) -> int | None:
        number, hole = self.constant(value)
        if hole is not None:
            self.problems.append(holes.hole_as_bound(hole, value.span))
            return None
        return number if isinstance(number, int) else 0

    def _all_different(self, alternatives: tuple[Any, ...]) -> None:
        seen: dict[Any, Span] = {}
        for alternative in alternatives:
            first = seen.setdefault(alternative, alternative.span)
            if first is not alternative.span and alternative.span not in self.context.duplicates:
                self.context.duplicates.add(alternative.span)
                self.problems.append(holes.same_alternative(alternative.span, first))

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
            copy.body = elaborate_op(definition, context, self._words_of_op(definition, settings), self.condition)
        else:
            copy = Block(definition.definition, definition.home, has_slots=True)
            copy.only_body = context.elaborate_block(definition, context, words, self.condition)
        copy.weight = definition.weight
        context.open.pop()
        show_at_call(context.problems, before, span)
        return copy

    def _words_of_op(self, op: Op, settings: tuple[ast.Setting, ...]) -> dict[str, Word]:
        """What words mean in the body of an op that is called with these attributes; a hole stands for itself."""
        section = {name: self.words[name] for name in primitives.SECTION if name in self.words}
        inside = ExpressionElaborator(self.context, op.home, section, kept=frozenset())
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


def elaborate_op(op: Op, context: Context, words: dict[str, Word], condition: Condition[Decision] = ALWAYS) -> Operand:
    """The expression of an op, in which its attributes stay by name."""
    span = op.definition.name_span
    scope = [(name, name, span) for name in op.operands]
    kept = SECTION_WORDS.union(op.attributes)
    body = ExpressionElaborator(context, op.home, words, kept=kept, scope=scope, condition=condition)
    return body.operand(op.definition.body)


# -------------------------------------------------------------------------------------------------------- details


def show_at_call(problems: list[Diagnostic], since: int, call: Span) -> None:
    """Move findings about the body of what is called to the call, with their own place beside it."""
    for number in range(since, len(problems)):
        found = problems[number]
        if found.span != call:
            related = ((found.span, found.label), *found.related)
            problems[number] = replace(found, span=call, label="in what this calls", fix=None, related=related)


def literal(word: Word, span: Span) -> Any:
    """A word as an attribute value at this place."""
    if isinstance(word, Quoted):
        return ast.Text(span, word)
    if isinstance(word, str):
        return ast.Reference(span, word)
    if isinstance(word, Size):
        return ast.Size(span, *word)
    if isinstance(word, int | float):
        return ast.Number(span, word, str(word))
    return Missing(span) if isinstance(word, Unknown) or word is None else word


def _has_slots(operand: Any) -> bool:
    """Whether what an expression computes differs between fillings."""
    if isinstance(operand, Slot):
        return True
    if not isinstance(operand, Call):
        return False
    target = operand.target
    if operand.has_slots or isinstance(target, Slot) or any(find_slot(s.value) for s in target.settings):
        return True
    return getattr(target.callee, "has_slots", False) or any(_has_slots(o) for o in operand.operands)


def _find_hole(value: Any) -> Span | None:
    """Where the hole stands that a value is computed from."""
    kind = type(value)
    if kind is Slot:
        return value.decision.span  # type: ignore[no-any-return]  # `kind` says so
    if kind is ast.Arithmetic:
        return _find_hole(value.left) or _find_hole(value.right)
    if kind is ast.Negative:
        return _find_hole(value.operand)
    if kind is ast.Group:
        return _find_hole(value.inner)
    return value.span if isinstance(value, _HOLES) else None


def _only(decision: Decision, at: int) -> Condition[Decision]:
    """The condition that a decision has one alternative."""
    return (((decision, frozenset((at,))),),)


def _as_value(meant: Any, span: Span) -> Ref | Slot | Missing:
    """What a name means, as an operand that stands at this place."""
    if isinstance(meant, Branch):
        return Slot(meant.decision, tuple([_as_value(alternative, span) for alternative in meant.alternatives]), span)
    return Missing(span) if meant is None else Ref(meant, span)


def _as_feature(value: Any) -> Any:
    """A value as one of ``to=``."""
    if isinstance(value, Slot):
        return Slot(value.decision, tuple([_as_feature(a) for a in value.alternatives]), value.span, value.let)
    return ast.Reference(value.span, value.name) if isinstance(value, Ref) else Missing(value.span)


def _is_chain(alternative: Any) -> bool:
    """Whether an alternative can only be layers of a head."""
    return isinstance(alternative, ast.Chain) or (
        isinstance(alternative, ast.Arithmetic) and isinstance(alternative.left, ast.Call)
    )


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
