"""How long a training takes: measured before it begins, to fit it into a number of minutes; announced after its first steps."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from statistics import fmean
from typing import Final, NamedTuple

from nasdsl.data import Batch, Dataset, Loader
from nasdsl.detection.detector import Detector
from nasdsl.training.distributed import ProcessGroup
from nasdsl.training.errors import RunError
from nasdsl.training.loaders import evaluation_steps, infinite_batches, make_train_loader, prediction_options
from nasdsl.training.logger import TrainingLogger
from nasdsl.training.predict import predict
from nasdsl.training.progress import about_duration
from nasdsl.training.recipe import Recipe
from nasdsl.training.run import Run, check_new
from nasdsl.training.signals import Interrupted, SignalHandler
from nasdsl.training.trainer import Trainer
from nasdsl.training.validation import Validator

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

FEW_EPOCHS: Final = 3
"""Epochs below which it is said that less work for an image would teach a detector more (docs/training.md has figures)."""

ESTIMATE_STEPS: Final = 3
ESTIMATE_SECONDS: Final = 3.0
"""How much of a training is measured before it is said how long it will take."""


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


def recorded_steps(run: Run, minutes: float, resume: bool) -> int:
    """The steps of a run that was started with `minutes`; 0 if there is no run yet.

    Raises:
        RunError: there is a run, and it is not to be resumed or was started otherwise.
    """
    if not run.config.exists():
        return 0
    if not resume:
        check_new(run)
    config = run.read_config()
    before = config.get("about", {}).get("minutes")
    if before != minutes:
        how = f"with --minutes {before:g}" if before is not None else "without --minutes"
        raise RunError(f"{run.folder} was started {how}; to resume it, use the same settings, not --minutes {minutes:g}")
    return int(config["recipe"]["steps"])


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
    signals: SignalHandler,
) -> tuple[Pace, int]:
    """Measure a training's pace on a copy of the detector, and count the batches of an epoch.

    Args:
        seconds: of the whole training; a small share of it is spent on measuring.
        signals: a signal ends the measurement after the step under way; with several processes nothing does.

    Raises:
        Interrupted: a signal was received.
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
            if group.world_size == 1 and signals.signum:
                raise Interrupted(signals.signum, 0)

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
        reading = max(0.0, fmean(in_first_epoch) * recipe.accumulate - again) if in_first_epoch else 0.0
        measured = max(0.0, measured - fmean(waited) * recipe.accumulate) + again
    if recipe.sizes:  # those that were drawn are too few to be representative
        expected = fmean([height * width for height, width in recipe.sizes])
        measured *= expected / fmean(reader.pixels[first:])
    evaluation = _measure_evaluation(trainer, val, recipe, group) if val is not None else 0.0
    return Pace(measured, reading, evaluation), len(loader)


def fit_steps(
    detector: Detector,
    dataset: Dataset,
    val: Dataset | None,
    recipe: Recipe,
    group: ProcessGroup,
    seconds: float,
    signals: SignalHandler,
) -> tuple[int, str]:
    """The number of steps that fit into so many seconds, the same in all processes, and a message about it.

    Args:
        seconds: of the whole training, with what is spent here on measuring.

    Raises:
        Interrupted: see `measure_pace`.
    """
    start = time.perf_counter()
    pace, batches = measure_pace(detector, dataset, val, recipe, group, seconds, signals)
    left = seconds * (1 - RESERVE) - (time.perf_counter() - start)
    steps = group.all_max(steps_that_fit(left, pace, recipe, batches, evaluates=val is not None) if group.is_main else 0)
    epochs = steps * recipe.accumulate / batches
    message = f"measured {pace.step:.3g} s a step: {steps} step{'s' * (steps > 1)} ({epochs:.3g} epochs) fit"
    if pace.total(steps, batches / recipe.accumulate, int(val is not None)) > left:
        message += f", in more than the {seconds / 60:.2g} minutes that are left for them"
    if epochs < FEW_EPOCHS:
        message += f"; in less than {FEW_EPOCHS} epochs little is learnt: a smaller --size or --width takes less time a step"
    return steps, message


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
    return EVALUATION_MARGIN * (starting + fmean(others) * -(-number_of_batches // group.world_size))


class Announcement:
    """Says how long the training will take, as soon as a few steps have been measured."""

    def __init__(self, trainer: Trainer, validator: Validator, logger: TrainingLogger) -> None:
        self._trainer, self._validator, self._logger = trainer, validator, logger
        self._start: tuple[float, int] | None = None
        self._done = False

    def after_step(self) -> None:
        """To be called after every step. The first one is not measured: it allocates memory."""
        if self._done:
            return
        trainer, now = self._trainer, time.perf_counter()
        if self._start is None:
            self._start = now, trainer.step
            return
        start, first = self._start
        count = trainer.step - first
        if count < ESTIMATE_STEPS or now - start < ESTIMATE_SECONDS:
            return
        self._done = True
        trainer.synchronize()
        pace = (time.perf_counter() - start) / count
        remaining = trainer.total - trainer.step
        evaluations = self._validator.remaining(trainer.step)
        seconds = pace * remaining + self._validator.seconds_left(trainer.step, pace / trainer.recipe.batch_size)
        if remaining:
            also = f" and {evaluations} evaluation{'s' * (evaluations > 1)}" if evaluations else ""
            end = time.strftime("%H:%M", time.localtime(time.time() + seconds))
            steps = f"{remaining} more step{'s' * (remaining > 1)}"
            self._logger.info(f"about {about_duration(seconds)} for {steps}{also}, until {end}")
