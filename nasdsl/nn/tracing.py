"""Whether tensors are computed on eagerly, so that a kernel outside of torch's dispatcher may read them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def is_eager(tensors: Iterable[Tensor]) -> bool:
    """Whether these are ordinary tensors in eager mode: no tracer or compiler is active, and none is a subclass."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # torch has no types for it
        return False
    return all(type(t) in (Tensor, nn.Parameter) for t in tensors)
