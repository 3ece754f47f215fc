"""The zoo's files, for tests that take each in turn."""

from __future__ import annotations

from pathlib import Path

import pytest

ZOO = sorted((Path(__file__).parents[1] / "genotypes").glob("*.nas"))

OFTEN = frozenset(
    "bifpn fcos nas_fcos nas_fcos_128_256 nas_fpn panet retinanet tood fcos_family nas_fcos_fpn nas_fcos_head".split()
)
"""What slow tests take each time; random decoders have the other layers. They take the rest among the long tests."""


def marks(name: str) -> tuple[pytest.MarkDecorator, ...]:
    """Marks for a slow test of this decoder or space."""
    return () if name in OFTEN else (pytest.mark.long,)
