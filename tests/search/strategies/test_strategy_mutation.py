"""Changes of fillings, and rewards as normal scores."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategy_spaces import space

from nasdsl.search.strategies.mutation import combine_changes, draw_uniform, mutate, neighbours, zero_inactive
from nasdsl.search.strategies.rewards import normal_scores


def differences(one: tuple[int, ...], other: tuple[int, ...], on: str) -> list[int]:
    """Decisions that are active in both and differ."""
    pairs = zip(space(on).active(one), space(on).active(other), one, other, strict=True)
    return [place for place, (a, b, i, j) in enumerate(pairs) if a and b and i != j]


@pytest.mark.parametrize("on", ["nested", "paper", "small", "depth"])
@given(seed=st.integers(0, 10_000))
def test_a_mutant_differs_in_one_active_decision(on: str, seed: int) -> None:
    rng = random.Random(seed)
    parent = draw_uniform(space(on), rng)
    child = mutate(space(on), parent, rng)
    assert child == zero_inactive(space(on), child)
    (place,) = differences(parent, child, on)
    for other, (i, j) in enumerate(zip(parent, child, strict=True)):
        domain = space(on).domains[other]
        assert 0 <= j < domain.size
        if i != j and other != place:  # became active or inactive
            assert place in domain.condition.depends_on()


def test_mutants_are_uniform_over_decisions_and_newly_active_ones_are_drawn() -> None:
    rng = random.Random(0)
    on = space("nested")
    parent = tuple([0] * len(on.domains))
    active = [d.index for d in on.domains if on.active(parent)[d.index]]
    changed: Counter[int] = Counter()
    drawn: dict[int, set[int]] = {}
    for _ in range(4000):
        child = mutate(on, parent, rng)
        (place,) = differences(parent, child, "nested")
        changed[place] += 1
        for domain in on.domains:
            if on.active(child)[domain.index] and not on.active(parent)[domain.index]:
                drawn.setdefault(domain.index, set()).add(child[domain.index])
    assert set(changed) == set(active)
    assert min(changed.values()) > 0.7 * 4000 / len(active)
    inner = [d for d in on.domains if not d.condition.is_always]
    assert {d.index: set(range(d.size)) for d in inner} == drawn


def test_neighbours_are_all_single_changes() -> None:
    rng = random.Random(0)
    parent = (1, 2, 3, 0)
    every = itertools.product(range(4), repeat=4)
    expected = {other for other in every if sum(i != j for i, j in zip(parent, other, strict=True)) == 1}
    found = list(neighbours(space("small"), parent, rng))
    assert len(found) == len(expected)
    assert set(found) == expected


def test_changes_are_combined_by_two_four_eight() -> None:
    """A change of a decision that was changed before is skipped, and not counted."""
    given_ = (0, 0, 0, 0)
    others = [(0, 2, 0, 0), (3, 0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 1), (0, 0, 2, 0), (1, 0, 0, 0)]
    assert list(combine_changes(space("small"), given_, others)) == [(3, 2, 0, 0), (3, 2, 2, 1)]
    assert list(combine_changes(space("small"), given_, others[:1])) == []


@pytest.mark.parametrize("on", ["nested", "paper"])
@given(seed=st.integers(0, 10_000))
def test_combined_changes_are_fillings_with_the_first_change(on: str, seed: int) -> None:
    rng = random.Random(seed)
    parent = draw_uniform(space(on), rng)
    others = list(neighbours(space(on), parent, rng))
    rng.shuffle(others)
    found = list(combine_changes(space(on), parent, others))
    assert found
    for child in found:
        assert child == zero_inactive(space(on), child)
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
