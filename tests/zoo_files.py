"""The zoo's files, for tests that take each in turn."""

from __future__ import annotations

from pathlib import Path

ZOO = sorted((Path(__file__).parents[1] / "genotypes").glob("*.nas"))
