"""Elaboration of names of values: which value each means here, or which ones, where a hole decides it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import holes, names, structure
from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import Unknown
from nasdsl.semantics.conditions import (
    ALWAYS,
    MAX_CASES,
    MAX_DEPENDENCIES,
    Bound,
    Branch,
    Condition,
    TooMany,
    is_bound,
    meaning,
)
from nasdsl.semantics.elaborate_attribute import SECTION_WORDS, AttributeElaborator, Context, Word
from nasdsl.semantics.note_calls import note_callee
from nasdsl.semantics.program import Decision, Missing, Nothing, Operand, Ref, Slot
from nasdsl.semantics.resolved_names import Symbol
from nasdsl.semantics.vocabulary import Vocabulary
from nasdsl.syntax import ast

MOST_GUESSES: Final = 200
"""Findings in front of which a misspelling is looked for: a text with so many has other mistakes than misspellings."""

_FEATURE_NAME = re.compile(r"c[1-7]")


class ReferenceElaborator(AttributeElaborator):
    """Elaborates names of values; `ExpressionElaborator` adds calls.

    Args:
        vocabulary, words, kept, scope, condition, region, word_symbols: as of `AttributeElaborator`.
        later: names that statements further down bind.
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

    def reference(self, node: ast.Reference) -> Operand:
        """The value that a name means; a name that means none is reported."""
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
        if not self.is_lost(name):
            self.unknown_value(name, node.span)
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
                self.unknown_value(name, span, self.context.hole_problems)
                made.append(Missing(span))
        return Slot(word.decision, tuple(made), span, word.let)

    def is_lost(self, name: str) -> bool:
        """Whether text that could not be read may have bound a name: as itself, or numbered as in ``x[t]``."""
        lost = self.context.lost
        if not self.lost_names and not lost:
            return False
        stem = name.rstrip("0123456789")
        if name in self.lost_names or stem in self.lost_names:
            return True
        return lost is not None and (name in lost or stem in lost)

    def unknown_value(self, name: str, span: Span, problems: list[Diagnostic] | None = None) -> None:
        """Report a name that means no value."""
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

    def feature(self, node: Any) -> Any:
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


def _as_value(meant: Any, span: Span) -> Ref | Slot | Missing:
    """What a name means, as an operand that stands at this place."""
    if isinstance(meant, Branch):
        return Slot(meant.decision, tuple([_as_value(alternative, span) for alternative in meant.alternatives]), span)
    return Missing(span) if meant is None else Ref(meant, span)


def _as_feature(value: Any) -> Any:
    """A value as one of ``to=``."""
    if isinstance(value, Slot):
        return Slot(value.decision, tuple([_as_feature(a) for a in value.alternatives]), value.span, value.let)
    if isinstance(value, Nothing):
        return ast.Reference(value.span, primitives.NONE)
    return ast.Reference(value.span, value.name) if isinstance(value, Ref) else Missing(value.span)
