"""The terminals of the language, taken from the lexer's own tables."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Final

from nasdsl.grammar_export.ebnf import WORD, GrammarError
from nasdsl.grammar_export.patterns import (
    Alternation,
    Characters,
    Concatenation,
    NotFollowedBy,
    Pattern,
    Repetition,
    parse_pattern,
)
from nasdsl.syntax.lexer import GAP, PATTERNS, PUNCTUATION, WORDS

FIXED: Final[Mapping[str, str]] = {terminal: text for text, terminal in {**WORDS, **PUNCTUATION}.items()}
"""Terminals with one text each: words of the language, and signs."""


@cache
def patterns() -> Mapping[str, Pattern]:
    """Terminals with many texts: their patterns, with lookaheads. The words of the language are among those of NAME."""
    found = {name: parse_pattern(text) for name, text in PATTERNS.items()}
    return {**found, WORD: found["NAME"]}


@cache
def gap_pieces() -> tuple[Pattern, ...]:
    """What a gap is made of: white space, and a comment without its line end."""
    gap = parse_pattern(GAP)
    if not isinstance(gap, Repetition) or not isinstance(gap.part, Alternation):
        raise GrammarError(f"the lexer's gap {GAP} is no repetition of alternatives")
    return gap.part.parts


@cache
def name_classes() -> tuple[Characters, Characters]:
    """The first character of a name, and each further one."""
    name = patterns()["NAME"]
    if isinstance(name, Concatenation) and isinstance(name.parts[0], Characters) and isinstance(name.parts[1], Repetition):
        first, repeated = name.parts[0], name.parts[1].part
        if name.parts[1].sign == "*" and isinstance(repeated, Characters) and isinstance(name.parts[2], NotFollowedBy):
            return first, repeated
    raise GrammarError(f"the lexer's pattern of names, {PATTERNS['NAME']}, is not a first character and further ones")


def is_word(terminal: str) -> bool:
    """Whether two tokens, this one and a word, need a gap between them: it is made of the characters of names."""
    text = FIXED.get(terminal) or sample(patterns()[terminal])
    return any(first <= ord(text[-1]) <= last for first, last in name_classes()[1].ranges)


def sample(pattern: Pattern) -> str:
    """A short text of a pattern."""
    if isinstance(pattern, Characters):
        return "~" if pattern.is_negated else chr(pattern.ranges[0][0])
    if isinstance(pattern, Concatenation):
        return "".join(map(sample, pattern.parts))
    if isinstance(pattern, Alternation):
        return sample(pattern.parts[0])
    if isinstance(pattern, NotFollowedBy):
        return ""
    return sample(pattern.part) if pattern.sign == "+" else ""
