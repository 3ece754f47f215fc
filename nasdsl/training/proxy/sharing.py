"""Features in the memory of a GPU for several processes: one process owns them, the others map the same memory (CUDA IPC).

The owner is the process of the search, because workers may be killed at any time, and memory lives as long as its owner.
Processes on a CPU need none of this: a memory-mapped file has one copy for all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor
from torch.multiprocessing import reductions

from nasdsl.training.proxy.features import Features
from nasdsl.training.proxy.resident import ResidentFeatures, copy_to, levels_that_fit

Handles: TypeAlias = Mapping[str, Any]
"""What another process attaches each level by. It can be pickled."""

_DEVICE, _COUNTER = 6, slice(11, 13)
"""Places among the arguments of `reductions.rebuild_cuda_tensor`: the device, and the counter of those who use the memory."""
_FIRST: Final = 0
"""The GPU of a worker: it sees no other."""


class SharedFeatures:
    """Features in the memory of GPUs, which belong to this process until `release`.

    Args:
        gpus: names of those that this process sees, in its order, as a worker has them in ``CUDA_VISIBLE_DEVICES``.

    Attributes:
        handles: by name of the GPU.
    """

    def __init__(self, features: Features, gpus: Sequence[str]) -> None:
        self._owned: list[ResidentFeatures] = []
        self.handles: dict[str, Handles] = {}
        for number, gpu in enumerate(gpus):
            resident = make_resident(features, torch.device("cuda", number))
            assert resident is not None
            self._owned.append(resident)
            self.handles[gpu] = {name: export(pixels) for name, pixels in resident.pixels.items()}

    def release(self) -> None:
        """Free the memory. Workers must be gone, and may have been killed: they do not say that they need it no more."""
        for handles in self.handles.values():
            for handle in handles.values():
                forget(handle)
        self._owned.clear()
        self.handles.clear()


def make_resident(features: Features, device: torch.device, handles: Handles | None = None) -> ResidentFeatures | None:
    """The features that fit into a GPU's memory now, or those of another process; None without a GPU.

    Args:
        handles: of the process that owns them. If they cannot be attached, this process has its own, and a warning says so.
    """
    if device.type != "cuda":
        return None
    if handles:
        try:
            return ResidentFeatures(features, {name: attach(handle) for name, handle in handles.items()})
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            warnings.warn(
                f"this process has features of its own on the GPU, because it cannot attach others: {reason}", stacklevel=2
            )
    torch.cuda.empty_cache()  # what is kept of earlier work counts as free
    free, _ = torch.cuda.mem_get_info(device)
    return copy_to(features, levels_that_fit(features, free), device)


def export(pixels: Tensor) -> Any:
    """The handle of a tensor on a GPU."""
    return reductions.reduce_tensor(pixels)[1]  # type: ignore[no-untyped-call]  # torch's own


def attach(handle: Any) -> Tensor:
    """The tensor of another process, on the one GPU that this process sees."""
    arguments = list(handle)
    arguments[_DEVICE] = _FIRST
    tensor: Tensor = reductions.rebuild_cuda_tensor(*arguments)  # type: ignore[no-untyped-call]  # torch's own
    return tensor


def forget(handle: Any) -> None:
    """Let torch free the memory of a handle although nobody has said that it is not used any more."""
    with suppress(RuntimeError):  # the counter is gone, because all have
        storage: Any = torch.UntypedStorage
        storage._release_ipc_counter(*handle[_COUNTER], device=handle[_DEVICE])
