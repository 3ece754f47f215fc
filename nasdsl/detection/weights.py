"""Saving and loading weights of detectors, together with their config. Loading never runs code from a file."""

from __future__ import annotations

import errno
import os
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nasdsl.detection.detector import Detector, DetectorError

FORMAT = "nasdsl detector 1"
MODEL = "model.pt"


def save_detector(detector: Detector, path: str | Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a detector to a file, atomically.

    Args:
        weights: written instead of the detector's own, such as the averaged weights of a training.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    saved = {"format": FORMAT, "config": detector.config, "model": dict(weights or detector.state_dict())}
    # A fixed name, so that the next call overwrites what a killed process left.
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            torch.save(saved, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except RuntimeError as error:  # torch.save raises it when the disk is full
        raise OSError(errno.EIO, f"cannot be written: {str(error).splitlines()[0]}", str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def load_weights(detector: Detector, path: str | Path) -> None:
    """Load the weights of a run's folder, of a ``model.pt``, or of a file with a state dict into a detector.

    Where the number of classes differs, the detector keeps its own classification layer, for fine-tuning on other data; every
    other difference is an error.

    Raises:
        DetectorError: the file is missing or broken, or has the weights of another detector; the message names the difference.
    """
    read_weights(path).load_for_fine_tuning(detector)


@dataclass(frozen=True)
class SavedWeights:
    """Content of a file of weights.

    Attributes:
        file: its path.
        weights: tensors by name.
        config: `Detector.config` of the detector; None if the file has only a state dict.
    """

    file: Path
    weights: dict[str, Tensor]
    config: dict[str, Any] | None

    @property
    def backbone(self) -> dict[str, Any]:
        """The arguments of `make_backbone`; empty if unknown."""
        return dict((self.config or {}).get("backbone") or {})

    def load_for_fine_tuning(self, detector: Detector) -> None:
        """See `load_weights`."""
        weights, own = dict(self.weights), detector.state_dict()
        for name in ("decoder.head.cls_logits.weight", "decoder.head.cls_logits.bias"):
            if name in weights and name in own and weights[name].shape[1:] == own[name].shape[1:]:
                weights[name] = weights[name] if weights[name].shape == own[name].shape else own[name]
        replace(self, weights=weights).load_into(detector)

    def load_into(self, detector: Detector) -> None:
        """Load all weights into a detector.

        Raises:
            DetectorError: they are the weights of another detector.
        """
        own = detector.state_dict()
        # Trained BatchNorms have `num_batches_tracked`, frozen ones do not: the weights are valid for both.
        counts = {name: own.get(name) for name in own.keys() ^ self.weights.keys() if name.endswith(".num_batches_tracked")}
        weights = {k: v for k, v in {**self.weights, **counts}.items() if v is not None}
        missing = sorted(set(own) - set(weights))
        unexpected = sorted(set(weights) - set(own))
        shapes = [
            f"{name} is {list(weights[name].shape)}, expected {list(own[name].shape)}"
            for name in sorted(set(own) & set(weights))
            if own[name].shape != weights[name].shape
        ]
        if missing or unexpected or shapes:
            differences = [
                *([f"missing: {_first_three(missing)}"] if missing else []),
                *([f"not of this detector: {_first_three(unexpected)}"] if unexpected else []),
                *([f"of another shape: {_first_three(shapes)}"] if shapes else []),
            ]
            raise DetectorError(f"{self.file} has the weights of another detector; {'; '.join(differences)}")
        detector.load_state_dict(weights)


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path / MODEL if path.is_dir() else path


def read_weights(path: str | Path) -> SavedWeights:
    """Read the weights of a run's folder, of a ``model.pt``, or of a file with a state dict, without running code from it.

    Raises:
        DetectorError: the file is missing or broken, or holds something else.
    """
    file = _file(path)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()  # torch.load does not verify the checksums
            if damaged is not None:
                raise ValueError(f"the checksum of its part {damaged} is wrong")
        with warnings.catch_warnings(action="ignore"):  # about old formats
            saved = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        message = f"{path} has no {MODEL}: is it a run whose training has saved?" if Path(path).is_dir() else f"no file {file}"
        raise DetectorError(message) from None
    except pickle.UnpicklingError:
        raise DetectorError(f"{file} is not a file of weights, or holds more than weights, which could run code") from None
    except Exception as error:  # a broken file can raise anything
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DetectorError(f"{file} cannot be read as weights: {reason}") from None
    weights = saved.get("model", saved) if isinstance(saved, dict) else saved
    if not isinstance(weights, dict) or not weights or not all(isinstance(v, Tensor) for v in weights.values()):
        raise DetectorError(f"{file} holds no weights by name; expected a detector or a state dict")
    config = saved.get("config") if saved.get("format") == FORMAT else None
    return SavedWeights(file, dict(weights), config if isinstance(config, dict) else None)


def _first_three(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
