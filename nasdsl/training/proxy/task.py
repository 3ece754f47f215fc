"""A decoder's text in, its reward out."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import torch
from torch import nn

from nasdsl.backends.module import DecoderModule, Fpn
from nasdsl.data import open_dataset
from nasdsl.data.seeds import mixed_seed
from nasdsl.decoder import Decoder, loads
from nasdsl.detection.detector import Method
from nasdsl.training.proxy.adaptation import Batches, Clocks, Report, adapt, measure, method_of, verdicts
from nasdsl.training.proxy.cache import Compute, Telling, digest_of, folder_of, make_features
from nasdsl.training.proxy.crops import Cropping, TargetStore, objects_of, split
from nasdsl.training.proxy.errors import ProxyError
from nasdsl.training.proxy.extraction import backbone_maps, frozen_backbone, key_of, layout_of, resized_sizes
from nasdsl.training.proxy.features import Features, Layout, Size
from nasdsl.training.proxy.latency import random_features, seconds_of
from nasdsl.training.proxy.memory import bounded, keep_freed, limit_now
from nasdsl.training.proxy.pyramid import kept_fpn, objects_key, pyramid_layout, pyramid_maps
from nasdsl.training.proxy.scoring import average_precision
from nasdsl.training.proxy.spec import DTYPES, ProxySpec

_WEIGHTS: Final = 3
"""What the seed is for, besides the split and the order of crops."""
_LEARNING: Final = (
    "iterations", "batch_size", "learning_rate", "average", "val_share", "seed", "precision", "channels_last"
)  # fmt: skip
"""Settings that trained weights depend on, besides the features."""


@dataclass(frozen=True)
class Scored:
    """What a decoder is worth on the proxy task.

    Attributes:
        reward: the higher, the better.
        losses: on meta-val, by name.
        details: ``seconds`` of everything; of the parts ``data`` (crops and targets), ``compute`` (forward, backward,
            optimizer), ``average`` and ``validation``; ``overhead``: the share of the training that is not ``compute``.
    """

    reward: float
    losses: dict[str, float]
    details: dict[str, float]


class ProxyTask:
    """Trains a decoder shortly on cached features of meta-train, and scores it on meta-val.

    Making one makes the features, unless they are in the cache already. Same seed, same machine and same number of threads:
    on a CPU the same reward, bit for bit; crops and their order are the same for every text. Pickled, it is its `spec`: the
    process that gets it makes the task itself, from the cache.

    Crops of training begin at random multiples of the coarsest stride; those of meta-val are the middle ones. Both rewards
    are of these crops.

    Attributes:
        spec: what it does.
        device: where.
        classes, category_ids: of the data.
        features: what decoders are trained on.
        train, val: numbers of the pictures of meta-train and meta-val.

    Raises:
        ProxyError: the features cannot be had.
        DataError, BackboneError, UnknownBackbone: see `open_dataset` and `make_backbone`.
    """

    def __init__(self, spec: ProxySpec, *, quiet: bool = False) -> None:
        self.spec, self._quiet = spec, quiet
        self.device = _device(spec.device)
        dataset = open_dataset(spec.data, spec.split)
        self.classes, self.category_ids = dataset.classes, dataset.category_ids
        extractor, sizes = frozen_backbone(spec), resized_sizes(dataset, spec)
        self._in_channels = extractor.out_channels
        layout = layout_of(extractor, sizes, spec)
        self._key = key_of(dataset, extractor, layout, spec)
        compute = backbone_maps(dataset, extractor, layout, spec, self.device)
        self.features = self._made(f"features of {dataset.name}", self._key, layout, compute)
        readable = [picture for picture in range(len(dataset)) if picture not in self.features.skipped]
        if len(readable) < 2:
            raise ProxyError(f"{dataset.name} has {len(readable)} readable pictures; meta-train and meta-val need one each")
        self.train, self.val = split(readable, spec.val_share, spec.seed)
        self._objects = objects_of(dataset, sizes)
        self._store = TargetStore(self._objects, sizes, spec.size)
        keep_freed(self.device)
        self._limit = limit_now(self.device)
        self._fpn: str | None = None
        if spec.fpn is not None:
            decoder = self._load(spec.fpn)
            self.features = self._pyramids(decoder)  # trains the fpn on the features that are here now
            self._fpn = decoder.canonical_fpn

    def __reduce__(self) -> tuple[type[ProxyTask], tuple[ProxySpec]]:
        return ProxyTask, (self.spec,)

    def __call__(self, text: str, report: Report | None = None) -> Scored:
        """The reward of a decoder.

        Args:
            text: a decoder without holes, at the widths that it names.
            report: called after each step with its number, from 1, and its loss; True gives the decoder up.

        Raises:
            DiagnosticError, MissingFeature: the text does not check, or does not fit the backbone.
            Diverged: a loss is not finite.
            OutOfMemory: it does not fit into memory. (Without a GPU this is known on Linux only; see `memory`. Elsewhere the
                system may end the process before.)
            Failed: torch cannot run it.
            DeviceLost: the GPU has failed, and this process cannot use it any more.
            Stopped: `report` said so.
            ProxyError: it reads features that are not cached, or has another fpn than the task.
        """
        began, clocks, spec = time.perf_counter(), Clocks(), self.spec
        decoder = self._load(text)
        method = method_of(decoder, spec.method)
        if self._fpn is not None and decoder.canonical_fpn != self._fpn:
            raise ProxyError("the text has another fpn than the one whose pyramid is cached; expected that of ProxySpec.fpn")
        places = [self.cropping.middle(picture) for picture in self.val]
        with verdicts(self._batch), bounded(self._limit):
            module = self._build(decoder)
            trained = self._adapt(module, method, clocks, report)
            with clocks.count("validation"):
                by_batch = [places[i : i + spec.batch_size] for i in range(0, len(places), spec.batch_size)]
                batches = self._batches(module, method).stream(by_batch)
                measured = measure(trained, batches, method, spec, detect=spec.reward == "ap")
        reward = -sum(measured.losses.values())
        if spec.reward == "ap":
            found = [self._store.found_in(place) for place in places]
            reward = average_precision(measured.detections, found, spec.size, self.classes, self.category_ids)
        seconds = time.perf_counter() - began
        overhead = 1 - clocks.spent["compute"] / (seconds - clocks.spent["validation"])
        return Scored(reward, measured.losses, {**clocks.spent, "seconds": seconds, "overhead": overhead})

    def with_fpn(self, text: str) -> ProxyTask:
        """The task of the second stage: heads are trained alone, on the pyramid of this decoder's fpn.

        The fpn is trained as this task trains a decoder, with the text's own head; then its pyramid is computed for every
        picture and its mirror image, and cached like the backbone's features. Texts that are scored must have the same fpn.
        Crops begin at multiples of the pyramid's coarsest stride (128 with p7), so there are fewer of them. Without a cache
        folder, the backbone's features are computed again.

        Raises:
            As `ProxyTask`, and as calling it does.
        """
        return ProxyTask(replace(self.spec, fpn=str(text)), quiet=self._quiet)

    def latency(self, text: str, size: Size) -> float:
        """Seconds that the decoder (fpn and head, without the backbone) takes for one image of `size` (height, width) on
        the task's device: the median of several passes over random features.

        Raises:
            DiagnosticError, MissingFeature: as calling the task.
            OutOfMemory, Failed: it does not fit into memory, or torch cannot run it.
        """
        decoder = self._load(text)
        with verdicts(f"one image of {size[0]}x{size[1]}"), bounded(self._limit):
            module = self._build(decoder)
            channels = {name: self._in_channels[name] for name in module.fpn.input_levels}
            features = random_features(channels, size, self.device, channels_last=self.spec.channels_last)
            return seconds_of(module, features, self.device)

    @property
    def cropping(self) -> Cropping:
        """The crops that there are."""
        layout = self.features.layout
        return Cropping(layout.extents, self.spec.size, layout.stride, layout.copies == 2)

    @property
    def _batch(self) -> str:
        return f"batches of {self.spec.batch_size} crops of {self.spec.size}x{self.spec.size}"

    def _load(self, text: str) -> Decoder:
        return loads(str(text), "the text")

    def _build(self, decoder: Decoder) -> DecoderModule:
        """The module, with weights that text and seed decide."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(mixed_seed(self.spec.seed, _WEIGHTS))
            module = decoder.build(self._in_channels, len(self.classes))
        module = module.to(self.device)
        return module.to(memory_format=torch.channels_last) if self.spec.channels_last else module

    def _adapt(self, module: DecoderModule, method: Method, clocks: Clocks, report: Report | None) -> nn.Module:
        """The decoder, or in the second stage its head, after training."""
        spec = self.spec
        places = self.cropping.draw(self.train, spec.batch_size, spec.iterations, spec.seed)
        batches = self._batches(module, method).stream(places)
        return adapt(module if self._fpn is None else module.head, batches, method, spec, clocks, report)

    def _batches(self, module: DecoderModule, method: Method) -> Batches:
        """What makes batches for this decoder.

        Raises:
            ProxyError: it reads features that are not cached.
        """
        kept = self.features.layout.levels
        names = tuple(module.fpn.input_levels if self._fpn is None else kept)
        missing = [name for name in names if name not in kept]
        if missing:
            raise ProxyError(f"the decoder reads {', '.join(missing)}, and cached are {', '.join(kept)}: add it to levels")
        size, channels_last = self.spec.size, self.spec.channels_last
        return Batches(self.features, self._store, method, names, module.head.strides, size, self.device, channels_last)

    def _pyramids(self, decoder: Decoder) -> Features:
        """The pyramid of a decoder for all pictures."""
        spec, text = self.spec, decoder.source.text
        method = method_of(decoder, spec.method)
        key = {
            "features": self._key,
            "fpn": hashlib.sha256(text.encode()).hexdigest(),
            "boxes": digest_of(objects_key(self._objects)),
            "classes": len(self.classes),
            "method": repr(method),
            **{name: getattr(spec, name) for name in _LEARNING},
        }
        place = folder_of(spec.cache, key) / "fpn.pt" if spec.cache is not None else None
        layout = pyramid_layout(decoder.lower(self._in_channels), self.features.layout)

        def train(module: DecoderModule) -> DecoderModule:
            telling = Telling("training the fpn, steps", spec.iterations, self._quiet)
            with verdicts(self._batch), bounded(self._limit), telling as told:
                return cast("DecoderModule", self._adapt(module, method, Clocks(), lambda step, _: told.advance(step)))

        def fpn() -> Fpn:
            return kept_fpn(self._build(decoder), place, train)

        return self._made("pyramids", key, layout, pyramid_maps(self.features, fpn, self.device))

    def _made(self, what: str, key: dict[str, Any], layout: Layout, compute: Compute) -> Features:
        spec = self.spec
        return make_features(
            what,
            key,
            layout,
            compute,
            DTYPES[spec.dtype],
            folder=spec.cache,
            memory_limit=spec.memory_limit,
            quiet=self._quiet,
        )


def _device(name: str) -> torch.device:
    """
    Raises:
        ProxyError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ProxyError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from None
