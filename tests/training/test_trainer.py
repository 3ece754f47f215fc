"""One step: what it changes, and that a step without finite gradients changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_training import SHAPES, differences, recipe, small

from nasdsl.data import Batch
from nasdsl.training import CheckpointError, Diverged, Recipe
from nasdsl.training.distributed import ProcessGroup
from nasdsl.training.ema import ema_decay
from nasdsl.training.loaders import infinite_batches, make_train_loader
from nasdsl.training.trainer import Trainer

HERE = ProcessGroup(torch.device("cpu"))


def trainer(how: Recipe, **options: Any) -> tuple[Trainer, Iterator[Batch]]:
    made = Trainer(small(**options), how, 20, HERE)
    made.start()
    made.detector.train()
    return made, infinite_batches(make_train_loader(SHAPES, how, HERE), 0)


def snapshot(made: Trainer) -> Any:
    """Copies of all tensors of its state, apart from what counts steps."""
    state = made.state_dict()
    kept = {name: state[name] for name in ("detector", "optimizer", "average")}
    return torch.utils._pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, kept)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_step_that_is_not_finite_changes_nothing(optimizer: str, precision: str) -> None:
    made, batches = trainer(recipe(optimizer=optimizer, precision=precision, schedule="constant", ema=0.9))
    for _ in range(2):
        made.train_step(batches)
    made.read_metrics()
    before = snapshot(made)
    made.detector.broken = float("nan")  # type: ignore[assignment]
    made.train_step(batches)
    assert not made.detector.norm.running_mean.isfinite().all(), "the test shows nothing"  # type: ignore[union-attr, operator]
    reading = made.read_metrics()
    after = snapshot(made)
    assert reading.nonfinite == 1
    counters = [d for d in differences(before, after) if "num_batches_tracked" not in d and "n_averaged" not in d]
    if precision == "float32":
        # The average moves towards the same weights; nothing else does.
        assert [d for d in counters if not d.startswith("/average")] == []
    assert all(t.isfinite().all() for part in ("detector", "average") for t in after[part].values())
    made.detector.broken = 1.0  # type: ignore[assignment]
    made.train_step(batches)
    assert made.read_metrics().nonfinite == 1
    assert differences(after["detector"], snapshot(made)["detector"])


@pytest.fixture
def _fresh_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills what `torch.empty` gives
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("_fresh_memory_is_nan")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_first_step_that_is_not_finite_leaves_nothing_behind(optimizer: str) -> None:
    """As in float16, whose first steps often overflow until the scale of the loss has come down."""
    how = recipe(optimizer=optimizer, schedule="constant", flip=0.0)
    made, batches = trainer(how, norm=False, dropout=0.0)
    made.detector.broken = float("nan")  # type: ignore[assignment]
    made.train_step(batches)
    made.detector.broken = 1.0  # type: ignore[assignment]
    later, others = trainer(how, norm=False, dropout=0.0)
    next(others)
    for _ in range(2):
        made.train_step(batches)
        later.train_step(others)
    assert made.read_metrics().nonfinite == 1
    assert differences(made.state_dict()["optimizer"], later.state_dict()["optimizer"]) == []
    assert differences(made.detector.state_dict(), later.detector.state_dict()) == []


def test_too_many_in_a_row_end_the_training() -> None:
    made, batches = trainer(recipe(most_nonfinite=3))
    for broken in (float("nan"), float("nan"), 1.0, float("inf"), float("nan")):
        made.detector.broken = broken  # type: ignore[assignment]
        made.train_step(batches)
    assert made.read_metrics().nonfinite == 4
    made.train_step(batches)
    with pytest.raises(Diverged, match=r"3 steps in a row.*learning_rate"):
        made.read_metrics()


def test_losses_of_broken_steps_do_not_spoil_the_mean() -> None:
    how = recipe(schedule="constant", flip=0.0)
    clean, batches = trainer(how, dropout=0.0)
    clean.train_step(batches)
    wanted = clean.read_metrics()
    mixed, batches = trainer(how, dropout=0.0)
    mixed.train_step(batches)
    mixed.detector.broken = float("nan")  # type: ignore[assignment]
    mixed.train_step(batches)
    found = mixed.read_metrics()
    assert found.losses == wanted.losses
    assert found.gradient_norm == wanted.gradient_norm
    mixed.train_step(batches)
    assert all(value != value for value in mixed.read_metrics().losses.values())


def test_accumulated_batches_are_one_step_of_their_mean() -> None:
    """SGD on the mean of two halves' losses, written out."""
    how = recipe(
        optimizer="sgd", schedule="constant", batch_size=4, accumulate=2, weight_decay=0.0, bias_rate=1.0, momentum=0.0
    )
    made, batches = trainer(how, norm=False, dropout=0.0)
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


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_clipping(precision: str) -> None:
    """Of the gradients as they are, not of those that float16 multiplies."""
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
    made, batches = trainer(how)
    before = [p.detach().clone() for p in made.trained_parameters]
    made.train_step(batches)
    moved = torch.stack([(p.detach() - b).norm() for p, b in zip(made.trained_parameters, before, strict=True)]).norm()
    assert float(moved) == pytest.approx(0.5 * 0.01, rel=1e-3)
    assert made.read_metrics().gradient_norm > 0.011  # what is message is the norm before


def test_the_average_follows_by_its_formula() -> None:
    made, batches = trainer(recipe(ema=0.9, schedule="constant"))
    wanted = None
    for step in range(4):
        made.train_step(batches)
        weights = made.detector.conv.weight.detach()  # type: ignore[union-attr]
        decay = ema_decay(step, 0.9)
        wanted = weights.clone() if wanted is None else decay * wanted + (1 - decay) * weights  # type: ignore[unreachable]
    assert torch.allclose(made.eval_detector.conv.weight, wanted, atol=1e-7)  # type: ignore[union-attr, arg-type]
    assert not any(p.requires_grad for p in made.eval_detector.parameters())
    assert ema_decay(10**6, 0.9) == 0.9


def test_frozen_parameters_stay_and_the_rate_is_told() -> None:
    made, batches = trainer(recipe(schedule="constant", learning_rate=0.125))
    made.train_step(batches)
    assert torch.equal(made.detector.frozen, torch.ones(3))  # type: ignore[arg-type]
    assert made.learning_rate == 0.125


def test_a_checkpoint_of_something_else_is_refused() -> None:
    made, _ = trainer(recipe())
    other, _ = trainer(recipe(), norm=False)
    with pytest.raises(CheckpointError, match="another detector or recipe"):
        made.load_state_dict(other.state_dict())
