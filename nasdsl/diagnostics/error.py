"""The exception for a text with errors, and which exceptions are messages."""

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


def is_message(error: BaseException) -> bool:
    """Whether an error's text is written for users: it is a `ValueError` or `OSError` of this package, not one of Python's."""
    return isinstance(error, ValueError | OSError) and type(error).__module__.startswith("nasdsl.")
