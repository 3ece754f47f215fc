"""The folder of a run: configuration, checkpoints, log, results."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import torchvision

from nasdsl.files import make_folder, read_json, write_bytes, write_json
from nasdsl.lock import Lock, LockHeld
from nasdsl.training.errors import RunError
from nasdsl.training.recipe import Recipe

FORMAT: Final = "nasdsl run 1"
CHANGEABLE: Final = {"workers", "cache", "log_every", "checkpoint_every", "evaluate_every", "patience"}
"""Settings of a recipe that may change when a run is resumed: the weights do not depend on them."""


@dataclass(frozen=True)
class Run:
    """The folder of a run.

    Files: ``config.json`` (detector, recipe, data, versions), ``decoder.nas``, ``checkpoint.pt`` (to resume),
    ``model.pt`` (the detector at the last checkpoint, with averaged weights if the recipe averages; `load_detector` reads it),
    ``best.pt`` (the same at the best evaluation so far), ``log.jsonl`` (one record a line), ``metrics.json`` (the last and the
    best evaluation) and ``results.json`` (detections of the last one).
    """

    folder: Path

    @property
    def config(self) -> Path:
        return self.folder / "config.json"

    @property
    def decoder(self) -> Path:
        return self.folder / "decoder.nas"

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    @property
    def model(self) -> Path:
        return self.folder / "model.pt"

    @property
    def best(self) -> Path:
        return self.folder / "best.pt"

    @property
    def log(self) -> Path:
        return self.folder / "log.jsonl"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def results(self) -> Path:
        return self.folder / "results.json"

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Class names of the run's detector by label; None where the folder is no run."""
        try:
            detector = self.read_config().get("detector")
        except RunError:
            return None
        return tuple(detector["classes"]) if isinstance(detector, dict) and detector.get("classes") else None

    def read_config(self) -> dict[str, Any]:
        """The content of ``config.json``.

        Raises:
            RunError: the folder is no run, or the file is broken.
        """
        try:
            config = read_json(self.config)
        except FileNotFoundError:
            raise RunError(f"{self.folder} is no run: it has no {self.config.name}") from None
        except (OSError, ValueError) as error:
            raise RunError(f"{self.config} cannot be read: {error}") from None
        if not isinstance(config, dict) or config.get("format") != FORMAT:
            raise RunError(f"{self.config} is not of the form {FORMAT!r}")
        return config


def check_new(run: Run) -> None:
    """Check that the folder holds no run yet.

    Raises:
        RunError: it does.
    """
    if run.config.exists():
        raise RunError(f"{run.folder} holds a run already: resume it (--resume), or choose another folder")


@contextmanager
def locked_run(run: Run) -> Iterator[None]:
    """Keep other trainings out of a run's folder, which is made if it is missing.

    Raises:
        RunError: another training is running there, or the folder cannot be written.
    """
    if run.folder.exists() and not run.folder.is_dir():
        raise RunError(f"{run.folder} is a file; expected a folder for the run")
    try:
        make_folder(run.folder)
        lock = Lock(run.folder / ".training.lock")
    except LockHeld:
        raise RunError(f"another training is running in {run.folder}; stop it, or choose another folder") from None
    except OSError as error:
        raise RunError(f"cannot write to {run.folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def open_run(
    folder: str | Path,
    *,
    detector: Mapping[str, Any],
    recipe: Mapping[str, Any],
    data: Mapping[str, Any],
    about: Mapping[str, Any] | None = None,
    resume: bool = False,
) -> Run:
    """Create the folder of a run with its ``config.json`` and ``decoder.nas``, or open that of the same training to resume it.

    Args:
        detector: `Detector.config`.
        recipe: `Recipe.to_dict()`.
        data: describes the data set; compared when a run is resumed.
        about: further values to store, such as the command; not compared.
        resume: open the existing run; if there is none, create it.

    Raises:
        RunError: the folder holds a run and `resume` is false, or holds one of another training, or cannot be written.
    """
    run = Run(Path(folder))
    wanted = json.loads(json.dumps({"detector": detector, "recipe": recipe, "data": data}))
    versions = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    config = {"format": FORMAT, **wanted, "about": dict(about or {}), "versions": versions}
    if run.config.exists():
        if not resume:
            check_new(run)
        _check_same(run, run.read_config(), wanted)
    elif run.checkpoint.exists() or run.model.exists():
        raise RunError(f"{run.folder} has a checkpoint and no {run.config.name}: choose another folder")
    try:
        make_folder(run.folder)
        text = str(detector.get("decoder", ""))
        if text:
            write_bytes(run.decoder, text.encode())
        write_json(run.config, config)
    except OSError as error:
        raise RunError(f"cannot write to {run.folder}: {error.strerror or error}") from error
    return run


def _check_same(run: Run, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    differences = []
    for part in ("detector", "recipe", "data"):
        old, new = before.get(part, {}), now[part]
        if part == "recipe":  # settings that an earlier version did not have yet
            old = {**Recipe().to_dict(), **old}
        for name in sorted({*old, *new} - (CHANGEABLE if part == "recipe" else set())):
            if old.get(name) != new.get(name):
                differences.append(f"  {part}: {name} was {_shorten(old.get(name))}, is {_shorten(new.get(name))}")
    if differences:
        raise RunError(
            f"{run.folder} is the run of another training; to resume it, use the same settings:\n" + "\n".join(differences)
        )


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
