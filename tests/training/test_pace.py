"""Training for a number of minutes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_training import SHAPES, VAL, FakeClock, checkpoint, differences, recipe, small

from nasdsl.training import Interrupted, Recipe, Run, RunError, pace, train
from nasdsl.training.distributed import process_group
from nasdsl.training.loaders import evaluation_steps
from nasdsl.training.pace import EVALUATION_MARGIN, Pace, steps_that_fit
from nasdsl.training.signals import SignalHandler


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that these tests do not wait."""
    monkeypatch.setattr(pace, "SHORTEST", 0.1)


@pytest.mark.parametrize("seconds", [0.0, 1.0, 7.3, 60.0, 1000.0])
@pytest.mark.parametrize("settings", [{}, {"evaluate_every": 1}, {"evaluate_every": 2.5, "accumulate": 2}])
def test_the_most_steps_that_fit(seconds: float, settings: dict[str, Any]) -> None:
    """Against trying all numbers."""
    made, measured, batches = Recipe.from_dict(settings), Pace(0.7, 0.2, 3.1), 7

    def needed(steps: int) -> float:
        epoch = batches / made.accumulate
        return 0.7 * steps + 0.2 * min(steps, epoch) + 3.1 * len(evaluation_steps(made, batches, steps))

    wanted = max((steps for steps in range(1, 1500) if needed(steps) <= seconds), default=1)
    assert steps_that_fit(seconds, measured, made, batches, evaluates=True) == wanted
    assert steps_that_fit(seconds, measured, made, batches, evaluates=False) >= wanted


def test_steps_fit_into_the_minutes(out: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A step takes a second, and an evaluation that of its two batches: the training ends in time, hardly before."""
    clock = FakeClock(monkeypatch)
    detector = clock.watch(small())

    def before_evaluation(module: Any, _: Any) -> None:
        clock.now += not module.training

    detector.register_forward_pre_hook(before_evaluation)
    outcome = train(detector, SHAPES, recipe(epochs=3, evaluate_every=10, log_every=50), out, VAL, minutes=2)
    said = capfd.readouterr().err
    assert 114 <= clock.now <= 120
    config = Run(out).read_config()
    assert (config["recipe"]["steps"], config["recipe"]["epochs"]) == (outcome.steps, None)
    assert config["about"]["minutes"] == 2
    evaluations = len(evaluation_steps(recipe(steps=outcome.steps, evaluate_every=10), 3))
    spent = 1 + 4 + 2  # steps and evaluation that were measured
    assert outcome.steps == pytest.approx(120 * 0.99 - spent - 2 * EVALUATION_MARGIN * evaluations, abs=4)
    assert f"measured 1 s a step: {outcome.steps} steps ({outcome.steps / 3:.3g} epochs) fit" in said


@pytest.fixture
def _twelve_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "steps_that_fit", lambda *_, **__: 12)


@pytest.mark.usefixtures("_twelve_fit")
def test_a_training_for_minutes_is_one_of_so_many_steps(out: Path) -> None:
    """Bit for bit."""
    outcome = train(small(), SHAPES, recipe(ema=0.9), out / "minutes", VAL, minutes=0.06, quiet=True)
    same = recipe(ema=0.9, steps=outcome.steps)
    train(small(), SHAPES, same, out / "steps", VAL, quiet=True)
    assert differences(checkpoint(out / "minutes"), checkpoint(out / "steps")) == []
    assert outcome.steps == 12


@pytest.mark.usefixtures("_twelve_fit")
def test_resuming_keeps_the_number_of_steps(out: Path) -> None:
    def stop(forward: int) -> None:
        if forward == 5 and Run(out).config.exists():  # not while the pace is measured
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted) as stopped:
        train(small(on_step=stop), SHAPES, recipe(), out, minutes=0.06, quiet=True)
    assert stopped.value.step == 6
    steps = Run(out).read_config()["recipe"]["steps"]
    with pytest.raises(RunError, match=r"was started with --minutes 0\.06; to resume it, use the same"):
        train(small(), SHAPES, recipe(), out, minutes=1, resume=True, quiet=True)
    with pytest.raises(RunError, match="holds a run already"):
        train(small(), SHAPES, recipe(), out, minutes=0.06, quiet=True)
    outcome = train(small(seed=3), SHAPES, recipe(), out, minutes=0.06, resume=True, quiet=True)
    assert outcome.steps == steps
    whole = train(small(), SHAPES, recipe(steps=steps), out.parent / "whole", quiet=True)
    assert differences(checkpoint(out), checkpoint(whole.run.folder)) == []
    train(small(), SHAPES, recipe(), out.parent / "other", quiet=True)
    with pytest.raises(RunError, match="was started without --minutes"):
        train(small(), SHAPES, recipe(), out.parent / "other", minutes=1, resume=True, quiet=True)


@pytest.mark.parametrize(
    ("total", "said"), [(4, []), (5, ["about 5 s for 1 more step, until"]), (104, ["about 2 min for 100 more steps and 2 ev"])]
)
def test_after_a_few_steps_is_said_how_long_the_rest_takes(
    total: int, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and not behind the last step."""
    clock, messages = FakeClock(monkeypatch), list[str]()
    trainer: Any = SimpleNamespace(step=0, total=total, recipe=recipe(), synchronize=lambda: None)
    validator: Any = SimpleNamespace(remaining=lambda step: 2 * (total > 5), seconds_left=lambda step, pace: 0.0)
    logger: Any = SimpleNamespace(info=messages.append)
    announcement = pace.Announcement(trainer, validator, logger)
    for _ in range(total):
        clock.now += 1
        trainer.step += 1
        announcement.after_step()
    assert [message[: len(words)] for message, words in zip(messages, said, strict=True)] == said


def test_of_a_long_evaluation_the_first_batches_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch takes a second, and there are five; of images that are not kept, reading is part of each step."""
    clock, batches = FakeClock(monkeypatch), list[int]()
    monkeypatch.setattr(pace, "EVALUATED", 2)
    detector = clock.watch(small())

    def before_evaluation(module: Any, arguments: Any) -> None:
        if not module.training:
            clock.now += 1
            batches.append(len(arguments[0]))

    detector.register_forward_pre_hook(before_evaluation)
    with SignalHandler(active=False) as signals, process_group("cpu") as group:
        how = recipe(batch_size=1, cache=False)
        found, of_epoch = pace.measure_pace(detector, SHAPES, VAL, how, group, 0.0, signals)
    assert batches == [1, 1]
    assert (found.step, found.reading, of_epoch) == (1, 0, 13)
    assert found.evaluation == pytest.approx(EVALUATION_MARGIN * len(VAL))


def test_stopping_while_the_pace_is_measured(out: Path) -> None:
    stop = lambda forward: forward == 2 and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with pytest.raises(Interrupted) as stopped:
        train(small(on_step=stop), SHAPES, recipe(), out, minutes=1, quiet=True)
    assert (stopped.value.step, stopped.value.code) == (0, 128 + signal.SIGTERM)
    assert not out.exists()


def test_too_few_minutes_for_a_single_step(out: Path, capfd: pytest.CaptureFixture[str]) -> None:
    outcome = train(small(), SHAPES, recipe(), out, minutes=1e-6)
    assert outcome.steps == 1
    said = capfd.readouterr().err
    assert "1 step (0.333 epochs) fit, in more than the" in said
    assert "in less than 3 epochs little is learnt: a smaller --size or --width takes less time a step" in said


def test_sizes_by_turns_and_reading_are_allowed_for(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    """A step takes a second for each 100 pixels, and reading an image 10 s, but only in the first epoch."""
    clock = FakeClock(monkeypatch)
    detector = small()

    def before_forward(module: Any, arguments: Any) -> None:
        clock.now += arguments[0].shape[-1] * arguments[0].shape[-2] / 100 if module.training else 0

    detector.register_forward_pre_hook(before_forward)
    read = SHAPES.read
    monkeypatch.setattr(SHAPES, "read", lambda *a: (setattr(clock, "now", clock.now + 10), read(*a))[1])
    how = recipe(sizes=((10, 100), (20, 100), (30, 100)), evaluate_every=0, log_every=100)
    outcome = train(detector, SHAPES, how, out, minutes=30, quiet=True)
    assert 0.95 * 1800 < clock.now <= 1800 * 1.05
    assert outcome.steps > 60
