"""Depthwise convolution with a dilation: a layer, which dispatches to an implementation."""

from __future__ import annotations

from torch import Tensor, nn

from nasdsl.nn.depthwise import autotune, cpu


class DilatedDepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with an odd kernel size, dilation, stride 1 and "same" padding.

    Parameters and, up to rounding, results are those of ``nn.Conv2d``: [N, C, H, W] to [N, C, H, W].
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int, bias: bool = True) -> None:
        super().__init__(
            channels, channels, kernel_size, 1, dilation * (kernel_size - 1) // 2, dilation, groups=channels, bias=bias
        )

    def forward(self, input: Tensor) -> Tensor:
        given = input, self.weight, self.bias, self.dilation[0]
        if cpu.supports(*given):
            return cpu.depthwise_conv2d(*given)
        if autotune.supports(*given):
            return autotune.depthwise_conv2d(*given)
        return super().forward(input)
