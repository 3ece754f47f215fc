"""NAS5xx: decoders with holes."""

from __future__ import annotations

from collections.abc import Iterable, Set

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.diagnostic import Code, Diagnostic, did_you_mean
from nasdsl.diagnostics.span import Span

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
    "A hole stands for a value, for the op of a call, for a layer or a chain of layers of a head, for an attribute, or for how "
    "often something is repeated. Names are the same in every filling, and so are the ends of a range and the defaults of an "
    "op. Before brackets only names of ops can stand, or names with attributes such as `conv(k=3)`.",
    decoder("x3 = conv_3x3(c3)\nx4 = conv_1x1(c3)\noutput p3 = relu(x[?(3 | 4)])"),
    decoder("x3 = conv_3x3(c3)\nx4 = conv_1x1(c3)\noutput p3 = relu(?(x3 | x4))"),
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
    "counted for the backbone that the decoder names, or ResNet-50, and 80 classes where nothing else is said; at the size of "
    "its detector, or 800x1088, where the requirement names no size. In a space a sample that breaks one is drawn again.",
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

NOT_ALWAYS_BOUND = Code(
    "NAS510",
    "a value that some fillings do not have",
    "Where a hole decides how often a `repeat` runs, a name that only its turns bind is there only in the fillings that have "
    "the turn. Below the `repeat` it can be read if it is bound above as well: with no turns it is that value.",
    decoder("repeat ?(0..2) { x = conv_3x3(c3) }\noutput p3 = x"),
    decoder("x = c3\nrepeat ?(0..2) { x = conv_3x3(x) }\noutput p3 = x"),
)

NO_OPERANDS = Code(
    "NAS511",
    "a value without operands",
    "`none` leaves an operand out: of `add`, `max`, `weighted_add`, `concat` and of what is made of them, such as `sum` and "
    "`cat`. What any other op makes of nothing is nothing. Where a value is needed (a name, an output, a layer of a head), "
    "something has to be left. In a space such a filling is no decoder, and another one is drawn.",
    decoder("x = sum(none(c3), none(c4))\noutput p3 = x"),
    decoder("x = sum(conv_3x3(c3), none(c4))\noutput p3 = x"),
)

BAD_WEIGHT = Code(
    "NAS512",
    "an alternative that is never drawn",
    "`a : 3 | b` draws a three times as often as b. A weight is a number above 0, and 1 where none is given. It says how often "
    "samples hold an alternative, and not which samples there are: what is never to be drawn is left out.",
    decoder("output p3 = ?op(c3)", before="choice op = conv_1x1 : 0 | conv_3x3"),
    decoder("output p3 = ?op(c3)", before="choice op = conv_1x1 : 0.5 | conv_3x3"),
)

SAME_OPERANDS = Code(
    "NAS513",
    "operands that do not differ",
    "`distinct` behind a call says that no two of its operands are the same: one value, or one op with the same attributes of "
    "the same operands. In a space a filling that breaks it is no decoder, and another one is drawn.",
    decoder("x = sum(conv_3x3(c3), conv_3x3(c3)) distinct\noutput p3 = x"),
    decoder("x = sum(conv_3x3(c3), conv_1x1(c3)) distinct\noutput p3 = x"),
)

# ------------------------------------------------------------------------------------------------ messages


def open_holes(span: Span, decoder: str, count: int) -> Diagnostic:
    return OPEN_HOLES(
        span, f"`{decoder}` has {count} open hole{'' if count == 1 else 's'}: it is a search space",
        label="the first of them", help="`nasdsl sample` fills them; or write an alternative in place of each",
    )  # fmt: skip


def no_operands(span: Span) -> Diagnostic:
    return NO_OPERANDS(
        span, "`none` leaves nothing of this value", label="expected an operand that stays",
        help="`skip` hands its operand on; `none` leaves it out, where another one is left",
    )  # fmt: skip


def none_as_layer(span: Span) -> Diagnostic:
    return MISPLACED_HOLE(
        span, "`none` among the layers of a head", label="it leaves nothing", help="`skip` is the layer that is not there"
    )


def bad_weight(span: Span, weight: str) -> Diagnostic:
    return BAD_WEIGHT(span, f"an alternative of weight {weight}", label="expected a number above 0")


def same_operands(span: Span) -> Diagnostic:
    return SAME_OPERANDS(span, "two operands of a call that is `distinct` are the same", label="expected operands that differ")


def distinct_of_one(span: Span) -> Diagnostic:
    return SAME_OPERANDS(span, "`distinct` behind a call of fewer than two operands", label="expected operands that can differ")


def unknown_choice(span: Span, name: str, known: Iterable[str]) -> Diagnostic:
    guess = did_you_mean(name, [*known, "pool"])
    return UNKNOWN_CHOICE(
        span, f"no choice is called `{name}`", label="expected the name of a `choice`, or pool",
        help=f"did you mean `?{guess}`?" if guess else f"define it: `choice {name} = a | b`",
        fix=f"?{guess}" if guess else None,
    )  # fmt: skip


def too_many_counts(count: Span, limit: int) -> Diagnostic:
    """Holes that together give more counts of a `repeat`, or of a layer of a chain, than are told apart."""
    return BAD_RANGE(
        count, f"the holes of this count have more than {limit:,} combinations", label="too many to tell apart",
        help="let fewer of them decide it",
    )  # fmt: skip


def not_always_bound(span: Span, name: str, bound: Span) -> Diagnostic:
    """A value that is bound in a turn of a `repeat` which some fillings do not have."""
    return NOT_ALWAYS_BOUND(
        span, f"`{name}` is not bound in every filling", label="read here, where it may not exist",
        help=f"bind it above the `repeat` as well, such as `{name} = …`, or read it where the turn is there",
        related=[(bound, "bound here, in a turn that not every filling has")],
    )  # fmt: skip


def chain_outside_head(span: Span) -> Diagnostic:
    """A chain of layers among the alternatives of a hole that is no step of a head."""
    return MISPLACED_HOLE(
        span, "a chain of layers outside of a head", label="only a step of a head's chain can be several layers",
        help="write it as an op: `op twice(x) = sep_3x3(sep_3x3(x))`",
    )  # fmt: skip


def not_a_layer(span: Span) -> Diagnostic:
    """What stands in a chain of a hole's alternative, and names no op."""
    return MISPLACED_HOLE(
        span, "this cannot be a layer of a head", label="expected the name of an op, or one with attributes: conv(k=3)"
    )  # fmt: skip


def hole_as_index(hole: Span, index: Span) -> Diagnostic:
    """A hole that numbers a name; `index` is the place in brackets."""
    return MISPLACED_HOLE(
        hole, "a hole where a name needs its number", label="names are the same in every filling",
        help="choose among the values themselves: `?(x1 | x2)`",
        related=[] if hole == index else [(index, "a name reads it here")],
    )  # fmt: skip


def hole_as_bound(hole: Span, bound: Span) -> Diagnostic:
    """A hole that decides an end of another hole's range."""
    return MISPLACED_HOLE(
        hole, "a hole where a range needs a number", label="a range is the same in every filling",
        help="write the largest range, and let `require` reject what is too large",
        related=[] if hole == bound else [(bound, "the range reads it here")],
    )  # fmt: skip


def hole_as_results(hole: Span, op: str, name: str) -> Diagnostic:
    """A hole that decides how many values a call gives."""
    return MISPLACED_HOLE(
        hole, f"a hole decides how many values `{op}` gives", label="an assignment has the same names in every filling",
        help=f"choose among what is done with them, and give `{name}` a number",
    )  # fmt: skip


def hole_as_default(hole: Span, op: str, name: str) -> Diagnostic:
    """A hole as the default of an op's attribute."""
    return MISPLACED_HOLE(
        hole, f"a hole as the default of `{name}`", label="a default is a fixed value",
        help=f"give the hole where the op is called: `{op}(…, {name}=?(…))`",
    )  # fmt: skip


def not_callable(span: Span) -> Diagnostic:
    """An alternative of a hole before brackets that no op's name is."""
    return MISPLACED_HOLE(
        span, "this cannot stand before operands", label="expected the name of an op, or one with attributes: conv(k=3)"
    )  # fmt: skip


def bad_range(span: Span, first: int, last: int, limit: int) -> Diagnostic:
    return BAD_RANGE(
        span, f"the range {first}..{last} has no alternatives or too many",
        label=f"expected first <= last, and at most {limit:,} of them",
    )  # fmt: skip


def empty_pool(span: Span) -> Diagnostic:
    return EMPTY_POOL(span, "no value is in scope for `?pool`", label="nothing to choose")


def choice_in_circle(span: Span, name: str) -> Diagnostic:
    return CHOICE_IN_CIRCLE(span, f"the choice `{name}` contains itself", label="inside itself")


def reserved_choice(span: Span) -> Diagnostic:
    return RESERVED_CHOICE(
        span, "a choice called `pool`", label="`?pool` is any value in scope", help="call it otherwise"
    )  # fmt: skip


def requirement_broken(
    span: Span, decoder: str, quantity: str, value: int, expected: str, backbone: str, size: tuple[int, int] | None = None
) -> Diagnostic:
    """`size`: that of the decoder's detector, where the requirement is counted for it."""
    images = "" if size is None else f", images of {size[0]}x{size[1]}"
    return REQUIREMENT_BROKEN(
        span, f"`{decoder}` has {value:,} {quantity}", label=f"expected {expected}",
        help=f"counted for {backbone}{images} and 80 classes",
    )  # fmt: skip


def same_alternative(span: Span, first: Span) -> Diagnostic:
    return SAME_ALTERNATIVE(
        span, f"`{' '.join(span.text.split())}` stands twice", label="second time", related=[(first, "first time")]
    )  # fmt: skip


def not_a_value(span: Span) -> Diagnostic:
    """A number among the alternatives of a hole that stands for a value."""
    return MISPLACED_HOLE(span, "a number cannot stand where a value is expected", label="expected a value, or a call")


def values_and_numbers(span: Span, operators: Set[str]) -> Diagnostic:
    """A hole among the operands of ``mul`` or ``add`` with numbers and values as alternatives; `operators`: of the calls."""
    op = "add" if "+" in operators else "mul"
    return MISPLACED_HOLE(
        span, "a hole of values and numbers", label="expected values only, or numbers only",
        help=f"choose between the calls: `?({op}(x, y) | {op}(x, 0.5))`",
    )  # fmt: skip


def call_as_name(span: Span) -> Diagnostic:
    """A call among the alternatives of a hole that stands for the name of a value."""
    return MISPLACED_HOLE(
        span, "a call where an attribute names a value", label="expected the name of a value",
        help="bind it further up, `w = …`, and choose among names",
    )  # fmt: skip


def not_a_word(span: Span) -> Diagnostic:
    """A call among the alternatives of a hole that stands for an attribute."""
    return MISPLACED_HOLE(span, "a call cannot stand where a number or a word is expected", label="expected a number or a word")


def hole_in_passed_op(span: Span, op: str) -> Diagnostic:
    """An op with holes of its own that is passed to another op by name."""
    return MISPLACED_HOLE(
        span, f"`{op}` has holes, and an op that is passed by name has none", label="expected an op without holes",
        help="call it where its result is needed",
    )  # fmt: skip
