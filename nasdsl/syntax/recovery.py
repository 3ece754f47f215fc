"""Reading on after a syntax error.

First the smallest mend that lets the text go on is tried: one token put in, or one left out. Where none fits, tokens
are passed over up to the next statement (panic mode), and the names that they would have bound are remembered, so
that the checker does not report their absence as well.
"""

from __future__ import annotations

import copy
from typing import Any

from lark import Lark
from lark.exceptions import UnexpectedToken

from nasdsl.diagnostics import Diagnostic, Span, did_you_mean
from nasdsl.diagnostics.catalogue import syntax as codes
from nasdsl.syntax.lexer import RESERVED, Tok

_WORDS = {
    "LPAR": "`(`", "RPAR": "`)`", "LBRACE": "`{`", "RBRACE": "`}`", "LSQB": "`[`", "RSQB": "`]`", "COMMA": "`,`",
    "EQUAL": "`=`", "COLON": "`:`", "ARROW": "`->`", "RANGE": "`..`", "QMARK": "`?`", "BAR": "`|`", "NAME": "a name",
    "NUMBER": "a number", "STRING": 'a file name in `"…"`', "SIZE": "a size such as 800x1088",
    "COMPARE": "a comparison such as `<=`", "$END": "the end of the file",
} | {terminal: f"`{word}`" for word, terminal in RESERVED.items()}  # fmt: skip
_OPERATORS = {"PLUS", "MINUS", "STAR", "SLASH"}
_PUT_IN = ("COMMA", "RPAR", "EQUAL", "RBRACE", "LBRACE", "ARROW", "RSQB", "LPAR", "NAME")
_TEXT = {"COMMA": ",", "RPAR": ")", "EQUAL": "=", "RBRACE": "}", "LBRACE": "{", "ARROW": "->", "RSQB": "]", "LPAR": "("}
_STARTERS = set(RESERVED.values()) - {"FROM", "DANGLING", "INTO", "IN", "AT"} | {"RBRACE", "SEMI", "$END"}
_MOST_ERRORS = 50
_AHEAD = 3  # tokens that must fit behind a mend

Expected = set[str]


def recover(
    grammar: Lark, tokens: list[Tok], end: Tok, problems: list[Diagnostic]
) -> tuple[tuple[Any, ...], frozenset[str] | None]:
    """Read `tokens`, adding a finding to `problems` for each syntax error.

    Returns:
        the items of the file that could be saved, and the names bound in text that was passed over (None: nothing was).
    """
    state = grammar.parse_interactive().parser_state
    stream = [*tokens, end]
    lost: set[str] | None = None
    position, errors, progress = 0, 0, -1
    while position < len(stream):
        token = stream[position]
        try:
            result = state.feed_token(token, token is end)  # type: ignore[arg-type]
            position += 1
            if token is end:
                return result, None if lost is None else frozenset(lost)
            continue
        except UnexpectedToken:
            pass
        errors += 1
        expected = {t for t in _acceptable(state) if _accepts(state, [t])}
        mend = None if position == progress else _mend(state, stream, position, expected)
        if position > progress:
            problems.append(_report(stream, position, expected, mend))
        progress = position
        if errors >= _MOST_ERRORS:
            break
        if mend is not None and mend != "leave out":
            state.feed_token(Tok(mend, "_", token.start, token.start, token.source))  # type: ignore[arg-type]
            if mend == "NAME":
                lost = lost or set()
            continue
        if mend == "leave out":
            position += 1
            continue
        before = position
        position = _next_statement(state, stream, position)
        lost = (lost or set()) | _bound(stream[before:position])
        if position == before and stream[position].type not in ("RBRACE", "$END"):
            position += 1
    return (), frozenset(lost or ())


def _acceptable(state: Any) -> list[str]:
    return [t for t in state.parse_conf.parse_table.states[state.state_stack[-1]] if t.isupper() or t == "$END"]


def _accepts(state: Any, types: list[str]) -> bool:
    """Whether the parser can read these token types from here. The state is left as it is."""
    trial = copy.copy(state)
    trial.state_stack, trial.value_stack = list(state.state_stack), [None] * len(state.value_stack)
    trial.parse_conf = copy.copy(state.parse_conf)
    trial.parse_conf.callbacks = dict.fromkeys(state.parse_conf.callbacks, lambda _: None)
    try:
        for kind in types:
            trial.feed_token(Tok(kind, "", 0, 0, None), kind == "$END")  # type: ignore[arg-type]
    except UnexpectedToken:
        return False
    return True


def _mend(state: Any, stream: list[Tok], position: int, expected: Expected) -> str | None:
    """The token type to put in before `position`, ``leave out``, or None where neither lets the text go on."""
    ahead = [t.type for t in stream[position : position + _AHEAD]]
    for kind in _PUT_IN:
        if kind in expected and _accepts(state, [kind, *ahead]):
            return kind
    if len(ahead) > 1 and stream[position].type not in ("LBRACE", "RBRACE") and _accepts(state, ahead[1:]):
        return "leave out"
    return None


def _next_statement(state: Any, stream: list[Tok], position: int) -> int:
    """Pass tokens over, and pop the parser, up to a token that begins a statement or closes a brace."""
    depth = 0
    for at in range(position, len(stream)):
        token = stream[at]
        if token.type == "LBRACE":
            depth += 1
        elif token.type == "RBRACE" and depth > 0:
            depth -= 1
            continue
        if depth:
            continue
        starts_line = token.type == "NAME" and at > position and _first_on_line(stream, at)
        if token.type not in _STARTERS and not starts_line:
            continue
        for size in range(len(state.state_stack), 0, -1):
            trial = copy.copy(state)
            trial.state_stack, trial.value_stack = state.state_stack[:size], state.value_stack[: size - 1]
            if _accepts(trial, [token.type]) and (not starts_line or _accepts(trial, ["OUTPUT"])):
                del state.state_stack[size:]
                del state.value_stack[size - 1 :]
                return at
    del state.state_stack[1:]
    del state.value_stack[:]
    return len(stream) - 1


def _first_on_line(stream: list[Tok], at: int) -> bool:
    return "\n" in stream[at].source.text[stream[at - 1].end : stream[at].start]


def _bound(tokens: list[Tok]) -> set[str]:
    """Names that a passed-over stretch may have bound: those before ``=``, ``,`` or ``(``."""
    return {a.value for a in tokens if a.type == "NAME"}


def _report(stream: list[Tok], position: int, expected: Expected, mend: str | None) -> Diagnostic:
    token = stream[position]
    words = _expectation(expected)
    if token.type == "$END":
        last = stream[position - 1] if position else token
        place = Span(token.source, last.start, last.end) if position else Span(token.source, 0, 0)
        return codes.UNEXPECTED_END(place, "the text ends too early", label=f"expected {words} after this")
    span = token.span
    if token.value in RESERVED and "NAME" in expected:
        return codes.RESERVED_WORD(
            span, f"`{token.value}` is a word of the language and cannot be a name", label=f"expected {words}",
            help=f"call it `{token.value}_`",
        )  # fmt: skip
    if mend in _TEXT and position:
        before = stream[position - 1]
        place = Span(token.source, before.end, before.end)
        text = _TEXT[mend]
        return codes.UNEXPECTED(
            place, f"`{text}` is missing before `{_shown(token)}`", label=f"expected {words}", help=f"put `{text}` here",
            fix=text,
        )  # fmt: skip
    if mend == "leave out":
        return codes.UNEXPECTED(
            span, f"`{_shown(token)}` does not fit here", label=f"expected {words}", help="leave it out", fix=""
        )
    guess = did_you_mean(token.value, [w for w, t in RESERVED.items() if t in expected]) if token.type == "NAME" else None
    return codes.UNEXPECTED(
        span,
        f"`{_shown(token)}` does not fit here",
        label=f"expected {words}",
        help=f"did you mean `{guess}`?" if guess else "",
        fix=guess,
    )


def _shown(token: Tok) -> str:
    return token.value if len(token.value) <= 40 else token.value[:40] + "…"


def _expectation(expected: Expected) -> str:
    words = sorted(_WORDS[t] for t in expected if t in _WORDS)
    if expected & _OPERATORS:
        words.append("an operator")
    if len(words) > 8:
        words = [w for w in words if w[0] != "`"] + [w for w in words if w[0] == "`"][:8]
    if not words:
        return "nothing more"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
