"""Inference over a data set: results in COCO's format, and their metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from nasdsl.data import Dataset, Skipped, Transform, make_loader, rescale_boxes
from nasdsl.detection.detector import Detector
from nasdsl.detection.prediction import transform_of
from nasdsl.evaluation import METRICS, Evaluation, evaluate
from nasdsl.evaluation.results import Result, to_results
from nasdsl.training.distributed import ProcessGroup
from nasdsl.training.errors import TrainingError
from nasdsl.training.trainer import AUTOCAST


class Predictions(NamedTuple):
    """Detections of a detector in a data set.

    Attributes:
        results: in COCO's format, boxes in pixels of the stored images; in the order of the images.
        skipped: unreadable images, for which there are no results.
    """

    results: list[Result]
    skipped: list[Skipped]


def predict(
    detector: Detector,
    dataset: Dataset,
    *,
    transform: Transform | None = None,
    batch_size: int = 8,
    workers: int = 0,
    precision: str = "float32",
    size_divisible: int = 1,
    channels_last: bool = False,
    group_by_aspect: bool = False,
    group: ProcessGroup | None = None,
    before_batch: Callable[[int, int], object] | None = None,
) -> Predictions:
    """Detect objects in every image of a data set. The detector is in evaluation mode afterwards.

    Args:
        detector: with its weights.
        dataset: whose classes are the detector's.
        transform: resizes images; None: the detector's own, see `transform_of`.
        batch_size: images at once.
        workers: processes that load images; 0: this process.
        precision: see `Recipe.precision`.
        size_divisible: pad images to multiples of this.
        channels_last: compute in this memory format.
        group_by_aspect: do not mix landscape and portrait images in a batch.
        group: processes that share the images; all of them get all results. None: this process alone, on the detector's
            device.
        before_batch: called before each batch with its number, from 0, and the number of batches; may raise to stop.

    Raises:
        TrainingError: the detector's classes are not those of the data.
        DataError: an image is unreadable, and the data set was opened with ``on_error="refuse"``.
    """
    check_classes(detector, dataset)
    group = group or ProcessGroup(next(detector.parameters()).device)
    loader = make_loader(
        dataset,
        batch_size=batch_size,
        transform=transform or transform_of(detector),
        workers=workers,
        rank=group.rank,
        world_size=group.world_size,
        divisor=size_divisible,
        group_by_aspect=group_by_aspect,
        pin_memory=group.device.type == "cuda",
    )
    detector.eval()
    found: list[tuple[int | str, list[Result]]] = []
    # Not inference_mode: tensors that a detector caches in it could not be used in training.
    with torch.no_grad(), torch.autocast(group.device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST):
        for number, batch in enumerate(loader):
            if before_batch is not None:
                before_batch(number, len(loader))
            batch = batch.to(group.device, channels_last=channels_last, non_blocking=True)
            for detections, size, target in zip(
                detector(batch.images, sizes=batch.sizes), batch.sizes, batch.targets, strict=True
            ):
                boxes = rescale_boxes(detections["boxes"].float(), size, target["size"])
                one = {"boxes": boxes, "labels": detections["labels"], "scores": detections["scores"].float()}
                found.append((target["image_id"], to_results([one], [target["image_id"]], dataset.category_ids)))
    return _merge(group.all_gather((found, loader.skipped)), dataset)


def _merge(shares: Sequence[tuple[list[tuple[int | str, list[Result]]], list[Skipped]]], dataset: Dataset) -> Predictions:
    by_image = {image: results for found, _ in shares for image, results in found}
    results = [result for index in range(len(dataset)) for result in by_image.get(dataset.image_id(index), [])]
    return Predictions(results, [skip for _, skipped in shares for skip in skipped])


def compute_metrics(predictions: Predictions, dataset: Dataset, metrics: Sequence[str] = METRICS) -> Evaluation:
    """The metrics of predictions, without unreadable images and their boxes.

    Raises:
        EvaluationError: for an unknown metric.
    """
    unreadable = [skip.image_id for skip in predictions.skipped if skip.image_id is not None and not skip.box]
    return evaluate(dataset.ground_truth(without=unreadable), predictions.results, metrics)


def check_classes(detector: nn.Module, dataset: Dataset) -> None:
    """Check that a data set has the classes of a detector. Their ids may differ: results have those of the data.

    Raises:
        TrainingError: the names differ, or their order.
    """
    wanted = tuple(detector.classes)  # type: ignore[arg-type]  # nn.Module does not know its type
    if wanted != tuple(dataset.classes):
        raise TrainingError(
            f"the detector has {len(wanted)} classes: {_first(wanted)}; {dataset.name} has {len(dataset.classes)}: "
            f"{_first(dataset.classes)}; expected the same in the same order: open the data with classes=detector.classes, or "
            "make the detector with classes=dataset.classes, category_ids=dataset.category_ids"
        )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
