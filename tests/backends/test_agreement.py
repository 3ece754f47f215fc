"""The back ends against each other and against torch, over the zoo and 300 random decoders.

cost's parameters are the module's, part for part and value for value; cost's multiply-accumulates are those that torch
counts while the module runs, node for node; the emitted source computes what the module computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import name_free_weights
import pytest
import random_decoders
import torch
from agreement import CLASSES, check_macs, check_parameters, check_source, counted_macs, lowered
from zoo_files import ZOO, marks

import nasdsl
from nasdsl import layers
from nasdsl.backends.cost import cost
from nasdsl.backends.module import build
from nasdsl.layers import Cost
from nasdsl.nn.deform.cpu import deform_conv2d

STRIDED = """decoder strided {
  input c3, c4
  fpn(width=32, norm=none, act=none) { output p3 = c3, p4 = conv(c3, k=3, stride=2, norm=bn), p5 = down(c4) }
  head(width=32) { conv_3x3 }
  predict fcos
}"""
"""Strided outputs, which have their own initialization: one with a bias, one without."""


RARE = {
    "a strided output without a bias": "output p3 = c3, p4 = conv(c3, k=3, stride=2, norm=bn)",
    "a pixel shuffle": "output p4 = conv_1x1(pixel_shuffle(conv_1x1(c5, width=64)))",
    "a pooled map in a concatenation": "output p4 = conv_1x1(concat(global_pool(c3, kind=avg), c4))",
    "levels inside of a layer of the head": "output p3 = c3, p4 = c4",
}


def rare(body: str) -> str:
    return (
        "op bounce(x) = up_conv(conv_3x3(up_conv(down(down(x)))))"
        f" decoder d {{ input c3, c4, c5 fpn(width=32, norm=bn) {{ {body} }}"
        " head(width=32) { bounce -> relu } predict fcos }"
    )


def texts() -> list[Any]:
    zoo = [pytest.param(path.read_text(), id=path.stem, marks=marks(path.stem)) for path in ZOO]
    seeds = [(seed, [pytest.mark.long] if seed >= 10 else []) for seed in range(150)]  # the default ones take seconds
    paper = [pytest.param(random_decoders.paper_text(seed), id=f"paper{seed}", marks=marks) for seed, marks in seeds]
    free = [pytest.param(random_decoders.text(seed), id=f"free{seed}", marks=marks) for seed, marks in seeds]
    return [*zoo, *paper, *free, pytest.param(STRIDED, id="strided"), *(pytest.param(rare(RARE[n]), id=n) for n in RARE)]


@pytest.mark.parametrize("text", texts())
def test_cost_agrees_with_the_module_and_the_source(text: str) -> None:
    graph, table = lowered(text)
    torch.manual_seed(0)
    module = build(graph, CLASSES).eval()
    check_parameters(graph, table, module)
    check_macs(graph, table, module)
    check_source(graph, module)


@pytest.mark.parametrize("seed", range(6))
def test_the_fast_deformable_convolution_changes_nothing(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, because random decoders without training make much of the last digit of float32."""
    graph = nasdsl.loads(random_decoders.paper_text(seed).replace("skip(", "dconv_3x3(")).lower(random_decoders.CHANNELS)
    module = build(graph, 3).eval()
    name_free_weights.set_weights(module)
    features = name_free_weights.features((75, 109), {k: random_decoders.CHANNELS[k] for k in module.fpn.input_levels}, 2)
    module, features = module.double(), {name: value.double() for name, value in features.items()}
    calls = []
    monkeypatch.setattr("nasdsl.nn.deform.cpu.MIN_ELEMENTS", 0)
    with torch.no_grad():
        monkeypatch.setattr("nasdsl.nn.deform.cpu.deform_conv2d", lambda *a: calls.append(1) or deform_conv2d(*a))
        fast = module(features)
        monkeypatch.setattr("nasdsl.nn.deform.cpu.supports", lambda *_: False)
        plain = module(features)
    assert calls
    for level in plain:
        for a, b in zip(plain[level], fast[level], strict=True):
            assert a is None or (a - b).abs().max() <= 1e-8 * a.abs().max(), level


def test_shapes_are_the_inferred_ones() -> None:
    """Inferred levels and widths are what tensors turn out to have, at a size that no stride divides.

    A map finer than every input is twice, four times, … the nearest one: nothing tells what was rounded away.
    """
    size = (201, 333)
    for seed in range(40):
        graph = nasdsl.loads(random_decoders.text(seed)).lower(random_decoders.CHANNELS)
        module = build(graph, 3).eval()
        features = name_free_weights.features(size, {k: random_decoders.CHANNELS[k] for k in module.fpn.input_levels})
        finest = min(level for level in module.fpn.input_levels.values() if level is not None)
        width = {node.id: node.out.width for node in graph.nodes}
        with torch.no_grad():
            pyramid = module.pyramid(features)
        for name, value in pyramid.items():
            level = graph.levels[name]
            height, across = (-(-n // 2 ** max(level, finest)) * 2 ** max(0, finest - level) for n in size)
            assert value.shape == (1, width[graph.outputs[name]], height, across)


def test_channels_of_a_layer_of_the_head_are_those_of_its_result() -> None:
    """Also where the block goes on behind the value that it gives."""
    before = "block b(x) -> (y) { y = conv_1x1(x) z = conv_1x1(x, width=64) }\n"
    _, table = lowered(before + STRIDED.replace("{ conv_3x3 }", "{ b }"))
    assert next(row.shape for row in table.nodes if row.name == "cls 0") == (32, None, None)


def test_costs_at_a_size_that_no_stride_divides() -> None:
    """Layers that lead to finer maps are counted for the map that comes in; layers of a head at their own levels."""
    text = """op bounce(x) = add(attention(x, heads=2), up_conv(conv_3x3(down(x)), norm=ln))
    decoder d { input c2, c3, c4, c5
      fpn(width=32, norm=bn) {
        a = sum(up_conv(c5, k=3), carafe(c5, compressed=8))
        b = add(up_conv(a, k=4, groups=8), conv_1x1(pixel_shuffle(conv_3x3(c4, width=64))), up_conv(c4, groups=in, width=in))
        output p3 = b, p4 = attention(a), p5 = c5
      }
      head(width=32, norm=gn, share=1) { bounce -> conv_3x3 -> bounce } predict fcos }"""
    size = (75, 109)
    graph = nasdsl.loads(text).lower(random_decoders.CHANNELS)
    table = cost(graph, size, CLASSES)
    counted = counted_macs(build(graph, CLASSES).eval(), size)
    assert table.decoder.macs == counted[""]
    assert table.head.macs == counted["head"]


@pytest.mark.parametrize(
    ("layer", "broken"),
    [
        (layers.Conv, lambda self, inputs, out, area: Cost(out.width * area, self.width)),
        (layers.DeformConv, lambda self, inputs, out, area: Cost(inputs[0].width * self.width * 9 * area, 0)),
        (layers.Norm, lambda self, inputs, out, area: Cost(0, out.width)),
    ],
)
def test_a_broken_cost_rule_is_seen(layer: type, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "cost", broken)
    graph, table = lowered(random_decoders.paper_text(0))
    module = build(graph, CLASSES).eval()

    def check() -> None:
        check_parameters(graph, table, module)
        check_macs(graph, table, module)

    with pytest.raises(AssertionError):
        check()


def test_a_broken_source_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from nasdsl.backends.source import writer

    right = writer.constructor_call
    monkeypatch.setattr(
        writer, "constructor_call", lambda node: (right(node) or "").replace("dilation=3", "dilation=1") or None
    )
    graph, _ = lowered(
        (Path(__file__).parents[2] / "genotypes" / "nas_fcos.nas").read_text().replace("dconv_3x3", "sep_3x3_d3")
    )
    with pytest.raises((AssertionError, RuntimeError)):
        check_source(graph, build(graph, CLASSES).eval())
