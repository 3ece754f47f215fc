"""What is being written at a place of a text, read off the tokens in front of it: a call, a section, a statement."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from nasdsl.diagnostics import Source
from nasdsl.lsp.analysis import Analysis
from nasdsl.lsp.brackets import CLOSING, OPENING, OpenBrackets
from nasdsl.syntax.lexer import Tok, scan
from nasdsl.syntax.parser import expected_words

Body: TypeAlias = Literal["file", "decoder", "fpn", "head", "block"]

_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*\Z")
_WRITTEN: Final = " x"
"""Stands for the word that is being written: ``on`` and ``shared`` are words of the language only in front of one."""

_STATEMENTS: Final = frozenset("INPUT OUTPUT MERGE REPEAT LET SHARED REQUIRE PREDICT USE OP AGG CHOICE".split())


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place where something is written.

    Attributes:
        start: where the word begins that is being written; the place itself where none is.
        before: type of the token in front of it; empty at the beginning.
        body: what the place is in.
        bracket: what the innermost round bracket belongs to: ``call``, ``section``, ``parameters``, ``results``, ``count``,
            ``hole``, ``group``; empty outside of brackets.
        owner: the name of what is called, or the section.
        attribute: the attribute whose value is written; empty where none is.
        statement: the type of the word that the statement begins with: ``OUTPUT``; empty for an assignment.
        string: the text of the string so far in which the place is; None outside of strings.
        expected: terminals of the grammar that may stand here.
    """

    start: int
    before: str
    body: Body
    bracket: str
    owner: str
    attribute: str
    statement: str
    string: str | None
    expected: frozenset[str]


def cursor_at(analysis: Analysis, offset: int) -> Cursor:
    text = analysis.text
    line = text[text.rfind("\n", 0, offset) + 1 : offset]
    string: str | None = None
    start = offset
    if _is_in_string(line):
        start = offset - len(line) + line.rindex('"')
        string = text[start + 1 : offset]
    else:
        word = _WORD.search(text, max(0, offset - 200), offset)
        start = offset if word is None else word.start()
    beginning = Source("", text[:start] if string is not None else text[:start] + _WRITTEN)
    tokens = [token for token in scan(beginning, []) if token.start < start]
    opened = _open_brackets(tokens)
    body, body_at = _body(tokens, opened)
    inner = opened[-1] if opened and tokens[opened[-1]].type == "LPAR" else None
    bracket, owner = ("", "") if inner is None else _bracket(tokens, inner)
    attribute = _attribute(tokens, opened)
    if bracket in ("hole", "group") and attribute and len(opened) > 1:
        owner = next((_bracket(tokens, i)[1] for i in reversed(opened[:-1]) if tokens[i].type == "LPAR"), "")
    return Cursor(
        start,
        tokens[-1].type if tokens else "",
        body,
        bracket,
        owner,
        attribute,
        _statement(tokens, body_at),
        string,
        frozenset(expected_words(beginning, tokens)),
    )


def is_in_comment(analysis: Analysis, offset: int) -> bool:
    text = analysis.text
    line = text[text.rfind("\n", 0, offset) + 1 : offset]
    return any(c == "#" and line[:at].count('"') % 2 == 0 for at, c in enumerate(line))


def _is_in_string(line: str) -> bool:
    return "#" not in line and line.count('"') % 2 == 1


def _open_brackets(tokens: list[Tok]) -> list[int]:
    """Indices of the brackets that are open at the end."""
    opened = OpenBrackets[int]()
    for index, token in enumerate(tokens):
        if token.type in OPENING:
            opened.open(token.type, index)
        elif token.type in CLOSING:
            opened.close(token.type)
    return opened.marks


def _body(tokens: list[Tok], opened: list[int]) -> tuple[Body, int]:
    """What the innermost brace belongs to, and its index; -1 outside of braces."""
    braces = [i for i in opened if tokens[i].type == "LBRACE"]
    for index in reversed(braces):
        for at in range(index - 1, -1, -1):
            kind = tokens[at].type
            if kind in ("FPN", "HEAD", "BLOCK", "DECODER"):
                body: Body = "fpn" if kind == "FPN" else "head" if kind == "HEAD" else "block" if kind == "BLOCK" else "decoder"
                return body, braces[-1]
            if kind == "REPEAT":
                break  # the body of what is around it
            if kind in ("LBRACE", "RBRACE"):
                return "decoder" if len(braces) == 1 else "fpn", index
    return "file", -1


def _bracket(tokens: list[Tok], at: int) -> tuple[str, str]:
    """What a round bracket belongs to, and its name."""
    before = tokens[at - 1] if at else None
    keyword = tokens[at - 2].type if at > 1 else ""
    if before is None:
        return "group", ""
    if before.type in ("FPN", "HEAD", "DETECTOR"):
        return "section", before.value
    if before.type == "QMARK":
        return "hole", ""
    if before.type == "ARROW":
        return "results", ""
    if before.type != "NAME":
        return "group", ""
    if keyword == "PREDICT":
        return "section", before.value
    if keyword in ("OP", "AGG", "BLOCK", "SHARED"):
        return "parameters", before.value
    return ("count", "") if keyword == "REQUIRE" else ("call", before.value)


def _attribute(tokens: list[Tok], opened: list[int]) -> str:
    """The attribute whose value is written: of ``conv(x, k=`` it is ``k``, also within ``k=?(``."""
    lowest = next((i for i in reversed(opened) if tokens[i].type == "LPAR" and _bracket(tokens, i)[0] in _SETTING), -1)
    if lowest < 0:
        return ""
    depth = 0
    for at in range(len(tokens) - 1, lowest, -1):
        kind = tokens[at].type
        if kind in CLOSING:
            depth += 1
        elif kind in OPENING:
            depth = max(0, depth - 1)
        elif kind == "COMMA" and not depth:
            return ""
        elif kind == "EQUAL" and not depth and tokens[at - 1].type == "NAME":
            return tokens[at - 1].value
    return ""


_SETTING: Final = ("call", "section", "parameters")


def _statement(tokens: list[Tok], body_at: int) -> str:
    """The type of the word that begins the statement; empty for one that begins with a name."""
    depth = 0
    for at in range(len(tokens) - 1, body_at, -1):
        kind = tokens[at].type
        if kind in CLOSING:
            depth += 1
        elif kind in OPENING:
            depth = max(0, depth - 1)
        elif not depth and kind in _STATEMENTS:
            return kind
        elif not depth and kind == "EQUAL" and _begins_assignment(tokens, at):
            return ""
    return ""


def _begins_assignment(tokens: list[Tok], equal: int) -> bool:
    """Whether ``=`` is that of an assignment, and not of a `let` or a binding of an output."""
    if equal < 2:  # at the beginning of a text
        return tokens[0].type not in _STATEMENTS
    at = equal - 1
    while at > 0 and tokens[at].type in ("NAME", "COMMA", "RSQB", "LSQB", "NUMBER"):
        at -= 1
        if tokens[at].type == "NAME" and tokens[at + 1].type == "NAME":
            return True
    return tokens[at].type not in _STATEMENTS and tokens[equal - 2].type != "COMMA"
