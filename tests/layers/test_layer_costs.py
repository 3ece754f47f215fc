"""The cost of each layer: parameters and multiply-accumulates as torch has them, "FLOPs" as the paper counts them."""

from __future__ import annotations

from typing import Any

import name_free_weights
import pytest
import random_decoders
import torch
from agreement import CLASSES, SIZE, check_macs, check_parameters, counted_macs, lowered
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nasdsl.backends.module import DecoderModule, build

CALLS = """
conv(c4, k=1)
conv(c4, k=3, bias=false)
conv(c4, k=3, stride=2, dilation=2)
conv(c4, k=3, groups=8, norm=bn)
conv(c4, k=5, groups=width, norm=gn, act=relu)
deform_conv(c4, k=3, offset_groups=2)
deform_conv(c4, k=1, groups=4, bias=false, norm=bn)
norm(c4, norm=bn)
norm(c4, norm=gn)
norm(c4, norm=ln)
relu(c4)
relu6(c4)
silu(c4)
sigmoid(c4)
gelu(c4)
scale(c4)
add(c4, c4)
mul(c4, c4)
max(c4, c4)
mul(c4, 0.5)
weighted_add(c4, c4)
weighted_add(c4, c4, scale(c4))
conv(concat(c4, c4), k=1)
resize(c4, to=c3, mode=nearest)
pool(c4, k=3, stride=2, kind=max)
add(c4, global_pool(c4, kind=avg))
up_conv(c4, k=3)
up_conv(c4, k=4, stride=4, bias=false, norm=bn)
conv(pixel_shuffle(c4), k=1)
carafe(c4, compressed=8)
carafe(c4, factor=4, k=3, encoder_k=1, compressed=4)
attention(c4, heads=4)
attention(c4, heads=2, position=none)
""".strip().splitlines()


class Activations(TorchDispatchMode):
    """Counts the elements of maps that ReLUs make."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if (
            func.overloadpacket in (torch.ops.aten.relu, torch.ops.aten.hardtanh) and out.dim() == 4
        ):  # relu6 is a hardtanh from 0 to 6
            self.elements += out.numel()
        return out


def published_flops(module: DecoderModule) -> int:
    """Multiply-accumulates, and one for each element that a bias or a ReLU makes, two for one of a BatchNorm."""
    more: list[int] = []

    def count(layer: nn.Module, _: object, out: Tensor) -> None:
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if isinstance(bias, Tensor) and isinstance(weight, Tensor) and weight.dim() == 4:
            more.append(out.numel())
        if isinstance(layer, nn.BatchNorm2d):
            more.append(2 * out.numel())

    handles = [layer.register_forward_hook(count) for layer in module.modules()]
    with torch.no_grad(), Activations() as activations:
        module(name_free_weights.features(SIZE, {k: random_decoders.CHANNELS[k] for k in module.fpn.input_levels}))
    for handle in handles:
        handle.remove()
    return counted_macs(module)[""] + activations.elements + sum(more)


@pytest.mark.parametrize("call", CALLS)
def test_the_cost_of_a_layer_is_what_its_module_has_and_does(call: str) -> None:
    text = (
        f"decoder d {{ input c3, c4 fpn(width=32, norm=none, act=none) {{ x = {call} output p3 = conv(x, k=1) }}"
        " head(width=16, norm=none, act=none) { skip } predict fcos }"
    )
    graph, table = lowered(text)
    module = build(graph, CLASSES).eval()
    check_parameters(graph, table, module)
    check_macs(graph, table, module)
    unused = sum(removed.published_flops for removed in table.removed)  # the paper counts the adapter of c3 too
    assert table.decoder.published_flops - unused == published_flops(module)
