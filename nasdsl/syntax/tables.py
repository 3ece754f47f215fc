"""The parser's tables, and the loop that runs them: lark computes the tables, and its own loop takes three times as long."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

from nasdsl.syntax.lexer import Tok

_P = ParamSpec("_P")
_R = TypeVar("_R")


def without_collector(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Decorator: pause the cycle collector. Trees hold no cycles, and it would take more than half of the time for them."""

    @wraps(function)
    def paused(*arguments: _P.args, **named: _P.kwargs) -> _R:
        if not gc.isenabled():
            return function(*arguments, **named)
        gc.disable()
        try:
            return function(*arguments, **named)
        finally:
            gc.enable()

    return paused


class Reduce(NamedTuple):
    """Take `size` symbols off the stack, make one node of them, and go on as after an `origin`.

    `build` is None for one symbol that is the node already.
    """

    size: int
    origin: str
    build: Callable[[list[Any]], Any] | None


Row: TypeAlias = "dict[str, int | Reduce]"


@dataclass(frozen=True, slots=True)
class Tables:
    """LALR(1) tables.

    Attributes:
        rows: for each state and symbol the state to go to, or what to reduce.
        first, last: the state to begin in, and the one in which all is read.
    """

    rows: dict[int, Row]
    first: int
    last: int

    def run(self, tokens: Iterable[Tok]) -> Any:
        """The tree of a text, whose last token is ``$END``; None where a token does not fit."""
        rows, last = self.rows, self.last
        states: list[int] = [self.first]
        values: list[Any] = []
        push_state, push_value = states.append, values.append
        for token in tokens:
            kind = token.type
            while True:
                action = rows[states[-1]].get(kind)
                if action.__class__ is int:
                    push_state(action)
                    push_value(token)
                    break
                if action is None:
                    return None
                size, origin, build = action  # type: ignore[misc]
                if build is None:
                    states[-1] = rows[states[-2]][origin]  # type: ignore[assignment]
                    continue
                children = values[-size:] if size else []
                if size:
                    del values[-size:], states[-size:]
                push_value(build(children))
                push_state(rows[states[-1]][origin])  # type: ignore[arg-type]
                if kind == "$END" and states[-1] == last:
                    return values[-1]
        return None
