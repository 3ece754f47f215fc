"""The tokens of a text as error recovery rewrites them, and the parser that reads them.

Where repairs are tried, the parser's stack is kept in front of each token, without a tree. The rest of a text is read once, by
the parser that builds the tree: it goes back a little where a repair is made, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from nasdsl.syntax.lexer import Tok
from nasdsl.syntax.tables import Reduce, TreeParser

LOOK_BACK: Final = 12
"""Tokens before an error where a repair is tried."""


class Stack(NamedTuple):
    """The parser's stack as a linked list, so that keeping one for every token costs nothing.

    Attributes:
        start: index in the rewritten stream at which this symbol begins.
    """

    state: int
    start: int
    below: Stack | None


class RepairedTokens:
    """The rewritten tokens of a text so far.

    Attributes:
        parser: builds the tree of the rewritten stream.
        agreed: number of tokens of `out` that the parser may have read.
        stream: the tokens of the text.
        unreadable: indices of those that the scanner has reported, of which no tree can be made.
        out: the rewritten stream so far.
        before: for each token of `out`, the parser's stack in front of it.
        origin: for each token of `out`, its index in `stream`; -1 for a token that a repair made.
    """

    def __init__(self, parser: TreeParser, stream: list[Tok], unreadable: Sequence[int]) -> None:
        self.parser = parser
        self.agreed = 0
        self.rows = parser.tables.rows
        self.last = parser.tables.last
        self.first = Stack(parser.tables.first, 0, None)
        self.stream = stream
        self.unreadable = unreadable
        self.out: list[Tok] = []
        self.before: list[Stack] = []
        self.origin: list[int] = []

    def step(self, stack: Stack, kind: str, start: int) -> Stack | None:
        """The stack after one more token; None if it does not fit."""
        rows = self.rows
        while True:
            action = rows[stack.state].get(kind)
            if action is None:
                return None
            if isinstance(action, int):
                return Stack(action, start, stack)
            stack = self.reduced(stack, action, start)
            if kind == "$END" and stack.state == self.last:
                return stack

    def reduced(self, stack: Stack, reduction: Reduce, start: int) -> Stack:
        """The stack after a reduction; `start`: where what is reduced begins if it is empty."""
        for _ in range(reduction.size):
            start = stack.start
            assert stack.below is not None
            stack = stack.below
        state = self.rows[stack.state][reduction.origin]
        assert isinstance(state, int)
        return Stack(state, start, stack)

    def advance(self, stack: Stack, position: int) -> tuple[Stack, int]:
        """Read on until shortly before the next error, without a stack for each token: repairs look at none of these.

        Returns the stack and the position after them.
        """
        self.catch_up()
        end = next((at for at in self.unreadable if at >= position), len(self.stream) - 1)
        return self.settle(stack, position, self.parser.feed_text(self.stream, position, end))

    def catch_up(self) -> None:
        """Let the parser read the rewritten stream so far."""
        self.parser.go_back(self.agreed)
        self.parser.feed(self.out, self.parser.read, len(self.out))

    def settle(self, stack: Stack, position: int, error: int) -> tuple[Stack, int]:
        """Where to go on by single steps: from `position`, or later, as far as repairs do not look back from the next error.

        Args:
            error: index of the token that the parser has read on to from `position`.
        """
        parser, done = self.parser, len(self.out)
        self.agreed = done
        if error - position <= LOOK_BACK + 1:
            return stack, position
        parser.go_back(done + error - position - LOOK_BACK - 1)
        if parser.read <= done:
            return stack, position
        stop = position + parser.read - done
        made: Stack | None = None
        for state, start in zip(parser.states, parser.starts, strict=True):
            made = Stack(state, start, made)
        assert made is not None
        self.out += self.stream[position:stop]
        self.before += [self.first] * (stop - position)  # never looked at
        self.origin += range(position, stop)
        self.agreed = len(self.out)
        return made, stop

    def cut(self, keep: int) -> None:
        """Drop the rewritten stream from here on."""
        del self.out[keep:], self.before[keep:], self.origin[keep:]
        self.agreed = min(self.agreed, keep)

    def expected(self, stack: Stack) -> set[str]:
        """The terminals that fit on a stack."""
        return self._fitting(stack, [k for k in self.rows[stack.state] if k.isupper() or k == "$END"])

    def _fitting(self, stack: Stack, kinds: Iterable[str]) -> set[str]:
        """Those of some terminals that fit on a stack. What several of them reduce alike is reduced once."""
        row = self.rows[stack.state]
        found: set[str] = set()
        reductions: dict[Reduce, list[str]] = {}
        for kind in kinds:
            action = row.get(kind)
            if isinstance(action, Reduce):
                reductions.setdefault(action, []).append(kind)
            elif action is not None:
                found.add(kind)
        for reduction, same in reductions.items():
            after = self.reduced(stack, reduction, 0)
            found |= self._fitting(after, same)
            if after.state == self.last and "$END" in same:
                found.add("$END")
        return found

    def append(self, token: Tok, stack: Stack, position: int) -> None:
        self.out.append(token)
        self.before.append(stack)
        self.origin.append(position)

    def push(self, stack: Stack, token: Tok) -> Stack:
        """Append a token that a repair made, and return the stack after it."""
        after = self.step(stack, token.type, len(self.out))
        assert after is not None
        self.append(token, stack, -1)
        return after
