"""The proxy task: evaluates the text of a decoder to a reward."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import torch
from torch import nn

from nasdsl.backends.module import DecoderModule, Fpn
from nasdsl.data import Dataset, open_dataset
from nasdsl.data.seeds import mixed_seed
from nasdsl.decoder import Decoder, loads
from nasdsl.detection.fcos import IMPROVED, IMPROVED_PREDICTION
from nasdsl.detection.method import Method
from nasdsl.machine import device_problem
from nasdsl.predictions import Fcos
from nasdsl.training.errors import Diverged
from nasdsl.training.progress import ProgressBar
from nasdsl.training.proxy.cache import cache_folder, digest, load_or_compute_features
from nasdsl.training.proxy.crops import CropSampler, TargetCache, load_annotations, split
from nasdsl.training.proxy.errors import ProxyError, translate_errors
from nasdsl.training.proxy.extraction import (
    backbone_feature_function,
    cache_key,
    make_frozen_backbone,
    make_layout,
    resized_sizes,
)
from nasdsl.training.proxy.feature_batches import FeatureFunction
from nasdsl.training.proxy.features import FeatureLayout, Features, Size
from nasdsl.training.proxy.fpn_features import annotations_key, fpn_feature_function, fpn_layout, load_or_train_fpn
from nasdsl.training.proxy.latency import median_seconds, random_features
from nasdsl.training.proxy.loader import CropLoader
from nasdsl.training.proxy.loop import StepCallback, make_method, train_decoder, validate
from nasdsl.training.proxy.memory import current_limit, limit_memory, retain_freed_memory
from nasdsl.training.proxy.metrics import average_precision
from nasdsl.training.proxy.resident import ResidentFeatures
from nasdsl.training.proxy.sharing import Handles, SharedFeatures, make_resident
from nasdsl.training.proxy.spec import DTYPES, ProxySpec
from nasdsl.training.proxy.timer import Timer
from nasdsl.training.proxy.zero_cost import ZERO_COST, zero_cost_score

_WEIGHTS_STREAM: Final = 3
"""Mixed into the seed, so that weights are drawn independently of the split and the order of crops."""
_TRAINING_SETTINGS: Final = (
    "iterations", "batch_size", "learning_rate", "average", "val_share", "seed", "precision", "channels_last"
)  # fmt: skip
"""Settings that trained weights depend on, besides the features."""


@dataclass(frozen=True)
class ProxyResult:
    """Result of evaluating a decoder on the proxy task.

    Attributes:
        reward: higher is better.
        losses: on meta-val, by name; with several seeds their means. Empty where nothing is trained.
        details: ``seconds`` in total; seconds of ``data`` (crops and targets), ``compute`` (forward, backward, optimizer),
            ``average`` and ``validation``; ``overhead``: the share of all time but validation that is not ``compute``.
    """

    reward: float
    losses: dict[str, float]
    details: dict[str, float]


class ProxyTask:
    """Trains a decoder for a short time on cached features of meta-train, and evaluates it on meta-val.

    Creating a task computes the features, unless they are cached. With the same seed, machine and number of threads, a CPU
    gives the same reward bit for bit; every decoder sees the same crops in the same order. A pickled task consists of its
    `spec` alone: the process that unpickles it creates the task itself, from the cache.

    Training uses crops at random multiples of the largest stride, validation the crop in the middle of each picture.

    Attributes:
        spec: the settings.
        device: where decoders are trained.
        classes, category_ids: of the data.
        features: what decoders are trained on.
        in_channels: widths of the backbone's features.
        train, val: indices of the pictures of meta-train and meta-val.

    Raises:
        ProxyError: the features cannot be computed or stored.
        DataError, BackboneError, UnknownBackbone: see `open_dataset` and `make_backbone`.
    """

    def __init__(self, spec: ProxySpec, *, dataset: Dataset | None = None, quiet: bool = False) -> None:
        """
        Args:
            dataset: the data, already open; None opens those of the spec.
            quiet: show no progress.
        """
        self.spec, self._quiet = spec, quiet
        self.device = find_device(spec.device)
        if dataset is None:
            dataset = open_dataset(
                spec.data, spec.split, classes=spec.classes, split_share=spec.split_share, split_seed=spec.split_seed
            )
        self.classes, self.category_ids = dataset.classes, dataset.category_ids
        extractor, sizes = make_frozen_backbone(spec), resized_sizes(dataset, spec)
        self.in_channels = extractor.out_channels
        layout = make_layout(extractor.out_channels, sizes, spec)
        self._crop_size = layout.padded_sizes[0] if spec.whole_images else (spec.size, spec.size)
        self._key = cache_key(dataset, extractor, layout, spec)
        compute = backbone_feature_function(dataset, extractor, layout, spec, self.device)
        size = "" if spec.image_size is None else f" at {spec.image_size[0]}x{spec.image_size[1]}, {spec.backbone}"
        self.features = self._load_or_compute(f"features of {dataset.name}{size}", self._key, layout, compute)
        readable = [picture for picture in range(len(dataset)) if picture not in self.features.skipped]
        if len(readable) < 2:
            raise ProxyError(f"{dataset.name} has {len(readable)} readable images; meta-train and meta-val need one each")
        self.train, self.val = split(readable, spec.val_share, spec.seed)
        self._annotations = load_annotations(dataset, sizes)
        self._target_cache = TargetCache(self._annotations, sizes, self._crop_size, spec.image_size)
        retain_freed_memory(self.device)
        self._memory_limit = current_limit(self.device)
        self._fpn: str | None = None
        self._resident: tuple[Features, ResidentFeatures | None] | None = None
        self._handles: Handles = {}
        if spec.fpn is not None:
            decoder = self.load(spec.fpn)
            self.features = self._fpn_features(decoder)  # trains the fpn on the backbone's features
            self._fpn = decoder.canonical_fpn

    def __reduce__(self) -> tuple[type[ProxyTask], tuple[ProxySpec]]:
        return ProxyTask, (self.spec,)

    def __call__(self, text: str, on_step: StepCallback | None = None) -> ProxyResult:
        """Evaluate a decoder.

        Args:
            text: of a decoder without holes, at the widths that it names.
            on_step: called after each training step with its number, from 1, and its loss; return True to stop the evaluation
                early. Of several seeds, it is called in the training of the first.

        Raises:
            DiagnosticError, MissingFeature: the text is invalid, or does not fit the backbone.
            Diverged: a loss is not finite.
            OutOfMemory: it does not fit into memory. (Without a GPU this is detected on Linux only, see `memory`; elsewhere
                the system may kill the process.)
            Failed: torch cannot run it.
            DeviceLost: the GPU has failed, and this process cannot use it any more.
            Stopped: `on_step` returned True.
            ProxyError: it reads features that are not cached, or has another fpn than the task.
        """
        start, timer, spec = time.perf_counter(), Timer(), self.spec
        decoder = self.load(text)
        method = self.method(decoder)
        if self._fpn is not None and decoder.canonical_fpn != self._fpn:
            raise ProxyError("the text has another fpn than the one whose features are cached; expected that of ProxySpec.fpn")
        with translate_errors(self._work), limit_memory(self._memory_limit):
            if spec.reward in ZERO_COST:
                return self._score(decoder, method, timer)
            rewards: list[float] = []
            losses: list[dict[str, float]] = []
            for index in range(spec.seeds):
                module, curve = self._build(decoder, index), list[float]()
                report = _recorder(curve, None if index else on_step)
                trained = self._train(module, method, timer, report, index)
                with timer.time("validation"):
                    loader = self.loader(module, method, self._computed_dtype)
                    reward, found = self.validate(trained, loader, index)
                rewards.append(-statistics.fmean(curve) if spec.reward == "training_loss" else reward)
                losses.append(found)
        means = {name: statistics.fmean(each[name] for each in losses) for name in losses[0]}
        seconds = time.perf_counter() - start
        overhead = 1 - timer.seconds["compute"] / (seconds - timer.seconds["validation"])
        details = {**timer.seconds, "seconds": seconds, "overhead": overhead}
        return ProxyResult(statistics.fmean(rewards), means, details)

    def with_fpn(self, text: str) -> ProxyTask:
        """The task of the second stage, which trains heads alone on the outputs of this decoder's fpn.

        The fpn is trained as this task trains a decoder, with the head of `text`; then its outputs are computed for every
        picture and its mirror image, and cached like the backbone's features. Decoders that are evaluated must have the same
        fpn. Crops begin at multiples of the fpn's largest stride (128 with p7), so there are fewer of them. Without a cache
        folder, the backbone's features are computed again.

        Raises:
            The errors of `ProxyTask` and of calling it.
        """
        return ProxyTask(replace(self.spec, fpn=str(text)), quiet=self._quiet)

    def latency(self, text: str, size: Size) -> float:
        """Seconds that the decoder (fpn and head, without the backbone) takes for one image of `size` (height, width) on
        the task's device: the median of several passes over random features.

        Raises:
            DiagnosticError, MissingFeature: the text is invalid, or does not fit the backbone.
            OutOfMemory, Failed: it does not fit into memory, or torch cannot run it.
        """
        decoder = self.load(text)
        with translate_errors(f"one image of {size[0]}x{size[1]}"), limit_memory(self._memory_limit):
            module = self._build(decoder)
            channels = {name: self.in_channels[name] for name in module.fpn.input_levels}
            features = random_features(channels, size, self.device, channels_last=self.spec.channels_last)
            return median_seconds(module, features, self.device)

    @property
    def crop_sampler(self) -> CropSampler:
        """Samples crops of the cached features."""
        layout = self.features.layout
        return CropSampler(layout.padded_sizes, self._crop_size, layout.stride, layout.copies == 2)

    @property
    def features_digest(self) -> str:
        """Digest of all that the backbone's features depend on: the pictures, the weights, sizes and levels."""
        return digest(self._key)

    @property
    def _work(self) -> str:
        height, width = self._crop_size
        return f"batches of {self.spec.batch_size} {'images' if self.spec.whole_images else 'crops'} of {height}x{width}"

    def load(self, text: str) -> Decoder:
        """Read a decoder from its text, with the prediction that the task trains it with."""
        decoder = loads(str(text), "the text")
        if self.spec.improvements and isinstance(decoder.architecture.predict, Fcos):
            decoder = decoder.with_prediction(IMPROVED_PREDICTION)
        return decoder

    def method(self, decoder: Decoder) -> Method:
        """Targets, losses and postprocessing of a decoder."""
        improved = self.spec.improvements and isinstance(decoder.architecture.predict, Fcos)
        return make_method(decoder, {**(IMPROVED if improved else {}), **self.spec.method})

    def _build(self, decoder: Decoder, index: int = 0) -> DecoderModule:
        """The module, with weights that depend on the text and the seed only; of several seeds, on that of this index."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mixed_seed(self.spec.seed + index, _WEIGHTS_STREAM))
            module = decoder.build(self.in_channels, len(self.classes))
        module = module.to(self.device)
        return module.to(memory_format=torch.channels_last) if self.spec.channels_last else module

    def _split(self, index: int) -> tuple[list[int], list[int]]:
        """Meta-train and meta-val of one of several seeds; for heads on a trained fpn those that it was trained with."""
        if index == 0 or self._fpn is not None:
            return self.train, self.val
        return split(sorted(self.train + self.val), self.spec.val_share, self.spec.seed + index)

    def _train(
        self, module: DecoderModule, method: Method, timer: Timer, on_step: StepCallback | None, index: int = 0
    ) -> nn.Module:
        """Train the decoder, or its head in the second stage; return the module to validate."""
        spec = self.spec
        crops = self.crop_sampler.sample(self._split(index)[0], spec.batch_size, spec.iterations, spec.seed + index)
        batches = self.loader(module, method, self._computed_dtype).batches(crops)
        return train_decoder(module if self._fpn is None else module.head, batches, method, spec, timer, on_step)

    def validate(self, trained: nn.Module, loader: CropLoader, index: int = 0) -> tuple[float, dict[str, float]]:
        """Reward and losses on meta-val.

        Args:
            trained: decoder, or head alone in the second stage.
            loader: of batches for it.
            index: which of several seeds it was trained with.

        Raises:
            Diverged: a loss is not finite.
            ProxyError: AP has no value, or ``reward_losses`` names no loss of this decoder.
        """
        spec = self.spec
        crops = [self.crop_sampler.center_crop(picture) for picture in self._split(index)[1]]
        batches = [crops[i : i + spec.batch_size] for i in range(0, len(crops), spec.batch_size)]
        crop_size = self._crop_size if spec.reward == "ap" else None
        found = validate(trained, loader.batches(batches), loader.method, spec, crop_size=crop_size)
        if spec.reward == "ap":
            annotations = [self._target_cache.annotations_in(crop) for crop in crops]
            return average_precision(
                found.detections, annotations, self._crop_size, self.classes, self.category_ids
            ), found.losses
        counted = spec.reward_losses or tuple(found.losses)
        unknown = [name for name in counted if name not in found.losses]
        if unknown:
            raise ProxyError(f"reward_losses has {', '.join(unknown)}; this decoder has {', '.join(found.losses)}")
        reward = -sum(found.losses[name] for name in counted)
        if spec.unassigned_loss is not None and loader.method.at_locations:
            share = self._target_cache.unassigned_share(crops, loader.method, loader.shapes)
            reward = (1 - share) * reward - share * spec.unassigned_loss
        return reward, found.losses

    def _score(self, decoder: Decoder, method: Method, timer: Timer) -> ProxyResult:
        """Score the decoder without training it: the mean over the seeds."""
        spec, scores = self.spec, []
        start = time.perf_counter()
        for index in range(spec.seeds):
            module = self._build(decoder, index)
            with timer.time("data"):
                crops = self.crop_sampler.sample(self._split(index)[0], spec.batch_size, 1, spec.seed + index)
                batch = next(self.loader(module, method).batches(crops))
            with timer.time("compute"):
                scored = module if self._fpn is None else module.head
                scores.append(zero_cost_score(spec.reward, scored, batch, method))
        score = statistics.fmean(scores)
        if not math.isfinite(score):
            raise Diverged(f"its {spec.reward} is {score}; expected a finite number")
        return ProxyResult(score, {}, {**timer.seconds, "seconds": time.perf_counter() - start})

    def loader(self, module: DecoderModule, method: Method, dtype: torch.dtype = torch.float32) -> CropLoader:
        """The loader of batches for a decoder.

        Args:
            dtype: of the features that batches have.

        Raises:
            ProxyError: the decoder reads features that are not cached.
        """
        cached = self.features.layout.levels
        names = tuple(module.fpn.input_levels if self._fpn is None else cached)
        missing = [name for name in names if name not in cached]
        if missing:
            raise ProxyError(f"the decoder reads {', '.join(missing)}, and cached are {', '.join(cached)}: add it to levels")
        return CropLoader(
            self.features,
            self._target_cache,
            method,
            names,
            module.head.strides,
            self._crop_size,
            self.device,
            self.spec.channels_last,
            self._resident_features(),
            dtype,
        )

    @property
    def _computed_dtype(self) -> torch.dtype:
        """The type that features are computed with. Autocast would convert them once for each layer that reads them."""
        return torch.float32 if self.device.type == "cpu" else DTYPES[self.spec.precision]

    def _resident_features(self) -> ResidentFeatures | None:
        """The features in the memory of the GPU, copied to it when they are first needed; None without a GPU."""
        if self._resident is None or self._resident[0] is not self.features:
            self._resident = None  # frees those of the backbone before those of the fpn are copied
            self._resident = self.features, make_resident(self.features, self.device, self._handles)
        return self._resident[1]

    def share(self, gpus: Sequence[str]) -> SharedFeatures:
        """Copy the features to GPUs for processes that `attach` them.

        Args:
            gpus: names of the GPUs that this process sees.
        """
        self._resident = None
        return SharedFeatures(self.features, gpus)

    def attach(self, handles: Handles) -> None:
        """Use features that another process has in the GPU's memory, of the same task."""
        self._handles = handles

    def _fpn_features(self, decoder: Decoder) -> Features:
        """The fpn outputs of a decoder for all pictures; trains the fpn, unless it is cached."""
        spec, text = self.spec, decoder.source.text
        method = self.method(decoder)
        key = {
            "features": self._key,
            "fpn": hashlib.sha256(text.encode()).hexdigest(),
            "boxes": digest(annotations_key(self._annotations)),
            "classes": len(self.classes),
            "method": repr(method),
            **{name: getattr(spec, name) for name in _TRAINING_SETTINGS},
            **({} if spec.schedule == "constant" else {"schedule": spec.schedule}),  # earlier keys have none
        }
        path = cache_folder(spec.cache, key) / "fpn.pt" if spec.cache is not None else None
        layout = fpn_layout(decoder.lower(self.in_channels), self.features.layout)

        def train(module: DecoderModule) -> DecoderModule:
            bar = ProgressBar("training the fpn, steps", spec.iterations, self._quiet)
            with translate_errors(self._work), limit_memory(self._memory_limit), bar as progress:
                trained = self._train(module, method, Timer(), lambda step, _: progress.update(step))
                return cast("DecoderModule", trained)

        def make_fpn() -> Fpn:
            return load_or_train_fpn(self._build(decoder), path, train)

        return self._load_or_compute("fpn outputs", key, layout, fpn_feature_function(self.features, make_fpn, self.device))

    def _load_or_compute(
        self, description: str, key: dict[str, Any], layout: FeatureLayout, compute: FeatureFunction
    ) -> Features:
        spec = self.spec
        return load_or_compute_features(
            description,
            key,
            layout,
            compute,
            DTYPES[spec.dtype],
            cache=spec.cache,
            memory_limit=spec.memory_limit,
            quiet=self._quiet,
        )


def _recorder(losses: list[float], on_step: StepCallback | None) -> StepCallback:
    """Appends the loss of each training step, and then calls `on_step`."""

    def record(step: int, loss: float) -> bool | None:
        losses.append(loss)
        return None if on_step is None else on_step(step, loss)

    return record


def find_device(name: str) -> torch.device:
    """The device of this name; ``auto`` is a GPU if there is one.

    Raises:
        ProxyError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    problem = device_problem(name)
    if problem is not None:
        raise ProxyError(problem)
    return torch.empty(0, device=name).device
