"""Spans of source text, findings about them, and how they are shown. Imports nothing else of nasdsl."""

from nasdsl.diagnostics.diagnostic import Code, Diagnostic, DiagnosticError, did_you_mean, shown
from nasdsl.diagnostics.render import explain, render, render_all
from nasdsl.diagnostics.span import Source, Span

__all__ = [
    "Code",
    "Diagnostic",
    "DiagnosticError",
    "Source",
    "Span",
    "did_you_mean",
    "explain",
    "render",
    "render_all",
    "shown",
]
