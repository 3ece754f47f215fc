"""Weights given by shape alone, so that two modules without a name in common compute the same.

Every 4-d convolution weight ``w.flat[i] = sin(0.37 i) / sqrt(in_per_group * kh * kw)`` and its bias ``0.05 cos(i)``; the
convolutions that predict offsets stay zero; norms have weight ``1 + 0.1 sin(i)``, bias ``0.05 cos(i)``, running mean
``0.1 sin(i)``, running variance ``1 + 0.2 cos(i)^2``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def set_weights(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            i = torch.arange(part.weight.numel(), dtype=torch.float64)
            part.weight.copy_(1 + 0.1 * torch.sin(i))
            part.bias.copy_(0.05 * torch.cos(i))
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.copy_(0.1 * torch.sin(i))
                part.running_var.copy_(1 + 0.2 * torch.cos(i) ** 2)
        elif isinstance(part, nn.Conv2d | nn.ConvTranspose2d) and not name.endswith(".offset"):
            weight = part.weight
            i = torch.arange(weight.numel(), dtype=torch.float64)
            weight.copy_((torch.sin(0.37 * i) / math.sqrt(weight[0].numel())).view_as(weight))
            if part.bias is not None:
                part.bias.copy_(0.05 * torch.cos(torch.arange(part.bias.numel(), dtype=torch.float64)))


def features(size: tuple[int, int], channels: dict[str, int], batch: int = 1) -> dict[str, Tensor]:
    """``c_l.flat[i] = sin(0.1 i + l)`` for each level of an image of `size`."""
    made = {}
    for name, width in channels.items():
        level = int(name[1:])
        shape = (batch, width, -(-size[0] // 2**level), -(-size[1] // 2**level))
        made[name] = torch.sin(0.1 * torch.arange(math.prod(shape), dtype=torch.float64) + level).float().view(shape)
    return made
