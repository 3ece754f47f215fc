"""Dilated depthwise convolution at the speed of oneDNN's fast CPU kernels.

oneDNN has fast kernels for depthwise convolutions, but falls back to ones that take ten times as long and more where the
padding exceeds four pixels, and for every gradient of a dilated kernel. These cases are rewritten into fast ones:

- The forward pass pads its input beforehand, channels-last.
- The gradient of the input is a convolution of the output's gradient with the kernel rotated by 180 degrees.
- The gradient of a dilated kernel is that of an undilated one after space-to-batch: pixels with the same row and column
  remainder modulo the dilation become images of their own. The gradient of a larger kernel is assembled from 3x3 windows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nasdsl.nn.depthwise.space_to_batch import space_to_batch
from nasdsl.nn.memory_format import memory_format_of
from nasdsl.nn.tracing import is_eager

MAX_PADDING = 4
"""Largest padding, in pixels, that oneDNN's fast kernels support."""
CHANNEL_BLOCK = 8
"""oneDNN's fast kernels need a multiple of this many channels."""
MIN_ELEMENTS = 2**14
"""Below this many input elements, torch's own convolution is as fast."""


def supports(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> bool:
    """Whether these are eager float32 CPU tensors of shapes for which this module's convolution is faster than torch's."""
    if not is_eager((x, weight)) or any(t.device.type != "cpu" or t.dtype != torch.float32 for t in (x, weight)):
        return False
    if torch.is_autocast_enabled("cpu") or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]  # torch's own
        return False
    if x.dim() != 4 or x.shape[1] != weight.shape[0] or x.shape[1] % CHANNEL_BLOCK or x.numel() < MIN_ELEMENTS:
        return False
    gradients = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return gradients or _padding(weight, dilation) > MAX_PADDING


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """The convolution for operands that `supports` accepts; the output has the memory format of `x`."""
    out: Tensor = _Function.apply(x, weight, dilation)
    return out if bias is None else out + bias.view(-1, 1, 1)


def _convolve(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """The convolution, in the memory format of `x`."""
    padding = _padding(weight, dilation)
    if padding <= MAX_PADDING:
        return F.conv2d(x, weight, None, 1, padding, dilation, len(weight))
    out = F.conv2d(_padded(x, padding), weight, None, 1, 0, dilation, len(weight))
    return out.contiguous(memory_format=memory_format_of(x))


def _padding(weight: Tensor, dilation: int) -> int:
    return int(dilation * (weight.shape[2] - 1) // 2)


def _padded(x: Tensor, padding: int) -> Tensor:
    """`x` zero-padded on all sides, channels-last."""
    n, channels, height, width = x.shape
    out = x.new_zeros(n, height + 2 * padding, width + 2 * padding, channels).permute(0, 3, 1, 2)
    out[:, :, padding : padding + height, padding : padding + width].copy_(x)
    return out


def _weight_gradient(x: Tensor, grad_output: Tensor, size: int, dilation: int) -> Tensor:
    """The gradient of the weight, [C, 1, size, size]."""
    x, grad_output = space_to_batch(x, dilation), space_to_batch(grad_output, dilation)
    if size == 3:
        return _weight_gradient_3x3(x, grad_output, 1)
    channels, height, width = x.shape[1:]
    grad_weight = x.new_zeros(channels, 1, size, size)
    padded = _padded(x, (size - 1) // 2)
    starts = [*range(0, size - 3, 3), size - 3]
    for top in starts:
        for left in starts:
            window = padded[:, :, top : top + height + 2, left : left + width + 2]
            grad_weight[:, :, top : top + 3, left : left + 3] = _weight_gradient_3x3(window, grad_output, 0)
    return grad_weight


def _weight_gradient_3x3(x: Tensor, grad_output: Tensor, padding: int) -> Tensor:
    weight = x.new_empty(x.shape[1], 1, 3, 3)
    channels_last = (t.contiguous(memory_format=torch.channels_last) for t in (grad_output, x))
    grad_weight: Tensor = torch.ops.aten.convolution_backward(
        *channels_last, weight, None, [1, 1], [padding, padding], [1, 1], False, [0, 0], len(weight), [False, True, False]
    )[1]
    return grad_weight


class _Function(torch.autograd.Function):
    """The convolution without bias. Its backward pass is differentiable."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
        return _convolve(x, weight, dilation)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.dilation = inputs[2]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        needs_grad, dilation, size = ctx.needs_input_grad, ctx.dilation, weight.shape[2]
        grad_x = _convolve(grad_outputs[0], weight.flip(2, 3), dilation) if needs_grad[0] else None
        grad_weight = _weight_gradient(x, grad_outputs[0], size, dilation) if needs_grad[1] else None
        return grad_x, grad_weight, None
