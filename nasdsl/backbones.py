"""Costs and features of backbones, described in the same layers as decoders; torch is not needed.

The modules come from torchvision. Tests compare the layers of both. Models of timm, ``timm:NAME``, are not described: torch
is imported for them, and counts what they do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from nasdsl.layers import Activation, Conv, Cost, Feature, Layer, Norm

StrideIn = Literal["1x1", "3x3"]

TIMM = "timm:"
"""Prefix of the names of timm's models."""


class BackboneLayer(NamedTuple):
    """A layer of a backbone, its input and output, and whether the FCOS recipe trains it."""

    layer: Layer
    operand: Feature
    out: Feature
    trained: bool


class BackboneCost(NamedTuple):
    """Cost of a backbone for one image; `cost.params` counts all parameters, `trainable_params` the trained ones."""

    cost: Cost
    trainable_params: int


@dataclass(frozen=True, slots=True)
class Backbone:
    """Description of a backbone, for decoders and cost tables.

    Attributes:
        name: on the command line.
        out_channels: channels of each feature.
        description: one line for people.
        layers: its convolutions, norms and activations; empty for models of timm.
        norm_frozen: whether its BatchNorms are frozen (not trained, and not counted in the published FLOPs) and its ReLUs are
            functions, which are not counted either.
        pretrained: whether there are ImageNet weights for it.
    """

    name: str
    out_channels: Mapping[str, int]
    description: str
    layers: tuple[BackboneLayer, ...]
    norm_frozen: bool
    pretrained: bool = True

    def cost(self, size: tuple[int, int]) -> BackboneCost:
        """Cost for one image of `size` (height, width).

        Raises:
            UnknownBackbone: a model of timm cannot take images of this size.
        """
        return _timm_cost(self.name, size) if self.name.startswith(TIMM) else _cost(self.name, size)


class UnknownBackbone(ValueError):
    """There is no backbone of this name, or a model of timm cannot be a backbone."""


def backbone(name: str) -> Backbone:
    """The backbone of this name.

    Args:
        name: a name of `BACKBONES`, or ``timm:`` with the name of a model of timm, for which torch is imported.

    Raises:
        UnknownBackbone: there is none; the message lists the names.
    """
    if name.startswith(TIMM):
        return _timm_description(name)
    if name not in BACKBONES:
        raise UnknownBackbone(f"unknown backbone {name!r}; known are {', '.join(BACKBONES)}, and timm:NAME for models of timm")
    return _description(name)


@cache
def _description(name: str) -> Backbone:
    return BACKBONES[name](name)


@cache
def _cost(name: str, size: tuple[int, int]) -> BackboneCost:
    described = _description(name)
    total, trained = Cost(), 0
    for entry in described.layers:
        level = entry.out.level or 0
        area = _map_length(size[0], level) * _map_length(size[1], level)
        cost = entry.layer.cost((entry.operand,), entry.out, area)
        if described.norm_frozen and not isinstance(entry.layer, Conv):
            cost = Cost(0, cost.params, 0)
        total += cost
        trained += cost.params if entry.trained else 0
    return BackboneCost(total, trained)


def _map_length(length: int, level: int) -> int:
    return -(-length // (1 << level))


# ------------------------------------------------------------------------------------------------------- timm


@cache
def _timm_description(name: str) -> Backbone:
    from nasdsl import timm_models

    try:
        found = timm_models.describe(name.removeprefix(TIMM))
    except timm_models.TimmModelError as error:
        raise UnknownBackbone(str(error)) from None
    return Backbone(name, found.channels, f"{found.name} of timm", (), norm_frozen=False, pretrained=found.pretrained)


def _timm_cost(name: str, size: tuple[int, int]) -> BackboneCost:
    from nasdsl import timm_models

    try:
        found = timm_models.cost(name.removeprefix(TIMM), (int(size[0]), int(size[1])))
    except timm_models.TimmModelError as error:
        raise UnknownBackbone(str(error)) from None
    return BackboneCost(Cost(found.macs, found.params, found.macs), found.trainable_params)


# ---------------------------------------------------------------------------------------------------- ResNets


def _resnet(
    name: str, blocks: tuple[int, int, int, int], description: str, groups: int = 1, base: int = 64, stride_in: StrideIn = "1x1"
) -> Backbone:
    """A bottleneck ResNet (arXiv:1512.03385) or ResNeXt (arXiv:1611.05431).

    Args:
        stride_in: the convolution of the bottleneck that has the stride: the first 1x1 (original, and the paper's detectors),
            or the 3x3 (torchvision).
    """

    def layers() -> Iterator[BackboneLayer]:
        yield from _conv_norm(Feature(0, 3), 64, 7, 2, trained=False)
        width, level = 64, 2
        for stage, count in enumerate(blocks):
            inner, out = 64 * 2**stage * base * groups // 64, 256 * 2**stage
            for block in range(count):
                stride = 2 if stage and not block else 1
                first, second = (stride, 1) if stride_in == "1x1" else (1, stride)
                x = Feature(level, width)
                trained = stage > 0
                if not block:
                    yield from _conv_norm(x, out, 1, stride, trained=trained, act=False)
                for channels, k, s, g in ((inner, 1, first, 1), (inner, 3, second, groups), (out, 1, 1, 1)):
                    yield from _conv_norm(x, channels, k, s, g, trained=trained, act=channels != out or k != 1)
                    x = Feature((x.level or 0) + (s > 1), channels)
                width, level = out, x.level or 0

    channels = {f"c{stage + 2}": 256 * 2**stage for stage in range(4)}
    return Backbone(name, channels, description, tuple(layers()), norm_frozen=True)


def _conv_norm(
    x: Feature,
    width: int,
    k: int,
    stride: int = 1,
    groups: int = 1,
    *,
    trained: bool,
    act: bool = True,
    norm_trained: bool = False,
    function: Literal["relu", "relu6"] = "relu",
) -> Iterator[BackboneLayer]:
    conv = Conv(width, k, stride, 1, groups)
    out = conv.infer((x,))
    yield BackboneLayer(conv, x, out, trained)
    yield BackboneLayer(Norm("bn"), out, out, norm_trained)
    if act:
        yield BackboneLayer(Activation(function), out, out, False)


# ------------------------------------------------------------------------------------------------ MobileNetV2

_MOBILENET_V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, width, repeats and first stride of each stage (arXiv:1801.04381, Table 2)."""


def _mobilenet_v2(name: str) -> Backbone:
    """MobileNetV2 up to ``features.17``, with the outputs of ``features.3/6/13/17`` as c2 … c5.

    Its BatchNorms are trained. The first two modules (1,824 parameters) are not, as in the published parameter counts and as
    the published code freezes the body "at 2".
    """

    def layers() -> Iterator[BackboneLayer]:
        trained = False

        def conv(x: Feature, width: int, k: int, stride: int = 1, groups: int = 1, act: bool = True) -> Iterator[BackboneLayer]:
            return _conv_norm(x, width, k, stride, groups, trained=trained, act=act, norm_trained=trained, function="relu6")

        yield from conv(Feature(0, 3), 32, 3, 2)
        x = Feature(1, 32)
        for stage, (expansion, width, repeats, first) in enumerate(_MOBILENET_V2):
            trained = stage > 0
            for number in range(repeats):
                stride = first if number == 0 else 1
                hidden = x.width * expansion
                if expansion > 1:
                    yield from conv(x, hidden, 1)
                yield from conv(Feature(x.level, hidden), hidden, 3, stride, hidden)
                x = Feature((x.level or 0) + (stride > 1), hidden)
                yield from conv(x, width, 1, act=False)
                x = Feature(x.level, width)

    channels = {"c2": 24, "c3": 32, "c4": 96, "c5": 320}
    return Backbone(name, channels, "MobileNetV2, features 3/6/13/17", tuple(layers()), norm_frozen=False)


# ----------------------------------------------------------------------------------------------------------- tiny

TINY_WIDTHS = (32, 64, 128, 128)
"""Channels of c2 … c5."""


def _tiny(name: str) -> Backbone:
    """A small network that trains from scratch in minutes on a CPU: for demos, tests, and data unlike ImageNet.

    A stem of 16 channels, then for each of c2 … c5 a 3x3 convolution of stride 2 and one of stride 1, each with BatchNorm and
    ReLU.
    """

    def layers() -> Iterator[BackboneLayer]:
        yield from _conv_norm(Feature(0, 3), 16, 3, 2, trained=True, norm_trained=True)
        x = Feature(1, 16)
        for level, width in enumerate(TINY_WIDTHS, 2):
            for stride in (2, 1):
                yield from _conv_norm(x, width, 3, stride, trained=True, norm_trained=True)
                x = Feature(level, width)

    channels = {f"c{level}": width for level, width in enumerate(TINY_WIDTHS, 2)}
    description = "nine 3x3 convolutions, to be trained from scratch"
    return Backbone(name, channels, description, tuple(layers()), norm_frozen=False, pretrained=False)


BACKBONES = {
    "resnet50": lambda name: _resnet(name, (3, 4, 6, 3), "ResNet-50, stride in the bottleneck's first 1x1 (the paper's)"),
    "resnet50_v1.5": lambda name: _resnet(
        name, (3, 4, 6, 3), "ResNet-50, stride in the bottleneck's 3x3 (torchvision's)", stride_in="3x3"
    ),
    "resnet101": lambda name: _resnet(name, (3, 4, 23, 3), "ResNet-101, stride in the bottleneck's first 1x1 (the paper's)"),
    "resnet101_v1.5": lambda name: _resnet(
        name, (3, 4, 23, 3), "ResNet-101, stride in the bottleneck's 3x3 (torchvision's)", stride_in="3x3"
    ),
    "resnext101_64x4d": lambda name: _resnet(
        name, (3, 4, 23, 3), "ResNeXt-101 64x4d, stride in the 3x3", groups=64, base=4, stride_in="3x3"
    ),
    "mobilenet_v2": _mobilenet_v2,
    "tiny": _tiny,
}
"""Functions that build the description, by name of the backbone."""
