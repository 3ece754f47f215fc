"""The modules of the primitives. Their source is copied into files that ``nasdsl compile -o OUT.py`` writes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class BandSplit(nn.Module):
    """The mean of 2x2 pixels, and what the map has beyond it, times `gain`."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[N, C, H, W] to [N, C, ceil(H/2), ceil(W/2)] and [N, C, H, W]."""
        low = F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)
        return low, self.gain * (x - F.interpolate(low, size=x.shape[2:], mode="nearest"))


class UpConv(nn.Module):
    """Nearest interpolation, then a depthwise convolution, which begins as the identity."""

    def __init__(self, channels: int, k: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, 1, k, k))
        self.bias = nn.Parameter(torch.zeros(channels))
        with torch.no_grad():
            self.weight[:, 0, k // 2, k // 2] = 1.0

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """[N, C, H, W] to [N, C, *size]."""
        k = self.weight.shape[-1]
        x = F.interpolate(x, size=size, mode="nearest")
        return F.conv2d(x, self.weight, self.bias, padding=k // 2, groups=self.weight.shape[0])
