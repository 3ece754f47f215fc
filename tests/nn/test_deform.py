"""The deformable convolution against torchvision's, which serves as the oracle."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torchvision.ops import deform_conv2d as oracle

from nasdsl.nn import DeformConv2d, deform_conv2d

Case = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, tuple[int, int], tuple[int, int], tuple[int, int]]


def case(seed: int, dtype: torch.dtype = torch.float32, smallest: int = 4) -> Case:
    """Random sizes, strides, paddings, dilations and groups; offsets that leave the map by half its size and more."""
    rng, draw = random.Random(seed), torch.Generator().manual_seed(seed)
    while True:
        offset_groups, groups = rng.randint(1, 4), rng.choice([1, 1, 2])
        channels, out = offset_groups * groups * rng.randint(1, 3), groups * rng.randint(1, 4)
        kernel, stride, padding, dilation = (
            (rng.randint(a, b), rng.randint(a, b)) for a, b in ((1, 4), (1, 3), (0, 3), (1, 3))
        )
        size = rng.randint(smallest, 24), rng.randint(smallest, 24)
        height, width = ((size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1))
        if height >= 1 and width >= 1:
            break
    batch, taps = rng.randint(1, 3), kernel[0] * kernel[1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64).to(dtype)

    x = normal(batch, channels, *size).requires_grad_()
    offset = (normal(batch, 2 * offset_groups * taps, height, width) * max(size) / 2).requires_grad_()
    mask = (
        torch.rand(batch, offset_groups * taps, height, width, generator=draw, dtype=torch.float64).to(dtype).requires_grad_()
    )
    weight = normal(out, channels // groups, *kernel).requires_grad_()
    bias = normal(out).requires_grad_()
    return x, offset, mask, weight, bias, stride, padding, dilation


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-3)).item()


@pytest.mark.parametrize("seed", range(60))
def test_values_and_gradients(seed: int) -> None:
    x, offset, mask, weight, bias, stride, padding, dilation = case(seed)
    found = deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)
    expected = oracle(x, offset, weight, bias, stride, padding, dilation, mask)
    assert found.shape == expected.shape
    assert relative(found, expected) <= 1e-5
    upstream = torch.randn(found.shape, generator=torch.Generator().manual_seed(seed))
    operands = (x, offset, mask, weight, bias)
    ours, theirs = torch.autograd.grad(found, operands, upstream), torch.autograd.grad(expected, operands, upstream)
    for name, a, b in zip(("x", "offset", "mask", "weight", "bias"), ours, theirs, strict=True):
        assert relative(a, b) <= 1e-5, name


@pytest.mark.parametrize("seed", range(8))
def test_without_mask_and_bias(seed: int) -> None:
    x, offset, _, weight, _, stride, padding, dilation = case(seed)
    found = deform_conv2d(x, offset, weight, None, stride, padding, dilation)
    assert relative(found, oracle(x, offset, weight, None, stride, padding, dilation)) <= 1e-5


@pytest.mark.parametrize("seed", range(8))
def test_bfloat16_stays_near(seed: int) -> None:
    """Half precision runs on a CPU (torchvision's does not) and is within 2e-2 of what float32 makes of the same numbers."""
    x, offset, mask, weight, bias, stride, padding, dilation = case(seed, torch.bfloat16)
    found = deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)
    assert found.dtype == torch.bfloat16
    full = [t.detach().float() for t in (x, offset, weight, bias)]
    expected = oracle(*full, stride, padding, dilation, mask.detach().float())
    assert ((found.float() - expected).norm() / expected.norm()).item() <= 2e-2
    found.sum().backward()
    assert offset.grad is not None
    assert torch.isfinite(offset.grad).all()


def test_second_derivative() -> None:
    x, offset, mask, weight, bias, stride, padding, dilation = case(3, torch.float64)
    operands = tuple(t.detach().requires_grad_() for t in (x, offset, mask, weight, bias))

    def function(x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return deform_conv2d(x, offset, weight, bias, stride, padding, dilation, mask)

    assert torch.autograd.gradcheck(function, operands, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, operands, fast_mode=True)


@pytest.mark.parametrize(("k", "stride", "dilation", "groups"), [(3, 1, 1, 1), (3, 2, 1, 2), (5, 1, 2, 1), (1, 1, 1, 1)])
def test_module_starts_as_half_a_convolution(k: int, stride: int, dilation: int, groups: int) -> None:
    """Offsets start at 0 and the mask at 0.5, so a fresh layer is a plain convolution with its weights halved."""
    torch.manual_seed(0)
    layer = DeformConv2d(8, 6, k, stride, dilation, groups, offset_groups=2)
    x = torch.randn(2, 8, 17, 12)
    padding = dilation * (k - 1) // 2
    expected = torch.nn.functional.conv2d(x, layer.weight / 2, layer.bias, stride, padding, dilation, groups)
    assert torch.allclose(layer(x), expected, atol=1e-5)
    assert layer(x).shape[2:] == (-(-17 // stride), -(-12 // stride))


def test_module_uses_offset_and_mask_in_their_order() -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(4, 4, 3, offset_groups=2)
    torch.nn.init.normal_(layer.offset.weight, std=0.5)
    x = torch.randn(1, 4, 9, 9)
    predicted = layer.offset(x)
    offset, mask = predicted[:, :36], predicted[:, 36:].sigmoid()
    assert torch.allclose(layer(x), oracle(x, offset, layer.weight, layer.bias, padding=1, mask=mask), atol=1e-5)


def test_one_pixel_maps() -> None:
    layer = DeformConv2d(4, 4, 3)
    for size in ((1, 1), (1, 7), (7, 1)):
        x, offset = torch.randn(1, 4, *size), torch.randn(1, 18, *size)
        expected = oracle(x, offset, layer.weight, layer.bias, padding=1)
        assert torch.allclose(deform_conv2d(x, offset, layer.weight, layer.bias, padding=(1, 1)), expected, atol=1e-5)
