"""``nasdsl env``: versions and devices, for a bug report."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import click

from nasdsl.cli.options import FORMAT

NOT_INSTALLED = "not installed"


@click.command()
@FORMAT
def env(format_: str) -> None:
    """Print versions and devices, for a bug report.

    It names no files of yours but the place that nasdsl and Python are installed in.

    \b
    nasdsl env
    nasdsl env --format json > environment.json
    """
    found = dict(_environment())
    if format_ == "json":
        click.echo(json.dumps(found, indent=1))
        return
    width = max(map(len, found))
    for name, value in found.items():
        click.echo(f"{name:{width}}  {value}")


def _environment() -> Iterator[tuple[str, str]]:
    """Name and value of each line."""
    import nasdsl
    from nasdsl.machine import cpu_name, devices, usable_cores

    yield "nasdsl", f"{nasdsl.__version__} in {Path(nasdsl.__file__).parent}"
    yield "python", f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}"
    yield "system", platform.platform()
    yield "processor", f"{cpu_name()}, {usable_cores()} of {os.cpu_count()} logical cores usable"
    yield "devices", devices() or NOT_INSTALLED
    yield "dot", _dot()
    for package in _packages():
        yield package, _version(package)
    for name in sorted(os.environ):
        if name.startswith("NASDSL_") or name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
            yield name, os.environ[name]


def _packages() -> list[str]:
    """Names of the packages that nasdsl and its extras ask for, without versions, each once."""
    try:
        asked = requires("nasdsl") or []
    except PackageNotFoundError:  # a source tree that is not installed
        asked = ["click", "lark", "networkx", "rich", "torch", "torchvision"]
    return sorted({re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in asked} - {"nasdsl"})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return NOT_INSTALLED


def _dot() -> str:
    """What draws pictures: Graphviz's program, or its library."""
    dot = shutil.which("dot")
    if dot is not None:
        shown = subprocess.run([dot, "-V"], capture_output=True, text=True, timeout=30)
        return (shown.stderr or shown.stdout).strip()
    return f"the library of pygraphviz {_version('pygraphviz')}" if _version("pygraphviz") != NOT_INSTALLED else NOT_INSTALLED
