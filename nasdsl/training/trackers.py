"""Trackers of experiments, which get the figures of a training: TensorBoard, trackio, Weights & Biases, MLflow."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TypeAlias

from nasdsl.backends.layer_errors import first_line
from nasdsl.files import read_json, write_json
from nasdsl.training.errors import TrainingError
from nasdsl.training.run import Run

PROJECT: Final = "nasdsl"
"""Project or experiment that runs are put into, unless the tracker's own environment variable names another."""
LONGEST_PARAMETER: Final = 500
"""Characters of a parameter's value that every MLflow server takes."""

Outcome: TypeAlias = Literal["finished", "interrupted", "failed"]
"""How a training ended. An interrupted one can be resumed."""


class Tracker(Protocol):
    """A run in a tracker.

    Attributes:
        run_id: by which the tracker finds the run again; None where the run's folder is enough.
    """

    run_id: str | None

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        """Log figures by name, such as ``train/losses/classification``."""

    def finish(self, outcome: Outcome) -> None:
        """Write what is pending, and end the run."""


class _TensorBoard:
    def __init__(self, module: Any, run: Run, run_id: str | None, step: int) -> None:
        self.run_id: str | None = None
        self._writer = module.SummaryWriter(str(run.folder), purge_step=step + 1)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, outcome: Outcome) -> None:
        self._writer.close()


class _Trackio:
    def __init__(self, module: Any, run: Run, run_id: str | None, step: int) -> None:
        # A run is found again by its name.
        self.run_id: str | None = run_id or f"{run.folder.name}-{_new_id()}"
        self._module = module
        module.init(project=PROJECT, name=self.run_id, config=_config(run), resume="allow")

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._module.log(dict(scalars), step=step)

    def finish(self, outcome: Outcome) -> None:
        self._module.finish()


class _Wandb:
    def __init__(self, module: Any, run: Run, run_id: str | None, step: int) -> None:
        self.run_id: str | None = run_id or _new_id()
        self._run = module.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            id=self.run_id,
            name=run.folder.name,
            dir=str(run.folder),
            config=_config(run),
            resume="allow",
        )

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._run.log(dict(scalars), step=step)

    def finish(self, outcome: Outcome) -> None:
        self._run.finish(exit_code=0 if outcome == "finished" else 1)


class _Mlflow:
    def __init__(self, module: Any, run: Run, run_id: str | None, step: int) -> None:
        self._module = module
        if run_id is None:
            module.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
            self.run_id: str | None = str(module.start_run(run_name=run.folder.name).info.run_id)
            module.log_params({name: str(value)[:LONGEST_PARAMETER] for name, value in _flat(_config(run)).items()})
        else:
            self.run_id = str(module.start_run(run_id=run_id).info.run_id)

    def log(self, scalars: Mapping[str, float], step: int) -> None:
        self._module.log_metrics(dict(scalars), step=step)

    def finish(self, outcome: Outcome) -> None:
        self._module.end_run({"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}[outcome])


_KINDS: Final[Mapping[str, tuple[str, Callable[[Any, Run, str | None, int], Tracker]]]] = {
    "tensorboard": ("torch.utils.tensorboard", _TensorBoard),
    "trackio": ("trackio", _Trackio),
    "wandb": ("wandb", _Wandb),
    "mlflow": ("mlflow", _Mlflow),
}
TRACKERS: Final = tuple(_KINDS)


def check_trackers(names: Sequence[str]) -> None:
    """Check that the packages of these trackers are installed, before anything is done.

    Raises:
        TrainingError: one is not, or there is no such tracker.
    """
    for name in names:
        _module(name)


def open_trackers(names: Sequence[str], run: Run, step: int) -> dict[str, Tracker]:
    """Start a run in each of these trackers, or go on with the one that the folder of the run names.

    Args:
        run: its ``config.json`` is there.
        step: from which the training goes on; 0: from the start.

    Raises:
        TrainingError: a package is missing, or the tracker cannot start: there is no login or no connection, say.
    """
    file = run.folder / "trackers.json"
    ids = _read_ids(file)
    opened: dict[str, Tracker] = {}
    for name in dict.fromkeys(names):
        module = _module(name)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                tracker = _KINDS[name][1](module, run, ids.get(name), step)
        except Exception as error:
            for other in opened.values():
                other.finish("failed")
            raise TrainingError(
                f"{name} cannot start: {first_line(error)}. --resume goes on with {run.folder}, also without it"
            ) from error
        opened[name] = tracker
        if tracker.run_id is not None and tracker.run_id != ids.get(name):
            ids[name] = tracker.run_id
            write_json(file, ids)
    return opened


def _module(name: str) -> Any:
    if name not in _KINDS:
        raise TrainingError(f"there is no tracker {name!r}; expected one of {', '.join(TRACKERS)}")
    try:
        return importlib.import_module(_KINDS[name][0])
    except ImportError:
        title = {"tensorboard": "TensorBoard", "mlflow": "MLflow"}.get(name, name)
        raise TrainingError(f"{title} is not installed: pip install 'nasdsl[{name}]', or leave it out") from None


def _read_ids(file: Path) -> dict[str, str]:
    try:
        ids = read_json(file)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file} cannot be read: {error}; remove it to start new runs in the trackers") from None
    return {str(name): str(run_id) for name, run_id in ids.items()} if isinstance(ids, dict) else {}


def _config(run: Run) -> dict[str, Any]:
    """What trackers show as the configuration: recipe, data and detector, without the text of the decoder."""
    config = run.read_config()
    detector = {name: value for name, value in config["detector"].items() if name != "decoder"}
    return {"recipe": config["recipe"], "data": {**config["data"], **config["about"]}, "detector": detector}


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values by path, such as ``recipe.learning_rate``."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _new_id() -> str:
    return uuid.uuid4().hex[:8]
