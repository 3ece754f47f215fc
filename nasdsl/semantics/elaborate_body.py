"""Elaboration of statements: `repeat`, outputs and merges to the straight-line statements of an fpn or a block.

Nothing behind this stage knows what a `repeat` was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import names, structure, types
from nasdsl.semantics import primitives
from nasdsl.semantics.architecture import Group
from nasdsl.semantics.attributes import UNKNOWN
from nasdsl.semantics.conditions import ALWAYS, MAX_CASES, Bound, Condition, Unbound, both, bound_if
from nasdsl.semantics.elaborate_attribute import SECTION_WORDS, Context, Word, literal
from nasdsl.semantics.elaborate_count import count
from nasdsl.semantics.elaborate_expression import ExpressionElaborator, elaborate_op
from nasdsl.semantics.kept import KeptSemantics, state_of
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
    Shared,
    Slot,
    Statement,
    Target,
    When,
    present,
)
from nasdsl.semantics.resolved_names import NameTable, SymbolKind
from nasdsl.semantics.vocabulary import Block, Op
from nasdsl.syntax import ast

MAX_STATEMENTS: Final = 20_000
"""Most statements that `repeat` may expand into: fewer than a decoder may have values, which has others too."""

MAX_FAILED_ROUNDS: Final = 200
"""Rounds of a `repeat` with mistakes, after which the others are left out: they would only repeat the mistakes."""

Meant: TypeAlias = tuple[Bound, Span]
"""What a name means, and where it is bound."""

PYRAMID_NAME = re.compile(r"p([1-9]|1[0-2])")


class BodyElaborator:
    """Elaborates the statements of an fpn or a block.

    Args:
        expressions: what their expressions mean.
        is_fpn: `output` and `merge` are allowed.
        kept: what is kept of them for the next version of the text; None: nothing.
    """

    def __init__(self, expressions: ExpressionElaborator, *, is_fpn: bool = False, kept: KeptSemantics | None = None) -> None:
        self.expressions = expressions
        self._kept = kept
        self.problems = expressions.problems
        self.scope = expressions.scope
        self.statements: list[Statement] = []
        self.outputs: dict[str, Span] = {}
        self.is_fpn = is_fpn
        self._pooled = set(expressions.pool)
        self._taken = set(self.scope)
        self._numbers: dict[str, int] = {}  # the number last given to a name, so that many bindings of one name stay cheap
        self._turns: tuple[Group, ...] = ()  # of the `repeat`s around, in which a name may be bound again
        self._groups: dict[int, Group] = {}  # of the `repeat`s of the text
        self._rounds = 1  # of all `repeat`s around
        self._is_too_long = False  # a `repeat` within the present one has too many rounds: further turns would find it again
        self._defined: dict[str, Span] = {}  # `shared` ops of this turn
        self._replaced: dict[str, Meant | None] | None = None  # what names meant before this turn, if not every filling has it
        self._body_region = expressions.region

    def run(self, statements: tuple[ast.Statement, ...]) -> tuple[Statement, ...]:
        """The program of these statements."""
        self.expressions.later_shared = shared_ops_of(statements)
        if self._kept is not None:
            self._kept.begin(statements)
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
        elif isinstance(node, ast.OpDef):
            self._share(node)
        elif not self.is_fpn:
            word = "output" if isinstance(node, ast.Output) else "merge"
            self.problems.append(structure.only_in_fpn(node.span, word))
        elif isinstance(node, ast.Output):
            for binding in node.bindings:
                self._output(binding, node.span)
        else:
            targets = [self.expressions.reference(t) for t in node.targets]
            kept = tuple([t for t in targets if isinstance(t, Ref | Slot)])
            self.statements.append(Merge(kept, node.span, self._turns))

    def _assign(self, node: ast.Assign) -> None:
        value: Operand
        if len(node.targets) == 1 and node.targets[0].index is None:  # what most assignments are
            self.statements.append(self._assign_one(node, node.targets[0]))
            return
        sources = [self.expressions.index_name(t.name, t.index) for t in node.targets]
        self.expressions.lost_names.update(t.name for t, source in zip(node.targets, sources, strict=True) if source is None)
        if len(sources) > 1 and isinstance(node.value, ast.Reference):
            self.problems.append(types.one_value(node.span, len(sources)))
            value = Missing(node.value.span)
        else:
            value = self.expressions.operand(node.value)
        targets = [
            None if source is None else self._bind(source, target.span, node.span.end)
            for source, target in zip(sources, node.targets, strict=True)
        ]
        self.statements.append(Assign(tuple(targets), value, node.span, self._turns))

    def _assign_one(self, node: ast.Assign, target: ast.Target) -> Assign:
        """An assignment to one name. Outside of a `repeat` it is kept for the next version of the text."""
        expressions = self.expressions
        if self._kept is None or self._turns:
            value = expressions.operand(node.value)
            return Assign((self._bind(target.name, target.span, node.span.end),), value, node.span, self._turns)
        known = self._kept.find(node, expressions)
        if known is not None:
            binding = self._bind(target.name, target.span, node.span.end)
            return known if known.targets == (binding,) else known._replace(targets=(binding,))
        since = state_of(expressions)
        value = expressions.operand(node.value)
        until = state_of(expressions)
        statement = Assign((self._bind(target.name, target.span, node.span.end),), value, node.span, ())
        return self._kept.keep(node, expressions, statement, since, until)

    def _share(self, node: ast.OpDef) -> None:
        first = self._defined.setdefault(node.name, node.name_span)
        if first is not node.name_span:
            self.problems.append(names.defined_twice(node.name_span, "op", node.name, first))
        op = self.expressions.share(node)
        assert op.body is not None
        op.weight = max(1, weight_of(op.body))
        self.statements.append(Shared(op, node.span, self._turns))

    def _bind(self, source: str, span: Span, end: int) -> Binding:
        """Bind a name; `end`: of the statement."""
        before = self.scope.get(source)
        unique = source
        if self.expressions.names is not None:
            self._note_binding("value", source, span, end)
        if before is not None and not self._turns and source not in self.expressions.lost_names:
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
        self._set(source, (unique, span))
        return Binding(unique, source, span)

    def _set(self, name: str, meant: Meant) -> None:
        """Let a name mean something from here on."""
        if self._replaced is not None:
            self._replaced.setdefault(name, self.scope.get(name))
        self.scope[name] = meant

    def _note_binding(self, kind: SymbolKind, name: str, span: Span, end: int) -> None:
        """Enter what is bound here, to be read behind `end`; one that is bound again is the same name."""
        expressions = self.expressions
        assert expressions.names is not None
        known = expressions.value_symbols.get(name)
        if known is not None:
            expressions.names.use(span, known, is_definition=True)
        else:
            body = self._body_region
            region = None if body is None else Span(body.anchor, end - body.anchor.offset, body.last)
            expressions.value_symbols[name] = expressions.names.define(kind, name, span, region)

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
            self._set(node.name, (node.name, node.name_span))
            if self.expressions.names is not None:
                self._note_binding("output", node.name, node.name_span, node.span.end)
            self._taken.add(node.name)
        self.statements.append(Output(node.name, node.name_span, level, value, node.span, statement, self._turns))

    def _repeat(self, node: ast.Repeat) -> None:
        counted = count(self.expressions, node.first, node.last, "repeat")
        if counted is None:  # it has a mistake, or depends on the call of a block
            self._lose(node)
            return
        rounds = len(counted.turns)
        if rounds == 0:  # in this turn of a `repeat` around it
            return
        if self._rounds * rounds * max(1, len(node.body)) > MAX_STATEMENTS:
            self.problems.append(structure.too_many_statements(node.last.span, MAX_STATEMENTS, rounds))
            self._lose(node)
            self._is_too_long = True
            return
        self._rounds *= rounds
        outer_turns = self._turns
        group = self._groups.get(id(node))
        if group is None:
            header = " ".join(node.span.text.partition("{")[0].split())
            group = self._groups[id(node)] = Group("repeat", header, node.span)
        mistakes = _Mistakes(self.problems)
        binds_words = bool(node.variable) or any(isinstance(s, ast.Let) for s in node.body)

        def is_over() -> bool:
            return mistakes.are_many or self._is_too_long or self.expressions.context.is_full

        for condition, numbers in counted.parts():
            if is_over():
                break
            with self._where(condition, node):
                for number in numbers if len(self.expressions.condition) <= MAX_CASES else ():
                    self._turns = (*outer_turns, group, Group("turn", f"turn {number}", node.span))
                    self._turn(node, number, binds_words=binds_words)
                    mistakes.after_a_turn()
                    if is_over():
                        break
            mistakes.once_each()
        if self._is_too_long:
            self._lose(node)
        if mistakes.are_many:
            self.expressions.lost_names.update(names_bound_in(node.body))
        self._turns = outer_turns
        self._rounds //= rounds
        self._is_too_long = self._is_too_long and bool(outer_turns)

    def _lose(self, node: ast.Repeat) -> None:
        """Note what a `repeat` that is left out would bind: that it is missing is no second mistake."""
        for name, span in names_bound_in(node.body).items():
            if name not in self.scope:
                self._set(name, (None, span))
            self.expressions.lost_names.add(name)

    @contextmanager
    def _where(self, condition: Condition[Decision], node: ast.Repeat) -> Iterator[None]:
        """Within: statements that are there where a condition holds. What they bind is bound in these fillings alone."""
        expressions = self.expressions
        outer_condition, outer_statements, outer_replaced = expressions.condition, self.statements, self._replaced
        condition = both(outer_condition, condition)
        if condition == outer_condition:
            yield
            return
        if len(condition) > MAX_CASES:
            expressions.too_many_dependencies(node.last.span, "whether there is a turn")
        replaced: dict[str, Meant | None] = {}
        expressions.condition, self.statements, self._replaced = condition, [], replaced
        yield
        if self.statements:
            outer_statements.append(When(condition, tuple(self.statements)))
        expressions.condition, self.statements, self._replaced = outer_condition, outer_statements, outer_replaced
        for name, before in replaced.items():
            value, span = self.scope[name]
            otherwise, place = (Unbound(), span) if before is None else before
            if outer_replaced is not None:
                outer_replaced.setdefault(name, before)
            if otherwise is not value:
                self.scope[name] = bound_if(condition, value, otherwise), place

    def _turn(self, node: ast.Repeat, number: int, *, binds_words: bool) -> None:
        """One turn of a `repeat`. Its words and its `shared` ops end with it."""
        expressions = self.expressions
        outer_shared, outer_defined = expressions.shared, self._defined
        self._defined = {}
        self._statements_of_turn(node, number, binds_words=binds_words)
        expressions.shared, self._defined = outer_shared, outer_defined

    def _statements_of_turn(self, node: ast.Repeat, number: int, *, binds_words: bool) -> None:
        expressions = self.expressions
        if not binds_words and expressions.names is None:
            for statement in node.body:
                self.statement(statement)
            return
        outer, outer_kept = expressions.words, expressions.kept
        outer_symbols, outer_region = expressions.word_symbols, expressions.region
        expressions.words = dict(outer)
        expressions.word_symbols, expressions.region = dict(outer_symbols), node.span
        if node.variable:
            if expressions.names is not None and node.variable_span is not None:
                variable = expressions.names.define("variable", node.variable, node.variable_span, node.span, node)
                expressions.word_symbols[node.variable] = variable
            expressions.words[node.variable] = number
            expressions.hide(node.variable)
            if node.variable in expressions.kept:
                self.statements.append(SetWord(node.variable, literal(number, node.span), node.span, False))
        for statement in node.body:
            self.statement(statement)
        for name in expressions.kept:  # a `let width = …` ends with its turn
            if expressions.words.get(name) is not outer.get(name):
                self.statements.append(SetWord(name, literal(outer.get(name), node.span), node.span, False))
        expressions.words, expressions.kept = outer, outer_kept
        expressions.word_symbols, expressions.region = outer_symbols, outer_region


class _Mistakes:
    """The mistakes of the turns of a `repeat`: each is one finding, not one a turn.

    Args:
        problems: all findings; of those that are entered from now on, what was found before is taken out again.

    Attributes:
        are_many: further turns would only repeat them.
    """

    def __init__(self, problems: list[Diagnostic]) -> None:
        self.are_many = False
        self._problems = problems
        self._before = len(problems)
        self._reported: set[tuple[str, Span]] = set()
        self._failed = 0

    def after_a_turn(self) -> None:
        if len(self._problems) > self._before:
            self.once_each()
            self._failed += 1
            self.are_many = self._failed == MAX_FAILED_ROUNDS

    def once_each(self) -> None:
        """Take out what an earlier turn has found."""
        problems, before = self._problems, self._before
        if len(problems) > before:
            problems[before:] = [p for p in problems[before:] if (p.code, p.span) not in self._reported]
            self._reported.update((p.code, p.span) for p in problems[before:])
            self._before = len(problems)


# --------------------------------------------------------------------------------------------------- definitions


def new_context(
    problems: list[Diagnostic], lost: frozenset[str] | None = None, names: NameTable | None = None,
    kept: KeptSemantics | None = None,
) -> Context:  # fmt: skip
    """The context of one decoder's elaboration; `lost`, `names` and `kept` as of `check.check`."""
    return Context(problems, elaborate_block, lost=lost, names=names, kept=kept)


def elaborate_block(block: Block, context: Context, words: dict[str, Word], condition: Condition[Decision] = ALWAYS) -> Body:
    """The statements of a block, for a call with these words."""
    node = block.definition
    scope = [(p.name, p.name, p.span) for p in node.parameters if p.default is None]
    kept = SECTION_WORDS.union(block.attributes)
    symbols = None if context.names is None else context.names.parameters(node)
    expressions = ExpressionElaborator(
        context, block.home, dict(words), kept=kept, scope=scope, condition=condition, region=node.span, word_symbols=symbols
    )
    statements = BodyElaborator(expressions).run(node.body)
    if context.names is not None:
        for result in node.results:
            if result.name in expressions.value_symbols:
                context.names.use(result.span, expressions.value_symbols[result.name])
    read = [
        expressions.read(expressions.scope[r.name][0], r.name, r.span) if r.name in expressions.scope else None
        for r in node.results
    ]
    lost = frozenset(r.name for r, found in zip(node.results, read, strict=True) if isinstance(found, Missing))
    for result, found in zip(node.results, read, strict=True):
        if found is None and context.lost is None and result.name not in expressions.lost_names:
            context.problems.append(names.unbound_result(result.span, block.name, result.name))
    results = tuple([None if isinstance(found, Missing) else found for found in read])
    weight = sum(weight_of(s.value) for s in present(statements, None) if isinstance(s, Assign))
    return Body(block.operands, statements, results, weight, lost | expressions.lost_names)


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


def shared_ops_of(statements: tuple[ast.Statement, ...]) -> dict[str, Span]:
    """Names of the `shared` ops that statements define, those in a `repeat` included."""
    found: dict[str, Span] = {}
    for statement in statements:
        if isinstance(statement, ast.OpDef):
            found.setdefault(statement.name, statement.name_span)
        elif isinstance(statement, ast.Repeat):
            found = shared_ops_of(statement.body) | found
    return found


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
