"""Properties of every strategy on every space."""

from __future__ import annotations

import io
import random
from typing import Any

import fake_model
import pytest
import torch
from strategy_spaces import additive, space

import nasdsl
from nasdsl.search.strategies import DEFAULT_STRATEGY, FRONT_STRATEGIES, STRATEGIES, Strategy, StrategyError, make_strategy
from nasdsl.spaces import Filled

NAMES = list(STRATEGIES)
QUICK: dict[str, dict[str, Any]] = {
    "ppo": {"warmup": 8, "batch": 4, "replay": 8, "elite": 2, "hidden": 16},
    "bayes": {"initial": 4, "candidates": 20, "climbs": 2},
    "evolution": {"population": 6, "sample": 3},
    "nsga2": {"population": 6},
    "llm": {**fake_model.options(), "initial": 3, "ask": 3},
    "random": {},
}
ASKED = {"llm": fake_model.options()}
"""Options without which a strategy cannot be made: the others have defaults."""


LONG_SPACES = [pytest.param(name, marks=pytest.mark.long) for name in ("bounded", "paper", "depth")]
"""Of these a sample takes longest to make, and to read back."""
LONG_REWARDS = [pytest.param(rewards, marks=pytest.mark.long) for rewards in ([1.0, None], [2.5])]
"""Those that are like the others: some fail, all are equal."""


def make(name: str, on: str, seed: int = 0) -> Strategy:
    return make_strategy(name, space(on), seed, **QUICK[name])


def step(strategy: Strategy, pending: list[Filled], order: random.Random, width: int = 3) -> Filled:
    """Propose; once `width` samples are pending, observe one of them. Every fifth fails."""
    text = strategy.propose()
    pending.append(text)
    if len(pending) >= width:
        done = pending.pop(order.randrange(len(pending)))
        strategy.observe(done, None if sum(done.indices) % 5 == 0 else additive(done.indices))
    return text


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_the_names() -> None:
    assert {"ppo", "evolution", "nsga2", "random"} <= set(NAMES)
    assert set(FRONT_STRATEGIES) == {"bayes", "nsga2", "random"}
    assert DEFAULT_STRATEGY in STRATEGIES
    for name, kind in STRATEGIES.items():
        assert kind.name == name
        assert name in QUICK


@pytest.mark.parametrize("on", ["nested", *LONG_SPACES, "scarce", "small", "closed"])
@pytest.mark.parametrize("name", NAMES)
def test_proposals_are_fillings_that_keep_the_requirements(name: str, on: str) -> None:
    strategy, pending, order = make(name, on), [], random.Random(0)
    for _ in range(15):
        text = step(strategy, pending, order)
        assert space(on).encode(text) == list(text.indices)
        assert space(on).decode(text.indices) == text
        assert space(on).keeps(text.indices)


@pytest.mark.parametrize("on", ["nested", pytest.param("bounded", marks=pytest.mark.long), "closed"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [pytest.param(n, marks=() if n in (0, 17) else pytest.mark.long) for n in (0, 2, 5, 17, 22)])
def test_a_loaded_state_gives_the_same_proposals(name: str, on: str, steps: int) -> None:
    one, pending, order = make(name, on), [], random.Random(1)
    for _ in range(steps):
        step(one, pending, order)
    saved = one.state()
    stored = saved_and_loaded(saved)
    goes_on = [step(one, mine, mixed) for mine, mixed in [(list(pending), random.Random(2))] for _ in range(8)]
    for state in (stored, saved):  # the second shows that the state did not change with its strategy
        other = make(name, on, seed=99)
        other.load(state)
        assert other.diagnostics() == other.diagnostics()
        mine, mixed = list(pending), random.Random(2)
        assert [step(other, mine, mixed) for _ in range(8)] == goes_on
    assert same(one.state(), other.state())


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_proposals_and_another_seed_others(name: str) -> None:
    runs = []
    for seed in (3, 3, 4):
        random.seed(seed * 11)
        torch.manual_seed(seed * 13)
        strategy, pending, order = make(name, "nested", seed), [], random.Random(0)
        runs.append([step(strategy, pending, order) for _ in range(12)])
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("name", NAMES)
def test_global_random_states_are_unchanged(name: str) -> None:
    random.seed(5)
    torch.manual_seed(5)
    before = random.getstate(), torch.get_rng_state()
    strategy, pending, order = make(name, "nested"), [], random.Random(0)
    for _ in range(20):
        step(strategy, pending, order)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("bad", [[None], [float("nan"), float("-inf"), float("inf"), None], *LONG_REWARDS])
@pytest.mark.parametrize("name", NAMES)
def test_failures_and_equal_rewards_are_accepted(name: str, bad: list[float | None]) -> None:
    strategy = make(name, "nested")
    for number in range(14):
        strategy.observe(strategy.propose(), bad[number % len(bad)])
    assert all(value == value for value in strategy.diagnostics().values())


@pytest.mark.parametrize("name", NAMES)
def test_only_the_order_of_rewards_matters(name: str) -> None:
    def run(change: Any) -> list[Filled]:
        strategy, found = make(name, "nested"), []
        for _ in range(15):
            text = strategy.propose()
            found.append(text)
            strategy.observe(text, change(additive(text.indices)))
        return found

    assert run(lambda r: r) == run(lambda r: r**3 - 1e6) == run(lambda r: 2 ** (r / 8))


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_other_strategies_and_samples_observed_twice(name: str) -> None:
    strategy = make(name, "nested")
    for text in space("nested").samples(12, seed=1):
        strategy.observe(text, additive(text.indices))
        strategy.observe(text, additive(text.indices))
    for _ in range(5):
        strategy.observe(strategy.propose(), 1.0)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long) if n in ("bayes", "ppo") else n for n in NAMES])
def test_more_proposals_than_fillings(name: str) -> None:
    """256 fillings, 300 proposals."""
    strategy = make(name, "small")
    for _ in range(300 if name != "bayes" else 260):
        text = strategy.propose()
        strategy.observe(text, additive(text.indices))


@pytest.mark.parametrize("name", NAMES)
def test_a_search_on_a_space_of_ten_evaluates_all_of_them(name: str) -> None:
    """With default options and a batch of 3. Strategies that do not repeat proposals need fewer."""
    count = 60 if name in ("ppo", "bayes", "nsga2") else 150
    found = nasdsl.search(space("ten"), ten, name, trials=count, batch=3, quiet=True, options=ASKED.get(name))
    assert len(found) == count
    assert sum(trial.verdict == "ok" for trial in found) == 10
    assert sum(trial.verdict == "duplicate" for trial in found) == count - 10
    if count == 60:
        assert all(trial.verdict == "ok" for trial in list(found)[:9])


def ten(text: str) -> float:
    return float(len(text))


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_better_than_random_where_few_fillings_keep_the_requirements(name: str) -> None:
    """One uniform filling in a hundred does. Mean of the last 20 of 60 rewards."""

    def late(strategy: Strategy) -> float:
        rewards = []
        for _ in range(60):
            text = strategy.propose()
            rewards.append(additive(text.indices))
            strategy.observe(text, rewards[-1])
        return sum(rewards[-20:]) / 20

    assert late(make(name, "scarce")) > late(make("random", "scarce"))


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_better_than_random(name: str) -> None:
    """Mean of the last quarter of 80 rewards on the nested space, over 3 seeds."""

    def late(strategy: Strategy) -> float:
        rewards = []
        for _ in range(80):
            text = strategy.propose()
            rewards.append(additive(text.indices))
            strategy.observe(text, rewards[-1])
        return sum(rewards[-20:]) / 20

    uniform = [late(make("random", "nested", seed)) for seed in range(3)]
    learned = [late(make(name, "nested", seed)) for seed in range(3)]
    assert min(learned) > max(uniform)


def test_errors_say_what_is_expected() -> None:
    with pytest.raises(StrategyError, match="did you mean 'evolution'"):
        make_strategy("evolutio", space("small"))
    with pytest.raises(StrategyError, match="no option 'popolation'; expected one of population, sample"):
        make_strategy("evolution", space("small"), popolation=3)
    with pytest.raises(StrategyError, match="it has no options"):
        make_strategy("random", space("small"), x=3)
    for name, options in (("ppo", {"batch": 0}), ("bayes", {"initial": 1}), ("evolution", {"population": 0})):
        with pytest.raises(StrategyError, match="expected"):
            make_strategy(name, space("small"), **options)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_of_another_strategy_or_space_is_refused(name: str) -> None:
    other = next(n for n in NAMES if n != name)
    with pytest.raises(StrategyError, match=f"expected one of '{name}'"):
        make(name, "small").load(make(other, "small").state())
    with pytest.raises(StrategyError, match="small has"):
        make(name, "small").load(make(name, "nested").state())


@pytest.mark.parametrize("name", NAMES)
def test_an_incomplete_or_invalid_state_is_refused(name: str) -> None:
    """As a state of another version may be."""
    strategy, pending, order = make(name, "nested"), [], random.Random(0)
    for _ in range(20):
        step(strategy, pending, order)
    saved = strategy.state()
    for key in set(saved) - {"strategy"}:
        with pytest.raises(StrategyError, match=f"lacks '{key}'"):
            make(name, "nested").load({other: saved[other] for other in saved if other != key})
    with pytest.raises(StrategyError, match=r"does not fit .*same version"):
        make(name, "nested").load({**saved, "rng": [3, [1, 2], None]})


def test_a_policy_of_another_width_is_refused() -> None:
    with pytest.raises(StrategyError, match="with the same options"):
        make_strategy("ppo", space("small"), hidden=8).load(make("ppo", "small").state())
