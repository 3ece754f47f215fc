"""Dilated depthwise convolution as fast on a CPU as oneDNN can compute it.

oneDNN has quick kernels for depthwise convolutions, and takes ten and more times as long beside them: where the padding exceeds
four pixels, and for every gradient of a dilated kernel. All of these can be said in terms of what it does quickly:

- A convolution pads its input beforehand, channels-last.
- The gradient of the input is a convolution of the output's gradient with the kernel turned by half a turn.
- The gradient of a dilated kernel is that of a plain one on the pixels that have the same remainder by the dilation, row and
  column, as pictures of their own; that of a larger kernel is put together from 3x3 windows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasdsl.nn.memory_format import are_plain, layout_of

PADDED = 4
"""Most pixels of padding that oneDNN's quick kernels add by themselves."""
BLOCK = 8
"""Its quick kernels take channels in blocks of so many."""
FEWEST = 2**14
"""Numbers in all maps together that make it worth its while."""


class DilatedDepthwiseConv2d(nn.Conv2d):
    """Each channel convolved with a kernel of its own, of odd size and dilated, at stride 1, to a map of the same size.

    Equal to ``nn.Conv2d`` in parameters and, to rounding, in results: [N, C, H, W] to the same.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int, bias: bool = True) -> None:
        super().__init__(
            channels, channels, kernel_size, 1, dilation * (kernel_size - 1) // 2, dilation, groups=channels, bias=bias
        )

    def forward(self, input: Tensor) -> Tensor:
        gradients = torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad)
        if not suits(input, self.weight) or (not gradients and _padding(self.weight, self.dilation[0]) <= PADDED):
            return super().forward(input)
        out: Tensor = _Function.apply(input, self.weight, self.dilation[0])
        return out if self.bias is None else out + self.bias.view(-1, 1, 1)


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether these are float32 on a CPU, not stand-ins of a tracer, and enough of it."""
    if not are_plain((x, weight)) or any(t.device.type != "cpu" or t.dtype != torch.float32 for t in (x, weight)):
        return False
    if torch.is_autocast_enabled("cpu") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch's own
        return False
    return x.dim() == 4 and x.shape[1] == weight.shape[0] and x.shape[1] % BLOCK == 0 and x.numel() >= FEWEST


def _convolve(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """The convolution, in the memory format of `x`."""
    padding = _padding(weight, dilation)
    if padding <= PADDED:
        return F.conv2d(x, weight, None, 1, padding, dilation, len(weight))
    out = F.conv2d(_padded(x, padding), weight, None, 1, 0, dilation, len(weight))
    return out.contiguous(memory_format=layout_of(x))


def _padding(weight: Tensor, dilation: int) -> int:
    return int(dilation * (weight.shape[2] - 1) // 2)


def _padded(x: Tensor, padding: int) -> Tensor:
    """`x` with zeros around it, channels-last."""
    n, channels, height, width = x.shape
    total = x.new_zeros(n, height + 2 * padding, width + 2 * padding, channels).permute(0, 3, 1, 2)
    total[:, :, padding : padding + height, padding : padding + width].copy_(x)
    return total


def _kernel_gradient(x: Tensor, upstream: Tensor, size: int, dilation: int) -> Tensor:
    """The gradient of the weight, [C, 1, size, size]."""
    x, upstream = _apart(x, dilation), _apart(upstream, dilation)
    if size == 3:
        return _kernel_gradient_3x3(x, upstream, 1)
    channels, height, width = x.shape[1:]
    weight = x.new_zeros(channels, 1, size, size)
    around = _padded(x, (size - 1) // 2)
    starts = [*range(0, size - 3, 3), size - 3]
    for top in starts:
        for left in starts:
            read = around[:, :, top : top + height + 2, left : left + width + 2]
            weight[:, :, top : top + 3, left : left + 3] = _kernel_gradient_3x3(read, upstream, 0)
    return weight


def _kernel_gradient_3x3(x: Tensor, upstream: Tensor, padding: int) -> Tensor:
    weight = x.new_empty(x.shape[1], 1, 3, 3)
    channels_last = (t.contiguous(memory_format=torch.channels_last) for t in (upstream, x))
    found: Tensor = torch.ops.aten.convolution_backward(
        *channels_last, weight, None, [1, 1], [padding, padding], [1, 1], False, [0, 0], len(weight), [False, True, False]
    )[1]
    return found


def _apart(x: Tensor, dilation: int) -> Tensor:
    """Each dilation x dilation pixels apart: [N, C, H, W] to [dilation**2 * N, C, ceil(H / dilation), ceil(W / dilation)]."""
    n, channels, *size = x.shape
    height, width = (-(-length // dilation) for length in size)
    rows = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
    rows = F.pad(rows, (0, 0, 0, width * dilation - size[1], 0, height * dilation - size[0]))
    parts = rows.view(n, height, dilation, width, dilation, channels).permute(2, 4, 0, 1, 3, 5)
    return parts.reshape(dilation * dilation * n, height, width, channels).permute(0, 3, 1, 2)


class _Function(torch.autograd.Function):
    """Without a bias. What its backward is made of can be differentiated again."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        return _convolve(x, weight, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.dilation = inputs[2]

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        needed, dilation, size = ctx.needs_input_grad, ctx.dilation, weight.shape[2]
        of_x = _convolve(upstream[0], weight.flip(2, 3), dilation) if needed[0] else None
        of_weight = _kernel_gradient(x, upstream[0], size, dilation) if needed[1] else None
        return of_x, of_weight, None
