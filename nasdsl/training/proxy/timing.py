"""How long evaluations on the proxy task take and how much memory they need: measured on a few images and a few steps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Final, NamedTuple

import torch

from nasdsl.data import Dataset, UnreadableImage
from nasdsl.training.proxy.extraction import backbone_feature_function, make_frozen_backbone, make_layout, resized_sizes
from nasdsl.training.proxy.feature_batches import FeatureFunction
from nasdsl.training.proxy.fpn_features import fpn_feature_function
from nasdsl.training.proxy.memory import peak_memory, reset_peak_memory, resident_memory
from nasdsl.training.proxy.spec import ProxySpec
from nasdsl.training.proxy.task import ProxyTask, find_device
from nasdsl.training.proxy.zero_cost import ZERO_COST

IMAGES: Final = 12
"""Images, spread over the data, that decoders are trained on."""
STEPS: Final = 3
"""Steps that are timed, after a first one in which memory is allocated."""
STEPS_ON_GPU: Final = 24
"""The same on a GPU: most of them are replays of a graph, as nearly all of a whole training are."""
MOST_PIXELS: Final = 2**20
"""Pixels of a batch that is measured on a CPU; of a larger one a part is measured, because its time is proportional."""


class EvaluationTime(NamedTuple):
    """Seconds of the evaluation of one decoder: a training step, and the validation on all of meta-val."""

    step: float
    validation: float

    def total(self, spec: ProxySpec) -> float:
        """Seconds of a whole evaluation."""
        return spec.seeds * (spec.iterations * self.step + self.validation)


@dataclass(frozen=True)
class ProxyTime:
    """What the parts of a proxy task take.

    Attributes:
        image: seconds to make the features of one image, with its mirror image.
        evaluations: of each decoder that could be trained, in the given order; scores without training have no steps.
        failures: why the others could not.
        share: of the spec's batch that was measured. Below 1, all figures of steps are extrapolated.
        memory: bytes that a process needs at most, without the features; None if unknown.
        gpu_memory: the same of the GPU's memory; None without one.
        fpn: of heads on a trained fpn: the evaluation of the decoder that it is trained in.
        pyramid: of heads on a trained fpn: seconds to make its outputs for one image, with its mirror image.
    """

    image: float
    evaluations: tuple[EvaluationTime, ...] = ()
    failures: tuple[str, ...] = ()
    share: float = 1.0
    memory: int | None = None
    gpu_memory: int | None = None
    fpn: EvaluationTime | None = None
    pyramid: float = 0.0


def time_proxy(
    spec: ProxySpec, dataset: Dataset, texts: Sequence[str], weights: str | None = None, threads: int | None = None
) -> ProxyTime:
    """Measure a proxy task on some of its images. Nothing is written.

    Args:
        dataset: the data of the spec.
        texts: decoders to train; with none, only the features are timed.
        weights: of the backbone, instead of the spec's, which may not be trained yet.
        threads: CPU threads of an evaluation. None: as many as torch has.

    Raises:
        ProxyError, DataError, BackboneError: see `ProxyTask`.
    """
    device = find_device(spec.device)
    measured, share = _measured(replace(spec, backbone_weights=weights), device)
    few = dataset.select(sorted({index * len(dataset) // IMAGES for index in range(IMAGES)}))
    image = _seconds_of_features(few, replace(measured, fpn=None), device)
    if not texts:
        return ProxyTime(image)
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        return _time_evaluations(replace(spec, backbone_weights=weights), measured, share, few, len(dataset), texts, image)
    finally:
        torch.set_num_threads(before)


def _time_evaluations(
    spec: ProxySpec, measured: ProxySpec, share: float, few: Dataset, images: int, texts: Sequence[str], image: float
) -> ProxyTime:
    val = max(1, round(spec.val_share * images))
    task = ProxyTask(replace(measured, fpn=None), dataset=few, quiet=True)
    fpn, pyramid = None, 0.0
    if task.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(task.device)
    reset_peak_memory()
    start = resident_memory()
    if spec.fpn is not None:
        fpn = _time_decoder(task, spec.fpn, share, val)
        decoder = task.load(spec.fpn)
        module = decoder.build(task.in_channels, len(task.classes)).to(task.device).eval()
        pyramid = _seconds_of_each(fpn_feature_function(task.features, lambda: module.fpn, task.device), len(few))
        task = ProxyTask(measured, dataset=few, quiet=True)
    found, failures = [], []
    for text in texts:
        try:
            found.append(_time_decoder(task, text, share, val))
        except ValueError as error:  # it diverges, or needs too much memory: others may not
            failures.append(str(error))
    peak, memory = peak_memory(), None
    if start is not None and peak is not None:
        memory = round(start + max(0, peak - start) / share)
    gpu = torch.cuda.max_memory_reserved(task.device) if task.device.type == "cuda" else None
    return ProxyTime(image, tuple(found), tuple(failures), share, memory, gpu, fpn, pyramid)


def _measured(spec: ProxySpec, device: torch.device) -> tuple[ProxySpec, float]:
    """The task that is measured: a few steps, of a part of the batch on a CPU; and the share of the batch."""
    batch, steps = spec.batch_size, STEPS_ON_GPU
    if device.type == "cpu":
        steps = STEPS
        batch = min(batch, max(2, MOST_PIXELS // spec.size**2))
    measured = replace(spec, cache=None, memory_limit=2**62, seeds=1, iterations=steps + 1, batch_size=batch)
    return measured, batch / spec.batch_size


def _seconds_of_features(few: Dataset, spec: ProxySpec, device: torch.device) -> float:
    extractor = make_frozen_backbone(spec)
    layout = make_layout(extractor.out_channels, resized_sizes(few, spec), spec)
    return _seconds_of_each(backbone_feature_function(few, extractor, layout, spec, device), len(few))


def _seconds_of_each(compute: FeatureFunction, images: int) -> float:
    """Mean seconds of an image, from a few of them; the first one, in which libraries prepare themselves, is not measured."""

    def seconds(pictures: range) -> float:
        start = time.perf_counter()
        for maps in compute(pictures):
            if not isinstance(maps, UnreadableImage):
                for values in maps.values():
                    values.cpu()
        return (time.perf_counter() - start) / len(pictures)

    first = seconds(range(1))
    return seconds(range(1, min(images, STEPS + 1))) if images > 1 else first


def _time_decoder(task: ProxyTask, text: str, share: float, val: int) -> EvaluationTime:
    """Time a decoder.

    Args:
        share: of the batch that is measured.
        val: images of meta-val.
    """
    times: list[float] = []
    details = task(text, lambda step, loss: times.append(time.perf_counter())).details
    if task.spec.reward in ZERO_COST:
        return EvaluationTime(0.0, details["seconds"] / share)
    step = median(later - earlier for earlier, later in pairwise(times))
    return EvaluationTime(step / share, details["validation"] / len(task.val) * val)
