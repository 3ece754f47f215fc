"""GroupNorm of channels-last maps on a GPU with Triton kernels.

Torch's own GroupNorm copies such maps to channels-first format, and under autocast to float32 before; these kernels read them
as they are, and compute in float32 or better. Sums are added in a fixed order, so that results are deterministic.
`nasdsl.nn.group_norm.triton_kernels`, and with it Triton, is imported at the first call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nasdsl.nn.memory_format import memory_format_of
from nasdsl.nn.precision import accumulation_dtype
from nasdsl.nn.triton_launch import check_elements, device_of, next_power_of_2, require_triton

BLOCK = 2048
"""Elements that a program computes at a time: 16 for each of 128 threads."""
MAX_CHANNEL_BLOCK = 64
"""Channels of a program."""
PROGRAMS = 1024
"""Programs that occupy any GPU; the positions of an image are divided among as many as that takes, up to `MAX_PARTS`."""
MAX_PARTS = 64
"""Parts of an image, whose sums one program adds up."""
SUMS = 1024
"""Sums of parts and channels of a group that a program reads at a time."""


class _Launcher:
    """Launches the kernels for maps of one shape, [N, H, W, C]."""

    def __init__(self, x: Tensor, groups: int) -> None:
        require_triton()
        from nasdsl.nn.group_norm import triton_kernels

        self.kernels = triton_kernels
        self.n, height, width, self.channels = x.shape
        self.positions, self.groups, self.dtype = height * width, groups, accumulation_dtype(x.dtype)
        channel_block = min(MAX_CHANNEL_BLOCK, next_power_of_2(self.channels))
        block = BLOCK // channel_block
        blocks = -(-self.channels // channel_block)
        total = -(-self.positions // block)
        tiles = -(-total // min(total, MAX_PARTS, -(-PROGRAMS // (self.n * blocks))))
        self.parts = -(-total // tiles)
        self.numbers = self.positions, self.parts, tiles
        self.grid = (self.n * self.parts * blocks,)
        constants = {"C": self.channels, "DTYPE": triton_kernels.DTYPES[self.dtype]}
        self.constants = constants | {"BLOCK": block, "CHANNEL_BLOCK": channel_block}
        self.grouped = self.constants | {"GROUPS": groups}
        per_group = next_power_of_2(self.channels // groups)
        together = max(1, min(MAX_PARTS, SUMS // per_group))
        self.of_groups = constants | {"GROUPS": groups, "PARTS": together, "PER_GROUP_BLOCK": per_group}

    def empty(self, *shape: int, like: Tensor) -> Tensor:
        return torch.empty(shape, dtype=self.dtype, device=like.device)

    def statistics(self, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Mean and the reciprocal of the standard deviation of each group, [N, groups]."""
        sums = self.empty(self.n, self.parts, 2, self.channels, like=x)
        mean, rstd = self.empty(self.n, self.groups, like=x), self.empty(self.n, self.groups, like=x)
        self.kernels.moments[self.grid](x, sums, *self.numbers, **self.constants)
        grid = (self.n * self.groups,)
        self.kernels.statistics[grid](x, sums, mean, rstd, self.positions, self.parts, eps, **self.of_groups)
        return mean, rstd

    def gradients(
        self, x: Tensor, grad_out: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, *, grad_x: bool
    ) -> tuple[Tensor | None, Tensor]:
        """The gradient of x where it is wanted, and those of bias and weight, [2, C]."""
        sums = self.empty(self.n, self.parts, 2, self.channels, like=x)
        self.kernels.gradient_sums[self.grid](x, grad_out, mean, rstd, sums, *self.numbers, **self.grouped)
        of_x = None
        if grad_x:
            of_x, means = torch.empty_like(x), self.empty(self.n, self.groups, 2, like=x)
            grid = (self.n * self.groups,)
            self.kernels.gradient_means[grid](weight, sums, means, self.positions, self.parts, **self.of_groups)
            self.kernels.input_gradient[self.grid](x, grad_out, weight, mean, rstd, means, of_x, *self.numbers, **self.grouped)
        return of_x, sums.sum((0, 1))


class _Function(torch.autograd.Function):
    """The norm; the type of the weights may differ. The derivative of its backward pass is torch's own."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = x.permute(0, 2, 3, 1).contiguous()
        with device_of(x):
            launcher = _Launcher(rows, groups)
            mean, rstd = launcher.statistics(rows, eps)
            out = torch.empty(rows.shape, dtype=dtype, device=x.device)
            launcher.kernels.normalize[launcher.grid](
                rows, weight, bias, mean, rstd, out, *launcher.numbers, **launcher.grouped
            )
        return out.permute(0, 3, 1, 2).contiguous(memory_format=memory_format_of(x)), mean, rstd

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.save_for_backward(*inputs[:3], *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.groups, ctx.eps = inputs[3:5]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> Any:
        (x, weight, bias, mean, rstd), grad_out = ctx.saved_tensors, grad_outputs[0]
        needed = ctx.needs_input_grad[:3]
        if grad_out is None:
            return (None,) * 6
        if torch.is_grad_enabled():
            gradients = _differentiable_gradients(x, weight, bias, grad_out, ctx.groups, ctx.eps, needed)
            return *gradients, None, None, None
        rows, grad_rows = (t.permute(0, 2, 3, 1).contiguous() for t in (x, grad_out))
        with device_of(x):
            launcher = _Launcher(rows, ctx.groups)
            of_x, sums = launcher.gradients(rows, grad_rows, weight, mean, rstd, grad_x=needed[0])
        return (
            None if of_x is None else of_x.permute(0, 3, 1, 2).contiguous(memory_format=memory_format_of(x)),
            sums[1].to(weight.dtype) if needed[1] else None,
            sums[0].to(bias.dtype) if needed[2] else None,
            None,
            None,
            None,
        )


def _differentiable_gradients(
    x: Tensor, weight: Tensor, bias: Tensor, grad_out: Tensor, groups: int, eps: float, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients by torch's own operators."""
    # One operand may have been computed from another: a view of each keeps that computation out of the derivative.
    views = [t.view_as(t) for t in (x, weight, bias)]
    dtype = accumulation_dtype(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        out = torch.group_norm(views[0].to(dtype), groups, views[1].to(dtype), views[2].to(dtype), eps).to(grad_out.dtype)
    inputs = [t for t, wanted in zip(views, needed, strict=True) if wanted]
    gradients = iter(torch.autograd.grad(out, inputs, grad_out, create_graph=True))
    return tuple(next(gradients) if wanted else None for wanted in needed)


def group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """``F.group_norm(x, groups, weight, bias, eps)``; the output has the memory format of `x`.

    Under autocast the output is float32, as torch's.

    Raises:
        ValueError: the maps of an image have 2**31 elements or more.
    """
    check_elements(x)
    autocast = torch.is_autocast_enabled(x.device.type)
    out: Tensor = _Function.apply(x, weight, bias, groups, eps, accumulation_dtype(x.dtype) if autocast else x.dtype)[0]
    return out
