"""Conditions on decisions against trying all fillings."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.semantics.conditions import ALWAYS, Branch, Condition, both, first_open, holds, implies, truth
from nasdsl.semantics.elaborate_attribute import MAX_OPERATORS
from nasdsl.semantics.elaborate_count import MAX_COUNTS, Count
from nasdsl.spaces.condition import count_fillings

SIZES = (2, 3, 4)


def random_condition(rng: random.Random, decisions: int = len(SIZES)) -> Condition[int]:
    """A condition of one or two cases on the first decisions."""
    cases = []
    for _ in range(rng.randint(1, 2)):
        chosen = sorted(rng.sample(range(decisions), rng.randint(0, decisions)))
        cases.append(tuple((n, frozenset(rng.sample(range(SIZES[n]), rng.randint(1, SIZES[n])))) for n in chosen))
    return tuple(cases)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_implied_holds_wherever_the_first_does(seed: int) -> None:
    rng = random.Random(seed)
    seen = set()
    for _ in range(200):
        first, second = random_condition(rng), random_condition(rng)
        fillings = list(itertools.product(*map(range, SIZES)))
        seen.add(implies(first, second))
        assert implies(first, first)
        if implies(first, second):
            assert all(holds(second, filling) for filling in fillings if holds(first, filling))
    assert seen == {True, False}


@pytest.mark.parametrize("seed", range(20))
def test_what_is_asked_next_may_still_make_a_condition_hold(seed: int) -> None:
    rng = random.Random(seed)
    seen = set()
    for _ in range(200):
        condition = random_condition(rng)
        known = {number: rng.randrange(size) for number, size in enumerate(SIZES) if rng.random() < 0.5}
        state = truth(condition, known)
        seen.add(state)
        if state is None:
            asked = first_open(condition, known)
            assert asked not in known
            more = [{**known, asked: at} for at in range(SIZES[asked])]
            assert any(truth(condition, filled) is not False for filled in more)
        elif not state:
            with pytest.raises(ValueError, match="nothing is open"):
                first_open(condition, known)
    assert seen == {True, False, None}


@pytest.mark.parametrize("seed", range(20))
def test_turns_that_are_there_together(seed: int) -> None:
    rng = random.Random(seed)

    def random_ends(depth: int) -> Any:
        if depth == len(SIZES):
            return rng.randint(0, 4), rng.randint(0, 9)
        return Branch(depth, tuple([random_ends(depth + 1) for _ in range(SIZES[depth])]))

    def decided(ends: Any, filling: tuple[int, ...]) -> tuple[int, int]:
        while isinstance(ends, Branch):
            ends = ends.alternatives[filling[ends.decision]]
        first, last = ends
        return first, last

    ends = random_ends(1)
    parts = list(Count(ends, range(10)).parts())
    assert [turn for _, turns in parts for turn in turns] == list(range(10))
    for filling in itertools.product(*map(range, SIZES)):
        first, last = decided(ends, filling)
        there = [turn for condition, turns in parts for turn in turns if holds(condition, filling)]
        assert there == list(range(first, last + 1))
    assert [turns for _, turns in Count((2, 5), range(2, 6)).parts()] == [range(2, 6)]


@pytest.mark.parametrize("seed", range(30))
def test_fillings_are_as_many_as_there_are(seed: int) -> None:
    """Those that differ in a decision that counts; several decisions may be there together, and nothing depend on them."""
    rng = random.Random(seed)
    sizes = [*SIZES, *(rng.randint(1, 3) for _ in range(3))]
    own: list[Condition[int]] = []

    def whole(condition: Condition[int]) -> Condition[int]:
        """With the conditions of those that it names, as each has."""
        for number in sorted({number for case in condition for number, _ in case}):
            condition = both(condition, own[number])
        return condition

    for number in range(len(SIZES)):
        own.append(whole(random_condition(rng, number)))
    conditions = [*own, *rng.choices([whole(random_condition(rng)), whole(random_condition(rng)), ALWAYS], k=3)]
    different = {
        tuple(at if holds(condition, filling) else None for at, condition in zip(filling, conditions, strict=True))
        for filling in itertools.product(*map(range, sizes))
    }
    assert count_fillings(sizes, conditions) == len(different)


@pytest.mark.parametrize(("count", "codes"), [(MAX_COUNTS, []), (MAX_COUNTS + 1, ["NAS504"])])
@pytest.mark.parametrize("place", ["repeat", "chain"])
def test_counts_that_are_told_apart(place: str, count: int, codes: list[str]) -> None:
    hole = f"?(1..{count})"
    fpn = f"repeat {hole} {{ x = relu(x) }}" if place == "repeat" else ""
    step = f"* {hole}" if place == "chain" else ""
    assert errors(fpn, step) == codes


@pytest.mark.parametrize(("first", "others"), [(MAX_COUNTS, 2), (1, MAX_OPERATORS // 2 - 1)])
def test_a_hole_of_one_alternative_tells_no_counts_apart(first: int, others: int) -> None:
    """However many there are: only the holes that decide something are limited."""
    lets = f"let k0 = ?(1..{first}) " + " ".join(f"let k{number + 1} = k{number} + ?(1..1)" for number in range(others))
    assert errors(f"{lets} repeat k{others} {{ x = relu(x) }}") == []


def errors(fpn: str, step: str = "") -> list[str]:
    text = (
        f"decoder d {{ input c3 fpn(width=32) {{ x = c3 {fpn} output p3 = x }} head(width=32) {{ skip {step} }} predict fcos }}"
    )
    return [problem.code for problem in check_source(Source("t.nas", text)).problems if problem.severity == "error"]
