"""Error recovery: parsing continues after a syntax error, so that one run reports all of them.

The token stream is rewritten until it is a text of the language. At each error the cheapest repair near it is searched,
one token inserted, deleted or replaced, by trying which of them lets the parser go on furthest (Burke and Fisher, "A
practical method for LR and LL syntactic error diagnosis and recovery", 1987). If there is none, the statement is skipped
(panic mode), and the names in it are recorded, so that the checker does not report them as missing. Only the types of
tokens matter here; the parser builds the tree as the stream is rewritten, and goes back where a repair is made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from nasdsl.diagnostics import Diagnostic, did_you_mean
from nasdsl.diagnostics.catalogue import syntax as codes
from nasdsl.syntax import error_messages as messages
from nasdsl.syntax.error_messages import Place
from nasdsl.syntax.kept import KeptSyntax
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
from nasdsl.syntax.repaired_tokens import LOOK_BACK, RepairedTokens, Stack
from nasdsl.syntax.tables import Tables, TreeParser

_STARTERS = set(WORDS.values()) - {"FROM", "DANGLING", "INTO", "IN", "AT", "DISTINCT"} | {"RBRACE", "$END"}
"""Tokens that begin a statement or end a body."""

_LOOK_AHEAD = 32  # tokens after an error that a repair is tried on
_MIN_ACCEPTED = 2  # how many of them a repair must let the parser accept
_MIN_ACCEPTED_BEFORE = 5  # the same for a repair before the error
_MAX_ERRORS = 50


def parse_tokens(
    tables: Tables, tokens: list[Tok], unreadable: Sequence[int], problems: list[Diagnostic], kept: KeptSyntax | None = None
) -> tuple[Any, frozenset[str] | None]:
    """Build the tree of a text of the language, or one that tokens can be rewritten into.

    Adds a diagnostic to `problems` for each syntax error. Returns the tree, and the names in the tokens that were skipped; see
    `Parsed.lost`.

    Args:
        tokens: the last of them is ``$END``.
        unreadable: see `unreadable_numbers`.
        kept: as of `TreeParser`.
    """
    parser = TreeParser(tables, kept)
    parser.feed_text(tokens, 0, unreadable[0] if unreadable else len(tokens))
    lost = None if parser.tree is not None else _Recovery(parser, tokens, unreadable, problems).run()
    return parser.tree, lost


def expected_behind(tables: Tables, tokens: list[Tok]) -> set[str]:
    """The terminals that may stand behind tokens, the last of which is ``$END``: behind the beginning of a text."""
    parser, unreadable = TreeParser(tables), unreadable_numbers(tokens)
    parser.feed(tokens, 0, unreadable[0] if unreadable else len(tokens) - 1)
    recovery = _Recovery(parser, tokens, unreadable, [])
    recovery.run(until_end=True)
    return recovery.expected(recovery.end)


def unreadable_numbers(tokens: Sequence[Tok]) -> list[int]:
    """Indices of the numbers that the scanner has reported, so that no tree can be made of them."""
    return [at for at, token in enumerate(tokens) if token.type == "NUMBER" and not token.value]


class _Recovery(RepairedTokens):
    """The state of one recovery, which begins where the parser has met the first error.

    Attributes:
        problems: where the findings go.
        lost: see `Parsed.lost`.
        end: the parser's stack in front of ``$END``, as the text has it.
    """

    def __init__(self, parser: TreeParser, stream: list[Tok], unreadable: Sequence[int], problems: list[Diagnostic]) -> None:
        super().__init__(parser, stream, unreadable)
        self.problems = problems
        self.lost: set[str] | None = None
        self.made_up_names = 0
        self.end = self.first

    def run(self, *, until_end: bool = False) -> frozenset[str] | None:
        """Rewrite the rest of the stream, and let the parser read it. Returns `Parsed.lost`.

        Args:
            until_end: whether to stop in front of ``$END``, without what a text that ends too early lacks.
        """
        stream, errors, skipped_at, ended = self.stream, 0, -1, False
        stack, position = self.settle(self.first, 0, self.parser.read)
        while True:
            token = stream[position]
            if token.type == "NUMBER" and not token.value:
                stack = self._bad_number(stack, token, position)
                position += 1
                continue
            if token.type == "$END" and not ended:
                self.end, ended = stack, True
                if until_end:
                    return None
            after = self.step(stack, token.type, len(self.out))
            if after is not None:
                if token.type == "$END":
                    self.out.append(token)
                    self.catch_up()
                    return None if self.lost is None else frozenset(self.lost)
                self.append(token, stack, position)
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
                    self.problems.append(messages.unrepaired(token, self.expected(stack), stream[:position]))
                    stack, position = self._skip(stack, position, None, moved=position > skipped_at)
                    skipped_at = position
            stack, position = self.advance(stack, position)

    # ---------------------------------------------------------------------------------------------- repairs

    def _best_repair(self, stack: Stack, position: int) -> Repair | None:
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

    def _repairs(self, stack: Stack, position: int) -> Iterator[Repair]:
        """All candidates, from the error backwards."""
        stream = self.stream
        back = 0
        while True:
            at = position - back
            token, cost = stream[at], 0.05 * back
            expected = self.expected(stack)
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
            if back > LOOK_BACK or index < 0 or self.origin[index] != position - back:
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

    def _accepted(self, stack: Stack, repair: Repair, position: int) -> int:
        """How many tokens from the error on the parser accepts after a repair; -1 if not even the repair."""
        if repair.at < position:
            stack = self.before[len(self.out) - (position - repair.at)]
        at: Stack | None = stack
        for kind in terminals(repair.kind):
            assert at is not None
            at = self.step(at, kind, 0)
            if at is None:
                return -1
        ahead = repair.at + repair.in_place
        limit = min(position + _LOOK_AHEAD, len(self.stream))
        while ahead < limit:
            assert at is not None
            at = self.step(at, self.stream[ahead].type, 0)
            if at is None:
                return ahead - position
            ahead += 1
        return _LOOK_AHEAD

    def _apply(self, stack: Stack, repair: Repair, position: int) -> tuple[Stack, int]:
        """Go back to a repair and make it. Returns the stack and the position after it."""
        keep = len(self.out) - (position - repair.at)
        if repair.at < position:
            stack = self.before[keep]
            self.cut(keep)
        token, kinds = self.stream[repair.at], terminals(repair.kind)
        place = Place(token, self.stream[repair.at - 1] if repair.at else None, set(), None)
        for kind in kinds:
            if repair.in_place:
                value = replacement(token, kind) if len(kinds) == 1 else ""
                made = Tok(kind, value, token.first, token.last, token.anchor)
            else:
                made = self._make(kind, place, in_hole=repair.kind != "NAME")
            stack = self.push(stack, made)
        return stack, repair.at + repair.in_place

    def _make(self, kind: str, place: Place, in_hole: bool) -> Tok:
        """A token that the text lacks. A made-up name that is not that of a hole is one that no text can contain."""
        value = {"NUMBER": "1", "STRING": f'"{UNREADABLE}"'}.get(kind) or SIGNS.get(kind, "")
        if kind == "NAME" and not in_hole:
            self.made_up_names += 1
            value = f" {self.made_up_names}"
            self.lost = (self.lost or set()) | {value}
        gap = place.gap
        return Tok(kind, value, gap.first, gap.last, gap.anchor)

    def _bad_number(self, stack: Stack, token: Tok, position: int) -> Stack:
        """Replace a number that the scanner has reported by a hole, if one may stand there: then nothing else is reported."""
        if self.step(stack, "QMARK", 0) is None:
            token = Tok("NUMBER", "1", token.first, token.last, token.anchor)
            self.stream[position] = token
            if self.step(stack, "NUMBER", len(self.out)) is None:  # misplaced as well, which needs no second diagnostic
                return stack
            return self.push(stack, token)
        for kind in terminals("QMARK"):
            stack = self.push(stack, Tok(kind, "", token.first, token.last, token.anchor))
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

    def _without_call(self, position: int, end: int) -> tuple[Stack, int]:
        """Report such a call, and put a hole in its place. Returns the stack and the position after it."""
        name = self.stream[position - 1]
        span = name.span.head(self.stream[end - 1].end - name.start)
        self.problems.append(messages.call_as_attribute(span, name.value))
        stack = self.before[-1]
        self.cut(len(self.out) - 1)
        for kind in terminals("QMARK"):
            stack = self.push(stack, Tok(kind, "", span.first, span.last, span.anchor))
        return stack, end

    # -------------------------------------------------------------------------------------------- panic mode

    def _skip(self, stack: Stack, position: int, to: int | None, moved: bool = True) -> tuple[Stack, int]:
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
        self.cut(start)
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

    def _unwound(self, stack: Stack, kind: str, complete: bool) -> Stack | None:
        """The highest part of the stack on which a statement that begins with `kind` can stand.

        If `complete`, what was read of the current statement is kept where it can be a whole one; else it is dropped.
        """
        at: Stack | None = stack
        while at is not None:
            in_body = kind != "NAME" or self.step(at, "OUTPUT", 0) is not None  # only statements of an fpn begin with a name
            fits = self.step(at, kind, 0) is not None
            if in_body and fits and (complete or kind == "$END" or isinstance(self.rows[at.state][kind], int)):
                return at
            at = at.below
        return None

    def _start_above(self, stack: Stack, part: Stack) -> int:
        """Index in the rewritten stream at which the first symbol above `part` begins."""
        start = len(self.out)
        at = stack
        while at is not part:
            start = at.start
            assert at.below is not None
            at = at.below
        return start

    # ------------------------------------------------------------------------------------------- the early end

    def _complete(self, stack: Stack) -> Stack:
        """Insert what a text that ends too early lacks; that it does is already reported."""
        end = Place(self.stream[-1], self.stream[-2] if len(self.stream) > 1 else None, set(), None)
        for _ in range(4 * len(self.out) + 8):
            if self.step(stack, "$END", 0) is not None:
                return stack
            bracket = self._open_bracket(len(self.out))
            closing = [CLOSER[bracket.type]] if bracket is not None else []
            # A bracket may open wherever a value is expected, and then again: it comes after all values.
            wanted = [*closing, *(k for k in INSERTIONS if k not in ("VALUE", "IN", "LPAR")), "NUMBER", "STRING", "IN", "LPAR"]
            kind = next((k for k in wanted if self.step(stack, k, 0) is not None), None)
            if kind is None or kind == "COMMA":
                break
            for terminal in terminals(kind):
                stack = self.push(stack, self._make(terminal, end, in_hole=kind != "NAME"))
        return self._skip(stack, len(self.stream) - 1, len(self.stream) - 1)[0]

    # -------------------------------------------------------------------------------------------------- places

    def _place(self, stack: Stack, position: int, at: int | None = None) -> Place:
        """The place of token `at` (by default that of the error), which is not after `position`."""
        at = position if at is None else at
        keep = len(self.out) - (position - at)
        expected = self.expected(self.before[keep] if at < position else stack)
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
