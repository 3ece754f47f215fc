"""Dilated depthwise convolutions against torch's own."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import nasdsl
from nasdsl.nn import DilatedDepthwiseConv2d
from nasdsl.nn.depthwise import cpu

FORMATS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}
SHAPES = [(2, 8, 33, 32), (1, 24, 30, 41), (3, 16, 7, 60), (2, 8, 64, 17), (8, 64, 6, 6), (2, 32, 40, 40)]


def pair(channels: int, size: int, dilation: int, bias: bool = True) -> tuple[DilatedDepthwiseConv2d, nn.Conv2d]:
    """Ours and torch's, with the same weights."""
    torch.manual_seed(size * dilation)
    ours = DilatedDepthwiseConv2d(channels, size, dilation, bias)
    theirs = nn.Conv2d(channels, channels, size, 1, ours.padding, dilation, channels, bias)  # type: ignore[arg-type]  # two numbers: torch has a word for a padding too
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def gradients(module: nn.Module, x: Tensor, grad_output: Tensor) -> list[Tensor]:
    """Gradients of the input and the parameters."""
    x = x.detach().requires_grad_()
    return list(torch.autograd.grad(module(x), [x, *module.parameters()], grad_output))


@pytest.mark.parametrize("memory", FORMATS)
@pytest.mark.parametrize(("size", "dilation"), [(3, 2), (3, 3), (3, 7), (5, 2), (5, 3), (5, 6), (7, 2), (9, 3)])
def test_values_and_gradients(size: int, dilation: int, memory: str) -> None:
    for shape in SHAPES:
        ours, theirs = pair(shape[1], size, dilation)
        x = torch.randn(shape).contiguous(memory_format=FORMATS[memory])
        grad_output = torch.randn(shape).contiguous(memory_format=FORMATS[memory])
        if x.numel() >= cpu.MIN_ELEMENTS:
            assert cpu.supports(x, ours.weight, ours.bias, dilation)
        found, expected = ours(x), theirs(x)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert found.is_contiguous(memory_format=FORMATS[memory])
        double = [g.double() for g in gradients(theirs.double(), x.double(), grad_output.double())]
        for one, other in zip(gradients(ours, x, grad_output), double, strict=True):
            assert (one.double() - other).abs().max() <= 1e-5 * other.abs().max()


def test_only_the_gradients_that_are_needed() -> None:
    ours, theirs = pair(16, 5, 2, bias=False)
    x = torch.randn(2, 16, 40, 40)
    found, expected = (torch.autograd.grad(module(x).square().sum(), module.weight) for module in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)
    for module in (ours, theirs):
        module.requires_grad_(False)
    x.requires_grad_()
    torch.testing.assert_close(torch.autograd.grad(ours(x).square().sum(), x), torch.autograd.grad(theirs(x).square().sum(), x))
    assert not ours(x.detach()).requires_grad


def test_second_derivative() -> None:
    ours, theirs = pair(8, 3, 3)
    x = torch.randn(2, 8, 32, 33, requires_grad=True)

    def penalty(module: nn.Module) -> Tensor:
        slope = torch.autograd.grad(module(x).tanh().sum(), x, create_graph=True)[0]
        return slope.square().sum()

    assert cpu.supports(x, ours.weight, ours.bias, 3)
    found = torch.autograd.grad(penalty(ours), [x, ours.weight])
    torch.testing.assert_close(found, torch.autograd.grad(penalty(theirs), [x, theirs.weight]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(1, 8, 4, 4),
        torch.randn(2, 12, 40, 40),
        torch.randn(2, 8, 40, 40, dtype=torch.float64),
        torch.randn(2, 8, 40, 40, device="meta"),
        torch.randn(8, 40, 52),
    ],
    ids=["small", "channels not a multiple of 8", "float64", "meta", "without a batch"],
)
def test_falls_back_to_torch(x: Tensor) -> None:
    ours, theirs = pair(x.shape[-3], 3, 2)
    ours, theirs = ours.to(x.device, x.dtype), theirs.to(x.device, x.dtype)
    assert not cpu.supports(x, ours.weight, ours.bias, 2)
    assert ours(x).shape == theirs(x).shape
    if x.device.type == "cpu":
        assert torch.equal(ours(x), theirs(x))


def test_autocast_falls_back_to_torch() -> None:
    ours, theirs = pair(8, 3, 2)
    x = torch.randn(2, 8, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(x), theirs(x))
        assert ours(x).dtype == torch.bfloat16


def test_export_has_the_convolution() -> None:
    ours, _ = pair(8, 5, 6)
    program = torch.export.export(ours, (torch.randn(2, 8, 40, 40),))
    assert any("conv2d" in str(node.target) for node in program.graph.nodes)


def test_decoders_use_them_for_dilated_depthwise_ops() -> None:
    text = """decoder d {
      input c3
      fpn(width=32, norm=none) { x1 = sep_5x5_d6(sep_3x3_d3(sep_3x3(sep_5x5(c3)))) output p3 = x1 }
      head(width=32, norm=gn, share=0) { conv_3x3(dilation=2) }
      predict fcos()
    }""".replace("conv_3x3(dilation=2)", "wide").replace("decoder d", "op wide(x) = conv(x, k=3, dilation=2)\ndecoder d")
    module = nasdsl.loads(text).build({"c3": 32}, 3)
    found = [m for m in module.modules() if isinstance(m, DilatedDepthwiseConv2d)]
    assert sorted((m.kernel_size[0], m.dilation[0]) for m in found) == [(3, 3), (5, 6)]


def test_memory_formats_and_sizes_mix() -> None:
    ours, theirs = pair(8, 5, 3)
    formats = list(FORMATS.values())
    for of_x, of_grad_output in itertools.product(formats, formats):
        x = torch.randn(2, 8, 37, 35).contiguous(memory_format=of_x)
        grad_output = torch.randn(2, 8, 37, 35).contiguous(memory_format=of_grad_output)
        for one, other in zip(gradients(ours, x, grad_output), gradients(theirs, x, grad_output), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)
