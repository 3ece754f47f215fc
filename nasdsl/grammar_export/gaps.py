"""Rules over tokens to rules over characters: a gap between two tokens, and one that is needed between two words.

A scanner takes the longest word, so that ``repeat3`` is a name and ``repeat 3`` is not. A grammar of characters has no scanner:
it must say that a gap stands between two tokens which would else be one. Where a rule may begin, or end, with either kind of
token, it is written once for each kind: ``attribute_word`` begins with a word and ``attribute_sign`` with another token;
``attribute_gap`` has the gap behind it that lets any token follow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from nasdsl.grammar_export.ebnf import GrammarError
from nasdsl.grammar_export.expressions import (
    EMPTY,
    Choice,
    Expression,
    Gap,
    Optional,
    Repeat,
    Rule,
    Sequence,
    Terminal,
    choice,
    optional,
    sequence,
)

Kind: TypeAlias = Literal["word", "sign"]

WORD: Final[frozenset[Kind]] = frozenset(("word",))
SIGN: Final[frozenset[Kind]] = frozenset(("sign",))
BOTH: Final = WORD | SIGN


def with_gaps(rules: Mapping[str, Expression], is_word: Callable[[str], bool], start: str) -> dict[str, Expression]:
    """The rules that `start` needs, with gaps. A gap stands between tokens only, not around the whole text.

    Args:
        rules: over terminals, without left recursion. None but `start` may be empty.
        is_word: whether a terminal is a word, which needs a gap to the next word.
    """
    writer = _Writer(rules, is_word)
    begin = writer.write(rules[start], None, closed=False, owner=start)
    if begin is None:
        raise GrammarError(f"the rule {start} has no text")
    writer.made[start] = choice([begin, EMPTY]) if writer.is_empty(rules[start]) else begin
    for name, expression in rules.items():
        if name != start and writer.is_empty(expression):
            raise GrammarError(f"the rule {name} may be empty")
    return {start: writer.made.pop(start), **writer.made}


class _Writer:
    def __init__(self, rules: Mapping[str, Expression], is_word: Callable[[str], bool]) -> None:
        self.rules = rules
        self.is_word = is_word
        self.made: dict[str, Expression] = {}
        self._lists: dict[tuple[str, Expression], int] = {}
        self._first: dict[str, frozenset[Kind]] = dict.fromkeys(rules, frozenset())
        self._last: dict[str, frozenset[Kind]] = dict.fromkeys(rules, frozenset())
        while True:
            before = (dict(self._first), dict(self._last))
            for name, expression in rules.items():
                self._first[name] = self.ends(expression, 0)
                self._last[name] = self.ends(expression, -1)
            if before == (self._first, self._last):
                break

    # ------------------------------------------------------------------------------------ what is known of a part

    def is_empty(self, node: Expression) -> bool:
        """Whether it may stand for no token."""
        if isinstance(node, Sequence):
            return all(map(self.is_empty, node.parts))
        if isinstance(node, Choice):
            return any(map(self.is_empty, node.alternatives))
        return isinstance(node, Optional) or (isinstance(node, Repeat) and (not node.least or self.is_empty(node.part)))

    def ends(self, node: Expression, end: Literal[0, -1]) -> frozenset[Kind]:
        """The kinds of its first token (``end=0``), or of its last."""
        if isinstance(node, Terminal):
            return WORD if self.is_word(node.name) else SIGN
        if isinstance(node, Rule):
            return (self._first if end == 0 else self._last)[node.name]
        if isinstance(node, Choice):
            return frozenset[Kind]().union(*(self.ends(a, end) for a in node.alternatives))
        if isinstance(node, Optional | Repeat):
            return self.ends(node.part, end)
        assert isinstance(node, Sequence)
        found: frozenset[Kind] = frozenset()
        for part in node.parts if end == 0 else reversed(node.parts):
            found |= self.ends(part, end)
            if not self.is_empty(part):
                break
        return found

    # ------------------------------------------------------------------------------------ a part with gaps

    def write(self, node: Expression, first: Kind | None, *, closed: bool, owner: str) -> Expression | None:
        """The texts of at least one token; None if there are none.

        Args:
            first: the kind that the first token must have; None: either.
            closed: with the gap behind them that lets any token follow.
            owner: name of the rule that it is a part of.
        """
        kinds = self.ends(node, 0)
        if first is not None and first not in kinds:
            return None
        if kinds != BOTH:
            first = None
        if closed and self.ends(node, -1) != BOTH:
            bare = self.write(node, first, closed=False, owner=owner)
            return None if bare is None else sequence([bare, Gap(self.ends(node, -1) == WORD)])
        if isinstance(node, Terminal):
            return node
        if isinstance(node, Rule):
            return Rule(self._variant(node.name, first, closed))
        if isinstance(node, Choice):
            return _one_of([self.write(a, first, closed=closed, owner=owner) for a in node.alternatives])
        if isinstance(node, Optional):
            return self.write(node.part, first, closed=closed, owner=owner)
        if isinstance(node, Repeat):
            return self._repeat(node.part, first, closed, owner)
        assert isinstance(node, Sequence)
        return self._sequence(node.parts, first, closed, owner)

    def _variant(self, rule: str, first: Kind | None, closed: bool) -> str:
        """The name of a rule, of its texts that begin so, or with the gap behind them; written when it is first asked for."""
        name = rule + (f"_{first}" if first else "") + ("_gap" if closed else "")
        if name not in self.made:
            self.made[name] = EMPTY  # while it is written, so that a rule may need itself
            written = self.write(self.rules[rule], first, closed=closed, owner=rule)
            assert written is not None  # `first` is among its kinds
            self.made[name] = written
        return name

    def _sequence(self, parts: tuple[Expression, ...], first: Kind | None, closed: bool, owner: str) -> Expression | None:
        part, rest = parts[0], parts[1:]
        if not rest:
            return self.write(part, first, closed=closed, owner=owner)
        found = [self._joined(part, rest, first, closed, owner)]
        if all(map(self.is_empty, rest)):
            alone = self.write(part, first, closed=closed, owner=owner)
            found = [_with_optional_rest(alone, found[0])]
        if self.is_empty(part):
            found = [_with_optional_begin(found[0], self._sequence(rest, first, closed, owner))]
        return _one_of(found)

    def _joined(
        self, part: Expression, rest: tuple[Expression, ...], first: Kind | None, closed: bool, owner: str
    ) -> Expression | None:
        """A part and what follows it, neither of them empty."""
        ends, begins = self.ends(part, -1), self.ends(Sequence(rest), 0)
        if ends == BOTH == begins or (ends == WORD and begins == BOTH):
            after_gap = self._pair(part, rest, first, "word", closed, owner)
            return _one_of([after_gap, self._pair(part, rest, first, "sign", closed, owner)])
        return self._pair(
            part, rest, first, "word" if ends >= WORD and begins == WORD else "sign", closed, owner, is_split=False
        )

    def _pair(
        self, part: Expression, rest: tuple[Expression, ...], first: Kind | None, kind: Kind, closed: bool, owner: str,
        *, is_split: bool = True,
    ) -> Expression | None:  # fmt: skip
        """`kind`: of the first token of `rest`; with ``is_split=False`` a gap for it, and `rest` however it begins."""
        left = self.write(part, first, closed=kind == "word", owner=owner)
        right = self._sequence(rest, kind if is_split else None, closed, owner)
        if left is None or right is None:
            return None
        return sequence([left, right] if kind == "word" else [left, Gap(), right])

    def _repeat(self, part: Expression, first: Kind | None, closed: bool, owner: str) -> Expression | None:
        """One or more of a part."""
        begins, ends = self.ends(part, 0), self.ends(part, -1)
        if begins == BOTH:
            return Rule(self._list(part, first, closed, owner))
        needs_gap = begins == WORD and ends != SIGN
        between = self.write(part, None, closed=needs_gap, owner=owner)
        last = self.write(part, None, closed=closed, owner=owner)
        assert between is not None  # it may begin with any kind
        assert last is not None
        if not needs_gap:
            between = sequence([between, Gap()])
        if between == sequence([last, Gap(needs_gap)]):  # the same as `last (gap last)*`, which is read from the left
            return sequence([last, Repeat(sequence([Gap(needs_gap), last]))])
        return sequence([Repeat(between), last])

    def _list(self, part: Expression, first: Kind | None, closed: bool, owner: str) -> str:
        """The name of a rule for one or more of a part that begins with either kind."""
        number = self._lists.setdefault((owner, part), sum(known == owner for known, _ in self._lists) + 1)
        stem = f"{owner}_parts" + (f"_{number}" if number > 1 else "")
        name = stem + (f"_{first}" if first else "") + ("_gap" if closed else "")
        if name in self.made:
            return name
        self.made[name] = EMPTY
        found: list[Expression | None] = []
        for kind in ("sign", "word"):  # of what follows
            one = self.write(part, first, closed=kind == "word", owner=owner)
            if one is not None:
                rest = Rule(self._list(part, kind, closed, owner))
                more = sequence([rest] if kind == "word" else [Gap(), rest])
                may_end = closed == (kind == "word")  # what may follow the last one is in `one`
                found.append(sequence([one, optional(more) if may_end else more]))
        made = _one_of(found)
        assert made is not None
        self.made[name] = made
        return name


def _one_of(found: list[Expression | None]) -> Expression | None:
    there = [expression for expression in found if expression is not None]
    return choice(there) if there else None


def _with_optional_rest(alone: Expression | None, joined: Expression | None) -> Expression | None:
    """What stands alone, or with more behind it: ``a (gap b)?`` where both begin alike."""
    if alone is None or joined is None:
        return alone if joined is None else joined
    begin = alone.parts if isinstance(alone, Sequence) else (alone,)
    if isinstance(joined, Sequence) and joined.parts[: len(begin)] == begin and len(joined.parts) > len(begin):
        return sequence([alone, optional(sequence(joined.parts[len(begin) :]))])
    return choice([alone, joined])


def _with_optional_begin(joined: Expression | None, alone: Expression | None) -> Expression | None:
    """What stands alone, or with more before it: ``(a gap)? b`` where both end alike."""
    if alone is None or joined is None:
        return alone if joined is None else joined
    end = alone.parts if isinstance(alone, Sequence) else (alone,)
    if isinstance(joined, Sequence) and joined.parts[-len(end) :] == end and len(joined.parts) > len(end):
        return sequence([optional(sequence(joined.parts[: -len(end)])), alone])
    return choice([joined, alone])
