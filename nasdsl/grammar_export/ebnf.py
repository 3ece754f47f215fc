"""Reader of ``grammars/nas.lark``: its rules as expressions over terminals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from nasdsl import resources
from nasdsl.grammar_export.expressions import Choice, Expression, Optional, Repeat, Rule, Sequence, Terminal, choice, sequence
from nasdsl.syntax.lexer import BEFORE_ANY_WORD

WORD: Final = "WORD"
"""The terminal of a name in a place where words of the language are names too."""

_TOKEN: Final = re.compile(r"\s*(?:(?P<name>[A-Za-z_][A-Za-z_0-9]*)|(?P<sign>->|[()\[\]|*+?:]))")


class GrammarError(ValueError):
    """The grammar, or a pattern of the lexer, has something that cannot be exported."""


@dataclass(frozen=True)
class Definition:
    """A rule.

    Attributes:
        inlines: whether lark puts its child in its place where there is only one (``?name:``).
        alternatives: each with the name of its node in lark's tree, empty for that of the rule.
    """

    name: str
    inlines: bool
    alternatives: tuple[tuple[Expression, str], ...]

    @property
    def expression(self) -> Expression:
        return choice(expression for expression, _ in self.alternatives)


@cache
def language_rules() -> Mapping[str, Definition]:
    """The rules of the language. Names that may be words of the language are the terminal `WORD`.

    Raises:
        GrammarError: the file has a construct that this reader does not know.
    """
    text = re.sub(r"//[^\n]*|^%declare[^\n]*", "", resources.read("grammars", "nas.lark"), flags=re.MULTILINE)
    rules: dict[str, Definition] = {}
    for piece in re.split(r"\n(?=\??[a-z_]+\s*:)", text.strip()):
        head, _, body = piece.partition(":")
        name = head.strip().removeprefix("?")
        rules[name] = Definition(name, head.strip().startswith("?"), _Reader(name, body).alternatives())
    return rules


def without_left_recursion(definition: Definition) -> Expression:
    """The expression of a rule; one that begins with itself, ``sum: term | sum PLUS term``, as ``term (PLUS term)*``."""
    own = Rule(definition.name)
    begun: list[Expression] = []
    gone_on: list[Expression] = []
    for alternative in _flat(definition.expression):
        if isinstance(alternative, Sequence) and alternative.parts[0] == own:
            gone_on.append(sequence(alternative.parts[1:]))
        else:
            begun.append(alternative)
    return sequence([choice(begun), Repeat(choice(gone_on))]) if gone_on else choice(begun)


def without_synonyms(rules: Mapping[str, Expression]) -> dict[str, Expression]:
    """The rules without those that are just another name of a terminal (``number: NUMBER``)."""
    synonyms = {Rule(name): rule for name, rule in rules.items() if isinstance(rule, Terminal)}

    def resolved(node: Expression) -> Expression:
        if isinstance(node, Rule):
            return synonyms.get(node, node)
        if isinstance(node, Sequence):
            return sequence(map(resolved, node.parts))
        if isinstance(node, Choice):
            return choice(map(resolved, node.alternatives))
        if isinstance(node, Optional):
            return Optional(resolved(node.part))
        return Repeat(resolved(node.part), node.least) if isinstance(node, Repeat) else node

    return {name: resolved(rule) for name, rule in rules.items() if Rule(name) not in synonyms}


def _flat(expression: Expression) -> tuple[Expression, ...]:
    return expression.alternatives if isinstance(expression, Choice) else (expression,)


class _Reader:
    """Recursive descent over the right side of a rule."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.tokens: list[str] = []
        position = 0
        while text[position:].strip():
            found = _TOKEN.match(text, position)
            if found is None:
                raise GrammarError(f"rule {name} of nas.lark: cannot read {text[position:].strip()[:40]!r}")
            self.tokens.append(found["name"] or found["sign"])
            position = found.end()
        self.tokens.reverse()  # the next one is the last

    def _next(self) -> str:
        return self.tokens[-1] if self.tokens else ""

    def alternatives(self) -> tuple[tuple[Expression, str], ...]:
        found = []
        while True:
            expression, alias = self._sequence(""), ""
            if self._next() == "->":
                self.tokens.pop()
                alias = self.tokens.pop()
            found.append((expression, alias))
            if self._next() != "|":
                break
            self.tokens.pop()
        if self.tokens:
            raise GrammarError(f"rule {self.name} of nas.lark: `{self._next()}` does not fit")
        return tuple(found)

    def _choice(self, before: str, closing: str) -> Expression:
        found = [self._sequence(before)]
        while self._next() == "|":
            self.tokens.pop()
            found.append(self._sequence(before))
        if self._next() != closing:
            raise GrammarError(f"rule {self.name} of nas.lark: `{closing}` is missing")
        self.tokens.pop()
        return choice(found)

    def _sequence(self, before: str) -> Expression:
        """Parts up to a `|` or the end of the bracket; `before` is the terminal in front of them, if it is the same always."""
        parts: list[Expression] = []
        while self._next() and self._next() not in ("|", ")", "]", "->"):
            part = self._part(before)
            parts.append(part)
            before = part.name if isinstance(part, Terminal) else ""
        return sequence(parts)

    def _part(self, before: str) -> Expression:
        token = self.tokens.pop()
        part: Expression
        if token == "(":
            part = self._choice(before, ")")
        elif token == "[":
            part = Optional(self._choice(before, "]"))
        elif token == "NAME" and before in BEFORE_ANY_WORD:
            part = Terminal(WORD)
        elif token.isupper():
            part = Terminal(token)
        elif token.isidentifier():
            part = Rule(token)
        else:
            raise GrammarError(f"rule {self.name} of nas.lark: `{token}` does not fit")
        if self._next() == "?":
            self.tokens.pop()
            return Optional(part)
        if self._next() and self._next() in "*+":
            return Repeat(part, least=int(self.tokens.pop() == "+"))
        return part
