"""Offsets of a deformable convolution from another value: where they come from, how they begin, and what they cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import nasdsl
from nasdsl.backends.cost import cost
from nasdsl.backends.module import build
from nasdsl.backends.source import emit_source
from nasdsl.nn import GuidedDeformConv2d

CHANNELS = {"c3": 16, "c4": 24}
BEFORE = """block moved(x) -> (y) {
  o = conv(x, k=3, width=27, norm=none, act=none)
  y = deform_conv(x, offset=o)
}
"""


def decoder(body: str, head: str = "share=1) { moved -> moved }") -> nasdsl.Decoder:
    return nasdsl.loads(
        f"{BEFORE}decoder d {{ input c3, c4 fpn(width=32, norm=bn) {{ {body} }} head(width=32, norm=gn, {head} predict fcos }}"
    )


ALIGNED = (
    "up = resize(c4, to=c3) o = conv(concat(c3, up), k=3, width=54, norm=none, act=none)"
    " a = deform_conv(up, offset=o, offset_groups=2) b = deform_conv(c3, offset=o, offset_groups=2)"
    " output p3 = add(a, b), p4 = c4"
)


def test_what_predicts_offsets_begins_with_zeros_in_the_module_and_in_the_source() -> None:
    """Also in a head, shared or of each level; then the layer is an ordinary convolution with halved weights."""
    graph = decoder(ALIGNED).lower(CHANNELS)
    torch.manual_seed(0)
    module = build(graph, 3)
    names = ["fpn.o.conv", "head.cls.0.p3.moved.o.conv", "head.cls.0.p4.moved.o.conv", "head.cls.1.moved.o.conv"]
    found = {n: p for n, p in module.named_modules() if isinstance(p, nn.Conv2d) and p.out_channels in (27, 54)}
    assert set(names) < set(found)
    assert not any(p.any() for part in found.values() for p in part.parameters())
    torch.manual_seed(0)
    namespace: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(emit_source(graph, 3), "emitted", "exec"), namespace)
    theirs = namespace["Decoder"]().state_dict()
    assert list(theirs) == list(module.state_dict())
    assert all(torch.equal(value, theirs[name]) for name, value in module.state_dict().items())
    part = module.fpn.get_submodule("a.deform_conv")
    assert isinstance(part, GuidedDeformConv2d)
    x = torch.randn(1, 32, 5, 6)
    plain = nn.functional.conv2d(x, part.weight / 2, part.bias, padding=1)
    torch.testing.assert_close(part(x, torch.zeros(1, 54, 5, 6)), plain, atol=1e-5, rtol=1e-5)


def test_both_convolutions_read_one_prediction() -> None:
    module = build(decoder(ALIGNED).lower(CHANNELS), 3).eval()
    features = {"c3": torch.randn(1, 16, 8, 8), "c4": torch.randn(1, 24, 4, 4)}
    before = module.pyramid(features)["p3"]
    with torch.no_grad():
        module.fpn.get_submodule("o.conv").bias.fill_(1.0)
    assert not torch.allclose(before, module.pyramid(features)["p3"])


@pytest.mark.parametrize(("width", "masked"), [(18, False), (27, True)])
def test_the_cost_is_that_of_the_convolution_alone(width: int, masked: bool) -> None:
    body = f"o = conv(c4, k=1, width={width}, norm=none, act=none) x = deform_conv(c4, offset=o, norm=none) output p4 = x"
    table = cost(decoder(body, "share=0) { skip }").lower(CHANNELS), (64, 64), 3)
    (row,) = (row for row in table.nodes if row.name == "x")
    assert (row.macs, row.params) == (32 * 32 * 9 * 16, 32 * 32 * 9 + 32)


def test_the_digest_tells_it_from_a_layer_with_offsets_of_its_own_and_reads_itself() -> None:
    given, own = decoder(ALIGNED), decoder(ALIGNED.replace("offset=o, ", ""))
    assert given.digest != own.digest
    swapped = ALIGNED.replace("deform_conv(up", "deform_conv(x").replace("deform_conv(c3", "deform_conv(up")
    assert decoder(swapped.replace("deform_conv(x", "deform_conv(c3")).digest == given.digest, "a sum commutes"
    assert nasdsl.loads(given.canonical).digest == given.digest
    assert "offset=v" in given.canonical
