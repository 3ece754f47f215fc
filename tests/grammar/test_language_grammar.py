"""The exported grammar of the language accepts the texts that the parser has no finding about, in every format.

Oracles: the parser, lark, llguidance, and a reader of GBNF that knows nothing of nasdsl.
"""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest
from engines import TOO_DEEP, LlGuidance, has_syntax_error, lark_accepts, syntax_errors
from gbnf_reader import Grammar
from zoo_files import ZOO

from nasdsl.grammar_export import FORMATS, language_grammar

ROOT = Path(__file__).parents[2]
FILES = [*ZOO, *sorted((ROOT / "genotypes/spaces").glob("*.nas")), *sorted((ROOT / "tests/data").rglob("*.nas"))]

DECODER = "decoder d {{ input c3 fpn {{ {} }} head {{ a }} predict fcos }}"

RIGHT = [
    "", "# only a comment", "  # a comment\n", ";;", 'use"a.nas"', "op f(x)=g(x)#", "choice fpn = ?fpn | a : 3",
    DECODER.format("repeat t in 1..7 {}"), DECODER.format("repeat t in 1.5..7.5K { }"), DECODER.format("repeat t in(1)..7{}"),
    DECODER.format("repeat t in t-1..7 {}"), DECODER.format("x = ?(0..6)"), DECODER.format("x = ?( 0.5 .. 6 )"),
    DECODER.format("shared=c3 shared f(x)=g(x) x=shared(a)"), DECODER.format("let w = in shared f(x) = g(x)"),
    DECODER.format("x=f(a) distinct y=g(b)distinct z = ?in"), DECODER.format("output p3 = f(2 * -3, k=in, s=240x320)"),
    "decoder detector { let k = in detector(size=1x2) require latency <= 15ms on x at 1x2; predict detector(a=1) }",
    "decoder d { require count(op_)==3 require dangling<2 require macs<=1.5G }", "decoder d{head{cls:a box:b*2->?(c->d)}}",
    DECODER.format('x[t-1], y = ?(a(k=1) * 2 | 3 : 0.5)(c, "a b")'), DECODER.format("merge dangling into a,b[1]\r\n\t"),
]  # fmt: skip

WRONG = [
    "let", "decoder d{inputc3}", "repeat 3", DECODER.format("repeat3 {}"), DECODER.format("repeat t in1..7 {}"),
    DECODER.format("let a = 1 .5"), DECODER.format("let a = 1.5x"), DECODER.format("let a = 1...7"), DECODER.format("in = c3"),
    DECODER.format("x == a"), DECODER.format("x = a // b"), "op f(x) = \u00e4(x)",
    "op f\u00e4(x) = g(x)", "decoder d {require latency<=15ms on}", "decoder d{detector a=1}", DECODER.format('x = f("a'),
    DECODER.format("let fpn = 3"), "decoder decoder {}", "choice op =", "decoder d { x = c3 }", DECODER.format("shared (x)"),
]  # fmt: skip


@cache
def accepting(format: str):  # type: ignore[no-untyped-def]
    text = language_grammar(format)
    if format == "lark":
        return lark_accepts(text, parser="lalr")
    return (Grammar(text) if format == "gbnf" else LlGuidance(text)).accepts


@pytest.mark.parametrize("format", FORMATS)
def test_every_file_is_accepted_that_has_no_syntax_error(format: str) -> None:
    accepts = accepting(format)
    files = FILES if format != "gbnf" else FILES[6:9]  # all of them are among the long tests: the reader is slow
    found = [(path.name, accepts(text), not syntax_errors(text)) for path in files if (text := readable(path))]
    assert [f for f in found if f[1] != f[2]] == []
    assert len(found) >= (3 if format == "gbnf" else 35)


@pytest.mark.long
def test_every_file_in_gbnf() -> None:
    accepts = accepting("gbnf")
    for path in FILES:
        text = readable(path)
        if path.parent.name == "regressions" or len(text) > 4000:
            continue  # the reader takes minutes and gigabytes for them; lark and llguidance read them above
        assert accepts(text) == (not syntax_errors(text)), path


def readable(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@pytest.mark.parametrize("format", FORMATS)
def test_traps(format: str) -> None:
    """Ranges beside fractions, words that are names in places, words that touch, comments at the end."""
    accepts = accepting(format)
    assert [text for text in RIGHT if syntax_errors(text)] == []
    assert [text for text in WRONG if not syntax_errors(text)] == []
    assert [text for text in RIGHT if not accepts(text)] == []
    assert [text for text in WRONG if accepts(text)] == []


def changed(text: str, rng: random.Random) -> str:
    """A text with some of its characters left out, doubled, or exchanged."""
    pieces = list(text)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(pieces))
        piece = rng.choice(["", pieces[at] * 2, " ", ";", "in ", "..", "1.5", "shared ", "x", "(", "#\n", pieces[at - 1]])
        pieces[at : at + rng.randint(0, 2)] = [piece]
    return "".join(pieces)


@pytest.mark.parametrize(
    ("format", "count"),
    [("lark", 300), ("llguidance", 500), ("gbnf", 100), *(pytest.param(f, 5000, marks=pytest.mark.long) for f in FORMATS)],
)
def test_changed_texts_are_accepted_as_the_parser_does(format: str, count: int) -> None:
    accepts = accepting(format)
    rng = random.Random(count)
    long = [readable(path)[-400:] for path in ZOO[:6]]  # with a rest of a decoder in front they would be slow to read
    right = 0
    for _ in range(count):
        text = changed(rng.choice(RIGHT[3:] if rng.random() < 0.9 else long), rng)
        is_right = not has_syntax_error(text)
        right += is_right
        assert accepts(text) == is_right, text
    assert count * 0.05 < right < count * 0.95


# ---------------------------------------------------------------------------------------------- random walks


def walks(count: int) -> None:
    grammar = Grammar(language_grammar("gbnf"))
    rng = random.Random(0)
    lengths, tokens_seen = 0, set[str]()
    for number in range(count):
        text = grammar.walk(rng, 8 + number % 13, ("decoder", "root", "op-def", "block-def")[number % 4])
        assert not has_syntax_error(text) or set(syntax_errors(text)) <= {TOO_DEEP}, text
        lengths += len(text)
        tokens_seen |= {word for word in ("repeat", "..", "shared", "detector", " on", "distinct", "merge") if word in text}
    assert lengths > 15 * count
    assert len(tokens_seen) == 7


def test_random_walks_parse() -> None:
    walks(1_000)


@pytest.mark.long
def test_ten_thousand_random_walks_parse() -> None:
    walks(10_000)


def byte_walks(count: int) -> None:
    """llguidance itself says which byte may come next."""
    engine = LlGuidance(language_grammar("llguidance"))
    rng = random.Random(0)

    def choose(allowed: list[int]) -> int:
        likely = [code for code in allowed if chr(code) in "\n ;}()=123.x, " or rng.random() < 0.15]
        return rng.choice(likely or allowed)

    ended = 0
    for _ in range(count):
        made = engine.walk(choose, 120)
        if made is not None:
            ended += 1
            assert set(syntax_errors(made.decode())) <= {TOO_DEEP}, made
    assert ended > count / 10


def test_walks_of_llguidance_parse() -> None:
    byte_walks(100)


@pytest.mark.long
def test_many_walks_of_llguidance_parse() -> None:
    byte_walks(3_000)


def test_gbnf_has_no_left_recursion() -> None:
    assert not Grammar(language_grammar("gbnf")).is_left_recursive()
    assert Grammar('root ::= root "a" | "b"').is_left_recursive()


def test_a_broken_grammar_would_be_seen() -> None:
    """A needed gap that is left out lets a text in that the parser refuses."""
    right = language_grammar("gbnf")
    broken = right.replace('input ::= "input" gap name', 'input ::= "input" gap? name')
    assert broken != right
    assert Grammar(broken).accepts("decoder d { inputc3 }")
    assert not Grammar(right).accepts("decoder d { inputc3 }")
