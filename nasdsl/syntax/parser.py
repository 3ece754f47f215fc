"""Text to syntax tree. The only importer of lark.

A right text takes the fast path. On the first syntax error the text is read again with recovery
(`nasdsl.syntax.recovery`), so that one run reports every mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

from lark import Lark
from lark.grammar import Rule
from lark.lexer import Lexer
from lark.parsers.lalr_analysis import Shift

from nasdsl import resources
from nasdsl.diagnostics import Diagnostic, Source, Span
from nasdsl.diagnostics.catalogue import syntax as codes
from nasdsl.syntax import ast
from nasdsl.syntax.build import Builder
from nasdsl.syntax.encoding import encoding_error
from nasdsl.syntax.lexer import Tok, scan
from nasdsl.syntax.tables import Reduce, Row, Tables, without_collector

MAX_CHARACTERS = 4_000_000
"""Longest text that is read. A decoder of 10,000 blocks has half a million characters."""


class _NoLexer(Lexer):
    """Tokens are fed by `parse`; lark's own scanner stays unused."""

    def __init__(self, _: Any) -> None:
        pass

    def lex(self, lexer_state: Any, parser_state: Any) -> Iterator[Any]:
        return iter(())


@cache
def tables() -> Tables:
    """The tables of the grammar, made once a process (about 40 ms)."""
    lark = Lark(
        resources.read("grammars", "nas.lark"),
        parser="lalr",
        lexer=_NoLexer,
        keep_all_tokens=True,
        maybe_placeholders=False,
    )
    made = lark.parse_interactive().parser_state.parse_conf
    builder = Builder()
    rows: dict[int, Row] = {}
    for state, row in made.parse_table.states.items():
        rows[state] = {
            str(symbol): target
            if action is Shift
            else Reduce(len(target.expansion), str(target.origin.name), _build(target, builder))
            for symbol, (action, target) in row.items()
        }
    return Tables(rows, made.start_state, made.end_state)


_LIST = "__"
"""How the names begin that lark gives to what stands in ``( … )*``."""


def _build(rule: Rule, builder: Builder) -> Callable[[list[Any]], Any] | None:
    """What makes the node of a rule of its children, in which each ``( … )*`` lies open; None where the one child is it."""
    if rule.options.expand1 and len(rule.expansion) == 1 and not rule.alias:
        return None
    lists = [place for place, symbol in enumerate(rule.expansion) if symbol.name.startswith(_LIST)]

    def flat(children: list[Any]) -> list[Any]:
        if lists == [0]:  # what a list has so far is its own, and grows
            found: list[Any] = children[0]
            found += children[1:]
            return found
        for place in reversed(lists):
            children[place : place + 1] = children[place]
        return children

    if rule.origin.name.startswith(_LIST):
        return flat
    make: Callable[[list[Any]], Any] = getattr(builder, rule.alias or str(rule.origin.name))
    return (lambda children: make(flat(children))) if lists else make


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


@without_collector
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
    not_text = encoding_error(source)
    if not_text is not None:
        return Parsed(ast.File(whole, ()), [not_text], frozenset())
    tokens = list(scan(source, problems))
    tokens.append(Tok("$END", "", len(source.text), len(source.text), source))
    if not problems:
        items = tables().run(tokens)
        if items is not None:
            return Parsed(ast.File(whole, items), problems)
    from nasdsl.syntax.recovery import recover

    mended, lost = recover(tables(), tokens, problems)
    items = tables().run(mended)
    if any(p.code == codes.TOO_DEEP.code for p in problems):  # where scanning stops, so that the end is none
        problems[:] = [p for p in problems if p.code != codes.UNEXPECTED_END.code]
        return Parsed(ast.File(whole, ()), problems, frozenset())
    problems.sort(key=lambda p: p.span.start)
    return Parsed(ast.File(whole, items), problems, lost)
