"""The versions that a search's rewards depend on."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute, and the machine."""
    found = {"python": platform.python_version()}
    for package in ("nasdsl", "torch", "numpy"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return {**found, "machine": f"{platform.system()} {platform.machine()}"}
