"""Error recovery reads a text once: going back gives the tree that reading the repaired tokens from the first one gives."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nasdsl.diagnostics import Diagnostic, Source
from nasdsl.syntax.lexer import Tok, scan
from nasdsl.syntax.parser import parse, tables
from nasdsl.syntax.recovery import _Recovery, expected_behind, unreadable_numbers
from nasdsl.syntax.tables import TreeParser

ROOT = Path(__file__).parents[2]
TEXTS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "genotypes").rglob("*.nas"))]
PIECES = [
    "", "(", ")", "{", "}", ",", " x ", " = ", "?(", "..", '"', "\n", "[", "]", "repeat 3 {", "output ", "in ", "let ", " -> ",
    "fpn {", "head(", "choice a = ", "op f(x) = ", "1y", "99999999999999999999", "é",
]  # fmt: skip


def damaged(rng: random.Random) -> str:
    text = rng.choice(TEXTS)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(PIECES) + text[at + rng.choice([0, 1, 1, 8, 80]) :]
    return text


def tokens_of(text: str) -> list[Tok]:
    source = Source("t.nas", text)
    return [*scan(source, []), Tok("$END", "", len(text), len(text), source)]


def spans(tree: object) -> str:
    """A tree as text, with the places of its nodes."""
    if isinstance(tree, tuple) and not hasattr(tree, "_fields"):
        return f"({' '.join(map(spans, tree))})"
    fields = getattr(tree, "__dataclass_fields__", None)
    if fields is not None:
        return f"{type(tree).__name__}({' '.join(spans(getattr(tree, name)) for name in fields)})"
    return f"{tree.start}-{tree.end}" if hasattr(tree, "start") else repr(tree)


def check_recovery(text: str) -> None:
    tokens = tokens_of(text)
    unreadable = unreadable_numbers(tokens)
    parser = TreeParser(tables())
    parser.feed(tokens, 0, unreadable[0] if unreadable else len(tokens))
    if parser.tree is not None:
        return
    problems: list[Diagnostic] = []
    recovery = _Recovery(parser, tokens, unreadable, problems)
    recovery.run()
    assert problems or unreadable
    fresh = TreeParser(tables())
    assert fresh.feed(recovery.out, 0, len(recovery.out)) == len(recovery.out)
    assert parser.read == len(recovery.out)
    assert parser.tree == fresh.tree
    assert spans(parser.tree) == spans(fresh.tree)


@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.long) for s in range(1, 30))])
def test_the_tree_is_that_of_the_repaired_tokens(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60 if seed == 0 else 300):
        check_recovery(damaged(rng))


MANY_MISTAKES = """
decoder { input fpn ( = 256 norm = none act = none adapter = none { l3 conv_1x1 c3 ) l4 = conv_1x1 c4 ) l5 = conv_1x1 c5 )
m4 = add l4 , resize ( l5 , to = l4 mode = nearest ) m3 = add ( l3 a = mode = nearest output p5 = conv_3x3 ( l5 ) p4 = conv_3x3
p3 = conv_3x3 ( m3 )
"""
"""Most of what is read at first is skipped in the end, far in front of what the parser has read."""


def test_the_tree_where_much_is_skipped() -> None:
    check_recovery(MANY_MISTAKES)


def test_a_parser_that_goes_back_and_reads_again_gives_the_same_tree() -> None:
    rng = random.Random(0)
    for text in rng.sample(TEXTS, 8):
        tokens = tokens_of(text)
        parser = TreeParser(tables())
        while parser.tree is None:
            parser.feed(tokens, parser.read, min(parser.read + rng.randrange(1, 300), len(tokens)))
            if parser.tree is None and rng.random() < 0.5:
                back = rng.randrange(parser.read + 1)
                parser.go_back(back)
                assert back - 128 < parser.read <= back
        whole = TreeParser(tables())
        assert whole.feed(tokens, 0, len(tokens)) == len(tokens)
        assert spans(parser.tree) == spans(whole.tree)


def test_what_is_expected_behind_a_beginning_is_what_parsing_accepts() -> None:
    """Of each terminal: a text with it in this place is read at least up to it."""
    text = (ROOT / "genotypes" / "nas_fcos.nas").read_text(encoding="utf-8")
    rng = random.Random(0)
    whole = tokens_of(text)
    for number in rng.sample(range(len(whole) - 1), 25):
        beginning = whole[:number]
        end = Tok("$END", "", 0, 0, whole[0].source)
        expected = expected_behind(tables(), [*beginning, end])
        assert whole[number].type in expected
        for kind in {key for row in tables().rows.values() for key in row if key.isupper() and key != "$END"}:
            parser = TreeParser(tables())
            with_it = [*beginning, Tok(kind, "1", 0, 0, whole[0].source)]
            assert (parser.feed(with_it, 0, len(with_it)) == len(with_it)) == (kind in expected), kind


def test_fifty_mistakes_are_found_and_the_rest_is_left_out() -> None:
    source = Source("t.nas", "decoder d {\n fpn(width=64) {\n" + "  x = f(c3,,)\n" * 400 + " }\n}\n")
    problems = parse(source).problems
    assert len(problems) == 51
    assert problems[-1].message == "there are more errors than this"
