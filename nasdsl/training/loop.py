"""The training loop: steps, log, checkpoints, evaluation, and resuming."""

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
from nasdsl.files import write_json
from nasdsl.training.checkpoint import load_checkpoint, save_checkpoint
from nasdsl.training.distributed import ProcessGroup, process_group
from nasdsl.training.errors import RunError
from nasdsl.training.loaders import eval_transform, infinite_batches, make_train_loader, total_steps
from nasdsl.training.logger import Throughput, TrainingLogger
from nasdsl.training.predict import check_classes, compute_metrics, predict
from nasdsl.training.recipe import Recipe
from nasdsl.training.run import Run, open_run
from nasdsl.training.signals import Interrupted, SignalHandler
from nasdsl.training.trainer import Trainer


@dataclass(frozen=True)
class TrainingResult:
    """Result of a training.

    Attributes:
        run: its folder.
        steps: of the whole training.
        seconds: training time of this process, without evaluations.
        nonfinite: number of skipped steps in the whole training.
        skipped: pictures that could not be read by some process, each once.
        evaluation: at the end; None without validation data, and in processes other than rank 0.
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
    """Train a detector by a recipe. Afterwards it has the last weights; the averaged ones are in ``model.pt``.

    Under torchrun, every process calls this with the same arguments.

    Args:
        out: folder of the run; see `Run`. All processes must see it.
        val: evaluated as often as the recipe says, and at the end.
        resume: continue from the last checkpoint in `out`. On a CPU, the weights are bit for bit those of a training without
            interruption.
        device: None: a GPU if there is one.
        metrics: some of `nasdsl.evaluation.METRICS`.
        about: further values for ``config.json``, such as the command.
        tensorboard: write TensorBoard's event files into the folder.
        quiet: print nothing; the log is still written.

    Raises:
        Interrupted: SIGINT or SIGTERM was received; the run is saved and can be resumed.
        TrainingError: recipe, folder, detector and data do not fit together, or the training diverged.
        DataError: a picture is unreadable, and the data set was opened with ``on_error="refuse"``.
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
        trainer.prepare()
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
    trainer: Trainer
    loader: Loader
    run: Run
    val: Dataset | None
    metrics: Sequence[str]
    logger: TrainingLogger
    signals: SignalHandler
    skipped: dict[str, Skipped] = field(default_factory=dict)
    """Unreadable pictures that were reported, by file."""
    nonfinite: int = field(init=False)
    """Skipped steps that were reported."""

    def __post_init__(self) -> None:
        self.nonfinite = self.trainer.nonfinite  # before a resume

    def run_loop(self) -> TrainingResult:
        trainer, recipe, total = self.trainer, self.trainer.recipe, self.trainer.total
        throughput, last_logged = Throughput(), trainer.step
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
                evaluates = ends or self._evaluation_is_due()
                saves = evaluates or (recipe.checkpoint_every > 0 and step % recipe.checkpoint_every == 0)
                signum = self._received_signal(logs)
                if logs or saves or signum:
                    self._log(throughput, step - last_logged)
                    last_logged = step
                if saves or signum:
                    self.save()
                if signum:
                    raise self._interrupted(signum)
                if evaluates and not ends:
                    evaluating -= time.perf_counter()
                    self.evaluate()
                    evaluating += time.perf_counter()
                    throughput.reset()
        seconds = time.perf_counter() - began - evaluating
        evaluation = self.evaluate()
        if self.skipped:
            self.logger.info(
                f"unreadable pictures: {len(self.skipped)} (replaced by others in training, left out in evaluation)"
            )
        return TrainingResult(self.run, total, seconds, self.nonfinite, list(self.skipped.values()), evaluation)

    def _evaluation_is_due(self) -> bool:
        """Whether the last step completed an epoch after which the recipe evaluates."""
        recipe, step = self.trainer.recipe, self.trainer.step
        if not recipe.evaluate_every or self.val is None:
            return False
        batches = len(self.loader) * recipe.evaluate_every
        return step * recipe.accumulate // batches > (step - 1) * recipe.accumulate // batches

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
        record = {
            "event": "train",
            "step": trainer.step,
            "epoch": trainer.step * recipe.accumulate / len(self.loader),
            "lr": trainer.learning_rate,
            "loss": sum(metrics.losses.values()),
            "losses": metrics.losses,
            "gradient_norm": metrics.gradient_norm,
            "nonfinite": metrics.nonfinite,
            **throughput.measure(steps, metrics.images, trainer.total - trainer.step),
        }
        self.logger.record(record)
        if metrics.nonfinite > self.nonfinite:
            count = metrics.nonfinite - self.nonfinite
            self.logger.info(f"skipped {count} {'step' if count == 1 else 'steps'} with gradients that are not finite")
            self.nonfinite = metrics.nonfinite
        self._report_skipped(self.loader.skipped)

    def _report_skipped(self, skipped: Iterable[Skipped]) -> None:
        """Report each unreadable picture once."""
        for entry in skipped:
            if entry.file not in self.skipped:
                self.skipped[entry.file] = entry
                self.logger.info(f"skipped {entry}")
                record = {"event": "skipped", "step": self.trainer.step, "file": entry.file, "reason": entry.reason}
                self.logger.record(record)

    def save(self) -> None:
        """Save the detector, then the checkpoint: in this order, so that the detector is never older than the checkpoint."""
        if self.trainer.group.is_main:
            save_detector(self.trainer.detector, self.run.model, self.trainer.eval_detector.state_dict())
            save_checkpoint(self.run.checkpoint, self.trainer.state_dict())
        self.trainer.group.barrier()
        for skipped in self.trainer.group.all_gather(self.loader.skipped):
            self._report_skipped(skipped)

    def evaluate(self) -> Evaluation | None:
        """Evaluate on the validation data, and write results and metrics into the run's folder."""
        if self.val is None:
            return None
        trainer, recipe, group = self.trainer, self.trainer.recipe, self.trainer.group
        if group.world_size == 1 and self.signals.signum:
            raise self._interrupted(self.signals.signum)
        group.broadcast(trainer.eval_detector.buffers())  # BatchNorm's statistics differ between processes
        with self.logger.subtask("evaluating") as set_progress:

            def before_batch(number: int, batches: int) -> None:
                set_progress(number, batches)
                if group.world_size == 1 and self.signals.signum:  # everything is saved
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
        self._report_skipped(predictions.skipped)
        if not group.is_main:
            return None
        evaluation = compute_metrics(predictions, self.val, self.metrics)
        write_results(self.run.results, predictions.results)
        context = {"step": trainer.step, "data": self.val.name, "unreadable": [str(s) for s in predictions.skipped]}
        write_json(self.run.metrics, {**context, **evaluation.to_dict()})
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
