"""How long a decoder takes for one image."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from nasdsl.training.proxy.features import Size, cells

WARM: Final = 2
"""Passes before those that count: memory is had, kernels are chosen."""
PASSES: Final = 7


@torch.no_grad()
def seconds_of(module: nn.Module, features: Mapping[str, Tensor], device: torch.device) -> float:
    """The median of several forward passes, in evaluation mode."""
    module.eval()
    taken = []
    for _ in range(WARM + PASSES):
        _finish(device)
        began = time.perf_counter()
        module(features)
        _finish(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[WARM:])


def random_features(
    in_channels: Mapping[str, int], size: Size, device: torch.device, *, channels_last: bool
) -> dict[str, Tensor]:
    """[1, C, h, w] of each level as a backbone of these widths gives them for one image of `size` (height, width)."""
    memory = torch.channels_last if channels_last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(1, width, *cells(size, 1 << int(name[1:])), generator=generator).to(device, memory_format=memory)
        for name, width in in_channels.items()
    }


def _finish(device: torch.device) -> None:
    """Wait for what the device is at: a GPU computes on its own."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
