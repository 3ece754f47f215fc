"""Regularised evolution: the oldest member is removed, the best of a sample is the parent."""

from __future__ import annotations

import itertools
import random
from collections import deque

import pytest
from strategy_spaces import additive, space

from nasdsl.search.strategies import evolution, make_strategy
from nasdsl.search.strategies.evolution import Evolution


def is_mutant(child: tuple[int, ...], parent: tuple[int, ...]) -> bool:
    return sum(i != j for i, j in zip(child, parent, strict=True)) == 1


def test_the_first_population_is_uniform_and_later_ones_are_mutants_of_members() -> None:
    strategy = Evolution(space("small"), population=20, sample=5)
    rng = random.Random(0)  # the strategy's own draws
    assert [strategy.propose() for _ in range(20)] == [space("small").sample(rng) for _ in range(20)]
    strategy = Evolution(space("small"), population=20, sample=5)
    alive: deque[tuple[int, ...]] = deque(maxlen=20)
    for number in range(100):
        text = strategy.propose()
        if number >= 20:
            assert any(is_mutant(text.indices, parent) for parent in alive)
        strategy.observe(text, additive(text.indices))
        alive.append(text.indices)


def test_the_best_of_a_large_sample_is_the_parent_until_it_is_the_oldest() -> None:
    strategy = Evolution(space("small"), population=4, sample=200)
    rewards = [None, 9.0, 1.0, 2.0]
    texts = [space("small").decode([i, i, i, i]) for i in range(4)]
    for text, reward in zip(texts, rewards, strict=True):
        strategy.propose()
        strategy.observe(text, reward)
    assert all(is_mutant(strategy.propose().indices, (1, 1, 1, 1)) for _ in range(20))
    strategy.observe(texts[0], None)  # the failure is the oldest
    assert all(is_mutant(strategy.propose().indices, (1, 1, 1, 1)) for _ in range(20))
    strategy.observe(texts[0], -5.0)  # now the best is the oldest, and removed
    assert all(is_mutant(strategy.propose().indices, (3, 3, 3, 3)) for _ in range(20))


def test_samples_of_other_strategies_count_for_the_first_population() -> None:
    strategy = Evolution(space("small"), population=4, sample=200)
    for i in range(4):
        strategy.observe(space("small").decode([i, i, i, i]), float(i))
    again = Evolution(space("small"), population=4, sample=200)
    again.load(strategy.state())
    for one in (strategy, again):
        assert all(is_mutant(one.propose().indices, (3, 3, 3, 3)) for _ in range(5))


def test_where_no_mutant_keeps_the_requirements_a_sample_does(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy, drawn = Evolution(space("scarce"), population=1), list[object]()
    text = strategy.propose()
    strategy.observe(text, 1.0)
    broken = next(
        n for n in itertools.product(*(range(d.size) for d in space("scarce").domains)) if not space("scarce").keeps(n)
    )
    monkeypatch.setattr(evolution, "mutate", lambda *given: drawn.append(given) or broken)
    monkeypatch.setattr(evolution, "MAX_DRAWS", 4)
    assert space("scarce").keeps(strategy.propose().indices)
    assert len(drawn) == 4


def test_a_failure_is_worse_than_any_number() -> None:
    strategy = Evolution(space("small"), population=2, sample=50)
    for text, reward in ((space("small").decode([0] * 4), None), (space("small").decode([2] * 4), -1e30)):
        strategy.propose()
        strategy.observe(text, reward)
    assert all(is_mutant(strategy.propose().indices, (2, 2, 2, 2)) for _ in range(20))


def test_the_population_is_the_papers() -> None:
    strategy = make_strategy("evolution", space("small"))
    assert isinstance(strategy, Evolution)
    assert (strategy.population, strategy.sample) == (50, 10)
