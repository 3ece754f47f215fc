"""Folding BatchNorms with fixed statistics into the convolutions in front of them."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d


def fold(root: nn.Module, pairs: Iterable[tuple[str, str]]) -> None:
    """Fold norms into convolutions in place, where `folded` supports the pair; the norm is replaced by ``nn.Identity``.

    Args:
        root: the module that contains the layers.
        pairs: paths of a layer and of the layer that is its only reader.
    """
    for first, second in pairs:
        conv = folded(root.get_submodule(first), root.get_submodule(second))
        if conv is not None:
            replace_submodule(root, first, conv)
            replace_submodule(root, second, nn.Identity())


def replace_submodule(root: nn.Module, path: str, module: nn.Module) -> None:
    """``root.set_submodule(path, module)``, which torch before 2.5 lacks.

    Args:
        root: a module.
        path: of one of its submodules.
        module: that takes its place.
    """
    parent, _, name = path.rpartition(".")
    setattr(root.get_submodule(parent), name, module)


@torch.no_grad()
def folded(conv: nn.Module, norm: nn.Module) -> nn.Conv2d | None:
    """A new convolution (or deformable convolution) that computes ``norm(conv(x))`` of evaluation mode.

    ``scale * (w x + b - mean) + bias``, with ``scale = weight / sqrt(var + eps)``, is a convolution with the weights
    ``scale * w`` and the bias ``scale * (b - mean) + bias``; computed in float64.

    Returns:
        A module of the type of `conv`, whose parameters need no gradients. None where the layers are not a convolution and a
        BatchNorm, or the norm has no running statistics or no weights.
    """
    if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d | FrozenBatchNorm2d):
        return None
    if norm.running_mean is None or norm.running_var is None or norm.weight is None:
        return None
    out, dtype = copy.deepcopy(conv), conv.weight.dtype
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    shift = norm.bias.double() - scale * norm.running_mean.double()
    if conv.bias is not None:
        shift = shift + scale * conv.bias.double()
    out.weight = nn.Parameter((conv.weight.double() * scale.view(-1, 1, 1, 1)).to(dtype), requires_grad=False)
    out.bias = nn.Parameter(shift.to(dtype), requires_grad=False)
    return out
