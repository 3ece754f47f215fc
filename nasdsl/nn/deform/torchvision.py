"""torchvision's deformable convolution, with what `nasdsl.nn.deform_conv2d` promises and that lacks: positions in float32 or
better, autocast's precision of the result, and a second derivative."""

from __future__ import annotations

import torch
from torch import Tensor

from nasdsl.nn.deform.geometry import Geometry
from nasdsl.nn.deform.implementation import Optionals, Way, precise_of
from nasdsl.nn.memory_format import layout_of


def _arguments(operands: Optionals, geometry: Geometry) -> tuple[tuple[Tensor, ...], tuple[int | bool, ...]]:
    """What torchvision's functions take: its operands, and the numbers that follow them."""
    import torchvision  # noqa: F401  # brings the functions along

    x, offset, mask, weight, bias = operands
    assert x is not None
    assert offset is not None
    assert weight is not None
    precise = precise_of(x.dtype)
    given = (
        x,
        weight,
        offset,
        x.new_zeros(x.shape[0], 1) if mask is None else mask,
        x.new_zeros(weight.shape[0]) if bias is None else bias,
    )
    groups, offset_groups = x.shape[1] // weight.shape[1], offset.shape[1] // (2 * geometry.taps)
    numbers = *geometry.stride, *geometry.padding, *geometry.dilation, groups, offset_groups, mask is not None
    return tuple(t.to(precise) for t in given), numbers


def _forward(
    x: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Geometry,
    products: torch.dtype,
) -> Tensor:
    operands, numbers = _arguments((x, offset, mask, weight, bias), geometry)
    out: Tensor = torch.ops.torchvision.deform_conv2d(*operands, *numbers)
    dtype = products if bias is None else torch.promote_types(products, bias.dtype)
    return out.to(dtype, memory_format=layout_of(x))


def _gradients(
    operands: Optionals, upstream: Tensor, geometry: Geometry, products: torch.dtype, needed: tuple[bool, ...]
) -> Optionals:
    """Those of x, offset, mask, weight and bias, and None for what is not needed."""
    given, numbers = _arguments(operands, geometry)
    x, weight, offset, mask, bias = torch.ops.torchvision._deform_conv2d_backward(upstream.to(given[0].dtype), *given, *numbers)
    return tuple(
        found.to(operand.dtype) if operand is not None and need else None
        for found, operand, need in zip((x, offset, mask, weight, bias), operands, needed, strict=True)
    )


deform_conv2d = Way(_forward, _gradients)
"""See `Way.__call__`."""
