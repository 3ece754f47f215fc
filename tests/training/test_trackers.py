"""Trackers of experiments: what they are given, in a training that is stopped and resumed. They are fakes here."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from small_training import SHAPES, VAL, recipe, small

from nasdsl.training import TRACKERS, Interrupted, Run, TrainingError, train

Call = tuple[str, Any]


def _trackio(calls: list[Call]) -> dict[str, Any]:
    return {
        "init": lambda **options: calls.append(("start", {**options, "id": options["name"]})),
        "log": lambda figures, step: calls.append(("log", (step, figures))),
        "finish": lambda: calls.append(("finish", None)),
    }


def _wandb(calls: list[Call]) -> dict[str, Any]:
    run = SimpleNamespace(
        log=lambda figures, step: calls.append(("log", (step, figures))),
        finish=lambda exit_code: calls.append(("finish", exit_code)),
    )
    return {"init": lambda **options: (calls.append(("start", options)), run)[1]}


def _mlflow(calls: list[Call]) -> dict[str, Any]:
    def start_run(**options: Any) -> Any:
        run_id = options.get("run_id") or f"run-{len(calls)}"
        calls.append(("start", {**options, "id": run_id}))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    return {
        "set_experiment": lambda name: calls.append(("experiment", name)),
        "start_run": start_run,
        "log_params": lambda parameters: calls.append(("config", parameters)),
        "log_metrics": lambda figures, step: calls.append(("log", (step, figures))),
        "end_run": lambda status: calls.append(("finish", status)),
    }


def _tensorboard(calls: list[Call]) -> dict[str, Any]:
    class SummaryWriter:
        def __init__(self, folder: str, purge_step: int) -> None:
            calls.append(("start", {"folder": folder, "purge_step": purge_step, "id": None}))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            calls.append(("log", (step, {name: value})))

        def close(self) -> None:
            calls.append(("finish", None))

    return {"SummaryWriter": SummaryWriter}


FAKES: dict[str, tuple[str, Callable[[list[Call]], dict[str, Any]]]] = {
    "tensorboard": ("torch.utils.tensorboard", _tensorboard),
    "trackio": ("trackio", _trackio),
    "wandb": ("wandb", _wandb),
    "mlflow": ("mlflow", _mlflow),
}
OUTCOMES = {"tensorboard": (None, None), "trackio": (None, None), "wandb": (0, 1), "mlflow": ("FINISHED", "KILLED")}


def fake(name: str, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Puts a fake module in the place of a tracker's; returns the calls that it will get."""
    calls: list[Call] = []
    path, make = FAKES[name]
    module = ModuleType(path)
    for function, value in make(calls).items():
        setattr(module, function, value)
    monkeypatch.setitem(sys.modules, path, module)
    return calls


def of(kind: str, calls: list[Call]) -> list[Any]:
    return [value for name, value in calls if name == kind]


def figures(calls: list[Call]) -> dict[str, dict[int, float]]:
    """By name and step."""
    found: dict[str, dict[int, float]] = {}
    for step, values in of("log", calls):
        for name, value in values.items():
            found.setdefault(name, {})[step] = value
    return found


def test_every_tracker_is_tested() -> None:
    assert set(FAKES) == set(TRACKERS)


@pytest.mark.parametrize("name", [n if n == "wandb" else pytest.param(n, marks=pytest.mark.long) for n in TRACKERS])
def test_a_training_that_is_stopped_and_resumed(name: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake(name, monkeypatch)
    stop = lambda forward: forward == 4 and os.kill(os.getpid(), signal.SIGTERM)  # noqa: E731
    how = recipe(evaluate_every=2)
    with pytest.raises(Interrupted):
        train(small(on_step=stop), SHAPES, how, out, VAL, trackers=[name, name], about={"data": "shapes"}, quiet=True)
    train(small(seed=1), SHAPES, how, out, VAL, trackers=[name], about={"data": "shapes"}, resume=True, quiet=True)
    starts = of("start", calls)
    assert len(starts) == 2
    assert starts[0]["id"] == starts[1]["id"]
    done, stopped = OUTCOMES[name]
    assert of("finish", calls) == [stopped, done]
    records = [json.loads(line) for line in Run(out).log.read_text().splitlines()]
    found = figures(calls)
    assert found["train/loss"] == {r["step"]: r["loss"] for r in records if r["event"] == "train"}
    assert sorted(found["train/loss"]) == [2, 4, 5, 6, 8, 9]
    assert set(found["train/losses/classification"]) == set(found["train/lr"]) == set(found["train/loss"])
    assert found["evaluation/coco/ap"] == {r["step"]: r["coco"]["ap"] for r in records if r["event"] == "evaluation"}
    assert found["summary/best/coco/ap"] == {9: 0.0}
    assert found["summary/best_step"] == {9: 9}, "nothing is detected"
    if name == "mlflow":
        (config,) = of("config", calls)
        assert (config["recipe.batch_size"], config["data.data"], config["data.pictures"]) == ("4", "shapes", "13")
        assert of("experiment", calls) == ["nasdsl"]
        assert starts[1]["run_id"] == starts[0]["id"]
    elif name == "tensorboard":
        assert [start["purge_step"] for start in starts] == [1, 6]
    else:
        for start in starts:
            assert start["config"]["recipe"]["batch_size"] == 4
            assert start["config"]["data"]["data"] == "shapes"
            assert (start["resume"], start["project"]) == ("allow", "nasdsl")


def test_a_new_run_has_an_id_of_its_own(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake("wandb", monkeypatch)
    for folder in ("one", "two"):
        train(small(), SHAPES, recipe(epochs=1), out / folder, trackers=["wandb"], quiet=True)
    one, two = of("start", calls)
    assert one["id"] != two["id"]
    assert (one["name"], two["name"]) == ("one", "two")


@pytest.mark.parametrize(("name", "outcome"), [("wandb", 1), ("mlflow", "FAILED")])
def test_a_training_that_fails_is_marked_so(name: str, outcome: object, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = fake(name, monkeypatch)

    def crash(forward: int) -> None:
        if forward == 3:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(small(on_step=crash), SHAPES, recipe(), out, trackers=[name], quiet=True)
    assert of("finish", calls) == [outcome]


def test_a_tracker_that_fails_does_not_stop_the_training(
    out: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    calls = fake("mlflow", monkeypatch)

    def log_metrics(figures: dict[str, float], step: int) -> None:
        calls.append(("log", (step, figures)))
        if step == 4:
            raise ConnectionError("the server is gone\nmore")

    monkeypatch.setattr(sys.modules["mlflow"], "log_metrics", log_metrics)
    outcome = train(small(), SHAPES, recipe(), out, trackers=["mlflow"])
    assert outcome.steps == 9
    assert [step for step, _ in of("log", calls)] == [2, 4]
    assert "warning: mlflow failed and gets nothing more: the server is gone\n" in capfd.readouterr().err


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_reported_before_anything_is_done(name: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, FAKES[name][0], None)
    with pytest.raises(TrainingError, match=rf"pip install 'nasdsl\[{name}\]', or leave it out"):
        train(small(), SHAPES, recipe(), out, trackers=[name], quiet=True)
    assert not out.exists()


def test_a_tracker_that_cannot_start(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are ended, and the run can be resumed without it."""
    first, calls = fake("wandb", monkeypatch), fake("mlflow", monkeypatch)

    def refuse(**_: Any) -> None:
        raise PermissionError("no login")

    monkeypatch.setattr(sys.modules["mlflow"], "start_run", refuse)
    with pytest.raises(TrainingError, match=r"mlflow cannot start: no login\. --resume goes on with"):
        train(small(), SHAPES, recipe(), out, trackers=["wandb", "mlflow"], quiet=True)
    assert of("finish", first) == [1]
    assert of("finish", calls) == []
    assert train(small(), SHAPES, recipe(), out, resume=True, quiet=True).steps == 9
    with pytest.raises(TrainingError, match="there is no tracker 'neptune'; expected one of tensorboard"):
        train(small(), SHAPES, recipe(), out, trackers=["neptune"], quiet=True)
