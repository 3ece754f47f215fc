"""Weights of alternatives: how often samples hold each, and nothing else."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.search.strategies.random import RandomSearch
from nasdsl.spaces import loads_space
from nasdsl.syntax.formatter import format_text

PLAIN = """
choice op = conv_1x1 | conv_3x3 | skip
decoder t {
  input c3, c4
  fpn(width=32, norm=bn) { output p3 = sum(?op(?(c3 | c4)), ?op(c3)) }
  head(width=32) { conv_3x3 }
  predict fcos
}
"""
WEIGHTED = PLAIN.replace("conv_1x1 |", "conv_1x1 : 3 |").replace("| skip", "| skip : 0.5").replace("?(c3 |", "?(c3 : 9 |")


def test_samples_hold_each_as_often_as_its_weight_says() -> None:
    """Four standard deviations of a share of 2000 draws are at most 0.045."""
    space = loads_space(WEIGHTED)
    samples = list(space.samples(2000, seed=0))
    wanted = [
        {"conv_1x1": 3 / 4.5, "conv_3x3": 1 / 4.5, "skip": 0.5 / 4.5},
        {"c3": 0.9, "c4": 0.1},
        {"conv_1x1": 3 / 4.5, "conv_3x3": 1 / 4.5, "skip": 0.5 / 4.5},
    ]
    for at, share in enumerate(wanted):
        drawn = Counter(space.domains[at].alternatives[sample.indices[at]] for sample in samples)
        assert {text: count / 2000 for text, count in drawn.items()} == pytest.approx(share, abs=0.045)


def test_the_first_proposals_of_a_strategy_are_samples() -> None:
    space = loads_space(WEIGHTED)
    strategy = RandomSearch(space, seed=1)
    drawn = Counter(strategy.propose().indices[1] for _ in range(400))
    assert drawn[0] / 400 == pytest.approx(0.9, abs=0.06)


def test_weights_change_neither_the_fillings_nor_their_numbers() -> None:
    plain, weighted = loads_space(PLAIN), loads_space(WEIGHTED)
    assert weighted.size == plain.size
    assert [d.alternatives for d in weighted.domains] == [d.alternatives for d in plain.domains]
    for sample in weighted.samples(20, seed=3):
        assert plain.encode(sample) == weighted.encode(sample) == list(sample.indices)
        assert ":" not in sample
    equal = WEIGHTED.replace(": 3", ": 2").replace(": 0.5", ": 2").replace("conv_3x3 |", "conv_3x3 : 2 |").replace(" : 9", "")
    drawn = [sample.indices for sample in loads_space(equal).samples(20, seed=5)]
    assert drawn == [sample.indices for sample in plain.samples(20, seed=5)]  # equal weights draw as none


def test_the_formatter_keeps_weights() -> None:
    formatted = format_text(WEIGHTED)
    assert "choice op = conv_1x1 : 3 | conv_3x3 | skip : 0.5" in formatted
    assert "?(c3 : 9 | c4)" in formatted


def test_a_draw_is_one_of_the_alternatives() -> None:
    rng = random.Random(0)
    assert {domain.draw(rng) for domain in loads_space(WEIGHTED).domains[:1] for _ in range(100)} == {0, 1, 2}


@pytest.mark.parametrize(
    ("choice", "codes"),
    {
        "conv_3x3 | nonee": ["NAS201"],
        "conv(k=3) | conv(kk=3) | conv(k=2)": ["NAS302", "NAS303"],
        "conv_3x3 -> nothing | skip": ["NAS201"],
        "conv_3x3 | ?nothing": ["NAS502"],
        "conv_3x3 | conv_3x3": ["NAS507"],
        "conv_3x3 : 0 | skip": ["NAS512"],
        "bn | gn": [],
        "max | avg": [],
        "relu | swish": [],
        "c3 | x1": [],
        "1 | 2": [],
        "conv_3x3 | skip | none": [],
        "sum | cat | relu": [],
    }.items(),
)
def test_a_choice_that_nothing_draws_from_is_checked(choice: str, codes: list[str]) -> None:
    """Where one of its alternatives can be nothing but an op."""
    found = check_source(Source("t.nas", f"choice op = {choice}")).problems
    assert [p.code for p in found] == codes
