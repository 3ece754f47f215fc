"""A detector that learns: one step, and all that a checkpoint holds."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from nasdsl.data import Batch
from nasdsl.detection.detector import Detector
from nasdsl.training.distributed import ProcessGroup
from nasdsl.training.ema import make_ema
from nasdsl.training.errors import CheckpointError, Diverged
from nasdsl.training.optimizer import make_optimizer, set_learning_rate
from nasdsl.training.recipe import Recipe
from nasdsl.training.schedule import lr_factor

AUTOCAST: Final[Mapping[str, torch.dtype]] = {"bfloat16": torch.bfloat16, "float16": torch.float16}
FIRST_SCALE: Final = 2.0**16
"""What a float16 loss is multiplied with at first; every overflow halves it."""


class StepMetrics(NamedTuple):
    """Means since the last reading, over all processes and the steps that were finite.

    Attributes:
        losses: by name, and nan if no step was finite.
        gradient_norm: before clipping.
        nonfinite: steps that were skipped since the training began.
    """

    losses: dict[str, float]
    gradient_norm: float
    nonfinite: int


class Trainer:
    """A detector, its optimizer, loss scaling, average, and the count of steps.

    A step whose gradients are not finite changes nothing: the weights, the optimizer and, at the next `read`, BatchNorm's
    statistics are what they were before. All of this stays on the device: only `read` waits for it.

    Attributes:
        rate: the learning rate of the last step.
        step: how many were made.
    """

    def __init__(self, detector: Detector, recipe: Recipe, total: int, group: ProcessGroup) -> None:
        self.recipe, self.total, self.group = recipe, total, group
        self.detector = detector.to(group.device)
        if recipe.channels_last:
            self.detector = detector.to(memory_format=torch.channels_last)
        if recipe.sync_batchnorm and group.world_size > 1 and group.device.type == "cuda":
            nn.SyncBatchNorm.convert_sync_batchnorm(detector)  # type: ignore[no-untyped-call]
        self.optimizer = make_optimizer(detector, recipe)
        self.trained_parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        # Without float16 the scale stays 1: then this is what skips a step that is not finite, without waiting for it.
        self.scaler = torch.amp.GradScaler(group.device.type, init_scale=FIRST_SCALE if recipe.precision == "float16" else 1.0)
        self.average = make_ema(detector, recipe.ema) if recipe.ema is not None else None
        self.step = 0
        self.learning_rate = 0.0
        self._metrics = _MetricAccumulator(group)
        self._forward: Detector | DistributedDataParallel = detector
        self._good_buffers: list[Tensor] = []

    def start(self) -> None:
        """Ready for the first step, after `load`: the processes' weights are made equal."""
        if self.group.world_size > 1:
            self._forward = DistributedDataParallel(
                self.detector, gradient_as_bucket_view=True, find_unused_parameters=_has_unused_parameters(self.detector)
            )
        self._store_buffers()

    @property
    def eval_detector(self) -> Detector:
        """What is evaluated and saved: the average, or else the detector."""
        return cast("Detector", self.average.module) if self.average is not None else self.detector

    def train_step(self, batches: Iterator[Batch]) -> None:
        """One step, on as many batches as the recipe accumulates."""
        recipe, device = self.recipe, self.group.device
        # What the network draws depends on the seed and the step alone: a resumed training draws the same.
        torch.manual_seed(zlib.crc32(f"{recipe.seed}/{self.step}/{self.group.rank}".encode()))
        self.learning_rate = recipe.learning_rate * lr_factor(recipe, self.step, self.total)
        set_learning_rate(self.optimizer, self.learning_rate)
        for remaining in reversed(range(recipe.accumulate)):
            batch = next(batches).to(device, channels_last=recipe.channels_last, non_blocking=True)
            with self._no_sync() if remaining else nullcontext():
                with torch.autocast(device.type, AUTOCAST.get(recipe.precision), enabled=recipe.precision in AUTOCAST):
                    losses = self._forward(batch.images, batch.targets, sizes=batch.sizes)
                loss = torch.stack(list(losses.values())).sum() / recipe.accumulate
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            self._metrics.add_losses(losses)
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([p.grad for p in self.trained_parameters if p.grad is not None])
        if recipe.clip_norm is not None:
            clip_grads_with_norm_(self.trained_parameters, recipe.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update(None if recipe.precision == "float16" else 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update_parameters(self.detector)
        self._metrics.add_norm(norm)
        self.step += 1

    def read_metrics(self) -> StepMetrics:
        """What happened since the last reading. Waits for the device.

        Raises:
            Diverged: as many steps in a row as the recipe allows were not finite.
        """
        reading, in_a_row, some = self._metrics.read()
        if some:
            self._restore_buffers()
        if in_a_row >= self.recipe.most_nonfinite:
            raise Diverged(
                f"{in_a_row} steps in a row up to step {self.step} had losses or gradients that are not finite. They changed "
                "nothing, and the last checkpoint is intact. Try a lower learning_rate, clip_norm, or another precision."
            )
        self._store_buffers()
        return reading

    def state_dict(self) -> dict[str, Any]:
        """All of it, for a checkpoint. The batches that come next follow from the step."""
        return {
            "step": self.step,
            "detector": self.detector.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "nonfinite": self._metrics.nonfinite(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

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
        """Gradients stay with their process: of accumulated batches, the last one brings them together."""
        return self._forward.no_sync() if isinstance(self._forward, DistributedDataParallel) else nullcontext()

    def _store_buffers(self) -> None:
        self._good_buffers = [b.clone() for b in self.detector.buffers()]

    def _restore_buffers(self) -> None:
        """BatchNorm's statistics that a skipped step left without a finite value are those of the last reading again."""
        averaged = list(self.average.module.buffers()) if self.average is not None else []
        for buffers in (list(self.detector.buffers()), averaged):
            for buffer, good in zip(buffers, self._good_buffers, strict=False):
                if not bool(buffer.isfinite().all()):
                    buffer.copy_(good)


def _has_unused_parameters(detector: nn.Module) -> bool:
    """Whether no loss depends on some of them: what a backbone computes for features that the decoder does not read.

    DDP would wait for their gradients in vain; looking for them at every step takes time, so it is not done without need.
    """
    if not isinstance(detector, Detector):
        return False
    unread = set(detector.backbone.features) - set(detector.decoder.fpn.input_levels)
    if detector.backbone.name is None:  # a network of one's own may compute each feature by itself
        return bool(unread)
    return max(detector.backbone.features) in unread


class _MetricAccumulator:
    """Sums that stay on the device until they are read, all at once."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group
        self.names: list[str] = []
        self.losses: Tensor | None = None  # with the number of finite batches as last element
        self.norms = torch.zeros(2, device=group.device)  # sum and number, of the finite steps
        self.steps = torch.zeros(3, device=group.device)  # not finite: all, now in a row, most in a row since the last reading
        self.known = 0.0

    def set_nonfinite(self, nonfinite: int) -> None:
        self.steps[0] = self.known = nonfinite

    def nonfinite(self) -> int:
        return int(self.steps[0])

    def add_losses(self, losses: Mapping[str, Tensor]) -> None:
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        values = torch.cat((values, values.new_ones(1)))
        if self.losses is None:
            self.names, self.losses = list(losses), torch.zeros_like(values)
        self.losses += torch.where(values.isfinite().all(), values, 0.0)

    def add_norm(self, norm: Tensor) -> None:
        finite = norm.isfinite()
        self.norms += torch.where(finite, torch.stack((norm, torch.ones_like(norm))), 0.0)
        bad = (~finite).float()
        everything, in_a_row, most = self.steps
        in_a_row = (in_a_row + 1) * bad
        self.steps = torch.stack((everything + bad, in_a_row, torch.maximum(most, in_a_row)))

    def read(self) -> tuple[StepMetrics, int, bool]:
        """The reading, the most steps in a row that were not finite, and whether any since the last reading was not."""
        assert self.losses is not None
        losses = self.group.all_mean(self.losses).tolist()
        batches = losses.pop()
        (norm, count), (nonfinite, _, most) = self.norms.tolist(), self.steps.tolist()
        means = {name: value / batches if batches else float("nan") for name, value in zip(self.names, losses, strict=True)}
        some = nonfinite > self.known
        self.losses.zero_()
        self.norms.zero_()
        self.steps[2] = 0
        self.known = nonfinite
        return StepMetrics(means, norm / count if count else float("nan"), int(nonfinite)), int(most), some
