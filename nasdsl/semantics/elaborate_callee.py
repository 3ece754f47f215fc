"""Elaboration of callees: what names and holes before brackets, in chains and as ``adapter=`` mean; attributes of calls."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import holes, names
from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import Unknown
from nasdsl.semantics.conditions import ALWAYS, Condition, both
from nasdsl.semantics.elaborate_attribute import HOLES, SECTION_WORDS, Context, Word, find_hole, only
from nasdsl.semantics.elaborate_reference import MOST_GUESSES, ReferenceElaborator
from nasdsl.semantics.note_calls import note_call, note_callee
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import Decision, Missing, Slot, Target, possible_values
from nasdsl.semantics.resolved_names import Symbol
from nasdsl.semantics.vocabulary import Block, Definition, Vocabulary, is_of_prelude
from nasdsl.syntax import ast

DEFAULT_ADAPTER: Final = "conv_1x1"
"""The op behind each input of an fpn that sets no ``adapter``."""


class CalleeElaborator(ReferenceElaborator):
    """Elaborates what is called, and with which attributes; `ExpressionElaborator` adds the operands.

    Args:
        vocabulary, words, kept, scope, later, condition, region, word_symbols: as of `ReferenceElaborator`.

    Attributes:
        shared: the `shared` ops that can be called here, by name.
        later_shared: those of all statements of the body.
        given: attributes of the call whose callee is read.
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
        super().__init__(
            context, vocabulary, words, kept=kept, scope=scope, later=later, condition=condition, region=region,
            word_symbols=word_symbols,
        )  # fmt: skip
        self.shared: dict[str, Target] = {}
        self.later_shared: dict[str, Span] = {}
        self.given: tuple[ast.Setting, ...] = ()
        self._targets: dict[str, Target] = {}  # what names before brackets mean, where that is the same for each call

    @abstractmethod
    def copy(self, definition: Definition, settings: tuple[ast.Setting, ...], span: Span) -> Definition | None:
        """A definition with holes, for one call of it; None, with a diagnostic, where that would never end."""

    def called(
        self, callee: str | ast.Hole, span: Span, settings: tuple[ast.Setting, ...]
    ) -> tuple[Target | Slot, tuple[ast.Setting, ...], bool]:
        """What a name or a hole before brackets means; the attributes behind it, and whether they are elaborated.

        They are for a block with holes, of which they decide how many there are.
        """
        is_read = bool(settings) and self._may_be_block_with_holes(callee)
        if is_read:
            settings = self.given = self.settings(settings)
        target = self.target(callee, span, settings)
        self.given = ()
        return target, settings, is_read

    def _may_be_block_with_holes(self, callee: Any) -> bool:
        """Whether an alternative of what is called, or of a hole among them, is such a block."""
        seen: set[int] = set()
        todo = [callee]
        while todo:
            node = todo.pop()
            if isinstance(node, ast.Reference | ast.Call):
                node = node.name if isinstance(node, ast.Reference) else node.callee
            holder: Any = None
            if isinstance(node, str):
                found, word = self.vocabulary.find(node), self.words.get(node)
                if found is None and isinstance(word, str):
                    found = self.vocabulary.find(word)
                if isinstance(found, Block) and found.has_slots:
                    return True
                holder = word if found is None and isinstance(word, Slot) else None
            elif isinstance(node, ast.NamedHole):
                holder = self.vocabulary.find_choice(node.name)
            elif isinstance(node, ast.ChoiceHole):
                holder = node
            if holder is not None and id(holder) not in seen:
                seen.add(id(holder))
                todo += holder.alternatives
        return False

    def target(self, callee: str | ast.Hole, span: Span, settings: tuple[ast.Setting, ...]) -> Target | Slot:
        """What a name or a hole before brackets, or in a head's chain, means."""
        if isinstance(callee, str):
            return self.named_target(callee, span, settings)
        made = self.slot(callee, "callee")
        return made if isinstance(made, Slot) else unknown_target(span)

    def named_target(
        self, name: str, span: Span, settings: tuple[ast.Setting, ...], *, problems: list[Diagnostic] | None = None,
        is_word: bool = False,
    ) -> Target | Slot:  # fmt: skip
        """What a name before brackets means.

        `is_word`: it is itself what a `let` means, so that no `let` of this name is looked for.
        """
        known = self.known_target(name)
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
            if not self.is_lost(meant) and self.vocabulary.is_whole:
                others = [*self.shared, *self.vocabulary.known(), *primitives.known()] if len(problems) < MOST_GUESSES else []
                problems.append(names.unknown_op(span, meant, others, is_value=meant in self.scope, fixable=True))
            return Target(None, (), name, span)
        if not isinstance(callee, Primitive) and callee.has_slots:
            return Target(self.copy(callee, settings, span), (), name, span)
        target = Target(callee, (), name, span)
        if meant is name:  # what a `let` means may change
            self._targets[name] = target
        return target

    def known_target(self, name: str) -> Target | None:
        """What a name before brackets means, where that is known from an earlier call or a `shared` op."""
        return self.shared.get(name) or self._targets.get(name)

    def _target_of_let(self, word: Slot, name: str, span: Span, settings: tuple[ast.Setting, ...]) -> Slot:
        """``let k = ?op`` before brackets: k is the op of that name."""
        made: list[Target | Slot] = []
        outer = self.condition
        for at, alternative in enumerate(word.alternatives):
            self.condition = both(outer, only(word.decision, at))
            if isinstance(alternative, Slot):
                made.append(self._target_of_let(alternative, name, span, settings))
            elif isinstance(alternative, ast.Reference):
                found = self.named_target(alternative.name, span, settings, problems=self.context.hole_problems, is_word=True)
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
        target = self.named_target(node.callee, span, settings, is_word=is_word)
        if self.names is not None:
            note_call(self, node.callee, node.callee_span, target, settings=node.settings)
        if not settings:
            return target
        if not is_read:
            settings = self.settings_of(target, settings)
        self.note_passed_ops(settings)
        return _with_settings(target, settings)

    def settings_of(self, target: Target | Slot, settings: tuple[ast.Setting, ...]) -> tuple[ast.Setting, ...]:
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

    def note_passed_ops(self, settings: tuple[ast.Setting, ...]) -> None:
        """Note the definitions that attributes of a call name."""
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
                value = self.feature(setting.value)
            else:
                value = self.attribute(setting.value)
            made.append(
                setting if value is setting.value else ast.Setting(setting.span, setting.name, setting.name_span, value)
            )
        return tuple(made)

    # --------------------------------------------------------------------------------------- adapters

    def adapter(self, value: Any, span: Span) -> Target | Slot | None:
        """The op that ``adapter=`` names; None for ``adapter=none``."""
        if isinstance(value, str):
            return self.adapter_named(value, span)
        made = self.slot(value, "callee", is_adapter=True) if isinstance(value, HOLES) else self.attribute(value)
        if isinstance(made, Slot):
            if isinstance(value, HOLES):
                return made
            alternatives = tuple(self._adapter_of_word(a, span) for a in made.alternatives)
            return Slot(made.decision, alternatives, span, made.let)
        word = self.evaluate(made)
        return None if isinstance(word, Unknown) else self.adapter_named(word if isinstance(word, str) else span.text, span)

    def _adapter_of_word(self, value: Any, span: Span) -> Any:
        if isinstance(value, Slot):
            return Slot(value.decision, tuple(self._adapter_of_word(a, span) for a in value.alternatives), span, value.let)
        return self.adapter_named(value.name if isinstance(value, ast.Reference) else value.span.text, span)

    def adapter_named(self, name: str, span: Span) -> Target | Slot | None:
        """The op of this name as an adapter; None for ``none``."""
        if self.names is not None:
            note_callee(self, name, span)
        if name == "none":
            return None
        if self.vocabulary.find(name) is None and primitives.find(name) is None:
            self.problems.append(names.unknown_adapter(span, name, [*self.vocabulary.known(), *primitives.known()]))
            return self.named_target(DEFAULT_ADAPTER, span, ())
        return self.named_target(name, span, ())

    def callee_alternative(self, node: Any) -> Any:
        """What may stand before the brackets: a name, a name with attributes (``conv(k=3)``), or a further hole."""
        if isinstance(node, ast.Reference) and node.index is None:
            if self.names is not None:
                note_callee(self, node.name, node.span)
            return self.named_target(node.name, node.span, ())
        if isinstance(node, ast.Call) and not node.operands and isinstance(node.callee, str):
            return self._target_with_settings(node, node.callee_span)
        if isinstance(node, ast.NamedHole | ast.ChoiceHole):
            made = self.slot(node, "callee")
            return made if isinstance(made, Slot) else unknown_target(node.span)
        self.problems.append(holes.not_callable(node.span))
        return unknown_target(node.span)


def unknown_target(span: Span) -> Target:
    """What stands before brackets, and has a mistake that is reported already."""
    return Target(None, (), "?", span)


def _takes_feature(target: Any) -> bool:
    """Whether ``to=`` of this callee, or of one that may stand in its slot, names a value."""
    if isinstance(target, Slot):
        return any(_takes_feature(a) for a in target.alternatives)
    callee = target.callee if isinstance(target, Target) else None
    return isinstance(callee, Primitive) and "to" in callee.attributes


def _results_attributes(target: Any) -> dict[str, str]:
    """Attributes that say how many values a callee gives, or one that may stand in its slot, and the callee's name."""
    if isinstance(target, Slot):
        return {name: op for alternative in target.alternatives for name, op in _results_attributes(alternative).items()}
    callee = target.callee if isinstance(target, Target) else None
    return {callee.results_of: callee.name} if isinstance(callee, Primitive) and callee.results_of else {}


def _with_settings(target: Target | Slot, settings: tuple[ast.Setting, ...]) -> Target | Slot:
    """What is called, with these attributes behind its own; of a slot, each of its alternatives."""
    if isinstance(target, Slot):
        alternatives = tuple([_with_settings(alternative, settings) for alternative in target.alternatives])
        return Slot(target.decision, alternatives, target.span, target.let)
    return target._replace(settings=target.settings + settings)
