"""A small reader of GBNF, written from its description: it recognises texts, draws random ones, lists all of finite grammars.

It knows nothing of nasdsl. A text is recognised with sets of stacks, as llama.cpp does it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

Stack: TypeAlias = "tuple[str | Characters, Stack | None]"

TOKEN = re.compile(
    r"""\s*(?:(?P<rule>[A-Za-z][A-Za-z0-9-]*)\s*::=|(?P<name>[A-Za-z][A-Za-z0-9-]*)|(?P<string>"(?:[^"\\]|\\.)*")"""
    r"""|(?P<klass>\[(?:[^\]\\]|\\.)*\])|(?P<sign>[()|*+?]))"""
)
ESCAPE = re.compile(r"\\x([0-9A-Fa-f]{2})|\\(.)|(.)", re.DOTALL)


class Characters(NamedTuple):
    """One character: of these, or with `is_negated` of no others. `ranges` are pairs, both ends included."""

    ranges: tuple[tuple[str, str], ...]
    is_negated: bool

    def has(self, character: str) -> bool:
        return any(first <= character <= last for first, last in self.ranges) != self.is_negated

    def draw(self, rng: random.Random) -> str:
        if self.is_negated:
            return rng.choice([c for c in " aZ09_#\"'/.\u00e9\u2192\t" if self.has(c)])
        first, last = rng.choice(self.ranges)
        return chr(rng.randint(ord(first), ord(last)))


def characters_of(text: str) -> list[str]:
    meanings = {"n": "\n", "t": "\t", "r": "\r"}
    return [
        chr(int(code, 16)) if code else meanings.get(escaped, escaped) if escaped else plain
        for code, escaped, plain in ESCAPE.findall(text)
    ]


def read_class(text: str) -> Characters:
    inside = text[1:-1]
    is_negated = inside.startswith("^")
    pieces = re.findall(r"(\\x..|\\.|.)(-(?:\\x..|\\.|.))?", inside[is_negated:], re.DOTALL)
    ranges = [(characters_of(a)[0], characters_of(b[1:])[0] if b else characters_of(a)[0]) for a, b in pieces]
    return Characters(tuple(ranges), is_negated)


class Grammar:
    """The rules of a grammar: for each name its alternatives, each a tuple of names and `Characters`."""

    def __init__(self, text: str, root: str = "root") -> None:
        self.root = root
        self.rules: dict[str, list[tuple[str | Characters, ...]]] = {}
        tokens: list[tuple[str, str]] = []
        text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
        at = 0
        while text[at:].strip():
            found = TOKEN.match(text, at)
            assert found is not None, text[at : at + 60]
            tokens.append((str(found.lastgroup), found[str(found.lastgroup)]))
            at = found.end()
        self.tokens = [*tokens, ("end", "")]
        self.at = 0
        while self.tokens[self.at][0] == "rule":
            name = self.tokens[self.at][1]
            self.at += 1
            assert name not in self.rules, f"{name} is there twice"
            self.rules[name] = []
            self.rules[name] = self._alternatives(name)
        assert self.tokens[self.at][0] == "end", self.tokens[self.at]
        for alternatives in self.rules.values():
            for alternative in alternatives:
                for symbol in alternative:
                    assert isinstance(symbol, Characters) or symbol in self.rules, f"{symbol} is no rule"
        self.heights = self._heights()
        self._stacks: dict[tuple[str | Characters, int], Stack] = {}
        self._closures: dict[int, dict[int, Stack]] = {}

    def _alternatives(self, owner: str) -> list[tuple[str | Characters, ...]]:
        found = [self._sequence(owner)]
        while self.tokens[self.at] == ("sign", "|"):
            self.at += 1
            found.append(self._sequence(owner))
        return found

    def _sequence(self, owner: str) -> tuple[str | Characters, ...]:
        parts: list[tuple[str | Characters, ...]] = []
        while True:
            kind, text = self.tokens[self.at]
            if kind in ("rule", "end") or text in ("|", ")"):
                return tuple(symbol for part in parts for symbol in part)
            self.at += 1
            if kind == "name":
                part: tuple[str | Characters, ...] = (text,)
            elif kind == "string":
                part = tuple(Characters(((c, c),), False) for c in characters_of(text[1:-1]))
            elif kind == "klass":
                part = (read_class(text),)
            else:
                assert text == "(", text
                part = (self._new(owner, self._alternatives(owner)),)
                assert self.tokens[self.at] == ("sign", ")")
                self.at += 1
            while self.tokens[self.at][0] == "sign" and self.tokens[self.at][1] in "*+?":
                sign = self.tokens[self.at][1]
                self.at += 1
                if sign == "?":
                    part = (self._new(owner, [part, ()]),)
                else:
                    name = self._new(owner, [])
                    self.rules[name] = [(*part, name), ()]
                    part = (name,) if sign == "*" else (*part, name)
            parts.append(part)

    def _new(self, owner: str, alternatives: list[tuple[str | Characters, ...]]) -> str:
        name = f"{owner} {len(self.rules)}"
        self.rules[name] = alternatives
        return name

    def _heights(self) -> dict[str, float]:
        """How deep the least text of a rule nests."""
        heights = dict.fromkeys(self.rules, float("inf"))
        while True:
            new = {name: 1 + min(self._height(a, heights) for a in found) for name, found in self.rules.items()}
            if new == heights:
                return heights
            heights = new

    @staticmethod
    def _height(alternative: tuple[str | Characters, ...], heights: dict[str, float]) -> float:
        return max((heights[s] for s in alternative if isinstance(s, str)), default=0)

    def is_left_recursive(self) -> bool:
        """Whether a rule begins with itself, which llama.cpp refuses."""
        empty: set[str] = set()
        while True:
            more = {n for n, found in self.rules.items() if any(all(s in empty for s in a) for a in found)}
            if more == empty:
                break
            empty = more
        begins: dict[str, set[str]] = {name: set() for name in self.rules}
        for name, found in self.rules.items():
            for alternative in found:
                for symbol in alternative:
                    if isinstance(symbol, str):
                        begins[name].add(symbol)
                    if symbol not in empty:
                        break
        for middle in self.rules:
            for reached in begins.values():
                if middle in reached:
                    reached |= begins[middle]
        return any(name in reached for name, reached in begins.items())

    # -------------------------------------------------------------------------------------------- texts

    def accepts(self, text: str) -> bool:
        """Whether the whole text is one of the grammar."""
        stacks = self._closure(self._push(self.root, None))
        for character in text:
            following: dict[int, Stack] = {}
            for top, rest in stacks.values():
                if isinstance(top, Characters) and top.has(character):
                    following |= self._closure(rest)
            stacks = following
            if not stacks:
                return False
        return id(None) in stacks

    def _push(self, symbol: str | Characters, rest: Stack | None) -> Stack:
        """A stack; the same object for the same stack, so that stacks are compared by identity."""
        return self._stacks.setdefault((symbol, id(rest)), (symbol, rest))

    def _closure(self, stack: Stack | None) -> dict[int, Stack]:
        """What a stack becomes until a character is on top, by identity; that of None is the empty one."""
        known = self._closures.get(id(stack))
        if known is not None:
            return known
        found: dict[int, Stack] = {}
        seen: set[int] = set()
        waiting = [stack]
        while waiting:
            taken = waiting.pop()
            if id(taken) in seen:
                continue
            seen.add(id(taken))
            if taken is None or isinstance(taken[0], Characters):
                found[id(taken)] = taken or ("", None)
                continue
            for alternative in self.rules[taken[0]]:
                pushed = taken[1]
                for symbol in reversed(alternative):
                    pushed = self._push(symbol, pushed)
                waiting.append(pushed)
        self._closures[id(stack)] = found
        return found

    def walk(self, rng: random.Random, depth: int, symbol: str | None = None) -> str:
        """A random text, of the rule `symbol` if it is given. Below `depth` a rule takes the alternative that nests least."""
        out: list[str] = []
        stack: list[tuple[str | Characters, int]] = [(symbol or self.root, 0)]
        while stack:
            symbol, at = stack.pop()
            if isinstance(symbol, Characters):
                out.append(symbol.draw(rng))
                continue
            found = self.rules[symbol]
            if at >= depth:
                least = min(self._height(a, self.heights) for a in found)
                found = [a for a in found if self._height(a, self.heights) == least]
            chosen = rng.choice(found)
            stack += [(s, at + 1) for s in reversed(chosen)]
        return "".join(out)

    def texts(self, symbol: str | None = None) -> Iterator[str]:
        """All texts of a grammar without recursion."""
        for alternative in self.rules[symbol or self.root]:
            yield from self._texts_of(alternative)

    def _texts_of(self, symbols: tuple[str | Characters, ...]) -> Iterator[str]:
        begin = ""
        for at, symbol in enumerate(symbols):
            if isinstance(symbol, str):
                for text in self.texts(symbol):
                    for rest in self._texts_of(symbols[at + 1 :]):
                        yield begin + text + rest
                return
            assert symbol.ranges[0][0] == symbol.ranges[0][1]
            begin += symbol.ranges[0][0]
        yield begin
