"""NAS5xx: decoders with holes."""

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.diagnostic import Code

OPEN_HOLES = Code(
    "NAS501",
    "a decoder with open holes",
    "A decoder with holes (`?name`, `?(a | b)`, `?(0..6)`) is a search space: it checks, but there is nothing to compile "
    "before each hole is filled.",
    decoder("output p3 = ?(conv_1x1 | conv_3x3)(c3)"),
    decoder("output p3 = conv_3x3(c3)"),
)
