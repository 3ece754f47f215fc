"""Changes of one decision, and rewards as normal scores."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategy_spaces import space

from nasdsl.search.strategies.strategy import draw, joined, mutated, neighbours, normal_scores, settled


def differences(one: tuple[int, ...], other: tuple[int, ...], on: str) -> list[int]:
    """Decisions that count in both and differ."""
    pairs = zip(space(on).active(one), space(on).active(other), one, other, strict=True)
    return [place for place, (a, b, i, j) in enumerate(pairs) if a and b and i != j]


@pytest.mark.parametrize("on", ["nested", "paper", "small"])
@given(seed=st.integers(0, 10_000))
def test_a_mutant_differs_in_one_decision_that_counts(on: str, seed: int) -> None:
    rng = random.Random(seed)
    parent = draw(space(on), rng)
    child = mutated(space(on), parent, rng)
    assert child == settled(space(on), child)
    (place,) = differences(parent, child, on)
    for other, (i, j) in enumerate(zip(parent, child, strict=True)):
        domain = space(on).domains[other]
        assert 0 <= j < domain.size
        if i != j and other != place:  # opened or closed by the change
            ancestor = domain.parent
            while ancestor is not None and ancestor[0] != place:
                ancestor = space(on).domains[ancestor[0]].parent
            assert ancestor is not None


def test_mutants_are_uniform_over_decisions_and_what_opens_is_drawn() -> None:
    rng = random.Random(0)
    on = space("nested")
    parent = tuple([0] * len(on.domains))
    counting = [d.index for d in on.domains if on.active(parent)[d.index]]
    changed: Counter[int] = Counter()
    opened: dict[int, set[int]] = {}
    for _ in range(4000):
        child = mutated(on, parent, rng)
        (place,) = differences(parent, child, "nested")
        changed[place] += 1
        for domain in on.domains:
            if on.active(child)[domain.index] and not on.active(parent)[domain.index]:
                opened.setdefault(domain.index, set()).add(child[domain.index])
    assert set(changed) == set(counting)
    assert min(changed.values()) > 0.7 * 4000 / len(counting)
    inner = [d for d in on.domains if d.parent is not None]
    assert {d.index: set(range(d.size)) for d in inner} == opened


def test_neighbours_are_all_single_changes() -> None:
    rng = random.Random(0)
    parent = (1, 2, 3, 0)
    every = itertools.product(range(4), repeat=4)
    expected = {other for other in every if sum(i != j for i, j in zip(parent, other, strict=True)) == 1}
    found = list(neighbours(space("small"), parent, rng))
    assert len(found) == len(expected)
    assert set(found) == expected


def test_changes_are_joined_two_four_eight() -> None:
    """Of distinct decisions; one that changes a decision again is passed over, and is not counted."""
    given_ = (0, 0, 0, 0)
    others = [(0, 2, 0, 0), (3, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1), (0, 0, 2, 0), (1, 0, 0, 0)]
    assert list(joined(space("small"), given_, others)) == [(3, 2, 0, 0), (3, 2, 2, 1)]
    assert list(joined(space("small"), given_, others[:1])) == []


@pytest.mark.parametrize("on", ["nested", "paper"])
@given(seed=st.integers(0, 10_000))
def test_joined_changes_are_fillings_that_hold_the_first_of_them(on: str, seed: int) -> None:
    rng = random.Random(seed)
    parent = draw(space(on), rng)
    others = list(neighbours(space(on), parent, rng))
    rng.shuffle(others)
    found = list(joined(space(on), parent, others))
    assert found
    for child in found:
        assert child == settled(space(on), child)
        first = others[0]
        opened = [i for i, flag in enumerate(space(on).active(child)) if flag and first[i] != parent[i]]
        assert all(child[i] == first[i] for i in opened)
    assert len(differences(parent, found[0], on)) <= 2


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5).map(float)), max_size=30))
def test_normal_scores_against_counting(rewards: list[float | None]) -> None:
    value = [float("-inf") if r is None else r for r in rewards]
    for mine, score in zip(value, normal_scores(rewards).tolist(), strict=True):
        below, equal = sum(v < mine for v in value), sum(v == mine for v in value)
        assert score == pytest.approx(NormalDist().inv_cdf((below + equal / 2) / len(value)), abs=1e-9)
