"""GBNF, the format of llama.cpp, which other programs for constrained decoding read too: rules over characters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby

from nasdsl.grammar_export.ebnf import WORD
from nasdsl.grammar_export.expressions import (
    Choice,
    Expression,
    Gap,
    Literal,
    Optional,
    Rule,
    Sequence,
    Terminal,
)
from nasdsl.grammar_export.patterns import (
    Alternation,
    Characters,
    Concatenation,
    Pattern,
    Repetition,
    bracketed,
    escape,
    without_lookahead,
)
from nasdsl.grammar_export.terminals import FIXED, gap_pieces, name_classes, patterns
from nasdsl.syntax.lexer import RESERVED


def write_language(rules: Mapping[str, Expression], start: str) -> str:
    """The rules of the language, which are over terminals and gaps, and those of its terminals."""
    lines = [_line("root", f"( gap? {_name(start)} )? end?")]
    lines += [_line(name, expression_text(expression)) for name, expression in rules.items()]
    names = "( " + " | ".join(_names_without(RESERVED)) + " )"
    lines += ["", _line(_name("NAME"), names), _line("name-end", f"{bracketed(name_classes()[1])}*")]
    for name, pattern in patterns().items():
        if name != "NAME":
            lines.append(_line(_name(name), pattern_text(without_lookahead(pattern))))
    return "\n".join([*lines, *gap_rules()]) + "\n"


def write_rules(rules: Mapping[str, Expression]) -> str:
    """Rules without terminals, the first of which is ``root``."""
    return "\n".join(_line(name, expression_text(expression)) for name, expression in rules.items()) + "\n"


def gap_rules() -> list[str]:
    """A gap of at least one character, and the end of a text, which may be a comment without a line end."""
    space, comment = gap_pieces()
    assert isinstance(space, Repetition)
    tail = pattern_text(comment)
    return [
        _line("gap", f'( {pattern_text(space.part)} | {tail} "\\n" )+'),
        _line("end", f"gap | gap? {tail}"),
    ]


def expression_text(node: Expression) -> str:
    """An expression in GBNF."""
    if isinstance(node, Literal):
        return quoted(node.text)
    if isinstance(node, Terminal):
        return quoted(FIXED[node.name]) if node.name in FIXED else _name(node.name)
    if isinstance(node, Rule):
        return _name(node.name)
    if isinstance(node, Gap):
        return "gap" if node.is_needed else "gap?"
    if isinstance(node, Choice):
        return " | ".join(expression_text(a) for a in node.alternatives)
    if isinstance(node, Sequence):
        pieces: list[str] = []
        for is_literal, group in groupby(node.parts, lambda part: isinstance(part, Literal)):
            if is_literal:
                pieces.append(quoted("".join(part.text for part in group if isinstance(part, Literal))))
            else:
                pieces += [f"( {expression_text(p)} )" if isinstance(p, Choice) else expression_text(p) for p in group]
        return " ".join(pieces)
    sign = "?" if isinstance(node, Optional) else "+" if node.least else "*"
    inner = expression_text(node.part)
    is_single = isinstance(node.part, Rule | Literal | Terminal)
    return f"{inner}{sign}" if is_single else f"( {inner} ){sign}"


def pattern_text(pattern: Pattern) -> str:
    """A pattern without lookaheads in GBNF."""
    if isinstance(pattern, Characters):
        return bracketed(pattern) if pattern.single is None else quoted(pattern.single)
    if isinstance(pattern, Concatenation):
        singles = [p.single if isinstance(p, Characters) else None for p in pattern.parts]
        if None not in singles:
            return quoted("".join(map(str, singles)))
        return " ".join(f"( {pattern_text(p)} )" if isinstance(p, Alternation) else pattern_text(p) for p in pattern.parts)
    if isinstance(pattern, Alternation):
        return " | ".join(map(pattern_text, pattern.parts))
    assert isinstance(pattern, Repetition)  # there is no lookahead any more
    inner = pattern_text(pattern.part)
    return f"{inner}{pattern.sign}" if isinstance(pattern.part, Characters) else f"( {inner} ){pattern.sign}"


def quoted(text: str) -> str:
    """Characters in double quotes."""
    return '"' + "".join(escape(c, '"\\') for c in text) + '"'


def _names_without(words: Iterable[str], prefix: str = "") -> list[str]:
    """Alternatives for the rest of a name behind `prefix` such that the whole is none of these words.

    GBNF has no difference of two languages, so that the words are spelled out: a name begins as one of them does and goes on
    otherwise, or ends before it.
    """
    first, further = name_classes()
    following = sorted({word[len(prefix)] for word in words if word.startswith(prefix) and len(word) > len(prefix)})
    own = (further if prefix else first).without("".join(following))
    found = [f"{bracketed(own)} name-end"]
    for character in following:
        deeper = prefix + character
        rest = _names_without([word for word in words if word.startswith(deeper)], deeper)
        found.append(f"{quoted(character)} ( {' | '.join(rest)} ){'' if deeper in words else '?'}")
    return found


def _name(name: str) -> str:
    return ("any-word" if name == WORD else name).lower().replace("_", "-")


def _line(name: str, text: str) -> str:
    return f"{_name(name)} ::= {text}"
