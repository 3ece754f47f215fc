"""Elaboration of expressions: names of values and of ops, calls, the alternatives of their holes, definitions with holes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import holes, names, structure, syntax, types
from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import Size, Unknown
from nasdsl.semantics.conditions import (
    ALWAYS,
    MAX_CASES,
    MAX_DEPENDENCIES,
    Bound,
    Branch,
    Condition,
    TooMany,
    both,
    is_bound,
    meaning,
)
from nasdsl.semantics.elaborate_attribute import (
    HOLES,
    SECTION_WORDS,
    AttributeElaborator,
    Context,
    Position,
    Word,
    find_hole,
    only,
)
from nasdsl.semantics.note_calls import note_call, note_callee
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import Call, Decision, Missing, Nothing, Operand, Ref, Slot, Target, find_slot, possible_values
from nasdsl.semantics.resolved_names import Symbol
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary, prelude
from nasdsl.syntax import ast

DEFAULT_ADAPTER: Final = "conv_1x1"
"""The op behind each input of an fpn that sets no ``adapter``."""

MAX_CALLS: Final = 150
"""Deepest nesting of calls, those in the bodies of ops and blocks included: well inside the interpreter's own stack."""

MOST_GUESSES: Final = 200
"""Findings in front of which a misspelling is looked for: a text with so many has other mistakes than misspellings."""

_FEATURE_NAME = re.compile(r"c[1-7]")
_NUMBERS: Final = (ast.Number, ast.Size, ast.Text, ast.Arithmetic, ast.Negative, ast.Group)


class ExpressionElaborator(AttributeElaborator):
    """Elaborates the expressions and attribute values of one body: an fpn, a block, an op, or a head.

    Args:
        vocabulary, words, kept, scope, condition, region, word_symbols: as of `AttributeElaborator`.
        later: names that statements further down bind.

    Attributes:
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
        region: Span | None = None,
        word_symbols: dict[str, Symbol] | None = None,
    ) -> None:
        super().__init__(context, vocabulary, words, kept, scope, condition, region, word_symbols)
        self.later = later or {}
        self.shared: dict[str, Target] = {}
        self.later_shared: dict[str, Span] = {}
        self._given: tuple[ast.Setting, ...] = ()  # attributes of the call whose callee is read
        self._targets: dict[str, Target] = {}  # what names before brackets mean, where that is the same for each call

    # ---------------------------------------------------------------------------------------- expressions

    def operand(self, node: ast.Operand | ast.Attribute, reader: ast.Call | None = None) -> Operand:
        """The program of an expression; `reader` is the call that it is an operand of."""
        kind = type(node)
        if kind is ast.Reference:
            return self.reference(node)  # type: ignore[arg-type]  # `kind` says so
        if kind is ast.Call:
            return self.call(node)  # type: ignore[arg-type]  # `kind` says so
        if isinstance(node, _NUMBERS):
            self.problems.append(holes.not_a_value(node.span) if reader is None else self._no_operand(node, reader))
            return Missing(node.span, is_left_out=reader is not None)  # then nothing is said of how many operands there are
        made = self.slot(node, "operand")
        return made if isinstance(made, Slot | Missing) else Missing(node.span)

    def reference(self, node: ast.Reference) -> Operand:
        name = node.name if node.index is None else self.index_name(node.name, node.index, read=True)
        if name is None:
            return Missing(node.span)
        found = self.scope.get(name)
        if self.names is not None:
            self._note_value(name, node)
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
        if self._is_nothing(word if isinstance(word, str) else name):
            return Nothing(node.span)
        if not self._is_lost(name):
            self._unknown_value(name, node.span)
        return Missing(node.span)

    def _note_value(self, name: str, node: ast.Reference) -> None:
        """Enter what a name in the place of a value refers to."""
        assert self.names is not None
        symbol = self.value_symbols.get(name) or self.word_symbols.get(name)
        if symbol is not None:
            self.names.use(node.span, symbol)
        elif self._is_nothing(name):
            note_callee(self, name, node.span)

    def _is_nothing(self, name: str) -> bool:
        """Whether a name that is bound to no value is ``none``."""
        return name == primitives.NONE and self.vocabulary.find(name) is None

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
            elif isinstance(alternative, ast.Reference) and self._is_nothing(alternative.name):
                made.append(Nothing(span))
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
        is_read = False
        if target is None:
            target, settings, is_read = self.called(callee, node.callee_span, settings)
        if self.names is not None:
            note_call(self, callee, node.callee_span, target, settings=node.settings)
        operand, reference = self.operand, self.reference
        values: Sequence[Any] = node.operands
        factors: list[ast.Attribute] = []
        if _takes_factor(target):
            values, factors = self._values_and_factors(node.operands)
        operands = tuple([reference(o) if type(o) is ast.Reference else operand(o, node) for o in values])
        if factors:
            settings = (*settings, _product(factors))
        variant = _variant(target, settings) if settings else None
        if variant is not None and isinstance(target, Target):
            target, settings = target._replace(callee=variant), self._without_twins(settings, variant.last)
            last = next(s.value for s in settings if s.name == variant.last)
            operands, settings = (*operands, self._named_value(last)), tuple(s for s in settings if s.name != variant.last)
        has_slots = False
        if settings:
            if not is_read:
                settings = self._settings_of(target, settings)
            self._note_passed_ops(settings)
            has_slots = any(find_slot(s.value) for s in settings)
        if node.distinct and len(operands) < 2:
            self.problems.append(holes.distinct_of_one(node.span))
        return Call(target, operands, settings, has_slots, node.span, node.callee_span, node.distinct)

    def called(
        self, callee: str | ast.Hole, span: Span, settings: tuple[ast.Setting, ...]
    ) -> tuple[Target | Slot, tuple[ast.Setting, ...], bool]:
        """What a name or a hole before brackets means; the attributes behind it, and whether they are elaborated.

        They are for a block with holes, of which they decide how many there are.
        """
        is_read = bool(settings) and self._may_be_block_with_holes(callee)
        if is_read:
            settings = self._given = self.settings(settings)
        target = self.target(callee, span, settings)
        self._given = ()
        return target, settings, is_read

    def _may_be_block_with_holes(self, callee: Any, seen: tuple[object, ...] = ()) -> bool:
        if isinstance(callee, ast.Reference | ast.Call):
            callee = callee.name if isinstance(callee, ast.Reference) else callee.callee
        if isinstance(callee, str):
            found, word = self.vocabulary.find(callee), self.words.get(callee)
            if found is None and isinstance(word, str):
                found = self.vocabulary.find(word)
            if found is None and isinstance(word, Slot) and word not in seen:
                return any(self._may_be_block_with_holes(a, (*seen, word)) for a in word.alternatives)
            return isinstance(found, Block) and found.has_slots
        if isinstance(callee, ast.NamedHole):
            choice = self.vocabulary.find_choice(callee.name)
            if choice is None or choice in seen:
                return False
            return any(self._may_be_block_with_holes(a, (*seen, choice)) for a in choice.alternatives)
        return isinstance(callee, ast.ChoiceHole) and any(self._may_be_block_with_holes(a, seen) for a in callee.alternatives)

    def _without_twins(self, settings: tuple[ast.Setting, ...], name: str) -> tuple[ast.Setting, ...]:
        """Attributes without the second and further ones of this name, which are reported."""
        first, *others = (s for s in settings if s.name == name)
        self.problems += [types.attribute_twice(s.name_span, name, first.name_span) for s in others]
        return tuple(s for s in settings if s not in others)

    def _named_value(self, node: ast.Attribute) -> Operand:
        """The value that an attribute names, as an operand."""
        if isinstance(node, ast.Reference):
            return self.reference(node)
        if not isinstance(node, HOLES):
            is_of_values = any(name in self.scope for name in _names_in(node))
            problem = syntax.arithmetic_on_values(node.span) if is_of_values else syntax.number_as_operand(node.span, "")
            self.problems.append(problem)
            return Missing(node.span)
        made = self.slot(node, "value")
        return made if isinstance(made, Slot | Missing) else Missing(node.span)

    def _no_operand(self, node: ast.Attribute, reader: ast.Call) -> Diagnostic:
        """The finding about a number among the operands of a call, or about arithmetic on values."""
        while isinstance(node, ast.Group) and isinstance(node.inner, ast.Group):
            node = node.inner
        if isinstance(node, ast.Group) and isinstance(node.inner, ast.Reference | ast.NamedHole | ast.ChoiceHole):
            return syntax.value_in_brackets(node.span, node.inner.span.text)
        if any(name in self.scope for name in _names_in(node)):
            return syntax.arithmetic_on_values(node.span)
        return syntax.number_as_operand(node.span, reader.callee if isinstance(reader.callee, str) else "")

    def _values_and_factors(self, nodes: Sequence[Any]) -> tuple[list[Any], list[ast.Attribute]]:
        """The operands of ``mul``, apart from the numbers among them."""
        values: list[Any] = []
        factors: list[ast.Attribute] = []
        for node in nodes:
            are = set(self._numbers_among(node, ()))
            if len(are) == 2:
                self.problems.append(holes.values_and_numbers(node.span))
                values.append(ast.NamedHole(node.span, ""))  # is reported, and how many operands there are is not known
            elif are == {True}:
                factors.append(node)
            else:
                values.append(node)
        return values, factors

    def _numbers_among(self, node: Any, within: tuple[str, ...]) -> Iterator[bool]:
        """Whether an operand is a number; of a hole, for each alternative. `within`: choices that it is an alternative of."""
        kind = type(node)
        if kind is Slot or kind is ast.ChoiceHole:
            for alternative in node.alternatives:
                yield from self._numbers_among(alternative, within)
        elif kind is ast.NamedHole:
            choice = None if node.name == "pool" or node.name in within else self.vocabulary.find_choice(node.name)
            for alternative in () if choice is None else choice.alternatives:
                yield from self._numbers_among(alternative, (*within, node.name))
        elif kind is ast.Reference and node.index is None and node.name not in self.scope:
            word = self.words.get(node.name)
            if node.name in self.kept:
                yield node.name == "width" or node.name not in primitives.SECTION
            elif isinstance(word, str) or word is None or isinstance(word, Unknown | Size):
                yield False
            else:
                yield from (True,) if isinstance(word, int | float) else self._numbers_among(word, within)
        elif kind is ast.Group:
            yield from self._numbers_among(node.inner, within)
        else:
            yield kind in (ast.Number, ast.Arithmetic, ast.Negative, ast.RangeHole)

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
        if self.names is not None:
            self.names.parameters(node)
            self.names.definition(node, self.region)
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
            self.context, self.vocabulary, dict(self.words), kept=self.kept, scope=scope, condition=self.condition,
            region=node.span, word_symbols=dict(self.word_symbols),
        )  # fmt: skip
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
            self.condition = both(outer, only(word.decision, at))
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
        if node.distinct:
            self.problems.append(holes.distinct_of_one(node.span))
        settings = node.settings
        is_read = bool(settings) and self._may_be_block_with_holes(node.callee)
        if is_read:
            settings = self.settings(settings)
        target = self._named_target(node.callee, span, settings, is_word=is_word)
        if self.names is not None:
            note_call(self, node.callee, node.callee_span, target, settings=node.settings)
        if not isinstance(target, Target):
            return target
        return target._replace(settings=settings if is_read else self._settings_of(target, settings))

    def _settings_of(self, target: Target | Slot, settings: tuple[ast.Setting, ...]) -> tuple[ast.Setting, ...]:
        """The attributes of a call."""
        made = self.settings(settings, takes_feature=_takes_feature(target))
        counting = _results_attributes(target)
        return tuple([self._without_hole(s, counting[s.name]) if s.name in counting else s for s in made]) if counting else made

    def _without_hole(self, setting: ast.Setting, op: str) -> ast.Setting:
        """An attribute that says how many values `op` gives; a hole in it is reported."""
        hole = find_hole(setting.value)
        if hole is None:
            return setting
        self.problems.append(holes.hole_as_results(hole, op, setting.name))
        missing: Any = Missing(setting.value.span)
        return replace(setting, value=missing)

    def _note_passed_ops(self, settings: tuple[ast.Setting, ...]) -> None:
        for value in (value for setting in settings for value in possible_values(setting.value)):
            if type(value) is ast.Reference:
                found = self.vocabulary.find(value.name)
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
            if self.names is not None:
                self.names.use(value.span, self.value_symbols[value.name])
            return _as_feature(self.read(self.scope[value.name][0], value.name, value.span))
        return value

    # ------------------------------------------------------------------------------------ attribute values

    def adapter(self, value: Any, span: Span) -> Target | Slot | None:
        """The op that ``adapter=`` names; None for ``adapter=none``."""
        if isinstance(value, str):
            return self._adapter_named(value, span)
        made = self.slot(value, "callee", is_adapter=True) if isinstance(value, HOLES) else self.attribute(value)
        if isinstance(made, Slot):
            if isinstance(value, HOLES):
                return made
            alternatives = tuple(self._adapter_of_word(a, span) for a in made.alternatives)
            return Slot(made.decision, alternatives, span, made.let)
        word = self.evaluate(made)
        return None if isinstance(word, Unknown) else self._adapter_named(word if isinstance(word, str) else span.text, span)

    def _adapter_of_word(self, value: Any, span: Span) -> Any:
        if isinstance(value, Slot):
            return Slot(value.decision, tuple(self._adapter_of_word(a, span) for a in value.alternatives), span, value.let)
        return self._adapter_named(value.name if isinstance(value, ast.Reference) else value.span.text, span)

    def _adapter_named(self, name: str, span: Span) -> Target | Slot | None:
        if self.names is not None:
            note_callee(self, name, span)
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
        made = self.slot(callee, "callee")
        return made if isinstance(made, Slot) else Target(None, (), "?", span)

    # ----------------------------------------------------------------------------------------------- holes

    def alternative(self, node: Any, position: Position, *, is_adapter: bool = False) -> Any:
        """What an alternative of a hole becomes in this position."""
        if is_adapter and isinstance(node, ast.Reference):
            return self._adapter_named(node.name, node.span)
        if isinstance(node, Missing):
            return Target(None, (), "?", node.span) if position == "callee" else node
        if _is_chain(node):
            self.problems.append(holes.chain_outside_head(node.span))
            return Target(None, (), "?", node.span) if position == "callee" else Missing(node.span)
        if position == "operand":
            return self.operand(node)
        if position == "value":
            return self._value_alternative(node)
        if position == "callee":
            return self._callee_alternative(node)
        if isinstance(node, HOLES):
            return self.slot(node, position)
        if isinstance(node, ast.Call) and position == "attribute":
            self.problems.append(holes.not_a_word(node.span))
            return Missing(node.span)
        return self.attribute(node)

    def _value_alternative(self, node: Any) -> Any:
        """What may stand where an attribute names a value: a name, or a further hole."""
        if isinstance(node, ast.Reference):
            return self.reference(node)
        if isinstance(node, HOLES):
            return self.slot(node, "value")
        problem = holes.call_as_name(node.span) if isinstance(node, ast.Call) else holes.not_a_value(node.span)
        self.problems.append(problem)
        return Missing(node.span)

    def _callee_alternative(self, node: Any) -> Any:
        """What may stand before the brackets: a name, a name with attributes (``conv(k=3)``), or a further hole."""
        if isinstance(node, ast.Reference) and node.index is None:
            if self.names is not None:
                note_callee(self, node.name, node.span)
            return self._named_target(node.name, node.span, ())
        if isinstance(node, ast.Call) and not node.operands and isinstance(node.callee, str):
            return self._target_with_settings(node, node.callee_span)
        if isinstance(node, ast.NamedHole | ast.ChoiceHole):
            made = self.slot(node, "callee")
            return made if isinstance(made, Slot) else Target(None, (), "?", node.span)
        self.problems.append(holes.not_callable(node.span))
        return Target(None, (), "?", node.span)

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
        copy: Definition
        if isinstance(definition, Op):
            copy = replace(definition, expansions={})
            copy.body = elaborate_op(copy, context, self._words_of_call(copy, settings), self.condition)
        else:
            copy = replace(definition, bodies={})
            words = self._words_of_call(copy, (*settings, *self._given))
            copy.only_body = context.elaborate_block(copy, context, words, self.condition)
        context.open.pop()
        show_at_call(context.problems, before, span)
        return copy

    def _words_of_call(self, callee: Definition, settings: tuple[ast.Setting, ...]) -> dict[str, Word]:
        """What words mean in the body of what is called with these attributes; a hole stands for itself."""
        section = {name: self.words[name] for name in primitives.SECTION if name in self.words}
        inside = ExpressionElaborator(self.context, callee.home, section, kept=frozenset())
        inner = dict(section)
        for name, default in callee.attributes.items():
            inner[name] = inside.word(default)
        for setting in settings:
            if setting.name in callee.attributes:
                inner[setting.name] = setting.value if find_hole(setting.value) else self.word(setting.value)
        return inner


def elaborate_op(op: Op, context: Context, words: dict[str, Word], condition: Condition[Decision] = ALWAYS) -> Operand:
    """The expression of an op, in which its attributes stay by name."""
    node = op.definition
    symbols = None if context.names is None else context.names.parameters(node)
    scope = [(p.name, p.name, p.span) for p in node.parameters if p.default is None]
    kept = SECTION_WORDS.union(op.attributes)
    body = ExpressionElaborator(
        context, op.home, words, kept=kept, scope=scope, condition=condition, region=node.span, word_symbols=symbols
    )
    return body.operand(op.definition.body)


# -------------------------------------------------------------------------------------------------------- details


def show_at_call(problems: list[Diagnostic], since: int, call: Span) -> None:
    """Move findings about the body of what is called to the call, with their own place beside it."""
    for number in range(since, len(problems)):
        found = problems[number]
        if found.span != call:
            related = ((found.span, found.label), *found.related)
            problems[number] = replace(found, span=call, label="in what this calls", fix=None, related=related)


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


def _takes_factor(target: Any) -> bool:
    """Whether numbers among the operands are factors, whatever stands in a slot before the brackets."""
    if isinstance(target, Slot):
        return all(_takes_factor(a) for a in target.alternatives)
    callee = target.callee if isinstance(target, Target) else None
    return isinstance(callee, Primitive) and primitives.FACTOR in callee.attributes


def _variant(target: Any, settings: tuple[ast.Setting, ...]) -> Primitive | None:
    """The primitive that takes the value of an attribute as its last operand; None where no attribute is one."""
    callee = target.callee if isinstance(target, Target) else None
    if not isinstance(callee, Primitive) or not callee.variants:
        return None
    return next((callee.variants[s.name] for s in settings if s.name in callee.variants), None)


def _product(factors: Sequence[ast.Attribute]) -> ast.Setting:
    """Numbers among the operands of ``mul`` as the attribute that they stand for."""
    first, *others = factors
    value = first
    for factor in others:
        value = ast.Arithmetic(factor.span, "*", value, factor)
    return ast.Setting(first.span, primitives.FACTOR, first.span, value)


def _names_in(node: Any) -> Iterator[str]:
    """Names in an attribute value."""
    if isinstance(node, ast.Reference):
        yield node.name
    elif isinstance(node, ast.Arithmetic):
        yield from (*_names_in(node.left), *_names_in(node.right))
    elif isinstance(node, ast.Negative | ast.Group):
        yield from _names_in(node.operand if isinstance(node, ast.Negative) else node.inner)


def _results_attributes(target: Any) -> dict[str, str]:
    """Attributes that say how many values a callee gives, or one that may stand in its slot, and the callee's name."""
    if isinstance(target, Slot):
        return {name: op for alternative in target.alternatives for name, op in _results_attributes(alternative).items()}
    callee = target.callee if isinstance(target, Target) else None
    return {callee.results_of: callee.name} if isinstance(callee, Primitive) and callee.results_of else {}


def is_of_prelude(definition: object) -> bool:
    """Whether a definition is one of the prelude, which every text can name."""
    return isinstance(definition, Op | Block) and prelude().definitions.get(definition.name) is definition
