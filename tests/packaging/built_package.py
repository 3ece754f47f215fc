"""Wheel and sdist of the package: building them, and what they have to hold."""

from __future__ import annotations

import email
import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

from running import ROOT, require, run


class Built(NamedTuple):
    """The two files."""

    wheel: Path
    sdist: Path


def build(source: Path, folder: Path, **variables: str) -> Built:
    """Build both in a folder; the wheel is built from the sdist. Their times are that of the last commit."""
    time = run("git", "-C", ROOT, "log", "-1", "--format=%ct").strip()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": time, **variables}
    run(sys.executable, "-m", "build", "--outdir", folder, source, env=environment)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


def check_reproducible(built: Built, folder: Path) -> None:
    """Built again, elsewhere, from files of other times and with another order of sets, both are the same byte for byte."""
    with tarfile.open(built.sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    for path in source.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    again = build(source, folder / "dist", PYTHONHASHSEED="1", TZ="Asia/Tokyo")
    for first, second in zip(built, again, strict=True):
        require(first.name == second.name, f"the second build made {second.name}")
        require(first.read_bytes() == second.read_bytes(), f"two builds of {first.name} differ")
    print(f"two builds are the same: {built.wheel.stat().st_size:,} and {built.sdist.stat().st_size:,} bytes", flush=True)


def check_wheel(wheel: Path) -> None:
    """The wheel has every file of the package, the grammar, the zoo and the licence, and no others."""
    archive = zipfile.ZipFile(wheel)
    names = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "nasdsl", "grammars", "genotypes"], capture_output=True, text=True, check=True
    ).stdout.split("\n")
    expected = {path if path.startswith("nasdsl/") else f"nasdsl/{path}" for path in tracked if path}
    require(names == expected, f"the wheel lacks {sorted(expected - names)} and has {sorted(names - expected)}")
    (file,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_string(archive.read(file).decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    require(metadata["License-Expression"] == project["license"], f"the licence is {metadata['License-Expression']}")
    require(metadata.get_all("License-File") == ["LICENSE"], "the wheel names no file of the licence")
    require(any(name.endswith("/licenses/LICENSE") for name in archive.namelist()), "the licence is not in the wheel")
    require(set(metadata.get_all("Provides-Extra", [])) == set(project["optional-dependencies"]), "extras are missing")
    require(metadata["Requires-Python"] == project["requires-python"], "Requires-Python is missing")
    require(metadata.get_all("Classifier") == project["classifiers"], "classifiers are missing")
    require(bool(metadata.get_all("Project-URL")) == ("urls" in project), "the project's addresses are missing")
    require(metadata.get_payload().strip() == (ROOT / "README.md").read_text().strip(), "the description is not README.md")


def check_sdist(sdist: Path) -> None:
    """The sdist has what one needs to build and to test."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for path in ("pyproject.toml", "LICENSE", "README.md", "grammars/nas.lark", "genotypes/nas_fcos.nas", "tests/conftest.py"):
        require(path in names, f"the sdist lacks {path}")
