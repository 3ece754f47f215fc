"""Evaluation in a training: the best weights, early stopping, and both after a resume."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import SHAPES, VAL, differences, recipe, small

from nasdsl.evaluation import Evaluation
from nasdsl.training import Interrupted, Recipe, Run, train, validation
from nasdsl.training.checkpoint import load_checkpoint
from nasdsl.training.loaders import evaluation_steps
from nasdsl.training.validation import main_figure


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """AP by step, which evaluations then find."""
    aps: dict[int, float] = {}
    original = validation.Validator._record

    def record(self: validation.Validator, evaluation: Evaluation, *rest: Any) -> None:
        assert evaluation.coco is not None
        found = replace(evaluation, coco=replace(evaluation.coco, ap=aps[self._trainer.step]))
        original(self, found, *rest)

    monkeypatch.setattr(validation.Validator, "_record", record)
    return aps


def weights(file: Path) -> Any:
    return torch.load(file, weights_only=True)["model"]


def evaluated(run: Run) -> dict[int, float]:
    records = [json.loads(line) for line in run.log.read_text().splitlines()]
    return {r["step"]: r["coco"]["ap"] for r in records if r["event"] == "evaluation"}


# 5 epochs of 3 steps
APS = {3: 0.1, 6: 0.4, 9: 0.3, 12: 0.4, 15: 0.2}
HOW = {"epochs": 5, "evaluate_every": 1, "ema": 0.9}


@pytest.mark.parametrize(
    ("settings", "batches", "steps"),
    [
        ({"steps": 10, "evaluate_every": 0}, 3, [10]),
        ({"steps": 10, "evaluate_every": 1}, 3, [3, 6, 9, 10]),
        ({"steps": 9, "evaluate_every": 1}, 3, [3, 6, 9]),
        ({"steps": 10, "evaluate_every": 0.5}, 5, [3, 5, 8, 10]),
        ({"steps": 7, "evaluate_every": 1, "accumulate": 2}, 5, [3, 5, 7]),  # an epoch is two steps and a half
        ({"steps": 2, "evaluate_every": 3}, 5, [2]),
        ({"epochs": 2, "evaluate_every": 1}, 4, [4, 8]),
        ({"steps": 6, "evaluate_every": 0.2}, 2, [1, 2, 3, 4, 5, 6]),
    ],
)
def test_steps_with_an_evaluation(settings: dict[str, Any], batches: int, steps: list[int]) -> None:
    assert evaluation_steps(Recipe.from_dict(settings), batches) == steps


def test_the_best_weights_are_kept_beside_the_last(out: Path, scripted: dict[int, float]) -> None:
    scripted |= APS
    outcome = train(small(), SHAPES, recipe(**HOW), out, VAL, quiet=True)
    run = Run(out)
    assert (outcome.best_step, outcome.steps, outcome.stopped_early) == (6, 15, False)
    assert evaluated(run) == APS
    metrics = json.loads(run.metrics.read_text())
    assert (metrics["step"], metrics["coco"]["ap"]) == (15, 0.2)
    assert (metrics["best"]["step"], metrics["best"]["coco"]["ap"]) == (6, 0.4)
    # The weights at step 6 are those of the same training, stopped there.
    stop = lambda forward: forward == 5 and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with pytest.raises(Interrupted):
        train(small(on_step=stop), SHAPES, recipe(**HOW), out.parent / "other", VAL, quiet=True)
    assert differences(weights(run.best), weights(Run(out.parent / "other").model)) == []
    assert differences(weights(run.best), weights(run.model))


@pytest.mark.long
@pytest.mark.parametrize("stopped_in", ["step", "evaluation"])
def test_best_weights_and_early_stopping_after_a_resume(
    stopped_in: str, out: Path, scripted: dict[int, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped while the best is known, in a step or in the middle of the evaluation of step 9, which is then made up for."""
    scripted |= APS
    how = recipe(**HOW, patience=3)
    outcome = train(small(), SHAPES, how, out / "whole", VAL, quiet=True)
    assert (outcome.steps, outcome.stopped_early, outcome.best_step) == (15, False, 6)
    original = validation.predict

    def stopping(*arguments: Any, **options: Any) -> Any:
        saved = load_checkpoint(Run(out / "broken").checkpoint)
        assert saved is not None
        if saved.state["step"] == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **options)

    if stopped_in == "evaluation":
        monkeypatch.setattr(validation, "predict", stopping)
    stop = lambda forward: stopped_in == "step" and forward == 9 and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    with pytest.raises(Interrupted):
        train(small(on_step=stop), SHAPES, how, out / "broken", VAL, quiet=True)
    monkeypatch.setattr(validation, "predict", original)
    assert evaluated(Run(out / "broken")) == {s: ap for s, ap in APS.items() if s < 9 or (s == 9 and stopped_in == "step")}
    train(small(seed=4), SHAPES, how, out / "broken", VAL, resume=True, quiet=True)
    for name in ("best", "model"):
        files = [getattr(Run(out / folder), name) for folder in ("whole", "broken")]
        assert differences(*map(weights, files)) == []
    assert evaluated(Run(out / "broken")) == APS
    assert len({Run(out / folder).metrics.read_text() for folder in ("whole", "broken")}) == 1


def test_a_training_stops_when_nothing_better_comes(
    out: Path, scripted: dict[int, float], capfd: pytest.CaptureFixture[str]
) -> None:
    """An equal figure is nothing better. What has stopped is finished, unless it is resumed with more patience."""
    scripted |= APS
    how = recipe(**HOW, patience=2)
    outcome = train(small(), SHAPES, how, out, VAL)
    assert (outcome.steps, outcome.best_step, outcome.stopped_early) == (12, 6, True)
    said = capfd.readouterr().err
    assert "stopped early at step 12 of 15: 2 evaluations without a new best. best.pt is of step 6" in said
    assert "best at step 6" in said
    again = train(small(seed=1), SHAPES, how, out, VAL, resume=True, quiet=True)
    assert (again.steps, again.stopped_early) == (12, True)
    assert again.evaluation is not None
    more = train(small(seed=1), SHAPES, how.changed({"patience": 4}), out, VAL, resume=True, quiet=True)
    assert (more.steps, more.best_step, more.stopped_early) == (15, 6, False)


def test_evaluations_that_find_nothing_are_no_best_ones(
    out: Path, scripted: dict[int, float], capfd: pytest.CaptureFixture[str]
) -> None:
    """Until something is detected, the last weights are kept, nothing is called the best, and patience is not used up."""
    scripted |= {3: 0.0, 6: 0.0004, 9: 0.0, 12: 0.2, 15: 0.0}
    stop = lambda forward: forward == 10 and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731  # one line at its only user
    how = recipe(**HOW, patience=2)
    with pytest.raises(Interrupted):
        train(small(on_step=stop), SHAPES, how, out, VAL)
    assert json.loads(Run(out).metrics.read_text())["best"]["step"] == 9
    assert "the best" not in capfd.readouterr().err
    outcome = train(small(), SHAPES, how, out, VAL, resume=True)
    assert (outcome.steps, outcome.best_step, outcome.stopped_early) == (15, 12, False)
    said = capfd.readouterr().err.splitlines()
    assert [line.partition("; ")[2] for line in said if ": AP " in line] == ["the best so far", "best at step 12"]


@pytest.mark.long
def test_evaluations_that_follow_each_other_quickly_are_not_all_printed(
    out: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """An evaluation takes four seconds here: those after 4, 16 and 28 seconds are printed, and the last one."""
    clock, original = [0.0], validation.predict

    def slow(*arguments: Any, **options: Any) -> Any:
        clock[0] += 4
        return original(*arguments, **options)

    monkeypatch.setattr(validation, "predict", slow)
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    train(small(), SHAPES, recipe(epochs=8, evaluate_every=1), out, VAL)
    said = capfd.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in said if ": AP " in line] == ["step 3", "step 12", "step 21", "step 24"]
    assert len(evaluated(Run(out))) == 8


def test_the_figure_that_decides() -> None:
    assert main_figure({"coco": {"ap": 0.25}, "voc12": {"mean_ap": 0.5}}) == 0.25
    assert main_figure({"coco": None, "voc12": None, "voc07": {"mean_ap": 0.5}}) == 0.5
    assert main_figure({"coco": {"ap": None}, "voc12": {"mean_ap": 0.5}}) < 0
