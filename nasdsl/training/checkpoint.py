"""Checkpoints: written atomically, with the previous one kept, and loaded without executing code from them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nasdsl.backends.layer_errors import first_line
from nasdsl.files import write_atomically
from nasdsl.torch_files import load_torch_file
from nasdsl.training.errors import CheckpointError


class LoadedCheckpoint(NamedTuple):
    """A loaded checkpoint.

    Attributes:
        state: what was saved.
        path: the file that it was loaded from.
        problem: why a newer file could not be read; None if there is none.
    """

    state: dict[str, Any]
    path: Path
    problem: str | None


def previous_path(path: Path) -> Path:
    """The file of the checkpoint before the last one."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save a checkpoint; the one before it is kept at `previous_path(path)`.

    Raises:
        CheckpointError: it cannot be written; the old one is unchanged.
    """
    previous = previous_path(path)
    try:
        if path.exists():  # by a hard link, so that `path` exists at any time
            link = path.with_name(f".{previous.name}.unfinished")
            link.unlink(missing_ok=True)
            try:
                os.link(path, link)
                os.replace(link, previous)
                link.unlink(missing_ok=True)  # os.replace does nothing if both are the same file, after a failure
            except OSError:  # a file system without hard links
                os.replace(path, previous)
        write_atomically(path, lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        kept = "; the checkpoint before it is still there" if path.exists() or previous.exists() else ""
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"cannot write {path}: {reason}{kept}") from error


def load_checkpoint(path: Path) -> LoadedCheckpoint | None:
    """Load the newest complete checkpoint, its tensors on the CPU; None if there is no file.

    Raises:
        CheckpointError: there are files and none can be read.
    """
    problems: list[str] = []
    for file in (path, previous_path(path)):
        if not file.exists():
            continue
        try:
            return LoadedCheckpoint(_read(file), file, "; ".join(problems) or None)
        except Exception as error:  # a broken file can raise anything
            problems.append(f"{file} cannot be read as a checkpoint: {first_line(error)}")
    if problems:
        raise CheckpointError("; ".join(problems) + "; remove the folder and train anew")
    return None


def _read(file: Path) -> dict[str, Any]:
    state = load_torch_file(file)
    if not isinstance(state, dict) or "step" not in state:
        raise ValueError("it is no checkpoint of a training")
    return state
