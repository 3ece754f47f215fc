"""Choice of the GPU implementation of a deformable convolution, by `nasdsl.nn.autotune`.

The implementations are "fused" (`nasdsl.nn.deform.fused`), "triton" (`nasdsl.nn.deform.triton`), "torchvision" and "plain" (the
reference). The environment variable NASDSL_DEFORM forces one of these names.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from nasdsl.nn.autotune import Autotuner, Call, Compute, Operands
from nasdsl.nn.deform import fused, reference, torchvision, triton
from nasdsl.nn.deform.implementation import Pair, are_compatible
from nasdsl.nn.precision import allows_tf32
from nasdsl.nn.tracing import is_dispatched_plainly

OFFSET_STD = 2.0
"""Standard deviation of synthetic offsets, in pixels: about what layers learn."""
CHECKED_SIZE = 24
"""Largest height and width of the outputs that are compared with the reference, which may lack memory for larger ones."""

TUNER = Autotuner(
    "deformable convolution",
    "NASDSL_DEFORM",
    {
        "fused": fused.deform_conv2d,
        "triton": triton.deform_conv2d,
        "torchvision": torchvision.deform_conv2d,
        "plain": reference.deform_conv2d,
    },
    packages={"fused": "triton", "triton": "triton", "torchvision": "torchvision"},
)


class DeformCall(Call):
    """Operands are x, offset, mask, weight and bias; arguments are stride, padding and dilation."""

    def size_class(self) -> object:
        x, offset, _, weight, _ = self.shapes
        assert x is not None
        assert offset is not None
        positions = x[0] * offset[2] * offset[3]
        return weight, x[1], offset[1], positions.bit_length(), allows_tf32()

    def small_shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        x, offset, mask, weight, bias = self.shapes
        assert x is not None
        assert offset is not None
        assert weight is not None
        size, out_size = [], []
        for axis, (stride, padding, dilation) in enumerate(zip(*cast("tuple[Pair, Pair, Pair]", self.arguments), strict=True)):
            extent = dilation * (weight[2 + axis] - 1) + 1
            size.append(min(x[2 + axis], extent + stride * (CHECKED_SIZE - 1)))
            out_size.append((size[axis] + 2 * padding - extent) // stride + 1)
        batch = min(x[0], 2)
        of_mask = None if mask is None else (batch, mask[1], *out_size)
        return (batch, x[1], *size), (batch, offset[1], *out_size), of_mask, weight, bias

    def compute(self, compute: Compute, operands: Operands) -> Tensor:
        x, offset, mask, weight, bias = operands
        return compute(x, offset, weight, bias, *self.arguments, mask)

    def fill(self, number: int, tensor: Tensor, generator: torch.Generator) -> None:
        tensor.normal_(generator=generator)
        if number == 1:
            # Never near a whole pixel: the gradient jumps there, and rounding would decide.
            fraction = torch.rand(tensor.shape, generator=generator, device=tensor.device) / 2 + 0.25
            tensor.mul_(OFFSET_STD).round_().add_(fraction)
        elif number == 2:
            tensor.sigmoid_()
        elif number == 3:
            tensor.div_(tensor[0].numel() ** 0.5)


def supports(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are GPU tensors that every implementation supports."""
    return x.is_cuda and all_support(x, offset, mask, weight, bias)


def all_support(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether nothing requires the reference: no tracer, no mode, no deterministic algorithms, no mismatch of shapes."""
    if not are_compatible(x, offset, mask, weight, bias) or torch.are_deterministic_algorithms_enabled():
        return False
    if not is_dispatched_plainly():
        return False
    # Triton kernels do not check bounds. Where shapes do not match, the reference raises the error.
    if offset.dim() != 4 or offset.shape[0] != x.shape[0] or weight.shape[0] % (x.shape[1] // weight.shape[1]):
        return False
    if mask is not None and mask.shape != (x.shape[0], offset.shape[1] // 2, *offset.shape[2:]):
        return False
    return bias is None or bias.shape == weight.shape[:1]


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """`nasdsl.nn.deform_conv2d` for operands that `supports` accepts.

    Raises:
        ValueError: NASDSL_DEFORM is not the name of an implementation.
    """
    operands = x, offset, mask, weight, bias
    return TUNER(DeformCall(operands, (stride, padding, dilation)), operands)
