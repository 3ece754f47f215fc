"""NAS9xx: warnings. A file with nothing worse checks."""

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.diagnostic import Code

UNREAD = Code(
    "NAS901",
    "a value that nothing reads",
    "No block reads this value, it is no output, and no `merge dangling` takes it in: its layers are removed and cost nothing.",
    decoder("x1 = conv_3x3(c3)\nx2 = conv_3x3(c4)\noutput p3 = x1"),
    decoder("x1 = conv_3x3(c3)\nx2 = conv_3x3(c4)\noutput p3 = sum(x1, x2)"),
    severity="warning",
)
