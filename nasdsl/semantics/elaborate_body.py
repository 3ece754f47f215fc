"""Elaboration of statements: `repeat`, outputs and merges to the straight-line statements of an fpn or a block.

Nothing behind this stage knows what a `repeat` was.
"""

from __future__ import annotations

import re
from typing import Final

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import holes, names, structure, types
from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import UNKNOWN, Unknown
from nasdsl.semantics.elaborate_expression import Context, ExpressionElaborator, Parent, Word, elaborate_op, literal
from nasdsl.semantics.primitives import Primitive
from nasdsl.semantics.program import (
    Assign,
    Binding,
    Body,
    Call,
    Merge,
    Missing,
    Operand,
    Output,
    Ref,
    SetWord,
    Slot,
    Statement,
    Target,
)
from nasdsl.semantics.vocabulary import Block, Op
from nasdsl.syntax import ast

MAX_STATEMENTS: Final = 100_000
"""Most statements that `repeat` may expand into."""

MAX_FAILED_ROUNDS: Final = 200
"""Rounds of a `repeat` with mistakes, after which the others are left out: they would only repeat the mistakes."""

PYRAMID_NAME = re.compile(r"p([1-9]|1[0-2])")


class BodyElaborator:
    """Elaborates the statements of an fpn or a block.

    Args:
        expressions: what their expressions mean.
        is_fpn: `output` and `merge` are allowed.
    """

    def __init__(self, expressions: ExpressionElaborator, *, is_fpn: bool = False) -> None:
        self.expressions = expressions
        self.problems = expressions.problems
        self.scope = expressions.scope
        self.statements: list[Statement] = []
        self.outputs: dict[str, Span] = {}
        self.is_fpn = is_fpn
        self._pooled = set(expressions.pool)
        self._taken = set(self.scope)
        self._numbers: dict[str, int] = {}  # the number last given to a name, so that many bindings of one name stay cheap
        self._nesting = 0  # depth of `repeat`, in which a name may be bound again
        self._rounds = 1  # of all `repeat`s around

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
            self.statements.append(self.expressions.let(node))
        elif not self.is_fpn:
            word = "output" if isinstance(node, ast.Output) else "merge"
            self.problems.append(structure.only_in_fpn(node.span, word))
        elif isinstance(node, ast.Output):
            for binding in node.bindings:
                self._output(binding, node.span)
        else:
            targets = [self.expressions.reference(t) for t in node.targets]
            kept = tuple([t for t in targets if isinstance(t, Ref | Slot)])
            self.statements.append(Merge(kept, node.span, self._nesting > 0))

    def _assign(self, node: ast.Assign) -> None:
        value: Operand
        if len(node.targets) == 1 and node.targets[0].index is None:  # what most assignments are
            (target,) = node.targets
            value = self.expressions.operand(node.value)
            binding = self._bind(target.name, target.span)
            self.statements.append(Assign((binding,), value, node.span, self._nesting > 0))
            return
        sources = [self.expressions.index_name(t.name, t.index) for t in node.targets]
        self.expressions.lost_names.update(t.name for t, source in zip(node.targets, sources, strict=True) if source is None)
        if len(sources) > 1 and isinstance(node.value, ast.Reference):
            self.problems.append(types.one_value(node.span, len(sources)))
            value = Missing(node.value.span)
        else:
            value = self.expressions.operand(node.value)
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
            self.expressions.pool.append(source)
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
        value = self.expressions.operand(node.value)
        level = None if match is None else int(match[1])
        if match is not None:
            before = self.scope.get(node.name)
            left_out = isinstance(value, Missing) and value.is_left_out  # `output p3` without a value is one mistake
            if before is not None and node.name not in self.outputs and not left_out:
                self.problems.append(names.output_named_as_value(node.name_span, node.name, before[1]))
            self.outputs.setdefault(node.name, node.span)
            self.scope[node.name] = node.name, node.name_span
            self._taken.add(node.name)
        repeated = self._nesting > 0
        self.statements.append(Output(node.name, node.name_span, level, value, node.span, statement, repeated))

    def _repeat(self, node: ast.Repeat) -> None:
        first = 1 if node.first is None else self._count(node.first)
        last = self._count(node.last)
        if first is None or last is None:
            for name, span in names_bound_in(node.body).items():  # that they are missing is no second mistake
                self.scope.setdefault(name, (None, span))
                self.expressions.lost_names.add(name)
            return
        rounds = max(0, last - first + 1)
        if rounds == 0:
            self.problems.append(types.no_rounds(node.last.span, first, last))
            return
        if self._rounds * rounds * max(1, len(node.body)) > MAX_STATEMENTS:
            self.problems.append(structure.too_many_statements(node.last.span, MAX_STATEMENTS, rounds))
            return
        outer = self.expressions.words
        self._rounds *= rounds
        self._nesting += 1
        reported: set[tuple[str, Span]] = set()
        failed = 0
        for number in range(first, first + rounds):
            before = len(self.problems)
            self.expressions.words = dict(outer)
            if node.variable:
                self.expressions.words[node.variable] = number
                if node.variable in self.expressions.kept:
                    self.statements.append(SetWord(node.variable, literal(number, node.span), node.span, False))
            for statement in node.body:
                self.statement(statement)
            if self.expressions.context.is_full:
                break
            if len(self.problems) > before:  # a mistake is one finding, not one a round
                self.problems[before:] = [p for p in self.problems[before:] if (p.code, p.span) not in reported]
                reported.update((p.code, p.span) for p in self.problems[before:])
                failed += 1
                if failed == MAX_FAILED_ROUNDS:
                    self.expressions.lost_names.update(names_bound_in(node.body))
                    break
        self._nesting -= 1
        self._rounds //= rounds
        for name in self.expressions.kept:  # a `let width = …` in the rounds ends with them
            if self.expressions.words.get(name) is not outer.get(name):
                self.statements.append(SetWord(name, literal(outer.get(name), node.span), node.span, False))
        self.expressions.words = outer

    def _count(self, value: ast.Attribute) -> int | None:
        number, slot = self.expressions.constant(value)
        if slot is not None:
            self.problems.append(holes.hole_as_count(slot, value.span))
            return None
        if isinstance(number, Unknown):
            return None
        if not isinstance(number, int) or number < 0:
            self.problems.append(types.repeat_count(value.span, number))
            return None
        return number


# --------------------------------------------------------------------------------------------------- definitions


def new_context(problems: list[Diagnostic], lost: frozenset[str] | None = None) -> Context:
    """The context of one decoder's elaboration; `lost` as of `check.check`."""
    return Context(problems, elaborate_block, lost=lost)


def elaborate_block(block: Block, context: Context, words: dict[str, Word], parent: Parent = None) -> Body:
    """The statements of a block, for a call with these words."""
    node = block.definition
    scope = [(p.name, p.name, p.span) for p in node.parameters]
    expressions = ExpressionElaborator(context, block.home, dict(words), scope=scope, parent=parent)
    statements = BodyElaborator(expressions).run(node.body)
    results = tuple([expressions.scope[r.name][0] if r.name in expressions.scope else None for r in node.results])
    weight = sum(weight_of(s.value) for s in statements if isinstance(s, Assign))
    lost = frozenset(r.name for r in node.results if expressions.scope.get(r.name, ("",))[0] is None)
    return Body(tuple(p.name for p in node.parameters), statements, results, weight, lost | expressions.lost_names)


def body_of_op(op: Op) -> Operand:
    """The elaborated expression of an op; one of the prelude, or of a file that is not checked, is elaborated at first use."""
    if op.body is None:
        context = new_context([])
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
        found = elaborate_block(block, new_context(problems, block.lost), words)
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
