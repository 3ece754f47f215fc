"""What back ends agree on, checked against torch: costs with the module node for node, the emitted source with the module."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any
from unittest import mock

import name_free_weights
import random_decoders
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import nasdsl
from nasdsl import layers
from nasdsl.backends.cost import CostTable, cost
from nasdsl.backends.module import DecoderModule
from nasdsl.backends.source import emit_source
from nasdsl.ir import Graph

SIZE = (96, 160)
CLASSES = 7


def lowered(text: str) -> tuple[Graph, CostTable]:
    graph = nasdsl.loads(text).lower(random_decoders.CHANNELS)
    return graph, cost(graph, SIZE, CLASSES)


def counted_macs(module: DecoderModule, size: tuple[int, int] = SIZE) -> dict[str, int]:
    """Multiply-accumulates by module path, as torch counts them. Products of matrices (the deformable part) included."""
    features = name_free_weights.features(size, {k: random_decoders.CHANNELS[k] for k in module.fpn.input_levels})
    # Of the kernels for attention on a CPU, torch counts the products of the plain one only.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(features)
    prefix = type(module).__name__ + "."
    found = {}
    for path, ops in counter.get_flop_counts().items():
        assert all(flops % 2 == 0 for flops in ops.values())
        if path.startswith(prefix):
            found[path.removeprefix(prefix)] = sum(ops.values()) // 2
    found[""] = sum(counter.get_flop_counts()["Global"].values()) // 2
    return found


def check_parameters(graph: Graph, table: CostTable, module: DecoderModule) -> None:
    assert sum(p.numel() for p in module.fpn.parameters()) == table.fpn.params
    assert sum(p.numel() for p in module.head.parameters()) == table.head.params
    assert table.decoder.params == sum(p.numel() for p in module.parameters())
    per_value: Counter[str] = Counter()
    modules = dict(module.fpn.named_modules())
    for node in {n.weights: n for n in reversed(graph.nodes)}.values():  # shared weights are those of the first value
        if node.weights in modules and not isinstance(node.layer, layers.Input):
            per_value[node.value.name] += sum(p.numel() for p in modules[node.weights].parameters())
    costs = {n.name: n.params for n in table.nodes}
    assert all(costs[name] == count for name, count in per_value.items())
    assert sum(costs.values()) == table.decoder.params


def check_macs(graph: Graph, table: CostTable, module: DecoderModule) -> None:
    counted = counted_macs(module)
    assert table.decoder.macs == counted[""]
    sizes = {level: -(-SIZE[0] // 2**level) * -(-SIZE[1] // 2**level) for level in range(16)}
    macs: Counter[str] = Counter()
    for node in graph.nodes:
        counted_cost = layers.layer_cost(node.layer, node.operands, node.out, lambda level: sizes.get(level, 1))
        macs[node.weights] += counted_cost.macs
    assert {path: count for path, count in macs.items() if count} == {
        path.removeprefix("fpn."): count
        for path, count in counted.items()
        if path.removeprefix("fpn.") in macs and path.startswith("fpn.") and count
    }
    for name in (p.name for p in graph.head.predictions):
        expected = next(n.macs for n in table.nodes if n.name == name)
        called = [path for path in counted if f"{path}.".startswith(f"head.{name}.")]
        outer = [path for path in called if not any(path.startswith(f"{other}.") for other in called)]
        assert expected == sum(counted[path] for path in outer), name


def check_source(graph: Graph, module: DecoderModule) -> None:
    namespace: dict[str, Any] = {"__name__": "emitted"}
    text = emit_source(graph, CLASSES)
    assert not re.search(r"\b(import|from) nasdsl", text)
    exec(compile(text, "emitted", "exec"), namespace)
    torch.manual_seed(0)
    emitted = namespace["Decoder"]().eval()
    ours, theirs = module.state_dict(), emitted.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[k], theirs[k]) for k in ours), "one seed, one initialisation"
    name_free_weights.set_weights(module)
    emitted.load_state_dict(module.state_dict())
    # Odd sizes and a batch: where maps of neighbouring levels do not divide.
    features = name_free_weights.features((75, 109), {k: random_decoders.CHANNELS[k] for k in module.fpn.input_levels}, 2)
    # The source has the reference implementation of a deformable convolution; the module also has a faster one.
    with torch.no_grad(), mock.patch("nasdsl.nn.deform.cpu.supports", return_value=False):
        expected, found = module(features), emitted(features)
    assert list(expected) == list(found)
    for level in expected:
        for name, a, b in zip(expected[level]._fields, expected[level], found[level], strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.equal(a, b), (level, name)
