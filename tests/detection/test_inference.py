"""Decoders and detectors optimised for inference: the same outputs with fewer layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

import nasdsl
from nasdsl import resources
from nasdsl.backends import inference
from nasdsl.detection.inference import _tensors_of
from nasdsl.nn.folding import folded

GENOTYPES = sorted(resources.folder("genotypes").glob("*.nas"))
M = TypeVar("M", bound=nn.Module)
WIDTHS = {"c2": 8, "c3": 12, "c4": 16, "c5": 20}


def randomized(module: M) -> M:
    """Randomise norms, and offsets of deformable convolutions, so that all of them affect the output."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | FrozenBatchNorm2d):
            for tensor, low in ((part.weight, 0.5), (part.bias, -0.5), (part.running_mean, -0.5), (part.running_var, 0.5)):
                assert tensor is not None
                tensor.data.uniform_(low, low + 1)
        if isinstance(part, nasdsl.nn.DeformConv2d):
            part.offset.weight.data.normal_(std=0.02)
    return module.eval()


def norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d | FrozenBatchNorm2d) for part in module.modules())


@pytest.mark.parametrize("file", GENOTYPES, ids=lambda file: file.stem)
def test_the_zoo_predicts_the_same(file: Path) -> None:
    decoder = nasdsl.load(file)
    if file.stem != "nas_fcos_128_256":  # which has a width for each section
        decoder = decoder.with_width(32)
    module = randomized(decoder.build(WIDTHS, 5)).double()  # rounding apart, so that the smallest mistake shows
    features = {n: torch.randn(2, c, 64 >> int(n[1]), 96 >> int(n[1])).double() for n, c in WIDTHS.items()}
    before = {name: value.clone() for name, value in module.state_dict().items()}
    fast = inference.for_inference(module)
    with torch.no_grad():
        expected, found = module(features), fast(features)
    for level, prediction in expected.items():
        for one, other in zip(prediction, found[level], strict=True):
            if one is not None:
                torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-9)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(parameter.requires_grad for parameter in fast.parameters())


def test_parts_that_are_none_have_no_tensors() -> None:
    root = nn.Sequential(nn.Conv2d(1, 1, 1))
    root[0].register_module("norm", None)
    tensors = _tensors_of(root)
    assert tensors is not None
    assert {id(tensor) for tensor in tensors} == {id(tensor) for tensor in root.parameters()}
    root[0].register_forward_hook(lambda *_: None)
    assert _tensors_of(root) is None


def test_only_norms_behind_a_convolution_are_folded() -> None:
    module = nasdsl.load(resources.folder("genotypes") / "nas_fcos.nas").with_width(32).build(WIDTHS, 5)
    fast = inference.for_inference(module)
    # Those of the seven `cat`s stand in front of their convolution.
    assert norms(module) > norms(fast) == 7


def test_a_convolution_with_another_reader_is_not_folded() -> None:
    text = """decoder twice {
      input c3
      fpn(width=32, norm=none, adapter=none) {
        y = conv(c3, k=3, act=none)
        z = norm(y, norm=bn)
        output p3 = add(y, z)
      }
      head(width=32, norm=none, share=0) { conv_3x3 }
      predict fcos(centerness=cls)
    }"""
    decoder = nasdsl.loads(text)
    module = randomized(decoder.build(WIDTHS, 5))
    fast = inference.for_inference(module)
    assert norms(fast) == norms(module)


def same(module: nn.Module, fast: nn.Module) -> None:
    """Check that two decoders of c3 and c4 in float64 predict the same."""
    features = {name: torch.randn(1, WIDTHS[name], 6, 8).double() for name in ("c3", "c4")}
    with torch.no_grad():
        expected, found = module(features), fast(features)
    for level, prediction in expected.items():
        torch.testing.assert_close(found[level].cls_logits, prediction.cls_logits)
        torch.testing.assert_close(found[level].bbox_reg, prediction.bbox_reg)


def test_shared_and_per_level_layers_of_a_head() -> None:
    text = """decoder own {
      input c3, c4
      fpn(width=8, norm=none, adapter=none) { output p3 = conv_3x3(c3), p4 = conv_3x3(c4) }
      head(width=8, norm=bn, share=1) { conv_3x3 -> skip -> conv_3x3 }
      predict fcos(centerness=cls)
    }"""
    module = randomized(nasdsl.loads(text).build(WIDTHS, 5)).double()
    fast = inference.for_inference(module)
    assert (norms(module), norms(fast)) == (6, 0)  # in each tower one for each of two levels, and one for both
    same(module, fast)


def test_a_convolution_is_not_folded_with_norms_of_each_level() -> None:
    text = """decoder own {
      input c3, c4
      fpn(width=8, norm=none, adapter=none) { output p3 = conv_3x3(c3), p4 = conv_3x3(c4) }
      head(width=8, norm=bn, share=1, norms=level) { both: conv_3x3 -> conv_3x3 cls: conv_3x3 }
      predict fcos(centerness=cls)
    }"""
    module = randomized(nasdsl.loads(text).build(WIDTHS, 5)).double()
    fast = inference.for_inference(module)
    assert (norms(module), norms(fast)) == (6, 4)  # those of the layer that each level has for itself are folded
    same(module, fast)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, FrozenBatchNorm2d])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("groups", [1, 4])
def test_one_convolution(norm: Callable[[int], nn.Module], bias: bool, groups: int) -> None:
    pair = randomized(nn.Sequential(nn.Conv2d(8, 12, 3, padding=1, groups=groups, bias=bias), norm(12)))
    x = torch.randn(2, 8, 9, 7)
    model = folded(pair[0], pair[1])
    assert model is not None
    torch.testing.assert_close(model(x), pair(x))


def test_a_norm_without_statistics_is_not_folded() -> None:
    assert folded(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)) is None
    assert folded(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)) is None


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v2", "tiny"])
def test_detectors_have_the_same_detections(backbone: str) -> None:
    decoder = nasdsl.load(resources.folder("genotypes") / "fcos.nas").with_width(32)
    detector = randomized(nasdsl.detector(decoder, backbone, classes=3, seed=0, score_threshold=0.0))
    fast = nasdsl.for_inference(detector)
    assert norms(detector) > norms(fast) == 0
    images = torch.rand(1, 3, 96, 128)
    with torch.no_grad():
        expected = detector.backbone(detector.prepare(images).images)
        found = fast.backbone(fast.prepare(images).images)
        for name, maps in expected.items():
            torch.testing.assert_close(found[name], maps, rtol=1e-4, atol=1e-4 * float(maps.abs().max()))
        scores = [model(images)[0]["scores"] for model in (detector, fast)]
    torch.testing.assert_close(scores[1][:20], scores[0][:20], rtol=1e-3, atol=1e-5)


def test_a_custom_backbone_is_not_modified() -> None:
    body = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.BatchNorm2d(8))

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = body

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            first = self.body[0](x)
            return [self.body[1](first) + first]

    text = (
        "decoder one { input c3\n fpn(width=32, norm=none) { output p3 = conv_3x3(c3) }\n head(width=32, norm=none, share=0) "
    )
    decoder = nasdsl.loads(text + "{ conv_3x3 }\n predict fcos(centerness=cls) }")
    detector = randomized(nasdsl.detector(decoder, nasdsl.FeatureExtractor(Own(), ("c3",)), classes=2, seed=0))
    fast = nasdsl.for_inference(detector)
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(fast.backbone(images)["c3"], detector.backbone(images)["c3"])
    assert norms(fast) == 1
