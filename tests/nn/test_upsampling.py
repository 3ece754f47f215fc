"""Layers that lead to finer maps, against loops over pixels and torch's own modules."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasdsl.layers import Carafe as CarafeLayer
from nasdsl.layers import Feature, UpConv
from nasdsl.nn import Carafe, PixelShuffle, UpConv2d


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def scattered(x: Tensor, weight: Tensor, stride: int, padding: int, size: tuple[int, int]) -> Tensor:
    """A transposed convolution as it is defined: each pixel adds its kernel, times its value, to the result."""
    n, _, height, width = x.shape
    _, out_channels, k, _ = weight.shape
    canvas = x.new_zeros(n, out_channels, height * stride + 2 * k, width * stride + 2 * k)
    for i in range(height):
        for j in range(width):
            added = torch.einsum("nc,cokl->nokl", x[:, :, i, j], weight)
            canvas[:, :, i * stride : i * stride + k, j * stride : j * stride + k] += added
    return canvas[:, :, padding : padding + size[0], padding : padding + size[1]]


@pytest.mark.parametrize(("k", "stride"), [(2, 2), (3, 2), (4, 2), (7, 2), (4, 4), (5, 4)])
def test_a_transposed_convolution_is_that_of_a_loop(k: int, stride: int) -> None:
    module, x = UpConv2d(3, 2, k, stride, bias=False).double(), noise(2, 3, 4, 5)
    for size in ((4 * stride, 5 * stride), (4 * stride - 1, 5 * stride - stride + 1)):
        expected = scattered(x, module.weight.detach(), stride, (k - stride + 1) // 2, size)
        torch.testing.assert_close(module(x, size).detach(), expected)
    layer = UpConv(2, k, stride)
    assert (layer.padding, layer.output_padding) == (module.padding[0], module.output_padding[0])


def test_the_size_of_an_odd_map_is_met_by_cutting() -> None:
    module, x = UpConv2d(4, 6, 2, 2), noise(1, 4, 7, 3).float()
    plain = nn.ConvTranspose2d(4, 6, 2, 2)
    plain.load_state_dict(module.state_dict())
    assert torch.equal(module(x, (13, 6)), plain(x)[:, :, :13])
    assert torch.equal(PixelShuffle(2)(x, (13, 5)), nn.PixelShuffle(2)(x)[:, :, :13, :5])


def reassembled(x: Tensor, kernels: Tensor, factor: int, k: int) -> Tensor:
    """CARAFE's equations, pixel by pixel: X'(i', j') = sum over the k x k places around (i' / factor, j' / factor) of W X.

    Args:
        kernels: [N, k * k, factor * H, factor * W]; those of a pixel sum to 1.
    """
    n, channels, height, width = x.shape
    out = x.new_zeros(n, channels, height * factor, width * factor)
    for i in range(height * factor):
        for j in range(width * factor):
            for tap in range(k * k):
                row, column = i // factor + tap // k - k // 2, j // factor + tap % k - k // 2
                if 0 <= row < height and 0 <= column < width:
                    out[:, :, i, j] += kernels[:, tap, i, j, None] * x[:, :, row, column]
    return out


@pytest.mark.parametrize(("factor", "k", "encoder_k"), [(2, 5, 3), (2, 3, 1), (4, 1, 3)])
def test_carafe_is_that_of_a_loop(factor: int, k: int, encoder_k: int) -> None:
    module, x = Carafe(6, factor, k, encoder_k, compressed=4).double(), noise(2, 6, 4, 5)
    logits = F.conv2d(module.compress(x), module.encode.weight, module.encode.bias, padding=encoder_k // 2)
    kernels = F.pixel_shuffle(logits, factor).softmax(dim=1)
    assert kernels.shape == (2, k * k, 4 * factor, 5 * factor)
    expected = reassembled(x, kernels.detach(), factor, k)
    torch.testing.assert_close(module(x, (4 * factor, 5 * factor)).detach(), expected)
    size = (4 * factor - 1, 5 * factor - factor + 1)
    torch.testing.assert_close(module(x, size).detach(), expected[:, :, : size[0], : size[1]])


def test_carafe_of_a_constant_map_is_constant_where_no_border_is_near() -> None:
    out = Carafe(3, 2, 5)(torch.ones(1, 3, 12, 12), (24, 24))
    torch.testing.assert_close(out[:, :, 4:-4, 4:-4], torch.ones(1, 3, 16, 16))


def test_the_costs_of_carafe_are_the_papers() -> None:
    """Section 3.3: 2 (C + 1) Cm + 2 (Cm k_enc^2 + 1) s^2 k_up^2 + 2 s^2 k_up^2 C operations for each position, of which two
    make a multiply-accumulate, and the terms + 1 are biases."""
    width, compressed, encoder_k, k, factor, area = 256, 64, 3, 5, 2, 7 * 9
    found = CarafeLayer().cost([Feature(5, width)], Feature(4, width), area)
    macs = width * compressed + compressed * encoder_k**2 * factor**2 * k**2 + factor**2 * k**2 * width
    biases = compressed + factor**2 * k**2
    assert found.macs == area * macs
    assert found.published_flops == area * (macs + biases)
    assert found.params == sum(p.numel() for p in Carafe(width).parameters()) == 74_148
    assert math.isclose(found.params, 74e3, rel_tol=0.01), "the paper says 74 K parameters for one CARAFE"
