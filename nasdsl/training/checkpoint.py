"""Checkpoints that survive being killed at any instant, and that are read without running code from them."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from nasdsl.training.errors import CheckpointError


class LoadedCheckpoint(NamedTuple):
    """A checkpoint that was read.

    Attributes:
        state: what was saved.
        path: the file that it came from.
        broken: what was wrong with a newer file, if that could not be read.
    """

    state: dict[str, Any]
    path: Path
    broken: str | None


def previous(path: Path) -> Path:
    """Where the checkpoint before the last one lies."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """The file is the old one until the new one is whole and on the disk, whatever happens in between.

    Raises:
        OSError: it cannot be written; the old file is still there.
    """
    unfinished = path.with_name(f".{path.name}.unfinished")  # one name: what a killed process left is overwritten
    try:
        with open(unfinished, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new name is on the disk as well
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint; the one before it stays beside it, as `previous(path)`.

    Raises:
        CheckpointError: it cannot be written; the old one is still there.
    """
    kept = previous(path)
    try:
        if path.exists():  # a second name for the old file: `path` itself never is missing
            second = path.with_name(f".{kept.name}.unfinished")
            second.unlink(missing_ok=True)
            try:
                os.link(path, second)
                os.replace(second, kept)
                second.unlink(missing_ok=True)  # renaming does nothing where both are the same file, after a failure
            except OSError:  # a file system without hard links
                os.replace(path, kept)
        write_atomically(path, lambda file: torch.save(state, file))
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        raise CheckpointError(f"cannot write {path}: {error}; the checkpoint before it is still there") from error


def load_checkpoint(path: Path) -> LoadedCheckpoint | None:
    """The newest checkpoint that is whole, its tensors on the CPU; None where there is none at all.

    Raises:
        CheckpointError: there are files and none can be read.
    """
    broken: list[str] = []
    for file in (path, previous(path)):
        if not file.exists():
            continue
        try:
            return LoadedCheckpoint(_read(file), file, "; ".join(broken) or None)
        except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            broken.append(f"{file} cannot be read as a checkpoint: {reason}")
    if broken:
        raise CheckpointError("; ".join(broken) + "; remove the folder and train anew")
    return None


def _read(file: Path) -> dict[str, Any]:
    with zipfile.ZipFile(file) as archive:
        damaged = archive.testzip()  # torch.load does not compare the checksums
    if damaged is not None:
        raise ValueError(f"the checksum of its part {damaged} is wrong")
    state = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or "step" not in state:
        raise ValueError("it is no checkpoint of a training")
    return state
