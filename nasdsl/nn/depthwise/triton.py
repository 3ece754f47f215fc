"""Dilated depthwise convolution on a GPU with Triton kernels that read and write each map about once.

Channels of a pixel are contiguous; maps in another memory format are copied before and after. Sums are added in a fixed order,
so that results are deterministic. `nasdsl.nn.depthwise.triton_kernels`, and with it Triton, is imported at the first call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nasdsl.nn.memory_format import memory_format_of
from nasdsl.nn.precision import accumulation_dtype, matmul_dtype
from nasdsl.nn.triton_launch import check_elements, device_of, next_power_of_2, require_triton

CHANNEL_BYTES = 128
"""Bytes of a pixel that a program reads: a line of the cache."""
BLOCK, GRADIENT_BLOCK = 1024, 512
"""Elements that a program computes at a time. Of gradients no more than four for each of 128 threads (two in float64): of each
it holds the sums for all taps."""
NUM_WARPS = 4
MAX_REGISTERS = 168
"""Registers of a thread of the convolution. Left to itself ptxas takes fewer, and spills some."""
MAX_TAPS = 25
"""Taps whose gradients a thread has registers for."""
PROGRAMS = 2048
"""Programs that occupy any GPU; the rows of a class are divided among several if there are fewer."""


class _Launcher:
    """Launches the kernels for maps of one shape."""

    def __init__(self, x: Tensor, weight: Tensor, dilation: int) -> None:
        require_triton()
        from nasdsl.nn.depthwise import triton_kernels

        self.kernels = triton_kernels
        self.shape, self.size = x.shape, int(weight.shape[2])
        self.constants = {
            "C": x.shape[1],
            "K": self.size,
            "DILATION": dilation,
            "DTYPE": triton_kernels.DTYPES[accumulation_dtype(x.dtype)],
            "num_warps": NUM_WARPS,
        }
        self.rows = weight.reshape(weight.shape[0], -1).t().contiguous()

    def convolve(self, x: Tensor, bias: Tensor | None, dtype: torch.dtype, *, flipped: bool = False) -> Tensor:
        """The convolution of [N, H, W, C], in `dtype`."""
        out = torch.empty(x.shape, dtype=dtype, device=x.device)
        block, numbers, programs = self._grid(BLOCK, x.element_size())
        self.kernels.convolve[(programs,)](
            x,
            self.rows,
            self.rows if bias is None else bias,
            out,
            *numbers,
            **self.constants,
            **block,
            FLIPPED=flipped,
            BIASED=bias is not None,
            maxnreg=MAX_REGISTERS,
        )
        return out

    def gradients(
        self, x: Tensor, grad_out: Tensor, *, grad_x: bool, grad_bias: bool
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Gradients of x, [N, H, W, C], weight, [K * K, C], and bias, [C]; those of x and bias where they are wanted."""
        tap_rows = self.size if self.size**2 <= MAX_TAPS else max(1, MAX_TAPS // self.size)
        fused = grad_x and tap_rows == self.size
        elements = GRADIENT_BLOCK // 2 if x.dtype == torch.float64 else GRADIENT_BLOCK
        block, numbers, programs = self._grid(elements, x.element_size())
        channels, taps = x.shape[3], self.size**2
        of_x = torch.empty_like(x) if fused else None
        sums = torch.empty(
            programs // -(-channels // block["CHANNEL_BLOCK"]),
            taps + 1,
            channels,
            dtype=accumulation_dtype(x.dtype),
            device=x.device,
        )
        self.kernels.gradients[(programs * -(-self.size // tap_rows),)](
            x,
            self.rows,
            grad_out,
            x if of_x is None else of_x,
            sums,
            *numbers,
            **self.constants,
            **block,
            TAP_ROWS=tap_rows,
            GRAD_X=fused,
            GRAD_BIAS=grad_bias,
        )
        if grad_x and not fused:
            of_x = self.convolve(grad_out, None, x.dtype, flipped=True)
        total = sums[:, : taps + grad_bias].sum(0)
        return of_x, total[:taps], total[taps] if grad_bias else None

    def _grid(self, elements: int, itemsize: int) -> tuple[dict[str, int], tuple[int, ...], int]:
        """Sizes of a program's block, numbers of both kernels, and the number of programs."""
        n, channels, height, width = self.shape
        channel_block = min(CHANNEL_BYTES // itemsize, next_power_of_2(channels))
        pixels = elements // channel_block
        # Rows of a small map stay in the cache in any order.
        classes = min(self.constants["DILATION"], height)
        if -(-height // classes) * width < pixels:
            classes = 1
        total = -(-(-(-height // classes) * width) // pixels)
        programs = n * classes * -(-channels // channel_block)
        tiles = -(-total // min(total, -(-PROGRAMS // programs)))
        parts = -(-total // tiles)
        return {"BLOCK": pixels, "CHANNEL_BLOCK": channel_block}, (height, width, classes, parts, tiles), programs * parts


class _Function(torch.autograd.Function):
    """The convolution; types of operands may differ. The derivative of its backward pass is torch's own."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, dtype: torch.dtype) -> Tensor:
        with device_of(x):
            out = _Launcher(x, weight, dilation).convolve(_rows(x), bias, dtype)
        return _maps(out, x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.dilation, ctx.bias_dtype = inputs[3], None if inputs[2] is None else inputs[2].dtype

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        (x, weight), (grad_out,) = ctx.saved_tensors, grad_outputs
        needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():
            gradients = _differentiable_gradients(x, weight, grad_out, ctx.dilation, ctx.bias_dtype, needed)
            return *gradients, None, None
        grad_x = grad_weight = grad_bias = None
        with device_of(x):
            launcher, grad_rows = _Launcher(x, weight, ctx.dilation), _rows(grad_out)
            if needed[1]:
                grad_x, grad_weight, grad_bias = launcher.gradients(_rows(x), grad_rows, grad_x=needed[0], grad_bias=needed[2])
                grad_weight = grad_weight.t().reshape(weight.shape).to(weight.dtype)
            elif needed[0]:
                grad_x = launcher.convolve(grad_rows, None, x.dtype, flipped=True)
            if needed[2] and grad_bias is None:
                grad_bias = grad_rows.sum((0, 1, 2), dtype=accumulation_dtype(x.dtype))
        return (
            None if grad_x is None else _maps(grad_x, x),
            grad_weight,
            None if grad_bias is None else grad_bias.to(ctx.bias_dtype),
            None,
            None,
        )


def _differentiable_gradients(
    x: Tensor, weight: Tensor, grad_out: Tensor, dilation: int, bias_dtype: torch.dtype | None, needed: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The gradients by torch's own operators, in the type of the output."""
    padding = dilation * (weight.shape[2] // 2)
    found: tuple[Tensor | None, ...] = torch.ops.aten.convolution_backward(
        grad_out,
        x.to(grad_out.dtype),
        weight.to(grad_out.dtype),
        [len(weight)],
        [1, 1],
        [padding, padding],
        [dilation, dilation],
        False,
        [0, 0],
        len(weight),
        list(needed),
    )
    dtypes = x.dtype, weight.dtype, bias_dtype
    return tuple(None if t is None else t.to(dtype) for t, dtype in zip(found, dtypes, strict=True))


def _rows(maps: Tensor) -> Tensor:
    """[N, C, H, W] as [N, H, W, C], contiguous."""
    return maps.permute(0, 2, 3, 1).contiguous()


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """[N, H, W, C] as [N, C, H, W], in the memory format of `like`."""
    return rows.permute(0, 3, 1, 2).contiguous(memory_format=memory_format_of(like))


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """``F.conv2d(x, weight, bias, 1, "same", dilation, groups=C)`` for an odd kernel; the output has the memory format of `x`.

    Sums are in float32 or better. Under autocast the output has its type, and operands are read as they are.

    Raises:
        ValueError: the maps of an image have 2**31 elements or more.
    """
    check_elements(x)
    out: Tensor = _Function.apply(x, weight, bias, dilation, matmul_dtype(x))
    return out
