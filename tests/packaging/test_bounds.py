"""Lower bounds of dependencies: each has one, and `make test-lowest` runs the tests with just these versions."""

from __future__ import annotations

import importlib.metadata
import os
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
TOOLS = {"dev", "docs", "fuzz", "mutants", "test"}
"""Extras for those who work on the package: they get current versions."""
APART = {"neps"}
"""Extras that need newer versions of our own dependencies than the lowest."""

REQUIREMENTS = [
    Requirement(text)
    for group in (PROJECT["dependencies"], *(EXTRAS[name] for name in EXTRAS if name not in TOOLS))
    for text in group
]


def lowest(requirement: Requirement) -> Version:
    (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
    return Version(bound)


def installed_version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_each_dependency_has_a_lower_bound(requirement: Requirement) -> None:
    installed = installed_version(requirement.name)
    assert installed is None or Version(installed) >= lowest(requirement)
    if requirement.name in {Requirement(text).name for name in APART for text in EXTRAS[name]}:
        return
    if os.environ.get("NASDSL_LOWEST"):
        assert installed is not None
        assert Version(Version(installed).public) == lowest(requirement), "make test-lowest has installed another version"


def test_make_test_lowest_installs_every_extra() -> None:
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {name for name in EXTRAS if f"--extra {name}" in recipe} == set(EXTRAS) - TOOLS - APART
