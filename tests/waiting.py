"""What a GPU does otherwise than a CPU, tried on a CPU: losses at all locations, operations that would make the CPU wait."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

PLACES = (
    "nasdsl.detection.positives", "nasdsl.detection.pyramid", "nasdsl.training.proxy.feature_batches",
    "nasdsl.training.proxy.loop", "nasdsl.training.proxy.step",
)  # fmt: skip
"""Modules that ask whether the values of a device are read at once."""
WAITING = (
    "aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten.is_nonzero", "aten.unique",
    "aten._unique", "aten.lift_fresh", "aten.repeat_interleave",
)  # fmt: skip
"""Operations for which the CPU waits for a GPU: they give it a value, or shapes by values, or the GPU a number of Python's."""


def as_on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let everything that asks be told that values must be waited for, as those of a GPU."""
    for place in PLACES:
        monkeypatch.setattr(f"{place}.is_read_at_once", lambda device: False)


class _Refusing(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masks = func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_) and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        assert not masks, f"{func} by a mask would wait for a GPU"
        assert not str(func).startswith(WAITING), f"{func} would wait for a GPU"
        return func(*args, **(kwargs or {}))


@contextmanager
def refusing_to_wait() -> Iterator[None]:
    """A block in which operations fail that would make the CPU wait for a GPU, as far as a CPU can see them."""
    with _Refusing():
        yield
