"""NAS4xx: what a decoder must have; files used by files; limits."""

from __future__ import annotations

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.diagnostic import Code, Diagnostic
from nasdsl.diagnostics.span import Span

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
    "A decoder has `input`, one `fpn`, one `head` (with one chain, with `cls:` and `box:`, or with a trunk `both:`) and one "
    "`predict`.",
    decoder(predict=""),
    decoder(),
)

TWO_PARTS = Code(
    "NAS404",
    "a part that stands twice",
    "A decoder has one `fpn`, one `head`, one `predict` and at most one `detector`; a head has one chain for each tower.",
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
    "n (none shared); the layers of a trunk `both:` are counted first.",
    decoder(head="width=64, norm=gn, share=3"),
    decoder(head="width=64, norm=gn, share=2"),
)

UNKNOWN_TOWER = Code(
    "NAS408",
    "an unknown tower",
    "A head has the towers `cls` (classes) and `box` (boxes), and may have a trunk `both` that these go on from. Centerness is "
    "read from one of the towers: `predict fcos(centerness=cls|box)`.",
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
    "`repeat` makes at most 20,000 statements, a decoder has at most 25,000 layers, 25,000 values and 10,000 holes, and a "
    "head's chain 10,000 layers. Calls nest at most 150 deep, the bodies of ops included, holes, choices, and ops and blocks "
    "with holes at most 50, and files that use files at most 64. Ops and blocks with holes are expanded for each of their "
    "calls, into at most 30,000 calls, statements and alternatives.",
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
    decoder("output p3 = c3\nx = down(p3)\nmerge dangling into p3"),
    decoder("output p3 = c3\nmerge dangling into p3\nx = down(p3)\noutput p4 = x"),
)

SHARED_ATTRIBUTE = Code(
    "NAS417",
    "an attribute of a shared op",
    "All calls of a `shared` op have one set of weights, so there is nothing that a call could set. What its body reads, such "
    "as a `let` above it, is read where it is defined.",
    decoder("shared refine(x, k=3) = conv(x, k=k)\noutput p3 = refine(c3), p4 = refine(c4, k=5)"),
    decoder("let k = 3\nshared refine(x) = conv(x, k=k)\noutput p3 = refine(c3), p4 = refine(c4)"),
)

# ------------------------------------------------------------------------------------------------ messages


def empty_text(span: Span) -> Diagnostic:
    return NO_DECODER(span, "the text is empty", label="expected `decoder name { … }`, or definitions")


def only_definitions(span: Span) -> Diagnostic:
    return NO_DECODER(span, "the text holds definitions and no decoder", label="expected `decoder name { … }`")


def second_decoder(span: Span, first: Span) -> Diagnostic:
    return TWO_DECODERS(
        span, "a second decoder in one file", label="expected one decoder a file", related=[(first, "the first one")],
        help="put it into a file of its own",
    )  # fmt: skip


def missing_part(span: Span, decoder: str, part: str, expected: str | None = None) -> Diagnostic:
    """A decoder without one of its parts; `expected` is an example of it."""
    label = f"expected `{part}` in it" if expected is None else f"expected `{expected}`"
    return MISSING_PART(span, f"the decoder `{decoder}` has no `{part}`", label=label)


def second_part(span: Span, part: str, first: Span) -> Diagnostic:
    return TWO_PARTS(span, f"a second `{part}`", label="expected one", related=[(first, "the first one")])


def missing_tower(span: Span, name: str) -> Diagnostic:
    return MISSING_PART(
        span, f"the head has no chain `{name}:`", label="expected cls: and box:, a trunk both:, or one chain for both"
    )


def unknown_tower(span: Span, label: str) -> Diagnostic:
    return UNKNOWN_TOWER(span, f"no tower is called `{label}`", label="expected cls, box, or both for a trunk")


def no_output(span: Span) -> Diagnostic:
    return NO_OUTPUT(span, "the fpn has no output", label="expected `output p3 = …` in it")


def no_pyramid_level(span: Span, name: str) -> Diagnostic:
    return NO_PYRAMID_LEVEL(span, f"the output `{name}` has no level", label="expected p1 to p12: pK has stride 2^K")


def share_beyond(span: Span, share: int, layers: int) -> Diagnostic:
    return SHARE_BEYOND(
        span, f"weights are shared from layer {share} on, and the head has {layers}",
        label=f"expected 0 (all shared) to {layers} (none shared)",
    )  # fmt: skip


def only_in_fpn(span: Span, statement: str) -> Diagnostic:
    return MISPLACED(span, f"`{statement}` stands in a block", label="expected in the `fpn` itself")


def shared_attribute(span: Span, name: str) -> Diagnostic:
    return SHARED_ATTRIBUTE(
        span, f"`{name}` is `shared`: its calls have one set of weights, and no attributes", label="expected features only",
        help="`op` defines one with attributes, and weights of each call's own",
    )  # fmt: skip


def circular_merge(span: Span, name: str) -> Diagnostic:
    return CIRCULAR_MERGE(
        span, f"`{name}` dangles and reads what it would be merged into", label="this closes a circle",
        help=f"move the `merge` above `{name}`, or give `{name}` a reader",
    )  # fmt: skip


def too_many_layers(span: Span, limit: int) -> Diagnostic:
    return TOO_MANY(span, f"the decoder expands into more than {limit:,} layers or values", label="the limit is met here")


def too_many_statements(span: Span, limit: int, rounds: int) -> Diagnostic:
    return TOO_MANY(span, f"`repeat` makes more than {limit:,} statements", label=f"{rounds:,} rounds")


def too_many_holes(span: Span, limit: int) -> Diagnostic:
    return TOO_MANY(span, f"the decoder has more than {limit:,} holes to fill", label="the limit is met here")


def too_many_copies(span: Span, limit: int) -> Diagnostic:
    """Calls of ops and blocks with holes, each of which has decisions of its own."""
    message = f"ops and blocks with holes expand into more than {limit:,} calls, statements and alternatives"
    return TOO_MANY(span, message, label="the limit is met here", help="each call of one has holes of its own")


def chain_too_long(span: Span, limit: int) -> Diagnostic:
    return TOO_MANY(span, f"a chain of more than {limit:,} layers", label="the limit is met here")


def too_many_dependencies(span: Span, what: str, holes: int, combinations: int) -> Diagnostic:
    """Holes that decide how often something is repeated, in more combinations than are told apart."""
    message = f"{what} depends on more than {holes} holes, or on more than {combinations} combinations of some"
    return TOO_MANY(span, message, label="the limit is met here")


def calls_too_deep(span: Span, limit: int) -> Diagnostic:
    return TOO_MANY(span, f"ops call ops more than {limit} deep", label="the limit is met here")


def holes_too_deep(span: Span, limit: int) -> Diagnostic:
    message = f"holes, choices, and ops and blocks with holes stand in each other more than {limit} deep"
    return TOO_MANY(span, message, label="the limit is met here")


def value_too_long(span: Span, limit: int) -> Diagnostic:
    """A `let` whose value holes decide, and which reads others."""
    message = f"a value of more than {limit} operators and holes, with those of the `let`s that it reads"
    return TOO_MANY(span, message, label="the limit is met here")


def files_too_deep(span: Span, limit: int) -> Diagnostic:
    return TOO_MANY(span, f"files use files more than {limit} deep", label="this one is not read")


def not_found(span: Span, reason: str) -> Diagnostic:
    return NOT_FOUND(span, f"cannot read {reason}", label="named here", help="paths are relative to the file")


def no_folder(span: Span, path: str) -> Diagnostic:
    return NO_FOLDER(
        span, f'"{path}" is looked for beside the file, and this text is in no file', label="a path needs a folder",
        help="save the text in a file",
    )  # fmt: skip


def outside(span: Span, path: str, folder: str) -> Diagnostic:
    return OUTSIDE(
        span, f'"{path}" leads out of the folder of the file that is read', label=f"expected a file below {folder}/",
        help="copy the file into this folder",
    )  # fmt: skip


def cycle(span: Span, name: str, chain: str) -> Diagnostic:
    return CYCLE(
        span, f"{name} is reached from itself: {chain}", label="this closes the circle",
        help="move what both files need into a third one",
    )  # fmt: skip


def no_section(span: Span, path: str, section: str) -> Diagnostic:
    return NO_SECTION(span, f'"{path}" has no `{section}` to take', label="expected a decoder in it")
