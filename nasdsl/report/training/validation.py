"""The last evaluation of a training, with the boxes of its data set."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from nasdsl.evaluation import (
    BestThreshold,
    ConfusionMatrix,
    Curve,
    EvaluationError,
    GroundTruth,
    ImageErrors,
    best_threshold,
    confusion_matrix,
    image_errors,
    precision_recall,
    read_results,
)
from nasdsl.report.reading import ReportError
from nasdsl.report.training.data import Training

if TYPE_CHECKING:
    from nasdsl.data import Dataset

FALLBACK: Final = 0.3
"""Threshold where no detection is right at any; that of `nasdsl detect`."""


@dataclass(frozen=True)
class Validation:
    """Results with their ground truth, at IoU 0.5.

    Attributes:
        dataset: with the images.
        results: of the last evaluation, in COCO's format.
    """

    dataset: Dataset
    truth: GroundTruth
    results: Sequence[Mapping[str, Any]]

    @cached_property
    def curves(self) -> tuple[Curve, ...]:
        return precision_recall(self.truth, self.results)

    @cached_property
    def best(self) -> BestThreshold | None:
        return best_threshold(self.curves)

    @property
    def threshold(self) -> float:
        """The threshold with the best F1, or `FALLBACK`."""
        return FALLBACK if self.best is None else self.best.score

    @cached_property
    def matrix(self) -> ConfusionMatrix:
        return confusion_matrix(self.truth, self.results, self.threshold)

    @cached_property
    def images(self) -> list[ImageErrors]:
        """The images, that with the lowest F1 first."""
        return image_errors(self.truth, self.results, self.threshold)


def make_validation(training: Training, dataset: Dataset) -> Validation:
    """The last evaluation of a training on this data set.

    Raises:
        ReportError: there is none, or it was made with other data.
    """
    if training.metrics is None or not training.results.is_file():
        raise ReportError("the training has no evaluation")
    try:
        truth = GroundTruth.of(dataset.ground_truth(without=_unreadable(training.metrics, dataset)))
        results = read_results(training.results, truth)
    except (EvaluationError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ReportError(f"its detections are not of {dataset.name}: {reason}") from error
    expected = training.metrics.get("images")
    if isinstance(expected, int) and expected != len(truth.image_ids):
        raise ReportError(f"it was evaluated on {expected} images, and {dataset.name} has {len(truth.image_ids)}")
    return Validation(dataset, truth, results)


def open_validation(training: Training, spec: str | None = None, split: str | None = None) -> Validation:
    """As `make_validation`, with the data set that the run names.

    Args:
        spec: where the data are now. None: where they were in training.
        split: None: the one that was evaluated.

    Raises:
        ReportError: the data are not there, or are others.
    """
    if training.metrics is None:
        raise ReportError("the training has no evaluation")
    from nasdsl.data import DataError, open_dataset

    spec = spec or training.part("about").get("data")
    if not isinstance(spec, str):
        raise ReportError("the run does not record which data it was trained on; give them with --data SPEC")
    # Data sets are called ``voc:DIR (val)``.
    named = re.search(r"\(([^()]*)\)$", str(training.metrics.get("data", "")))
    split = split or str(training.part("about").get("val_split") or (named[1] if named else "val"))
    classes = training.part("detector").get("classes")
    options: dict[str, Any] = {"classes": tuple(classes)} if isinstance(classes, list) else {}
    # The split that the training made, where the data have none.
    options |= {name: value for name, value in training.part("about").items() if name in ("split_share", "split_seed")}
    try:
        dataset = open_dataset(spec, split, **options)
    except (DataError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ReportError(f"the data {spec} ({split}) cannot be opened: {reason}") from error
    return make_validation(training, dataset)


def _unreadable(metrics: Mapping[str, Any], dataset: Dataset) -> list[Any]:
    """Ids of the images that could not be read in the evaluation, which was made without them."""
    messages = [message for message in metrics.get("unreadable") or () if isinstance(message, str)]
    if not messages:
        return []
    return [
        dataset.image_id(index)
        for index in range(len(dataset))
        if any(message.startswith(f"{dataset.file(index)}: ") for message in messages)
    ]
