"""Rewards of the proxy task: what they sum, schedules and seeds of the training, and scores without training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from proxy_tools import small_spec, text
from torch import Tensor, nn

from nasdsl.backends.module import Prediction
from nasdsl.detection.fcos import IMPROVED, IMPROVED_PREDICTION, Fcos
from nasdsl.nn import GroupNorm
from nasdsl.training.proxy import Diverged, ProxyError, ProxySpec, ProxyTask, Stopped
from nasdsl.training.proxy.crops import split
from nasdsl.training.proxy.zero_cost import ZERO_COST, gradient_norm, jacobian_covariance, synflow


@pytest.fixture(scope="module")
def task() -> ProxyTask:
    return ProxyTask(small_spec(), quiet=True)


def other(task: ProxyTask, **settings: Any) -> ProxyTask:
    return ProxyTask(replace(task.spec, **settings), quiet=True)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_the_learning_rate_follows_the_schedule(task: ProxyTask, monkeypatch: pytest.MonkeyPatch, schedule: str) -> None:
    """The same as torch's own schedules."""
    steps, rates, torch_rates = 11, list[float](), list[float]()
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.002)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - 1)
    other_optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.002)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        other_optimizer, 0.002, steps, pct_start=0.3, div_factor=25, final_div_factor=1e12, cycle_momentum=False
    )
    for _ in range(steps):
        known = {"constant": 0.002, "cosine": cosine.get_last_lr()[0], "one_cycle": cycle.get_last_lr()[0]}
        torch_rates.append(known[schedule])
        for each, scheduler in ((optimizer, cosine), (other_optimizer, cycle)):
            each.step()
            if len(torch_rates) < steps:
                scheduler.step()
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: rates.append(self.param_groups[0]["lr"]))
    other(task, iterations=steps, learning_rate=0.002, schedule=schedule)(text())
    assert rates == pytest.approx(torch_rates, abs=1e-9)


def test_the_reward_of_several_seeds_is_their_mean(task: ProxyTask) -> None:
    single = []
    for seed in (0, 1, 2):
        of_seed = other(task)  # of the same features: the backbone's random weights depend on the seed too
        of_seed.spec = replace(task.spec, seed=seed)
        of_seed.train, of_seed.val = split(range(8), task.spec.val_share, seed)
        single.append(of_seed(text()))
    assert len({found.reward for found in single}) == 3
    steps: list[int] = []
    several = other(task, seeds=3)(text(), lambda step, _: steps.append(step))
    assert several.reward == pytest.approx(sum(found.reward for found in single) / 3)
    for name in ("classification", "bbox_regression", "bbox_ctrness"):
        assert several.losses[name] == pytest.approx(sum(found.losses[name] for found in single) / 3)
    assert steps == [1, 2, 3]
    assert other(task, seeds=2, reward="ap")(text()).details["validation"] > 0


def test_heads_on_a_trained_fpn_keep_its_split(task: ProxyTask) -> None:
    """Meta-val of another seed would have pictures that the fpn was trained on."""
    heads = other(task, seeds=2).with_fpn(text())
    assert heads._split(1) == (heads.train, heads.val)
    assert task._split(1) != (task.train, task.val)
    assert heads(text("conv_1x1")).reward != replaced(heads, seeds=1)(text("conv_1x1")).reward


def replaced(task: ProxyTask, **settings: Any) -> ProxyTask:
    return ProxyTask(replace(task.spec, **settings), quiet=True)


def test_the_reward_sums_the_losses_that_it_is_to_sum(task: ProxyTask) -> None:
    whole = task(text())
    some = other(task, reward_losses=["classification", "bbox_regression"])(text())
    assert some.losses == whole.losses
    assert some.reward == -(whole.losses["classification"] + whole.losses["bbox_regression"])
    with pytest.raises(
        ProxyError, match="reward_losses has iou; this decoder has classification, bbox_regression, bbox_ctrness"
    ):
        other(task, reward_losses=("classification", "iou"))(text())


def test_the_mean_training_loss_as_reward(task: ProxyTask) -> None:
    seen: list[float] = []
    found = other(task, reward="training_loss")(text(), lambda _, loss: seen.append(loss))
    assert found.reward == pytest.approx(-sum(seen) / 3)
    assert found.losses == task(text()).losses
    with pytest.raises(Stopped):
        other(task, reward="training_loss")(text(), lambda step, _: step == 2)


def test_boxes_that_are_assigned_to_no_location_count(task: ProxyTask) -> None:
    """The share is counted box by box: a box is assigned if it alone, or on top of others, has a location."""
    crops = [task.crop_sampler.center_crop(picture) for picture in range(8)]
    shapes, method = {"p3": (12, 12), "p4": (6, 6), "p5": (3, 3), "p6": (2, 2)}, Fcos()
    boxes = assigned = 0
    for crop in crops:
        found = task._target_cache.boxes_in(crop)
        numbered = {"boxes": found["boxes"], "labels": torch.arange(len(found["boxes"]))}
        labels = method.targets(shapes, (96, 96), [numbered]).labels
        boxes, assigned = boxes + len(numbered["labels"]), assigned + len(set(labels[labels >= 0].tolist()))
    share = task._target_cache.unassigned_share(crops, method, shapes)
    assert share == pytest.approx(1 - assigned / boxes)
    assert 0 < share < 1
    plain, counting = task(text()), other(task, unassigned_loss=3.0)(text())
    share = task._target_cache.unassigned_share([crops[i] for i in task.val], method, shapes)
    assert counting.reward == pytest.approx((1 - share) * plain.reward - share * 3.0)
    anchors = text(predict="retinanet(anchors=3)")
    assert other(task, unassigned_loss=3.0)(anchors).reward == task(anchors).reward


def test_improvements_are_those_of_the_full_training(task: ProxyTask) -> None:
    improved = other(task, improvements=True)(text())
    by_hand = other(task, method=IMPROVED)(text(predict=IMPROVED_PREDICTION))
    assert (improved.reward, improved.losses) == (by_hand.reward, by_hand.losses)
    assert improved.reward != task(text()).reward
    with_option = other(task, improvements=True, method={"box_loss": "iou"})(text())
    assert with_option.reward != improved.reward
    anchors = text(predict="retinanet(anchors=3)")
    assert other(task, improvements=True)(anchors).reward == task(anchors).reward


def test_settings_that_came_later_are_no_part_of_earlier_searches() -> None:
    """search.json of earlier searches has these names; with others they could not be resumed."""
    earlier = {
        "data", "split", "val_share", "backbone", "backbone_weights", "size", "longest", "mirror", "levels", "iterations",
        "batch_size", "learning_rate", "average", "seed", "reward", "method", "precision", "channels_last", "device", "dtype",
        "cache", "memory_limit", "fpn", "classes", "split_share", "split_seed",
    }  # fmt: skip
    assert set(ProxySpec("shapes").to_dict()) == earlier
    added = {
        "schedule": "cosine",
        "seeds": 2,
        "reward_losses": ("classification",),
        "improvements": True,
        "unassigned_loss": 2.0,
    }
    for name, value in added.items():
        assert ProxySpec("shapes", **{name: value}).to_dict()[name] == value


# ------------------------------------------------------------------------------------------------ scores without training


@pytest.mark.parametrize("name", ZERO_COST)
def test_scores_without_training(task: ProxyTask, name: str) -> None:
    scoring = other(task, reward=name)
    found = scoring(text(), lambda *_: pytest.fail("nothing is trained"))
    assert found.losses == {}
    assert found.reward == scoring(text()).reward != scoring(text("conv_1x1 -> conv_1x1")).reward
    assert found.details["seconds"] >= found.details["compute"] > 0
    assert other(task, reward=name, seeds=2)(text()).reward != found.reward


def batch_of(task: ProxyTask) -> Any:
    decoder = task._load(text())
    module, method = task._build(decoder), task._method(decoder)
    crops = next(task.crop_sampler.sample(task.train, 4, 1, 0))
    return module, method, task._loader(module, method).load(crops)


def test_the_gradient_norm_is_that_of_all_parameters_and_weights_stay(task: ProxyTask) -> None:
    module, method, batch = batch_of(task)
    before = [p.clone() for p in module.parameters()]
    losses = method.losses(module.train()(batch.features), batch.targets)
    gradients = torch.autograd.grad(sum(losses.values()), list(module.parameters()), allow_unused=True)
    expected = sum(float((g**2).sum()) for g in gradients if g is not None) ** 0.5
    assert gradient_norm(module, batch, method) == pytest.approx(expected, rel=1e-4)
    assert all(torch.equal(p, old) for p, old in zip(module.parameters(), before, strict=True))
    assert all(p.grad is None for p in module.parameters())


class Layers(nn.Module):
    """Three convolutions without biases, and a norm that may be left out."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        convs = [nn.Conv2d(2, 32, 3, bias=False), nn.Conv2d(32, 32, 1, bias=False), nn.Conv2d(32, 3, 1, bias=False)]
        self.layers = nn.Sequential(convs[0], nn.ReLU(), norm, convs[1], nn.ReLU(), convs[2])

    def forward(self, features: dict[str, Tensor]) -> dict[str, Prediction]:
        logits = self.layers(features["c3"])
        return {"p3": Prediction(logits, logits, None)}


def test_synflow_is_conserved() -> None:
    """By Euler's theorem each layer's sum of weight times gradient is the sum of the outputs."""
    features = {"c3": torch.randn(4, 2, 8, 8)}
    module = Layers(nn.Identity()).double()
    positive = Layers(nn.Identity()).double()
    with torch.no_grad():
        for parameter in positive.parameters():
            parameter.abs_()
        outputs = positive({"c3": torch.ones(1, 2, 8, 8, dtype=torch.float64)})["p3"].cls_logits.sum()
    assert synflow(module, features) == pytest.approx(float(torch.log(3 * outputs)))
    for norm in (nn.BatchNorm2d(32), GroupNorm(32, 32)):
        assert synflow(Layers(norm), features) == pytest.approx(synflow(module, features))
    assert any(float(p.detach().min()) < 0 for p in module.parameters())


def test_the_jacobian_covariance_is_low_where_crops_act_alike() -> None:
    torch.manual_seed(0)
    different = torch.randn(4, 2, 8, 8)
    same = different[:1] + 1e-6 * torch.randn(4, 2, 8, 8)
    module = Layers(nn.Identity())
    score = jacobian_covariance(module, {"c3": different})
    assert score == pytest.approx(jacobian_covariance(module, {"c3": different[[2, 0, 3, 1]]}), rel=1e-4)
    assert jacobian_covariance(module, {"c3": same}) < score - 1000


def test_a_score_that_is_not_finite_is_an_error(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.training.proxy.task.zero_cost_score", lambda *_: float("nan"))
    with pytest.raises(Diverged, match="its synflow is nan; expected a finite number"):
        other(task, reward="synflow")(text())
