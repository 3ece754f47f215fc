"""Memory without a GPU: more than there is must be refused to a decoder, not kill the process that trains it.

Linux promises memory that it does not have, and when that is used, it ends a process. A limit on the process's data (which is
private memory that it may write to; mapped features do not count) makes torch's allocation fail instead, which is a verdict.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import torch

_CGROUPS = Path("/sys/fs/cgroup")


def limit_now(device: torch.device) -> int | None:
    """Bytes of data that this process can have: what it has, and what is free on the machine and in its control group.

    Found once by each process, before it trains: what others take for a moment must not decide about a decoder. So several
    that train at once may be promised the same memory, and one of them killed; a search has its sample tried again.

    Returns:
        None where there is no limit: elsewhere than on Linux, and with GPUs, whose drivers reserve far more than they use.
    """
    free = available() if sys.platform == "linux" and device.type == "cpu" else None
    return None if free is None else _kilobytes(Path("/proc/self/status"), "VmData") + free


@contextmanager
def bounded(limit: int | None) -> Iterator[None]:
    """Within, this process gets no more than so many bytes of data; allocations that would exceed them fail."""
    if limit is None:
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_DATA)
    if before[0] != resource.RLIM_INFINITY:
        limit = min(limit, before[0])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


@cache
def keep_freed(device: torch.device) -> bool:
    """Have this process keep the memory that tensors give back, instead of handing it to the system and asking for it again.

    The system clears each page that it hands out, which takes as long as what is then computed in it: torch on a CPU has no
    cache of its own, as it has on GPUs. The process then holds the most that it has ever taken, until it ends.

    Returns:
        Whether that can be had: from glibc, on a CPU.
    """
    tune = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" and device.type == "cpu" else None
    return tune is not None and all(tune(what, to) for what, to in _MALLOC.items())


_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_TOP_PAD = -4, -1, -2
_MALLOC = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_TOP_PAD: 64 * 2**20}
"""mallopt(3): no allocation has a mapping of its own, none is given back, and 64 MiB more are asked for than are needed."""


def available() -> int | None:
    """Bytes that can be had without taking them from other processes; None where nobody says."""
    try:
        free = _kilobytes(Path("/proc/meminfo"), "MemAvailable")
    except (OSError, KeyError):
        return None
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::"):  # version 2; parents limit as well
                group = _CGROUPS / line[3:].lstrip("/")
                for folder in (group, *group.parents):
                    if folder.is_relative_to(_CGROUPS):
                        free = min(free, _left_in(folder, free))
    return free


def _left_in(group: Path, unlimited: int) -> int:
    """Bytes that a control group has left; cached files that nobody needs count as free."""
    try:
        limit = (group / "memory.max").read_text().strip()
        if limit == "max":
            return unlimited
        used = int((group / "memory.current").read_text())
        lines = (group / "memory.stat").read_text().splitlines()
        cached = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return max(0, int(limit) - used + cached)
    except (OSError, ValueError):
        return unlimited


def _kilobytes(file: Path, name: str) -> int:
    """A figure of a file of ``Name:   123 kB`` lines, in bytes."""
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)
