"""Checks of ops and blocks where they are defined, whether or not anything calls them."""

from __future__ import annotations

from nasdsl.diagnostics import Diagnostic
from nasdsl.diagnostics.catalogue import names as codes
from nasdsl.semantics import primitives
from nasdsl.semantics.attributes import UNKNOWN, Unknown
from nasdsl.semantics.expand import MAX_LAYERS, UNFIT, Binding, Expander
from nasdsl.semantics.statements import Statements
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary
from nasdsl.syntax import ast


def check_definitions(vocabulary: Vocabulary, problems: list[Diagnostic], tolerate: frozenset[str] | None) -> None:
    """Report what is wrong in the bodies of a file's ops and blocks, and mark those `broken`.

    Each body is expanded once with operands and section attributes that are not known, which leaves just what is
    certain: names, numbers of operands, names and values of attributes.
    """
    for definition in vocabulary.definitions.values():
        _weigh(definition, [], problems)
    for definition in vocabulary.definitions.values():
        before = len(problems)
        expander = Expander(problems, tolerate)
        environment: dict[str, Unknown] = dict.fromkeys(primitives.SECTION, UNKNOWN)
        if isinstance(definition, Op):
            span = definition.definition.name_span
            scope = {name: Binding(name, UNFIT, span) for name in definition.operands}
            environment |= dict.fromkeys(definition.attributes, UNKNOWN)
            expander.own(definition.name, "", "block", span)
            expander.expand(definition.definition.body, scope, environment, vocabulary, "")
        else:
            _check_block(definition, expander, environment, vocabulary, tolerate)
        definition.broken = definition.broken or len(problems) > before


def _check_block(
    block: Block, expander: Expander, environment: dict[str, Unknown], vocabulary: Vocabulary, tolerate: frozenset[str] | None
) -> None:
    parameters = {p.name: Binding(p.name, UNFIT, p.span) for p in block.definition.parameters}
    statements = Statements(expander, vocabulary, environment, parameters)
    statements.run(block.definition.body)
    if tolerate is not None:
        return
    for result in block.definition.results:
        if result.name not in statements.scope:
            expander.problems.append(
                codes.UNKNOWN_VALUE(
                    result.span, f"the block `{block.name}` binds no `{result.name}`",
                    label="expected a name that its statements bind",
                )
            )  # fmt: skip


def _weigh(definition: Definition, open_: list[Definition], problems: list[Diagnostic]) -> int:
    """About how many layers one call makes; a definition that calls itself is reported."""
    if definition.weight:
        return definition.weight
    if any(d is definition for d in open_):
        at = next(i for i, d in enumerate(open_) if d is definition)
        circle = " -> ".join(d.name for d in [*open_[at:], definition])
        if not definition.broken:
            problems.append(
                codes.RECURSIVE(
                    definition.definition.name_span, f"`{definition.name}` calls itself: {circle}",
                    label="an op is expanded where it is called; this never ends", help="use `repeat` in a block",
                )
            )  # fmt: skip
        for member in open_[at:]:
            member.broken = True
        return 1
    if len(open_) > 200:
        definition.broken = True
        return MAX_LAYERS
    open_.append(definition)
    body = definition.definition.body
    total = (
        sum(_statement_weight(s, definition.home, open_, problems) for s in body)
        if isinstance(body, tuple)
        else _operand_weight(body, definition.home, open_, problems)
    )
    open_.pop()
    definition.weight = min(max(1, total), MAX_LAYERS + 1)
    return definition.weight


def _statement_weight(statement: ast.Statement, home: Vocabulary, open_: list[Definition], problems: list[Diagnostic]) -> int:
    if isinstance(statement, ast.Assign):
        return _operand_weight(statement.value, home, open_, problems)
    if isinstance(statement, ast.Repeat):
        rounds = statement.last.value if isinstance(statement.last, ast.Number) else 1
        inside = sum(_statement_weight(s, home, open_, problems) for s in statement.body)
        return min(int(rounds) * inside, MAX_LAYERS + 1)
    return 0


def _operand_weight(operand: ast.Operand, home: Vocabulary, open_: list[Definition], problems: list[Diagnostic]) -> int:
    if not isinstance(operand, ast.Call):
        return 0
    total = sum(_operand_weight(o, home, open_, problems) for o in operand.operands)
    if isinstance(operand.callee, str):
        definition = home.find(operand.callee)
        if definition is not None:
            total += _weigh(definition, open_, problems)
        else:
            primitive = primitives.find(operand.callee)
            total += primitive.weight if primitive else 0
    return min(total, MAX_LAYERS + 1)
