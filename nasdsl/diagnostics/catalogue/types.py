"""NAS3xx: operands, attributes, widths and levels."""

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.diagnostic import Code

OPERANDS = Code(
    "NAS301",
    "a wrong number of operands",
    "An op takes as many operands as its definition has parameters without a value. Attributes are given by name.",
    decoder("output p3 = cat(c3)"),
    decoder("output p3 = cat(c3, c4)"),
)

UNKNOWN_ATTRIBUTE = Code(
    "NAS302",
    "an attribute that is not known",
    "Each op, primitive and section has attributes of its own; the message lists them.",
    decoder("output p3 = conv(c3, k=3, dilatation=2)"),
    decoder("output p3 = conv(c3, k=3, dilation=2)"),
)

BAD_VALUE = Code(
    "NAS303",
    "a value that an attribute does not take",
    "Numbers are whole and within the limits that the message names; a kernel is odd, so that padding can keep the "
    "resolution; a stride is a power of two, so that the result has a level; words are those that the message lists.",
    decoder("output p3 = conv(c3, k=2)"),
    decoder("output p3 = conv(c3, k=3)"),
)

MISSING_ATTRIBUTE = Code(
    "NAS304",
    "an attribute that must be set",
    "Some attributes have no default: a convolution needs its kernel size `k`, a section its `width`.",
    decoder("output p3 = conv(c3)"),
    decoder("output p3 = conv(c3, k=3)"),
)

ATTRIBUTE_TWICE = Code(
    "NAS305",
    "an attribute set twice",
    "Each attribute is set once.",
    decoder("output p3 = conv(c3, k=3, k=5)"),
    decoder("output p3 = conv(c3, k=5)"),
)

WIDTHS_DIFFER = Code(
    "NAS306",
    "a sum of different widths",
    "`add`, `mul`, `max` and `weighted_add` work element by element, so their operands have the same number of channels. "
    "Resolutions may differ: the finest wins. `concat` takes operands of any width.",
    decoder("x1 = conv_1x1(c3, width=32)\noutput p3 = sum(x1, c4)"),
    decoder("x1 = conv_1x1(c3, width=64)\noutput p3 = sum(x1, c4)"),
)

GROUPS = Code(
    "NAS307",
    "groups that do not divide the channels",
    "A grouped convolution splits both its input and its output channels into equal groups. (For raw backbone features, "
    "`adapter=none`, this is found when a backbone is chosen.)",
    decoder("output p3 = conv(c3, k=3, groups=48)"),
    decoder("output p3 = conv(c3, k=3, groups=32)"),
)

GROUP_NORM = Code(
    "NAS308",
    "a width that GroupNorm does not divide",
    "`norm=gn` is GroupNorm with 32 groups, so 32 divides the width.",
    decoder(fpn="width=48, norm=bn", head="width=48, norm=gn"),
    decoder(fpn="width=48, norm=bn", head="width=48, norm=bn"),
)

NO_LEVEL = Code(
    "NAS309",
    "a value without a level where one is needed",
    "Global pooling leaves one position, which has no stride. Such a value can be multiplied with or added to others; it "
    "cannot be resized, be an output, or be what `to=` names.",
    decoder("g = global_pool(c3, kind=max)\noutput p3 = g"),
    decoder("g = global_pool(c3, kind=max)\noutput p3 = mul(c3, sigmoid(g))"),
)

RESULTS = Code(
    "NAS310",
    "a wrong number of results",
    "A block gives as many values as stand behind its `->`, and the left side of the assignment names them all.",
    decoder("a, b, c = two(c3, c4)\noutput p3 = a", before="block two(x, y) -> (s, t) { s = sum(x, y); t = cat(x, y) }"),
    decoder("a, b = two(c3, c4)\noutput p3 = sum(a, b)", before="block two(x, y) -> (s, t) { s = sum(x, y); t = cat(x, y) }"),
)

HEAD_WIDER = Code(
    "NAS311",
    "a head wider than its pyramid",
    "The head's layers start from the pyramid's features, so `head(width=…)` is at most their width. To have a wider "
    "head, widen the features where they are put out: `output p3 = conv_1x1(x7, width=256)`.",
    decoder(head="width=128, norm=gn"),
    decoder("output p3 = conv_3x3(c3, width=128)", head="width=128, norm=gn"),
)

PYRAMID_WIDTHS = Code(
    "NAS312",
    "pyramid levels of different widths",
    "One head is applied to every level, so all outputs have the same number of channels.",
    decoder("output p3 = conv_3x3(c3), p4 = conv_3x3(c4, width=128)"),
    decoder("output p3 = conv_3x3(c3), p4 = conv_3x3(c4)"),
)

HEAD_LEVEL = Code(
    "NAS313",
    "a head's layer that changes the resolution",
    "Predictions belong to the locations of their level, so a head's layers keep the resolution.",
    decoder(layers="conv_3x3 -> down"),
    decoder(layers="conv_3x3 -> conv_3x3"),
)

UNFIT_LAYER = Code(
    "NAS314",
    "a layer that cannot take its operands",
    "A primitive that a package adds has refused these operands; its own message says why. (The example shows a built-in "
    "layer with a code of its own, because a plain installation has no such primitive.)",
    decoder("output p3 = conv(c3, k=3, groups=7)"),
    decoder("output p3 = conv(c3, k=3, groups=8)"),
)

UNKNOWN_QUANTITY = Code(
    "NAS315",
    "a requirement on something that is not known",
    "`require` bounds `macs` or `params` of fpn and head, or the number of `dangling` blocks.",
    decoder(inputs="input c3, c4\n  require flops <= 120G at 800x1088"),
    decoder(inputs="input c3, c4\n  require macs <= 120G at 800x1088"),
)
