"""The published code's own numbers, reproduced without a name in common: two decoders, every level, every output."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import name_free_weights
import pytest
import torch
from torch import Tensor

import nasdsl
from nasdsl.backends.cost import cost

EXAMPLE = json.loads((Path(__file__).parents[1] / "data" / "published_decoder.json").read_text())
SIZE = tuple(EXAMPLE["image"])
CHANNELS = {f"c{level}": width for level, width in zip(range(2, 6), EXAMPLE["in_channels"], strict=True)}
CLASSES = EXAMPLE["num_classes"]


def summary(x: Tensor) -> list[float]:
    flat = x.flatten()
    return [flat.mean().item(), flat.abs().mean().item(), flat[flat.numel() // 3].item(), flat[-1].item()]


def decoder_of(case: dict[str, Any]) -> nasdsl.Decoder:
    return nasdsl.from_nas_fcos(case["fpn"], case["head"], case["share"], case["width"])


# The published figures are of float32. Ours are computed in float64, so that they are the same on every machine: what is
# left is the rounding of the published ones, 1.33e-4 at the worst place (the boxes of p7, behind an exponential).
BOUNDS = {"published": 1e-4, "random": 1.5e-4}


def outputs(case: dict[str, Any], dtype: torch.dtype) -> dict[tuple[str, str], Tensor]:
    """Every output of a decoder, by name and level."""
    module = decoder_of(case).build(CHANNELS, CLASSES).eval()
    name_free_weights.set_weights(module)
    module = module.to(dtype)
    features = {name: x.to(dtype) for name, x in name_free_weights.features(SIZE, CHANNELS).items()}
    with torch.no_grad():
        pyramid, predictions = module.pyramid(features), module(features)
    assert list(pyramid) == list(predictions) == ["p3", "p4", "p5", "p6", "p7"]
    found = {}
    for level, predicted in predictions.items():
        found["pyramid", level] = pyramid[level]
        found["cls", level] = predicted.cls_logits
        found["reg", level] = predicted.bbox_reg
        found["ctr", level] = predicted.centerness
    return found


@pytest.mark.parametrize(("case", "bound"), list(zip(EXAMPLE["cases"], BOUNDS.values(), strict=True)), ids=BOUNDS)
def test_outputs(case: dict[str, Any], bound: float) -> None:
    for (name, level), found in outputs(case, torch.float64).items():
        assert summary(found) == pytest.approx(case[name][level], abs=bound), (level, name)


@pytest.mark.parametrize("case", EXAMPLE["cases"], ids=["published", "random"])
def test_float32_is_as_exact_as_the_published_figures(case: dict[str, Any]) -> None:
    exact = outputs(case, torch.float64)
    for place, found in outputs(case, torch.float32).items():
        assert summary(found) == pytest.approx(summary(exact[place]), abs=1e-4), place


@pytest.mark.parametrize("case", EXAMPLE["cases"], ids=["published", "random"])
def test_figures(case: dict[str, Any]) -> None:
    table = cost(decoder_of(case).lower(CHANNELS), SIZE, CLASSES)
    dead_macs, dead_params = sum(r.macs for r in table.removed), sum(r.params for r in table.removed)
    assert [f"c{2 + i} adapter" for i in case["unused_inputs"]] == [r.name for r in table.removed]
    assert (dead_macs, dead_params) == (case["dead_macs"], case["dead_params"])
    assert table.fpn.params + dead_params == case["params_fpn"]
    assert table.head.params == case["params_head"]
    assert table.decoder.macs + dead_macs == case["macs"]
