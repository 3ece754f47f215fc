"""Fuzzing at a small size, and the texts in which it has found something."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from nasdsl.syntax.encoding import decode
from torture import exercise, fuzz_texts
from torture.subject import Report

pytestmark = pytest.mark.usefixtures("own_garbage")

STRIDED = "decoder d { input c3 fpn(width=32) { output p3 = conv_3x3(c3) } head(width=32, norm=gn) { conv_3x3 } predict fcos }"
REGRESSIONS = sorted((Path(__file__).parents[1] / "data" / "regressions").glob("*.nas"))


@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2))])
@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_what_was_found_once(path: Path, seed: int) -> None:
    """Each file is a text in which something was wrong, and is named after it."""
    report = Report()
    exercise.exercise(decode(path.read_bytes()), random.Random(seed), report)
    assert report.findings == []


@pytest.mark.parametrize("first", [0, *(pytest.param(n, marks=pytest.mark.long) for n in (1000, 2000))])
def test_texts(first: int) -> None:
    report = Report()
    for number in range(first, first + (40 if first == 0 else 400)):
        exercise.exercise(fuzz_texts.text(number), random.Random(number), report, editor=number % 3 == 0)
        assert report.findings == [], number
    assert report.counts["that check"] > report.counts["texts"] / 20
    assert report.counts["digests kept by fmt"] > 0


def test_a_formatter_that_changes_a_decoder_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    right = exercise.format_text
    monkeypatch.setattr(exercise, "format_text", lambda text: right(text).replace("conv_3x3", "conv_1x1"))
    with pytest.raises(AssertionError, match="formatting changed the digest"):
        exercise.exercise(STRIDED, random.Random(0), Report(), editor=False)


def test_an_error_that_the_server_hides_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.lsp.analysis.check_source", lambda *_, **__: 1 / 0)
    with pytest.raises(AssertionError, match="the language server logs"):
        exercise.exercise("decoder", random.Random(0), Report())
