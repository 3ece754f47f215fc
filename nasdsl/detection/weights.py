"""Weights of detectors in files, with what is needed to make the detector again. Reading one never runs code from it."""

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
    """Write a detector, atomically: the file is the old one or the new one, never a part.

    Args:
        weights: written instead of the detector's own, such as the averaged ones of a training.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    saved = {"format": FORMAT, "config": detector.config, "model": dict(weights or detector.state_dict())}
    unfinished = path.with_name(f".{path.name}.unfinished")  # one name: what a killed process left is overwritten
    try:
        with open(unfinished, "wb") as file:
            torch.save(saved, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except RuntimeError as error:  # torch.save's word for a full disk
        raise OSError(errno.EIO, f"cannot be written: {str(error).splitlines()[0]}", str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)


def load_weights(detector: Detector, path: str | Path) -> None:
    """Give a detector the weights of a run's folder, of a ``model.pt``, or of a file with a state dict.

    Where the classes differ in number, the detector keeps its own prediction of classes, as one wants who goes on from
    other data; every other difference is an error.

    Raises:
        DetectorError: no such file, a broken one, or weights of another detector, which the message names.
    """
    read_weights(path).give_to(detector)


@dataclass(frozen=True)
class Saved:
    """What a file holds.

    Attributes:
        weights: by name.
        config: `Detector.config` of the detector that had them; None in a file with a state dict alone.
    """

    file: Path
    weights: dict[str, Tensor]
    config: dict[str, Any] | None

    @property
    def backbone(self) -> dict[str, Any]:
        """The arguments of `make_backbone`; empty where unknown."""
        return dict((self.config or {}).get("backbone") or {})

    def give_to(self, detector: Detector) -> None:
        """See `load_weights`."""
        weights, own = dict(self.weights), detector.state_dict()
        for name in ("decoder.head.cls_logits.weight", "decoder.head.cls_logits.bias"):
            if name in weights and name in own and weights[name].shape[1:] == own[name].shape[1:]:
                weights[name] = weights[name] if weights[name].shape == own[name].shape else own[name]
        replace(self, weights=weights).fill(detector)

    def fill(self, detector: Detector) -> None:
        """Copy all of the weights.

        Raises:
            DetectorError: they are those of another detector.
        """
        own = detector.state_dict()
        # Frozen BatchNorms do not count batches, trained ones do: the same weights fit both.
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
            told = [
                *([f"missing: {_some(missing)}"] if missing else []),
                *([f"not of this detector: {_some(unexpected)}"] if unexpected else []),
                *([f"of another shape: {_some(shapes)}"] if shapes else []),
            ]
            raise DetectorError(f"{self.file} has the weights of another detector; {'; '.join(told)}")
        detector.load_state_dict(weights)


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path / MODEL if path.is_dir() else path


def read_weights(path: str | Path) -> Saved:
    """What a run's folder, its ``model.pt``, or a file with a state dict holds; nothing in it is run.

    Raises:
        DetectorError: no such file, a broken one, or one that holds something else.
    """
    file = _file(path)
    try:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()  # torch.load does not compare the checksums
            if damaged is not None:
                raise ValueError(f"the checksum of its part {damaged} is wrong")
        with warnings.catch_warnings(action="ignore"):  # of old formats
            saved = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        what = f"{path} has no {MODEL}: is it a run whose training has saved?" if Path(path).is_dir() else f"no file {file}"
        raise DetectorError(what) from None
    except pickle.UnpicklingError:
        raise DetectorError(f"{file} is no file of weights, or holds more than weights, which could run code") from None
    except Exception as error:  # a broken file fails in as many ways as there are bytes in it
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DetectorError(f"{file} cannot be read as weights: {reason}") from None
    found = saved.get("model", saved) if isinstance(saved, dict) else saved
    if not isinstance(found, dict) or not found or not all(isinstance(v, Tensor) for v in found.values()):
        raise DetectorError(f"{file} holds no weights by name; expected a detector or a state dict")
    config = saved.get("config") if saved.get("format") == FORMAT else None
    return Saved(file, dict(found), config if isinstance(config, dict) else None)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
