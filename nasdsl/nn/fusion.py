"""Learnable scales, weighted fusion, and a container of named layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Group(nn.Module):
    """A container of named layers, without a forward of its own."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


class Scale(nn.Module):
    """A learnable factor per channel, initialised to 1: [N, C, H, W] to [N, C, H, W]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.view(1, -1, 1, 1)


def placewise_add(weights: Tensor, *operands: Tensor) -> Tensor:
    """Sum of operands, each weighted at each position by its channel of the softmax of `weights`, [N, operands, H, W].

    Source: adaptive spatial feature fusion, arXiv:1911.09516, section 3.2.
    """
    parts = torch.softmax(weights, dim=1).chunk(len(operands), dim=1)
    total = operands[0] * parts[0]
    for number in range(1, len(operands)):
        total = total + operands[number] * parts[number]
    return total


class WeightedAdd(nn.Module):
    """Sum of operands of one shape, with learnable non-negative weights that are divided by their sum.

    Source: the fast normalized fusion of EfficientDet, arXiv:1911.09070, section 3.3.
    """

    def __init__(self, operands: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(operands))

    def forward(self, *operands: Tensor) -> Tensor:
        weight = torch.relu(self.weight)
        weight = weight / (weight.sum() + 1e-4)
        total = operands[0] * weight[0]
        for number in range(1, len(operands)):
            total = total + operands[number] * weight[number]
        return total
