"""Source texts, spans and diagnostics, and how they are printed. Imports nothing else of nasdsl."""

from nasdsl.diagnostics.diagnostic import Code, Diagnostic, did_you_mean, printable
from nasdsl.diagnostics.error import DiagnosticError, is_message
from nasdsl.diagnostics.render import explain, render, render_all
from nasdsl.diagnostics.span import Anchor, Moving, Source, Span

__all__ = [
    "Anchor",
    "Code",
    "Diagnostic",
    "DiagnosticError",
    "Moving",
    "Source",
    "Span",
    "did_you_mean",
    "explain",
    "is_message",
    "printable",
    "render",
    "render_all",
]
