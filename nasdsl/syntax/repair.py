"""The repairs that error recovery tries: one token inserted, deleted or replaced, each with a cost."""

from __future__ import annotations

from typing import Final, NamedTuple

from nasdsl.syntax.lexer import WORDS, Tok

SIGNS: Final = {
    "LPAR": "(", "RPAR": ")", "LBRACE": "{", "RBRACE": "}", "LSQB": "[", "RSQB": "]", "COMMA": ",", "EQUAL": "=", "COLON": ":",
    "ARROW": "->", "RANGE": "..", "QMARK": "?", "BAR": "|",
} | {terminal: word for word, terminal in WORDS.items()}  # fmt: skip
"""How a terminal is written."""

OPERATORS: Final = {"PLUS", "MINUS", "STAR", "SLASH"}
CLOSER: Final = {"LPAR": "RPAR", "LBRACE": "RBRACE", "LSQB": "RSQB"}
"""The closing bracket for each opening one."""
CLOSING_BRACKETS: Final = frozenset(CLOSER.values())

INSERTIONS: Final = {
    "COMMA": 0.9, "ARROW": 0.9, "RPAR": 0.9, "RSQB": 0.9, "RBRACE": 1.0, "EQUAL": 0.9, "LPAR": 1.0, "LBRACE": 1.0, "COLON": 1.0,
    "VALUE": 1.3, "INTO": 1.0, "DANGLING": 1.0, "FROM": 1.1, "IN": 1.0, "RANGE": 1.0, "QMARK": 1.1, "NAME": 1.3,
}  # fmt: skip
"""What may be inserted, with its cost; see `terminals`."""

REPLACEMENTS: Final[dict[str, tuple[str, ...]]] = {
    "RPAR": ("RSQB", "RBRACE"), "RSQB": ("RPAR", "RBRACE"), "RBRACE": ("RPAR", "RSQB"), "LPAR": ("LSQB", "LBRACE"),
    "LSQB": ("LPAR", "LBRACE"), "LBRACE": ("LPAR",), "COLON": ("EQUAL",), "COMPARE": ("EQUAL",), "EQUAL": ("COLON", "COMPARE"),
    "SEMI": ("COMMA",), "COMMA": ("BAR", "ARROW"), "BAR": ("COMMA",), "MINUS": ("ARROW",), "STRING": ("NAME",),
    "NAME": ("STRING",), "NUMBER": ("QMARK",),
}  # fmt: skip
"""What a token may be replaced by."""

SEPARATORS: Final = {"COMMA", "SEMI", "EQUAL", "ARROW", "BAR"}
NEVER_DELETED: Final = OPERATORS | {"LBRACE", "$END"}
"""Without such a token a text would mean something else."""


class Repair(NamedTuple):
    """A change of the token stream.

    Attributes:
        cost: how unlikely it is that the author meant this.
        at: index of a token in the stream.
        kind: what is inserted before this token, or replaces it (see `terminals`); None deletes it.
        in_place: whether the token is replaced or deleted.
    """

    cost: float
    at: int
    kind: str | None
    in_place: bool


def terminals(kind: str | None) -> tuple[str, ...]:
    """The terminals that a repair inserts: those of a hole (an unknown value) for ``QMARK``, ``=`` and a hole for ``VALUE``."""
    if kind is None:
        return ()
    return {"QMARK": ("QMARK", "NAME"), "VALUE": ("EQUAL", "QMARK", "NAME")}.get(kind, (kind,))


def replacement(token: Tok, kind: str) -> str:
    """The text of the token of another kind that replaces `token`."""
    if kind == "STRING":
        return f'"{token.value}"'
    return token.value.strip('"') if kind == "NAME" else SIGNS.get(kind, "==")
