"""Where statements and parts of a text are: what features look up in its tree."""

from __future__ import annotations

from collections.abc import Iterator

from nasdsl.diagnostics import Span
from nasdsl.lsp.analysis import Analysis
from nasdsl.syntax import ast


def bound_names(statements: tuple[ast.Statement, ...]) -> Iterator[tuple[str, Span, Span]]:
    """Each name that statements bind, the place of the name, and the span that the costs of its value are entered under."""
    for statement in statements:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                yield target.name, target.span, statement.span
        elif isinstance(statement, ast.Output):
            for binding in statement.bindings:
                yield binding.name, binding.name_span, binding.span
        elif isinstance(statement, ast.Repeat):
            yield from bound_names(statement.body)


def statement_of(analysis: Analysis, name: Span) -> Span | None:
    """The statement that binds a name at this place; of an input the name itself."""
    for item in analysis.file.items:
        bodies = [item.body] if isinstance(item, ast.BlockDef) else []
        if isinstance(item, ast.Decoder):
            bodies = [i.body for i in item.items if isinstance(i, ast.Fpn)]
            for part in item.items:
                if isinstance(part, ast.Input) and any(n.span.start == name.start for n in part.names):
                    return name
        for body in bodies:
            for _, place, statement in bound_names(body):
                if place.start == name.start and place.source is name.source:
                    return statement
    return None
