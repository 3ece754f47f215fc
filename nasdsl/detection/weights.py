"""Saving and loading weights of detectors, together with their config. Loading never runs code from a file."""

from __future__ import annotations

import errno
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nasdsl.backbones import backbone as find_backbone
from nasdsl.decoder import loads
from nasdsl.detection.detector import Detector, DetectorError
from nasdsl.detection.inheritance import Origin, inherit
from nasdsl.detection.inheritance_result import Inheritance
from nasdsl.detection.torchvision_weights import convert, is_torchvision_detector
from nasdsl.files import write_atomically
from nasdsl.torch_files import load_torch_file

FORMAT = "nasdsl detector 1"
MODEL = "model.pt"
_BACKBONE_KEYS = ("conv1.weight", "layer1.0.conv1.weight", "features.0.0.weight")
"""Names in files that have the weights of a backbone alone."""


def save_detector(detector: Detector, path: str | Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write a detector to a file, atomically.

    Args:
        weights: written instead of the detector's own, such as the averaged weights of a training.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    saved = {"format": FORMAT, "config": detector.config, "model": dict(weights or detector.state_dict())}
    try:
        write_atomically(path, lambda file: torch.save(saved, file))
    except RuntimeError as error:  # torch.save raises it when the disk is full
        raise OSError(errno.EIO, f"cannot be written: {str(error).splitlines()[0]}", str(path)) from error


def load_weights(detector: Detector, path: str | Path) -> Inheritance:
    """Start a detector from the weights of a run's folder, of a ``model.pt``, or of another file; see `SavedWeights.inherit`.

    Raises:
        DetectorError: the file is missing or broken, or has nothing in common with the detector.
    """
    return read_weights(path).inherit(detector)


@dataclass(frozen=True)
class SavedWeights:
    """Content of a file of weights.

    Attributes:
        file: its path.
        weights: tensors by name.
        config: `Detector.config` of the detector; None if the file has only a state dict.
        holder: options on the command line of a detector that holds all weights, where they are not of this package.
    """

    file: Path
    weights: dict[str, Tensor]
    config: dict[str, Any] | None
    holder: str | None = None

    @property
    def backbone(self) -> dict[str, Any]:
        """The arguments of `make_backbone`; empty if unknown."""
        return dict((self.config or {}).get("backbone") or {})

    def inherit(self, detector: Detector) -> Inheritance:
        """Copy to a detector what it has in common with the detector of these weights; see `nasdsl.detection.inheritance`.

        Raises:
            DetectorError: they have nothing in common; the detector is unchanged.
        """
        result = inherit(detector, self.weights, self._origin(detector), str(self.file))
        if not result.inherited:
            parts = "; ".join(str(part) for part in result.parts)
            advice = " These are weights of a backbone: give them as its weights (--backbone-weights)."
            raise DetectorError(
                f"{self.file} has the weights of another detector, which has nothing in common with this one. {parts}."
                f"{advice if any(key in self.weights for key in _BACKBONE_KEYS) else ''}"
            )
        return result

    def _origin(self, detector: Detector) -> Origin:
        """The detector of these weights, as far as it is known."""
        config = self.config or {}
        name = self.backbone.get("name")
        try:
            channels = find_backbone(name).out_channels if name else detector.backbone.out_channels
            graph = loads(config["decoder"], "the saved decoder").lower(channels)
        except (KeyError, ValueError):  # only a state dict, or a decoder that this version cannot read: names and shapes remain
            graph = None
        classes = config.get("classes")
        return Origin(name, graph, classes if isinstance(classes, list) else None, self.holder)

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

    Those of torchvision's FCOS and RetinaNet are converted; see `nasdsl.detection.torchvision_weights`.

    Raises:
        DetectorError: the file is missing or broken, or holds something else.
    """
    file = _file(path)
    try:
        saved = load_torch_file(file)
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
    if is_torchvision_detector(weights):
        return SavedWeights(file, *convert(weights))
    config = saved.get("config") if saved.get("format") == FORMAT else None
    return SavedWeights(file, dict(weights), config if isinstance(config, dict) else None)


def _first_three(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
