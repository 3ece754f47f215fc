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

UNKNOWN_CHOICE = Code(
    "NAS502",
    "a hole of no choice",
    "`?name` is filled with an alternative of `choice name = a | b`, which stands in the file or in one that it uses; "
    "`?pool` is any value in scope.",
    decoder("output p3 = ?opp(c3)", before="choice op = conv_1x1 | conv_3x3"),
    decoder("output p3 = ?op(c3)", before="choice op = conv_1x1 | conv_3x3"),
)

MISPLACED_HOLE = Code(
    "NAS503",
    "a hole, or an alternative, in a place that cannot take it",
    "A hole stands for a value, for the op of a call or of a head's layer, or for an attribute; `repeat` needs a number "
    "(choose among blocks of different depth instead). Before brackets only names of ops can stand, or names with "
    "attributes such as `conv(k=3)`.",
    decoder("x = skip(c3)\nrepeat ?(1..3) { x = conv_3x3(x) }\noutput p3 = x"),
    decoder("x = ?(once | twice)(c3)\noutput p3 = x", before="op once(x) = conv_3x3(x)\nop twice(x) = once(once(x))"),
)

BAD_RANGE = Code(
    "NAS504",
    "a range without alternatives",
    "`?(first..last)` is a whole number from first to last, both included; there are at most 10,000 of them.",
    decoder(head="width=64, norm=gn, share=?(2..0)"),
    decoder(head="width=64, norm=gn, share=?(0..2)"),
)

EMPTY_POOL = Code(
    "NAS505",
    "a pool with nothing in it",
    "`?pool` is any value in scope: the inputs and what was bound above. In an op or a block it draws from the parameters "
    "and what its own statements have bound. In a head there is none.",
    decoder(layers="conv_3x3 -> ?pool"),
    decoder(layers="conv_3x3 -> ?(conv_1x1 | skip)"),
)

CHOICE_IN_CIRCLE = Code(
    "NAS506",
    "a choice that contains itself",
    "An alternative may be a hole of another choice, but not, directly or by way of others, of the same.",
    decoder("output p3 = ?op(c3)", before="choice op = conv_1x1 | ?op"),
    decoder("output p3 = ?op(c3)", before="choice op = conv_1x1 | conv_3x3"),
)

SAME_ALTERNATIVE = Code(
    "NAS507",
    "an alternative that stands twice",
    "The alternatives of a choice are different, so that a filled text tells which one it holds.",
    decoder("output p3 = ?op(c3)", before="choice op = conv_1x1 | conv_3x3 | conv_1x1"),
    decoder("output p3 = ?op(c3)", before="choice op = conv_1x1 | conv_3x3"),
)

REQUIREMENT_BROKEN = Code(
    "NAS508",
    "a decoder that breaks its own requirement",
    "`require` bounds the multiply-accumulates and parameters of fpn and head, or the number of dangling blocks. They are "
    "counted for ResNet-50 and 80 classes where nothing else is named, at 800x1088 where the requirement names no size. In "
    "a space a sample that breaks one is drawn again.",
    decoder(inputs="input c3, c4\n  require macs <= 1M at 800x1088"),
    decoder(inputs="input c3, c4\n  require macs <= 120G at 800x1088"),
)

RESERVED_CHOICE = Code(
    "NAS509",
    "a choice called pool",
    "`?pool` always means any value in scope, so no `choice` can have this name.",
    decoder("output p3 = conv_3x3(c3)", before="choice pool = skip | conv_3x3"),
    decoder("output p3 = conv_3x3(c3)", before="choice pools = skip | conv_3x3"),
)
