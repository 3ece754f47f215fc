"""The training step; skipped steps, accumulation, clipping, averaging."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_training import SHAPES, differences, recipe, small

import nasdsl
from nasdsl.data import Batch
from nasdsl.training import CheckpointError, Diverged, Recipe
from nasdsl.training.distributed import ProcessGroup
from nasdsl.training.ema import ema_decay
from nasdsl.training.loaders import infinite_batches, make_train_loader
from nasdsl.training.trainer import Trainer, _has_unused_parameters

HERE = ProcessGroup(torch.device("cpu"))


def make_trainer(how: Recipe, **options: Any) -> tuple[Trainer, Iterator[Batch]]:
    made = Trainer(small(**options), how, 20, HERE)
    made.prepare()
    made.detector.train()
    return made, infinite_batches(make_train_loader(SHAPES, how, HERE), 0)


def snapshot(made: Trainer) -> Any:
    """Copies of all tensors of a trainer's state, except for counters."""
    state = made.state_dict()
    kept = {name: state[name] for name in ("detector", "optimizer", "average")}
    return torch.utils._pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, kept)


@pytest.mark.parametrize(
    ("name", "inputs", "unused"),
    [
        ("tiny", "c3, c4, c5", False),
        ("tiny", "c4, c5", False),  # c3 is computed for c4
        ("tiny", "c3, c4", True),
        (None, "c2, c3, c4, c5", False),
        (None, "c3, c4, c5", True),  # of one's own, of which it is not known
        ("timm:resnet18", "c2, c3, c4, c5", False),
        ("timm:resnet18", "c4, c5", True),
    ],
)
def test_parameters_that_get_no_gradient(name: str | None, inputs: str, unused: bool) -> None:
    levels = inputs.split(", ")
    outputs = ", ".join(f"p{level[1]} = conv_1x1({level})" for level in levels)
    text = f"decoder d {{ input {inputs} fpn(width=8) {{ output {outputs} }} head(width=8) {{ skip }} predict fcos }}"
    made = nasdsl.detector(nasdsl.loads(text), "tiny", classes=2)
    made.backbone.name = name
    assert _has_unused_parameters(made) == unused
    assert not _has_unused_parameters(small())


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_non_finite_step_is_skipped(optimizer: str, precision: str) -> None:
    made, batches = make_trainer(recipe(optimizer=optimizer, precision=precision, schedule="constant", ema=0.9))
    for _ in range(2):
        made.train_step(batches)
    made.read_metrics()
    before = snapshot(made)
    made.detector.broken = float("nan")  # type: ignore[assignment]
    made.train_step(batches)
    assert not made.detector.norm.running_mean.isfinite().all(), "the test proves nothing"  # type: ignore[union-attr, operator]
    reading = made.read_metrics()
    after = snapshot(made)
    assert reading.nonfinite == 1
    counters = [d for d in differences(before, after) if "num_batches_tracked" not in d and "n_averaged" not in d]
    if precision == "float32":
        # The average moves towards the same weights; nothing else changes.
        assert [d for d in counters if not d.startswith("/average")] == []
    assert all(t.isfinite().all() for part in ("detector", "average") for t in after[part].values())
    made.detector.broken = 1.0  # type: ignore[assignment]
    made.train_step(batches)
    assert made.read_metrics().nonfinite == 1
    assert differences(after["detector"], snapshot(made)["detector"])


@pytest.fixture
def _nan_filled_memory() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills the result of `torch.empty`
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_nan_filled_memory")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_skipped_first_step_does_not_affect_the_next_ones(optimizer: str) -> None:
    """In float16 the first steps often overflow, until the loss scale has been lowered."""
    how = recipe(optimizer=optimizer, schedule="constant", flip=0.0)
    made, batches = make_trainer(how, norm=False, dropout=0.0)
    made.detector.broken = float("nan")  # type: ignore[assignment]
    made.train_step(batches)
    made.detector.broken = 1.0  # type: ignore[assignment]
    later, others = make_trainer(how, norm=False, dropout=0.0)
    next(others)
    for _ in range(2):
        made.train_step(batches)
        later.train_step(others)
    assert made.read_metrics().nonfinite == 1
    assert differences(made.state_dict()["optimizer"], later.state_dict()["optimizer"]) == []
    assert differences(made.detector.state_dict(), later.detector.state_dict()) == []


def test_too_many_consecutive_skipped_steps_raise() -> None:
    made, batches = make_trainer(recipe(most_nonfinite=3))
    for broken in (float("nan"), float("nan"), 1.0, float("inf"), float("nan")):
        made.detector.broken = broken  # type: ignore[assignment]
        made.train_step(batches)
    assert made.read_metrics().nonfinite == 4
    made.train_step(batches)
    with pytest.raises(Diverged, match=r"3 steps in a row.*learning_rate"):
        made.read_metrics()


def test_losses_of_skipped_steps_are_not_in_the_mean() -> None:
    how = recipe(schedule="constant", flip=0.0)
    clean, batches = make_trainer(how, dropout=0.0)
    clean.train_step(batches)
    wanted = clean.read_metrics()
    mixed, batches = make_trainer(how, dropout=0.0)
    mixed.train_step(batches)
    mixed.detector.broken = float("nan")  # type: ignore[assignment]
    mixed.train_step(batches)
    found = mixed.read_metrics()
    assert found.losses == wanted.losses
    assert found.gradient_norm == wanted.gradient_norm
    mixed.train_step(batches)
    assert all(value != value for value in mixed.read_metrics().losses.values())


def test_a_step_on_accumulated_batches_uses_their_mean_loss() -> None:
    """Against SGD by hand on the mean of two losses."""
    how = recipe(
        optimizer="sgd", schedule="constant", batch_size=4, accumulate=2, weight_decay=0.0, bias_rate=1.0, momentum=0.0
    )
    made, batches = make_trainer(how, norm=False, dropout=0.0)
    by_hand = small(norm=False, dropout=0.0).train()
    other = infinite_batches(make_train_loader(SHAPES, how, HERE), 0)
    for _ in range(3):
        made.train_step(batches)
        halves = [next(other) for _ in range(2)]
        assert [len(half) for half in halves] == [2, 2]
        loss = sum(sum(by_hand(h.images, h.targets, sizes=h.sizes).values()) for h in halves) / 2
        by_hand.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in by_hand.parameters():
                if p.grad is not None:
                    p -= how.learning_rate * p.grad
    for ours, theirs in zip(made.detector.parameters(), by_hand.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-7)


def test_losses_know_the_share_of_the_training() -> None:
    """Of 20 steps; a resumed training goes on where it was."""
    made, batches = make_trainer(recipe(batch_size=4, accumulate=2))
    for _ in range(2):
        made.train_step(batches)
    made.step = 15
    made.train_step(batches)
    assert made.detector.progress == [0.0, 0.0, 0.05, 0.05, 0.75, 0.75]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_clipping(precision: str) -> None:
    """The gradients are clipped after loss scaling is undone."""
    how = recipe(
        precision=precision,
        optimizer="sgd",
        schedule="constant",
        momentum=0.0,
        weight_decay=0.0,
        bias_rate=1.0,
        clip_norm=0.01,
        learning_rate=0.5,
    )
    made, batches = make_trainer(how)
    before = [p.detach().clone() for p in made.trained_parameters]
    made.train_step(batches)
    moved = torch.stack([(p.detach() - b).norm() for p, b in zip(made.trained_parameters, before, strict=True)]).norm()
    assert float(moved) == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert made.read_metrics().gradient_norm > 0.011  # the norm before clipping


def test_weight_averaging_against_its_formula() -> None:
    made, batches = make_trainer(recipe(ema=0.9, schedule="constant"))
    wanted = None
    for step in range(4):
        made.train_step(batches)
        weights = made.detector.conv.weight.detach()  # type: ignore[union-attr]
        decay = ema_decay(step, 0.9)
        wanted = weights.clone() if wanted is None else decay * wanted + (1 - decay) * weights  # type: ignore[unreachable]
    assert torch.allclose(made.eval_detector.conv.weight, wanted, atol=1e-7)  # type: ignore[union-attr, arg-type]
    assert not any(p.requires_grad for p in made.eval_detector.parameters())
    assert ema_decay(10**6, 0.9) == 0.9


def test_the_averages_decay_rises_with_a_time_constant() -> None:
    assert [ema_decay(step, 0.9, 100) for step in (0, 100)] == pytest.approx([0, 0.9 * (1 - 1 / math.e)])
    assert ema_decay(10**6, 0.9, 100) == pytest.approx(0.9)
    assert ema_decay(0, 0.9, 0) == 0.9
    made, batches = make_trainer(recipe(ema=0.9, ema_warmup=2, schedule="constant"))
    wanted = None
    for step in range(4):
        made.train_step(batches)
        weights = made.detector.conv.weight.detach()  # type: ignore[union-attr]
        decay = ema_decay(step, 0.9, 2)
        wanted = weights.clone() if wanted is None else decay * wanted + (1 - decay) * weights  # type: ignore[unreachable]
    assert torch.allclose(made.eval_detector.conv.weight, wanted, atol=1e-7)  # type: ignore[union-attr, arg-type]


def test_buffers_of_the_average() -> None:
    """BatchNorm's statistics are averaged like the weights; its count of batches is that of the detector."""
    made, batches = make_trainer(recipe(ema=0.9, schedule="constant"))
    wanted = None
    for step in range(6):
        made.train_step(batches)
        current = made.detector.norm.running_mean.clone()  # type: ignore[union-attr, operator]
        decay = ema_decay(step, 0.9)
        wanted = current if wanted is None else decay * wanted + (1 - decay) * current  # type: ignore[unreachable]
    assert torch.allclose(made.eval_detector.norm.running_mean, wanted, atol=1e-6)  # type: ignore[union-attr, arg-type]
    assert int(made.eval_detector.norm.num_batches_tracked) == 6  # type: ignore[union-attr, arg-type]


def test_frozen_parameters_and_the_learning_rate() -> None:
    made, batches = make_trainer(recipe(schedule="constant", learning_rate=0.125))
    made.train_step(batches)
    assert torch.equal(made.detector.frozen, torch.ones(3))  # type: ignore[arg-type]
    assert made.learning_rate == 0.125


def test_a_checkpoint_of_another_detector_is_refused() -> None:
    made, _ = make_trainer(recipe())
    other, _ = make_trainer(recipe(), norm=False)
    with pytest.raises(CheckpointError, match="another detector or recipe"):
        made.load_state_dict(other.state_dict())
