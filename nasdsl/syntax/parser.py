"""Text to syntax tree. The only importer of lark.

A right text takes the fast path. On the first syntax error the text is read again with recovery
(`nasdsl.syntax.recovery`), so that one run reports every mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from lark import Lark, Transformer
from lark.exceptions import UnexpectedToken
from lark.lexer import Lexer

from nasdsl import resources
from nasdsl.diagnostics import Diagnostic, Source, Span
from nasdsl.diagnostics.catalogue import syntax as codes
from nasdsl.syntax import ast
from nasdsl.syntax.build import Builder
from nasdsl.syntax.lexer import Tok, scan

MAX_CHARACTERS = 4_000_000
"""Longest text that is read. A decoder of 10,000 blocks has half a million characters."""


class _NoLexer(Lexer):
    """Tokens are fed by `parse`; lark's own scanner stays unused."""

    def __init__(self, _: Any) -> None:
        pass

    def lex(self, lexer_state: Any, parser_state: Any) -> Iterator[Any]:
        return iter(())


class _Reductions(Builder, Transformer):  # type: ignore[type-arg]  # lark's parameters are its own tree's
    pass


@cache
def grammar() -> Lark:
    """The compiled grammar, made once a process (about 40 ms)."""
    return Lark(
        resources.read("grammars", "nas.lark"),
        parser="lalr",
        lexer=_NoLexer,
        transformer=_Reductions(),
        keep_all_tokens=True,
        maybe_placeholders=False,
    )


class Parsed(NamedTuple):
    """What reading a text gave.

    Attributes:
        file: the tree; where `problems` has errors, what could be saved of it.
        problems: lexical and syntactic findings.
        lost: names that text passed over during recovery would have bound; None where nothing was passed over.
    """

    file: ast.File
    problems: list[Diagnostic]
    lost: frozenset[str] | None = None


def parse(source: Source) -> Parsed:
    """Read a text. Never raises for what the text holds."""
    whole = Span(source, 0, len(source.text))
    problems: list[Diagnostic] = []
    if len(source.text) > MAX_CHARACTERS:
        problems.append(
            codes.TOO_LARGE(
                Span(source, 0, 1), f"the text has more than {MAX_CHARACTERS:,} characters", label="nothing of it is read"
            )
        )
        return Parsed(ast.File(whole, ()), problems, frozenset())
    tokens = list(scan(source, problems))
    end = Tok("$END", "", len(source.text), len(source.text), source)
    if not problems:
        parser = grammar().parse_interactive()
        feed = parser.parser_state.feed_token
        try:
            for token in tokens:
                feed(token)  # type: ignore[arg-type]  # our own token has what the parser reads: type
            return Parsed(ast.File(whole, feed(end, True)), problems)  # type: ignore[arg-type]
        except UnexpectedToken:
            pass
    from nasdsl.syntax.recovery import recover

    items, lost = recover(grammar(), tokens, end, problems)
    problems.sort(key=lambda p: p.span.start)
    return Parsed(ast.File(whole, items), problems, lost)
