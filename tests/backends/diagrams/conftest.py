"""The decoders of which diagrams are drawn."""

from __future__ import annotations

import pytest
from diagram_texts import LARGE, TEXTS, lowered

from nasdsl.backends.cost import CostTable
from nasdsl.ir import Graph


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.long if name in LARGE else ()) for name in sorted(TEXTS)])
def decoder(request: pytest.FixtureRequest) -> tuple[Graph, CostTable]:
    return lowered(TEXTS[request.param], f"{request.param}.nas")
