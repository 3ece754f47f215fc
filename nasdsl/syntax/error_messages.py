"""Diagnostics of syntax errors: what was found, what was expected, how to fix it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import syntax as codes
from nasdsl.syntax.lexer import UNREADABLE, Tok
from nasdsl.syntax.repair import CLOSER, CLOSING_BRACKETS, OPERATORS, SIGNS, Repair, replacement

_WORDS = {
    "NAME": "a name", "NUMBER": "a number", "STRING": 'a string in `"…"`', "SIZE": "a size such as 800x1088",
    "COMPARE": "a comparison such as `<=`", "$END": "the end of the file",
} | {terminal: f"`{sign}`" for terminal, sign in SIGNS.items()}  # fmt: skip


LEVEL_NAME = re.compile(r"p\d+")
"""A name that was probably meant as an output."""


class Place(NamedTuple):
    """A place in the token stream where a repair is made.

    Attributes:
        token: the token there.
        before: the token before it; None at the beginning of the text.
        expected: terminals that could stand there.
        open_bracket: the innermost bracket that is open there.
    """

    token: Tok
    before: Tok | None
    expected: set[str]
    open_bracket: Tok | None

    @property
    def gap(self) -> Span:
        """The empty span directly behind the token before."""
        if self.before is not None:
            return self.before.span.tail(0)
        return self.token.span.head(0) if self.token.type != "$END" else Span(self.token.source, 0, 0)


def unrepaired(token: Tok, expected: set[str], before: Sequence[Tok]) -> Diagnostic:
    """A token that does not fit, and no repair helps; ``before`` are the tokens in front of it."""
    hint = _hint(token, before)
    return codes.UNEXPECTED(
        token.span, f"`{_shortened(token)}` does not fit here", label=f"expected {_listed(expected)}", help=hint
    )


def call_as_attribute(call: Span, callee: str) -> Diagnostic:
    """A call where an attribute's number or word is expected: ``groups=width(c4)``."""
    help = "what an attribute is computed from are numbers, names of `let`, and the section's `width`, `norm` and `act`"
    if callee == "width":
        help = "`width` by itself is the width of the section; that of a value is written as a number"
    return codes.UNEXPECTED(
        call, "a call where an attribute's value is expected", label="expected a number or a word", help=help
    )


def unexpected_end(place: Place) -> Diagnostic:
    """The text ends inside a statement or a bracket."""
    bracket = place.open_bracket
    related = [(bracket.span, "opened here, and not closed")] if bracket is not None else []
    closing = CLOSER[bracket.type] if bracket is not None else ""
    label = f"expected `{SIGNS[closing]}`" if closing in place.expected else f"expected {_listed(place.expected)}"
    return codes.UNEXPECTED_END(place.gap, "the text ends too early", label=label, related=related)


def repaired(repair: Repair, place: Place) -> Diagnostic:
    """The error that a repair takes away."""
    if repair.kind is None:
        return _superfluous(place)
    return _replaced(repair.kind, place) if repair.in_place else _missing(repair.kind, place)


def _superfluous(place: Place) -> Diagnostic:
    token, before, expected, bracket = place
    if token.type in CLOSING_BRACKETS and (bracket is None or CLOSER[bracket.type] != token.type):
        message, label = f"`{_shortened(token)}` closes nothing", "no such bracket is open"
    elif token.type in expected:  # it fits itself, and nothing after it does
        message, label = f"one `{_shortened(token)}` too many", "nothing that follows fits behind it"
    else:
        message, label = f"`{_shortened(token)}` does not fit here", f"expected {_listed(expected)}"
    if token.value in ("K", "M", "G") and before is not None and before.type == "NUMBER":  # without it, 5 G would be 5
        help = f"a suffix stands right behind its number: `{before.value}{token.value}`"
        return codes.UNEXPECTED(token.span, message, label=label, help=help)
    return codes.UNEXPECTED(token.span, message, label=label, help="leave it out", fix="")


def _replaced(kind: str, place: Place) -> Diagnostic:
    token, _, expected, bracket = place
    if kind == "NAME" and token.type != "STRING":
        return codes.RESERVED_WORD(
            token.span, f"`{token.value}` is a word of the language and cannot be a name", label="expected a name",
            help=f"call it `{token.value}_`", fix=f"{token.value}_",
        )  # fmt: skip
    if kind == "QMARK":
        return codes.UNEXPECTED(
            token.span, f"the number `{_shortened(token)}` where a value is expected", label=f"expected {_listed(expected)}",
            help="a value is a name of one, or a call; a number is bound by `let`",
        )  # fmt: skip
    meant = replacement(token, kind)
    related = [(bracket.span, "opened here")] if bracket is not None and token.type in CLOSING_BRACKETS else []
    instead = {kind} if related else expected - {token.type}
    return codes.UNEXPECTED(
        token.span, f"`{_shortened(token)}` does not fit here", label=f"expected {_listed(instead)}",
        help=f"did you mean `{meant}`?", fix=meant, related=related,
    )  # fmt: skip


def _missing(kind: str, place: Place) -> Diagnostic:
    token, before, _, bracket = place
    where = f"after `{_shortened(before)}`" if before is not None else f"before `{_shortened(token)}`"
    if kind == "VALUE":
        help = ""
        if before is not None and LEVEL_NAME.fullmatch(before.value):
            name = before.value
            help = f"`output {name} = …` binds {name} itself: it stands in the place of a `{name} = …` further up"
        return codes.UNEXPECTED(place.gap, f"a value is missing {where}", label="expected `=` and a value", help=help)
    kind_before = before.type if before is not None else ""
    if kind in ("QMARK", "NAME"):
        what = (
            "a name" if kind == "NAME"
            else "an op" if token.type == "LPAR"
            else "a layer" if kind_before == "ARROW" or token.type == "ARROW"
            else "a value"
        )  # fmt: skip
        help = "or leave the `,` out" if kind_before == "COMMA" and token.type in CLOSING_BRACKETS else ""
        return codes.UNEXPECTED(place.gap, f"{what} is missing {where}", label=f"expected {what}", help=help)
    sign = SIGNS[kind]
    related = [(bracket.span, "opened here")] if bracket is not None and CLOSER[bracket.type] == kind else []
    fix = sign if kind in ("COMMA", "RPAR", "RSQB", "LPAR", "LSQB", "COLON", "RANGE") else f" {sign}"
    if token.start == place.gap.start and sign.isalpha():
        fix += " "
    return codes.UNEXPECTED(place.gap, f"`{sign}` is missing {where}", label=f"expected `{sign}`", fix=fix, related=related)


_CONTEXTS = frozenset(("CHOICE", "OP", "AGG", "BLOCK", "FPN", "HEAD", "INPUT", "PREDICT"))


def _operator_hint(before: Sequence[Tok]) -> str:
    """What to say of an operator where none fits: only in the body of an fpn, an op or a block can a feature be meant."""
    seen = set()
    for token in reversed(before):
        if token.type in _CONTEXTS:
            if token.type == "CHOICE":
                return "an alternative is an op or a value by itself; each is drawn as often as the others"
            if token.type in ("OP", "AGG") and "EQUAL" not in seen:
                return f"an op has a fixed number of operands, each with a name: `{token.value} f(x, y) = …`"
            if token.type == "HEAD":
                return "a head's layers are joined by `->`: `conv_3x3 -> conv_3x3`"
            if token.type in ("INPUT", "PREDICT"):
                return ""
            break
        seen.add(token.type)
    return "features are added with `add(x, y)` or an aggregation such as `sum(x, y)`; arithmetic is for numbers"


def _hint(token: Tok, before: Sequence[Tok]) -> str:
    if token.type in OPERATORS:
        return _operator_hint(before)
    if token.type == "REPEAT":
        return "`repeat` stands in an fpn or a block; a head's layers are joined by `->`, and one of them can be a block"
    if token.value == "detector":
        return "its attributes stand in brackets: `detector(size=240x320, backbone=mobilenet_v2)`"
    if len(before) > 1 and before[-2].type == "SHARED":
        return "its operands have names, in brackets: `shared refine(x) = conv_3x3(x)`"
    if token.value == "shared":
        return "a `shared` op is a statement of an fpn or a block, whose calls share its weights"
    if token.type == "STRING":
        return 'a string stands only in `use "file.nas"`, behind `from`, and as a value: `backbone="resnet50_v1.5"`'
    return ""


def _shortened(token: Tok) -> str:
    value = token.source.text[token.start : token.end] if token.value == f'"{UNREADABLE}"' else token.value
    return value if len(value) <= 40 else value[:40] + "…"


def _listed(expected: set[str]) -> str:
    """Terminals in words, at most eight signs: ``a name, `(` or `{```."""
    rare = {"$END", "DISTINCT"}  # which fit behind much else
    words = sorted(_WORDS[t] for t in (expected if expected <= rare else expected - rare) if t in _WORDS)
    if len(expected & OPERATORS) > 1:
        words.append("an operator")
    elif "STAR" in expected:  # the factor of a layer in a chain
        words.append("`*`")
    words = [w for w in words if w[0] != "`"] + [w for w in words if w[0] == "`"][:8]
    if not words:
        return "nothing more"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
