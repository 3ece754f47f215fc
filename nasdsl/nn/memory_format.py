"""What ways of our own ask of their operands, beside torch's."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def are_plain(given: Iterable[Tensor]) -> bool:
    """Whether these hold numbers, and nothing records what is done with them: no tracer, no compiler, no subclass."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]  # torch has no types for it
        return False
    return all(type(t) in (Tensor, nn.Parameter) for t in given)


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format of what torch's own convolutions give for `x`, [N, C, H, W]."""
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return torch.contiguous_format
    return torch.channels_last
