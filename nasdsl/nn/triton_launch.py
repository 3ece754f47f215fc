"""What launching any Triton kernel takes: the device, sizes of blocks, and the largest maps."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Final

import torch
from torch import Tensor

MAX_ELEMENTS: Final = 2**31
"""Elements of the maps of an image: kernels count them with 32 bits."""

OLDEST_TRITON: Final = (3, 2)
"""The first version whose ``triton.jit`` can be told not to compile anew for each alignment; torch 2.6 brings it."""


@cache
def require_triton() -> None:
    """Check that Triton is new enough for the kernels.

    Raises:
        ImportError: it is not installed, or older than `OLDEST_TRITON`.
    """
    import triton

    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < OLDEST_TRITON:
        oldest = ".".join(map(str, OLDEST_TRITON))
        raise ImportError(f"needs Triton {oldest} or newer, as torch 2.6 has it; this is Triton {triton.__version__}")


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
