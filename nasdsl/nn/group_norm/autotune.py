"""Choice of the GPU implementation of a GroupNorm, by `nasdsl.nn.autotune`.

The implementations are "triton" (`nasdsl.nn.group_norm.triton`) and "plain", torch's own, whose result is copied to the memory
format of the maps. The environment variable NASDSL_GROUP_NORM forces one of these names.
"""

from __future__ import annotations

import torch
from torch import Tensor

from nasdsl.nn.autotune import Autotuner, Call, Compute, Operands
from nasdsl.nn.group_norm import triton
from nasdsl.nn.memory_format import memory_format_of
from nasdsl.nn.tracing import is_dispatched_plainly, is_eager

CHECKED_SIZE = 24
"""Largest height and width of the maps on which results are compared."""


def plain(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """torch's own, in the memory format of `x`."""
    return torch.group_norm(x, groups, weight, bias, eps).contiguous(memory_format=memory_format_of(x))


TUNER = Autotuner(
    "GroupNorm", "NASDSL_GROUP_NORM", {"triton": triton.group_norm, "plain": plain}, packages={"triton": "triton"}
)


class GroupNormCall(Call):
    """Operands are x, weight and bias; arguments are groups and eps."""

    def size_class(self) -> object:
        x, _, _ = self.shapes
        assert x is not None
        return x[1], x[0].bit_length(), (x[2] * x[3]).bit_length()

    def small_shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        x, weight, bias = self.shapes
        assert x is not None
        return (min(x[0], 2), x[1], *(min(length, CHECKED_SIZE) for length in x[2:])), weight, bias

    def compute(self, compute: Compute, operands: Operands) -> Tensor:
        return compute(*operands, *self.arguments)


def supports(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether these are channels-last maps on a GPU that every implementation supports."""
    return x.is_cuda and all_support(x, weight, bias)


def all_support(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether nothing requires torch's own: no tracer, no mode, maps in channels-last format, weights of their own type.

    In channels-first format torch's own copies nothing.
    """
    if weight is None or bias is None or not is_eager((x, weight, bias)) or not is_dispatched_plainly():
        return False
    if any(t.device != x.device or not t.is_floating_point() for t in (x, weight, bias)):
        return False
    if x.dim() != 4 or x.numel() == 0 or x.shape[1] != len(weight) or memory_format_of(x) != torch.channels_last:
        return False
    return weight.dtype == bias.dtype and (weight.dtype == x.dtype or torch.is_autocast_enabled(x.device.type))


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """GroupNorm for operands that `supports` accepts; the output has the memory format of `x`, and the type of torch's own.

    Raises:
        ValueError: NASDSL_GROUP_NORM is not the name of an implementation.
    """
    operands = x, weight, bias
    return TUNER(GroupNormCall(operands, (groups, eps)), operands)
