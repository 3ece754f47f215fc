"""NAS9xx: warnings. A file with nothing worse checks."""

from __future__ import annotations

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.diagnostic import Code, Diagnostic
from nasdsl.diagnostics.span import Span

UNREAD = Code(
    "NAS901",
    "a value that nothing reads",
    "No block reads this value, it is no output, and no `merge dangling` takes it in: its layers are removed and cost nothing.",
    decoder("x1 = conv_3x3(c3)\nx2 = conv_3x3(c4)\noutput p3 = x1"),
    decoder("x1 = conv_3x3(c3)\nx2 = conv_3x3(c4)\noutput p3 = sum(x1, x2)"),
    severity="warning",
)

# ------------------------------------------------------------------------------------------------ messages


def unread(span: Span, name: str, *, is_pyramid_name: bool) -> Diagnostic:
    """A value that nothing reads; `is_pyramid_name`: it is called p3 or the like, so an `output` was probably meant."""
    return UNREAD(
        span, f"nothing reads `{name}`", label="its layers are left out",
        help=f"`output {name} = …` makes it a level of the pyramid"
        if is_pyramid_name
        else "read it, or `merge dangling into …` the outputs",
    )  # fmt: skip
