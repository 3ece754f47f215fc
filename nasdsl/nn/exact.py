"""Layers that compute in another precision than the module that they are in."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ExactPrediction(nn.Module):
    """A layer whose result is float32 in a module of half precision.

    Args:
        layer: of any type.
        dtype: in which it computes. With float32 its own result is exact too: half precision would round large distances by
            pixels.
    """

    def __init__(self, layer: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv, self.dtype = layer.to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x.to(self.dtype))
        return out.float()
