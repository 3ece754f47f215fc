"""Error recovery: parsing continues after a syntax error, so that one run reports all of them.

The token stream is rewritten until it is a text of the language. At each error the cheapest repair near it is searched,
one token inserted, deleted or replaced, by trying which of them lets the parser go on furthest (Burke and Fisher, "A
practical method for LR and LL syntactic error diagnosis and recovery", 1987). If there is none, the statement is skipped
(panic mode), and the names in it are recorded, so that the checker does not report them as missing. Only the types of
tokens matter here; the tree is built from the rewritten stream afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nasdsl.diagnostics import Diagnostic, Span, did_you_mean
from nasdsl.diagnostics.catalogue import syntax as codes
from nasdsl.syntax import error_messages as messages
from nasdsl.syntax.error_messages import Place
from nasdsl.syntax.lexer import RESERVED, UNREADABLE, WORDS, Tok
from nasdsl.syntax.repair import (
    CLOSER,
    CLOSING_BRACKETS,
    INSERTIONS,
    NEVER_DELETED,
    OPERATORS,
    REPLACEMENTS,
    SEPARATORS,
    SIGNS,
    Repair,
    replacement,
    terminals,
)
from nasdsl.syntax.tables import Reduce, Tables

_STARTERS = set(WORDS.values()) - {"FROM", "DANGLING", "INTO", "IN", "AT", "DISTINCT"} | {"RBRACE", "$END"}
"""Tokens that begin a statement or end a body."""

_LOOK_BACK = 12  # tokens before an error where a repair is tried
_LOOK_AHEAD = 32  # tokens after an error that a repair is tried on
_MIN_ACCEPTED = 2  # how many of them a repair must let the parser accept
_MIN_ACCEPTED_BEFORE = 5  # the same for a repair before the error
_MAX_ERRORS = 50
_KEEP_EVERY = 64  # tokens after which the stack is kept while no error is near


class _Stack(NamedTuple):
    """The parser's stack as a linked list, so that keeping one for every token costs nothing.

    Attributes:
        start: index in the rewritten stream at which this symbol begins.
    """

    state: int
    start: int
    below: _Stack | None


class Recovered(NamedTuple):
    """A token stream that is a text of the language, and the names in the tokens that were skipped; see `Parsed.lost`."""

    tokens: list[Tok]
    lost: frozenset[str] | None


def recover(tables: Tables, tokens: list[Tok], problems: list[Diagnostic]) -> Recovered:
    """Rewrite `tokens`, the last of which is ``$END``, into a text of the language.

    Adds a diagnostic to `problems` for each syntax error.
    """
    return _Recovery(tables, tokens, problems).run()


def expected_behind(tables: Tables, tokens: list[Tok]) -> set[str]:
    """The terminals that may stand behind tokens, the last of which is ``$END``: behind the beginning of a text."""
    recovery = _Recovery(tables, tokens, [])
    recovery.run()
    return recovery._expected(recovery.end)


class _Recovery:
    """The state of one recovery.

    Attributes:
        stream: the tokens of the text.
        out: the rewritten stream so far.
        before: for each token of `out`, the parser's stack in front of it.
        origin: for each token of `out`, its index in `stream`; -1 for a token that a repair made.
        lost: see `Parsed.lost`.
        end: the parser's stack in front of ``$END``, as the text has it.
    """

    def __init__(self, tables: Tables, stream: list[Tok], problems: list[Diagnostic]) -> None:
        self.rows = tables.rows
        self.last = tables.last
        self.first = _Stack(tables.first, 0, None)
        self.stream = stream
        self.problems = problems
        self.out: list[Tok] = []
        self.before: list[_Stack] = []
        self.origin: list[int] = []
        self.lost: set[str] | None = None
        self.made_up_names = 0
        self.end = self.first

    def run(self) -> Recovered:
        stream, stack, position, errors, skipped_at = self.stream, self.first, 0, 0, -1
        stack, position = self._advance(stack, position)
        ended = False
        while True:
            token = stream[position]
            if token.type == "NUMBER" and not token.value:
                stack = self._bad_number(stack, token, position)
                position += 1
                continue
            if token.type == "$END" and not ended:
                self.end, ended = stack, True
            after = self._step(stack, token.type, len(self.out))
            if after is not None:
                if token.type == "$END":
                    self.out.append(token)
                    return Recovered(self.out, None if self.lost is None else frozenset(self.lost))
                self._append(token, stack, position)
                stack, position = after, position + 1
                continue
            errors += 1
            if token.type == "$END":
                self.problems.append(messages.unexpected_end(self._place(stack, position)))
                stack = self._complete(stack)
            elif errors > _MAX_ERRORS:
                self.problems.append(
                    codes.UNEXPECTED(token.span, "there are more errors than this", label="the rest of the file is not read")
                )
                stack, position = self._skip(stack, position, len(stream) - 1)
            else:
                call_end = self._call_as_attribute(position)
                repair = None if call_end else self._best_repair(stack, position)
                if call_end:
                    stack, position = self._without_call(position, call_end)
                elif repair is not None:
                    self.problems.append(messages.repaired(repair, self._place(stack, position, repair.at)))
                    stack, position = self._apply(stack, repair, position)
                else:
                    self.problems.append(messages.unrepaired(token, self._expected(stack), stream[:position]))
                    stack, position = self._skip(stack, position, None, moved=position > skipped_at)
                    skipped_at = position
            stack, position = self._advance(stack, position)

    # -------------------------------------------------------------------------------------------- the parser

    def _step(self, stack: _Stack, kind: str, start: int) -> _Stack | None:
        """The stack after one more token; None if it does not fit."""
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

    def _advance(self, stack: _Stack, position: int) -> tuple[_Stack, int]:
        """Read on until shortly before the next error, without a stack for each token: repairs look at none of these.

        Returns the stack and the position after them.
        """
        states, starts = [], []
        below: _Stack | None = stack
        while below is not None:
            states.append(below.state)
            starts.append(below.start)
            below = below.below
        states.reverse()
        starts.reverse()
        stop, states, starts = self._read(states, starts, position)
        if stop == position:
            return stack, position
        made: _Stack | None = None
        for state, start in zip(states, starts, strict=True):
            made = _Stack(state, start, made)
        assert made is not None
        self.out += self.stream[position:stop]
        self.before += [self.first] * (stop - position)  # never looked at
        self.origin += range(position, stop)
        return made, stop

    def _read(self, states: list[int], starts: list[int], position: int) -> tuple[int, list[int], list[int]]:
        """Advance the parser's stack, given as two lists, as far as repairs do not look back from the next error.

        Returns the token that it stops at, and the stack in front of it.
        """
        rows, shift = self.rows, len(self.out) - position
        kept = before = (position, states.copy(), starts.copy())
        for at in range(position, len(self.stream) - 1):
            if at % _KEEP_EVERY == 0 and at > position:
                kept, before = (before if at - before[0] > _LOOK_BACK + 1 else kept), (at, states.copy(), starts.copy())
            token = self.stream[at]
            kind = token.type
            action = None if kind == "NUMBER" and not token.value else rows[states[-1]].get(kind)
            while isinstance(action, Reduce):
                begin = at + shift
                if action.size:
                    begin = starts[-action.size]
                    del states[-action.size :], starts[-action.size :]
                state = rows[states[-1]][action.origin]
                assert isinstance(state, int)
                states.append(state)
                starts.append(begin)
                action = rows[state].get(kind)
            if action is None:
                return before if at - before[0] > _LOOK_BACK + 1 else kept
            states.append(action)
            starts.append(at + shift)
        return before if len(self.stream) - 1 - before[0] > _LOOK_BACK + 1 else kept

    def _expected(self, stack: _Stack) -> set[str]:
        """The terminals that fit on a stack."""
        kinds = [k for k in self.rows[stack.state] if k.isupper() or k == "$END"]
        return {k for k in kinds if self._step(stack, k, 0) is not None}

    def _append(self, token: Tok, stack: _Stack, position: int) -> None:
        self.out.append(token)
        self.before.append(stack)
        self.origin.append(position)

    def _push(self, stack: _Stack, token: Tok) -> _Stack:
        """Append a token that a repair made, and return the stack after it."""
        after = self._step(stack, token.type, len(self.out))
        assert after is not None
        self._append(token, stack, -1)
        return after

    # ---------------------------------------------------------------------------------------------- repairs

    def _best_repair(self, stack: _Stack, position: int) -> Repair | None:
        """The best single repair near `position`; None if none lets the parser go on."""
        best: tuple[float, Repair] | None = None
        for repair in self._repairs(stack, position):
            accepted = self._accepted(stack, repair, position)
            least = _MIN_ACCEPTED if repair.at == position else _MIN_ACCEPTED_BEFORE
            if accepted >= min(least, len(self.stream) - position):
                score = 0.2 * accepted - repair.cost
                if best is None or score > best[0]:
                    best = score, repair
        return best[1] if best is not None else None

    def _repairs(self, stack: _Stack, position: int) -> Iterator[Repair]:
        """All candidates, from the error backwards."""
        stream = self.stream
        back = 0
        while True:
            at = position - back
            token, cost = stream[at], 0.05 * back
            expected = self._expected(stack)
            first = _first_on_line(stream, at)
            yield from self._replacements(token, expected, at, cost, first)
            for kind, base in INSERTIONS.items():
                if kind == "LPAR" and token.type in OPERATORS:
                    continue  # `c3 - c4` is arithmetic, and no call of c3
                if terminals(kind)[0] in expected and not (kind == "IN" and "QMARK" in expected):  # a value, rather than `in`
                    at_line_end = -0.2 if kind in CLOSING_BRACKETS else 0.2 if back else 0.0
                    yield Repair(base + cost + at_line_end * first, at, kind, False)
            if token.type in SEPARATORS or (not back and token.type not in NEVER_DELETED):
                again = at > 0 and stream[at - 1].type == token.type and token.type not in ("NAME", "NUMBER")
                base = 0.7 if again else 1.6 if token.type == "RBRACE" or token.value in RESERVED else 1.3
                yield Repair(base + cost, at, None, True)
            back += 1
            index = len(self.out) - back
            if back > _LOOK_BACK or index < 0 or self.origin[index] != position - back:
                return  # the beginning of the text, or an earlier repair
            stack = self.before[index]

    def _replacements(self, token: Tok, expected: set[str], at: int, cost: float, first: bool) -> Iterator[Repair]:
        """Repairs that replace a token; ``first``: it is the first of its line."""
        if token.type == "NAME":
            words = [w for w, t in WORDS.items() if t in expected and not (t == "IN" and "QMARK" in expected)]
            word = did_you_mean(token.value, words)
            if word is not None:
                yield Repair(0.4 + cost, at, WORDS[word], True)
        elif token.value in RESERVED and "NAME" in expected:
            yield Repair((1.3 if first else 0.9) + cost, at, "NAME", True)
        for kind in REPLACEMENTS.get(token.type, ()):
            if kind in expected and not (token.type == "STRING" and not token.value[1:-1].isidentifier()):
                yield Repair((1.2 if token.type == "RBRACE" else 0.8) + cost, at, kind, True)

    def _accepted(self, stack: _Stack, repair: Repair, position: int) -> int:
        """How many tokens from the error on the parser accepts after a repair; -1 if not even the repair."""
        if repair.at < position:
            stack = self.before[len(self.out) - (position - repair.at)]
        at: _Stack | None = stack
        for kind in terminals(repair.kind):
            assert at is not None
            at = self._step(at, kind, 0)
            if at is None:
                return -1
        ahead = repair.at + repair.in_place
        limit = min(position + _LOOK_AHEAD, len(self.stream))
        while ahead < limit:
            assert at is not None
            at = self._step(at, self.stream[ahead].type, 0)
            if at is None:
                return ahead - position
            ahead += 1
        return _LOOK_AHEAD

    def _apply(self, stack: _Stack, repair: Repair, position: int) -> tuple[_Stack, int]:
        """Go back to a repair and make it. Returns the stack and the position after it."""
        keep = len(self.out) - (position - repair.at)
        if repair.at < position:
            stack = self.before[keep]
            del self.out[keep:], self.before[keep:], self.origin[keep:]
        token, kinds = self.stream[repair.at], terminals(repair.kind)
        place = Place(token, self.stream[repair.at - 1] if repair.at else None, set(), None)
        for kind in kinds:
            if repair.in_place:
                value = replacement(token, kind) if len(kinds) == 1 else ""
                made = Tok(kind, value, token.start, token.end, token.source)
            else:
                made = self._make(kind, place, in_hole=repair.kind != "NAME")
            stack = self._push(stack, made)
        return stack, repair.at + repair.in_place

    def _make(self, kind: str, place: Place, in_hole: bool) -> Tok:
        """A token that the text lacks. A made-up name that is not that of a hole is one that no text can contain."""
        value = {"NUMBER": "1", "STRING": f'"{UNREADABLE}"'}.get(kind) or SIGNS.get(kind, "")
        if kind == "NAME" and not in_hole:
            self.made_up_names += 1
            value = f" {self.made_up_names}"
            self.lost = (self.lost or set()) | {value}
        gap = place.gap
        return Tok(kind, value, gap.start, gap.end, gap.source)

    def _bad_number(self, stack: _Stack, token: Tok, position: int) -> _Stack:
        """Replace a number that the scanner has reported by a hole, if one may stand there: then nothing else is reported."""
        if self._step(stack, "QMARK", 0) is None:
            token = Tok("NUMBER", "1", token.start, token.end, token.source)
            self.stream[position] = token
            if self._step(stack, "NUMBER", len(self.out)) is None:  # misplaced as well, which needs no second diagnostic
                return stack
            return self._push(stack, token)
        for kind in terminals("QMARK"):
            stack = self._push(stack, Tok(kind, "", token.start, token.end, token.source))
        return stack

    # ------------------------------------------------------------------------------------- calls in attributes

    def _call_as_attribute(self, position: int) -> int:
        """Where a call ends that stands for an attribute's value, as in ``groups=width(c4)``; 0 if there is none here."""
        stream, out = self.stream, self.out
        if stream[position].type != "LPAR" or len(out) < 2 or self.origin[-1] != position - 1 or out[-1].type != "NAME":
            return 0
        bracket = self._open_bracket(len(out))
        if out[-2].type not in {"EQUAL", *OPERATORS} or bracket is None or bracket.type != "LPAR":
            return 0
        sign = next((i for i in range(len(out) - 2, 0, -1) if out[i].type == "EQUAL"), 0)
        if messages.LEVEL_NAME.fullmatch(out[sign - 1].value):  # a further output, behind a bracket that is not closed
            return 0
        if self._begins_like_line_of(bracket, out[sign - 1]):  # a further statement, likewise
            return 0
        opened = next(i for i in range(len(out) - 1, -1, -1) if out[i] is bracket)
        if opened > 1 and out[opened - 2].type in ("OP", "AGG", "SHARED"):  # the parameters of a definition, likewise
            return 0
        depth = 0
        for at in range(position, min(position + _LOOK_AHEAD, len(stream))):
            depth += {"LPAR": 1, "RPAR": -1}.get(stream[at].type, 0)
            if depth == 0:
                return at + 1
        return 0

    @staticmethod
    def _begins_like_line_of(bracket: Tok, name: Tok) -> bool:
        """Whether a name begins a line further down, at the column at which the line of a bracket begins."""
        text = name.source.text
        before = text[text.rfind("\n", 0, name.start) + 1 : name.start]
        line = text[text.rfind("\n", 0, bracket.start) + 1 : bracket.start]
        return (
            before.isspace() and "\n" in text[bracket.start : name.start] and line[: len(line) - len(line.lstrip())] == before
        )

    def _without_call(self, position: int, end: int) -> tuple[_Stack, int]:
        """Report such a call, and put a hole in its place. Returns the stack and the position after it."""
        name = self.stream[position - 1]
        span = Span(name.source, name.start, self.stream[end - 1].end)
        self.problems.append(messages.call_as_attribute(span, name.value))
        stack = self.before[-1]
        del self.out[-1], self.before[-1], self.origin[-1]
        for kind in terminals("QMARK"):
            stack = self._push(stack, Tok(kind, "", span.start, span.end, name.source))
        return stack, end

    # -------------------------------------------------------------------------------------------- panic mode

    def _skip(self, stack: _Stack, position: int, to: int | None, moved: bool = True) -> tuple[_Stack, int]:
        """Skip tokens up to one that begins a statement or closes a body, and drop what was read of the statement.

        Args:
            to: skip at least up to this token.
            moved: whether the position has advanced since the last skip; if not, at least one token is skipped.
        """
        stream, depth, at = self.stream, 0, position if moved else position + 1
        at = at if to is None else to
        kept, end = stack, at
        braces = self._open_braces()
        while True:
            token = stream[at]
            if token.type == "LBRACE":
                depth += 1
            elif token.type == "RBRACE" and depth > 0:
                depth -= 1
            elif token.type == "$END" or depth == 0:
                begins = token.type in _STARTERS or (token.type == "NAME" and at > position and _first_on_line(stream, at))
                found = self._unwound(stack, token.type, complete=_first_on_line(stream, position)) if begins else None
                if token.type == "RBRACE" and found is not None and braces and self._start_above(stack, found) <= braces[-1]:
                    braces.pop()  # it closes a body that is dropped, such as that of a head
                elif found is not None or token.type == "$END":
                    kept, end = found or self.first, at
                    break
            at += 1
        start = self._start_above(stack, kept)
        self.lost = (self.lost or set()) | _names(self.out[start:]) | _names(stream[position:end])
        del self.out[start:], self.before[start:], self.origin[start:]
        return kept, end

    def _open_braces(self) -> list[int]:
        """Indices in the rewritten stream of the braces that are open at its end."""
        found: list[int] = []
        for index, token in enumerate(self.out):
            if token.type == "LBRACE":
                found.append(index)
            elif token.type == "RBRACE" and found:
                found.pop()
        return found

    def _unwound(self, stack: _Stack, kind: str, complete: bool) -> _Stack | None:
        """The highest part of the stack on which a statement that begins with `kind` can stand.

        If `complete`, what was read of the current statement is kept where it can be a whole one; else it is dropped.
        """
        at: _Stack | None = stack
        while at is not None:
            in_body = kind != "NAME" or self._step(at, "OUTPUT", 0) is not None  # only statements of an fpn begin with a name
            fits = self._step(at, kind, 0) is not None
            if in_body and fits and (complete or kind == "$END" or isinstance(self.rows[at.state][kind], int)):
                return at
            at = at.below
        return None

    def _start_above(self, stack: _Stack, part: _Stack) -> int:
        """Index in the rewritten stream at which the first symbol above `part` begins."""
        start = len(self.out)
        at = stack
        while at is not part:
            start = at.start
            assert at.below is not None
            at = at.below
        return start

    # ------------------------------------------------------------------------------------------- the early end

    def _complete(self, stack: _Stack) -> _Stack:
        """Insert what a text that ends too early lacks; that it does is already reported."""
        end = Place(self.stream[-1], self.stream[-2] if len(self.stream) > 1 else None, set(), None)
        for _ in range(4 * len(self.out) + 8):
            if self._step(stack, "$END", 0) is not None:
                return stack
            bracket = self._open_bracket(len(self.out))
            closing = [CLOSER[bracket.type]] if bracket is not None else []
            wanted = [*closing, *(k for k in INSERTIONS if k not in ("VALUE", "IN")), "NUMBER", "STRING", "IN"]
            kind = next((k for k in wanted if self._step(stack, k, 0) is not None), None)
            if kind is None or kind == "COMMA":
                break
            for terminal in terminals(kind):
                stack = self._push(stack, self._make(terminal, end, in_hole=kind != "NAME"))
        return self._skip(stack, len(self.stream) - 1, len(self.stream) - 1)[0]

    # -------------------------------------------------------------------------------------------------- places

    def _place(self, stack: _Stack, position: int, at: int | None = None) -> Place:
        """The place of token `at` (by default that of the error), which is not after `position`."""
        at = position if at is None else at
        keep = len(self.out) - (position - at)
        expected = self._expected(self.before[keep] if at < position else stack)
        return Place(self.stream[at], self.stream[at - 1] if at else None, expected, self._open_bracket(keep))

    def _open_bracket(self, end: int) -> Tok | None:
        """The innermost bracket that is open before index `end` of the rewritten stream."""
        depth = 0
        for token in reversed(self.out[:end]):
            if token.type in CLOSING_BRACKETS:
                depth += 1
            elif token.type in CLOSER:
                if depth == 0:
                    return token
                depth -= 1
        return None


def _first_on_line(stream: list[Tok], at: int) -> bool:
    return at > 0 and "\n" in stream[at].source.text[stream[at - 1].end : stream[at].start]


def _names(tokens: list[Tok]) -> set[str]:
    return {t.value for t in tokens if t.type == "NAME"}
