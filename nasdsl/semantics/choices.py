"""Checks of choices that no hole of their file draws from: each alternative of a choice of ops is an op."""

from __future__ import annotations

from typing import Any, Final

from nasdsl.diagnostics import Diagnostic
from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import UNKNOWN
from nasdsl.semantics.builder import UNFIT
from nasdsl.semantics.definitions import nodes
from nasdsl.semantics.elaborate_body import new_context
from nasdsl.semantics.elaborate_chain import elaborate_chain
from nasdsl.semantics.elaborate_expression import ExpressionElaborator
from nasdsl.semantics.infer import Inference
from nasdsl.semantics.infer_scope import Binding, Frame
from nasdsl.semantics.program import Call, Slot, Target
from nasdsl.semantics.resolved_names import NameTable
from nasdsl.semantics.vocabulary import Vocabulary
from nasdsl.syntax import ast

_WORDS: Final = frozenset(w for p in primitives.PRIMITIVES.values() for a in p.attributes.values() for w in a.words)
"""Words that attributes accept; some are the names of ops too (``max``, ``relu``, ``none``)."""

_OF_ATTRIBUTES: Final = ("NAS302", "NAS303", "NAS305")
"""Codes of mistakes that a call makes with any operands."""

_OF_PLACES: Final = ("NAS503",)
"""Codes of mistakes that an alternative makes in a head, and not everywhere."""


def check_unused_choices(
    file: ast.File,
    vocabulary: Vocabulary,
    problems: list[Diagnostic],
    lost: frozenset[str] | None,
    names: NameTable | None = None,
) -> None:
    """Report alternatives that are no op, and attributes that an op does not take, of choices that the file has no hole of.

    Those with a hole are checked where it stands. What an alternative of another choice may be (a value of some fpn, a word,
    a number) is not known here: only a choice one of whose alternatives can be nothing but an op is looked at.
    """
    choices = [item for item in file.items if isinstance(item, ast.ChoiceDef)]
    if not choices:  # as in every sample
        return
    drawn = {n.name for n in nodes(file) if isinstance(n, ast.NamedHole)}
    for choice in choices:
        if choice.name in {*drawn, "pool"} or not any(_is_op(a, vocabulary) for a in choice.alternatives):
            continue
        context = new_context(problems, lost, names)
        words = dict.fromkeys(primitives.SECTION, UNKNOWN)
        body = ExpressionElaborator(context, vocabulary, words)
        hole = ast.NamedHole(choice.name_span, choice.name)
        steps = elaborate_chain((ast.Step(choice.span, hole),), choice.span, body)
        problems += [p for p in context.hole_problems if p.code not in _OF_PLACES]
        inference = Inference([])
        for step in steps:
            for target in _targets(step.call.target):
                frame = Frame({"x": Binding("x", UNFIT, step.span)}, dict(words), None)
                settings = target.settings + step.call.settings
                call = Call(target._replace(settings=()), step.call.operands, settings, False, target.span, target.span)
                inference.expand(call, frame, "", None)
        problems += [p for p in inference.problems if p.code in _OF_ATTRIBUTES]


def _is_op(alternative: Any, vocabulary: Vocabulary) -> bool:
    """Whether an alternative can be nothing but an op, or a chain of ops."""
    if isinstance(alternative, ast.Chain):
        return any(_is_op(link, vocabulary) for link in alternative.links)
    if isinstance(alternative, ast.Call):
        return not alternative.operands
    if not isinstance(alternative, ast.Reference) or alternative.name in _WORDS:
        return False
    return vocabulary.find(alternative.name) is not None or primitives.find(alternative.name) is not None


def _targets(target: Target | Slot) -> list[Target]:
    if isinstance(target, Target):
        return [target]
    return [found for alternative in target.alternatives for found in _targets(alternative)]
