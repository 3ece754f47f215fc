"""The scanner: text to tokens, by one regular expression, within limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator
from typing import Final, NamedTuple

from nasdsl.diagnostics import Anchor, Diagnostic, Source, Span
from nasdsl.diagnostics.catalogue import syntax as codes
from nasdsl.diagnostics.span import quick_span

RESERVED: Final = {
    word: word.upper()
    for word in (
        "use op agg choice block decoder input require predict fpn head from output merge dangling into repeat in let at "
        "distinct"
    ).split()
}
"""Words that cannot be names, with their terminals. After ``choice`` and ``?`` every word is a name, as in
``choice op = …`` and ``?op``."""

WORDS: Final = {**RESERVED, "detector": "DETECTOR", "shared": "SHARED", "on": "ON"}
"""The words of the language with their terminals: those that are reserved, and ``detector`` and ``shared``, which are words of
the language only where their statements can begin, and ``on``, which is one behind a number. Anywhere else they are names."""

BEFORE_ANY_WORD: Final = frozenset(("CHOICE", "QMARK"))
"""Tokens behind which every word is a name."""

_BEFORE_ITEM: Final = frozenset("LBRACE SEMI RBRACE RPAR RSQB NAME NUMBER DURATION SIZE STRING DISTINCT IN".split())
"""Tokens that may stand before a statement."""

GAP: Final = r"(?:[ \t\r\n]++|#[^\n]*+)*+"
"""White space and comments. It gives nothing back: one that does tries every division of a long gap before it fails, and their
number doubles with each character."""

WORD_FOLLOWED_BY: Final = {"detector": r"\(", "shared": "[A-Za-z_]", "on": "[A-Za-z_]"}
"""What begins the token behind a word that is one of the language only in its place."""

_FOLLOWS: Final = {word: re.compile(f"{GAP}{begin}") for word, begin in WORD_FOLLOWED_BY.items()}
"""A name or a word of the language never follows a value called ``shared`` where a statement may begin."""

UNREADABLE: Final = "\n"
"""The value of a string that does not end; no file name in a text can contain it."""

MAX_DIGITS: Final = 18
"""Most digits of a number, after the point not counted."""

MAX_DECIMALS: Final = 40
"""Most digits after the point."""

MAX_NESTING: Final = 100
"""Deepest nesting of brackets, far below what the interpreter's recursion limit allows."""

PUNCTUATION: Final = {
    "(": "LPAR", ")": "RPAR", "{": "LBRACE", "}": "RBRACE", "[": "LSQB", "]": "RSQB", ",": "COMMA", ";": "SEMI",
    "=": "EQUAL", ":": "COLON", "->": "ARROW", "..": "RANGE", "?": "QMARK", "|": "BAR", "+": "PLUS", "-": "MINUS",
    "*": "STAR", "/": "SLASH",
}  # fmt: skip
"""Signs with their terminals."""

_ENDS_VALUE: Final = frozenset((",", "=", ";", "->", "|"))

_NESTS: Final = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}

PATTERNS: Final = {
    "NAME": r"[A-Za-z_][A-Za-z_0-9]*+(?![^\x01-\x7f])",
    "SIZE": r"[0-9]+x[0-9]+(?![A-Za-z_0-9])",
    "DURATION": r"[0-9]+(?:\.[0-9]+)?(?:us|ms|s)(?![A-Za-z_0-9])",
    "NUMBER": r"[0-9]+(?:\.[0-9]+)?[KMG]?(?![A-Za-z_0-9])",
    "STRING": r'"[^"\n]*"',
    "COMPARE": r"<=|>=|==|<|>",
}
"""Terminals that stand for many texts, as regular expressions. `nasdsl.grammar_export` translates them."""

_REST_OF_LINE: Final = r"(?:[^\r\n]|\r(?!\n))*+"

_NO_TOKENS: Final = {
    "END": r"\Z",
    "WRONG_NUMBER": r"[0-9][A-Za-z_0-9.]*",
    "OPEN_STRING": '"' + _REST_OF_LINE,
    "QUOTED": "'[^'\\n]*'|[\u201c-\u201e][^\u201c-\u201e\\n]*[\u201c\u201d]|[\u2018-\u201a][^\u2018-\u201a\\n]*[\u2018\u2019]",
    "WRONG_ARROW": "=>|[\u2192\u21d2\u2794\u27f6]",
    "WRONG_NAME": r"[A-Za-z_0-9]*[^\x01-\x7f][^\x01-/:-@\[-^`{-\x7f]*",
    "ILLEGAL": "(?s:.)",
}
"""The end, and what is not part of the language: tried when nothing else fits."""

_SCAN: Final = re.compile(
    r"[ \t\r\n]*+"  # most gaps have no comment
    + GAP
    + "(?:"
    + "|".join(
        f"(?P<{name}>{pattern})"
        for name, pattern in {
            "NAME": PATTERNS["NAME"],
            "COMMENT": r"//" + _REST_OF_LINE,
            "PUNCTUATION": r"->|\.\.|[(){}\[\],;:?|+*/-]|=(?![=>])",
            **PATTERNS,
            **_NO_TOKENS,
        }.items()
    )
    + ")"
)


class Tok:
    """A token. ``type`` is a terminal of the grammar; ``anchor``, ``first`` and ``last`` are those of its span."""

    __slots__ = ("anchor", "first", "last", "type", "value")

    line = column = end_line = end_column = start_pos = end_pos = 0  # lark reads these at the end of the input

    def __init__(self, type: str, value: str, first: int, last: int, anchor: Anchor) -> None:
        self.type = type
        self.value = value
        self.first = first
        self.last = last
        self.anchor = anchor

    @property
    def span(self) -> Span:
        return quick_span((self.anchor, self.first, self.last))

    @property
    def source(self) -> Source:
        return self.anchor.source

    @property
    def start(self) -> int:
        return self.anchor.offset + self.first

    @property
    def end(self) -> int:
        return self.anchor.offset + self.last

    def __repr__(self) -> str:
        return f"Tok({self.type}, {self.value!r})"


class Reached(NamedTuple):
    """What the tokens behind a place depend on, besides the text there.

    Attributes:
        depth: of the brackets that are open.
        operators: those of the expression so far, which an end of a value sets back to 0.
        before: the terminal of the token before the place; empty at the beginning.
        is_end: scanning has stopped.
    """

    depth: int = 0
    operators: int = 0
    before: str = ""
    is_end: bool = False


def scan(source: Source, problems: list[Diagnostic]) -> Iterator[Tok]:
    """Scan a text. Characters that are no token are reported in ``problems`` and skipped.

    Scanning stops, with a diagnostic, where brackets nest deeper than `MAX_NESTING` or an expression has more operators.
    """
    return scan_part(source, 0, len(source.text), Reached(), problems)


def scan_part(
    anchor: Anchor, begin: int, end: int, reached: Reached, problems: list[Diagnostic]
) -> Generator[Tok, None, Reached]:
    """Scan a part of a text that begins and ends between tokens; returns what is reached at its end.

    Args:
        anchor: what the offsets of the tokens count from, and `begin` and `end` too.
        reached: where the part begins.
    """
    source, offset = anchor.source, anchor.offset
    words, punctuation, nests = WORDS, PUNCTUATION, _NESTS
    depth, operators, before, _ = reached
    for found in _SCAN.finditer(source.text, offset + begin, offset + end):  # no gaps: the last alternative matches anything
        kind = found.lastgroup
        value = found[kind]  # type: ignore[index]  # lastgroup is set: every branch is a named group
        position = found.end()
        start = position - len(value)
        if kind == "NAME":
            type = "NAME"
            if value in words:
                type = _type_of_word(source.text, value, position, depth, before)
        elif kind == "PUNCTUATION":
            type = punctuation[value]
            if value in nests:
                depth += nests[value]
                if value in "{}":
                    operators = 0
                if depth > MAX_NESTING:
                    problems.append(
                        codes.TOO_DEEP(
                            source.span(start, position),
                            f"brackets nested more than {MAX_NESTING} deep",
                            label="the rest of the file is not read",
                            help="name intermediate values, or define an `op`",
                        )
                    )
                    return Reached(is_end=True)
            elif value in _ENDS_VALUE:
                operators = 0
            elif value in "+-*/":
                operators += 1
                if operators > MAX_NESTING:
                    problems.append(
                        codes.TOO_DEEP(
                            source.span(start, position),
                            f"an expression of more than {MAX_NESTING} operators",
                            label="the rest of the file is not read",
                            help="name intermediate values with `let`",
                        )
                    )
                    return Reached(is_end=True)
        elif kind == "END":
            break
        elif kind in ("NUMBER", "DURATION", "SIZE", "STRING", "COMPARE"):
            type = kind
            if kind in ("NUMBER", "DURATION", "SIZE") and len(value) > MAX_DIGITS and _too_long(value):
                most = f"{MAX_DIGITS} digits" + (f", and {MAX_DECIMALS} more after the point" if "." in value else "")
                problems.append(
                    codes.BAD_NUMBER(
                        source.span(start, position), f"a number of {len(value)} digits", label=f"numbers have at most {most}"
                    )
                )
                value = {"NUMBER": "", "DURATION": "1s", "SIZE": "1x1"}[kind]
        else:
            problem, type, value = _not_a_token(kind or "", value, source.span(start, position))
            if not (problems and problems[-1].code == problem.code and _adjacent(problems[-1].span, problem.span)):
                problems.append(problem)
            if not type:
                continue
        before = type
        yield Tok(type, value, start - offset, position - offset, anchor)
    return Reached(depth, operators, before)


def _type_of_word(text: str, word: str, end: int, depth: int, before: str) -> str:
    """The terminal of a word of the language: that of names where it is none of the language.

    Args:
        end: where it ends in the text.
        depth: of brackets that are open there.
        before: the terminal before it.
    """
    if before in BEFORE_ANY_WORD:
        return "NAME"
    if word in RESERVED:
        return RESERVED[word]
    if word == "on":
        is_in_place = before in ("DURATION", "NUMBER")
    else:
        is_in_place = before in _BEFORE_ITEM and (word != "detector" or depth == 1)
    return WORDS[word] if is_in_place and _FOLLOWS[word].match(text, end) else "NAME"


def _too_long(number: str) -> bool:
    digits, _, decimals = number.partition(".")
    return len(digits) > MAX_DIGITS or len(decimals) > MAX_DECIMALS


def _adjacent(before: Span, span: Span) -> bool:
    """Whether only spaces separate two illegal pieces, which are then one finding."""
    return before.source is span.source and not before.source.text[before.end : span.start].strip(" \t")


def _not_a_token(kind: str, value: str, span: Span) -> tuple[Diagnostic, str, str]:
    """The diagnostic for an illegal piece of text, and the type and value of the token to continue with, if any."""
    if kind == "OPEN_STRING":
        return (
            codes.OPEN_STRING(span, "a string that does not end on its line", label='expected a closing `"`'),
            "STRING",
            f'"{UNREADABLE}"',
        )
    if kind == "WRONG_NUMBER":
        return (
            codes.BAD_NUMBER(
                span,
                f"`{_escaped(value)}` is neither a number nor a name",
                label="expected digits, with K, M or G behind them, a size such as 800x1088, or a time such as 15ms",
                help="a name starts with a letter or `_`",
            ),
            "NUMBER",
            "",
        )
    if kind in _FOREIGN:
        type, what, translate = _FOREIGN[kind]
        meant = translate(value)
        problem = codes.ILLEGAL_CHARACTER(span, f"`{_escaped(value)}` is not part of the language", label=what, fix=meant)
        return problem, type, meant
    if kind == "WRONG_NAME":
        strange = next(c for c in value if not c.isascii() or c == "\x00")
        problem = codes.ILLEGAL_CHARACTER(
            span, f"{_described(strange)} has no meaning here", label="names are made of the letters a to z, digits and `_`"
        )
        name = "".join(c for c in value if c.isalnum() or c == "_")
        return problem, "NAME" if any(c.isalpha() for c in name) else "", name
    hint = {
        "'": 'strings are written with double quotes: "file.nas"',
        ".": "names have no dots, except in double quotes; a range is written `1..7`",
        "!": "there is no `!`; comparisons are <= >= < > ==",
    }.get(value, "")
    return (
        codes.ILLEGAL_CHARACTER(span, f"{_described(value)} has no meaning here", label="not part of the language", help=hint),
        "",
        "",
    )


_FOREIGN: Final[dict[str, tuple[str, str, Callable[[str], str]]]] = {
    "COMMENT": ("", "a comment begins with `#`", lambda text: "#" + text[2:]),
    "QUOTED": ("STRING", "a string stands in double quotes", lambda text: '"' + text[1:-1].replace('"', "") + '"'),
    "WRONG_ARROW": ("ARROW", "an arrow is written `->`", lambda _: "->"),
}
"""Notations of other languages: the type of the token that was meant, the label, and how the token is written."""


def _described(character: str) -> str:
    known = {"\x00": "a NUL byte", "\ufeff": "a byte-order mark", "\ufffd": "a replacement character (U+FFFD)"}
    return known.get(character) or f"the character `{_escaped(character)}`"


def _escaped(value: str) -> str:
    cut = value if len(value) <= 40 else value[:40] + "…"
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in cut)
