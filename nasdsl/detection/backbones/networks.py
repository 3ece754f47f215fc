"""The built-in backbones: torchvision's networks, and a tiny one for training from scratch."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from nasdsl.backbones import TIMM, TINY_WIDTHS, StrideIn, backbone
from nasdsl.detection.backbones.extractor import BackboneError, FeatureExtractor
from nasdsl.detection.backbones.timm import Norms, make_timm_backbone
from nasdsl.detection.backbones.weights import Checkpoint, download, load, read_file, torchvision_names


class Network(NamedTuple):
    """A network of torchvision, and the convolution of its blocks that has the stride."""

    model: str
    stride_in: StrideIn


NETWORKS = {
    "resnet50": Network("resnet50", "1x1"),
    "resnet50_v1.5": Network("resnet50", "3x3"),
    "resnet101": Network("resnet101", "1x1"),
    "resnet101_v1.5": Network("resnet101", "3x3"),
    "resnext101_64x4d": Network("resnext101_64x4d", "3x3"),
    "mobilenet_v2": Network("mobilenet_v2", "3x3"),
}
"""torchvision's networks, by their names in `nasdsl.backbones.BACKBONES`."""


class ResNet(nn.Module):
    """torchvision's ResNet or ResNeXt up to C5, under the same parameter names (arXiv:1512.03385, arXiv:1611.05431)."""

    stages = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))

    def __init__(self, whole: models.ResNet, stride_in: StrideIn) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu, self.maxpool = whole.conv1, whole.bn1, whole.relu, whole.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = whole.layer1, whole.layer2, whole.layer3, whole.layer4
        if stride_in == "1x1":
            for block in self.modules():
                if isinstance(block, Bottleneck):
                    block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[N, 3, H, W] to c2 … c5."""
        c2 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images)))))
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        return {"c2": c2, "c3": c3, "c4": c4, "c5": self.layer4(c4)}


class MobileNetV2(nn.Module):
    """torchvision's MobileNetV2 up to ``features.17``, under the same parameter names (arXiv:1801.04381)."""

    outputs = ((3, "c2"), (6, "c3"), (13, "c4"), (17, "c5"))
    stages: tuple[tuple[str, ...], ...] = tuple(
        tuple(f"features.{i}" for i in numbers) for numbers in ((0,), (1,), range(2, 7), range(7, 14), range(14, 18))
    )
    """The modules that each step of `freeze_at` adds. The published code freezes two modules at 2; from 3 on it is everything
    up to ``c<freeze_at>``, as in a ResNet."""

    def __init__(self, whole: models.MobileNetV2) -> None:
        super().__init__()
        self.features = whole.features[:18]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[N, 3, H, W] to c2 … c5."""
        features, x, start = {}, images, 0
        for last, name in self.outputs:
            for i in range(start, last + 1):
                x = self.features[i](x)
            features[name], start = x, last + 1
        return features


class Tiny(nn.Module):
    """The network ``tiny`` of `nasdsl.backbones`."""

    stages = (("stem",), ("c2",), ("c3",), ("c4",), ("c5",))

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()

        def conv(width: int, out: int, stride: int) -> list[nn.Module]:
            return [nn.Conv2d(width, out, 3, stride, 1, bias=False), norm(out), nn.ReLU(inplace=True)]

        self.stem = nn.Sequential(*conv(3, 16, 2))
        for level, (width, out) in enumerate(zip((16, *TINY_WIDTHS[:-1]), TINY_WIDTHS, strict=True), 2):
            self.add_module(f"c{level}", nn.Sequential(*conv(width, out, 2), *conv(out, out, 1)))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[N, 3, H, W] to c2 … c5."""
        features, x = {}, self.stem(images)
        for name in ("c2", "c3", "c4", "c5"):
            features[name] = x = self.get_submodule(name)(x)
        return features


def make_backbone(
    name: str, weights: str | Path | None = None, *, freeze_at: int | None = None, norm: Norms | None = None
) -> FeatureExtractor:
    """Build a backbone with the features c2 … c5, by its name in `nasdsl.backbones.BACKBONES`, or a model of timm.

    ``resnet50`` and ``resnet101`` have the stride in the first 1x1 convolution of a bottleneck (original, and the paper's
    detectors); ``resnet50_v1.5`` and ``resnet101_v1.5`` in the 3x3, as torchvision's weights were trained. The features of
    ``mobilenet_v2`` are the outputs of ``features.3/6/13/17``. ``tiny`` has no pre-trained weights. ``timm:NAME`` is a model
    of timm; see `make_timm_backbone` for its arguments.

    Args:
        name: of the backbone.
        weights: None (random), ``"imagenet"`` (torchvision's default weights), the name of other weights of torchvision, such
            as ``"IMAGENET1K_V1"``, or the path of a file (see `read_file`).
        freeze_at: the part that is not trained. 0: none; 1: the stem; 2: also the first stage (as in the published detectors;
            MobileNetV2: ``features.0`` and ``features.1``); 3, 4, 5: everything up to c3, c4, c5. Default: 2 with weights, 0
            without.
        norm: ``"frozen"``: BatchNorms are constants; ``"train"``: those outside the frozen part are trained. Default: frozen
            for ResNets with weights, trained otherwise.

    Raises:
        UnknownBackbone: there is no backbone of this name.
        BackboneError: an argument is out of range, or the weights cannot be downloaded, read or loaded.

    Warns:
        UserWarning: the weights were trained with the stride in another convolution.
    """
    if name.startswith(TIMM):
        return make_timm_backbone(name, weights, freeze_at=freeze_at, norm=norm)
    described = backbone(name)
    if weights is not None and not described.pretrained:
        raise BackboneError(f"{name} has no pre-trained weights; weights is {str(weights)!r}, expected None")
    if freeze_at is None:
        freeze_at = 0 if weights is None else 2
    if freeze_at not in range(6):
        raise BackboneError(f"freeze_at is {freeze_at!r}, expected 0 (nothing) to 5 (the whole backbone)")
    if norm is None:
        norm = "frozen" if described.norm_frozen and weights is not None else "train"
    if norm not in ("frozen", "train"):
        raise BackboneError(f"norm is {norm!r}, expected 'frozen' or 'train'")

    norm_layer = FrozenBatchNorm2d if norm == "frozen" else nn.BatchNorm2d
    features = tuple(described.out_channels)
    body, network = _build_body(name, norm_layer), NETWORKS.get(name)
    if weights is None or network is None:
        extractor = FeatureExtractor(body, features, described.out_channels)
    else:
        checkpoint = _read_checkpoint(network, weights)
        loaded = load(body, checkpoint, name)
        if isinstance(body, ResNet) and loaded.stride_in not in (None, network.stride_in):
            _warn_about_stride(name, network, checkpoint, loaded.stride_in)
        extractor = FeatureExtractor(body, features, described.out_channels, loaded.mean, loaded.std)
    extractor.freeze(*(part for stage in body.stages[:freeze_at] for part in stage))
    extractor.name, extractor.freeze_at, extractor.norm = name, freeze_at, norm
    return extractor


def _build_body(name: str, norm: type[nn.Module]) -> ResNet | MobileNetV2 | Tiny:
    """Build the network with random weights."""
    if name not in NETWORKS:
        return Tiny(norm)
    network = NETWORKS[name]
    model = models.get_model(network.model, weights=None, norm_layer=norm)
    return MobileNetV2(model) if network.model == "mobilenet_v2" else ResNet(model, network.stride_in)


def _read_checkpoint(network: Network, weights: str | Path) -> Checkpoint:
    names: Sequence[str] = torchvision_names(network.model)
    if weights == "imagenet" or weights in names:
        return download(network.model, str(weights))
    path = Path(weights).expanduser()
    if not path.exists():
        raise BackboneError(
            f"no weights {str(weights)!r}: there is no such file, and torchvision's for {network.model} are "
            f"{', '.join(names)} ('imagenet' is its default)"
        )
    return read_file(path)


def _warn_about_stride(name: str, network: Network, checkpoint: Checkpoint, stride_in: StrideIn | None) -> None:
    matching = next((n for n, other in NETWORKS.items() if other == Network(network.model, stride_in or "3x3")), None)
    advice = f"; use --backbone {matching} for them" if matching else ""
    warnings.warn(
        f"{checkpoint.origin}: these weights were trained with the stride in the {stride_in}, and {name} has it in the "
        f"{network.stride_in}{advice}",
        UserWarning,
        stacklevel=3,
    )
