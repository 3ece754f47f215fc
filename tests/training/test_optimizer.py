"""Parameter groups, and a step of the optimizer."""

from __future__ import annotations

import pytest
import torch
from small_training import small
from torch import nn

from nasdsl.training import Recipe, TrainingError
from nasdsl.training.optimizer import make_optimizer, parameter_groups, set_learning_rate


def test_every_trained_parameter_is_in_one_group() -> None:
    module = small()
    groups = {g["name"]: g for g in parameter_groups(module, Recipe())}
    members = [id(p) for g in groups.values() for p in g["params"]]
    assert sorted(members) == sorted(id(p) for p in module.parameters() if p.requires_grad)
    assert {id(p) for p in groups["biases"]["params"]} == {id(module.conv.bias), id(module.norm.bias), id(module.predict.bias)}
    assert [id(p) for p in groups["scales"]["params"]] == [id(module.norm.weight)]


def test_the_backbone_has_a_learning_rate_of_its_own() -> None:
    """A step of plain SGD by hand: the backbone's parameters move by `backbone_rate` times as much."""
    module = nn.Module()
    module.backbone, module.decoder = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 1, 1)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    recipe = Recipe(weight_decay=0.0, momentum=0.0, backbone_rate=0.25)
    optimizer = make_optimizer(module, recipe)
    names = ["weights", "biases", "backbone weights", "backbone biases"]
    assert [(g["name"], g["rate"]) for g in optimizer.param_groups] == list(zip(names, [1, 2, 0.25, 0.5], strict=True))
    set_learning_rate(optimizer, 0.1)
    module.decoder(module.backbone(torch.ones(1, 2, 1, 1))).sum().backward()
    optimizer.step()
    for name, parameter in module.named_parameters():
        rate = 0.1 * (0.25 if name.startswith("backbone") else 1) * (2 if name.endswith("bias") else 1)
        assert torch.allclose(parameter, before[name] - rate * parameter.grad), name


def test_groups_are_split_only_where_rates_differ() -> None:
    """So that the optimizer's state of earlier checkpoints can be loaded."""
    module = nn.Module()
    module.backbone, module.decoder = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 1, 1)
    assert [g["name"] for g in parameter_groups(module, Recipe())] == ["weights", "biases"]


def test_a_step_of_the_published_recipe_by_hand() -> None:
    """Weights: lr * (gradient + decay * weight); biases: 2 * lr * gradient."""
    module = nn.Conv2d(2, 3, 1)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = make_optimizer(module, Recipe(weight_decay=0.5))
    set_learning_rate(optimizer, 0.1)
    module(torch.ones(1, 2, 1, 1)).sum().backward()
    optimizer.step()
    assert torch.allclose(module.weight, before["weight"] - 0.1 * (1 + 0.5 * before["weight"]))
    assert module.bias is not None
    assert torch.allclose(module.bias, before["bias"] - 0.2)


def test_weight_decay_of_norms() -> None:
    norm = nn.GroupNorm(1, 4)
    for decays in (True, False):
        groups = {g["name"]: g["weight_decay"] for g in parameter_groups(norm, Recipe(decay_scales=decays))}
        assert groups == {"scales": 1e-4 if decays else 0.0, "biases": 0.0}


def test_nothing_to_train() -> None:
    with pytest.raises(TrainingError, match="nothing to train"):
        make_optimizer(nn.Conv2d(1, 1, 1).requires_grad_(False), Recipe())
