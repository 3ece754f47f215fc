"""Features of a frozen backbone: how they are computed, and the key of all that they depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nasdsl.data import Dataset, Transform, UnreadableImage
from nasdsl.detection.backbones import BackboneError, FeatureExtractor, make_backbone
from nasdsl.detection.detector import DetectorError
from nasdsl.detection.factory import load_detector
from nasdsl.training.proxy.errors import ProxyError
from nasdsl.training.proxy.feature_batches import FeatureFunction, features_in_batches
from nasdsl.training.proxy.features import FeatureLayout, Level, Maps, Size
from nasdsl.training.proxy.spec import ProxySpec

_HASHED_PICTURES = 4
"""How many pictures' pixels are hashed where pictures are in no file, as synthetic ones."""


def make_frozen_backbone(spec: ProxySpec) -> FeatureExtractor:
    """The backbone of a task, in evaluation mode, without gradients.

    Raises:
        BackboneError, UnknownBackbone: see `make_backbone`.
        ProxyError: the weights are of a run whose detector has another backbone.
    """
    weights = spec.backbone_weights
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(spec.seed)
        try:
            backbone = make_backbone(spec.backbone, weights)
        except BackboneError as error:
            if weights is None or not Path(weights).exists():
                raise
            backbone = _from_run(spec.backbone, weights, error)
    return backbone.eval().requires_grad_(False)


def _from_run(name: str, weights: str, error: BackboneError) -> FeatureExtractor:
    """The backbone of a trained detector; raises `error` if `weights` is no detector either."""
    try:
        backbone = load_detector(weights).backbone
    except DetectorError:
        raise error from None
    if backbone.name != name:
        raise ProxyError(f"{weights} has a detector with the backbone {backbone.name or 'of your own'}; expected {name}")
    return backbone


def resized_sizes(dataset: Dataset, spec: ProxySpec) -> list[Size]:
    """(H, W) of each picture after resizing."""
    transform = _transform(spec)
    return [transform.output_size(size) for size in dataset.sizes()]


def _transform(spec: ProxySpec) -> Transform:
    return Transform(spec.size, spec.longest, spec.image_size)


def make_layout(out_channels: Mapping[str, int], sizes: Sequence[Size], spec: ProxySpec) -> FeatureLayout:
    """The layout of the maps of pictures of these sizes, padded to the crop and to a multiple of the largest stride.

    Args:
        out_channels: of the backbone, by feature.

    Raises:
        ProxyError: the backbone has no such level, or the crop is no multiple of the stride.
    """
    names = spec.levels or tuple(out_channels)
    unknown = [name for name in names if name not in out_channels]
    if unknown:
        raise ProxyError(f"levels has {', '.join(unknown)}; {spec.backbone} gives {', '.join(out_channels)}")
    levels = {name: Level(1 << int(name[1:]), out_channels[name]) for name in sorted(set(names))}
    stride = max(level.stride for level in levels.values())
    if spec.size % stride:
        raise ProxyError(f"size is {spec.size}; expected a multiple of {stride}, the stride of {max(levels)}")
    padded = [(_round_up(max(h, spec.size), stride), _round_up(max(w, spec.size), stride)) for h, w in sizes]
    return FeatureLayout(levels, padded, 2 if spec.mirror else 1)


def backbone_feature_function(
    dataset: Dataset, extractor: FeatureExtractor, layout: FeatureLayout, spec: ProxySpec, device: torch.device
) -> FeatureFunction:
    """A function that computes the maps of pictures."""
    transform = _transform(spec)
    extractor = extractor.to(device)

    def load(picture: int) -> tuple[Tensor, Size]:
        return transform.prepare(dataset[picture]).image, layout.padded_sizes[picture]

    @torch.no_grad()
    def compute(loaded: list[tuple[Tensor, Size]]) -> Maps:
        mirror = layout.copies == 2
        pixels = [preprocess(image.to(device), extractor, size, mirror=mirror) for image, size in loaded]
        maps: Maps = extractor(torch.cat(pixels))
        return maps

    return features_in_batches(load, layout.padded_sizes.__getitem__, compute, device)


def preprocess(image: Tensor, extractor: FeatureExtractor, size: Size, *, mirror: bool) -> Tensor:
    """The normalised picture and, with `mirror`, its mirror image: [1 or 2, 3, H, W], padded at the right and bottom to
    `size` with the mean colour."""
    height, width = image.shape[-2:]
    copies = torch.stack([image, image.flip(-1)] if mirror else [image])
    pixels = extractor.normalize(copies)
    return nn.functional.pad(pixels, (0, size[1] - width, 0, size[0] - height))


def cache_key(dataset: Dataset, extractor: FeatureExtractor, layout: FeatureLayout, spec: ProxySpec) -> dict[str, Any]:
    """All that the features depend on. Boxes and classes are not part of it: they can be corrected without new features."""
    return {
        "pictures": dataset_digest(dataset),
        "backbone": spec.backbone,
        "weights": weights_digest(extractor),
        "size": spec.size,
        "longest": spec.longest,
        "copies": layout.copies,
        "levels": {name: list(level) for name, level in layout.levels.items()},
        "dtype": spec.dtype,
        **({} if spec.image_size is None else {"image_size": list(spec.image_size)}),  # older caches stay valid
    }


def dataset_digest(dataset: Dataset) -> str:
    """SHA-256 of the pictures' files, in the order of the data set, wherever they are stored."""
    sha, hashed = hashlib.sha256(), 0
    for index in range(len(dataset)):
        sha.update(repr((dataset.image_id(index), dataset.size(index))).encode())
        file = Path(dataset.file(index))
        if file.is_file():
            with open(file, "rb") as opened:
                sha.update(hashlib.file_digest(opened, "sha256").digest())
        else:
            sha.update(dataset.file(index).encode())
            if hashed < _HASHED_PICTURES:
                hashed += 1
                with suppress(UnreadableImage):
                    sha.update(dataset[index].image.contiguous().numpy().tobytes())
    return sha.hexdigest()


def weights_digest(module: nn.Module) -> str:
    """SHA-256 of all parameters and buffers with their names."""
    sha = hashlib.sha256()
    for name, value in module.state_dict().items():
        sha.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
        sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
