"""Bayesian optimisation: distances, the process and expected improvement against slow versions, and the proposals."""

from __future__ import annotations

import itertools
import math
import random
import time

import pytest
import torch
from machine_speed import slowness
from strategy_spaces import additive, space

from nasdsl.search.strategies import make_strategy
from nasdsl.search.strategies.bayes import BayesianSearch
from nasdsl.search.strategies.gaussian_process import Features, GaussianProcess, distances
from nasdsl.search.strategies.improvement import log_expected_improvement
from nasdsl.search.strategies.mutation import draw_uniform
from nasdsl.spaces import Filled


def distance(on: str, one: tuple[int, ...], other: tuple[int, ...], weight: list[float]) -> float:
    """The distance of two fillings by the docstring of `Features`."""
    total = 0.0
    pairs = zip(space(on).domains, space(on).active(one), space(on).active(other), one, other, weight, strict=True)
    for domain, a, b, i, j, w in pairs:
        if a and b:
            total += w * (abs(i - j) / (domain.size - 1) if domain.kind == "range" else i != j)
        elif a or b:
            total += w * (1.0 if domain.kind != "range" else 0.5 + (i + j) / (domain.size - 1))
    return total


@pytest.mark.parametrize("on", ["nested", "paper", "small"])
def test_distances_against_counting(on: str) -> None:
    rng = random.Random(0)
    fillings = [draw_uniform(space(on), rng) for _ in range(20)]
    weight = [rng.random() for _ in space(on).domains]
    features = Features(space(on))
    x = features(fillings)
    assert set(x.unique().tolist()) <= {0.0, 1.0}
    found = distances(x, x, torch.tensor(weight, dtype=torch.float64)[features.decision] * features.scale)
    for i, one in enumerate(fillings):
        for j, other in enumerate(fillings):
            assert float(found[i, j]) == pytest.approx(distance(on, one, other, weight), abs=1e-9)


def test_the_posterior_against_the_textbook() -> None:
    """Rasmussen and Williams, equations 2.25 and 2.26, and 2.30 for the evidence, with an explicit inverse."""
    rng = random.Random(0)
    process = GaussianProcess(space("nested"))
    process.parameters = process.prior_mean + 0.3 * torch.randn(
        len(process.prior_mean), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    x = process.features([draw_uniform(space("nested"), rng) for _ in range(15)])
    at = process.features([draw_uniform(space("nested"), rng) for _ in range(6)])
    y = torch.randn(15, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    weight, amplitude, noise = process.parameters[:-2].exp(), process.parameters[-2].exp(), process.parameters[-1].exp() + 1e-6
    scaled = weight[process.features.decision] * process.features.scale

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return amplitude * torch.stack([(-(scaled * (row != b)).sum(1)).exp() for row in a])

    noisy = kernel(x, x) + noise * torch.eye(15, dtype=torch.float64)
    mean, std = process.condition(x, y)(at)
    assert torch.allclose(mean, kernel(at, x) @ noisy.inverse() @ y)
    assert torch.allclose(process.condition(x, y).mean(at), mean)
    covariance = kernel(at, at) - kernel(at, x) @ noisy.inverse() @ kernel(x, at)
    assert torch.allclose(std.square(), covariance.diagonal())
    evidence = torch.distributions.MultivariateNormal(torch.zeros(15, dtype=torch.float64), noisy).log_prob(y)
    prior = -0.5 * ((process.parameters - process.prior_mean) / process.prior_std).square().sum()
    constant = -7.5 * math.log(2 * math.pi)
    found = process.log_posterior(process.parameters, x, y)
    assert float(found) == pytest.approx(float(evidence + prior) - constant)


def test_expected_improvement_against_an_integral() -> None:
    for mean, std, best in ((0.0, 1.0, 0.5), (2.0, 0.3, 0.0), (-1.0, 0.5, 1.0), (0.0, 0.2, 0.9)):
        step = std / 2000
        grid = [mean + (i - 20_000) * step for i in range(40_001)]
        density = [math.exp(-(((f - mean) / std) ** 2) / 2) / (std * math.sqrt(2 * math.pi)) for f in grid]
        integral = sum(max(0.0, f - best) * p for f, p in zip(grid, density, strict=True)) * step
        found = log_expected_improvement(torch.tensor([mean], dtype=torch.float64), torch.tensor([std]).double(), best)
        assert math.exp(float(found)) == pytest.approx(integral, rel=1e-4)


def test_expected_improvement_ranks_where_it_underflows() -> None:
    """And its two formulas meet."""
    mean = torch.linspace(-60, 3, 2000, dtype=torch.float64)
    found = log_expected_improvement(mean, torch.ones_like(mean), 0.0)
    assert bool((found.diff() > 0).all())
    near = log_expected_improvement(torch.tensor([-6.0001, -5.9999]).double(), torch.ones(2).double(), 0.0)
    assert float(near.diff()) < 0.1


def test_fitting_finds_the_decisions_that_matter() -> None:
    """Rewards that depend on the second decision alone give it the largest weight."""
    rng = random.Random(0)
    process = GaussianProcess(space("small"))
    fillings = [draw_uniform(space("small"), rng) for _ in range(60)]
    y = torch.tensor([[-1.0, 1.5, 0.2, -0.7][f[1]] for f in fillings], dtype=torch.float64)
    x = process.features(fillings)
    before = process.log_posterior(process.parameters, x, y)
    process.fit(x, y, 100)
    assert process.log_posterior(process.parameters, x, y) > before
    weights = process.parameters[:4].exp()
    assert int(weights.argmax()) == 1
    assert float(weights[1]) > 5 * float(weights[[0, 2, 3]].max())


@pytest.mark.long
def test_nothing_is_proposed_twice_and_the_best_is_found_early() -> None:
    """In a space of 256 fillings, with rewards in which decisions interact."""

    def reward(indices: tuple[int, ...]) -> float:
        return additive(indices) + 4 * (indices[0] == indices[2]) - 3 * (indices[1] == indices[3])

    best = max(reward(tuple(space("small").sample(seed).indices)) for seed in range(4000))
    for seed in range(3):
        strategy = make_strategy("bayes", space("small"), seed)
        seen, found = set(), []
        for _ in range(60):
            text = strategy.propose()
            assert text not in seen
            seen.add(text)
            found.append(reward(text.indices))
            strategy.observe(text, found[-1])
        assert max(found) == best


@pytest.mark.parametrize("on", ["nested", "bounded", "paper"])
def test_no_neighbour_of_a_proposal_has_a_larger_expected_improvement(on: str) -> None:
    """Among new neighbours that change one decision, activate none, and keep the requirements."""
    strategy = BayesianSearch(space(on), 0, initial=15)
    for number in range(22):
        text = strategy.propose()
        if number >= 15:
            del strategy._pending[text.indices]
            posterior, best = strategy._fit()
            near = [
                (*text.indices[: d.index], index, *text.indices[d.index + 1 :])
                for d in space(on).domains
                if space(on).active(text.indices)[d.index]
                for index in range(d.size)
            ]
            seen = {indices for indices, _ in strategy._observed}
            flags = space(on).active(text.indices)
            near = [n for n in near if n not in seen and space(on).active(n) == flags and space(on).keeps(n)]
            improvement = log_expected_improvement(*posterior(strategy._process.features([text.indices, *near])), best)
            assert float(improvement.max()) <= float(improvement[0]) + 1e-6
        strategy.observe(text, additive(text.indices))


def test_hill_climbing_mostly_finds_the_largest_expected_improvement() -> None:
    """Against comparing all 256 fillings."""
    strategy = BayesianSearch(space("small"), 0)
    every = list(itertools.product(range(4), repeat=4))
    hits = 0
    for number in range(50):
        text = strategy.propose()
        if number >= 20:
            del strategy._pending[text.indices]
            posterior, best = strategy._fit()
            new = sorted(set(every) - {indices for indices, _ in strategy._observed})
            improvement = log_expected_improvement(*posterior(strategy._process.features(new)), best)
            hits += float(improvement[new.index(text.indices)]) > float(improvement.max()) - 1e-6
        strategy.observe(text, additive(text.indices) + 4 * (text.indices[0] == text.indices[2]))
    assert hits >= 22


def test_the_proposals_of_a_batch_differ() -> None:
    strategy = make_strategy("bayes", space("paper"), 0)
    for _ in range(30):
        text = strategy.propose()
        strategy.observe(text, additive(text.indices))
    batch = [strategy.propose().indices for _ in range(10)]
    assert len(set(batch)) == 10
    again = make_strategy("bayes", space("paper"), 1)
    again.load(strategy.state())
    assert not set(batch) & {again.propose().indices}


def test_more_observations_than_the_process_is_fitted_to() -> None:
    strategy = BayesianSearch(space("nested"), 0, initial=5, most=12, candidates=20)
    for _ in range(30):
        text = strategy.propose()
        strategy.observe(text, additive(text.indices))
    fillings, scores = strategy._data()
    assert len(fillings) == len(scores) == 12
    rewards = [reward for _, reward in strategy._observed]
    order = sorted(range(30), key=lambda place: rewards[place], reverse=True)
    observed = [indices for indices, _ in strategy._observed]
    assert rewards[order[0]] == additive(fillings[int(scores.argmax())])
    assert {observed[place] for place in range(26, 30)} <= set(fillings)  # the latest


@pytest.mark.parametrize("observed", [150, pytest.param(2800, marks=pytest.mark.long)])
def test_a_proposal_on_the_papers_space_takes_a_fraction_of_a_second(observed: int) -> None:
    """Also after 2,800 observations, the end of the paper's first stage."""
    strategy = make_strategy("bayes", space("paper"), 0)
    rng = random.Random(0)
    for _ in range(observed):
        text = Filled("", draw_uniform(space("paper"), rng))
        strategy.observe(text, additive(text.indices))
    strategy.observe(strategy.propose(), None)  # includes the fit, which is then due once in hundreds of proposals
    start = time.process_time()
    for _ in range(10):
        text = strategy.propose()
        strategy.observe(text, additive(text.indices))
    assert time.process_time() - start < 3 * slowness()
