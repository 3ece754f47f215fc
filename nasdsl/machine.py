"""The machine that this runs on: its CPU, cores and devices."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path


def usable_cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> dict[str, str | int | float]:
    """The machine, with its load over the last minute: a number well above 0 means that other programs ran."""
    found: dict[str, str | int | float] = {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 1)
    return found


@cache
def cpu_name() -> str:
    """Name of the CPU."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return value.strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def devices() -> str | None:
    """What torch runs on, such as ``cpu, NVIDIA H200 (torch built for CUDA 13.0), 2 threads``; None without torch."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    except ImportError as error:  # a library of it is missing
        return f"torch cannot be imported: {error}"
    names = ["cpu", *(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))]
    names += ["mps"] if torch.backends.mps.is_available() else []
    hip = getattr(torch.version, "hip", None)
    built = f"ROCm {hip}" if hip else f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPUs"
    return f"{', '.join(names)} (torch built for {built}), {torch.get_num_threads()} threads"


def device_problem(name: str) -> str | None:
    """Why torch cannot use a device, in a line such as ``device 'cuda' cannot be used: torch sees no GPU``; None if it can."""
    import torch

    reason = ""
    try:
        device = torch.device(name)
        if device.type == "cuda":
            count = torch.cuda.device_count()
            if (device.index or 0) >= count:
                reason = f"torch sees {count} GPU{'s' * (count > 1)}, the first is cuda:0" if count else "torch sees no GPU"
        elif device.type == "mps":
            reason = "" if torch.backends.mps.is_available() else "it is a Mac's GPU, and torch sees none"
        else:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # as the part of torch for it has it, or lacks it
        first = str(error).split("\n")[0].split(". ")[0]
        reason = "expected cpu, cuda, cuda:1 or mps" if "device string" in first else first
    return f"device {name!r} cannot be used: {reason}" if reason else None
