"""The files that ship with the package: the grammar, the prelude, the zoo.

They lie at the top of the repository, and inside the package in a wheel (`[tool.hatch.build.targets.wheel.force-include]`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def folder(name: str) -> Path:
    """The folder ``grammars`` or ``genotypes``, of the wheel or else of the source tree.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    for place in (_PACKAGE / name, _PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"this installation of nasdsl lacks its folder {name!r}; install it again")


def read(name: str, file: str) -> str:
    return (folder(name) / file).read_text(encoding="utf-8")
