"""What launching any Triton kernel takes: the device, sizes of blocks, and the largest maps."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Final

import torch
from torch import Tensor

MAX_ELEMENTS: Final = 2**31
"""Elements of the maps of an image: kernels count them with 32 bits."""


def device_of(x: Tensor) -> AbstractContextManager[object]:
    """Makes the GPU of `x` the current device: Triton launches there, and it need not be that of `x`."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def next_power_of_2(number: int) -> int:
    """The least power of two that is not below a positive number, as ``triton.next_power_of_2``, which needs Triton."""
    return 1 << (number - 1).bit_length()


def check_elements(x: Tensor) -> None:
    """Refuse maps that are too large for a kernel.

    Args:
        x: [N, C, H, W].

    Raises:
        ValueError: the maps of an image have `MAX_ELEMENTS` or more.
    """
    if x[0].numel() >= MAX_ELEMENTS:
        raise ValueError(f"maps of {list(x.shape[1:])} have {x[0].numel()} elements; expected fewer than {MAX_ELEMENTS}")
