"""Checks of ops and blocks where they are defined, whether or not anything calls them."""

from __future__ import annotations

from collections.abc import Iterator

from nasdsl.diagnostics import Diagnostic
from nasdsl.diagnostics.catalogue import names as codes
from nasdsl.semantics import primitives
from nasdsl.semantics.assembly import MAX_LAYERS, UNFIT
from nasdsl.semantics.attributes import UNKNOWN, Unknown
from nasdsl.semantics.expand import Binding, Expander
from nasdsl.semantics.statements import Statements
from nasdsl.semantics.vocabulary import Block, Definition, Op, Vocabulary
from nasdsl.syntax import ast


def check_definitions(vocabulary: Vocabulary, problems: list[Diagnostic], tolerate: frozenset[str] | None) -> None:
    """Report what is wrong in the bodies of a file's ops and blocks, and mark those `broken`.

    Each body is expanded once with operands and section attributes that are not known, which leaves just what is
    certain: names, numbers of operands, names and values of attributes.
    """
    for definition in vocabulary.definitions.values():
        _weigh(definition, problems)
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


def _weigh(definition: Definition, problems: list[Diagnostic]) -> None:
    """Enter how many layers one call makes, of this definition and those it calls; a circle of calls is reported."""
    path: dict[int, Definition] = {}  # calls that are open, the first of them `definition`
    waiting = [iter([definition])]
    while waiting:
        called = next(waiting[-1], None)
        if called is None:
            waiting.pop()
            if path:
                _, done = path.popitem()
                done.weight = min(max(1, _weight(done)), MAX_LAYERS + 1)
        elif id(called) in path:
            circle = [*path.values()][list(path).index(id(called)) :]
            if not called.broken:
                names = [d.name for d in [*circle, called]]
                shown = names if len(names) <= 8 else [*names[:4], "…", *names[-3:]]
                problems.append(
                    codes.RECURSIVE(
                        called.definition.name_span, f"`{called.name}` calls itself: {' -> '.join(shown)}",
                        label="an op is expanded where it is called; this never ends", help="use `repeat` in a block",
                    )
                )  # fmt: skip
            for member in circle:
                member.broken = True
        elif not called.weight:
            path[id(called)] = called
            waiting.append(iter(_called(called)))


def _called(definition: Definition) -> list[Definition]:
    """The ops and blocks that a definition calls."""
    found = (definition.home.find(call.callee) for call, _ in _calls(definition) if isinstance(call.callee, str))
    return [d for d in found if d is not None]


def _weight(definition: Definition) -> int:
    """About how many layers one call makes, given the weights of what it calls; a call in a circle counts nothing."""
    total = 0
    for call, times in _calls(definition):
        if isinstance(call.callee, str):
            called = definition.home.find(call.callee)
            primitive = primitives.find(call.callee) if called is None else None
            total += times * (called.weight if called is not None else primitive.weight if primitive is not None else 0)
    return total


def _calls(definition: Definition) -> Iterator[tuple[ast.Call, int]]:
    """Every call in the body of a definition, and how often the `repeat`s around it say it."""
    body = definition.definition.body
    todo: list[tuple[ast.Operand | ast.Statement, int]] = [(n, 1) for n in (body if isinstance(body, tuple) else (body,))]
    while todo:
        node, times = todo.pop()
        if isinstance(node, ast.Call):
            yield node, times
            todo += [(o, times) for o in reversed(node.operands)]
        elif isinstance(node, ast.Assign):
            todo.append((node.value, times))
        elif isinstance(node, ast.Repeat):
            rounds = node.last.value if isinstance(node.last, ast.Number) else 1
            todo += [(s, min(int(rounds) * times, MAX_LAYERS + 1)) for s in reversed(node.body)]
