"""Files that come with the package: the grammar, the prelude, the zoo.

They are in the root of the repository, and inside the package in a wheel (`[tool.hatch.build.targets.wheel.force-include]`).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def folder(name: str) -> Path:
    """Path of the folder ``grammars`` or ``genotypes``, in the wheel or else in the source tree.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    for place in (_PACKAGE / name, _PACKAGE.parent / name):
        if place.is_dir():
            return place
    raise FileNotFoundError(f"this installation of nasdsl lacks its folder {name!r}; install it again")


@cache
def zoo() -> dict[str, Path]:
    """The decoders and search spaces that come with the package: their files by name."""
    return {path.stem: path for path in sorted(folder("genotypes").rglob("*.nas"))}


def is_space(path: Path) -> bool:
    """Whether a file of the zoo holds a search space."""
    return path.parent.name == "spaces"


def kind(path: Path) -> str:
    """What a file of the zoo holds: ``space`` or ``decoder``."""
    return "space" if is_space(path) else "decoder"


def title(text: str) -> str:
    """The first line of a file of the zoo, which says what it is."""
    return text.splitlines()[0].lstrip("# ").rstrip(":,. ")


def zoo_entries() -> list[dict[str, str]]:
    """``name``, ``kind`` and ``about``, its first line, of each file of the zoo."""
    return [
        {"name": name, "kind": kind(path), "about": title(path.read_text(encoding="utf-8"))} for name, path in zoo().items()
    ]


def read(name: str, file: str) -> str:
    """Text of a file in one of these folders."""
    return (folder(name) / file).read_text(encoding="utf-8")
