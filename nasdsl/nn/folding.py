"""A norm of fixed numbers, folded into the convolution in front of it."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d


def folds(conv: nn.Module | None, norm: nn.Module | None) -> bool:
    """Whether `folded` takes them: a convolution, and behind it a BatchNorm with statistics of its own."""
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
        return False
    return norm.running_mean is not None and norm.running_var is not None and norm.weight is not None


@torch.no_grad()
def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | FrozenBatchNorm2d) -> nn.Conv2d:
    """A convolution (deformable ones as well) that computes what both compute in evaluation mode; they stay as they are.

    ``scale * (w x + b - mean) + bias``, with ``scale = weight / sqrt(var + eps)``, is a convolution with the weights
    ``scale * w`` and the bias ``scale * (b - mean) + bias``; reckoned in float64.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    made, dtype = copy.deepcopy(conv), conv.weight.dtype
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = norm.running_mean.new_zeros(()).double() if conv.bias is None else conv.bias.double()
    made.weight = nn.Parameter((conv.weight.double() * scale.view(-1, 1, 1, 1)).to(dtype), requires_grad=False)
    shifted = scale * (bias - norm.running_mean.double()) + norm.bias.double()
    made.bias = nn.Parameter(shifted.to(dtype), requires_grad=False)
    return made
