"""Training and validation of a decoder on cached features."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from nasdsl.decoder import Decoder
from nasdsl.detection.detector import DetectorError
from nasdsl.detection.factory import make_method as detection_method
from nasdsl.detection.method import Method
from nasdsl.detection.pyramid import RawDetections
from nasdsl.training.ema import make_ema
from nasdsl.training.errors import Diverged
from nasdsl.training.proxy.crops import Size
from nasdsl.training.proxy.errors import ProxyError, Stopped
from nasdsl.training.proxy.loader import CropBatch
from nasdsl.training.proxy.spec import DTYPES, ProxySpec
from nasdsl.training.schedule import cosine, one_cycle

StepCallback = Callable[[int, float], bool | None]
"""Called after each training step with its number, from 1, and its loss; return True to stop the evaluation early."""


@dataclass
class Timer:
    """Seconds spent in each part of the work. On a GPU, which computes asynchronously, a part may still be computed when the
    next one is being timed."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """Add the time that the block takes to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start


def make_method(decoder: Decoder, options: Mapping[str, Any]) -> Method:
    """The method of the decoder's ``predict`` with these options.

    Raises:
        ProxyError: there is no such option.
        DetectionError: an option has an invalid value.
    """
    try:
        return detection_method(decoder, options)
    except DetectorError as error:
        raise ProxyError(f"method: {error}") from error


def train_decoder(
    module: nn.Module,
    batches: Iterator[CropBatch],
    method: Method,
    spec: ProxySpec,
    timer: Timer,
    on_step: StepCallback | None,
) -> nn.Module:
    """Train a decoder, or its head alone.

    Returns:
        The module to validate: the averaged weights, or `module` itself without averaging.

    Raises:
        Diverged: a loss is not finite.
        Stopped: `on_step` returned True.
    """
    average = make_ema(module, spec.average) if spec.average is not None else None
    optimizer = torch.optim.Adam(module.parameters(), spec.learning_rate, fused=True)
    module.train()
    for step in range(1, spec.iterations + 1):
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate * _rate_factor(spec, step - 1)
        with timer.time("data"):
            batch = next(batches)
        with timer.time("compute"):
            with _autocast(batch, spec):
                predictions = module(batch.features)
            losses = method.at((step - 1) / spec.iterations).losses(predictions, batch.targets)
            total = torch.stack(list(losses.values())).sum()
            value = total.item()
            if not math.isfinite(value):
                each = ", ".join(f"{name} {loss.item():.4g}" for name, loss in losses.items())
                raise Diverged(f"the loss is not finite at step {step} of {spec.iterations} ({each})")
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
            optimizer.step()
        if average is not None:
            with timer.time("average"):
                average.update_parameters(module)
        if on_step is not None and on_step(step, value):
            raise Stopped(step, value)
    return module if average is None else average.module


class ValidationResult(NamedTuple):
    """Losses by name over all of meta-val, and the detections in each crop (empty if not asked for)."""

    losses: dict[str, float]
    detections: list[RawDetections]


@torch.no_grad()
def validate(
    module: nn.Module, batches: Iterable[CropBatch], method: Method, spec: ProxySpec, *, crop_size: Size | None = None
) -> ValidationResult:
    """The losses over all crops in evaluation mode, as if they were one batch: the batch size makes no difference.

    Args:
        crop_size: (H, W) of a crop in pixels, to detect objects in it as well. None: the losses alone.

    Raises:
        Diverged: they are not finite.
    """
    module.eval()
    sums: dict[str, float] = {}
    divisors: dict[str, float] = {}
    least: dict[str, float] = {}
    detections: list[RawDetections] = []
    for batch in batches:
        with _autocast(batch, spec):
            predictions = module(batch.features)
        for name, term in method.loss_terms(predictions, batch.targets).items():
            sums[name] = sums.get(name, 0.0) + term.total.item()
            divisors[name] = divisors.get(name, 0.0) + term.divisor.item()
            least[name] = term.least
        if crop_size is not None:
            found = method.detect(predictions, [crop_size] * len(batch.targets[0]))
            detections += [{name: x.cpu() for name, x in one.items()} for one in found]
    losses = {name: total / max(divisors[name], least[name]) for name, total in sums.items()}
    if not all(map(math.isfinite, losses.values())):
        each = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items())
        raise Diverged(f"the loss on meta-val is not finite after {spec.iterations} steps ({each})")
    return ValidationResult(losses, detections)


def _autocast(batch: CropBatch, spec: ProxySpec) -> AbstractContextManager[object]:
    device = next(iter(batch.features.values())).device.type
    return torch.autocast(device, DTYPES[spec.precision], enabled=spec.precision != "float32")


def _rate_factor(spec: ProxySpec, step: int) -> float:
    """The fraction of the learning rate at `step`, counted from 0."""
    if spec.schedule == "constant":
        return 1.0
    if spec.schedule == "cosine":
        return cosine(step, spec.iterations, 0.0)
    return one_cycle(step, spec.iterations, rise=0.3, start=0.04, final=0.0)
