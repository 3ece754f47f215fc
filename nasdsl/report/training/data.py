"""Reads the folder of a training for a report, also while it is running, or if files are missing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nasdsl.files import json_lines, read_bytes
from nasdsl.report.reading import ReportError, read_object

CONFIG: Final = "config.json"
FORMAT: Final = "nasdsl run 1"
"""As in `nasdsl.training.run`, which needs torch."""


@dataclass(frozen=True)
class Training:
    """A training.

    Attributes:
        config: the content of ``config.json``.
        steps: records of the log about training steps, in order.
        evaluations: records of the log about evaluations, in order, one for each step.
        skipped: number of images that could not be read.
        metrics: the content of ``metrics.json``, the last evaluation; None without one.
    """

    folder: Path
    config: Mapping[str, Any]
    steps: tuple[Mapping[str, Any], ...]
    evaluations: tuple[Mapping[str, Any], ...]
    skipped: int
    metrics: Mapping[str, Any] | None

    def part(self, name: str) -> Mapping[str, Any]:
        """A part of the configuration: ``detector``, ``recipe``, ``data``, ``about``, ``versions``; empty if it is missing."""
        found = self.config.get(name)
        return found if isinstance(found, Mapping) else {}

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def seconds(self) -> float:
        """Time of all steps, without evaluations."""
        return sum(number_of(record, "seconds") or 0.0 for record in self.steps)

    @property
    def images(self) -> int:
        """Number of images that were trained on, with repetitions."""
        return sum(int(number_of(record, "images") or 0) for record in self.steps)

    @property
    def last_step(self) -> int:
        return int(self.steps[-1]["step"]) if self.steps else 0

    @property
    def epochs(self) -> float:
        """Number of epochs until the last step."""
        return (number_of(self.steps[-1], "epoch") or 0.0) if self.steps else 0.0

    @property
    def results(self) -> Path:
        """The file with the detections of the last evaluation."""
        return self.folder / "results.json"

    def seconds_at(self, step: int) -> float:
        """Time of the steps up to one."""
        return sum(number_of(record, "seconds") or 0.0 for record in self.steps if record["step"] <= step)

    def epoch_at(self, step: int) -> float:
        """The epoch of a step, a fraction."""
        return self.epochs * step / self.last_step if self.last_step else 0.0


def is_training(folder: Path) -> bool:
    """Whether a folder is that of a training, not of a search."""
    return (folder / CONFIG).is_file()


def read_training(folder: str | Path) -> Training:
    """Read the folder of a training.

    Args:
        folder: the ``--out`` of a training.

    Raises:
        ReportError: the folder is no training, or a file of it is broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ReportError(f"{folder} is no training: there is no such folder; expected that of `nasdsl train --out`")
    if not is_training(folder):
        raise ReportError(f"{folder} is no training: it has no {CONFIG}; expected the folder given to `nasdsl train --out`")
    config = read_object(folder / CONFIG, FORMAT)
    records = _records(folder / "log.jsonl")
    evaluations = {record["step"]: record for record in records if record["event"] == "evaluation"}
    metrics = folder / "metrics.json"
    return Training(
        folder,
        config,
        tuple(record for record in records if record["event"] == "train"),
        tuple(evaluations.values()),
        len({record.get("file") for record in records if record["event"] == "skipped"}),
        read_object(metrics) if metrics.is_file() else None,
    )


def number_of(record: Mapping[str, Any] | None, *path: str) -> float | None:
    """A finite number of a record by its path; None if there is none."""
    value: Any = record
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None


def average_precision(record: Mapping[str, Any] | None) -> tuple[str, float | None]:
    """Name and value, a fraction of 1, of the main metric of an evaluation: COCO's AP, else VOC's."""
    for name, path in (("AP", ("coco", "ap")), ("VOC12", ("voc12", "mean_ap")), ("VOC07", ("voc07", "mean_ap"))):
        value = number_of(record, *path)
        if value is not None:
            return name, value
    return "AP", None


def classes_of(record: Mapping[str, Any] | None) -> Sequence[Mapping[str, Any]]:
    """The classes of an evaluation with their metrics; of COCO's, else of VOC's."""
    for name in ("coco", "voc12", "voc07"):
        found = (record or {}).get(name)
        if isinstance(found, Mapping) and isinstance(found.get("classes"), list):
            return [entry for entry in found["classes"] if isinstance(entry, Mapping)]
    return []


def _records(log: Path) -> list[dict[str, Any]]:
    """The records of a log by step; lines that are incomplete, because the training is running, are left out."""
    if not log.is_file():
        return []
    try:
        records = [record for _, record in json_lines(read_bytes(log))]
    except OSError as error:
        raise ReportError(f"cannot read {log}: {error.strerror or error}") from error
    return [r for r in records if isinstance(r.get("step"), int) and isinstance(r.get("event"), str)]
