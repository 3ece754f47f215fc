"""LALR(1) tables, and the parser that runs them, which is three times as fast as lark's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeAlias, TypeGuard

from nasdsl.syntax.kept import KeptSyntax, Piece
from nasdsl.syntax.lexer import Tok


class Reduce(NamedTuple):
    """Replace the topmost `size` symbols of the stack by one, an `origin`.

    `build` makes its node from theirs; None if `size` is 1 and the node stays. `is_piece`: whether it is one that is kept
    (`kept.PIECES`).
    """

    size: int
    origin: str
    build: Callable[[list[Any]], Any] | None
    is_piece: bool = False


Row: TypeAlias = "dict[str, int | Reduce]"


def _keeps_node(action: int | Reduce | None) -> TypeGuard[Reduce]:
    return isinstance(action, Reduce) and action.size == 1 and action.build is None


class _UnitReductions(dict[int, int]):
    """A run of reductions of one symbol that keep its node, as of ``?term: factor``: for the state below it, the state behind.

    They are a third of the reductions of a text; each run is followed once.

    Args:
        kind: the token in front of which they are.
        first: the first of them.
    """

    def __init__(self, rows: dict[int, Row], kind: str, first: Reduce) -> None:
        super().__init__()
        self.rows, self.kind, self.first = rows, kind, first

    def __missing__(self, below: int) -> int:
        state: Any = None  # `first` keeps its node: there is one turn at least
        action: int | Reduce | None = self.first
        while _keeps_node(action):
            state = self.rows[below][action.origin]  # a state: no row has a reduction for what is no terminal
            action = self.rows[state].get(self.kind)
        self[below] = state
        return int(state)


@dataclass(frozen=True)
class Tables:
    """LALR(1) tables.

    Attributes:
        rows: for each state and symbol the next state, or a reduction.
        first: the state to begin in.
        last: the state after the whole text.
    """

    rows: dict[int, Row]
    first: int
    last: int

    @cached_property
    def quick_rows(self) -> dict[int, dict[str, Any]]:
        """The rows with runs of reductions in the place of their first ones."""
        return {
            state: {
                kind: _UnitReductions(self.rows, kind, action) if _keeps_node(action) else action
                for kind, action in row.items()
            }
            for state, row in self.rows.items()
        }


_MARK_EVERY: Final = 64
"""Tokens after which the stack is kept."""


class _Mark(NamedTuple):
    """The stack of a parser in front of a token.

    Attributes:
        read, states, starts, values: as of `TreeParser`.
        lengths: of those values that are lists, which are unfinished and have grown since.
    """

    read: int
    states: list[int]
    starts: list[int]
    values: list[Any]
    lengths: list[int]


class TreeParser:
    """A parser that builds the tree as it reads, and can go back to an earlier token.

    Args:
        kept: nodes of an earlier version of the text, which it puts in the place of their tokens; those it makes are added.

    Attributes:
        read: number of tokens that are read.
        states: states on the stack, the first of them in front of all tokens.
        starts: of each state the token that its symbol begins with.
        values: of each symbol on the stack its token, its node, or for one that is not finished the list of its parts.
        tree: the tree, as soon as ``$END`` is read.
    """

    def __init__(self, tables: Tables, kept: KeptSyntax | None = None) -> None:
        self.tables = tables
        self.kept = kept
        self.read = 0
        self.states: list[int] = [tables.first]
        self.starts: list[int] = [0]
        self.values: list[Any] = []
        self.tree: Any = None
        self._marks = [self._mark()]
        self._made: list[tuple[str, Any, int, int]] | None = None  # pieces: rule, node, first token, token behind

    def feed_text(self, tokens: Sequence[Tok], begin: int, end: int) -> int:
        """As `feed`, where these are tokens of the text as it is, in which nodes are kept."""
        kept = self.kept
        if kept is None:
            return self.feed(tokens, begin, end)
        since, moved = self.read, begin - self.read
        at = begin
        self._made = []
        while at < end:
            piece = kept.piece(tokens, at, end)
            if piece is not None:
                read = self._push(tokens[at], piece)
                if not read:
                    break
                at += read
                continue
            stop = at + 1
            while stop < end and not kept.begins_piece(tokens[stop]):
                stop += 1
            at = self.feed(tokens, at, stop)
            if at < stop:
                break
        for rule, node, first, behind in self._made:
            if first >= since:
                kept.keep(tokens, first + moved, behind + moved, rule, node)
        self._made = None
        return at

    def _push(self, token: Tok, piece: Piece) -> int:
        """Read a token, or the whole node that begins with it where that fits. Returns the number of tokens read."""
        if self.read - self._marks[-1].read >= _MARK_EVERY:
            self._marks.append(self._mark())
        before = self.read
        self._feed((token,))
        if self.read == before:
            return 0
        rows, states = self.tables.rows, self.states
        after = rows[states[-2]].get(piece.rule)
        if not isinstance(after, int) or piece.behind not in rows[after]:
            return 1
        states[-1], self.values[-1] = after, piece.node
        self.read += piece.size - 1
        return piece.size

    def feed(self, tokens: Sequence[Tok], begin: int, end: int) -> int:
        """Read ``tokens[begin:end]``, as far as they fit. Returns the index of the first that does not; `end` if all do."""
        for first in range(begin, end, _MARK_EVERY):
            if self.read - self._marks[-1].read >= _MARK_EVERY:
                self._marks.append(self._mark())
            before = self.read
            chunk = tokens[first : min(first + _MARK_EVERY, end)]
            self._feed(chunk)
            if self.read - before < len(chunk):
                return first + self.read - before
        return end

    def _feed(self, tokens: Sequence[Tok]) -> None:
        rows, states, starts, values = self.tables.quick_rows, self.states, self.starts, self.values
        push_state, push_start, push_value = states.append, starts.append, values.append
        for number, token in enumerate(tokens, self.read):
            kind = token.type
            action = rows[states[-1]].get(kind)
            while action.__class__ is not int:
                if action is None:
                    self.read = number
                    if kind == "$END" and states[-1] == self.tables.last:
                        self.read, self.tree = number + 1, values[-1]
                    return
                if action.__class__ is _UnitReductions:
                    states[-1] = action[states[-2]]
                    action = rows[states[-1]].get(kind)
                    continue
                size, origin, build, is_piece = action
                if size == 1:
                    if build is not None:
                        values[-1] = build([values[-1]])
                    states[-1] = rows[states[-2]][origin]
                elif size:
                    children = values[-size:]
                    del values[1 - size :], states[1 - size :], starts[1 - size :]
                    values[-1] = build(children)
                    if is_piece and self._made is not None:
                        self._made.append((origin, values[-1], starts[-1], number))
                    states[-1] = rows[states[-2]][origin]
                else:
                    assert build is not None
                    push_value(build([]))
                    push_state(rows[states[-1]][origin])
                    push_start(number)
                action = rows[states[-1]].get(kind)
            push_state(action)
            push_start(number)
            push_value(token)
        self.read += len(tokens)

    def _mark(self) -> _Mark:
        lengths = [len(value) for value in self.values if value.__class__ is list]
        return _Mark(self.read, self.states.copy(), self.starts.copy(), self.values.copy(), lengths)

    def go_back(self, read: int) -> None:
        """Return to where at most so many tokens were read, and fewer by at most twice `_MARK_EVERY`."""
        if self.read <= read:
            return
        while len(self._marks) > 1 and self._marks[-1].read > read:
            self._marks.pop()
        mark = self._marks[-1]
        self.read, self.tree = mark.read, None
        self.states[:], self.starts[:], self.values[:] = mark.states, mark.starts, mark.values
        lists = [value for value in self.values if value.__class__ is list]
        for value, length in zip(lists, mark.lengths, strict=True):
            del value[length:]
