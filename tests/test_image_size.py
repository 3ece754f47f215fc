"""Sizes of images as text."""

from __future__ import annotations

import pytest

from nasdsl.image_size import parse_size


@pytest.mark.parametrize(("text", "size"), [("800x1088", (800, 1088)), ("1x99999", (1, 99_999)), ("007x08", (7, 8))])
def test_sizes(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    ["", "x", "800", "800x", "x800", "0x10", "10x0", "-1x5", "1x2x3", "8 x 8", "8x8\n", "\u0663x\u0664", "1x100000", "1e2x1"],
)
def test_what_is_no_size(text: str) -> None:
    assert parse_size(text) is None
