"""The maps of a frozen backbone for every picture and its mirror image, and all that they depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nasdsl.data import Dataset, Transform, UnreadableImage
from nasdsl.detection.backbones import BackboneError, FeatureExtractor, make_backbone
from nasdsl.detection.detector import DetectorError
from nasdsl.detection.factory import load_detector
from nasdsl.training.proxy.cache import Compute
from nasdsl.training.proxy.errors import ProxyError
from nasdsl.training.proxy.features import Layout, Level, Maps, Size
from nasdsl.training.proxy.spec import ProxySpec

_SEEN = 4
"""Of pictures that are in no file, the pixels of so many are looked at."""


def frozen_backbone(spec: ProxySpec) -> FeatureExtractor:
    """The backbone of a task, in evaluation mode.

    Raises:
        BackboneError, UnknownBackbone: see `make_backbone`.
        ProxyError: the weights are of a run whose detector has another backbone.
    """
    weights = spec.backbone_weights
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(spec.seed)
        try:
            made = make_backbone(spec.backbone, weights)
        except BackboneError as error:
            if weights is None or not Path(weights).exists():
                raise
            made = _of_run(spec.backbone, weights, error)
    return made.eval().requires_grad_(False)


def _of_run(name: str, weights: str, error: BackboneError) -> FeatureExtractor:
    """The backbone of a trained detector."""
    try:
        found = load_detector(weights).backbone
    except DetectorError:
        raise error from None
    if found.name != name:
        raise ProxyError(f"{weights} has a detector with the backbone {found.name or 'of your own'}; expected {name}")
    return found


def resized_sizes(dataset: Dataset, spec: ProxySpec) -> list[Size]:
    """(H, W) of each picture when it is resized."""
    transform = Transform(spec.size, spec.longest)
    return [transform.output_size(size) for size in dataset.sizes()]


def layout_of(extractor: FeatureExtractor, sizes: Sequence[Size], spec: ProxySpec) -> Layout:
    """Where the maps of pictures of these sizes lie: of each, its pixels padded to the crop and to the coarsest stride.

    Raises:
        ProxyError: the backbone has no such level, or the crop is no multiple of the stride.
    """
    names = spec.levels or tuple(extractor.features)
    unknown = [name for name in names if name not in extractor.out_channels]
    if unknown:
        raise ProxyError(f"levels has {', '.join(unknown)}; {spec.backbone} gives {', '.join(extractor.out_channels)}")
    levels = {name: Level(1 << int(name[1:]), extractor.out_channels[name]) for name in sorted(set(names))}
    stride = max(level.stride for level in levels.values())
    if spec.size % stride:
        raise ProxyError(f"size is {spec.size}; expected a multiple of {stride}, the stride of {max(levels)}")
    extents = [(_multiple(max(h, spec.size), stride), _multiple(max(w, spec.size), stride)) for h, w in sizes]
    return Layout(levels, extents, 2 if spec.mirror else 1)


def backbone_maps(
    dataset: Dataset, extractor: FeatureExtractor, layout: Layout, spec: ProxySpec, device: torch.device
) -> Compute:
    """What computes the maps of a picture."""
    transform = Transform(spec.size, spec.longest)
    extractor = extractor.to(device)

    @torch.no_grad()
    def compute(picture: int) -> Maps:
        image = transform.prepare(dataset[picture]).image.to(device)
        maps: Maps = extractor(normalised(image, extractor, layout.extents[picture], mirror=layout.copies == 2))
        return maps

    return compute


def normalised(image: Tensor, extractor: FeatureExtractor, extent: Size, *, mirror: bool) -> Tensor:
    """[1 or 2, 3, H, W] of `extent`: the picture and its mirror image, padded with the mean colour at the right and bottom."""
    height, width = image.shape[-2:]
    copies = torch.stack([image, image.flip(-1)] if mirror else [image])
    pixels = extractor.normalize(copies)
    return nn.functional.pad(pixels, (0, extent[1] - width, 0, extent[0] - height))


def key_of(dataset: Dataset, extractor: FeatureExtractor, layout: Layout, spec: ProxySpec) -> dict[str, Any]:
    """All that features depend on. Boxes and classes are not part of it: they may be mended without making features anew."""
    return {
        "pictures": content_of(dataset),
        "backbone": spec.backbone,
        "weights": weights_of(extractor),
        "size": spec.size,
        "longest": spec.longest,
        "copies": layout.copies,
        "levels": {name: list(level) for name, level in layout.levels.items()},
        "dtype": spec.dtype,
    }


def content_of(dataset: Dataset) -> str:
    """Hash of the pictures: their files' bytes, wherever these lie, in the order of the data set."""
    hashed, drawn = hashlib.sha256(), 0
    for index in range(len(dataset)):
        hashed.update(repr((dataset.image_id(index), dataset.size(index))).encode())
        file = Path(dataset.file(index))
        if file.is_file():
            with open(file, "rb") as opened:
                hashed.update(hashlib.file_digest(opened, "sha256").digest())
        else:
            hashed.update(dataset.file(index).encode())
            if drawn < _SEEN:
                drawn += 1
                with suppress(UnreadableImage):
                    hashed.update(dataset[index].image.contiguous().numpy().tobytes())
    return hashed.hexdigest()


def weights_of(module: nn.Module) -> str:
    """Hash of all weights and statistics, by name."""
    hashed = hashlib.sha256()
    for name, value in module.state_dict().items():
        hashed.update(f"{name} {value.dtype} {list(value.shape)} ".encode())
        hashed.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def _multiple(length: int, stride: int) -> int:
    return -(-length // stride) * stride
