"""The check of a proposal before its evaluation: front end, requirements, digest and cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from nasdsl.diagnostics import DiagnosticError
from nasdsl.search.costs import Indices, KnownCosts, detector_figures
from nasdsl.search.objective import AIMS
from nasdsl.spaces import Filled, Space, SpaceError


@dataclass(frozen=True)
class CheckResult:
    """Digest and costs of a text that may be evaluated.

    Attributes:
        digest: texts with the same digest are evaluated once.
        figures: costs for one image: ``macs`` and ``params`` of fpn and head, ``macs_total`` and ``params_total`` with the
            backbone.
    """

    digest: str
    figures: Mapping[str, float] = field(default_factory=dict)


Check: TypeAlias = Callable[[Filled], CheckResult]
"""Raises DiagnosticError or SpaceError if a text is to be rejected."""


def make_check(space: Space, size: tuple[int, int]) -> Check:
    """The check of a space's samples.

    Args:
        size: height and width of the image that costs are counted for, where a text names none.
    """

    def check(text: Filled) -> CheckResult:
        if not space.keeps(text.indices):
            raise SpaceError("it cannot be built, or breaks a requirement")
        decoder = space.load(text)
        cost = decoder.cost(decoder.size or size, decoder.backbone or space.backbone.name, space.classes)
        figures = {"macs": cost.decoder.macs, "params": cost.decoder.params, **detector_figures(cost)}
        return CheckResult(decoder.digest, figures)

    return check


class OverBudget(Protocol):
    """Says whether the decisions of a filling exceed a budget; see `nasdsl.search.budget.BudgetedSpace.over_budget`."""

    def over_budget(self, indices: Indices) -> str | None: ...


def with_costs(check: Check, costs: KnownCosts, limited: OverBudget | None) -> Check:
    """A check that also rejects what is over a budget, and gives the costs that `check` does not count, such as a latency."""

    def checked(text: Filled) -> CheckResult:
        found = check(text)
        reason = None if limited is None else limited.over_budget(text.indices)
        if reason is not None:
            raise SpaceError(reason)
        more = {AIMS[name]: value for name, value in (costs(text.indices) or {}).items() if AIMS[name] not in found.figures}
        return replace(found, figures={**found.figures, **more})

    return checked


def rejection_reason(error: DiagnosticError | SpaceError) -> str:
    """Why a text was rejected, on one line."""
    if isinstance(error, DiagnosticError):
        errors = [diagnostic for diagnostic in error.diagnostics if diagnostic.severity == "error"]
        first = (errors or list(error.diagnostics))[0]
        return f"{first.code}: {first.message}"
    return str(error)
