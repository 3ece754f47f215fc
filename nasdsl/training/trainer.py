"""The training step, and the state that a checkpoint holds."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from nasdsl.data import Batch
from nasdsl.detection.detector import Detector
from nasdsl.training.distributed import ProcessGroup
from nasdsl.training.ema import make_ema
from nasdsl.training.errors import CheckpointError, Diverged
from nasdsl.training.optimizer import make_optimizer, set_learning_rate
from nasdsl.training.recipe import Recipe
from nasdsl.training.schedule import lr_factor

AUTOCAST: Final[Mapping[str, torch.dtype]] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
INITIAL_SCALE: Final = 2.0**16
"""Factor of a float16 loss at the start; every overflow halves it."""


class StepMetrics(NamedTuple):
    """Metrics of the steps since they were last read, over all processes.

    Attributes:
        losses: mean of each loss by name, over the batches with finite losses; nan if there is none.
        gradient_norm: mean over the steps with finite gradients, before clipping.
        images: number of images in all batches.
        nonfinite: number of skipped steps since the start of the training.
    """

    losses: dict[str, float]
    gradient_norm: float
    images: int
    nonfinite: int


class Trainer:
    """Trains a detector: the module, its optimizer, loss scaling, weight averaging, and the number of steps.

    A step with gradients that are not finite is skipped: weights and optimizer stay as they are, and the next `read_metrics`
    restores the statistics of BatchNorm. A step does not synchronise with the device; `read_metrics` does.

    Attributes:
        trained_parameters: those that the optimizer updates.
        learning_rate: of the last step.
        step: number of steps so far.
    """

    def __init__(self, detector: Detector, recipe: Recipe, total: int, group: ProcessGroup) -> None:
        self.recipe, self.total, self.group = recipe, total, group
        self.detector = detector.to(group.device)
        if recipe.channels_last:
            self.detector = detector.to(memory_format=torch.channels_last)
        if recipe.sync_batchnorm and group.world_size > 1 and group.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(detector)  # type: ignore[no-untyped-call]
        self.optimizer = make_optimizer(detector, recipe)
        self.trained_parameters = [p for parameters in self.optimizer.param_groups for p in parameters["params"]]
        # In other precisions than float16 the scale stays 1: the scaler only skips non-finite steps, without synchronising.
        initial_scale = INITIAL_SCALE if recipe.precision == "float16" else 1.0
        self.scaler = torch.amp.GradScaler(group.device.type, init_scale=initial_scale)
        self.average = make_ema(detector, recipe.ema, recipe.ema_warmup) if recipe.ema is not None else None
        self.step = 0
        self.learning_rate = 0.0
        self._metrics = _MetricAccumulator(group)
        self._forward: Detector | DistributedDataParallel = detector
        self._finite_buffers: list[Tensor] = []

    def prepare(self) -> None:
        """Prepare for the first step, after `load_state_dict`: all processes get the weights of rank 0."""
        if self.group.world_size > 1:
            self._forward = DistributedDataParallel(
                self.detector, gradient_as_bucket_view=True, find_unused_parameters=_has_unused_parameters(self.detector)
            )
        self._store_buffers()

    @property
    def eval_detector(self) -> Detector:
        """The detector to evaluate and save: the one with averaged weights if there is one."""
        return cast("Detector", self.average.module) if self.average is not None else self.detector

    @property
    def nonfinite(self) -> int:
        """Number of skipped steps since the start of the training. Synchronises with the device."""
        return self._metrics.nonfinite()

    def train_step(self, batches: Iterator[Batch]) -> None:
        """Make one step, on as many batches as the recipe accumulates."""
        recipe, device = self.recipe, self.group.device
        # The random state depends on the seed and the step alone, so that a resumed training draws the same numbers.
        torch.manual_seed(zlib.crc32(f"{recipe.seed}/{self.step}/{self.group.rank}".encode()))
        self.learning_rate = recipe.learning_rate * lr_factor(recipe, self.step, self.total)
        set_learning_rate(self.optimizer, self.learning_rate)
        for remaining in reversed(range(recipe.accumulate)):
            batch = next(batches).to(device, channels_last=recipe.channels_last, non_blocking=True)
            with self._no_sync() if remaining else nullcontext():
                with torch.autocast(device.type, AUTOCAST.get(recipe.precision), enabled=recipe.precision in AUTOCAST):
                    progress = self.step / self.total
                    losses = self._forward(batch.images, batch.targets, sizes=batch.sizes, progress=progress)
                loss = torch.stack(list(losses.values())).sum() / recipe.accumulate
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._metrics.add_batch(losses, len(batch))
        self.scaler.unscale_(self.optimizer)
        norm = clip_grad_norm_(self.trained_parameters, math.inf if recipe.clip_norm is None else recipe.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update(None if recipe.precision == "float16" else 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.detector)
        self._metrics.add_norm(norm)
        self.step += 1

    def synchronize(self) -> None:
        """Wait until the device has made all steps."""
        _ = self.nonfinite  # reading a number of the device waits for it

    def read_metrics(self) -> StepMetrics:
        """The metrics since the last call. Synchronises with the device and, like a collective operation, with all processes.

        Raises:
            Diverged: as many consecutive steps were skipped as the recipe allows.
        """
        metrics, consecutive, any_skipped = self._metrics.read()
        if any_skipped:
            self._restore_buffers()
        if consecutive >= self.recipe.most_nonfinite:
            raise Diverged(
                f"{consecutive} steps in a row up to step {self.step} had losses or gradients that are not finite. They were "
                "skipped, and the last checkpoint is intact. Try a lower learning_rate, clip_norm, or another precision."
            )
        self._store_buffers()
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint. It needs no position in the data: the next batches follow from the step."""
        return {
            "step": self.step,
            "detector": self.detector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "nonfinite": self.nonfinite,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of a checkpoint.

        Raises:
            CheckpointError: it is of another detector or recipe.
        """
        try:
            self.detector.load_state_dict(state["detector"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self._metrics.set_nonfinite(state["nonfinite"])
            self.step = state["step"]
        except (KeyError, ValueError, RuntimeError, TypeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise CheckpointError(f"the checkpoint is of another detector or recipe: {reason}") from error

    def _no_sync(self) -> AbstractContextManager[None]:
        """Context without gradient synchronisation: of accumulated batches, only the last one synchronises."""
        return self._forward.no_sync() if isinstance(self._forward, DistributedDataParallel) else nullcontext()

    def _store_buffers(self) -> None:
        self._finite_buffers = [b.clone() for b in self.detector.buffers()]

    def _restore_buffers(self) -> None:
        """Replace BatchNorm statistics that a skipped step made non-finite by those of the last `_store_buffers`."""
        averaged = list(self.average.module.buffers()) if self.average is not None else []
        for buffers in (list(self.detector.buffers()), averaged):
            for buffer, finite in zip(buffers, self._finite_buffers, strict=False):
                if not bool(buffer.isfinite().all()):
                    buffer.copy_(finite)


def _has_unused_parameters(detector: nn.Module) -> bool:
    """Whether some parameters get no gradient: those of backbone stages that the decoder does not read.

    DDP must be told, because it waits for the gradients of all parameters; searching for unused ones costs time in every step.
    """
    if not isinstance(detector, Detector):
        return False
    unread = set(detector.backbone.features) - set(detector.decoder.fpn.input_levels)
    name = detector.backbone.name
    if name is None or name.startswith("timm:"):  # may compute each feature independently
        return bool(unread)
    return max(detector.backbone.features) in unread


class _MetricAccumulator:
    """Accumulates the metrics of steps on the device, so that no step waits for it."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.names: list[str] = []
        self.losses: Tensor | None = None  # sum of each loss, and the number of finite batches
        self.images = 0
        self.norms = torch.zeros(2, device=group.device)  # sum and number, of finite steps
        self.skipped = torch.zeros(3, device=group.device)  # all, consecutive now, most consecutive since the last read
        self.reported = 0.0

    def set_nonfinite(self, count: int) -> None:
        self.skipped[0] = self.reported = count

    def nonfinite(self) -> int:
        return int(self.skipped[0])

    def add_batch(self, losses: Mapping[str, Tensor], images: int) -> None:
        self.images += images
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        values = torch.cat((values, values.new_ones(1)))
        if self.losses is None:
            self.names, self.losses = list(losses), torch.zeros_like(values)
        self.losses += torch.where(values.isfinite().all(), values, 0.0)

    def add_norm(self, norm: Tensor) -> None:
        finite = norm.isfinite()
        self.norms += torch.where(finite, torch.stack((norm, torch.ones_like(norm))), 0.0)
        skipped = (~finite).float()
        total, consecutive, most = self.skipped
        consecutive = (consecutive + 1) * skipped
        self.skipped = torch.stack((total + skipped, consecutive, torch.maximum(most, consecutive)))

    def read(self) -> tuple[StepMetrics, int, bool]:
        """The metrics since the last read, the most consecutive skipped steps, and whether any was skipped; then reset."""
        assert self.losses is not None
        losses = self.group.all_mean(self.losses).tolist()
        batches = losses.pop()
        images = self.group.all_sum(self.images)
        (norm, count), (nonfinite, _, most) = self.norms.tolist(), self.skipped.tolist()
        means = {name: value / batches if batches else float("nan") for name, value in zip(self.names, losses, strict=True)}
        any_skipped = nonfinite > self.reported
        self.losses.zero_()
        self.images = 0
        self.norms.zero_()
        self.skipped[2] = 0
        self.reported = nonfinite
        return StepMetrics(means, norm / count if count else float("nan"), images, int(nonfinite)), int(most), any_skipped
