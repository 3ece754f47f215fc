"""Text to syntax tree. The only importer of lark.

At a syntax error the parser goes on with error recovery (`nasdsl.syntax.recovery`), so that one run reports all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from lark import Lark
from lark.grammar import Rule
from lark.lexer import Lexer
from lark.parsers.lalr_analysis import Shift

from nasdsl import resources
from nasdsl.diagnostics import Diagnostic, Source, Span
from nasdsl.diagnostics.catalogue import syntax as codes
from nasdsl.garbage_collector import paused_collector
from nasdsl.syntax import ast
from nasdsl.syntax.build import Builder
from nasdsl.syntax.encoding import encoding_error
from nasdsl.syntax.kept import PIECES, KeptSyntax
from nasdsl.syntax.lexer import Tok, scan
from nasdsl.syntax.recovery import expected_behind, parse_tokens, unreadable_numbers
from nasdsl.syntax.tables import Reduce, Row, Tables

MAX_CHARACTERS = 4_000_000
"""Longest text that is parsed. A decoder of 10,000 blocks has half a million characters."""


class _NoLexer(Lexer):
    """Placeholder for lark's scanner, which is not used: `parse` has its own."""

    def __init__(self, _: Any) -> None:
        pass

    def lex(self, lexer_state: Any, parser_state: Any) -> Iterator[Any]:
        return iter(())


@cache
def tables() -> Tables:
    """The parser tables of the grammar, made by lark once a process (about 40 ms)."""
    lark = Lark(
        resources.read("grammars", "nas.lark"),
        parser="lalr",
        lexer=_NoLexer,
        keep_all_tokens=True,
        maybe_placeholders=False,
    )
    parser = lark.parse_interactive().parser_state.parse_conf
    builder = Builder()
    rows: dict[int, Row] = {}
    for state, row in parser.parse_table.states.items():
        rows[state] = {
            str(symbol): target
            if action is Shift
            else Reduce(len(target.expansion), str(target.origin.name), _build(target, builder), target.origin.name in PIECES)
            for symbol, (action, target) in row.items()
        }
    return Tables(rows, parser.start_state, parser.end_state)


_LIST = "__"
"""Prefix of the rules that lark makes for ``( … )*``."""


def _build(rule: Rule, builder: Builder) -> Callable[[list[Any]], Any] | None:
    """The function that makes the node of a rule from its children, lists flattened; None if the node is its only child."""
    if rule.options.expand1 and len(rule.expansion) == 1 and not rule.alias:
        return None
    lists = [place for place, symbol in enumerate(rule.expansion) if symbol.name.startswith(_LIST)]

    def flat(children: list[Any]) -> list[Any]:
        if lists == [0]:  # the list so far belongs to nobody else, and grows
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


def expected_words(beginning: Source, tokens: Iterable[Tok]) -> set[str]:
    """The terminals of the grammar that may stand behind the tokens of the beginning of a text, whatever follows it."""
    end = len(beginning.text)
    return expected_behind(tables(), [*tokens, Tok("$END", "", end, end, beginning)])


class Parsed(NamedTuple):
    """The result of parsing.

    Attributes:
        file: the tree; if there are errors, the part of it that could be parsed.
        problems: diagnostics of the scanner and the parser.
        lost: names in text that error recovery skipped, which may have bound them; None if it skipped nothing.
    """

    file: ast.File
    problems: list[Diagnostic]
    lost: frozenset[str] | None = None


@paused_collector()
def parse(source: Source, kept: KeptSyntax | None = None) -> Parsed:
    """Parse a text. Never raises, whatever the text is.

    `kept`: what is kept of its earlier versions, which makes it faster and changes nothing of the result.
    """
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
    tokens = list(scan(source, problems)) if kept is None else kept.scan(source, problems)
    tokens.append(Tok("$END", "", len(source.text), len(source.text), source))
    items, lost = parse_tokens(tables(), tokens, unreadable_numbers(tokens) if problems else (), problems, kept)
    if any(p.code == codes.TOO_DEEP.code for p in problems):  # scanning stopped there, so the early end is no finding
        problems[:] = [p for p in problems if p.code != codes.UNEXPECTED_END.code]
        return Parsed(ast.File(whole, ()), problems, frozenset())
    problems.sort(key=lambda p: p.span.start)
    return Parsed(ast.File(whole, items), problems, lost)
