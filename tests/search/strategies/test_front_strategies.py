"""Strategies that search the front of reward and costs, on every space, with known and with measured costs."""

from __future__ import annotations

import io
import random
from typing import Any

import pytest
import torch
from strategy_spaces import additive, space

from nasdsl.search.hypervolume import hypervolume
from nasdsl.search.strategies import FRONT_STRATEGIES, FrontStrategy, StrategyError, make_strategy
from nasdsl.search.strategies.front_model import KnownCostTable, PricedFeatures
from nasdsl.search.strategies.gaussian_process import Features
from nasdsl.search.strategies.mutation import cross, draw_uniform
from nasdsl.search.strategies.nsga2 import NSGA2
from nasdsl.search.strategies.strategy import Aims
from nasdsl.spaces import Filled

NAMES = list(FRONT_STRATEGIES)
QUICK: dict[str, dict[str, Any]] = {
    "bayes": {"initial": 4, "candidates": 20, "climbs": 2},
    "nsga2": {"population": 6},
    "random": {},
}


def cost(indices: tuple[int, ...], factor: int) -> float:
    """A synthetic cost, largest where the reward is."""
    return 10.0 + sum((place * factor + index * 3) % 5 + index for place, index in enumerate(indices))


def known(indices: tuple[int, ...]) -> dict[str, float]:
    return {"macs": cost(indices, 6)}


ONE, TWO = Aims(("macs",), known), Aims(("macs", "latency"), known)
"""With one cost, which is known; with two, of which one is measured."""


def make(name: str, on: str, aims: Aims, seed: int = 0) -> FrontStrategy:
    strategy: Any = make_strategy(name, space(on), seed, aims, **QUICK[name])
    return strategy


def step(strategy: FrontStrategy, pending: list[Filled], order: random.Random) -> Filled:
    """Propose; once 3 samples are pending, observe one of them. Every fifth fails."""
    text = strategy.propose()
    pending.append(text)
    if len(pending) >= 3:
        done = pending.pop(order.randrange(len(pending)))
        costs = {**known(done.indices), "latency": 0.01 * cost(done.indices, 5)}
        if sum(done.indices) % 5 == 0:
            strategy.observe(done, None)
        else:
            strategy.observe(done, additive(done.indices), costs)
    return text


@pytest.mark.parametrize(
    ("on", "aims"),
    [("nested", ONE), ("nested", TWO), ("scarce", ONE), ("closed", TWO)],
    ids=["nested, known", "nested, measured", "scarce", "closed"],
)
@pytest.mark.parametrize("name", NAMES)
def test_proposals_keep_the_requirements_and_a_loaded_state_gives_the_same(name: str, on: str, aims: Aims) -> None:
    strategy, pending, order = make(name, on, aims), [], random.Random(0)
    for _ in range(9):
        text = step(strategy, pending, order)
        assert space(on).keeps(text.indices)
        assert space(on).decode(text.indices) == text
    file = io.BytesIO()
    torch.save(strategy.state(), file)
    file.seek(0)
    other = make(name, on, aims, seed=99)
    other.load(torch.load(file, weights_only=True))
    runs = [(strategy, list(pending), random.Random(2)), (other, list(pending), random.Random(2))]
    goes_on = [[step(one, mine, mixed) for _ in range(7)] for one, mine, mixed in runs]
    assert goes_on[0] == goes_on[1]


@pytest.mark.parametrize("name", ["bayes", "nsga2"])
def test_a_state_without_the_costs_is_refused(name: str) -> None:
    """Such as that of the same strategy with the reward as its only aim."""
    strategy, pending, order = make(name, "nested", TWO), [], random.Random(0)
    for _ in range(9):
        step(strategy, pending, order)
    state = strategy.state()
    if name == "bayes":
        with pytest.raises(StrategyError, match="lacks 'costs'"):
            strategy.load(make_strategy(name, space("nested"), **QUICK[name]).state())
    for key in set(state) - {"strategy"}:
        with pytest.raises(StrategyError, match=f"lacks '{key}'"):
            make(name, "nested", TWO).load({other: state[other] for other in state if other != key})


@pytest.mark.parametrize("name", NAMES)
def test_samples_that_all_fail_and_samples_observed_twice(name: str) -> None:
    strategy = make(name, "nested", ONE)
    for number in range(12):
        strategy.observe(strategy.propose(), [None, float("nan"), float("-inf")][number % 3], None)
    for text in space("nested").samples(6, seed=1):
        for _ in range(2):
            strategy.observe(text, additive(text.indices), known(text.indices))
    for _ in range(4):
        text = strategy.propose()
        strategy.observe(text, additive(text.indices), known(text.indices))
    assert all(value == value for value in strategy.diagnostics().values())


def volume(name: str, seed: int, evaluations: int = 90) -> float:
    strategy: Any = make_strategy(name, space("nested"), seed, ONE)
    points = []
    for _ in range(evaluations):
        text = strategy.propose()
        points.append((-additive(text.indices), known(text.indices)["macs"]))
        strategy.observe(text, -points[-1][0], known(text.indices))
    return hypervolume(points, (0.0, 100.0))


@pytest.mark.long
def test_larger_fronts_than_random_ones() -> None:
    """With default options; the first proposals of the same seed are the same."""
    random_ones = [volume("random", seed) for seed in range(3)]
    assert all(volume("nsga2", seed) > random_ones[seed] for seed in range(3))
    assert volume("bayes", 0, 35) > max(random_ones)


@pytest.mark.parametrize("name", ["ppo", "evolution"])
def test_strategies_for_one_figure_refuse_several_aims(name: str) -> None:
    with pytest.raises(StrategyError, match="for several aims expected one of bayes, nsga2, random"):
        make_strategy(name, space("nested"), 0, ONE)


def test_a_child_takes_each_decision_from_a_parent_in_which_it_is_active() -> None:
    rng, on = random.Random(0), space("nested")
    for _ in range(300):
        first, second = draw_uniform(on, rng), draw_uniform(on, rng)
        child = cross(on, first, second, rng)
        flags, of_first, of_second = on.active(child), on.active(first), on.active(second)
        for place, active in enumerate(flags):
            givers = [p[place] for p, alive in ((first, of_first), (second, of_second)) if alive[place]]
            assert child[place] in (givers if active else [0])
        assert cross(on, first, first, rng) == first


def test_selection_keeps_whole_fronts_and_the_ends_of_the_last() -> None:
    """Figure 2 of the paper: by front, and in the front that does not fit by crowding distance; failures last."""
    aims = Aims(("macs",), lambda indices: {"macs": 0.0})
    strategy = NSGA2(space("small"), 0, aims, population=5)
    rows = [(5.0, 5.0), (3.0, 3.0), (4.0, 4.5), (4.0, 4.1), (2.0, 3.5), None, (1.0, 1.0), (3.5, 4.05)]
    for number, row in enumerate(rows):
        text = space("small").decode([number % 4, number // 4, 0, 0])
        strategy.observe(text, row and row[0], row and {"macs": row[1]})
    # The front is 5/5, 4/4.1, 3.5/4.05, 3/3 and 1/1; nothing of the others is left.
    assert {member.point for member in strategy._members} == {
        (-5.0, 5.0), (-4.0, 4.1), (-3.5, 4.05), (-3.0, 3.0), (-1.0, 1.0),
    }  # fmt: skip
    strategy.observe(space("small").decode([3, 3, 3, 3]), 4.5, {"macs": 4.2})
    kept = {member.point for member in strategy._members}
    assert (-4.5, 4.2) in kept
    assert {(-5.0, 5.0), (-1.0, 1.0)} <= kept
    assert (-4.0, 4.1) not in kept  # its neighbours are nearest


@pytest.mark.parametrize("options", [{"population": 1}, {"crossover": 1.5}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(StrategyError, match="expected 2 or more, and a number from 0 to 1"):
        make_strategy("nsga2", space("small"), 0, **options)


def test_a_cost_that_no_filling_has_is_not_among_the_features() -> None:
    """As with a space of which no sample can be built."""

    def features(costs: Any) -> PricedFeatures:
        return PricedFeatures(space("small"), ["macs"], KnownCostTable(Aims(("macs",), costs)))

    fillings = [(0, 0, 0, 0), (1, 2, 3, 0)]
    priced, without = features(known), features(lambda filling: None)
    assert without.count == priced.count - 1
    assert without(fillings).shape == (2, len(without.decision))
    assert torch.equal(without(fillings), Features(space("small"))(fillings))
