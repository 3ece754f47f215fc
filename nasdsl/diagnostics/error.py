"""The exception for a text with errors."""

from __future__ import annotations

from collections.abc import Iterable

from nasdsl.diagnostics.diagnostic import Diagnostic
from nasdsl.diagnostics.render import render_all


class DiagnosticError(ValueError):
    """A text with errors. ``diagnostics`` holds all its findings, warnings included, in the order of the text."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return "\n" + render_all(self.diagnostics)
