"""Learning rate schedules: pure functions of the step that give a fraction, 0 to 1, of the recipe's learning rate."""

from __future__ import annotations

import math

from nasdsl.training.recipe import Recipe


def lr_factor(recipe: Recipe, step: int, total: int) -> float:
    """The fraction of the learning rate at `step`, counted from 0, of `total` steps."""
    match recipe.schedule:
        case "one_cycle":
            return one_cycle(step, total, recipe.cycle_rise, recipe.cycle_start, recipe.final_rate)
        case "step":
            factor = multi_step(step, total, recipe.milestones, recipe.milestone_factor)
        case "cosine":
            factor = cosine(max(0, step - recipe.warmup_steps), max(1, total - recipe.warmup_steps), recipe.final_rate)
        case _:
            factor = 1.0
    return factor * warmup(step, recipe.warmup_steps, recipe.warmup_start)


def warmup(step: int, steps: int, start: float) -> float:
    """Linear warm-up from `start` to 1 within `steps`; 1 afterwards."""
    return 1.0 if step >= steps else start + (1 - start) * step / steps


def multi_step(step: int, total: int, milestones: tuple[float, ...], factor: float) -> float:
    """1, multiplied by `factor` at each milestone; milestones are fractions of `total`, rounded to the nearest step."""
    return factor ** sum(step >= round(milestone * total) for milestone in milestones)


def cosine(step: int, total: int, final: float) -> float:
    """Cosine annealing from 1 at step 0 to `final` at the last step (arXiv:1608.03983, equation 5, one period)."""
    return _interpolate_cosine(1.0, final, step / max(1, total - 1))


def one_cycle(step: int, total: int, rise: float, start: float, final: float) -> float:
    """One cycle: along half a cosine from `start` to 1 in the first part `rise` of the training, then to `final`.

    The same as `torch.optim.lr_scheduler.OneCycleLR` with ``cycle_momentum=False`` (arXiv:1708.07120).
    """
    peak = rise * total - 1
    last = total - 1
    if step <= peak:
        return _interpolate_cosine(start, 1.0, step / peak if peak > 0 else 1.0)
    return _interpolate_cosine(1.0, final, min(1.0, (step - max(peak, 0)) / max(1e-9, last - max(peak, 0))))


def _interpolate_cosine(begin: float, end: float, fraction: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * fraction)) / 2
