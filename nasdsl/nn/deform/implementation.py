"""What the faster ways of a deformable convolution have in common: an autograd function, whose second derivative is the
first one of the definition's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nasdsl.nn.deform import reference
from nasdsl.nn.deform.geometry import Geometry
from nasdsl.nn.memory_format import are_plain

Pair: TypeAlias = tuple[int, int]
Optionals: TypeAlias = tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Way:
    """How it is computed. Operands are x, offset, mask, weight and bias; `products` is what matrix products multiply."""

    forward: Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor | None, Geometry, torch.dtype], Tensor]
    """The result, from the operands, how the taps lie, and `products`."""
    gradients: Callable[[Optionals, Tensor, Geometry, torch.dtype, tuple[bool, ...]], Optionals]
    """Those of the operands, from these, that of the result, how the taps lie, `products`, and which are needed."""

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
        """`nasdsl.nn.deform_conv2d`. The result has the memory format of `x`; under autocast, products are in its precision."""
        device, products = x.device.type, x.dtype
        if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
            products = torch.get_autocast_dtype(device)
        geometry = geometry_of(x, weight, stride, padding, dilation)
        out: Tensor = _Function.apply(x, offset, mask, weight, bias, geometry, products, self)
        return out


def fits(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are tensors of one device, not stand-ins of a tracer, whose channels divide and whose types go together;
    otherwise the definition computes, or says what is wrong."""
    given = [t for t in (x, offset, mask, weight, bias) if t is not None]
    if not are_plain(given) or any(t.device != x.device or not t.numel() for t in given):
        return False
    offset_groups, rest = divmod(offset.shape[1], 2 * weight[0, 0].numel())
    if rest or any(not d or x.shape[1] % d for d in (offset_groups, weight.shape[1])) or not x.is_floating_point():
        return False
    return weight.dtype == x.dtype or torch.is_autocast_enabled(x.device.type)


def geometry_of(x: Tensor, weight: Tensor, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)) -> Geometry:
    """How the taps of `weight` lie on the maps of `x`."""
    return Geometry((x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3]), stride, padding, dilation)


def precise_of(dtype: torch.dtype) -> torch.dtype:
    """What positions are computed in, and sums are added up in, where operands are `dtype`."""
    return dtype if dtype == torch.float64 else torch.float32


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """``total += a @ b``, summed in the precision of `total` where the factors' is lower."""
    if a.dtype == total.dtype:
        torch.addmm(total, a, b, out=total)  # counters of operations know this one, and not `addmm_`
    else:
        total += torch.mm(a, b, out=a.new_empty(total.shape))  # with `out`, autocast leaves it alone


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(*inputs: Any) -> Tensor:
        *operands, way = inputs
        out: Tensor = way.forward(*operands)
        return out

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.how = inputs[5:]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        geometry, products, way = ctx.how
        find = _plain_gradients if torch.is_grad_enabled() else way.gradients
        return *find(ctx.saved_tensors, upstream[0], geometry, products, ctx.needs_input_grad[:5]), None, None, None


def _plain_gradients(
    operands: Optionals, upstream: Tensor, geometry: Geometry, products: torch.dtype, needed: tuple[bool, ...]
) -> Optionals:
    """The same as `Way.gradients`, with a graph behind them."""
    # One operand may have been computed from another. A view of its own for each keeps these ways out of the derivative.
    own = [None if t is None else t.view_as(t) for t in operands]
    x, offset, mask, weight, bias = own
    assert x is not None
    assert offset is not None
    assert weight is not None
    lower = products if products.itemsize == 2 else torch.bfloat16
    with torch.autocast(x.device.type, lower, enabled=products != x.dtype):
        out = reference.deform_conv2d(x, offset, weight, bias, geometry.stride, geometry.padding, geometry.dilation, mask)
    wanted = [t for t, need in zip(own, needed, strict=True) if need and t is not None]
    found = iter(torch.autograd.grad(out, wanted, upstream, create_graph=True))
    return tuple(next(found) if need else None for need in needed)
