"""Norms of fixed numbers, folded into the convolutions in front of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d


def fold(root: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    """Fold norms into convolutions in place, where `folded` can; what was the norm then passes its operand on.

    Args:
        root: what holds the layers.
        pairs: paths of a layer and of one right behind it, which alone reads the first.
    """
    for first, second in pairs:
        made = folded(root.get_submodule(first), root.get_submodule(second))
        if made is not None:
            root.set_submodule(first, made)
            root.set_submodule(second, nn.Identity())


@torch.no_grad()
def folded(conv: nn.Module, norm: nn.Module) -> nn.Conv2d | None:
    """A convolution (deformable ones as well) that computes what both compute in evaluation mode; they stay as they are.

    ``scale * (w x + b - mean) + bias``, with ``scale = weight / sqrt(var + eps)``, is a convolution with the weights
    ``scale * w`` and the bias ``scale * (b - mean) + bias``; reckoned in float64.

    Returns:
        [N, C, H, W] to what `norm` gives for ``conv(x)``, without gradients. None where the layers are no convolution and
        BatchNorm, or the norm has no statistics or weights of its own.
    """
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
        return None
    if norm.running_mean is None or norm.running_var is None or norm.weight is None:
        return None
    made, dtype = copy.deepcopy(conv), conv.weight.dtype
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - scale * norm.running_mean.double()
    if conv.bias is not None:
        shift = shift + scale * conv.bias.double()
    made.weight = nn.Parameter((conv.weight.double() * scale.view(-1, 1, 1, 1)).to(dtype), requires_grad=False)
    made.bias = nn.Parameter(shift.to(dtype), requires_grad=False)
    return made
