"""Memory limits without a GPU: a decoder that needs too much memory must raise an error, not get the process killed.

Linux overcommits memory, and kills a process when the memory is then used. A limit on the process's data (private writable
memory; memory-mapped features do not count) makes torch's allocation fail instead, which can be caught.
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


def current_limit(device: torch.device) -> int | None:
    """Bytes of data that this process can have: what it has, plus what is free on the machine and in its control group.

    Called once by each process, before it trains, so that memory which others use for a moment does not decide about a
    decoder. Several processes that train at once may therefore count on the same memory, and one of them be killed; a search
    then tries its decoder again.

    Returns:
        None if there is no limit: elsewhere than on Linux, and with GPUs, whose drivers reserve far more than they use.
    """
    free = available_memory() if sys.platform == "linux" and device.type == "cpu" else None
    return None if free is None else _read_kilobytes(Path("/proc/self/status"), "VmData") + free


@contextmanager
def limit_memory(limit: int | None) -> Iterator[None]:
    """Within the block, allocations fail that would give this process more than `limit` bytes of data. None: no limit."""
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
def retain_freed_memory(device: torch.device) -> bool:
    """Make the allocator of this process keep freed memory, instead of returning it to the system.

    The system clears every page that it hands out, which takes as long as the computation in it: torch has no caching
    allocator on a CPU, as it has on GPUs. Afterwards the process holds the most memory that it has ever used, until it ends.

    Returns:
        Whether this is supported: by glibc, for a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" and device.type == "cpu" else None
    return mallopt is not None and all(mallopt(parameter, value) for parameter, value in _MALLOC.items())


_M_MMAP_MAX, _M_TRIM_THRESHOLD, _M_TOP_PAD = -4, -1, -2
_MALLOC = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1, _M_TOP_PAD: 64 * 2**20}
"""mallopt(3): allocate nothing by mmap, return nothing to the system, and request 64 MiB more than is needed."""


def available_memory() -> int | None:
    """Bytes of memory that can be allocated without taking them from other processes; None if unknown."""
    try:
        free = _read_kilobytes(Path("/proc/meminfo"), "MemAvailable")
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


def resident_memory() -> int | None:
    """Bytes of memory that this process has now; None where that is unknown."""
    return _own("VmRSS")


def reset_peak_memory() -> None:
    """Let `peak_memory` count from now on, where the system can do so: proc_pid_clear_refs(5)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """The most bytes of memory that this process has had; None where that is unknown."""
    return _own("VmHWM")


def _own(name: str) -> int | None:
    with suppress(OSError, KeyError):
        return _read_kilobytes(Path("/proc/self/status"), name)
    return None


def _left_in(group: Path, unlimited: int) -> int:
    """Bytes that a control group has left; inactive cached files count as free."""
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


def _read_kilobytes(file: Path, name: str) -> int:
    """A value of a file with ``Name:   123 kB`` lines, in bytes."""
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)
