"""Which packages may run here: each that pyproject.toml names is in the reviewed list, with its reason."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
DEVELOPMENT = {"test", "docs", "dev", "fuzz", "mutants"}


def named(requirements: list[str]) -> set[str]:
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0].lower() for line in requirements}  # type: ignore[index]  # each has a name
    return names - {"nasdsl"}


def test_every_dependency_is_reviewed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    reviewed = tomllib.loads((ROOT / ".ci" / "dependencies.toml").read_text())
    extras = project["optional-dependencies"]
    development = set().union(*(named(extras[extra]) for extra in DEVELOPMENT))
    optional = set().union(*(named(lines) for extra, lines in extras.items() if extra not in DEVELOPMENT))
    assert set(reviewed["required"]) == named(project["dependencies"])
    assert set(reviewed["optional"]) == optional
    assert set(reviewed["development"]) == development - optional
    for names in reviewed.values():
        assert all(len(reason.split()) >= 1 and reason.strip() == reason for reason in names.values())


def test_no_dependency_is_an_address() -> None:
    """A package from an address or a file would be none that an index has checked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for lines in (project["dependencies"], *project["optional-dependencies"].values()):
        assert not [line for line in lines if "@" in line or "://" in line]
