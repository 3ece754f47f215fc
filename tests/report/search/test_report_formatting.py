"""Formatting of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasdsl.report import formatting
from nasdsl.report.search.objectives import objective_words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"), (999, "999"), (999.9, "1.00 k"), (1000, "1.00 k"), (831_744, "832 k"), (1_134_000_000, "1.13 G"),
        (999_999, "1.00 M"), (20e9, "20.0 G"), (2.5e12, "2.50 T"), (None, formatting.MISSING),
    ],
)  # fmt: skip
def test_amounts(value: float | None, words: str) -> None:
    assert formatting.amount(value) == words


@given(st.floats(1, 1e14))
def test_amounts_are_right_to_three_digits(value: float) -> None:
    number, _, unit = formatting.amount(value).partition(" ")
    scale = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[unit]
    assert float(number) * scale == pytest.approx(value, rel=0.0051 if scale > 1 else 0.51)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (59.97, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (97_200, "1 d 03 h"),
        (60, "1 min 00 s"),
        (None, formatting.MISSING),
    ],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert formatting.duration(seconds) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("reward", "the reward alone"), ("macs:2G", "MACs at 2.00 G (exponent \N{MINUS SIGN}0.07)"),
        ("latency:15ms:0:-1", "latency at 15.0 ms (exponents 0 below and \N{MINUS SIGN}1 above)"), ("strange", "strange"),
        ("reward,macs,latency", "the front of reward and MACs of the detector and latency of the detector"),
    ],
)  # fmt: skip
def test_objectives(text: str, words: str) -> None:
    assert objective_words(text) == words
