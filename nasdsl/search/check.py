"""The check of a proposal before its evaluation: front end, requirements, digest and cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from nasdsl.diagnostics import DiagnosticError
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
    figures: Mapping[str, int] = field(default_factory=dict)


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
        own, total = cost.decoder, cost.total
        figures = {"macs": own.macs, "params": own.params, "macs_total": total.macs, "params_total": total.params}
        return CheckResult(decoder.digest, figures)

    return check


def rejection_reason(error: DiagnosticError | SpaceError) -> str:
    """Why a text was rejected, on one line."""
    if isinstance(error, DiagnosticError):
        errors = [diagnostic for diagnostic in error.diagnostics if diagnostic.severity == "error"]
        first = (errors or list(error.diagnostics))[0]
        return f"{first.code}: {first.message}"
    return str(error)
