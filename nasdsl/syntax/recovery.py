"""Reading on after a syntax error.

The token stream is rewritten until it is a text of the language: at each error the smallest mend near it is sought, one
token put in, left out or changed, by trying which of them lets the text go on furthest (Burke and Fisher's method).
Where none fits, the statement is passed over (panic mode), and the names that it would have bound are remembered, so
that the checker does not report their absence as well. Only types of tokens are read here; the tree is built from the
rewritten stream afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nasdsl.diagnostics import Diagnostic, Span, did_you_mean
from nasdsl.diagnostics.catalogue import syntax as codes
from nasdsl.syntax.lexer import RESERVED, UNREADABLE, Tok
from nasdsl.syntax.tables import Tables

_SIGNS = {
    "LPAR": "(", "RPAR": ")", "LBRACE": "{", "RBRACE": "}", "LSQB": "[", "RSQB": "]", "COMMA": ",", "EQUAL": "=", "COLON": ":",
    "ARROW": "->", "RANGE": "..", "QMARK": "?", "BAR": "|",
} | {terminal: word for word, terminal in RESERVED.items()}  # fmt: skip
_WORDS = {
    "NAME": "a name", "NUMBER": "a number", "STRING": 'a file name in `"…"`', "SIZE": "a size such as 800x1088",
    "COMPARE": "a comparison such as `<=`", "$END": "the end of the file",
} | {terminal: f"`{sign}`" for terminal, sign in _SIGNS.items()}  # fmt: skip
_OPERATORS = {"PLUS", "MINUS", "STAR", "SLASH"}
_OPENS = {"LPAR": "RPAR", "LBRACE": "RBRACE", "LSQB": "RSQB"}
_CLOSES = {close: open_ for open_, close in _OPENS.items()}
_STARTERS = set(RESERVED.values()) - {"FROM", "DANGLING", "INTO", "IN", "AT"} | {"RBRACE", "$END"}

_PUT_IN = {
    "COMMA": 0.9, "ARROW": 0.9, "RPAR": 0.9, "RSQB": 0.9, "RBRACE": 1.0, "EQUAL": 0.9, "LPAR": 1.0, "LBRACE": 1.0, "COLON": 1.0,
    "VALUE": 1.3, "INTO": 1.0, "DANGLING": 1.0, "FROM": 1.1, "IN": 1.0, "RANGE": 1.0, "QMARK": 1.1, "NAME": 1.3,
}  # fmt: skip
"""What may be put in, with its price. ``QMARK`` stands for a whole hole, a value that is not known; ``VALUE`` for one
behind ``=``."""
_CHANGE: dict[str, tuple[str, ...]] = {
    "RPAR": ("RSQB", "RBRACE"), "RSQB": ("RPAR", "RBRACE"), "RBRACE": ("RPAR", "RSQB"), "LPAR": ("LSQB", "LBRACE"),
    "LSQB": ("LPAR", "LBRACE"), "LBRACE": ("LPAR",), "COLON": ("EQUAL",), "COMPARE": ("EQUAL",), "EQUAL": ("COLON", "COMPARE"),
    "SEMI": ("COMMA",), "COMMA": ("BAR", "ARROW"), "BAR": ("COMMA",), "MINUS": ("ARROW",), "STRING": ("NAME",),
    "NAME": ("STRING",), "NUMBER": ("QMARK",),
}  # fmt: skip
"""Tokens that stand where another was meant."""

_SEPARATORS = {"COMMA", "SEMI", "EQUAL", "ARROW", "BAR"}
_KEPT = _OPERATORS | {"LBRACE", "$END"}
"""What is never left out: a text without it would read as something else."""

_BEHIND = 12  # tokens before an error among which its cause is sought
_AHEAD = 32  # tokens behind an error that a mend is tried on
_LEAST = 2  # of them, those that it must let pass
_LEAST_AFTER_GOING_BACK = 5  # and where it changes what was read without an error
_MOST_ERRORS = 50


class _Stack(NamedTuple):
    """The parser's stack as a linked list, so that keeping one for every token costs nothing.

    Attributes:
        start: the place in the rewritten stream where this symbol begins.
    """

    state: int
    start: int
    below: _Stack | None


class _Mend(NamedTuple):
    """One change of the stream before or at token ``at``: ``kind`` is put in, or stands in its place; None: left out."""

    price: float
    at: int
    kind: str | None
    in_place: bool


class Recovered(NamedTuple):
    """A stream of tokens that is a text of the language, and the names that passed-over text would have bound."""

    tokens: list[Tok]
    lost: frozenset[str] | None


def recover(tables: Tables, tokens: list[Tok], problems: list[Diagnostic]) -> Recovered:
    """Rewrite `tokens`, the last of which is ``$END``, into a text of the language.

    Adds a finding to `problems` for each syntax error.
    """
    return _Recovery(tables, tokens, problems).run()


class _Recovery:
    def __init__(self, tables: Tables, stream: list[Tok], problems: list[Diagnostic]) -> None:
        self.rows = tables.rows
        self.last = tables.last
        self.first = _Stack(tables.first, 0, None)
        self.stream = stream
        self.problems = problems
        self.out: list[Tok] = []
        self.before: list[_Stack] = []  # for each token of `out`, the stack in front of it
        self.origin: list[int] = []  # and its place in `stream`
        self.lost: set[str] | None = None
        self.missing = 0

    def run(self) -> Recovered:
        stream, stack, position, errors, checked = self.stream, self.first, 0, 0, -1
        while True:
            token = stream[position]
            if token.type == "NUMBER" and not token.value:
                stack = self._unreadable_number(stack, token, position)
                position += 1
                continue
            after = self._step(stack, token.type, len(self.out))
            if after is not None:
                if token.type == "$END":
                    self.out.append(token)
                    return Recovered(self.out, None if self.lost is None else frozenset(self.lost))
                self._put(token, stack, position)
                stack, position = after, position + 1
                continue
            errors += 1
            if token.type == "$END":
                self._ends_early(stack)
                stack = self._complete(stack)
            elif errors > _MOST_ERRORS:
                self.problems.append(
                    codes.UNEXPECTED(token.span, "there are more errors than this", label="the rest of the file is not read")
                )
                stack, position = self._pass_over(stack, position, len(stream) - 1)
            else:
                mend = self._mend(stack, position)
                self.problems.append(self._report(stack, position, mend))
                if mend is not None:
                    stack, position = self._apply(stack, mend, position)
                else:
                    stack, position = self._pass_over(stack, position, None, moved=position > checked)
                    checked = position

    # -------------------------------------------------------------------------------------------- the parser

    def _step(self, stack: _Stack, kind: str, start: int) -> _Stack | None:
        """The stack behind one more token; None where it does not fit."""
        rows = self.rows
        while True:
            action = rows[stack.state].get(kind)
            if action is None:
                return None
            if isinstance(action, int):
                return _Stack(action, start, stack)
            begin = start
            for _ in range(action.size):
                begin = stack.start
                assert stack.below is not None
                stack = stack.below
            state = rows[stack.state][action.origin]
            assert isinstance(state, int)
            stack = _Stack(state, begin, stack)
            if kind == "$END" and stack.state == self.last:
                return stack

    def _expected(self, stack: _Stack) -> set[str]:
        kinds = [k for k in self.rows[stack.state] if k.isupper() or k == "$END"]
        return {k for k in kinds if self._step(stack, k, 0) is not None}

    def _put(self, token: Tok, stack: _Stack, position: int) -> None:
        self.out.append(token)
        self.before.append(stack)
        self.origin.append(position)

    # ------------------------------------------------------------------------------------------------ mends

    def _mend(self, stack: _Stack, position: int) -> _Mend | None:
        """The best single change near `position`; None where none lets the text go on."""
        best: tuple[float, _Mend] | None = None
        for mend in self._mends(stack, position):
            ahead = self._reach(stack, mend, position)
            least = _LEAST if mend.at == position else _LEAST_AFTER_GOING_BACK
            if ahead >= min(least, len(self.stream) - position):
                score = 0.2 * ahead - mend.price
                if best is None or score > best[0]:
                    best = score, mend
        return best[1] if best is not None else None

    def _mends(self, stack: _Stack, position: int) -> Iterator[_Mend]:
        stream = self.stream
        back = 0
        while True:
            at = position - back
            token, price = stream[at], 0.05 * back
            expected = self._expected(stack)
            fresh = _first_on_line(stream, at)
            yield from self._changes(token, expected, at, price, fresh)
            for kind, base in _PUT_IN.items():
                if _kinds(kind)[0] in expected:
                    at_line_end = -0.2 if kind in _CLOSES else 0.2 if back else 0.0
                    yield _Mend(base + price + at_line_end * fresh, at, kind, False)
            if token.type in _SEPARATORS or (not back and token.type not in _KEPT):
                again = at > 0 and stream[at - 1].type == token.type and token.type not in ("NAME", "NUMBER")
                base = 0.7 if again else 1.6 if token.type == "RBRACE" or token.value in RESERVED else 1.3
                yield _Mend(base + price, at, None, True)
            back += 1
            index = len(self.out) - back
            if back > _BEHIND or index < 0 or self.origin[index] != position - back:
                return  # the beginning, or what an earlier mend has changed
            stack = self.before[index]

    def _changes(self, token: Tok, expected: set[str], at: int, price: float, fresh: bool) -> Iterator[_Mend]:
        if token.type == "NAME":
            word = did_you_mean(token.value, [w for w, t in RESERVED.items() if t in expected])
            if word is not None:
                yield _Mend(0.4 + price, at, RESERVED[word], True)
        elif token.value in RESERVED and "NAME" in expected:
            yield _Mend((1.3 if fresh else 0.9) + price, at, "NAME", True)
        for kind in _CHANGE.get(token.type, ()):
            if kind in expected and not (token.type == "STRING" and not token.value[1:-1].isidentifier()):
                yield _Mend((1.2 if token.type == "RBRACE" else 0.8) + price, at, kind, True)

    def _reach(self, stack: _Stack, mend: _Mend, position: int) -> int:
        """How many tokens from the error on fit behind a mend."""
        if mend.at < position:
            stack = self.before[len(self.out) - (position - mend.at)]
        at: _Stack | None = stack
        for kind in _kinds(mend.kind):
            assert at is not None
            at = self._step(at, kind, 0)
            if at is None:
                return -1
        ahead = mend.at + mend.in_place
        limit = min(position + _AHEAD, len(self.stream))
        while ahead < limit:
            assert at is not None
            at = self._step(at, self.stream[ahead].type, 0)
            if at is None:
                return ahead - position
            ahead += 1
        return _AHEAD

    def _apply(self, stack: _Stack, mend: _Mend, position: int) -> tuple[_Stack, int]:
        """Go back to a mend, make it, and go on behind it."""
        keep = len(self.out) - (position - mend.at)
        if mend.at < position:
            stack = self.before[keep]
            del self.out[keep:], self.before[keep:], self.origin[keep:]
        token = self.stream[mend.at]
        if mend.in_place and mend.kind is not None:
            for kind in _kinds(mend.kind):
                value = _meant(token, kind) if len(_kinds(mend.kind)) == 1 else ""
                stack = self._push(stack, Tok(kind, value, token.start, token.end, token.source), -1)
            return stack, mend.at + 1
        if mend.kind is not None:
            for kind in _kinds(mend.kind):
                stack = self._push(stack, self._made(kind, mend.kind != "NAME", self._gap(mend.at)), -1)
        return stack, mend.at + mend.in_place

    def _push(self, stack: _Stack, token: Tok, position: int) -> _Stack:
        after = self._step(stack, token.type, len(self.out))
        assert after is not None
        self._put(token, stack, position)
        return after

    def _made(self, kind: str, in_hole: bool, place: Span) -> Tok:
        """A token that the text lacks. A name that is made up gets one that no text can hold."""
        value = {"NUMBER": "1", "STRING": f'"{UNREADABLE}"'}.get(kind) or _SIGNS.get(kind, "")
        if kind == "NAME" and not in_hole:
            self.missing += 1
            value = f" {self.missing}"
            self.lost = (self.lost or set()) | {value}
        return Tok(kind, value, place.start, place.end, place.source)

    def _unreadable_number(self, stack: _Stack, token: Tok, position: int) -> _Stack:
        """A number that the scanner has reported is a hole where one may stand, so that nothing follows from it."""
        if self._step(stack, "QMARK", 0) is None:
            token = Tok("NUMBER", "1", token.start, token.end, token.source)
            self.stream[position] = token
            after = self._step(stack, "NUMBER", len(self.out))
            if after is None:  # misplaced as well; said already
                return stack
            self._put(token, stack, -1)
            return after
        for kind in _kinds("QMARK"):
            stack = self._push(stack, Tok(kind, "", token.start, token.end, token.source), -1)
        return stack

    # -------------------------------------------------------------------------------------------- panic mode

    def _pass_over(self, stack: _Stack, position: int, to: int | None, moved: bool = True) -> tuple[_Stack, int]:
        """Pass tokens over, and drop what was read of the statement, up to a token that begins one or closes a brace."""
        stream, depth, at = self.stream, 0, position if moved else position + 1
        at = at if to is None else to
        dropped, here = stack, at
        while True:
            token = stream[at]
            if token.type == "LBRACE":
                depth += 1
            elif token.type == "RBRACE" and depth > 0:
                depth -= 1
            elif token.type == "$END" or depth == 0:
                begins = token.type in _STARTERS or (token.type == "NAME" and at > position and _first_on_line(stream, at))
                found = self._popped(stack, token.type, complete=_first_on_line(stream, position)) if begins else None
                if found is not None or token.type == "$END":
                    dropped, here = found or self.first, at
                    break
            at += 1
        start = self._start_of(stack, dropped)
        self.lost = (self.lost or set()) | _names(self.out[start:]) | _names(stream[position:here])
        del self.out[start:], self.before[start:], self.origin[start:]
        return dropped, here

    def _popped(self, stack: _Stack, kind: str, complete: bool) -> _Stack | None:
        """The highest part of the stack on which a statement that begins with `kind` can stand.

        Where `complete`, what was read before counts as a statement if it can be one; else it goes with what is dropped.
        """
        at: _Stack | None = stack
        while at is not None:
            whole = kind != "NAME" or self._step(at, "OUTPUT", 0) is not None  # a name begins statements of an fpn only
            fits = self._step(at, kind, 0) is not None
            if whole and fits and (complete or kind == "$END" or isinstance(self.rows[at.state][kind], int)):
                return at
            at = at.below
        return None

    def _start_of(self, stack: _Stack, part: _Stack) -> int:
        """Where the first symbol above `part` begins in the rewritten stream."""
        start = len(self.out)
        at = stack
        while at is not part:
            start = at.start
            assert at.below is not None
            at = at.below
        return start

    # ----------------------------------------------------------------------------------------- the early end

    def _complete(self, stack: _Stack) -> _Stack:
        """Put in what a text that ends too early lacks; the finding is reported already."""
        place = self._gap(len(self.stream) - 1)
        for _ in range(4 * len(self.out) + 8):
            if self._step(stack, "$END", 0) is not None:
                return stack
            open_ = self._open_bracket(len(self.out))
            kinds = [_OPENS[open_.type]] if open_ is not None else []
            wanted = [*kinds, *(k for k in _PUT_IN if k != "VALUE"), "NUMBER", "STRING"]
            kind = next((k for k in wanted if self._step(stack, k, 0) is not None), None)
            if kind is None or kind == "COMMA":
                break
            for part in _kinds(kind):
                stack = self._push(stack, self._made(part, kind != "NAME", place), -1)
        return self._pass_over(stack, len(self.stream) - 1, len(self.stream) - 1)[0]

    def _ends_early(self, stack: _Stack) -> None:
        place = self._gap(len(self.stream) - 1)
        expected = self._expected(stack)
        open_ = self._open_bracket(len(self.out))
        closing = open_ is not None and _OPENS[open_.type] in expected
        related = [(open_.span, "opened here, and not closed")] if open_ is not None else []
        label = f"expected `{_SIGNS[_OPENS[open_.type]]}`" if open_ is not None and closing else f"expected {_words(expected)}"
        self.problems.append(codes.UNEXPECTED_END(place, "the text ends too early", label=label, related=related))

    # ---------------------------------------------------------------------------------------------- findings

    def _gap(self, at: int) -> Span:
        """The place right behind the token before `at`."""
        token = self.stream[at]
        offset = self.stream[at - 1].end if at else token.start if token.type != "$END" else 0
        return Span(token.source, offset, offset)

    def _open_bracket(self, end: int) -> Tok | None:
        """The innermost bracket that is open before place `end` of the rewritten stream."""
        depth = 0
        for token in reversed(self.out[:end]):
            if token.type in _CLOSES:
                depth += 1
            elif token.type in _OPENS:
                if depth == 0:
                    return token
                depth -= 1
        return None

    def _report(self, stack: _Stack, position: int, mend: _Mend | None) -> Diagnostic:
        if mend is None:
            token = self.stream[position]
            return codes.UNEXPECTED(
                token.span, f"`{_shown(token)}` does not fit here", label=f"expected {_words(self._expected(stack))}",
                help=_hint(token),
            )  # fmt: skip
        keep = len(self.out) - (position - mend.at)
        stack = self.before[keep] if mend.at < position else stack
        expected, token, open_ = self._expected(stack), self.stream[mend.at], self._open_bracket(keep)
        if not mend.in_place:
            return self._report_missing(mend, open_)
        if mend.kind is None:
            if token.type in _CLOSES and (open_ is None or _OPENS[open_.type] != token.type):
                message, label = f"`{_shown(token)}` closes nothing", "no such bracket is open"
            elif token.type in expected:  # fits itself, and nothing behind it does
                message, label = f"one `{_shown(token)}` too many", "nothing that follows fits behind it"
            else:
                message, label = f"`{_shown(token)}` does not fit here", f"expected {_words(expected)}"
            before = self.stream[mend.at - 1] if mend.at else None
            if token.value in ("K", "M", "G") and before is not None and before.type == "NUMBER":  # left out, 5 G would be 5
                help = f"a suffix stands right behind its number: `{before.value}{token.value}`"
                return codes.UNEXPECTED(token.span, message, label=label, help=help)
            return codes.UNEXPECTED(token.span, message, label=label, help="leave it out", fix="")
        if mend.kind == "NAME" and token.type != "STRING":
            return codes.RESERVED_WORD(
                token.span, f"`{token.value}` is a word of the language and cannot be a name", label="expected a name",
                help=f"call it `{token.value}_`", fix=f"{token.value}_",
            )  # fmt: skip
        if mend.kind == "QMARK":
            return codes.UNEXPECTED(
                token.span, f"the number `{_shown(token)}` where a value is expected", label=f"expected {_words(expected)}",
                help=f"an attribute is set by its name: `k={_shown(token)}`",
            )  # fmt: skip
        meant = _meant(token, mend.kind)
        related = [(open_.span, "opened here")] if open_ is not None and token.type in _CLOSES else []
        instead = {mend.kind} if related else expected - {token.type}
        return codes.UNEXPECTED(
            token.span, f"`{_shown(token)}` does not fit here", label=f"expected {_words(instead)}",
            help=f"did you mean `{meant}`?", fix=meant, related=related,
        )  # fmt: skip

    def _report_missing(self, mend: _Mend, open_: Tok | None) -> Diagnostic:
        place, kind, following = self._gap(mend.at), mend.kind or "", self.stream[mend.at]
        where = f"after `{_shown(self.stream[mend.at - 1])}`" if mend.at else f"before `{_shown(following)}`"
        if kind == "VALUE":
            return codes.UNEXPECTED(place, f"a value is missing {where}", label="expected `=` and a value")
        if kind in ("QMARK", "NAME"):
            before = self.stream[mend.at - 1].type if mend.at else ""
            what = (
                "a name" if kind == "NAME"
                else "an op" if following.type == "LPAR"
                else "a layer" if before == "ARROW" or following.type == "ARROW"
                else "a value"
            )  # fmt: skip
            spare = before == "COMMA" and following.type in _CLOSES
            return codes.UNEXPECTED(
                place, f"{what} is missing {where}", label=f"expected {what}", help="or leave the `,` out" if spare else ""
            )
        sign = _SIGNS[kind]
        related = [(open_.span, "opened here")] if open_ is not None and _OPENS[open_.type] == kind else []
        fix = sign if kind in ("COMMA", "RPAR", "RSQB", "LPAR", "LSQB", "COLON", "RANGE") else f" {sign}"
        if following.start == place.start and sign.isalpha():
            fix += " "
        return codes.UNEXPECTED(place, f"`{sign}` is missing {where}", label=f"expected `{sign}`", fix=fix, related=related)


def _meant(token: Tok, kind: str) -> str:
    """How a token is written that stands for another kind of token."""
    if kind == "STRING":
        return f'"{token.value}"'
    return token.value.strip('"') if kind == "NAME" else _SIGNS.get(kind, "==")


def _kinds(kind: str | None) -> tuple[str, ...]:
    """The types of the tokens that a mend puts in: a hole is two."""
    if kind is None:
        return ()
    return {"QMARK": ("QMARK", "NAME"), "VALUE": ("EQUAL", "QMARK", "NAME")}.get(kind, (kind,))


def _first_on_line(stream: list[Tok], at: int) -> bool:
    return at > 0 and "\n" in stream[at].source.text[stream[at - 1].end : stream[at].start]


def _names(tokens: list[Tok]) -> set[str]:
    """Names that a passed-over stretch may have bound."""
    return {t.value for t in tokens if t.type == "NAME"}


def _hint(token: Tok) -> str:
    if token.type in _OPERATORS:
        return "features are added with `add(x, y)` or an aggregation such as `sum(x, y)`; arithmetic is for numbers"
    if token.type == "STRING":
        return 'a string stands only in `use "file.nas"` and behind `from`'
    return ""


def _shown(token: Tok) -> str:
    return token.value if len(token.value) <= 40 else token.value[:40] + "…"


def _words(expected: set[str]) -> str:
    words = sorted(_WORDS[t] for t in (expected if expected == {"$END"} else expected - {"$END"}) if t in _WORDS)
    if expected & _OPERATORS:
        words.append("an operator")
    words = [w for w in words if w[0] != "`"] + [w for w in words if w[0] == "`"][:8]
    if not words:
        return "nothing more"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
