"""NAS2xx: what a word refers to."""

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.diagnostic import Code

UNKNOWN_OP = Code(
    "NAS201",
    "an op that nothing defines",
    "The word before a bracket, or in a head's chain, names an op, an aggregation, a block or a primitive. Those of the "
    "prelude are always there; others are defined in the file or in one that it brings in with `use`.",
    decoder("output p3 = dcnv_3x3(c3)"),
    decoder("output p3 = dconv_3x3(c3)"),
)

UNKNOWN_VALUE = Code(
    "NAS202",
    "a value that nothing binds",
    "In an fpn, a name refers to an input or to a value bound further up. In an op or a block only its parameters and "
    "what its own statements bind are known.",
    decoder("x1 = conv_3x3(c3)\noutput p3 = conv_3x3(x2)"),
    decoder("x1 = conv_3x3(c3)\noutput p3 = conv_3x3(x1)"),
)

FORWARD = Code(
    "NAS203",
    "a value used before it is bound",
    "Statements are read from top to bottom; a value can be used only below the statement that binds it.",
    decoder("x1 = add(c3, x2)\nx2 = conv_3x3(c4)\noutput p3 = x1"),
    decoder("x2 = conv_3x3(c4)\nx1 = add(c3, x2)\noutput p3 = x1"),
)

BOUND_TWICE = Code(
    "NAS204",
    "a name bound twice",
    "Each value, input and output has a name of its own. Only inside `repeat` may a name be bound again, because there "
    "the next round reads what the last one bound.",
    decoder("x1 = conv_3x3(c3)\nx1 = conv_3x3(c4)\noutput p3 = x1"),
    decoder("x1 = conv_3x3(c3)\nx2 = conv_3x3(c4)\noutput p3 = sum(x1, x2)"),
)

UNKNOWN_INPUT = Code(
    "NAS205",
    "an input that no backbone has",
    "Inputs are the backbone's features c1 to c7; cK has stride 2^K.",
    decoder(inputs="input c3, c4, feature5"),
    decoder(inputs="input c3, c4, c5"),
)

DEFINED_TWICE = Code(
    "NAS206",
    "an op, block, choice or parameter defined twice",
    "In one file a name is defined once. (A definition may hide one of the prelude, or of a file that is used.)",
    decoder("output p3 = mine(c3)", before="op mine(x) = conv_3x3(x)\nop mine(x) = conv_1x1(x)"),
    decoder("output p3 = mine(c3)", before="op mine(x) = conv_3x3(x)\nop yours(x) = conv_1x1(x)"),
)

RECURSIVE = Code(
    "NAS207",
    "an op that calls itself",
    "An op is expanded where it is called, so it cannot call itself, neither directly nor by way of others. For a chain "
    "of layers use `repeat` in a block.",
    decoder("output p3 = deep(c3)", before="op deep(x) = deep(conv_3x3(x))"),
    decoder("output p3 = deep(c3)", before="op deep(x) = conv_3x3(conv_3x3(x))"),
)

UNKNOWN_DETECTOR = Code(
    "NAS208",
    "an unknown kind of prediction",
    "`predict fcos(centerness=cls|box, boxes=exp|relu)` predicts at locations, `predict retinanet(anchors=9)` at anchors.",
    decoder(predict="predict focs(centerness=cls)"),
    decoder(predict="predict fcos(centerness=cls)"),
)
