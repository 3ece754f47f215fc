"""The short training of a decoder on features that are there already, and what it is worth on meta-val."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from nasdsl.backends.layer_errors import first_line, is_out_of_memory, layer_error_message
from nasdsl.decoder import Decoder
from nasdsl.detection.detector import Method
from nasdsl.detection.fcos import Fcos, FcosTargets
from nasdsl.detection.pyramid import Detections, Predictions
from nasdsl.detection.retinanet import Retinanet, RetinanetTargets
from nasdsl.semantics.architecture import Fcos as FcosPrediction
from nasdsl.training.ema import make_average
from nasdsl.training.errors import Diverged
from nasdsl.training.proxy.crops import Place, Size, TargetStore
from nasdsl.training.proxy.errors import DeviceLost, Failed, OutOfMemory, ProxyError, Stopped
from nasdsl.training.proxy.features import Features, Maps, cells
from nasdsl.training.proxy.spec import DTYPES, ProxySpec

T = TypeVar("T")
Report = Callable[[int, float], bool | None]
"""Told of each step and its loss; True gives the decoder up."""
Targets = FcosTargets | RetinanetTargets


class CropBatch(NamedTuple):
    """Crops as a decoder takes them, and what it shall predict."""

    features: Maps
    targets: Targets

    @property
    def weights(self) -> dict[str, float]:
        """What FCOS divides each loss by. RetinaNet's losses are means over the images, and have none."""
        if isinstance(self.targets, RetinanetTargets):
            return {}
        positives = float((self.targets.labels >= 0).sum())
        return {
            "classification": positives + len(self.targets.labels),
            "bbox_regression": float(self.targets.centerness.sum()),
            "bbox_ctrness": positives,
        }


@dataclass(frozen=True)
class Batches:
    """Makes batches of crops.

    Attributes:
        features, store: where crops and targets come from.
        method: what targets are for.
        names: levels that the decoder reads.
        strides: of the levels that it predicts at.
    """

    features: Features
    store: TargetStore
    method: Method
    names: tuple[str, ...]
    strides: Mapping[str, int]
    size: int
    device: torch.device
    channels_last: bool

    def stream(self, places: Iterable[list[Place]]) -> Iterator[CropBatch]:
        """Batches on the device; for a GPU, each is made while it computes on the one before."""
        if self.device.type == "cpu":
            yield from map(self.make, places)
            return
        for crops, targets in _ahead(map(self.make, places)):
            on_device = {name: maps.to(self.device, non_blocking=True).float() for name, maps in crops.items()}
            yield CropBatch(on_device, type(targets)(*(x.to(self.device) for x in targets)))

    def make(self, places: list[Place]) -> CropBatch:
        """The batch of these crops on the CPU; for a GPU, numbers as they are stored, because copying them takes time."""
        on_cpu = self.device.type == "cpu"
        dtype = torch.float32 if on_cpu else self.features.dtype
        crops = self.features.crops(places, self.names, self.size, dtype, pinned=self.device.type == "cuda")
        if not self.channels_last:
            crops = {name: maps.contiguous() for name, maps in crops.items()}
        shapes = {name: cells((self.size, self.size), stride) for name, stride in self.strides.items()}
        return CropBatch(crops, self._targets(places, shapes))

    def _targets(self, places: list[Place], shapes: Mapping[str, Size]) -> Targets:
        if isinstance(self.method, Fcos):
            return self.store.fcos(places, self.method, shapes)
        return self.method.targets(shapes, (self.size, self.size), [self.store.boxes_in(place) for place in places])


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each made while the one before it is used."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]  # it is not the end


@dataclass
class Clocks:
    """Seconds by part of the work. On a GPU, computing goes on while the parts after it are counted."""

    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def count(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent[part] = self.spent.get(part, 0.0) + time.perf_counter() - began


def method_of(decoder: Decoder, options: Mapping[str, Any]) -> Method:
    """FCOS or RetinaNet, as the text's ``predict`` says.

    Raises:
        ProxyError: it has no such option.
        DetectionError: an option makes no sense.
    """
    predict = decoder.architecture.predict
    kind = Fcos if isinstance(predict, FcosPrediction) else Retinanet
    given: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}  # JSON has lists
    known = [field.name for field in fields(kind)]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise ProxyError(f"method has {', '.join(unknown)}; {kind.__name__} knows {', '.join(known)}")
    if isinstance(predict, FcosPrediction):
        return Fcos(**given)
    return Retinanet(**{**given, "anchors": predict.anchors})


def adapt(
    learner: nn.Module, batches: Iterator[CropBatch], method: Method, spec: ProxySpec, clocks: Clocks, report: Report | None
) -> nn.Module:
    """Train a decoder, or its head; the module that is evaluated: its average, or itself.

    Raises:
        Diverged: a loss is not finite.
        Stopped: `report` said so.
    """
    average = make_average(learner, spec.average) if spec.average is not None else None
    optimizer = torch.optim.Adam(learner.parameters(), spec.learning_rate, fused=True)
    learner.train()
    for step in range(1, spec.iterations + 1):
        with clocks.count("data"):
            batch = next(batches)
        with clocks.count("compute"):
            with _autocast(batch, spec):
                predictions = learner(batch.features)
            losses = _losses(method, predictions, batch.targets)
            total = torch.stack(list(losses.values())).sum()
            value = total.item()
            if not math.isfinite(value):
                told = ", ".join(f"{name} {loss.item():.4g}" for name, loss in losses.items())
                raise Diverged(f"the loss is not finite at step {step} of {spec.iterations} ({told})")
            optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
            optimizer.step()
        if average is not None:
            with clocks.count("average"):
                average.update_parameters(learner)
        if report is not None and report(step, value):
            raise Stopped(step, value)
    return learner if average is None else average.module


class Measured(NamedTuple):
    """What a decoder is worth: losses by name over all of meta-val, and what it finds in each crop, if asked for."""

    losses: dict[str, float]
    detections: list[Detections]


@torch.no_grad()
def measure(module: nn.Module, batches: Iterable[CropBatch], method: Method, spec: ProxySpec, *, detect: bool) -> Measured:
    """The losses over all crops, as if they were one batch, in evaluation mode: how they are batched makes no difference.

    Raises:
        Diverged: they are not finite.
    """
    module.eval()
    sums: dict[str, float] = {}
    divisors: dict[str, float] = {}
    detections: list[Detections] = []
    for batch in batches:
        with _autocast(batch, spec):
            predictions = module(batch.features)
        weights = batch.weights
        for name, loss in _losses(method, predictions, batch.targets).items():
            weight = weights.get(name, float(len(batch.targets.labels)))
            sums[name] = sums.get(name, 0.0) + weight * loss.item()
            divisors[name] = divisors.get(name, 0.0) + weight
        if detect:
            found = method.detect(predictions, [(spec.size, spec.size)] * len(batch.targets.labels))
            detections += [{name: x.cpu() for name, x in one.items()} for one in found]
    losses = {name: total / divisors[name] if divisors[name] else 0.0 for name, total in sums.items()}
    if not all(map(math.isfinite, losses.values())):
        told = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items())
        raise Diverged(f"the loss on meta-val is not finite after {spec.iterations} steps ({told})")
    return Measured(losses, detections)


@contextmanager
def verdicts(on: str) -> Iterator[None]:
    """What torch raises, as a verdict.

    Args:
        on: what is computed, such as ``batches of 8 crops of 384x384``.

    Raises:
        OutOfMemory, DeviceLost, Failed: in the place of torch's errors.
    """
    try:
        yield
        return
    except (RuntimeError, ValueError, MemoryError) as error:
        layer, reason = layer_error_message(error), first_line(error)
        if not is_out_of_memory(error):
            if reason.startswith("CUDA error"):
                raise DeviceLost(f"the GPU failed: {reason}") from error
            if isinstance(error, ValueError) and layer is None:
                raise
            raise Failed(f"torch cannot run this decoder: {layer or reason}") from error
    # Out of the handlers, because the error keeps the tensors of its frames alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    raise OutOfMemory(f"not enough memory for {on}: {layer or reason}")


def _losses(method: Method, predictions: Predictions, targets: Targets) -> dict[str, Tensor]:
    if isinstance(method, Retinanet):
        assert isinstance(targets, RetinanetTargets)
        return method.losses(predictions, targets)
    assert isinstance(targets, FcosTargets)
    return method.losses(predictions, targets)


def _autocast(batch: CropBatch, spec: ProxySpec) -> AbstractContextManager[object]:
    device = next(iter(batch.features.values())).device.type
    return torch.autocast(device, DTYPES[spec.precision], enabled=spec.precision != "float32")
