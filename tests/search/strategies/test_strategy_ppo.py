"""PPO: its functions against slow, obvious versions; its policy as a distribution; learning."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import pytest
import torch
from strategy_spaces import additive, space

from nasdsl.search.strategies import ppo
from nasdsl.search.strategies.mutation import draw_uniform
from nasdsl.search.strategies.policy import Policy, as_tensor
from nasdsl.search.strategies.ppo import PPO, gae, ppo_loss
from nasdsl.spaces import Filled


def random_policy(on: str, hidden: int = 12) -> Policy:
    """A policy far from uniform."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = Policy(space(on), hidden)
        torch.nn.init.normal_(policy.logits, std=1.5)
        torch.nn.init.normal_(policy.bias)
        torch.nn.init.normal_(policy.value.weight)
    return policy


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (0.99, 0.0)])
def test_gae_against_its_sum(gamma: float, gae_lambda: float) -> None:
    """Equation 16 of arXiv:1506.02438: the sum of (gamma*lambda)^l * delta over the active steps."""
    rng = random.Random(0)
    active = torch.tensor([[rng.random() < 0.6 for _ in range(6)] for _ in range(20)])
    active[0], active[1] = True, torch.tensor([True] + [False] * 5)
    value = torch.randn(20, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    reward = torch.randn(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = gae(reward, value, active, gamma, gae_lambda)
    for row in range(20):
        steps = [step for step in range(6) if active[row, step]]
        assert all(found[row, step] == 0 for step in range(6) if step not in steps)
        for place, step in enumerate(steps):
            expected = 0.0
            for later in range(place, len(steps)):
                is_end = later == len(steps) - 1
                follow = float(reward[row]) if is_end else gamma * float(value[row, steps[later + 1]])
                expected += (gamma * gae_lambda) ** (later - place) * (follow - float(value[row, steps[later]]))
            assert float(found[row, step]) == pytest.approx(expected, abs=1e-12)


def test_the_loss_against_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    log_prob, old, advantage, value, returns, entropy = torch.randn(6, 8, 5, generator=generator, dtype=torch.float64)
    active = torch.rand(8, 5, generator=generator) < 0.7
    found = ppo_loss(log_prob, old, advantage, value, returns, entropy, active, 0.2)
    sums = [0.0] * 5
    for row, column in itertools.product(range(8), range(5)):
        if active[row, column]:
            ratio = math.exp(float(log_prob[row, column] - old[row, column]))
            gain = float(advantage[row, column])
            sums[0] -= min(ratio * gain, min(max(ratio, 0.8), 1.2) * gain)
            sums[1] += 0.5 * float(value[row, column] - returns[row, column]) ** 2
            sums[2] += float(entropy[row, column])
            sums[3] += ratio - 1 - math.log(ratio)
            sums[4] += abs(ratio - 1) > 0.2
    assert [float(term) for term in found] == pytest.approx([s / int(active.sum()) for s in sums])


def test_nothing_is_learned_beyond_the_clip() -> None:
    log_prob = torch.tensor([[1.0, -1.0, 0.1]], requires_grad=True)
    active = torch.ones(1, 3, dtype=torch.bool)
    losses = ppo_loss(log_prob, torch.zeros(1, 3), torch.tensor([[1.0, -1.0, 1.0]]), *torch.zeros(3, 1, 3), active, 0.2)
    losses.policy.backward()
    assert log_prob.grad is not None
    assert (log_prob.grad != 0).tolist() == [[False, False, True]]


def all_fillings(on: str) -> list[tuple[int, ...]]:
    """All fillings, by their decisions."""
    found: list[tuple[int, ...]] = [()]
    for domain in space(on).domains:
        grown = []
        for prefix in found:
            active = domain.condition.holds(prefix)
            grown += [(*prefix, index) for index in (range(domain.size) if active else (0,))]
        found = grown
    return found


@pytest.mark.parametrize("on", ["tiny", "small", "depth"])
def test_the_probabilities_of_all_fillings_add_up_to_one(on: str) -> None:
    fillings = all_fillings(on)
    assert len(fillings) == space(on).size
    with torch.no_grad():
        total = float(random_policy(on).evaluate(as_tensor(fillings)).log_prob.sum(1).exp().sum())
    assert total == pytest.approx(1, abs=1e-4)


def test_draws_have_the_probabilities_that_evaluate_gives() -> None:
    policy = random_policy("small")
    drawn = Counter(policy.draw(40_000, torch.Generator().manual_seed(0)))
    fillings = all_fillings("small")
    with torch.no_grad():
        probability = policy.evaluate(as_tensor(fillings)).log_prob.sum(1).exp().tolist()
    for filling, p in zip(fillings, probability, strict=True):
        assert abs(drawn[filling] - 40_000 * p) < 5 * math.sqrt(40_000 * p) + 5


def test_inactive_decisions_are_zero_in_all_outputs() -> None:
    policy = random_policy("nested")
    fillings = policy.draw(200, torch.Generator().manual_seed(0))
    found = policy.evaluate(as_tensor(fillings))
    for row, filling in enumerate(fillings):
        flags = space("nested").active(filling)
        assert found.active[row].tolist() == flags
        for place, flag in enumerate(flags):
            if not flag:
                assert filling[place] == 0
                assert float(found.log_prob[row, place].detach()) == 0 == float(found.entropy[row, place].detach())
    assert not all(all(space("nested").active(f)) for f in fillings)


def test_the_policy_is_autoregressive() -> None:
    """The distribution of the last decision depends on the first."""
    policy = random_policy("small")
    with torch.no_grad():
        found = policy.evaluate(as_tensor([(0, 1, 1, 1), (3, 1, 1, 1)])).log_prob
    assert float(found[0, 0]) != float(found[1, 0])
    assert abs(float(found[0, 3] - found[1, 3])) > 1e-3


@pytest.mark.parametrize("on", ["nested", "paper"])
def test_a_new_policy_is_uniform(on: str) -> None:
    policy = Policy(space(on))
    rng = random.Random(0)
    fillings = [draw_uniform(space(on), rng) for _ in range(20)]
    found = policy.evaluate(as_tensor(fillings))
    for row, filling in enumerate(fillings):
        flags = space(on).active(filling)
        expected = [-math.log(d.size) if flag else 0.0 for d, flag in zip(space(on).domains, flags, strict=True)]
        assert found.log_prob[row].tolist() == pytest.approx(expected, abs=1e-5)
        assert (-found.entropy[row]).tolist() == pytest.approx(expected, abs=1e-5)


def test_it_learns_decisions_that_depend_on_each_other() -> None:
    """The reward counts whether the third decision equals the first, and the fourth the second."""
    strategy = PPO(space("small"), 0)

    def good(indices: tuple[int, ...]) -> int:
        return (indices[0] == indices[2]) + (indices[1] == indices[3])

    for _ in range(200):
        text = strategy.propose()
        strategy.observe(text, good(text.indices) + 1e-3 * random.Random(str(text.indices)).random())
    drawn = strategy.policy.draw(500, torch.Generator().manual_seed(0))
    assert sum(map(good, drawn)) / 500 > 0.9  # 0.5 at the beginning


def test_the_diagnostics_are_means_over_the_steps_of_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ppo.Losses] = []

    def recorded(*given: torch.Tensor) -> ppo.Losses:
        made.append(ppo_loss(*given))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(ppo, "ppo_loss", recorded)
    strategy = PPO(space("small"), 0, warmup=20, batch=20, replay=20, epochs=3, minibatch=8)
    for _ in range(20):
        text = strategy.propose()
        strategy.observe(text, additive(text.indices))
    assert len(made) == 9
    found = strategy.diagnostics()
    for name in ("policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac"):
        values = [float(getattr(losses, name.removesuffix("_loss")).detach()) for losses in made]
        assert found[name] == pytest.approx(sum(values) / 9, abs=1e-6)


def test_the_diagnostics() -> None:
    strategy = PPO(space("nested"), 0)
    assert strategy.diagnostics() == {}
    for _ in range(100):
        text = strategy.propose()
        strategy.observe(text, additive(text.indices))
    found = strategy.diagnostics()
    assert {"policy_loss", "value_loss", "entropy", "approx_kl", "clipfrac", "explained_variance"} <= set(found)
    assert 0 <= found["clipfrac"] <= 1
    assert found["approx_kl"] >= 0
    assert found["explained_variance"] <= 1


def test_requirements_are_not_counted_again_for_known_fillings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting may take milliseconds; with all fillings of a space known, a proposal would take seconds."""
    strategy = PPO(space("small"), 0, warmup=1000)
    for indices in itertools.product(range(4), repeat=4):
        strategy.observe(Filled("", indices), None)
    asked: list[object] = []
    monkeypatch.setattr(type(space("small")), "keeps", lambda _, indices: asked.append(indices) or True)
    strategy.propose()
    assert len(asked) == 1


def test_the_log_probability_is_that_of_the_draw() -> None:
    """A sample that is pending while the policy changes keeps the probability with which it was drawn."""
    strategy = PPO(space("small"), 0, warmup=4, batch=4, replay=8)
    waits = strategy.propose()
    for _ in range(40):
        text = strategy.propose()
        strategy.observe(text, additive(text.indices))
    strategy.observe(waits, 1.0)
    recent = strategy.state()["recent"][-1]
    assert recent[0] == list(waits.indices)
    assert recent[2].tolist() == pytest.approx([-math.log(4)] * 4, abs=1e-5)
