"""Training from the first step to the last, or from a checkpoint on."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nasdsl.data import Dataset, Loader, Skipped
from nasdsl.detection.detector import Detector
from nasdsl.detection.weights import save_detector
from nasdsl.evaluation import METRICS, Evaluation, write_results
from nasdsl.training.batches import endless, evaluation_transform, steps_of, training_loader
from nasdsl.training.checkpoint import load_checkpoint, save_checkpoint
from nasdsl.training.distributed import Processes, processes
from nasdsl.training.errors import RunError
from nasdsl.training.learner import Learner
from nasdsl.training.predict import check_classes, measure, predict
from nasdsl.training.progress import Clock, Progress
from nasdsl.training.recipe import Recipe
from nasdsl.training.run import Run, open_run, write_json
from nasdsl.training.signals import Interrupted, SignalHandler


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        run: its folder.
        steps: of the whole training.
        seconds: that this process trained, evaluations aside.
        nonfinite: steps that were skipped.
        skipped: pictures that proved unreadable, to any process, each once.
        evaluation: of the end; None without data for it, and in processes other than the main one.
    """

    run: Run
    steps: int
    seconds: float
    nonfinite: int
    skipped: list[Skipped]
    evaluation: Evaluation | None


def train(
    detector: Detector,
    dataset: Dataset,
    recipe: Recipe,
    out: str | Path,
    val: Dataset | None = None,
    *,
    resume: bool = False,
    device: str | torch.device | None = None,
    metrics: Sequence[str] = METRICS,
    about: Mapping[str, Any] | None = None,
    tensorboard: bool = False,
    quiet: bool = False,
) -> Outcome:
    """Train a detector by a recipe; afterwards it has the last weights (the averaged ones are in ``model.pt``).

    Under torchrun, every process calls this with the same arguments.

    Args:
        out: folder of the run; see `Run`. All processes must see it.
        val: evaluated as often as the recipe says, and at the end.
        resume: go on from the last checkpoint in `out`; on a CPU, to the same weights as without the break, bit for bit.
        device: None is a GPU where there is one.
        metrics: some of `nasdsl.evaluation.METRICS`.
        about: kept in ``config.json``, such as the command.
        tensorboard: write TensorBoard's event files into the folder.
        quiet: no progress; the log is written.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the run is saved and can be resumed.
        TrainingError: the recipe, the folder, the detector and the data do not fit, or the training diverged.
        DataError: a picture is unreadable, and the data set was opened to refuse those.
    """
    with processes(device) as here, SignalHandler() as signals:
        for part in (dataset, *([val] if val is not None else [])):
            check_classes(detector, part)
        loader = training_loader(dataset, recipe, here)
        total = steps_of(recipe, len(loader))
        run = Run(Path(out))
        if here.is_main:
            data = {"pictures": len(dataset), "classes": list(dataset.classes), "category_ids": list(dataset.category_ids)}
            open_run(out, detector=detector.config, recipe=recipe.to_dict(), data=data, about=about, resume=resume)
        here.wait()
        learner = Learner(detector, recipe, total, here)
        told = _restore(learner, run, here) if resume else None
        learner.start()
        log, events = (run.log, run.folder if tensorboard else None) if here.is_main else (None, None)
        with Progress(log, total, learner.step, quiet=quiet or not here.is_main, tensorboard=events) as shown:
            trained = sum(p.numel() for p in learner.trained)
            shown.say(
                told
                or f"{len(dataset)} pictures, {len(loader) / recipe.accumulate:g} steps an epoch, {total} steps; "
                f"{trained:,} parameters trained on {here.world_size} x {here.device}"
            )
            return _Training(learner, loader, run, val, metrics, shown, signals).run_to_the_end()


@dataclass
class _Training:
    """A training under way: the loop and what happens every so many steps."""

    learner: Learner
    loader: Loader
    run: Run
    val: Dataset | None
    metrics: Sequence[str]
    shown: Progress
    signals: SignalHandler
    nonfinite: int = 0
    unreadable: dict[str, Skipped] = field(default_factory=dict)
    """By file, those that were named."""

    def run_to_the_end(self) -> Outcome:
        learner, recipe, total = self.learner, self.learner.recipe, self.learner.total
        clock, logged = Clock(), learner.step
        began, evaluating = time.perf_counter(), 0.0
        with closing(endless(self.loader, learner.step * recipe.accumulate)) as stream:
            batches = clock.wait(stream)
            learner.detector.train()
            while learner.step < total:
                learner.learn(batches)
                step = learner.step
                self.shown.advance(step)

                ends = step == total
                logs = ends or step % recipe.log_every == 0
                evaluates = ends or self._epoch_ended()
                saves = evaluates or (recipe.checkpoint_every > 0 and step % recipe.checkpoint_every == 0)
                stops = self._stops(logs)
                if logs or saves or stops:
                    self._log(clock, step - logged)
                    logged = step
                if saves or stops:
                    self.save()
                if stops:
                    raise self._interrupted(stops)
                if evaluates and not ends:
                    evaluating -= time.perf_counter()
                    self.evaluate()
                    evaluating += time.perf_counter()
                    clock.restart()
        seconds = time.perf_counter() - began - evaluating
        evaluation = self.evaluate()
        if self.unreadable:
            self.shown.say(f"{len(self.unreadable)} pictures proved unreadable: others took their place, or they were left out")
        return Outcome(self.run, total, seconds, self.nonfinite, list(self.unreadable.values()), evaluation)

    def _epoch_ended(self) -> bool:
        """Whether the last step was the last of an epoch after which the recipe evaluates."""
        recipe, step = self.learner.recipe, self.learner.step
        if not recipe.evaluate_every or self.val is None:
            return False
        batches = len(self.loader) * recipe.evaluate_every
        return step * recipe.accumulate // batches > (step - 1) * recipe.accumulate // batches

    def _stops(self, together: bool) -> int:
        """The signal that ends the training after this step, or 0. Several processes agree on it when they log."""
        here = self.learner.here
        if here.world_size == 1:
            return self.signals.signum
        return here.highest(self.signals.signum) if together else 0

    def _log(self, clock: Clock, steps: int) -> None:
        learner, recipe = self.learner, self.learner.recipe
        reading = learner.read()
        record = {
            "event": "train",
            "step": learner.step,
            "epoch": learner.step * recipe.accumulate / len(self.loader),
            "lr": learner.rate,
            "loss": sum(reading.losses.values()),
            "losses": reading.losses,
            "gradient_norm": reading.gradient_norm,
            "nonfinite": reading.nonfinite,
            **clock.lap(steps, steps * recipe.batch_size, learner.total - learner.step),
        }
        self.shown.record(record)
        if reading.nonfinite > self.nonfinite:
            self.shown.say(f"{reading.nonfinite - self.nonfinite} steps had gradients that are not finite and were skipped")
            self.nonfinite = reading.nonfinite
        self._name(self.loader.skipped)

    def _name(self, skipped: Iterable[Skipped]) -> None:
        """Each unreadable picture is told once."""
        for entry in skipped:
            if entry.file not in self.unreadable:
                self.unreadable[entry.file] = entry
                self.shown.say(f"skipped {entry}")
                self.shown.record({"event": "skipped", "step": self.learner.step, "file": entry.file, "reason": entry.reason})

    def save(self) -> None:
        """The detector as one would use it now, and the checkpoint: last, so that no model is older than its checkpoint."""
        if self.learner.here.is_main:
            save_detector(self.learner.detector, self.run.model, self.learner.evaluated.state_dict())
            save_checkpoint(self.run.checkpoint, self.learner.state_dict())
        self.learner.here.wait()
        for skipped in self.learner.here.gather(self.loader.skipped):  # what the other processes met
            self._name(skipped)

    def evaluate(self) -> Evaluation | None:
        """Detections and metrics on the validation data, into the run's folder."""
        if self.val is None:
            return None
        learner, recipe, here = self.learner, self.learner.recipe, self.learner.here
        if here.world_size == 1 and self.signals.signum:
            raise self._interrupted(self.signals.signum)
        here.share(learner.evaluated.buffers())  # BatchNorm's statistics are each process's own
        with self.shown.counting("evaluating") as count:

            def before_batch(number: int, batches: int) -> None:
                count(number, batches)
                if here.world_size == 1 and self.signals.signum:  # all is saved
                    raise self._interrupted(self.signals.signum)

            predictions = predict(
                learner.evaluated,
                self.val,
                transform=evaluation_transform(recipe),
                batch_size=max(1, recipe.batch_size // here.world_size),
                workers=recipe.workers,
                precision=recipe.precision,
                size_divisible=recipe.size_divisible,
                channels_last=recipe.channels_last,
                here=here,
                before_batch=before_batch,
            )
        learner.detector.train()
        self._name(predictions.skipped)
        if not here.is_main:
            return None
        evaluation = measure(predictions, self.val, self.metrics)
        write_results(self.run.results, predictions.results)
        told = {"step": learner.step, "data": self.val.name, "unreadable": [str(s) for s in predictions.skipped]}
        write_json(self.run.metrics, {**told, **evaluation.to_dict()})
        self.shown.record({"event": "evaluation", "step": learner.step, **evaluation.to_dict()})
        self.shown.say(f"step {learner.step}: {evaluation.summary()}")
        return evaluation

    def _interrupted(self, signum: int) -> Interrupted:
        step = self.learner.step
        self.shown.say(
            f"stopped at step {step} of {self.learner.total}; {self.run.folder} is saved: --resume goes on from there"
        )
        return Interrupted(signum, step)


def _restore(learner: Learner, run: Run, here: Processes) -> str:
    """Load the run's checkpoint; what to tell about it.

    Raises:
        CheckpointError: it cannot be read, or is of something else.
        RunError: the processes do not see the same folder.
    """
    loaded = load_checkpoint(run.checkpoint)
    if loaded is not None:
        learner.load_state_dict(loaded.state)
    if len(set(here.gather(learner.step))) > 1:
        raise RunError(f"{run.folder} is not the same for all processes: it must be on a file system that they share")
    if loaded is None:
        return f"{run.folder} has no checkpoint yet: training from the start"
    broken = f"{loaded.broken}{os.linesep}" if loaded.broken else ""
    return f"{broken}resuming from step {learner.step} of {learner.total} ({loaded.path})"
