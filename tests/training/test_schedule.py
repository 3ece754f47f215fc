"""Learning rates, against torch's own schedulers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, MultiStepLR, OneCycleLR

from nasdsl.training import Recipe
from nasdsl.training.schedule import lr_factor


def rates(make: Callable[[torch.optim.Optimizer], LRScheduler], steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = make(optimizer), []
    for _ in range(steps):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return found


def ours(total: int, **settings: object) -> list[float]:
    recipe = Recipe.from_dict(settings)
    return [lr_factor(recipe, step, total) for step in range(total)]


@pytest.mark.parametrize("total", [312, 10, 7])
def test_one_cycle_is_torchs(total: int) -> None:
    wanted = rates(lambda o: OneCycleLR(o, 1.0, total_steps=total, cycle_momentum=False), total)
    assert ours(total, schedule="one_cycle") == pytest.approx(wanted, abs=1e-9)


def test_steps_with_warm_up_are_torchs() -> None:
    fall = rates(lambda o: MultiStepLR(o, [600, 800]), 900)
    rise = rates(lambda o: LinearLR(o, 1 / 3, total_iters=50), 900)
    wanted = [a * b for a, b in zip(fall, rise, strict=True)]
    assert ours(900, warmup_steps=50) == pytest.approx(wanted)


def test_cosine_is_torchs() -> None:
    wanted = rates(lambda o: CosineAnnealingLR(o, 99, 0.01), 100)
    assert ours(100, schedule="cosine", warmup_steps=0, final_rate=0.01) == pytest.approx(wanted)


def test_the_published_rates() -> None:
    recipe = Recipe()
    found = {
        step: recipe.learning_rate * lr_factor(recipe, step, 90_000) for step in (0, 250, 500, 59_999, 60_000, 80_000, 89_999)
    }
    assert found == pytest.approx({0: 1 / 300, 250: 2 / 300, 500: 0.01, 59_999: 0.01, 60_000: 1e-3, 80_000: 1e-4, 89_999: 1e-4})


@pytest.mark.parametrize("schedule", ["step", "one_cycle", "cosine", "constant"])
@pytest.mark.parametrize("total", [1, 2, 3, 4, 100])
def test_learning_rates_of_short_trainings(schedule: str, total: int) -> None:
    assert all(0 < rate <= 1 for rate in ours(total, schedule=schedule))
