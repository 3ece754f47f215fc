"""Expected improvement of the hypervolume, against simulation with the exact hypervolume."""

from __future__ import annotations

import math

import pytest
import torch
from strategy_spaces import additive, space

from nasdsl.search.hypervolume import hypervolume
from nasdsl.search.strategies.bayes import BayesianSearch
from nasdsl.search.strategies.improvement import HypervolumeImprovement, log_expected_improvement
from nasdsl.search.strategies.strategy import Aims


@pytest.mark.parametrize("axes", [1, 2])
def test_the_improvement_is_that_of_simulated_rewards(axes: int) -> None:
    """Costs are known, so a sample is a point whose first coordinate alone is random. 400 quantiles of the reward."""
    generator = torch.Generator().manual_seed(axes)
    normal = torch.special.ndtri((torch.arange(400, dtype=torch.float64) + 0.5) / 400)
    for _ in range(6):
        rewards = torch.rand(6, generator=generator, dtype=torch.float64)
        costs = torch.rand(6, axes, generator=generator, dtype=torch.float64)
        lowest, reference = 0.2, torch.full((axes,), 0.9, dtype=torch.float64)
        front = [(-r, *c) for r, c in zip(rewards.tolist(), costs.tolist(), strict=True)]
        corner = (-lowest, *reference.tolist())
        mean, std = torch.tensor([0.3, 0.7, 1.1]).double(), torch.tensor([0.4, 0.1, 0.3]).double()
        at = torch.rand(3, axes, generator=generator, dtype=torch.float64)
        found = HypervolumeImprovement(rewards, costs, lowest, reference)(mean, std, at).exp()
        before = hypervolume(front, corner)
        for place in range(3):
            drawn = (mean[place] + std[place] * normal).tolist()
            gains = [hypervolume([*front, (-reward, *at[place].tolist())], corner) - before for reward in drawn]
            assert float(found[place]) == pytest.approx(sum(gains) / len(gains), rel=0.02, abs=2e-4)


def test_a_cost_beyond_the_reference_cannot_improve_and_a_tiny_chance_can_be_compared() -> None:
    one = torch.ones(1, dtype=torch.float64)
    improvement = HypervolumeImprovement(one, one[:, None], 0.0, torch.tensor([2.0]).double())
    assert improvement(one, one, torch.tensor([[2.5]]).double()).tolist() == [-math.inf]
    worse, better = (float(improvement(m * one, 0.05 * one, 1.5 * one[:, None])) for m in (-6.0, -5.0))
    assert -math.inf < worse < better < -5000


def test_without_a_front_it_is_the_expected_improvement_over_the_lowest_reward_times_the_saving() -> None:
    empty = torch.zeros(0, 1, dtype=torch.float64)
    improvement = HypervolumeImprovement(empty[:, 0], empty, 0.5, torch.tensor([3.0]).double())
    mean, std = torch.tensor([0.2, 1.0]).double(), torch.tensor([0.3, 0.1]).double()
    expected = log_expected_improvement(mean, std, 0.5) + torch.tensor([2.0, 1.0]).double().log()
    assert torch.allclose(improvement(mean, std, torch.tensor([[1.0], [2.0]]).double()), expected)


def measured_cost(indices: tuple[int, ...]) -> float:
    return 1.0 + sum(indices) * 0.5


def test_a_measured_cost_is_modelled_and_a_known_one_is_not() -> None:
    """The integral over a cost that the process knows nearly exactly is the value at that cost."""
    asked: list[tuple[int, ...]] = []

    def known(indices: tuple[int, ...]) -> dict[str, float]:
        asked.append(indices)
        return {"macs": 5.0 + indices[0]}

    strategy = BayesianSearch(space("small"), 0, Aims(("macs", "latency"), known), initial=40)
    for _ in range(45):
        text = strategy.propose()
        costs = {**known(text.indices), "latency": measured_cost(text.indices)}
        strategy.observe(text, additive(text.indices), costs)
    assert strategy._front is not None
    assert set(strategy._front.processes) == {"latency"}
    fillings, costs_of = strategy._priced()
    nodes = strategy._front._cost_predictor(fillings, costs_of)([(0, 1, 2, 3), (3, 3, 0, 0)])
    assert sum(weight for weight, _ in nodes) == pytest.approx(1)
    table = nodes[0][1]
    assert table[:, 0].tolist() == [5.0, 8.0]
    truth = [measured_cost((0, 1, 2, 3)), measured_cost((3, 3, 0, 0))]
    assert table[:, 1].tolist() == pytest.approx(truth, rel=0.1)
