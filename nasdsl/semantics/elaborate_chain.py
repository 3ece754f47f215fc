"""Elaboration of a head's chains: layers in a row (``conv_3x3 * 4``), and choices among chains (``?(a -> b | c)``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nasdsl.diagnostics import Span
from nasdsl.diagnostics.catalogue import holes, structure
from nasdsl.semantics import primitives
from nasdsl.semantics.conditions import ALWAYS, MAX_CASES, Open, TooMany, both, expand, first_open, truth, where
from nasdsl.semantics.elaborate_count import count
from nasdsl.semantics.elaborate_expression import ExpressionElaborator
from nasdsl.semantics.infer_head import MAX_STEPS
from nasdsl.semantics.note_calls import note_call
from nasdsl.semantics.program import Call, Missing, Ref, Slot, Step, Target, find_slot
from nasdsl.semantics.vocabulary import Vocabulary
from nasdsl.syntax import ast

_NO_LAYER = "skip"
"""The layer of a chain that has no other: the prelude's identity, which is not built."""


def elaborate_chain(steps: tuple[ast.Step, ...], span: Span, body: ExpressionElaborator) -> tuple[Step, ...]:
    """The layers of a chain, each with the condition that it is there. Findings go to `body`."""
    made = _ChainElaborator(body)
    for step in steps:
        made.step(step)
    if not made.is_full and not any(step.condition == ALWAYS for step in made.steps):
        made.when_empty(span)
    return tuple(made.steps)


class _ChainElaborator:
    def __init__(self, body: ExpressionElaborator) -> None:
        self.body = body
        self.steps: list[Step] = []
        self.is_full = False

    def step(self, node: ast.Step) -> None:
        if node.times is None:
            self._once(node)
            return
        body = self.body
        counted = count(body, None, node.times, "step")
        if counted is None:
            return
        outer = body.condition
        before = len(body.problems)
        for condition, turns in counted.parts():
            body.condition = both(outer, condition)
            if len(body.condition) > MAX_CASES:
                body.too_many_dependencies(node.span, "whether the layer is there")
            for _ in turns:
                if self.is_full or body.context.is_full or len(body.problems) > before:  # a mistake is not one a turn
                    break
                self._once(node)
        body.condition = outer

    def _once(self, node: ast.Step) -> None:
        if len(self.steps) >= MAX_STEPS:
            if not self.is_full:
                self.is_full = True
                self.body.problems.append(structure.chain_too_long(node.span, MAX_STEPS))
            return
        operation = node.operation
        if isinstance(operation, str):
            self._layer(node, operation, node.span.head(len(operation)))
        elif _has_chain(operation, self.body.vocabulary):
            self.body.decide(operation, self._alternative)
        else:
            self._layer(node, operation, operation.span)

    def _layer(self, node: ast.Step, operation: str | ast.Hole, span: Span) -> None:
        body = self.body
        target, settings, is_read = body.called(operation, span, node.settings)
        for alternative in target.alternatives if isinstance(target, Slot) else ():
            if isinstance(alternative, Target) and alternative.callee is primitives.PRIMITIVES[primitives.NONE]:
                body.context.hole_problems.append(holes.none_as_layer(alternative.span))
        if body.names is not None:
            note_call(body, operation, span, target, settings=node.settings)
        if not is_read:
            settings = body.settings(settings)
        body.note_passed_ops(settings)
        has_slots = any(find_slot(s.value) for s in settings)
        call = Call(target, (Ref("x", node.span),), settings, has_slots, node.span, span)
        self.steps.append(Step(call, node.span, body.condition))

    def _alternative(self, node: Any) -> None:
        """The layers of one alternative of a hole."""
        for link in node.links if isinstance(node, ast.Chain) else (node,):
            step = None if isinstance(link, Missing) else _as_step(link)
            if step is not None:
                self.step(step)
            elif not isinstance(link, Missing):
                self.body.problems.append(holes.not_a_layer(link.span))

    def when_empty(self, span: Span) -> None:
        """The layer of the fillings in which no other is there."""
        conditions = [step.condition for step in self.steps]

        def ask(known: Mapping[Any, int], since: int) -> bool | Open:
            for at in range(since, len(conditions)):
                state = truth(conditions[at], known)
                if state:
                    return False
                if state is None:
                    return Open(first_open(conditions[at], known), at)
            return True

        if not conditions:
            return  # a mistake, which is reported
        body = self.body
        try:
            condition = where(expand(ask, ALWAYS), bool)
        except TooMany:
            body.too_many_dependencies(span, "whether the chain has layers")
            return
        if condition:
            target = body.target(_NO_LAYER, span, ())
            self.steps.append(Step(Call(target, (Ref("x", span),), (), False, span, span), span, condition))


def _as_step(node: Any) -> ast.Step | None:
    """An alternative as a step of a chain; None for one that can be none."""
    if isinstance(node, ast.Arithmetic) and node.operator == "*":
        step = _as_step(node.left)
        return (
            None if step is None or step.times is not None else ast.Step(node.span, step.operation, step.settings, node.right)
        )
    if isinstance(node, ast.Reference) and node.index is None:
        return ast.Step(node.span, node.name)
    if isinstance(node, ast.Call) and not node.operands and isinstance(node.callee, str):
        return ast.Step(node.span, node.callee, node.settings)
    return ast.Step(node.span, node) if isinstance(node, ast.NamedHole | ast.ChoiceHole) else None


def _has_chain(hole: Any, vocabulary: Vocabulary) -> bool:
    """Whether an alternative of a hole, or of a hole among its alternatives, is more than one layer, or may be none."""
    seen: set[int] = set()
    todo = [hole]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Chain | ast.Arithmetic):
            return True
        if isinstance(node, ast.ChoiceHole):
            todo += node.alternatives
        elif isinstance(node, ast.NamedHole):
            choice = vocabulary.find_choice(node.name)
            if choice is not None and id(choice) not in seen:
                seen.add(id(choice))
                todo += choice.alternatives
    return False
