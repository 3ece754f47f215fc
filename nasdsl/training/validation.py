"""Evaluation during a training: the best weights are kept, and the training stops when nothing better comes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, Final

from nasdsl.data import Dataset, Skipped
from nasdsl.detection.weights import save_detector
from nasdsl.evaluation import Evaluation, write_results
from nasdsl.files import write_json
from nasdsl.training.loaders import evaluation_steps, prediction_options
from nasdsl.training.logger import TrainingLogger, finite, read_log
from nasdsl.training.predict import compute_metrics, predict
from nasdsl.training.progress import LINE_EVERY
from nasdsl.training.run import Run
from nasdsl.training.trainer import Trainer

FORWARD_SHARE: Final = 0.4
"""Time of an image in evaluation, divided by that in training. A guess, until an evaluation has been measured."""


NOTHING_FOUND: Final = 0.0005
"""Figures below this are 0.0 in per cent. None of them is a best one: the detector does not detect anything yet."""


def main_figure(evaluation: Mapping[str, Any]) -> float:
    """The figure by which evaluations are compared: COCO's AP, or VOC's mean AP where it was not computed.

    Args:
        evaluation: `Evaluation.to_dict()`.
    """
    coco = evaluation.get("coco")
    found = coco["ap"] if coco else next((m["mean_ap"] for name in ("voc12", "voc07") if (m := evaluation.get(name))), None)
    return -1.0 if found is None else float(found)  # None: there are no boxes


class Validator:
    """Evaluates the detector of a trainer, writes results and metrics into the run's folder, and keeps the best weights.

    Attributes:
        evaluations: those so far, `Evaluation.to_dict()` by step; only in rank 0.
        stopped: whether `patience` ended the training.
    """

    def __init__(
        self, trainer: Trainer, val: Dataset | None, run: Run, metrics: Sequence[str], logger: TrainingLogger, batches: int
    ) -> None:
        """
        Args:
            val: None: there are no evaluations.
            metrics: some of `nasdsl.evaluation.METRICS`.
            batches: in an epoch of training.
        """
        self.evaluations: dict[int, dict[str, Any]] = {}
        self.stopped = False
        self._trainer, self._val, self._run, self._metrics, self._logger = trainer, val, run, metrics, logger
        self._steps = evaluation_steps(trainer.recipe, batches, trainer.total) if val is not None else []
        self._seconds: list[float] = []
        self._last_line = -math.inf

    def restore(self) -> None:
        """Read the evaluations before the step of the trainer from the log, after a checkpoint has been loaded."""
        if self._trainer.group.is_main:
            for record in read_log(self._run.log):
                if record["event"] == "evaluation" and record["step"] <= self._trainer.step:
                    self.evaluations[record["step"]] = {k: v for k, v in record.items() if k not in ("event", "seconds")}
        self._update_stopped()

    @property
    def best_step(self) -> int | None:
        """The step of the best evaluation so far, the first of equal ones; the last one while nothing is detected."""
        found = {step: figure for step, e in self.evaluations.items() if (figure := main_figure(e)) >= NOTHING_FOUND}
        return max(found, key=lambda step: (found[step], -step)) if found else max(self.evaluations, default=None)

    def summary(self) -> dict[str, Any]:
        """The last and the best evaluation, as a record for trackers: ``summary/best/coco/ap``."""
        best = self.best_step
        if best is None:
            return {"event": "summary"}
        last = self.evaluations[max(self.evaluations)]
        return {"event": "summary", "last": last, "best": self.evaluations[best], "best_step": best}

    def is_due(self, step: int) -> bool:
        """Whether the detector is evaluated after this step."""
        return step in self._steps

    def was_missed(self) -> bool:
        """Whether the evaluation that is due at the trainer's step is missing, because a training was stopped in it."""
        step, group = self._trainer.step, self._trainer.group
        missing = group.is_main and self.is_due(step) and step < self._trainer.total and step not in self.evaluations
        return bool(group.all_max(int(missing)))

    def remaining(self, step: int) -> int:
        """Number of evaluations that are to come from this step on, if the training is not stopped early."""
        return sum(due >= step and due not in self.evaluations for due in self._steps)

    def seconds_left(self, step: int, seconds_of_image: float) -> float:
        """Expected seconds of all evaluations that are to come from this step on.

        Args:
            seconds_of_image: of an image in training, by which an evaluation is judged before there was one.
        """
        if self._val is None:
            return 0.0
        guess = FORWARD_SHARE * seconds_of_image * len(self._val)
        return self.remaining(step) * (fmean(self._seconds) if self._seconds else guess)

    def evaluate(
        self, check_signal: Callable[[], None], report_skipped: Callable[[Sequence[Skipped]], None]
    ) -> Evaluation | None:
        """Evaluate on the validation data; None without them, and in processes other than rank 0.

        The detector must be saved, because `check_signal`, which is called before every batch, may raise.
        """
        if self._val is None:
            return None
        trainer, group = self._trainer, self._trainer.group
        check_signal()
        start = time.perf_counter()
        group.broadcast(trainer.eval_detector.buffers())  # BatchNorm's statistics differ between processes
        with self._logger.subtask("evaluating") as set_progress:

            def before_batch(number: int, batches: int) -> None:
                set_progress(number, batches)
                check_signal()

            options = prediction_options(trainer.recipe, group)
            predictions = predict(trainer.eval_detector, self._val, **options, before_batch=before_batch)
        trainer.detector.train()
        report_skipped(predictions.skipped)
        evaluation = None
        if group.is_main:
            evaluation = compute_metrics(predictions, self._val, self._metrics)
            write_results(self._run.results, predictions.results)
            self._record(evaluation, [str(entry) for entry in predictions.skipped], time.perf_counter() - start)
        self._seconds.append(time.perf_counter() - start)
        self._update_stopped()
        if evaluation is not None:
            self._show(evaluation)
        return evaluation

    def _record(self, evaluation: Evaluation, unreadable: list[str], seconds: float) -> None:
        """Keep the weights if they are the best, then write the metrics and the log."""
        trainer, step, found = self._trainer, self._trainer.step, evaluation.to_dict()
        record = json.loads(json.dumps(finite({"step": step, **found})))
        is_known = self.evaluations.get(step) == record  # of a finished training that is resumed: the log has it already
        self.evaluations[step] = record
        best = self.best_step
        assert best is not None
        if best == step:
            save_detector(trainer.detector, self._run.best, trainer.eval_detector.state_dict())
        context = {"step": step, "data": self._val.name if self._val else "", "unreadable": unreadable}
        write_json(self._run.metrics, {**context, **found, "best": self.evaluations[best]})
        if is_known:
            self._logger.track({"event": "evaluation", **record}, step)
        else:
            self._logger.record({"event": "evaluation", "step": step, "seconds": seconds, **found})

    def _show(self, evaluation: Evaluation) -> None:
        """Print a line about an evaluation: the first one, the last one, and of the others one in `LINE_EVERY` seconds."""
        step, best, now = self._trainer.step, self.best_step, time.monotonic()
        is_last = self.stopped or step == self._trainer.total
        if best is None or (now - self._last_line < LINE_EVERY and not is_last):
            return
        self._last_line = now
        compared = "the best so far" if best == step else f"best at step {best}"
        is_compared = len(self.evaluations) > 1 and main_figure(self.evaluations[best]) >= NOTHING_FOUND
        self._logger.info(f"step {step}: {evaluation.summary()}{f'; {compared}' if is_compared else ''}")

    def _update_stopped(self) -> None:
        """Decide, together with all processes, whether the training has been without a new best for too long."""
        patience, best = self._trainer.recipe.patience, self.best_step
        if patience is not None:
            worse = sum(step > best for step in self.evaluations) if best is not None else 0
            self.stopped = bool(self._trainer.group.all_max(int(worse >= patience)))
