"""The grammar of the language for lark: the rules of ``grammars/nas.lark`` with terminals in the place of its ``%declare``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nasdsl.grammar_export.ebnf import Definition
from nasdsl.grammar_export.expressions import (
    Choice,
    Expression,
    Gap,
    Literal,
    Optional,
    Repeat,
    Rule,
    Sequence,
    Terminal,
)
from nasdsl.grammar_export.gbnf import quoted
from nasdsl.grammar_export.patterns import lookaheads, write_characters, write_pattern
from nasdsl.grammar_export.terminals import FIXED, is_word, name_classes, patterns
from nasdsl.syntax.lexer import GAP, PATTERNS, RESERVED, WORD_FOLLOWED_BY


def write_language(rules: Mapping[str, Definition]) -> str:
    """The rules as they are, for ``Lark(text, parser="lalr")``."""
    lines = []
    for name, definition in rules.items():
        alternatives = [_text(expression) + (f" -> {alias}" if alias else "") for expression, alias in definition.alternatives]
        lines.append(f"{'?' if definition.inlines else ''}{name}: " + f"\n{' ' * len(name)}| ".join(alternatives))
    return "\n".join([*lines, "", *_terminals(), ""])


def write_rules(rules: Mapping[str, Expression]) -> str:
    """Rules without terminals, the first of which is ``root``, with gaps written out.

    Each group of alternatives is a rule: lark multiplies out those in a row, ``(a | b) (c | d)``, which would never end.
    """
    writer = _GroupWriter()
    lines = {name: writer.text(expression) for name, expression in rules.items()}
    return "".join(f"{name}: {text}\n" for name, text in (lines | writer.groups).items())


class _GroupWriter:
    """Writes expressions in lark's notation, and makes a rule of each group.

    Attributes:
        groups: the rules that were made for groups, by name.
    """

    def __init__(self) -> None:
        self.groups: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def text(self, node: Expression) -> str:
        if isinstance(node, Choice):
            return " | ".join(map(self.text, node.alternatives))
        if isinstance(node, Sequence):
            return " ".join(self._group(p) if isinstance(p, Choice | Optional | Gap) else self.text(p) for p in node.parts)
        if isinstance(node, Optional):
            return f"{self.text(node.part)} |"
        if isinstance(node, Gap):
            return "GAP" if node.is_needed else "GAP |"
        assert isinstance(node, Literal | Rule)
        return quoted(node.text) if isinstance(node, Literal) else node.name

    def _group(self, node: Expression) -> str:
        text = self.text(node)
        if text == "GAP":
            return text
        if text not in self._names:
            self._names[text] = f"_group_{len(self.groups) + 1}"
            self.groups[self._names[text]] = text
        return self._names[text]


def _text(node: Expression) -> str:
    if isinstance(node, Terminal | Rule):
        return node.name
    if isinstance(node, Choice):
        return " | ".join(map(_text, node.alternatives))
    if isinstance(node, Sequence):
        return " ".join(f"({_text(p)})" if isinstance(p, Choice) else _text(p) for p in node.parts)
    assert isinstance(node, Optional | Repeat)
    sign = "?" if isinstance(node, Optional) else "+" if node.least else "*"
    return f"{_text(node.part)}{sign}" if isinstance(node.part, Terminal | Rule) else f"({_text(node.part)}){sign}"


def _terminals() -> list[str]:
    word_end = f"(?!{write_characters(name_classes()[1])})" + "".join(map(write_pattern, lookaheads(patterns()["NAME"])))
    lines = []
    for name, text in FIXED.items():
        if not is_word(name):
            lines.append(f"{name}: {quoted(text)}")
        elif text in WORD_FOLLOWED_BY:  # a name too, where something else follows
            lines.append(f"{name}.2: {_regex(f'{text}{word_end}(?={GAP}{WORD_FOLLOWED_BY[text]})')}")
        else:
            lines.append(f"{name}: {_regex(text + word_end)}")
    for name in patterns():
        text = PATTERNS.get(name, PATTERNS["NAME"])
        if name == "NAME":
            text = f"(?!(?:{'|'.join(RESERVED)}){word_end}){text}"
        lines.append(f"{name}: {_regex(text)}")
    return [*lines, f"GAP: {_regex(re.sub(r'[*][+]$', '++', GAP))}", "%ignore GAP"]


def _regex(text: str) -> str:
    escaped = text.replace("/", r"\/")
    return f"/{escaped}/"
