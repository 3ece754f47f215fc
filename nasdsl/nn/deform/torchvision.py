"""torchvision's deformable convolution, extended by what `nasdsl.nn.deform_conv2d` guarantees: positions in float32 or better,
the output type of autocast, and a second derivative."""

from __future__ import annotations

import torch
from torch import Tensor

from nasdsl.nn.deform.geometry import Geometry
from nasdsl.nn.deform.implementation import Implementation, OptionalTensors
from nasdsl.nn.memory_format import memory_format_of
from nasdsl.nn.precision import accumulation_dtype


def _arguments(operands: OptionalTensors, geometry: Geometry) -> tuple[tuple[Tensor, ...], tuple[int | bool, ...]]:
    """The arguments of torchvision's operators: tensors, then numbers."""
    import torchvision  # noqa: F401  # registers the operators

    x, offset, mask, weight, bias = operands
    assert x is not None
    assert offset is not None
    assert weight is not None
    dtype = accumulation_dtype(x.dtype)
    tensors = (
        x,
        weight,
        offset,
        x.new_zeros(x.shape[0], 1) if mask is None else mask,
        x.new_zeros(weight.shape[0]) if bias is None else bias,
    )
    groups, offset_groups = x.shape[1] // weight.shape[1], offset.shape[1] // (2 * geometry.taps)
    numbers = *geometry.stride, *geometry.padding, *geometry.dilation, groups, offset_groups, mask is not None
    return tuple(t.to(dtype) for t in tensors), numbers


def _forward(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    matmul_dtype: torch.dtype,
) -> Tensor:
    tensors, numbers = _arguments((x, offset, mask, weight, bias), geometry)
    out: Tensor = torch.ops.torchvision.deform_conv2d(*tensors, *numbers)
    dtype = matmul_dtype if bias is None else torch.promote_types(matmul_dtype, bias.dtype)
    return out.to(dtype, memory_format=memory_format_of(x))


def _backward(
    operands: OptionalTensors, grad_output: Tensor, geometry: Geometry, matmul_dtype: torch.dtype, needs_grad: tuple[bool, ...]
) -> OptionalTensors:
    tensors, numbers = _arguments(operands, geometry)
    x, weight, offset, mask, bias = torch.ops.torchvision._deform_conv2d_backward(
        grad_output.to(tensors[0].dtype), *tensors, *numbers
    )
    return tuple(
        gradient.to(operand.dtype) if operand is not None and needed else None
        for gradient, operand, needed in zip((x, offset, mask, weight, bias), operands, needs_grad, strict=True)
    )


deform_conv2d = Implementation(_forward, _backward)
