"""Properties of parsing: valid texts mean the same in every layout; invalid ones give diagnostics and never raise."""

from __future__ import annotations

import random
import time

import pytest
from findings import checked
from hypothesis import given, settings
from hypothesis import strategies as st
from language_page import TEXTS
from parse_tools import tokens
from zoo_files import ZOO, marks

from nasdsl.diagnostics import Source
from nasdsl.syntax import ast
from nasdsl.syntax.encoding import decode
from nasdsl.syntax.lexer import RESERVED, WORD_FOLLOWED_BY
from nasdsl.syntax.parser import parse

RIGHT = {path.stem: path.read_text(encoding="utf-8") for path in ZOO} | TEXTS
few = settings(max_examples=150, deadline=None, derandomize=True)
layouts = st.randoms(use_true_random=False)


def tree(text: str) -> ast.File:
    parsed = parse(Source("t.nas", text))
    assert parsed.problems == []
    assert parsed.lost is None
    return parsed.file


def words(text: str) -> list[str]:
    """The tokens of a text, by an independent scanner."""
    out: list[str] = []
    position = 0
    while position < len(text):
        c = text[position]
        if c.isspace():
            position += 1
        elif c == "#":
            end = text.find("\n", position)
            position = len(text) if end < 0 else end
        elif c == '"':
            end = (text.find('"', position + 1) + 1) or len(text)
            out.append(text[position:end])
            position = end
        elif c.isalnum() or c == "_":
            end = position
            while text[end : end + 1].isalnum() or (text[end : end + 1] in ("_", ".") and text[end : end + 2] != ".."):
                end += 1
            out.append(text[position:end])
            position = end
        else:
            size = 2 if text[position : position + 2] in ("->", "..", "<=", ">=", "==") else 1
            out.append(text[position : position + size])
            position += size
    return out


def laid_out(pieces: list[str], layout: random.Random) -> str:
    """The tokens with random white space and comments between them, or nothing if none is needed."""
    out = []
    for before, piece in zip(["", *pieces], pieces, strict=False):
        touching = before[-1:].isalnum() or before[-1:] == "_"
        needed = touching and (piece[0].isalnum() or piece[0] == "_")
        gap = layout.choice(["", "", " ", "\n", "\t", "\r\n", '  # a comment, ; { " \n', "\n\n   ", "#\n"])
        out.append((gap or " ") if needed else gap)
        out.append(piece)
    return "".join(out) + layout.choice(["", "\n", " # at the end", "\n\n"])


@pytest.mark.parametrize("name", RIGHT)
def test_the_scanner_sees_what_a_plain_one_sees(name: str) -> None:
    assert [t.value for t in tokens(RIGHT[name])] == words(RIGHT[name])


@pytest.mark.parametrize("name", RIGHT)
def test_white_space_and_comments_carry_no_meaning(name: str) -> None:
    text = RIGHT[name]
    for seed in range(20):
        assert tree(laid_out(words(text), random.Random(seed))) == tree(text)


@pytest.mark.parametrize("name", RIGHT)
def test_the_one_line_form_is_the_same_text(name: str) -> None:
    line = " ".join(words(RIGHT[name]))
    assert "\n" not in line
    assert tree(line) == tree(RIGHT[name])


def _ends(node: object) -> list[int]:
    """Offsets at which statements, sections and definitions end, where a `;` is allowed."""
    found: list[int] = []
    if isinstance(node, ast.File):
        for item in node.items:
            found += [item.span.end, *_ends(item)]
    for name in ("items", "body"):
        inner = getattr(node, name, ())
        if not isinstance(node, ast.File) and isinstance(inner, tuple):
            for item in inner:
                found += [item.span.end, *_ends(item)]
    return found


@pytest.mark.parametrize("name", RIGHT)
def test_semicolons_between_statements_carry_no_meaning(name: str) -> None:
    text = RIGHT[name]
    ends = sorted(set(_ends(tree(text))), reverse=True)
    assert ends
    for seed in range(8):
        layout = random.Random(seed)
        other = text
        for end in ends:
            if layout.random() < 0.7:
                other = other[:end] + layout.choice([";", " ;;", "\n;"]) + other[end:]
        assert tree(other) == tree(text)


@pytest.mark.parametrize("name", RIGHT)
def test_spans_cover_what_they_are_spans_of(name: str) -> None:
    """The text at the span of a node contains the node's name."""
    text = RIGHT[name]
    seen = 0

    def walk(node: object) -> None:
        nonlocal seen
        if isinstance(node, tuple) and not hasattr(node, "source"):
            for item in node:
                walk(item)
        elif isinstance(node, ast.Node):
            assert 0 <= node.span.start < node.span.end <= len(text)
            named = getattr(node, "name_span", None) or (node.span if hasattr(node, "name") else None)
            if named is not None and not isinstance(node, ast.NamedHole):
                assert text[named.start :].startswith(node.name)
                seen += 1
            for field in node.__dataclass_fields__:
                walk(getattr(node, field))

    walk(tree(text))
    assert seen > 10


# --------------------------------------------------------------------------------------------- texts that are wrong

SIGNS = "( ) { } [ ] , ; = : -> .. ? | + - * / <= == 1 0 120G 800x1088 x1 c3 p3 width conv_3x3"
SOUP = [*RESERVED, *SIGNS.split(), '"a.nas"', "\n"]


@few
@given(st.text(max_size=300))
def test_any_text_can_be_checked(text: str) -> None:
    assert checked(text).problems or not text.strip() or text.lstrip().startswith(("#", ";"))


@few
@given(st.binary(max_size=300))
def test_any_bytes_can_be_checked(data: bytes) -> None:
    checked(decode(data))


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(SOUP), max_size=60))
def test_any_tokens_can_be_checked(pieces: list[str]) -> None:
    checked(" ".join(pieces))


@few
@given(st.sampled_from(sorted(RIGHT)), st.lists(st.sampled_from(SOUP), max_size=12), layouts)
def test_any_tokens_inside_a_decoder_can_be_checked(name: str, pieces: list[str], layout: random.Random) -> None:
    known = words(RIGHT[name])
    at = layout.randrange(len(known) + 1)
    checked(" ".join([*known[:at], *pieces, *known[at:]]))


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in TEXTS else marks(name)) for name in RIGHT])
def test_a_text_cut_off_anywhere_can_be_checked(name: str) -> None:
    """At every offset, or every seventh of a long text; an error is reported unless only whole definitions are left."""
    text = RIGHT[name]
    whole_until = [0] + [item.span.end for item in tree(text).items]
    for end in range(0, len(text), 1 if len(text) < 900 else 7):
        outcome = checked(text[:end])
        rest = text[max(e for e in whole_until if e <= end) : end]
        if words(rest)[:1] == ["decoder"]:
            assert any(d.severity == "error" for d in outcome.problems), text[:end]


@few
@given(st.sampled_from(sorted(RIGHT)), layouts)
def test_a_text_with_tokens_left_out_can_be_checked(name: str, layout: random.Random) -> None:
    kept = [w for w in words(RIGHT[name]) if layout.random() > 0.08]
    checked(" ".join(kept))


def test_deep_nesting_does_not_exhaust_the_interpreters_stack() -> None:
    for before, open_, close in (("x = ", "skip(", ")"), ("", "repeat 1 {", "}"), ("x = ", "x[", "]")):
        outcome = checked("decoder d { input c3 fpn(width=8) { " + before + open_ * 10_000 + close * 10_000)
        assert [d.code for d in outcome.problems] == ["NAS107"]


@pytest.mark.parametrize("word", WORD_FOLLOWED_BY)
@pytest.mark.parametrize("gap", [" ", "\n", " \n", "#", "# a\n", "#\n "])
def test_a_long_gap_behind_a_word_of_some_places_is_read_at_once(word: str, gap: str) -> None:
    """What follows decides whether it is a word or a name. Time that doubled with each character would not end here."""
    start = time.process_time()
    checked(f"op f({word}) = add({word}{gap * 20_000}\n, {word})")
    assert time.process_time() - start < 2
