"""Expressions of a grammar, over terminals and over characters, and constructors that simplify them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Terminal:
    """A token, by the name of its terminal in ``grammars/nas.lark``."""

    name: str


@dataclass(frozen=True, slots=True)
class Literal:
    """These characters."""

    text: str


@dataclass(frozen=True, slots=True)
class Gap:
    """White space and comments between two tokens; `is_needed` where the tokens would be one without it."""

    is_needed: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A reference to a rule."""

    name: str


@dataclass(frozen=True, slots=True)
class Sequence:
    parts: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    alternatives: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Optional:
    part: Expression


@dataclass(frozen=True, slots=True)
class Repeat:
    """`part` as often as one likes, at least `least` times, which is 0 or 1."""

    part: Expression
    least: int = 0


Expression: TypeAlias = Terminal | Literal | Gap | Rule | Sequence | Choice | Optional | Repeat

EMPTY = Sequence(())


def sequence(parts: Iterable[Expression]) -> Expression:
    """One after the other; a sequence among them is taken apart."""
    flat: list[Expression] = []
    for part in parts:
        if isinstance(part, Sequence):
            flat += part.parts
        else:
            flat.append(part)
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def choice(alternatives: Iterable[Expression]) -> Expression:
    """One of them, each once; `EMPTY` among them makes the others optional."""
    flat: dict[Expression, None] = {}
    for alternative in alternatives:
        flat.update(dict.fromkeys(alternative.alternatives if isinstance(alternative, Choice) else (alternative,)))
    is_optional = EMPTY in flat
    flat.pop(EMPTY, None)
    if not flat:
        return EMPTY
    made: Expression = next(iter(flat)) if len(flat) == 1 else Choice(tuple(flat))
    return optional(made) if is_optional else made


def optional(part: Expression) -> Expression:
    """A part or nothing: ``(a a*)?`` is ``a*``."""
    if isinstance(part, Optional) or part == EMPTY:
        return part
    if isinstance(part, Sequence) and isinstance(part.parts[-1], Repeat) and not part.parts[-1].least:
        repeated = part.parts[-1]
        if sequence(part.parts[:-1]) == repeated.part:
            return repeated
    return Optional(part)
