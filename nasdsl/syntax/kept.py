"""What is kept of one version of a text for the next: tokens by lines, and the nodes of its statements and definitions.

An editor sends a text again and again, and little of it changes. The lines at the beginning and at the end that are the same as
before keep their tokens, and a statement whose tokens are all kept keeps its node: the parser puts it on its stack as a whole
(Ghezzi and Mandrioli, "Incremental parsing", 1979). The offsets of tokens and nodes count from their line, so nothing but the
lines has to be moved. The tree, its spans and the findings are those of a parser that starts anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from nasdsl.diagnostics import Diagnostic, Moving, Source
from nasdsl.syntax.lexer import BEFORE_ANY_WORD, MAX_NESTING, WORD_FOLLOWED_BY, Reached, Tok, scan_part

PIECES: Final = frozenset("use op_def choice block_def input detector require predict assign output merge let shared".split())
"""Rules of the grammar whose nodes are kept. Those that are left out hold others of them, and may be long."""

_OPENING: Final = frozenset(("LPAR", "LBRACE", "LSQB"))
_OPERATORS: Final = frozenset(("PLUS", "MINUS", "STAR", "SLASH"))
_ENDS_VALUE: Final = frozenset(("LBRACE", "RBRACE", "COMMA", "EQUAL", "SEMI", "ARROW", "BAR"))


class Piece(NamedTuple):
    """A node of the tree, and the tokens that it was made of.

    Attributes:
        rule: of the grammar.
        last: the last of the tokens.
        size: number of the tokens.
        lines: all those from its first token to its last, also those without tokens.
        behind: the terminal of the token behind them, which the parser has looked at.
    """

    rule: str
    node: Any
    last: Tok
    size: int
    lines: list[Line]
    behind: str


class Line(Moving):
    """A line of a text, with its tokens.

    Attributes:
        text: the line, without its end.
        tokens: their offsets count from the line.
        number: of the line in the text, from 0.
        entered, left: what is reached at its beginning and at its end.
        opening, operators: how many brackets it opens, and how many operators it has.
        ends_value: whether the count of operators begins anew in it.
        has_words: whether it has words that are words of the language only in their place.
        is_kept: whether its tokens can be kept at all.
    """

    __slots__ = ("ends_value", "entered", "has_words", "is_kept", "left", "number", "opening", "operators", "text", "tokens")

    def __init__(self, source: Source, offset: int, text: str, entered: Reached, problems: list[Diagnostic]) -> None:
        super().__init__(source, offset)
        self.text = text
        self.entered = entered
        self.number = 0
        self.tokens: list[Tok] = []
        before = len(problems)
        scanned = scan_part(self, 0, len(text), entered, problems)
        while True:
            try:
                self.tokens.append(next(scanned))
            except StopIteration as end:
                self.left: Reached = end.value
                break
        kinds = [token.type for token in self.tokens]
        self.opening = sum(kind in _OPENING for kind in kinds)
        self.operators = sum(kind in _OPERATORS for kind in kinds)
        self.ends_value = not _ENDS_VALUE.isdisjoint(kinds)
        words = [token.value in WORD_FOLLOWED_BY for token in self.tokens]
        self.has_words = any(words)
        self.is_kept = len(problems) == before and not (words and words[-1])  # what such a word is, the next line says

    def fits(self, entered: Reached) -> bool:
        """Whether it has the same tokens where this is reached at its beginning."""
        own = self.entered
        if own is entered or own == entered:
            return self.is_kept
        if not self.is_kept or (own.before in BEFORE_ANY_WORD) != (entered.before in BEFORE_ANY_WORD):
            return False
        if self.has_words and (own.before, own.depth) != (entered.before, entered.depth):
            return False
        return entered.depth + self.opening <= MAX_NESTING and entered.operators + self.operators <= MAX_NESTING

    def enter(self, entered: Reached) -> Reached:
        """What is reached at its end, from what is reached at its beginning, which it `fits`."""
        own = self.entered
        if own is not entered and own != entered:
            operators = self.left.operators if self.ends_value else entered.operators + self.operators
            depth = self.left.depth - own.depth + entered.depth
            self.entered = entered
            self.left = Reached(depth, operators, self.left.before if self.tokens else entered.before)
        return self.left


class KeptSyntax:
    """What is kept of a text; each version of it is given to `parser.parse` with this.

    Spans of earlier versions are those of the latest one.

    Attributes:
        lines: those of the latest version.
    """

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._pieces: dict[Tok, Piece] = {}

    def forget(self) -> None:
        """Keep nothing."""
        self.lines.clear()
        self._pieces.clear()

    def tokens(self, source: Source) -> list[Tok] | None:
        """The tokens of a text, if it is the latest version."""
        if not self.lines or self.lines[0].source is not source:
            return None
        return [token for line in self.lines for token in line.tokens]

    def scan(self, source: Source, problems: list[Diagnostic]) -> list[Tok]:
        """The tokens of the next version of the text, as of `lexer.scan`."""
        texts, old = source.text.split("\n"), self.lines
        front, back = _in_common(old, texts)
        kept_again, moved = len(texts) - back, len(old) - len(texts)
        lines: list[Line] = []
        tokens: list[Tok] = []
        reached, offset = Reached(), 0
        for number, text in enumerate(texts):
            line = old[number] if number < front else old[number + moved] if number >= kept_again else None
            if line is not None and line.fits(reached):
                line.source, line.offset = source, offset
                reached = line.enter(reached)
            else:
                line = Line(source, offset, text, reached, problems)
                reached = line.left
            line.number = number
            lines.append(line)
            tokens += line.tokens
            offset += len(text) + 1
            if reached.is_end:
                break
        self.lines = lines
        if len(self._pieces) > 2 * len(tokens):  # those of tokens that the text had once
            self._pieces = {token: self._pieces[token] for token in tokens if token in self._pieces}
        return tokens

    def piece(self, tokens: Sequence[Tok], at: int, end: int) -> Piece | None:
        """The node that begins with a token of the text, if all of its lines are kept, and it ends before `end`.

        A version with mistakes may keep no nodes, so this one may be of long ago, and lines may have changed since.
        """
        first = tokens[at]
        piece = self._pieces.get(first)
        if piece is None or at + piece.size >= end:
            return None
        last, behind = tokens[at + piece.size - 1], tokens[at + piece.size]
        if last is not piece.last or behind.type != piece.behind:
            return None
        return piece if self._lines_of(first, last) == piece.lines else None

    def begins_piece(self, token: Tok) -> bool:
        """Whether a node that is kept may begin with a token."""
        return token in self._pieces

    def keep(self, tokens: Sequence[Tok], begin: int, end: int, rule: str, node: Any) -> None:
        """Keep the node that the parser has made of some tokens of the text."""
        first, last = tokens[begin], tokens[end - 1]
        self._pieces[first] = Piece(rule, node, last, end - begin, self._lines_of(first, last), tokens[end].type)

    def _lines_of(self, first: Tok, last: Tok) -> list[Line]:
        """The lines from one token of the text to another."""
        assert isinstance(first.anchor, Line)
        assert isinstance(last.anchor, Line)
        return self.lines[first.anchor.number : last.anchor.number + 1]


def _in_common(old: Sequence[Line], texts: Sequence[str]) -> tuple[int, int]:
    """How many lines at the beginning and at the end of a text are those of the version before it."""
    most = min(len(old), len(texts))
    front = 0
    while front < most and old[front].text == texts[front]:
        front += 1
    back = 0
    while back < most - front and old[-1 - back].text == texts[-1 - back]:
        back += 1
    return front, back
