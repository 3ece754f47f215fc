"""Semantic highlighting: what each token of the text is, with names by what they refer to."""

from __future__ import annotations

from typing import Final

from lsprotocol.types import SemanticTokens, SemanticTokensLegend, SemanticTokensParams

from nasdsl.lsp.analysis import Analysis, prelude_source
from nasdsl.lsp.documents import Document, Documents
from nasdsl.semantics.resolved_names import Occurrence, SymbolKind
from nasdsl.syntax.lexer import WORDS, Tok

TYPES: Final = (
    "keyword", "comment", "string", "number", "operator", "function", "class", "enum", "enumMember", "variable",
    "parameter", "property", "namespace", "type",
)  # fmt: skip
MODIFIERS: Final = ("declaration", "readonly", "defaultLibrary")

_NUMBER_OF: Final = {name: number for number, name in enumerate(TYPES)}

LEGEND: Final = SemanticTokensLegend(list(TYPES), list(MODIFIERS))

_DECLARATION, _READONLY, _LIBRARY = 1, 2, 4

_OF_KIND: Final[dict[SymbolKind, str]] = {
    "value": "variable", "input": "variable", "output": "variable", "parameter": "parameter", "attribute": "property",
    "let": "variable", "variable": "variable", "op": "function", "agg": "function", "shared": "function", "block": "class",
    "choice": "enum", "decoder": "namespace", "primitive": "function", "pool": "enum", "section": "property",
    "setting": "property", "word": "enumMember", "prediction": "type", "tower": "property", "quantity": "property",
    "runtime": "enumMember",
}  # fmt: skip

_PUNCTUATION: Final = frozenset("LPAR RPAR LBRACE RBRACE LSQB RSQB COMMA SEMI COLON".split())
_NUMBERS: Final = ("NUMBER", "SIZE", "DURATION")
_WORDS: Final = frozenset(WORDS.values())


def semantic_tokens(documents: Documents, document: Document, params: SemanticTokensParams) -> SemanticTokens:
    analysis = document.analysis
    lines = analysis.lines
    data: list[int] = []
    line = at_line = at_column = 0
    last = len(lines.starts) - 1
    for start, end, type, modifiers in _tokens(analysis):
        while line < last and lines.starts[line + 1] <= start:
            line += 1
        end = min(end, lines.ends[line])  # a comment of the language may hold a line end of the protocol
        column = lines.length(lines.starts[line], start)
        data += (line - at_line, column - at_column if line == at_line else column, lines.length(start, end))
        data += (_NUMBER_OF[type], modifiers)
        at_line, at_column = line, column
    return SemanticTokens(data)


def _tokens(analysis: Analysis) -> list[tuple[int, int, str, int]]:
    """Start, end, type and modifiers of each token and comment, in the order of the text."""
    found: list[tuple[int, int, str, int]] = []
    text, end = analysis.text, 0
    named = {o.span.start: o for o in analysis.names.occurrences.values() if o.span.source is analysis.source}
    tokens = analysis.tokens
    for token in tokens:
        _comments(text, end, token.start, found)
        end = token.end
        type, modifiers = _type(token, named.get(token.start))
        if type:
            found.append((token.start, token.end, type, modifiers))
    _comments(text, end, len(text), found)
    return found


def _comments(text: str, start: int, end: int, found: list[tuple[int, int, str, int]]) -> None:
    """The comments of a gap between two tokens."""
    at = text.find("#", start, end)
    while at >= 0:
        stop = text.find("\n", at, end)
        stop = end if stop < 0 else stop
        found.append((at, at + len(text[at:stop].rstrip("\r")), "comment", 0))
        at = text.find("#", stop, end)


def _type(token: Tok, name: Occurrence | None) -> tuple[str, int]:
    if token.type == "NAME":
        if name is None:
            return "", 0
        symbol = name.symbols[0]
        modifiers = _DECLARATION if name.is_definition else 0
        if symbol.kind in ("input", "let", "variable", "decoder"):
            modifiers |= _READONLY
        if symbol.span is None or symbol.span.source is prelude_source():
            modifiers |= _LIBRARY
        return _OF_KIND[symbol.kind], modifiers
    if token.type in _WORDS:
        return "keyword", 0
    if token.type in _NUMBERS:
        return "number", 0
    if token.type == "STRING":
        return "string", 0
    return ("", 0) if token.type in _PUNCTUATION else ("operator", 0)
