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
from nasdsl.training.checkpoint import load_checkpoint, save_checkpoint
from nasdsl.training.distributed import ProcessGroup, process_group
from nasdsl.training.errors import RunError
from nasdsl.training.loaders import eval_transform, infinite_batches, make_train_loader, total_steps
from nasdsl.training.logger import Throughput, TrainingLogger
from nasdsl.training.predict import check_classes, compute_metrics, predict
from nasdsl.training.recipe import Recipe
from nasdsl.training.run import Run, open_run, write_json
from nasdsl.training.signals import Interrupted, SignalHandler
from nasdsl.training.trainer import Trainer


@dataclass(frozen=True)
class TrainingResult:
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
) -> TrainingResult:
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
    with process_group(device) as group, SignalHandler() as signals:
        for part in (dataset, *([val] if val is not None else [])):
            check_classes(detector, part)
        loader = make_train_loader(dataset, recipe, group)
        total = total_steps(recipe, len(loader))
        run = Run(Path(out))
        if group.is_main:
            data = {"pictures": len(dataset), "classes": list(dataset.classes), "category_ids": list(dataset.category_ids)}
            open_run(out, detector=detector.config, recipe=recipe.to_dict(), data=data, about=about, resume=resume)
        group.barrier()
        trainer = Trainer(detector, recipe, total, group)
        message = _restore(trainer, run, group) if resume else None
        trainer.start()
        log, events = (run.log, run.folder if tensorboard else None) if group.is_main else (None, None)
        with TrainingLogger(log, total, trainer.step, quiet=quiet or not group.is_main, tensorboard=events) as logger:
            trained = sum(p.numel() for p in trainer.trained_parameters)
            logger.info(
                message
                or f"{len(dataset)} pictures, {len(loader) / recipe.accumulate:g} steps an epoch, {total} steps; "
                f"{trained:,} parameters trained on {group.world_size} x {group.device}"
            )
            return _TrainingLoop(trainer, loader, run, val, metrics, logger, signals).run_loop()


@dataclass
class _TrainingLoop:
    """A training under way: the loop and what happens every so many steps."""

    trainer: Trainer
    loader: Loader
    run: Run
    val: Dataset | None
    metrics: Sequence[str]
    logger: TrainingLogger
    signals: SignalHandler
    nonfinite: int = 0
    unreadable: dict[str, Skipped] = field(default_factory=dict)
    """By file, those that were named."""

    def run_loop(self) -> TrainingResult:
        trainer, recipe, total = self.trainer, self.trainer.recipe, self.trainer.total
        throughput, logged = Throughput(), trainer.step
        began, evaluating = time.perf_counter(), 0.0
        with closing(infinite_batches(self.loader, trainer.step * recipe.accumulate)) as stream:
            batches = throughput.time_loading(stream)
            trainer.detector.train()
            while trainer.step < total:
                trainer.train_step(batches)
                step = trainer.step
                self.logger.advance(step)

                ends = step == total
                logs = ends or step % recipe.log_every == 0
                evaluates = ends or self._epoch_ended()
                saves = evaluates or (recipe.checkpoint_every > 0 and step % recipe.checkpoint_every == 0)
                stops = self._stops(logs)
                if logs or saves or stops:
                    self._log(throughput, step - logged)
                    logged = step
                if saves or stops:
                    self.save()
                if stops:
                    raise self._interrupted(stops)
                if evaluates and not ends:
                    evaluating -= time.perf_counter()
                    self.evaluate()
                    evaluating += time.perf_counter()
                    throughput.reset()
        seconds = time.perf_counter() - began - evaluating
        evaluation = self.evaluate()
        if self.unreadable:
            self.logger.info(
                f"{len(self.unreadable)} pictures proved unreadable: others took their place, or they were left out"
            )
        return TrainingResult(self.run, total, seconds, self.nonfinite, list(self.unreadable.values()), evaluation)

    def _epoch_ended(self) -> bool:
        """Whether the last step was the last of an epoch after which the recipe evaluates."""
        recipe, step = self.trainer.recipe, self.trainer.step
        if not recipe.evaluate_every or self.val is None:
            return False
        batches = len(self.loader) * recipe.evaluate_every
        return step * recipe.accumulate // batches > (step - 1) * recipe.accumulate // batches

    def _stops(self, together: bool) -> int:
        """The signal that ends the training after this step, or 0. Several processes agree on it when they log."""
        group = self.trainer.group
        if group.world_size == 1:
            return self.signals.signum
        return group.all_max(self.signals.signum) if together else 0

    def _log(self, throughput: Throughput, steps: int) -> None:
        trainer, recipe = self.trainer, self.trainer.recipe
        reading = trainer.read_metrics()
        record = {
            "event": "train",
            "step": trainer.step,
            "epoch": trainer.step * recipe.accumulate / len(self.loader),
            "lr": trainer.learning_rate,
            "loss": sum(reading.losses.values()),
            "losses": reading.losses,
            "gradient_norm": reading.gradient_norm,
            "nonfinite": reading.nonfinite,
            **throughput.measure(steps, steps * recipe.batch_size, trainer.total - trainer.step),
        }
        self.logger.record(record)
        if reading.nonfinite > self.nonfinite:
            self.logger.info(f"{reading.nonfinite - self.nonfinite} steps had gradients that are not finite and were skipped")
            self.nonfinite = reading.nonfinite
        self._name(self.loader.skipped)

    def _name(self, skipped: Iterable[Skipped]) -> None:
        """Each unreadable picture is message once."""
        for entry in skipped:
            if entry.file not in self.unreadable:
                self.unreadable[entry.file] = entry
                self.logger.info(f"skipped {entry}")
                self.logger.record({"event": "skipped", "step": self.trainer.step, "file": entry.file, "reason": entry.reason})

    def save(self) -> None:
        """The detector as one would use it now, and the checkpoint: last, so that no model is older than its checkpoint."""
        if self.trainer.group.is_main:
            save_detector(self.trainer.detector, self.run.model, self.trainer.eval_detector.state_dict())
            save_checkpoint(self.run.checkpoint, self.trainer.state_dict())
        self.trainer.group.barrier()
        for skipped in self.trainer.group.all_gather(self.loader.skipped):  # what the other processes met
            self._name(skipped)

    def evaluate(self) -> Evaluation | None:
        """Detections and metrics on the validation data, into the run's folder."""
        if self.val is None:
            return None
        trainer, recipe, group = self.trainer, self.trainer.recipe, self.trainer.group
        if group.world_size == 1 and self.signals.signum:
            raise self._interrupted(self.signals.signum)
        group.broadcast(trainer.eval_detector.buffers())  # BatchNorm's statistics are each process's own
        with self.logger.subtask("evaluating") as count:

            def before_batch(number: int, batches: int) -> None:
                count(number, batches)
                if group.world_size == 1 and self.signals.signum:  # all is saved
                    raise self._interrupted(self.signals.signum)

            predictions = predict(
                trainer.eval_detector,
                self.val,
                transform=eval_transform(recipe),
                batch_size=max(1, recipe.batch_size // group.world_size),
                workers=recipe.workers,
                precision=recipe.precision,
                size_divisible=recipe.size_divisible,
                channels_last=recipe.channels_last,
                group=group,
                before_batch=before_batch,
            )
        trainer.detector.train()
        self._name(predictions.skipped)
        if not group.is_main:
            return None
        evaluation = compute_metrics(predictions, self.val, self.metrics)
        write_results(self.run.results, predictions.results)
        message = {"step": trainer.step, "data": self.val.name, "unreadable": [str(s) for s in predictions.skipped]}
        write_json(self.run.metrics, {**message, **evaluation.to_dict()})
        self.logger.record({"event": "evaluation", "step": trainer.step, **evaluation.to_dict()})
        self.logger.info(f"step {trainer.step}: {evaluation.summary()}")
        return evaluation

    def _interrupted(self, signum: int) -> Interrupted:
        step = self.trainer.step
        self.logger.info(
            f"stopped at step {step} of {self.trainer.total}; {self.run.folder} is saved: --resume goes on from there"
        )
        return Interrupted(signum, step)


def _restore(trainer: Trainer, run: Run, group: ProcessGroup) -> str:
    """Load the run's checkpoint; what to tell about it.

    Raises:
        CheckpointError: it cannot be read, or is of something else.
        RunError: the processes do not see the same folder.
    """
    loaded = load_checkpoint(run.checkpoint)
    if loaded is not None:
        trainer.load_state_dict(loaded.state)
    if len(set(group.all_gather(trainer.step))) > 1:
        raise RunError(f"{run.folder} is not the same for all processes: it must be on a file system that they share")
    if loaded is None:
        return f"{run.folder} has no checkpoint yet: training from the start"
    broken = f"{loaded.broken}{os.linesep}" if loaded.broken else ""
    return f"{broken}resuming from step {trainer.step} of {trainer.total} ({loaded.path})"
