"""Regular expressions of the lexer as trees, and as the classes and repetitions that grammars of characters have.

The subset: characters, escapes, classes, groups without a number, ``|``, ``?``, ``*``, ``+`` (possessive ones too, which match
the same texts where nothing behind them could), and ``(?!…)`` at the end. Anything else is an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from nasdsl.grammar_export.ebnf import GrammarError

Range: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Characters:
    """One character of these ranges, both ends included, or with `is_negated` one of no range."""

    ranges: tuple[Range, ...]
    is_negated: bool = False

    @property
    def single(self) -> str | None:
        """The character, if there is just one."""
        (first, last), *others = self.ranges
        return None if others or first != last or self.is_negated else chr(first)

    def without(self, characters: str) -> Characters:
        """These but for some single characters. A class that is negated takes them among what it leaves out."""
        removed = {(ord(c), ord(c)) for c in characters}
        if self.is_negated:
            return Characters((*self.ranges, *sorted(removed)), True)
        left: list[Range] = []
        for first, last in self.ranges:
            for code in sorted(code for code, _ in removed if first <= code <= last):
                left += [(first, code - 1)] if first < code else []
                first = code + 1
            left += [(first, last)] if first <= last else []
        return Characters(tuple(left))


@dataclass(frozen=True, slots=True)
class Concatenation:
    parts: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    parts: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class Repetition:
    """`sign` is ``?``, ``*`` or ``+``."""

    part: Pattern
    sign: str


@dataclass(frozen=True, slots=True)
class NotFollowedBy:
    """A negative lookahead, which takes no characters."""

    part: Pattern


Pattern: TypeAlias = Characters | Concatenation | Alternation | Repetition | NotFollowedBy

_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}


def parse_pattern(text: str) -> Pattern:
    """The tree of a regular expression.

    Raises:
        GrammarError: it has something that is not in the subset.
    """
    return _Parser(text).parse()


def without_lookahead(pattern: Pattern) -> Pattern:
    """The pattern without a lookahead at its end, which a grammar says by what may follow.

    Raises:
        GrammarError: there is one at another place.
    """
    if isinstance(pattern, Concatenation) and any(isinstance(part, NotFollowedBy) for part in pattern.parts):
        parts = list(pattern.parts)
        while isinstance(parts[-1], NotFollowedBy):
            parts.pop()
        pattern = parts[0] if len(parts) == 1 else Concatenation(tuple(parts))
    if any(isinstance(part, NotFollowedBy) for part in _all_parts(pattern)):
        raise GrammarError("a lookahead that is not at the end of a pattern")
    return pattern


def lookaheads(pattern: Pattern) -> tuple[NotFollowedBy, ...]:
    """The lookaheads at the end of a pattern."""
    return tuple(p for p in pattern.parts if isinstance(p, NotFollowedBy)) if isinstance(pattern, Concatenation) else ()


def has_false_start(pattern: Pattern) -> bool:
    """Whether a match may be followed by the beginning of a longer one that comes to nothing: ``1.`` of ``1`` and ``1.5``.

    A scanner without backtracking, which takes the longest match, fails on ``1..7`` there. It does not where the parts of the
    pattern are scanned one by one.
    """
    return isinstance(pattern, Concatenation) and any(
        isinstance(part, Repetition) and part.sign == "?" and not isinstance(part.part, Characters) for part in pattern.parts
    )


def _all_parts(pattern: Pattern) -> Iterator[Pattern]:
    yield pattern
    if isinstance(pattern, Concatenation | Alternation):
        for part in pattern.parts:
            yield from _all_parts(part)
    elif isinstance(pattern, Repetition | NotFollowedBy):
        yield from _all_parts(pattern.part)


# ----------------------------------------------------------------------------------------- trees as text


def write_pattern(pattern: Pattern) -> str:
    """A tree as a regular expression, which Python and Rust read alike but for lookaheads, which Rust lacks."""
    if isinstance(pattern, Characters):
        return write_characters(pattern)
    if isinstance(pattern, Concatenation):
        return "".join(f"(?:{write_pattern(p)})" if isinstance(p, Alternation) else write_pattern(p) for p in pattern.parts)
    if isinstance(pattern, Alternation):
        return "|".join(write_pattern(part) for part in pattern.parts)
    if isinstance(pattern, NotFollowedBy):
        return f"(?!{write_pattern(pattern.part)})"
    inner = write_pattern(pattern.part)
    return f"{inner if isinstance(pattern.part, Characters) else f'(?:{inner})'}{pattern.sign}"


def write_characters(characters: Characters) -> str:
    """A class as a regular expression, a single character as itself; GBNF reads classes in brackets alike."""
    single = characters.single
    return bracketed(characters) if single is None else escape(single, r"\.^$*+?{}[]|()/-")


def bracketed(characters: Characters) -> str:
    """A class in brackets: ``[A-Za-z_]``, ``[^\\n]``."""
    inside = "".join(
        escape(chr(first), r"\]^-[") + ("" if first == last else "-" + escape(chr(last), r"\]^-["))
        for first, last in characters.ranges
    )
    return f"[{'^' if characters.is_negated else ''}{inside}]"


def escape(character: str, signs: str) -> str:
    for name, meant in _ESCAPES.items():
        if character == meant:
            return f"\\{name}"
    if character in signs:
        return f"\\{character}"
    if ord(character) > 0xFF:
        raise GrammarError(f"the character {character!r}, which the formats write differently")
    return character if " " <= character <= "~" else f"\\x{ord(character):02X}"


# ----------------------------------------------------------------------------------------- text as trees


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def parse(self) -> Pattern:
        found = self._alternation()
        if self.at < len(self.text):
            raise self._error("a `)` without its bracket")
        return found

    def _error(self, what: str) -> GrammarError:
        return GrammarError(f"the pattern {self.text} has {what} at character {self.at}: no grammar is made of it")

    def _looking_at(self, *starts: str) -> bool:
        return self.text.startswith(starts, self.at)

    def _alternation(self) -> Pattern:
        parts = [self._concatenation()]
        while self._looking_at("|"):
            self.at += 1
            parts.append(self._concatenation())
        return parts[0] if len(parts) == 1 else Alternation(tuple(parts))

    def _concatenation(self) -> Pattern:
        parts: list[Pattern] = []
        while self.at < len(self.text) and not self._looking_at("|", ")"):
            part = self._atom()
            if self._looking_at("?", "*", "+"):
                sign = self.text[self.at]
                self.at += 1
                if self._looking_at("?"):
                    raise self._error("a lazy repetition")
                if self._looking_at("+"):
                    self.at += 1
                part = Repetition(part, sign)
            parts.append(part)
        return parts[0] if len(parts) == 1 else Concatenation(tuple(parts))

    def _atom(self) -> Pattern:
        if self._looking_at("(?:", "(?!"):
            is_ahead = self.text[self.at + 2] == "!"
            self.at += 3
            inner = self._alternation()
            if not self._looking_at(")"):
                raise self._error("a bracket that is not closed")
            self.at += 1
            return NotFollowedBy(inner) if is_ahead else inner
        if self._looking_at("["):
            return self._class()
        if self._looking_at("(", "{", "^", "$", "."):
            raise self._error(f"`{self.text[self.at : self.at + 3]}`")
        code = self._character(inside=False)
        return Characters(((code, code),))

    def _class(self) -> Characters:
        self.at += 1
        is_negated = self._looking_at("^")
        self.at += is_negated
        ranges: list[Range] = []
        while not self._looking_at("]"):
            if self.at >= len(self.text):
                raise self._error("a class that is not closed")
            first = last = self._character(inside=True)
            if self._looking_at("-") and not self.text.startswith("-]", self.at):
                self.at += 1
                last = self._character(inside=True)
            ranges.append((first, last))
        self.at += 1
        return Characters(tuple(ranges), is_negated)

    def _character(self, *, inside: bool) -> int:
        character = self.text[self.at]
        self.at += 1
        if character != "\\":
            return ord(character)
        character = self.text[self.at : self.at + 1]
        self.at += 1
        if character == "x":
            digits = self.text[self.at : self.at + 2]
            self.at += 2
            return int(digits, 16)
        if character in _ESCAPES:
            return ord(_ESCAPES[character])
        if not character or character.isalnum():
            self.at -= 2
            raise self._error(f"the escape `\\{character}`")
        return ord(character)
