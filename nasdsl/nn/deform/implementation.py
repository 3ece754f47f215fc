"""What the faster implementations of deformable convolution share: an autograd function whose second derivative is that of the
reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nasdsl.nn.deform import reference
from nasdsl.nn.deform.geometry import Geometry
from nasdsl.nn.precision import matmul_dtype
from nasdsl.nn.tracing import is_eager

Pair: TypeAlias = tuple[int, int]
OptionalTensors: TypeAlias = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Implementation:
    """An implementation of deformable convolution: its forward and its backward pass.

    Operands are x, offset, mask, weight and bias; `matmul_dtype` is the type of the factors of matrix products.
    """

    forward: Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor | None, Geometry, torch.dtype], Tensor]
    """(x, offset, mask, weight, bias, geometry, matmul_dtype) to the output."""
    backward: Callable[[OptionalTensors, Tensor, Geometry, torch.dtype, tuple[bool, ...]], OptionalTensors]
    """(operands, grad_output, geometry, matmul_dtype, needs_grad) to the gradients of the operands."""

    def __call__(
        self,
        x: Tensor,
        offset: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        mask: Tensor | None = None,
    ) -> Tensor:
        """`nasdsl.nn.deform_conv2d`. The output has the memory format of `x`; matrix products follow autocast."""
        geometry = geometry_of(x, weight, stride, padding, dilation)
        out: Tensor = _Function.apply(x, offset, mask, weight, bias, geometry, matmul_dtype(x), self)
        return out


def are_compatible(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are non-empty eager tensors on one device with channels that divide evenly and matching types.

    Otherwise the reference computes the result, or raises the error.
    """
    given = [t for t in (x, offset, mask, weight, bias) if t is not None]
    if not is_eager(given) or any(t.device != x.device or not t.numel() for t in given):
        return False
    offset_groups, rest = divmod(offset.shape[1], 2 * weight[0, 0].numel())
    if rest or any(not d or x.shape[1] % d for d in (offset_groups, weight.shape[1])) or not x.is_floating_point():
        return False
    return weight.dtype == x.dtype or torch.is_autocast_enabled(x.device.type)


def geometry_of(x: Tensor, weight: Tensor, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)) -> Geometry:
    return Geometry((x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3]), stride, padding, dilation)


def add_matmul(total: Tensor, a: Tensor, b: Tensor) -> None:
    """``total += a @ b``, accumulated in the type of `total` where the factors have a lower precision."""
    if a.dtype == total.dtype:
        torch.addmm(total, a, b, out=total)  # FLOP counters know this function, but not `addmm_`
    else:
        total += torch.mm(a, b, out=a.new_empty(total.shape))  # with `out`, autocast does not change the types


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        *operands, implementation = inputs
        out: Tensor = implementation.forward(*operands)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.settings = inputs[5:]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        geometry, matmul_dtype, implementation = ctx.settings
        backward = _reference_backward if torch.is_grad_enabled() else implementation.backward
        gradients = backward(ctx.saved_tensors, grad_outputs[0], geometry, matmul_dtype, ctx.needs_input_grad[:5])
        return *gradients, None, None, None


def _reference_backward(
    operands: OptionalTensors, grad_output: Tensor, geometry: Geometry, matmul_dtype: torch.dtype, needs_grad: tuple[bool, ...]
) -> OptionalTensors:
    """The same as `Implementation.backward`, but differentiable."""
    # One operand may have been computed from another: a view of each keeps that computation out of the derivative.
    views = [None if t is None else t.view_as(t) for t in operands]
    x, offset, mask, weight, bias = views
    assert x is not None
    assert offset is not None
    assert weight is not None
    autocast_dtype = matmul_dtype if matmul_dtype.itemsize == 2 else torch.bfloat16
    with torch.autocast(x.device.type, autocast_dtype, enabled=matmul_dtype != x.dtype):
        out = reference.deform_conv2d(x, offset, weight, bias, geometry.stride, geometry.padding, geometry.dilation, mask)
    inputs = [t for t, needed in zip(views, needs_grad, strict=True) if needed and t is not None]
    gradients = iter(torch.autograd.grad(out, inputs, grad_output, create_graph=True))
    return tuple(next(gradients) if needed else None for needed in needs_grad)
