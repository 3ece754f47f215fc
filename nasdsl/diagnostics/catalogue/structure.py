"""NAS4xx: what a decoder must have; files used by files; limits."""

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.diagnostic import Code

NO_DECODER = Code(
    "NAS401",
    "an empty text",
    "A file holds a decoder, or definitions for other files to use.",
    "# nothing here",
    decoder(),
)

TWO_DECODERS = Code(
    "NAS402",
    "two decoders in one file",
    "A file is one decoder, so that its name is enough to speak of it. Put what several share into a file of definitions "
    'and bring it in with `use "file.nas"`.',
    decoder() + "\n\n" + decoder().replace("decoder d ", "decoder e "),
    decoder(),
)

MISSING_PART = Code(
    "NAS403",
    "a decoder that lacks a part",
    "A decoder has `input`, one `fpn`, one `head` (with one chain, or with `cls:` and `box:`) and one `predict`.",
    decoder(predict=""),
    decoder(),
)

TWO_PARTS = Code(
    "NAS404",
    "a part that stands twice",
    "A decoder has one `fpn`, one `head` and one `predict`; a head has one chain for each tower.",
    decoder(predict="predict fcos(centerness=cls)\n  predict fcos(centerness=box)"),
    decoder(predict="predict fcos(centerness=box)"),
)

NO_OUTPUT = Code(
    "NAS405",
    "an fpn without an output",
    "`output pK = value` names the features that the head reads, one for each level of the pyramid.",
    decoder("x1 = conv_3x3(c3)"),
    decoder("x1 = conv_3x3(c3)\noutput p3 = x1"),
)

NO_PYRAMID_LEVEL = Code(
    "NAS406",
    "an output of no level",
    "An output is called p1 to p12: pK is the pyramid's feature of stride 2^K, and a value of another stride is resized to it.",
    decoder("output top = conv_3x3(c3)"),
    decoder("output p3 = conv_3x3(c3)"),
)

SHARE_BEYOND = Code(
    "NAS407",
    "a sharing index beyond the layers",
    "`share=k` gives each level weights of its own for the layers before index k. With n layers it is 0 (all shared) to "
    "n (none shared).",
    decoder(head="width=64, norm=gn, share=3"),
    decoder(head="width=64, norm=gn, share=2"),
)

UNKNOWN_TOWER = Code(
    "NAS408",
    "an unknown tower",
    "A head has the towers `cls` (classes) and `box` (boxes). Centerness is read from one of them: "
    "`predict fcos(centerness=cls|box)`.",
    decoder(layers="cls: conv_3x3 -> conv_3x3 box: conv_3x3 ctr: conv_3x3"),
    decoder(layers="cls: conv_3x3 -> conv_3x3 box: conv_3x3"),
)

MISPLACED = Code(
    "NAS409",
    "a statement in a block that belongs in the fpn",
    "`output` and `merge` speak of the decoder's pyramid, so they stand in the `fpn`. A block gives its results by name.",
    decoder("a = one(c3)\noutput p3 = a", before="block one(x) -> (y) { y = conv_3x3(x) output p4 = y }"),
    decoder("a = one(c3)\noutput p3 = a", before="block one(x) -> (y) { y = conv_3x3(x) }"),
)

TOO_MANY = Code(
    "NAS410",
    "a decoder that expands beyond the limits",
    "`repeat` makes at most 100,000 statements, a decoder has at most 250,000 layers and a head's chain 10,000, calls nest at "
    "most 150 deep, the bodies of ops included, and files that use files at most 64.",
    decoder("x = skip(c3)\nrepeat 1000000000 { x = conv_3x3(x) }\noutput p3 = x"),
    decoder("x = skip(c3)\nrepeat 10 { x = conv_3x3(x) }\noutput p3 = x"),
)

NOT_FOUND = Code(
    "NAS411",
    "a used file that cannot be read",
    "The path of `use` and `from` is relative to the file that it stands in.",
    'use "no_such_file.nas"\n\n' + decoder(),
    decoder(),
)

CYCLE = Code(
    "NAS412",
    "files that use each other in a circle",
    "A file that is being read is reached from itself. Move what both need into a third file. (The example is called "
    "example.nas.)",
    'use "example.nas"\n\n' + decoder(),
    decoder(),
)

OUTSIDE = Code(
    "NAS413",
    "a path that leaves the folder",
    "A text can bring in files of its own folder and the folders below it, and no others: reading somebody's decoder "
    "never reads the rest of the disk.",
    'use "../elsewhere.nas"\n\n' + decoder(),
    decoder(),
)

NO_FOLDER = Code(
    "NAS414",
    "a path in a text that is in no file",
    "Standard input, or a text given to `nasdsl.loads`, lies in no folder, so `use` and `from` have nothing to be relative "
    "to. (The example is wrong only when it is read from standard input.)",
    'use "ops.nas"\n\n' + decoder(),
    decoder(),
)

NO_SECTION = Code(
    "NAS415",
    "a file without the section that is taken from it",
    '`fpn from "file"` and `head from "file"` take the section of the decoder in that file. (The example finds a file '
    "of definitions under the name ops.nas.)",
    decoder().replace("fpn(width=64, norm=bn) {\n    output p3 = conv_3x3(c3)\n  }", 'fpn from "ops.nas"'),
    decoder(),
)

CIRCULAR_MERGE = Code(
    "NAS416",
    "a dangling value that reads what it is merged into",
    "`merge dangling` adds every unread value bound above it to its targets. A value that itself reads one of these outputs "
    "would read its own sum. Put the `merge` above it, or let something read it.",
    decoder("output p3 = c3\nx = relu(p3)\nmerge dangling into p3"),
    decoder("output p3 = c3\nmerge dangling into p3\nx = relu(p3)\noutput p4 = x"),
)
