"""How long a training takes, and how much memory and disk it needs: measured on a few steps, before it begins."""

from __future__ import annotations

from typing import Final, NamedTuple

import torch

from nasdsl.data import Dataset
from nasdsl.detection.detector import Detector
from nasdsl.training.distributed import process_group
from nasdsl.training.loaders import eval_transform, evaluation_steps, make_train_loader, total_steps
from nasdsl.training.pace import measure_pace
from nasdsl.training.proxy.memory import peak_memory, reset_peak_memory, resident_memory
from nasdsl.training.proxy.timing import MOST_PIXELS
from nasdsl.training.recipe import Recipe
from nasdsl.training.signals import SignalHandler

_OPTIMIZER_STATES: Final = {"sgd": 1}
"""Numbers that an optimizer keeps for a parameter; two where nothing else is said, as Adam."""


class TrainingTime(NamedTuple):
    """What a training takes.

    Attributes:
        seconds: of all steps and evaluations.
        step: seconds of a step.
        steps, evaluations: how many there are.
        disk: bytes of the run's folder.
        memory: bytes that the process needs at most; None if unknown.
        gpu_memory: the same of the GPU's memory; None without one.
        share: of a batch that was measured. Below 1, the time of a step and the memory are extrapolated.
    """

    seconds: float
    step: float
    steps: int
    evaluations: int
    disk: int
    memory: int | None
    gpu_memory: int | None
    share: float


def time_training(
    detector: Detector, dataset: Dataset, val: Dataset | None, recipe: Recipe, device: str | torch.device | None = None
) -> TrainingTime:
    """Measure the pace of a training on a copy of the detector. Nothing is written.

    Raises:
        Interrupted: a signal was received.
        TrainingError, DataError: see `nasdsl.training.train`.
    """
    with process_group(device) as group, SignalHandler() as signals:
        at_once = recipe.batch_size // recipe.accumulate
        batch = at_once
        if group.device.type == "cpu":
            height, width = recipe.size or (recipe.shorter_side[-1], recipe.longest_side)
            batch = min(batch, max(2, MOST_PIXELS // (height * width)))
        else:
            torch.cuda.reset_peak_memory_stats(group.device)
        reset_peak_memory()
        start = resident_memory()
        measured = recipe.changed({"batch_size": batch, "accumulate": 1})
        pace, _ = measure_pace(detector, dataset, val, measured, group, 0.0, signals)
        peak, memory = peak_memory(), None
        if start is not None and peak is not None:
            memory = round(start + max(0, peak - start) * at_once / batch)
        gpu = torch.cuda.max_memory_reserved(group.device) if group.device.type == "cuda" else None
        loader = make_train_loader(dataset, recipe, group)
    if memory is not None and loader.cached:  # of which few are in memory yet
        transform = eval_transform(recipe)
        memory += sum(3 * height * width for height, width in map(transform.output_size, dataset.sizes()))
    batches = len(loader)
    larger = recipe.batch_size / batch
    pace = pace._replace(step=pace.step * larger, reading=pace.reading * larger)
    steps = total_steps(recipe, batches)
    evaluations = len(evaluation_steps(recipe, batches)) if val is not None else 0
    seconds = pace.total(steps, batches / recipe.accumulate, evaluations)
    disk = run_size(detector, recipe, evaluated=val is not None)
    return TrainingTime(seconds, pace.step, steps, evaluations, disk, memory, gpu, batch / at_once)


def run_size(detector: Detector, recipe: Recipe, *, evaluated: bool) -> int:
    """Bytes of the files of a run: two checkpoints, the model, and the best one.

    Args:
        evaluated: there are validation data.
    """
    weights = sum(value.numel() * value.element_size() for value in detector.state_dict().values())
    trained = sum(4 * parameter.numel() for parameter in detector.parameters() if parameter.requires_grad)
    checkpoint = weights * (2 if recipe.ema is not None else 1) + _OPTIMIZER_STATES.get(recipe.optimizer, 2) * trained
    size: int = 2 * checkpoint + weights * (2 if evaluated else 1)
    return size
