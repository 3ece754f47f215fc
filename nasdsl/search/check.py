"""What is found out about a proposal before anything is spent on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from nasdsl.diagnostics import DiagnosticError
from nasdsl.spaces import Filled, Space, SpaceError


@dataclass(frozen=True)
class Checked:
    """A text that is fit to be evaluated.

    Attributes:
        digest: texts with the same one are evaluated once.
        figures: costs, such as ``macs`` and ``params`` of fpn and head for one image.
    """

    digest: str
    figures: Mapping[str, int] = field(default_factory=dict)


Check: TypeAlias = Callable[[Filled], Checked]
"""Raises DiagnosticError or SpaceError for a text that is to be rejected."""


def checker(space: Space, size: tuple[int, int]) -> Check:
    """The check of a space's samples: requirements, the whole front end, digest and cost at `size` (height, width)."""

    def check(text: Filled) -> Checked:
        if not space.keeps(text.indices):
            raise SpaceError("it cannot be built, or breaks a requirement")
        decoder = space.load(text)
        cost = decoder.cost(size, space.backbone.name, space.classes).decoder
        return Checked(decoder.digest, {"macs": cost.macs, "params": cost.params})

    return check


def rejection(error: DiagnosticError | SpaceError) -> str:
    """Why a text was rejected, on one line."""
    if isinstance(error, DiagnosticError):
        errors = [problem for problem in error.diagnostics if problem.severity == "error"]
        first = (errors or list(error.diagnostics))[0]
        return f"{first.code}: {first.message}"
    return str(error)
