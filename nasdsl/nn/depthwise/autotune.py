"""Choice of the GPU implementation of a dilated depthwise convolution, by `nasdsl.nn.autotune`.

The implementations are "triton" (`nasdsl.nn.depthwise.triton`), "space_to_batch" (`nasdsl.nn.depthwise.space_to_batch`) and
"plain", torch's own. The environment variable NASDSL_DEPTHWISE forces one of these names.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from nasdsl.nn.autotune import Autotuner, Call, Compute, Operands
from nasdsl.nn.depthwise import space_to_batch, triton
from nasdsl.nn.tracing import is_dispatched_plainly, is_eager

CHECKED_SIZE = 8
"""Height and width, in pixels beyond the extent of the kernel, of the maps on which results are compared."""


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """torch's own convolution."""
    return F.conv2d(x, weight, bias, 1, dilation * (weight.shape[2] // 2), dilation, len(weight))


# Space to batch is never far behind on a GPU, while torch's own takes up to 60 times as long as copying the maps.
TUNER = Autotuner(
    "dilated depthwise convolution",
    "NASDSL_DEPTHWISE",
    {
        "triton": triton.depthwise_conv2d,
        "space_to_batch": space_to_batch.depthwise_conv2d,
        "plain": plain,
    },
    untimed="space_to_batch",
    packages={"triton": "triton"},
)


class DepthwiseCall(Call):
    """Operands are x, weight and bias; the argument is the dilation."""

    def size_class(self) -> object:
        x, weight, _ = self.shapes
        assert x is not None
        return weight, (x[0] * x[2] * x[3]).bit_length()

    def small_shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        x, weight, bias = self.shapes
        assert x is not None
        assert weight is not None
        (dilation,) = self.arguments
        assert isinstance(dilation, int)
        size = (min(length, dilation * (weight[2] - 1) + CHECKED_SIZE) for length in x[2:])
        return (min(x[0], 2), x[1], *size), weight, bias

    def compute(self, compute: Compute, operands: Operands) -> Tensor:
        return compute(*operands, *self.arguments)


def supports(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> bool:
    """Whether these are GPU tensors that every implementation supports."""
    return x.is_cuda and all_support(x, weight, bias)


def all_support(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether nothing requires torch's own convolution: no tracer, no mode, no mismatch of shapes or types."""
    given = (x, weight) if bias is None else (x, weight, bias)
    if not is_eager(given) or not is_dispatched_plainly() or any(t.device != x.device for t in given):
        return False
    if x.dim() != 4 or x.shape[1] != weight.shape[0] or not x.numel() or not x.is_floating_point():
        return False
    return torch.is_autocast_enabled(x.device.type) or all(t.dtype == x.dtype for t in given)


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """The convolution for operands that `supports` accepts; the output has the memory format of `x`.

    Raises:
        ValueError: NASDSL_DEPTHWISE is not the name of an implementation.
    """
    operands = x, weight, bias
    return TUNER(DepthwiseCall(operands, (dilation,)), operands)
