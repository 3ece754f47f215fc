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

PLUGIN_FAILED = Code(
    "NAS902",
    "a package of primitives that cannot be loaded",
    "An op is defined neither in the text nor by nasdsl, and an installed package that may define it (one with entry points "
    "of the group `nasdsl.primitives`) raises an error when it is imported. The op itself is reported as NAS201. (The example "
    "stands for a text with a primitive of such a package; an installation without one gives NAS201 only.)",
    decoder("output p3 = shuffle(c3)"),
    decoder("output p3 = conv_3x3(c3)"),
    severity="warning",
)
