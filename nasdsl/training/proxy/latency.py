"""Latency of a decoder for one image."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from nasdsl.training.proxy.features import Size, map_size

WARMUP: Final = 2
"""Passes before those that are timed: memory is allocated, kernels are selected."""
PASSES: Final = 7


@torch.no_grad()
def median_seconds(module: nn.Module, features: Mapping[str, Tensor], device: torch.device) -> float:
    """The median time of several forward passes, in evaluation mode."""
    module.eval()
    seconds = []
    for _ in range(WARMUP + PASSES):
        _synchronize(device)
        start = time.perf_counter()
        module(features)
        _synchronize(device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARMUP:])


def random_features(
    in_channels: Mapping[str, int], size: Size, device: torch.device, *, channels_last: bool
) -> dict[str, Tensor]:
    """Random maps [1, C, h, w] by level, in the shapes that a backbone gives for one image of `size` (height, width)."""
    memory = torch.channels_last if channels_last else torch.contiguous_format
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(1, width, *map_size(size, 1 << int(name[1:])), generator=generator).to(device, memory_format=memory)
        for name, width in in_channels.items()
    }


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
