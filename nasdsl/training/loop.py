"""The training loop: steps, log, checkpoints, evaluation, and resuming."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from nasdsl.data import Dataset, Loader, Skipped
from nasdsl.detection.detector import Detector
from nasdsl.detection.weights import save_detector
from nasdsl.evaluation import METRICS, Evaluation
from nasdsl.training.checkpoint import load_checkpoint, save_checkpoint
from nasdsl.training.distributed import ProcessGroup, process_group
from nasdsl.training.errors import RunError
from nasdsl.training.loaders import infinite_batches, make_train_loader, total_steps
from nasdsl.training.logger import Throughput, TrainingLogger
from nasdsl.training.pace import Announcement, fit_steps, recorded_steps
from nasdsl.training.predict import check_classes
from nasdsl.training.recipe import Recipe
from nasdsl.training.run import Run, locked_run, open_run
from nasdsl.training.signals import Interrupted, SignalHandler
from nasdsl.training.trackers import check_trackers, open_trackers
from nasdsl.training.trainer import Trainer
from nasdsl.training.validation import Validator


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training.

    Attributes:
        run: its folder.
        steps: of the whole training, until it was stopped early.
        seconds: training time of this process, without evaluations.
        nonfinite: number of skipped steps in the whole training.
        skipped: images that could not be read by some process, each once.
        evaluation: at the end; None without validation data, and in processes other than rank 0.
        best_step: the step whose weights are in ``best.pt``; None where `evaluation` is.
        stopped_early: whether `Recipe.patience` ended the training.
    """

    run: Run
    steps: int
    seconds: float
    nonfinite: int
    skipped: list[Skipped]
    evaluation: Evaluation | None
    best_step: int | None = None
    stopped_early: bool = False


def train(
    detector: Detector,
    dataset: Dataset,
    recipe: Recipe,
    out: str | Path,
    val: Dataset | None = None,
    *,
    minutes: float | None = None,
    resume: bool = False,
    device: str | torch.device | None = None,
    metrics: Sequence[str] = METRICS,
    about: Mapping[str, Any] | None = None,
    trackers: Sequence[str] = (),
    quiet: bool = False,
) -> TrainingResult:
    """Train a detector by a recipe. Afterwards it has the last weights; the averaged ones are in ``model.pt``.

    Under torchrun, every process calls this with the same arguments.

    Args:
        detector: with the weights to start from; it is changed.
        dataset: the images to train on.
        recipe: all hyperparameters.
        out: folder of the run; see `Run`. All processes must see it.
        val: evaluated as often as the recipe says, and at the end.
        minutes: train for as many steps as fit into this time with all evaluations, instead of the recipe's `steps` or
            `epochs`. The pace is measured first, on a copy of the detector; then the recipe of the run has a fixed number of
            steps, as if it had been given.
        resume: continue from the last checkpoint in `out`. On a CPU, the weights are bit for bit those of a training without
            interruption. A run with `minutes` keeps its number of steps.
        device: None: a GPU if there is one.
        metrics: some of `nasdsl.evaluation.METRICS`.
        about: further values for ``config.json``, such as the command.
        trackers: some of `nasdsl.training.TRACKERS`, which get the configuration and all figures. A resumed training goes on
            with the same runs there.
        quiet: print nothing; the log is still written.

    Raises:
        Interrupted: SIGINT or SIGTERM was received; the run is saved and can be resumed.
        TrainingError: recipe, folder, detector and data do not fit together, or the training diverged.
        DataError: an image is unreadable, and the data set was opened with ``on_error="refuse"``.
    """
    with ExitStack() as stack, process_group(device) as group, SignalHandler() as signals:
        began = time.perf_counter()
        for part in (dataset, *([val] if val is not None else [])):
            check_classes(detector, part)
        if group.is_main:
            check_trackers(trackers)
        run, about, messages = Run(Path(out)), dict(about or {}), []
        if minutes is not None:
            about["minutes"] = minutes
            steps = recorded_steps(run, minutes, resume) if group.is_main else 0
            if not (steps := group.all_max(steps)):
                left = 60 * minutes - (time.perf_counter() - began)
                steps, message = fit_steps(detector, dataset, val, recipe, group, left, signals)
                messages.append(message)
            recipe = recipe.changed({"steps": steps})
        loader = make_train_loader(dataset, recipe, group)
        total = total_steps(recipe, len(loader))
        if group.is_main:
            stack.enter_context(locked_run(run))
            data = {"pictures": len(dataset), "classes": list(dataset.classes), "category_ids": list(dataset.category_ids)}
            open_run(out, detector=detector.config, recipe=recipe.to_dict(), data=data, about=about, resume=resume)
        group.barrier()
        trainer = Trainer(detector, recipe, total, group)
        if resume:
            messages.append(_restore(trainer, run, group))
        trainer.prepare()
        log, opened = (run.log, open_trackers(trackers, run, trainer.step)) if group.is_main else (None, {})
        with TrainingLogger(log, total, trainer.step, quiet=quiet or not group.is_main, trackers=opened) as logger:
            trained = sum(p.numel() for p in trainer.trained_parameters)
            if not resume:
                messages.append(
                    f"{len(dataset)} images, {len(loader) / recipe.accumulate:g} steps an epoch, {total} steps; "
                    f"{trained:,} parameters trained on {group.world_size} x {group.device}"
                )
            for message in messages:
                logger.info(message)
            validator = Validator(trainer, val, run, metrics, logger, len(loader))
            if resume:
                validator.restore()
            return _TrainingLoop(trainer, loader, run, validator, logger, signals).run_loop()


@dataclass
class _TrainingLoop:
    trainer: Trainer
    loader: Loader
    run: Run
    validator: Validator
    logger: TrainingLogger
    signals: SignalHandler
    skipped: dict[str, Skipped] = field(default_factory=dict)
    """Unreadable images that were reported, by file."""
    nonfinite: int = field(init=False)
    """Skipped steps that were reported."""

    def __post_init__(self) -> None:
        self.nonfinite = self.trainer.nonfinite  # before a resume

    def run_loop(self) -> TrainingResult:
        trainer, recipe, total = self.trainer, self.trainer.recipe, self.trainer.total
        validator, evaluation = self.validator, None
        if validator.was_missed():
            evaluation = self.evaluate()
        throughput, last_logged, resumed_at = Throughput(), trainer.step, trainer.step
        began, evaluating = time.perf_counter(), 0.0
        announcement = Announcement(trainer, validator, self.logger)
        with closing(infinite_batches(self.loader, trainer.step * recipe.accumulate)) as stream:
            batches = throughput.time_loading(stream)
            trainer.detector.train()
            while trainer.step < total and not validator.stopped:
                trainer.train_step(batches)
                step = trainer.step
                self.logger.advance(step)
                announcement.after_step()

                ends = step == total
                logs = ends or step % recipe.log_every == 0
                evaluates = ends or validator.is_due(step)
                saves = evaluates or (recipe.checkpoint_every > 0 and step % recipe.checkpoint_every == 0)
                signum = self._received_signal(logs)
                if logs or saves or signum:
                    self._log(throughput, step - last_logged)
                    last_logged = step
                if saves or signum:
                    self.save()
                if signum:
                    raise self._interrupted(signum)
                if evaluates:
                    evaluating -= time.perf_counter()
                    evaluation = self.evaluate()
                    evaluating += time.perf_counter()
                    throughput.reset()
        seconds = time.perf_counter() - began - evaluating
        if trainer.step == resumed_at and evaluation is None:  # it was finished before
            evaluation = self.evaluate()
        self._report_end()
        best = validator.best_step
        unreadable = list(self.skipped.values())
        return TrainingResult(
            self.run, trainer.step, seconds, self.nonfinite, unreadable, evaluation, best, trainer.step < total
        )

    def _report_end(self) -> None:
        trainer = self.trainer
        self.logger.track(self.validator.summary(), trainer.step)
        if trainer.step < trainer.total:
            self.logger.info(
                f"stopped early at step {trainer.step} of {trainer.total}: {trainer.recipe.patience} evaluations without a new "
                f"best. {self.run.best.name} is of step {self.validator.best_step}"
            )
        if self.skipped:
            self.logger.info(f"unreadable images: {len(self.skipped)} (replaced by others in training, left out in evaluation)")

    def _received_signal(self, synchronise: bool) -> int:
        """The signal that ends the training after this step, or 0. Several processes agree on it at steps that are logged."""
        group = self.trainer.group
        if group.world_size == 1:
            return self.signals.signum
        return group.all_max(self.signals.signum) if synchronise else 0

    def _log(self, throughput: Throughput, steps: int) -> None:
        """Log the metrics of the last `steps` steps."""
        trainer, recipe = self.trainer, self.trainer.recipe
        metrics = trainer.read_metrics()
        speed = throughput.measure(steps, metrics.images, trainer.total - trainer.step)
        speed["seconds_left"] += self.validator.seconds_left(trainer.step, speed["seconds"] / max(1, metrics.images))
        record = {
            "event": "train",
            "step": trainer.step,
            "epoch": trainer.step * recipe.accumulate / len(self.loader),
            "lr": trainer.learning_rate,
            "loss": sum(metrics.losses.values()),
            "losses": metrics.losses,
            "gradient_norm": metrics.gradient_norm,
            "nonfinite": metrics.nonfinite,
            **speed,
        }
        self.logger.record(record)
        if metrics.nonfinite > self.nonfinite:
            count = metrics.nonfinite - self.nonfinite
            self.logger.info(f"skipped {count} {'step' if count == 1 else 'steps'} with gradients that are not finite")
            self.nonfinite = metrics.nonfinite
        self._report_skipped(self.loader.skipped)

    def _report_skipped(self, skipped: Iterable[Skipped]) -> None:
        """Report each unreadable image once."""
        for entry in skipped:
            if entry.file not in self.skipped:
                self.skipped[entry.file] = entry
                self.logger.info(f"skipped {entry}")
                record = {"event": "skipped", "step": self.trainer.step, "file": entry.file, "reason": entry.reason}
                self.logger.record(record)

    def save(self) -> None:
        """Save the detector, then the checkpoint: in this order, so that the detector is never older than the checkpoint.

        Nor is the log: the evaluations before the checkpoint, which decide which one is the best, are read from it.
        """
        if self.trainer.group.is_main:
            self.logger.sync()
            save_detector(self.trainer.detector, self.run.model, self.trainer.eval_detector.state_dict())
            save_checkpoint(self.run.checkpoint, self.trainer.state_dict())
        self.trainer.group.barrier()
        for skipped in self.trainer.group.all_gather(self.loader.skipped):
            self._report_skipped(skipped)

    def evaluate(self) -> Evaluation | None:
        """Evaluate on the validation data. Everything is saved: a signal ends it at once."""

        def check_signal() -> None:
            if self.trainer.group.world_size == 1 and self.signals.signum:
                raise self._interrupted(self.signals.signum)

        return self.validator.evaluate(check_signal, self._report_skipped)

    def _interrupted(self, signum: int) -> Interrupted:
        step = self.trainer.step
        self.logger.info(
            f"stopped at step {step} of {self.trainer.total}; {self.run.folder} is saved: --resume goes on from there"
        )
        return Interrupted(signum, step)


def _restore(trainer: Trainer, run: Run, group: ProcessGroup) -> str:
    """Load the run's checkpoint if there is one; return a message about it.

    Raises:
        CheckpointError: it cannot be read, or is of another training.
        RunError: the processes do not see the same folder.
    """
    loaded = load_checkpoint(run.checkpoint)
    if loaded is not None:
        trainer.load_state_dict(loaded.state)
    if len(set(group.all_gather(trainer.step))) > 1:
        raise RunError(f"{run.folder} is not the same for all processes: it must be on a file system that they share")
    if loaded is None:
        return f"{run.folder} has no checkpoint yet: training from the start"
    problem = f"{loaded.problem}{os.linesep}" if loaded.problem else ""
    return f"{problem}resuming from step {trainer.step} of {trainer.total} ({loaded.path})"
