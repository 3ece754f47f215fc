"""Predicted latency as a cost of a search: ``--budget latency:15ms@onnxruntime``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from nasdsl.backends.requirements import latency_requirements
from nasdsl.files import make_folder, write_bytes
from nasdsl.search.budget import Budget
from nasdsl.search.errors import BudgetError
from nasdsl.spaces import Space

if TYPE_CHECKING:
    from nasdsl.latency import LatencyPredictor

RUNTIME: Final = "onnxruntime"
"""Of a budget that names none."""
THREADS: Final = 1
"""Threads of the CPU that latencies are predicted for: what a search on one machine disturbs least."""


def with_required(budgets: Sequence[Budget], space: Space, size: tuple[int, int]) -> tuple[Budget, ...]:
    """Budgets, with the latency that a space requires: of two limits the smaller one.

    Args:
        size: height and width of the detectors' images.

    Raises:
        BudgetError: a latency is required on another runtime than that of a budget, or at another size than that of the search.
    """
    found = {budget.cost: budget for budget in budgets}
    for requirement in latency_requirements(space.program.requirements):
        runtime = requirement.runtime.name if requirement.runtime is not None else ""
        text = requirement.span.text
        if requirement.size not in (None, size):
            raise BudgetError(
                f"`{text}`, but the search is at {size[0]}x{size[1]}; expected the same --size, or no size in the text"
            )
        before = found.get("latency")
        if before is not None and runtime and (before.runtime or RUNTIME) != runtime:
            raise BudgetError(f"`{text}`, and a budget of latency on {before.runtime or RUNTIME}; expected one runtime")
        limit = requirement.bound.value if before is None else min(before.limit, requirement.bound.value)
        found["latency"] = Budget("latency", limit, runtime or (before.runtime if before is not None else ""))
    return tuple(found.values())


@dataclass(frozen=True)
class PredictedSeconds:
    """Predicts the seconds of whole detectors from texts, see `nasdsl.latency.LatencyPredictor`."""

    predictor: LatencyPredictor

    def __call__(self, text: str) -> float:
        return self.predictor(text) / 1000


def predictor_for(budgets: Sequence[Budget], space: Space, size: tuple[int, int], folder: Path) -> PredictedSeconds | None:
    """The predictor that budgets need; None if none of them limits a latency.

    Its table of measured parts is ``latency.json`` in the folder of the search, so that a resumed search has the same numbers.
    It begins as a copy of the user's table.

    Args:
        space: gives the backbone, where the text of a decoder names none, and the number of classes.
        size: height and width of the image, where it names none.

    Raises:
        MissingExtra, LatencyError: the runtime is not installed, or unknown.
    """
    runtime = next((budget.runtime or RUNTIME for budget in budgets if budget.cost == "latency"), None)
    if runtime is None:
        return None
    from nasdsl.latency import LatencyPredictor
    from nasdsl.latency.table import default_path

    table = folder / "latency.json"
    if not table.exists() and default_path().exists():
        make_folder(folder)
        write_bytes(table, default_path().read_bytes())
    backbone = space.backbone.name
    report = _Report(table)
    return PredictedSeconds(LatencyPredictor(runtime, THREADS, backbone, size, space.classes, table=table, on_part=report))


class _Report:
    """Says once that parts are measured, because the first samples take a while."""

    def __init__(self, table: Path) -> None:
        self._table, self._said = table, False

    def __call__(self, done: int, total: int) -> None:
        if not self._said:
            self._said = True
            print(f"measuring parts of detectors for their latency; they are kept in {self._table}", file=sys.stderr)
