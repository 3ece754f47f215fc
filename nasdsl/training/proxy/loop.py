"""Training and validation of a decoder on cached features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from nasdsl.decoder import Decoder
from nasdsl.detection.detector import DetectorError
from nasdsl.detection.factory import make_method as detection_method
from nasdsl.detection.method import Method
from nasdsl.detection.positives import is_read_at_once
from nasdsl.detection.pyramid import RawDetections
from nasdsl.training.errors import Diverged
from nasdsl.training.proxy.crops import Size
from nasdsl.training.proxy.errors import ProxyError, Stopped
from nasdsl.training.proxy.loader import CropBatch
from nasdsl.training.proxy.spec import ProxySpec
from nasdsl.training.proxy.step import StepRunner, TrainingStep, autocast
from nasdsl.training.proxy.timer import Timer

StepCallback = Callable[[int, float], bool | None]
"""Called for each training step with its number, from 1, and its loss; return True to stop the evaluation early. On a GPU,
which is not waited for at each step, it is called for several steps at a time."""


READS: Final = 20
"""How often the CPU reads the losses of a training on a GPU, and so notices divergence: early stopping looks at quarters."""


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
    device = next(module.parameters()).device
    step = TrainingStep(module, method, spec, device, timer)
    run = StepRunner(step, method, spec, device)
    every = 1 if is_read_at_once(device) else max(1, spec.iterations // READS)
    for number in range(1, spec.iterations + 1):
        with timer.time("data"):
            batch = next(batches)
        run(batch)
        if number % every and number < spec.iterations:
            continue
        with timer.time("compute"):
            found = step.read()
        for done, losses in enumerate(found, number - len(found) + 1):
            if not math.isfinite(losses.total):
                each = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.each.items())
                raise Diverged(f"the loss is not finite at step {done} of {spec.iterations} ({each})")
            if on_step is not None and on_step(done, losses.total):
                raise Stopped(done, losses.total)
    return module if step.average is None else step.average.module


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
    sums: dict[str, Tensor] = {}  # [2]: totals and divisors, which are read once: a GPU goes on meanwhile
    least: dict[str, float] = {}
    detections: list[RawDetections] = []
    for batch in batches:
        with autocast(next(iter(batch.features.values())).device, spec):
            predictions = module(batch.features)
        for name, term in method.loss_terms(predictions, batch.targets).items():
            parts = torch.stack([term.total, term.divisor]).double()
            sums[name] = sums[name] + parts if name in sums else parts
            least[name] = term.least
        if crop_size is not None:
            found = method.detect(predictions, [crop_size] * len(batch.targets[0]))
            detections += [{name: x.cpu() for name, x in one.items()} for one in found]
    read = dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True))
    losses = {name: total / max(divisor, least[name]) for name, (total, divisor) in read.items()}
    if not all(map(math.isfinite, losses.values())):
        each = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items())
        raise Diverged(f"the loss on meta-val is not finite after {spec.iterations} steps ({each})")
    return ValidationResult(losses, detections)
