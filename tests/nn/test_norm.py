"""GroupNorm: equal to torch's, and defined where torch's raises. LayerNorm of maps: equal to torchvision's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import convnext

from nasdsl.nn import GroupNorm, LayerNorm2d


@pytest.mark.parametrize("shape", [(2, 64, 3, 5), (1, 64, 1, 1), (3, 32, 2, 1)])
def test_equals_torch(shape: tuple[int, ...]) -> None:
    ours, theirs = GroupNorm(32, shape[1]), nn.GroupNorm(32, shape[1])
    for norm in (ours, theirs):
        nn.init.constant_(norm.weight, 1.3)
        nn.init.constant_(norm.bias, -0.2)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), theirs(x))


def test_a_group_of_one_value_is_its_bias() -> None:
    norm = GroupNorm(32, 32)
    nn.init.uniform_(norm.bias)
    x = torch.randn(1, 32, 1, 1, requires_grad=True)
    out = norm(x)
    torch.testing.assert_close(out.flatten(), norm.bias, atol=1e-4, rtol=0)
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() < 1e-3  # 0 up to rounding


@pytest.mark.parametrize("shape", [(2, 48, 3, 5), (1, 7, 1, 1)])
def test_layer_norm_of_maps(shape: tuple[int, ...]) -> None:
    ours, theirs = LayerNorm2d(shape[1]), convnext.LayerNorm2d(shape[1])
    for norm in (ours, theirs):
        nn.init.constant_(norm.weight, 1.3)
        nn.init.constant_(norm.bias, -0.2)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours(x.to(memory_format=torch.channels_last)), theirs(x))
    mean, variance = x.mean(1, keepdim=True), x.var(1, correction=0, keepdim=True)
    torch.testing.assert_close(ours(x), (x - mean) / (variance + 1e-5).sqrt() * 1.3 - 0.2)
