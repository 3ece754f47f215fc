"""Positions of the protocol against what encoding a line says, for any text."""

from __future__ import annotations

import time

import editor
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_speed import slowness

from nasdsl.lsp.positions import Lines

TEXTS = st.text(st.sampled_from("ab #\n\r\x0b\x0c\x1c\x85\u2028é漢\U0001f600\U00010000\ud800\udc00"), max_size=24)
ENCODINGS = ["utf-16", "utf-8", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=100, deadline=None, derandomize=True)
@given(TEXTS)
def test_each_character_has_its_position(encoding: str, text: str) -> None:
    lines = Lines(text, encoding)
    for offset in range(len(text) + 1):
        if text[offset - 1 : offset + 1] == "\r\n":  # within a line end: the end of its line
            assert lines.position(offset) == lines.position(offset - 1)
            continue
        place = editor.position(text, offset, encoding)
        assert lines.position(offset) == place
        assert lines.offset(place) == offset


@settings(max_examples=100, deadline=None, derandomize=True)
@given(TEXTS, st.integers(0, 30), st.integers(0, 60))
def test_positions_that_no_character_has_are_near_one(text: str, line: int, character: int) -> None:
    lines = Lines(text)
    offset = lines.offset(editor.types.Position(line, character))
    assert 0 <= offset <= len(text)
    found = lines.position(offset)
    assert found.line == min(line, len(lines.starts) - 1)
    assert found.line < line or found.character <= character


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_place_of_a_long_line_takes_no_longer_than_one_of_a_short_line(encoding: str) -> None:
    text = "\U0001f600é" * 100_000
    lines = Lines(text, encoding)
    for offset in range(0, 200_001, 12_500 - 1):
        assert lines.position(offset) == editor.position(text, offset, encoding)
    start = time.process_time()
    for offset in range(0, 200_000, 200):
        assert lines.offset(lines.position(offset)) == offset
    assert time.process_time() - start < slowness()


def test_another_encoding_can_be_agreed_on() -> None:
    text = "decoder d { input c3 } # é😀\n# é\nfoo"
    with editor.editor(encodings=["utf-8"]) as ed:
        assert ed.capabilities.position_encoding == "utf-8"
        found = ed.open("\U0001f600 decoder")
        assert found[0].range.end.character == 4
        assert ed.open(text)
