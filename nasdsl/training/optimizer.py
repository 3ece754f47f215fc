"""Parameter groups and the optimizer of a recipe."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn

from nasdsl.training.errors import TrainingError
from nasdsl.training.recipe import Recipe

BACKBONE: Final = "backbone."
"""How the names of the backbone's parameters begin, in `nasdsl.detection.detector.Detector`."""


def parameter_groups(module: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer: weights, scales, biases. Frozen parameters are in none.

    A bias is a parameter with this name, as in the published code; a scale is any other parameter of at most one dimension:
    the weight of a norm, the scale of a level, the coefficients of a weighted sum. With a `backbone_rate` other than 1, those
    of the backbone have groups of their own, such as ``backbone weights``. Each group has ``rate``, its multiple of the
    learning rate, and ``weight_decay``.

    Raises:
        TrainingError: all parameters are frozen.
    """
    # Not split where nothing depends on it: the optimizer's state in checkpoints lists the parameters by group.
    parts = {"": 1.0} if recipe.backbone_rate == 1 else {"": 1.0, "backbone ": recipe.backbone_rate}
    rates = {"weights": 1.0, "scales": 1.0, "biases": recipe.bias_rate}
    decays = {"weights": True, "scales": recipe.decay_scales, "biases": recipe.decay_biases}
    members: dict[tuple[str, str], list[nn.Parameter]] = {(part, kind): [] for part in parts for kind in rates}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            part = "backbone " if name.startswith(BACKBONE) and "backbone " in parts else ""
            kind = "biases" if name.rpartition(".")[2] == "bias" else "scales" if parameter.ndim <= 1 else "weights"
            members[part, kind].append(parameter)
    groups = [
        {
            "name": part + kind,
            "params": parameters,
            "rate": parts[part] * rates[kind],
            "weight_decay": recipe.weight_decay if decays[kind] else 0.0,
        }
        for (part, kind), parameters in members.items()
        if parameters
    ]
    if not groups:
        raise TrainingError("nothing to train: every parameter of the detector is frozen (requires_grad is False)")
    return groups


def make_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer of a recipe for the trained parameters of a module, in its fused implementation.

    Raises:
        TrainingError: all parameters are frozen.
    """
    groups = parameter_groups(module, recipe)
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, recipe.learning_rate, momentum=recipe.momentum, fused=True)
        if recipe.momentum:
            # torch's fused SGD allocates the buffers uninitialised in its first step. If that step is skipped, because its
            # gradients are not finite, the second one would use them. With zeros the first step is the same.
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    return torch.optim.AdamW(groups, recipe.learning_rate, betas=recipe.betas, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Set the learning rate of the next step; each group uses its multiple of it."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]
