"""Valid texts with one mistake put in: what is reported, where, and whether the suggested fixes work."""

from __future__ import annotations

import random

import pytest
from findings import assert_fixes_work, checked, fixed
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from malformed import MALFORMED
from parse_tools import tokens
from zoo_files import ZOO

from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.syntax.lexer import RESERVED, WORDS
from nasdsl.syntax.parser import parse

TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in ZOO}
LARGE = {"dyhead", "nas_fpn", "yolov8", "yolox", "sepc", "rtdetr"}
"""Whose texts are long: among the long tests where each is tried."""
names = st.sampled_from(sorted(TEXTS))
places = st.integers(0, 10**6)
SIGNS = [*"(){}[],;=:?|+-*/", "->", "..", "<=", "==", "0", "3", "64", "c3", "zz", '"f.nas"', *RESERVED]
many = settings(max_examples=200, deadline=None, derandomize=True)


def _cut(text: str, start: int, end: int, put: str) -> str:
    return text[:start] + put + text[end:]


@many
@given(names, places, st.sampled_from(["out", "twice", "other", "put"]), st.sampled_from(SIGNS))
def test_one_token_wrong_is_found_in_its_place(name: str, at: int, how: str, sign: str) -> None:
    text = TEXTS[name]
    found = tokens(text)
    token = found[at % len(found)]
    wrong = {
        "out": _cut(text, token.start, token.end, ""),
        "twice": _cut(text, token.end, token.end, " " + token.value),
        "other": _cut(text, token.start, token.end, f" {sign} "),
        "put": _cut(text, token.start, token.start, f" {sign} "),
    }[how]
    checked(wrong)
    assert_fixes_work(wrong)


@many
@given(names, places, st.sampled_from("$@!^&~%\\`'\x00\x7f\ufffdéß漢→“"))
def test_one_character_wrong_is_found_in_its_place(name: str, at: int, character: str) -> None:
    text = TEXTS[name]
    at %= len(text)
    line = text[text.rfind("\n", 0, at) + 1 : at]
    assume("#" not in line)
    wrong = _cut(text, at, at, character)
    problems = checked(wrong).problems
    assert problems
    touching = [d for d in problems if d.span.start <= at < max(d.span.end, d.span.start + 1)]
    assert touching, [str(d.span) for d in problems]
    assert_fixes_work(wrong)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in LARGE else ()) for name in sorted(TEXTS)]
)
def test_leaving_out_any_bracket_or_sign_is_one_syntax_error_near_it(name: str) -> None:
    """At most one syntax error, on the line of the sign."""
    text = TEXTS[name]
    for token in tokens(text):
        if token.type not in ("LPAR", "RPAR", "COMMA", "EQUAL", "ARROW", "LBRACE", "RBRACE"):
            continue
        wrong = _cut(text, token.start, token.end, " ")
        problems = parse(Source("t", wrong)).problems
        assert len(problems) <= 1, (wrong[token.start - 40 : token.start + 40], [d.message for d in problems])
        for problem in problems:
            if token.type not in ("LBRACE", "RBRACE"):  # a closing brace is missed where the next statement cannot stand
                assert problem.span.line == token.span.line, (str(problem.span), problem.message, token.span)


@pytest.mark.parametrize("word", ["decoder", "input", "fpn", "output", "merge", "dangling", "into", "head", "predict"])
def test_a_misspelt_word_of_the_language_is_recognised(word: str) -> None:
    """Two letters swapped, one left out, one doubled: the word is suggested once, in the right place."""
    text = TEXTS["nas_fcos"]
    token = next(t for t in tokens(text) if t.value == word)
    spellings = {word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in range(1, len(word) - 1)}
    for i in range(1, len(word)):
        spellings |= {word[:i] + word[i + 1 :], word[:i] + word[i - 1 :]}
    spellings |= {word.upper(), word.capitalize()}
    for wrong in sorted(spellings - {word} - set(RESERVED)):
        problems = checked(_cut(text, token.start, token.end, wrong)).problems
        assert [(d.span.start, d.fix) for d in problems] == [(token.start, word)], (wrong, [d.message for d in problems])


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_a_misspelt_op_or_value_is_recognised(name: str) -> None:
    """Names misspelt where they are used: there is a diagnostic in that place, and its fix restores the text."""
    text = TEXTS[name]
    layout = random.Random(0)
    found = tokens(text)
    triples = zip(found, found[1:], found[2:], strict=False)
    called = [t for before, t, after in triples if (t.type, after.type) == ("NAME", "LPAR") and before.value not in WORDS]
    read = [t for t in called if len(t.value) > 4]
    for token in layout.sample(read, min(12, len(read))):
        wrong = token.value[:2] + token.value[3:]
        mistake = _cut(text, token.start, token.end, wrong)
        problems = checked(mistake).problems
        here = [d for d in problems if d.span.start == token.start]
        assert here, mistake[token.start - 20 : token.start + 20]
        if here[0].code == "NAS201":
            assert here[0].fix == token.value
            assert fixed(mistake, here[0]) == text


def test_the_fixes_of_the_malformed_texts_work() -> None:
    tried = {name: assert_fixes_work(text) for name, text in MALFORMED.items()}
    assert sum(tried.values()) > 50
    mended = 0
    for text in MALFORMED.values():
        problems = check_source(Source("t", text)).problems
        if len(problems) == 1 and problems[0].fix is not None:
            assert check_source(Source("t", fixed(text, problems[0]))).problems == []
            mended += 1
    assert mended > 35, "a file whose one mistake has a fix is right after it"


def test_a_call_that_is_still_open_costs_few_findings() -> None:
    """The lines behind it begin as its own line does: they are statements, and no attributes of the call."""
    lines = ["decoder d {", "  input c3, c4", "  fpn(width=64) {", *(f"    x{i} = sum(conv_3x3(c3), c4)" for i in range(60))]
    text = "\n".join([*lines, "    output p3 = x1", "  }", "  head(width=64) { conv_3x3 }", "  predict fcos", "}", ""])
    for typed in ("    y = sum(\n", "    y = sum(conv_3x3(\n", "    y = sum(conv_3x3(c3), conv(c4, k=\n"):
        at = text.index("    x20 =")
        problems = check_source(Source("t", text[:at] + typed + text[at:])).problems
        assert 1 <= len([p for p in problems if p.severity == "error"]) <= 8, typed
