"""The device on which kernels outside of torch's dispatcher are launched."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def device_of(x: Tensor) -> AbstractContextManager[object]:
    """Makes the GPU of `x` the current device: Triton launches there, and it need not be that of `x`."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
