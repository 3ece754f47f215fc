"""Distributed training: one process for each GPU, started by torchrun; or a single process."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from nasdsl.machine import device_problem
from nasdsl.training.errors import TrainingError


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together, as seen by this one, and their collective operations.

    Attributes:
        device: of this process.
        rank: of this process, from 0.
        world_size: number of processes.
    """

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and prints."""
        return self.rank == 0

    def all_mean(self, values: Tensor) -> Tensor:
        """The mean over all processes. `values` may be changed in place."""
        if self.world_size == 1:
            return values
        dist.all_reduce(values)
        return values / self.world_size

    def all_sum(self, value: int) -> int:
        """The sum over all processes."""
        return self._reduce(value, dist.ReduceOp.SUM)

    def all_max(self, value: int) -> int:
        """The largest value of all processes."""
        return self._reduce(value, dist.ReduceOp.MAX)

    def _reduce(self, value: int, operation: dist.ReduceOp.RedOpType) -> int:
        if self.world_size == 1:
            return value
        reduced = torch.tensor(value, device=self.device)
        dist.all_reduce(reduced, operation)
        return int(reduced)

    def all_gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite these tensors, in every process, with those of rank 0."""
        if self.world_size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def process_group(device: str | torch.device | None = None) -> Iterator[ProcessGroup]:
    """The processes that torchrun started (``RANK``, ``WORLD_SIZE``, ``LOCAL_RANK``), or this one alone.

    The backend is NCCL on GPUs and Gloo on CPUs. If torch's default process group is initialised already, it is used and not
    destroyed.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …; None: a GPU if there is one.

    Raises:
        TrainingError: there is no such device.
    """
    found = _device(device)
    if dist.is_initialized():
        yield ProcessGroup(found, dist.get_rank(), dist.get_world_size())
    elif int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ProcessGroup(found)
    else:
        dist.init_process_group("nccl" if found.type == "cuda" else "gloo", device_id=found if found.type == "cuda" else None)
        try:
            yield ProcessGroup(found, dist.get_rank(), dist.get_world_size())
        finally:
            dist.destroy_process_group()


def _device(wanted: str | torch.device | None) -> torch.device:
    name = str(wanted) if wanted is not None else "cuda" if torch.cuda.is_available() else "cpu"
    rank = os.environ.get("LOCAL_RANK")
    if name == "cuda" and rank is not None:
        name = f"cuda:{rank}"
    problem = device_problem(name)
    if problem is not None:
        raise TrainingError(f"{problem}; expected at most one process for each" if name == f"cuda:{rank}" else problem)
    device = torch.device(name)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        torch.cuda.set_device(device)
    return device
