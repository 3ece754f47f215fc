"""Parameters in groups, and the optimizer of a recipe."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nasdsl.training.errors import TrainingError
from nasdsl.training.recipe import Recipe


def parameter_groups(module: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Trained parameters by how they are treated: weights, scales, biases. Frozen ones are in none.

    A bias is what is named so, as in the published code; a scale is any other parameter of at most one dimension: the
    weight of a norm, a level's scale, the coefficients of a weighted sum. Each group has ``rate``, its multiple of the
    learning rate, and ``weight_decay``.

    Raises:
        TrainingError: nothing is trained.
    """
    members: dict[str, list[nn.Parameter]] = {"weights": [], "scales": [], "biases": []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            kind = "biases" if name.rpartition(".")[2] == "bias" else "scales" if parameter.ndim <= 1 else "weights"
            members[kind].append(parameter)
    decays = {"weights": True, "scales": recipe.decay_scales, "biases": recipe.decay_biases}
    groups = [
        {
            "name": kind,
            "params": parameters,
            "rate": recipe.bias_rate if kind == "biases" else 1.0,
            "weight_decay": recipe.weight_decay if decays[kind] else 0.0,
        }
        for kind, parameters in members.items()
        if parameters
    ]
    if not groups:
        raise TrainingError("nothing to train: every parameter of the detector is frozen (requires_grad is False)")
    return groups


def make_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over the trained parameters of a module, in one fused kernel.

    Raises:
        TrainingError: nothing is trained.
    """
    groups = parameter_groups(module, recipe)
    if recipe.optimizer == "sgd":
        made = torch.optim.SGD(groups, recipe.learning_rate, momentum=recipe.momentum, fused=True)
        if recipe.momentum:
            # In its first step torch's fused SGD takes memory as it comes, and where that step is skipped, because its
            # gradients are not finite, it goes on from there. From zeros the first step is the same.
            for parameter in (p for group in made.param_groups for p in group["params"]):
                made.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return made
    return torch.optim.AdamW(groups, recipe.learning_rate, betas=recipe.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next step; each group has its multiple of it."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]
