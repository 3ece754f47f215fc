"""How long a training takes: measured before it begins, to fit it into a number of minutes."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise
from typing import Final, NamedTuple

from nasdsl.data import Batch, Dataset, Loader
from nasdsl.detection.detector import Detector
from nasdsl.training.distributed import ProcessGroup
from nasdsl.training.loaders import evaluation_steps, infinite_batches, make_train_loader, prediction_options
from nasdsl.training.predict import predict
from nasdsl.training.recipe import Recipe
from nasdsl.training.trainer import Trainer

SHARE: Final = 0.03
"""Share of the time that is spent on measuring steps."""
SHORTEST, LONGEST = 2.0, 30.0
"""Bounds of the time that is spent on measuring steps, in seconds."""
EVALUATED: Final = 2
"""Batches of the validation data, or of images in memory, that are measured."""
EVALUATION_MARGIN: Final = 1.3
"""Evaluations take longer than the measured one: it is of a detector that has not learnt to detect anything yet, so that
hardly anything is left to non-maximum suppression and to the metrics."""
RESERVE: Final = 0.01
"""Share of the time that is kept for checkpoints."""


class Pace(NamedTuple):
    """Seconds that the parts of a training take.

    Attributes:
        step: one step.
        reading: what a step of the first epoch takes in addition, if images are kept in memory from then on.
        evaluation: one evaluation.
    """

    step: float
    reading: float = 0.0
    evaluation: float = 0.0

    def total(self, steps: int, epoch: float, evaluations: int) -> float:
        """Seconds of a training with `epoch` steps an epoch."""
        return steps * self.step + min(steps, epoch) * self.reading + evaluations * self.evaluation


def steps_that_fit(seconds: float, pace: Pace, recipe: Recipe, batches: int, *, evaluates: bool) -> int:
    """The most steps that take at most so many seconds, with evaluations; at least 1.

    Args:
        batches: in an epoch.
        evaluates: whether there are validation data.
    """

    def needed(steps: int) -> float:
        evaluations = len(evaluation_steps(recipe, batches, steps)) if evaluates else 0
        return pace.total(steps, batches / recipe.accumulate, evaluations)

    low, high = 1, 2
    while needed(high) <= seconds:
        low, high = high, 2 * high
    while high - low > 1:  # `low` fits, or is 1; `high` does not
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= seconds else (low, middle)
    return low


def measure_pace(
    detector: Detector,
    dataset: Dataset,
    val: Dataset | None,
    recipe: Recipe,
    group: ProcessGroup,
    seconds: float,
    check_signal: Callable[[], None],
) -> tuple[Pace, int]:
    """Measure a training's pace on a copy of the detector, and count the batches of an epoch.

    Args:
        seconds: of the whole training; a small share of it is spent on measuring.
        check_signal: raises if the measurement is to be stopped; called by a single process alone, after every step.
    """
    endless = recipe.changed({"steps": 10**9})
    trainer = Trainer(copy.deepcopy(detector), endless, 10**9, group)
    trainer.prepare()
    trainer.detector.train()
    loader = make_train_loader(dataset, endless, group)
    with closing(infinite_batches(loader, 0)) as stream:
        reader = _TimedReader(stream)

        def step() -> None:
            trainer.train_step(reader)
            if group.world_size == 1:
                check_signal()

        step()  # threads, memory and workers are got ready
        trainer.synchronize()
        first = len(reader.seconds)
        enough, start, steps = min(max(SHARE * seconds, SHORTEST), LONGEST), time.perf_counter(), 0
        while not steps or not group.all_max(int(time.perf_counter() - start >= enough)):
            step()
            steps += 1
        trainer.synchronize()
        measured = (time.perf_counter() - start) / steps
    waited, reading = reader.seconds[first:], 0.0
    if loader.cached:
        again = _seconds_from_cache(loader) * recipe.accumulate
        in_first_epoch = reader.seconds[first : len(loader)]
        reading = max(0.0, _mean(in_first_epoch) * recipe.accumulate - again) if in_first_epoch else 0.0
        measured = max(0.0, measured - _mean(waited) * recipe.accumulate) + again
    if recipe.sizes:  # those that were drawn are too few to be representative
        expected = _mean([height * width for height, width in recipe.sizes])
        measured *= expected / _mean(reader.pixels[first:])
    evaluation = _measure_evaluation(trainer, val, recipe, group) if val is not None else 0.0
    return Pace(measured, reading, evaluation), len(loader)


class _TimedReader(Iterator[Batch]):
    """Passes batches on, and notes for each how long it took and how many pixels its images have."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self.seconds: list[float] = []
        self.pixels: list[float] = []

    def __next__(self) -> Batch:
        before = time.perf_counter()
        batch = next(self._batches)
        self.seconds.append(time.perf_counter() - before)
        self.pixels.append(batch.images.shape[-2] * batch.images.shape[-1])
        return batch


def _seconds_from_cache(loader: Loader) -> float:
    """Seconds of loading a batch of images that are in memory."""
    loader.set_epoch(0, 0)
    count, start = 0, time.perf_counter()
    for count, _ in enumerate(loader, 1):
        if count == EVALUATED:
            break
    return (time.perf_counter() - start) / max(1, count)


class _Enough(Exception):
    """Ends an evaluation of which enough has been seen."""


def _measure_evaluation(trainer: Trainer, val: Dataset, recipe: Recipe, group: ProcessGroup) -> float:
    """Seconds of an evaluation, from its first batches. Each process measures all of them by itself."""
    times = [time.perf_counter()]
    number_of_batches = 1

    def before_batch(number: int, batches: int) -> None:
        nonlocal number_of_batches
        number_of_batches = batches
        times.append(time.perf_counter())
        if number == EVALUATED:
            raise _Enough

    alone = ProcessGroup(group.device)
    try:
        predict(trainer.eval_detector, val, **prediction_options(recipe, alone), before_batch=before_batch)
        times.append(time.perf_counter())
    except _Enough:
        pass
    starting, *others = (later - earlier for earlier, later in pairwise(times))
    return EVALUATION_MARGIN * (starting + _mean(others) * -(-number_of_batches // group.world_size))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
