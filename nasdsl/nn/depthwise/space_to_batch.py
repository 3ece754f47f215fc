"""Dilated depthwise convolution as one without dilation, for which cuDNN and oneDNN have fast kernels.

Pixels whose row and column have the same remainders modulo the dilation become an image of their own: the kernel's taps are
adjacent in it.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from nasdsl.nn.memory_format import memory_format_of
from nasdsl.nn.precision import matmul_dtype


def space_to_batch(x: Tensor, dilation: int) -> Tensor:
    """[N, C, H, W] to [dilation**2 * N, C, ceil(H / dilation), ceil(W / dilation)], zero-padded, channels-last."""
    n, channels, *size = x.shape
    height, width = (-(-length // dilation) for length in size)
    rows = x.permute(0, 2, 3, 1).contiguous()
    padding = (0, 0, 0, width * dilation - size[1], 0, height * dilation - size[0])
    if any(padding):
        rows = F.pad(rows, padding)
    blocks = rows.view(n, height, dilation, width, dilation, channels).permute(2, 4, 0, 1, 3, 5)
    return blocks.reshape(dilation * dilation * n, height, width, channels).permute(0, 3, 1, 2)


def batch_to_space(x: Tensor, dilation: int, height: int, width: int) -> Tensor:
    """The inverse of `space_to_batch` for maps of this height and width; as a view with strides of its own."""
    channels, rows, columns = x.shape[1:]
    blocks = x.permute(0, 2, 3, 1).contiguous().view(dilation, dilation, -1, rows, columns, channels)
    whole = blocks.permute(2, 3, 0, 4, 1, 5).reshape(-1, rows * dilation, columns * dilation, channels)
    return whole[:, :height, :width].permute(0, 3, 1, 2)


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """``F.conv2d(x, weight, bias, 1, "same", dilation, groups=C)`` for an odd kernel; the output has the memory format of `x`.

    The same products are added, possibly in another order. Derivatives of any order are torch's own.
    """
    padding = weight.shape[2] // 2, weight.shape[3] // 2
    out = F.conv2d(space_to_batch(x.to(matmul_dtype(x)), dilation), weight, bias, 1, padding, 1, len(weight))
    return batch_to_space(out, dilation, *x.shape[2:]).contiguous(memory_format=memory_format_of(x))
