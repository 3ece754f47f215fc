"""The edits of formatting: they make the text that ``nasdsl fmt`` makes, of the lines that change, in any text."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_speed import slowness
from zoo_files import ZOO

from nasdsl.lsp.formatting import changes
from nasdsl.syntax.formatter import format_text

LINES = st.lists(st.sampled_from(["a = b\n", "a=b\n", "a\n", "= b\n", "\n", "  \n", ";\n", "c", "d\n"]), max_size=12)


def applied(old: list[str], new: list[str]) -> list[str]:
    """The lines that the changes make."""
    made, at = list[str](), 0
    for first, last, to_first, to_last in changes(old, new):
        assert at <= first <= last
        made += [*old[at:first], *new[to_first:to_last]]
        at = last
    return [*made, *old[at:]]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(LINES, LINES)
def test_any_lines_become_any_others(old: list[str], new: list[str]) -> None:
    assert applied(old, new) == new


@pytest.mark.parametrize("path", ZOO, ids=lambda path: path.stem)
def test_lines_that_are_right_stay(path: Path) -> None:
    right = format_text(path.read_text()).splitlines(keepends=True)
    assert list(changes(right, right)) == []
    at = random.Random(path.stem).choice([n for n, line in enumerate(right) if line.strip() and not line.startswith("#")])
    assert list(changes([*right[:at], "  " + right[at], *right[at + 1 :]], right)) == [(at, at + 1, at, at + 1)]
    assert list(changes([*right[:at], "\n", *right[at:]], right)) == [(at, at + 1, at, at)]


def test_many_lines_that_are_alike_take_no_longer() -> None:
    old = ["x=f(x)\n", "y = f(x)\n"] * 10_000
    start = time.process_time()
    assert len(list(changes(old, ["x = f(x)\n", "y = f(x)\n"] * 10_000))) == 10_000
    assert time.process_time() - start < slowness()
