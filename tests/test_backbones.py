"""Descriptions of backbones against torchvision's modules: parameters, and multiply-accumulates counted by torch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from nasdsl.backbones import BACKBONES, UnknownBackbone, backbone

SIZE = (96, 160)


def reference(name: str) -> tuple[nn.Module, dict[str, str]]:
    """torchvision's module up to C5, and the names of its features."""
    if name == "mobilenet_v2":
        taps = {f"features.{i}": f"c{level}" for i, level in zip((3, 6, 13, 17), range(2, 6), strict=True)}
        return create_feature_extractor(models.mobilenet_v2(), taps), taps
    plain, _, version = name.partition("_v1.5")
    model = getattr(models, plain)()
    if not version and name.endswith(("50", "101")) and plain == name:  # the original: the stride in the first 1x1
        for module in model.modules():
            if isinstance(module, models.resnet.Bottleneck):
                module.conv1.stride, module.conv2.stride = module.conv2.stride, module.conv1.stride
    taps = {f"layer{i}": f"c{i + 1}" for i in range(1, 5)}
    return create_feature_extractor(model, taps), taps


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.long if n.startswith(("resnext", "resnet101")) else ())
        for n in BACKBONES
        if n not in ("resnet101_v1.5", "tiny")
    ],
)
def test_against_torchvision(name: str) -> None:
    described = backbone(name)
    model, _ = reference("resnet50_v1.5" if name == "resnet50_v1.5" else name)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = model.eval()(torch.zeros(1, 3, *SIZE))
    for key, feature in features.items():
        level = int(key[1:])
        assert feature.shape == (1, described.out_channels[key], -(-SIZE[0] // 2**level), -(-SIZE[1] // 2**level))
    cost = described.cost(SIZE)
    assert cost.cost.macs == counter.get_total_flops() // 2
    assert cost.cost.params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["resnet50", "resnext101_64x4d"])
def test_trained_parameters(name: str) -> None:
    """All convolutions but those of the stem and the first stage; no norms."""
    model, _ = reference(name)
    convs = [(n, m) for n, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    trained = sum(m.weight.numel() for n, m in convs if n != "conv1" and not n.startswith("layer1"))
    assert backbone(name).cost(SIZE).trainable_params == trained


def test_cost_of_the_stride_placement() -> None:
    """The stride in the 3x3 costs 4.01 G more at 1088x800."""
    ours, torchvisions = (backbone(n).cost((800, 1088)).cost.macs for n in ("resnet50", "resnet50_v1.5"))
    assert round((torchvisions - ours) / 1e9, 2) == 4.01


def test_unknown_name() -> None:
    with pytest.raises(UnknownBackbone, match="resnet50"):
        backbone("resnet51")
