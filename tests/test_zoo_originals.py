"""Decoders of the zoo beside the same decoders written once more from their papers: parameters, MACs, outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import zoo_originals
import zoo_space_originals
from torch_layers import Layers, Reference, copy_weights, count, maps, randomize, weighted_modules

import nasdsl
from nasdsl.backbones import backbone
from nasdsl.spaces import load_space

GENOTYPES = Path(__file__).parents[1] / "genotypes"
WIDTHS = {
    "panet": 256,
    "carafe_fpn": 256,
    "asff": 256,
    "bfp": 256,
    "hrfpn": 256,
    "yolof": 512,
    "rtdetr": 256,
    "sepc": 256,
    "atss": 256,
    "gfl": 256,
    "tood": 256,
    "efficientdet_d0": 64,
    "dyhead": 256,
}
SIZE = (768, 1024)  # whole at every level: papers do not say how maps with odd sides are rounded


@pytest.mark.parametrize("name", WIDTHS)
def test_figures(name: str) -> None:
    """Parameters and multiply-accumulates as torch counts them."""
    found = nasdsl.load(GENOTYPES / f"{name}.nas").cost(SIZE).decoder
    reference: Reference = getattr(zoo_originals, name)
    assert (found.params, found.macs) == count(reference, WIDTHS[name], backbone("resnet50").out_channels, SIZE)


@pytest.mark.parametrize("name", WIDTHS)
@torch.no_grad()
def test_outputs(name: str) -> None:
    """With the same weights, in the order of execution, pyramid and predictions are the same; at a quarter of the width."""
    decoder = nasdsl.load(GENOTYPES / f"{name}.nas").with_width(WIDTHS[name] // 4)
    channels = {feature.name: 32 for feature in decoder.architecture.inputs}
    features = maps(channels, (128, 128))
    module = decoder.build(channels, 80).eval()
    randomize(module)
    reference: Reference = getattr(zoo_originals, name)
    layers = Layers(WIDTHS[name] // 4)
    reference(layers, features)
    copy_weights(weighted_modules(module, lambda: module(features)), list(layers.made))
    layers.restart()
    expected = reference(layers, features)
    predictions = module(features).values()
    found = [*module.pyramid(features).values(), *(part for p in predictions for part in p if part is not None)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["opanas", "auto_fpn", "spine"])
@pytest.mark.parametrize("seed", [0, 1, 2])
@torch.no_grad()
def test_fillings(name: str, seed: int) -> None:
    """Pyramids of samples, made from their decisions alone: parameters, and all maps."""
    space = load_space(GENOTYPES / "spaces" / f"{name}.nas")
    text = next(text for text in space.samples(50, seed=seed) if space.figures(text.indices).dangling == 0)
    decoder = nasdsl.loads(text)
    channels = {feature.name: 32 for feature in decoder.architecture.inputs}
    features = maps(channels, (128, 128))
    module = decoder.build(channels, 2).eval()
    randomize(module)
    layers = Layers(64)
    original = getattr(zoo_space_originals, name)
    original(layers, features, list(text.indices))
    copy_weights(weighted_modules(module, lambda: module.pyramid(features)), list(layers.made))
    layers.restart()
    expected = original(layers, features, list(text.indices))
    assert sum(p.numel() for p in module.fpn.parameters()) == sum(p.numel() for p in layers.parameters())
    for ours, theirs in zip(module.pyramid(features).values(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_carafe_costs_what_its_paper_says() -> None:
    """74 K parameters more than a plain interpolation, and 199 K operations for each position that comes in."""
    plain, ours = (nasdsl.load(GENOTYPES / f"{name}.nas").cost(SIZE).fpn for name in ("fcos", "carafe_fpn"))
    positions = SIZE[0] * SIZE[1] * (1 / 32**2 + 1 / 16**2)
    assert (ours.params - plain.params) / 2 == pytest.approx(74_000, abs=500)
    assert 2 * (ours.published_flops - plain.published_flops) / positions == pytest.approx(199_000, abs=500)
