"""Types in which torch's convolutions and matrix products compute."""

from __future__ import annotations

import torch
from torch import Tensor


def matmul_dtype(x: Tensor) -> torch.dtype:
    """The type of the factors of a product with `x`: that of autocast where it is enabled, which leaves float64 alone."""
    device = x.device.type
    if torch.is_autocast_enabled(device) and x.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return x.dtype


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which sums of products are accumulated, for factors of type `dtype`."""
    return dtype if dtype == torch.float64 else torch.float32


def allows_tf32() -> bool:
    """Whether torch is set to compute float32 products on a GPU in TensorFloat-32, which has 10 bits."""
    settings = torch.backends.cuda.matmul
    try:
        return str(settings.fp32_precision) == "tf32"  # new in torch 2.9; where it was used, the older setting raises
    except AttributeError:
        return bool(settings.allow_tf32)
