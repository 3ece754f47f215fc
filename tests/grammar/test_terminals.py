"""Terminals are taken from the lexer: its tables, its patterns, and what it needs between two tokens."""

from __future__ import annotations

import random
import re

import pytest
from parse_tools import tokens

from nasdsl.diagnostics import Source
from nasdsl.grammar_export import GrammarError, terminals
from nasdsl.grammar_export.ebnf import WORD, _Reader, language_rules
from nasdsl.grammar_export.expressions import (
    EMPTY,
    Choice,
    Expression,
    Optional,
    Repeat,
    Rule,
    Sequence,
    Terminal,
    choice,
    optional,
)
from nasdsl.grammar_export.gaps import with_gaps
from nasdsl.grammar_export.patterns import (
    Characters,
    escape,
    has_false_start,
    parse_pattern,
    without_lookahead,
    write_pattern,
)
from nasdsl.grammar_export.terminals import FIXED, is_word, patterns, sample
from nasdsl.syntax.lexer import PATTERNS, WORDS, scan


def terminals_of(node: Expression) -> set[str]:
    if isinstance(node, Terminal):
        return {node.name}
    if isinstance(node, Sequence):
        return set().union(*map(terminals_of, node.parts))
    if isinstance(node, Choice):
        return set().union(*map(terminals_of, node.alternatives))
    return terminals_of(node.part) if isinstance(node, Optional | Repeat) else set()


def rules_of(node: Expression) -> set[str]:
    if isinstance(node, Rule):
        return {node.name}
    if isinstance(node, Sequence):
        return set().union(*map(rules_of, node.parts))
    if isinstance(node, Choice):
        return set().union(*map(rules_of, node.alternatives))
    return rules_of(node.part) if isinstance(node, Optional | Repeat) else set()


def test_every_terminal_of_the_rules_has_texts() -> None:
    used = set().union(*(terminals_of(d.expression) for d in language_rules().values()))
    assert used == FIXED.keys() | patterns().keys()
    assert set().union(*(rules_of(d.expression) for d in language_rules().values())) | {"start"} == set(language_rules())


def text_of(terminal: str) -> str:
    return FIXED.get(terminal) or sample(patterns()[terminal])


def test_a_gap_is_needed_where_the_scanner_would_take_two_tokens_for_one() -> None:
    """Between two words, and nowhere else where the language has the two side by side."""
    contextual = {"DETECTOR", "SHARED", "ON"}  # which the scanner tells by what follows
    names = [t for t in (*FIXED, *PATTERNS) if t not in contextual]
    never_neighbours = {
        ("EQUAL", "EQUAL"), ("MINUS", "COMPARE"), ("EQUAL", "COMPARE"), ("COMPARE", "EQUAL"), ("COMPARE", "COMPARE"),
        ("SLASH", "SLASH"), ("ARROW", "COMPARE"), ("STRING", "STRING"), ("COMPARE", "RANGE"), ("RANGE", "RANGE"),
    }  # fmt: skip
    for left in names:
        for right in names:
            if (left, right) in never_neighbours or (left == "NUMBER" and right == "NUMBER"):
                continue
            problems: list[object] = []
            found = [t.value for t in scan(Source("t", text_of(left) + text_of(right)), problems)]  # type: ignore[arg-type]
            is_two = not problems and found == [text_of(left), text_of(right)]
            if not is_two:
                assert is_word(left), (left, right)
                assert is_word(right), (left, right)
    assert all(is_word(t) for t in (*(WORDS[w] for w in WORDS), "NAME", WORD, "NUMBER", "SIZE", "DURATION"))
    assert not any(is_word(t) for t in ("STRING", "COMPARE", "LPAR", "RANGE"))


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_read_and_written_matches_the_same_texts(name: str) -> None:
    ours = re.compile(write_pattern(without_lookahead(parse_pattern(PATTERNS[name]))))
    theirs = re.compile(PATTERNS[name])
    rng = random.Random(0)
    matched = 0
    for _ in range(3000):
        pieces = list(rng.choice(["a_1", "1x2", "15ms", "1.5s", "2us", "12.25K", "3", '"a b"', "<=", ">", "==", "Zz"]))
        pieces[rng.randrange(len(pieces))] = rng.choice(["", *'01xXm.Ks_"=<> \n\u00e9'])
        text = "".join(pieces)
        assert (ours.fullmatch(text) is None) == (theirs.fullmatch(text) is None), text
        matched += theirs.fullmatch(text) is not None
    assert matched > 20
    (token,) = tokens(sample(parse_pattern(PATTERNS[name])))
    assert token.type == name


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a{2}", "`{2}`"), (r"\d+", r"the escape `\d`"), ("a.b", "`.b`"), ("(a)", "`(a)`"), ("a*?", "a lazy repetition"),
        ("(?<=a)b", "`(?<`"), ("^a", "`^a`"), ("[a", "a class that is not closed"), ("(?:a", "a bracket that is not closed"),
        ("a)", "a `)` without its bracket"),
    ],
)  # fmt: skip
def test_a_pattern_beyond_the_subset_is_an_error(pattern: str, message: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(message)):
        parse_pattern(pattern)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("NAME %", "cannot read '%'"), ("NAME ) NAME", "`)` does not fit"), ("(NAME", "`)` is missing"),
        ("[NAME | NUMBER", "`]` is missing"), ("*", "`*` does not fit"), ("NAME ? ?", "`?` does not fit"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_read_is_an_error(rule: str, message: str) -> None:
    with pytest.raises(GrammarError, match=re.escape(f"rule own of nas.lark: {message}")):
        _Reader("own", rule).alternatives()


def test_parts_of_a_rule_may_be_left_out_or_repeated() -> None:
    ((expression, _),) = _Reader("own", "[NAME] NUMBER? STRING+ own*").alternatives()
    name, number, string = Terminal("NAME"), Terminal("NUMBER"), Terminal("STRING")
    assert expression == Sequence((Optional(name), Optional(number), Repeat(string, 1), Repeat(Rule("own"))))


def test_what_is_optional_twice_is_optional_once() -> None:
    a, b = Terminal("NAME"), Terminal("NUMBER")
    assert optional(EMPTY) == choice([EMPTY, EMPTY]) == EMPTY
    assert optional(Optional(a)) == choice([a, EMPTY]) == Optional(a)
    assert optional(Sequence((a, Repeat(a)))) == Repeat(a)
    assert optional(Sequence((b, Repeat(a)))) == Optional(Sequence((b, Repeat(a))))


def test_rules_that_may_be_empty_have_no_gaps() -> None:
    name = Terminal("NAME")
    assert with_gaps({"own": name}, is_word, "own") == {"own": name}
    with pytest.raises(GrammarError, match="the rule own has no text"):
        with_gaps({"own": Choice(())}, is_word, "own")
    with pytest.raises(GrammarError, match="the rule other may be empty"):
        with_gaps({"own": Sequence((name, Rule("other"))), "other": Optional(name)}, is_word, "own")


def test_a_scanner_with_other_gaps_or_names_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written of them would not be what it reads."""
    monkeypatch.setattr(terminals, "GAP", "[ ]x")
    with pytest.raises(GrammarError, match=r"the lexer's gap \[ \]x is no repetition"):
        terminals.gap_pieces.__wrapped__()
    for pattern in ("[a-z]", "[a-z][0-9]+(?!b)"):
        monkeypatch.setattr(terminals, "patterns", lambda text=pattern: {"NAME": parse_pattern(text)})
        with pytest.raises(GrammarError, match="is not a first character and further ones"):
            terminals.name_classes.__wrapped__()


def test_lookaheads_stand_at_the_end() -> None:
    assert write_pattern(without_lookahead(parse_pattern("ab(?!c)(?!d)"))) == "ab"
    with pytest.raises(GrammarError, match="lookahead"):
        without_lookahead(parse_pattern("a(?!b)c"))


def test_false_starts() -> None:
    assert has_false_start(parse_pattern(PATTERNS["NUMBER"]))
    assert not has_false_start(parse_pattern(PATTERNS["SIZE"]))


def test_classes_without_characters() -> None:
    letters = Characters(((ord("a"), ord("e")), (ord("x"), ord("x"))))
    assert write_pattern(letters.without("cx")) == "[a-bd-e]"
    assert write_pattern(letters.without("ae")) == "[b-dx]"
    assert write_pattern(Characters(letters.ranges, is_negated=True).without("zf")) == "[^a-exfz]"


def test_a_character_that_formats_write_differently_is_an_error() -> None:
    assert escape("\u00e9", "") == "\\xE9"
    with pytest.raises(GrammarError, match="the character '\u03c0', which the formats write differently"):
        escape("\u03c0", "")
