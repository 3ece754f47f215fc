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


def is_dispatched_plainly() -> bool:
    """Whether neither a dispatch mode, as a FLOP counter, nor a functorch transform is active.

    They do not see what a Triton kernel does.
    """
    return not torch._C._len_torch_dispatch_stack() and not torch._C._are_functorch_transforms_active()
