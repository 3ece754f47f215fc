"""The grammars of llguidance: lark's notation, with terminals that are regular expressions without lookaheads.

llguidance takes the longest match of all terminals that fit, and does not go back. So a number is not one terminal: behind the
``1.`` of ``1..7`` it could not end any more. Its digits, its fraction and its suffix are scanned one by one. Gaps are written
out, because ``%ignore`` would allow them there, too.
"""

from __future__ import annotations

from collections.abc import Mapping

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
from nasdsl.grammar_export.gbnf import quoted
from nasdsl.grammar_export.patterns import (
    Concatenation,
    Pattern,
    Repetition,
    has_false_start,
    without_lookahead,
    write_pattern,
)
from nasdsl.grammar_export.terminals import FIXED, gap_pieces, patterns
from nasdsl.syntax.lexer import RESERVED


def write_language(rules: Mapping[str, Expression], start: str) -> str:
    """The rules of the language, which are over terminals and gaps, and its terminals."""
    text = f"{start}_text"
    lines = [f"start: ( GAP? {text} )? END?"]
    lines += [f"{text if name == start else name}: {expression_text(expression)}" for name, expression in rules.items()]
    lines.append("")
    shared: dict[str, str] = {}  # terminals by pattern: two of one pattern would be ambiguous
    for name, pattern in patterns().items():
        lines += _terminal_lines(name, without_lookahead(pattern), shared)
    return "\n".join([*lines, *gap_lines()]) + "\n"


def write_rules(rules: Mapping[str, Expression]) -> str:
    """Rules without terminals; the first, which others call ``root``, is ``start`` here."""
    names = {next(iter(rules)): "start"}
    return "\n".join(f"{names.get(name, name)}: {expression_text(e)}" for name, e in rules.items()) + "\n"


def gap_lines() -> list[str]:
    """A gap of at least one character, and the end of a text, which may be a comment without a line end."""
    space, comment = gap_pieces()
    assert isinstance(space, Repetition)
    piece = f"(?:{write_pattern(space.part)}|{write_pattern(comment)}\\n)"
    return [f"GAP: /{piece}+/", f"END: /{piece}+|{piece}*{write_pattern(comment)}/"]


def expression_text(node: Expression) -> str:
    """An expression in lark's notation."""
    if isinstance(node, Literal):
        return quoted(node.text)
    if isinstance(node, Terminal):
        if node.name in FIXED:
            return quoted(FIXED[node.name])
        is_split = has_false_start(without_lookahead(patterns()[node.name]))
        return node.name.lower() if is_split else node.name
    if isinstance(node, Rule):
        return node.name
    if isinstance(node, Gap):
        return "GAP" if node.is_needed else "GAP?"
    if isinstance(node, Choice):
        return " | ".join(expression_text(a) for a in node.alternatives)
    if isinstance(node, Sequence):
        return " ".join(f"( {expression_text(p)} )" if isinstance(p, Choice) else expression_text(p) for p in node.parts)
    sign = "?" if isinstance(node, Optional) else "+" if node.least else "*"
    inner = expression_text(node.part)
    is_single = isinstance(node.part, Rule | Literal | Terminal)
    return f"{inner}{sign}" if is_single else f"( {inner} ){sign}"


def _terminal_lines(name: str, pattern: Pattern, shared: dict[str, str]) -> list[str]:
    if name == "NAME":
        return [f"NAME: /{write_pattern(pattern)}/ & ~/{'|'.join(RESERVED)}/"]
    if not has_false_start(pattern) or not isinstance(pattern, Concatenation):
        return [f"{name}: /{write_pattern(pattern)}/"]
    lines: list[str] = []
    parts: list[str] = []
    for part in pattern.parts:
        sign = part.sign if isinstance(part, Repetition) and part.sign == "?" else ""
        text = write_pattern(part.part if isinstance(part, Repetition) and sign else part)
        if text not in shared:
            shared[text] = f"{name}_{len(parts) + 1}"
            lines.append(f"{shared[text]}: /{text}/")
        parts.append(shared[text] + sign)
    return [f"{name.lower()}: {' '.join(parts)}", *lines]
