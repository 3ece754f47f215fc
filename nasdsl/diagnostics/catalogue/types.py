"""NAS3xx: operands, attributes, widths and levels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.catalogue.other_names import advice_on_attribute, advice_on_word
from nasdsl.diagnostics.diagnostic import Code, Diagnostic
from nasdsl.diagnostics.span import Span

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
    "resolution; a stride is a power of two, so that the result has a level; words are those that the message lists. What an "
    "attribute leads to must exist too: a factor goes down to level 0 and not further, heads share the channels out evenly.",
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
    "`add`, `mul`, `max` and `weighted_add` work element by element, so their operands have the same number of channels; only "
    "a map of one channel is spread over those of the others. Resolutions may differ: the finest wins. `concat` takes operands "
    "of any width.",
    decoder("x1 = conv_1x1(c3, width=32)\noutput p3 = sum(x1, c4)"),
    decoder("x1 = conv_1x1(c3, width=64)\noutput p3 = sum(x1, c4)"),
)

GROUPS = Code(
    "NAS307",
    "groups or parts that do not divide the channels",
    "A grouped convolution splits both its input and its output channels into equal groups, `split` the channels of its "
    "operand into equal parts. (For raw backbone features, `adapter=none`, this is found when a backbone is chosen.)",
    decoder("output p3 = conv(c3, k=3, groups=48)"),
    decoder("output p3 = conv(c3, k=3, groups=32)"),
)

GROUP_NORM = Code(
    "NAS308",
    "a width that GroupNorm does not divide",
    "`norm=gn` is GroupNorm with 32 groups, so 32 divides the width. `gn16`, `gn8`, `gn4`, `gn2` and `gn1` have as many groups "
    "as their names say.",
    decoder(fpn="width=48, norm=bn", head="width=48, norm=gn"),
    decoder(fpn="width=48, norm=bn", head="width=48, norm=gn16"),
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
    "A block gives as many values as stand behind its `->`, `split` as many as its `parts` say, and the left side of the "
    "assignment names them all.",
    decoder("a, b, c = two(c3, c4)\noutput p3 = a", before="block two(x, y) -> (s, t) { s = sum(x, y); t = cat(x, y) }"),
    decoder("a, b = two(c3, c4)\noutput p3 = sum(a, b)", before="block two(x, y) -> (s, t) { s = sum(x, y); t = cat(x, y) }"),
)


UNFIT_LAYER = Code(
    "NAS314",
    "a layer that cannot take its operands",
    "A primitive that a package adds has refused these operands; its own message says why. (The example shows a built-in "
    "layer with a code of its own, because a plain installation has no such primitive.)",
    decoder("output p3 = conv(c3, k=3, groups=7)"),
    decoder("output p3 = conv(c3, k=3, groups=8)"),
)


WEIGHTS = Code(
    "NAS319",
    "weights that are not one for each operand",
    "`weighted_add(x, y, by=w)` weighs its operands at each position by the softmax over the channels of w, of which there is "
    "one for each operand. (For a raw backbone feature this is found when a backbone is chosen.)",
    decoder("w = conv(c3, k=1, width=3)\noutput p3 = weighted_add(c3, c4, by=w)"),
    decoder("w = conv(c3, k=1, width=2)\noutput p3 = weighted_add(c3, c4, by=w)"),
)

OFFSETS = Code(
    "NAS320",
    "offsets that do not fit a deformable convolution",
    "`deform_conv(x, offset=y)` moves each tap of its kernel by what y says: y has the level of the result and 2 channels for "
    "each tap and offset group (dy, then dx), or 3 with a mask behind them. (For a raw backbone feature the channels are "
    "compared when a backbone is chosen.)",
    decoder("y = conv(c3, k=3, width=9, norm=none, act=none)\noutput p3 = deform_conv(c3, offset=y)"),
    decoder("y = conv(c3, k=3, width=27, norm=none, act=none)\noutput p3 = deform_conv(c3, offset=y)"),
)


SHARED_MISFIT = Code(
    "NAS316",
    "calls of a shared op that do not fit each other",
    "All calls of a `shared` op have one set of weights, so its layers have as many channels in each of them. The level of an "
    "operand may differ.",
    decoder("shared refine(x) = conv_3x3(x)\noutput p3 = refine(c3), p4 = refine(concat(c3, c4))"),
    decoder("shared refine(x) = conv_3x3(x)\noutput p3 = refine(c3), p4 = refine(sum(c3, c4))"),
)

# ------------------------------------------------------------------------------------------------ messages

_LAYER_ERRORS: dict[str, Code] = {
    "groups": GROUPS,
    "own groups": GROUPS,
    "parts": GROUPS,
    "group norm": GROUP_NORM,
    "weights": WEIGHTS,
    "offset": OFFSETS,
    "widths": WIDTHS_DIFFER,
    "no level": NO_LEVEL,
    "window": BAD_VALUE,
    "factor": BAD_VALUE,
    "finest": BAD_VALUE,
    "heads": BAD_VALUE,
    "position": BAD_VALUE,
}

_LONGEST_CALL = 100  # characters of a call that a help line shows

_LAYER_HELP = {
    "widths": "bring them to one width with `conv_1x1(x, width=…)`",
    "own groups": "a group for each channel that comes in: `width=in` gives as many channels, one of each group",
    "parts": "choose a number of parts that divides them, or bring the operand to another width with `conv_1x1(x, width=…)`",
    "group norm": "use a width that they divide, a GroupNorm of fewer (`norm=gn16`, `norm=gn8`, …), or `norm=bn`",
    "offset": "predict them from a map of that level: `y = conv(z, k=3, width=…, norm=none, act=none)`",
    "weights": "`by=` names a value with a channel for each operand: `conv(x, k=1, width=2, norm=none, act=none)` for two",
    "no level": "a globally pooled value can only be multiplied or added",
    "window": "a window is odd, or as wide as the stride",
    "finest": "levels are those of the image; in a head, they are counted from the map that the layers are applied to",
    "heads": "choose `heads` so that each gets the same number of channels",
    "position": "use `position=none`, or a width that 4 divides",
}


def shared_misfit(span: Span, name: str, operand: str, width: int, first: Span, first_width: int) -> Diagnostic:
    """A call of a `shared` op whose weights cannot be those of its first call.

    Args:
        name: of the op; empty where it is not known.
        operand: name of the parameter that differs; empty where it is not known.
    """
    what = f"`{name}` has one set of weights, and its calls" if name else "calls of a `shared` op have one set of weights, and"
    gets = f"`{operand}` has" if operand else "a layer receives"
    related = [] if first == span else [(first, f"{first_width} in the first call")]
    return SHARED_MISFIT(
        span, f"{what} do not fit each other", label=f"{gets} {width} channels here", related=related,
        help="bring both to one width, with `conv_1x1` say; or define an `op`, which has weights of each call's own",
    )  # fmt: skip


def layer_error_code(kind: str) -> Code:
    """The code of a `LayerError` of this kind."""
    return _LAYER_ERRORS.get(kind, UNFIT_LAYER)


def layer_error(span: Span, kind: str, message: str, operands: str, related: Iterable[tuple[Span, str]] = ()) -> Diagnostic:
    """A layer that cannot take its operands; `kind` and `message` are those of the `LayerError`, `operands` describes them."""
    label = operands if layer_error_code(kind) is WIDTHS_DIFFER else "this cannot be built"
    return layer_error_code(kind)(span, message, label=label, help=_LAYER_HELP.get(kind, ""), related=related)


def operand_count(
    span: Span, callee: str, count: int, least: int, most: int, parameters: Sequence[str] = (), instead: str = ""
) -> Diagnostic:
    """A call with too many operands, or too few.

    Args:
        parameters: what the definition calls the operands.
        instead: a call that takes them all, and means the same.
    """
    expected = f"{least}" if least == most else f"{least} to {most}"
    missing = parameters[count:]
    help = ""
    if missing:
        expected += f": {_first_names(parameters)}"
        help = f"{_first_names(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    elif instead:
        shown = f": `{instead}`" if len(instead) <= _LONGEST_CALL else ""
        help = f"`{instead.partition('(')[0]}` takes any number of operands{shown}"
    return OPERANDS(
        span, f"`{callee}` is given {count} operand{'' if count == 1 else 's'}", label=f"expected {expected}", help=help,
        fix=instead or None,
    )  # fmt: skip


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:8]) + (", …" if len(names) > 8 else "")


def several_results(span: Span, callee: str, count: int) -> Diagnostic:
    """A call of several results where one value is needed."""
    return RESULTS(
        span, f"`{callee}` gives {count} values", label="expected one value here", help="assign them first: `a, b = …`"
    )  # fmt: skip


def result_count(span: Span, callee: str, count: int, targets: int, attribute: str = "") -> Diagnostic:
    """A call of `count` results assigned to `targets` names. `attribute`: of the callee, which says how many there are."""
    help = f"`{callee}(…, {attribute}={targets})` gives {targets}" if attribute else ""
    return RESULTS(
        span, f"`{callee}` gives {count} value{'' if count == 1 else 's'} for {targets} names",
        label=f"expected {count} on the left", help=help,
    )  # fmt: skip


def one_value(span: Span, targets: int) -> Diagnostic:
    """A name, which is one value, assigned to several names."""
    return RESULTS(span, f"one value for {targets} names", label="expected one name on the left")


def attribute_value(span: Span, owner: str, name: str, value: object, expected: str, words: Sequence[str]) -> Diagnostic:
    """A value that an attribute does not take; `words` are those that it takes."""
    help, guess = advice_on_word(value, words) if isinstance(value, str) else ("", None)
    shown = f"{name}={value}" if name.isidentifier() else value
    return BAD_VALUE(
        span, f"`{owner}` does not take `{shown}`", label=f"expected {expected}", help=help, fix=guess
    )  # fmt: skip


def attribute_twice(span: Span, name: str, first: Span) -> Diagnostic:
    return ATTRIBUTE_TWICE(span, f"`{name}` is set twice", label="second value", related=[(first, "first value")])


def unknown_attribute(span: Span, owner: str, name: str, known: Iterable[str], instead: str = "") -> Diagnostic:
    """`instead` is a call that takes the attribute, of what the owner's definition calls."""
    known = list(known)
    help, guess = advice_on_attribute(name, known)
    if 0 < len(instead) <= _LONGEST_CALL and guess is None:
        help = f"write the call that `{owner}` stands for: `{instead}`"
    label = f"expected one of {', '.join(f'`{k}`' for k in known)}" if known else "it has none"
    return UNKNOWN_ATTRIBUTE(span, f"`{owner}` has no attribute `{name}`", label=label, help=help, fix=guess)


def value_of_other_call(span: Span, callee: str, name: str) -> Diagnostic:
    """An attribute that names an operand, where another call, an alternative of a hole or an op that is passed takes it."""
    return UNKNOWN_ATTRIBUTE(
        span, f"`{name}` of `{callee}` stands in its own call only", label="here it is not known which call takes it",
        help=f"write the call out: `{callee}(…, {name}=w)`",
    )  # fmt: skip


def missing_attribute(span: Span, owner: str, name: str, expected: str) -> Diagnostic:
    return MISSING_ATTRIBUTE(span, f"`{owner}` needs `{name}`", label=f"expected `{name}=`: {expected}")


def not_a_number(span: Span, word: str) -> Diagnostic:
    return BAD_VALUE(span, f"`{word}` is no number", label="expected a number")


def not_whole(span: Span, left: float, right: float) -> Diagnostic:
    return BAD_VALUE(span, f"{left} / {right} is no whole number", label="expected a division without remainder")


def too_many_digits(span: Span) -> Diagnostic:
    return BAD_VALUE(span, "the result has more than 18 digits", label="expected a smaller number")


def index_value(span: Span, name: str, value: object, *, read: bool) -> Diagnostic:
    """``x[value]`` where `value` cannot number a name; what is `read` may be an op, called with wrong brackets."""
    return BAD_VALUE(
        span, f"`{value}` cannot number a name", label="expected a whole number, 0 or more",
        help=f"an op is called with round brackets: `{name}({value})`" if read and isinstance(value, str) else "",
    )  # fmt: skip


def no_rounds(span: Span, first: int, last: int, what: str = "repeat") -> Diagnostic:
    message = f"`repeat` of no rounds ({first}..{last})" if what == "repeat" else "a layer `* 0`, which is never there"
    return BAD_VALUE(span, message, label=f"expected a number from {first} on")


def repeat_count(span: Span, value: object, what: str = "repeat", place: Span | None = None) -> Diagnostic:
    """A count that is no whole number. `place` is where it is read, and `span` the hole that it depends on."""
    message = f"`repeat` over `{value}`" if what == "repeat" else f"a layer `* {value}`"
    related = [] if place is None or place == span else [(place, f"the count, which may be `{value}`")]
    return BAD_VALUE(span, message, label="expected a whole number, 0 or more", related=related)


def resize_target(span: Span, value: object) -> Diagnostic:
    return BAD_VALUE(span, f"`to={value}` of `resize`", label="expected a value, or the number of a level from 0 to 16")


def level_of_attribute(span: Span, name: str, word: str) -> Diagnostic:
    """An attribute of an op that is the ``to=`` of a resize, and is neither a level nor a value that the op knows."""
    return BAD_VALUE(
        span, f"`{name}={word}` names no level", label="expected the number of a level from 0 to 16",
        help=f"to resize to a value, let the op take it as an operand: `{name}` without a default",
    )  # fmt: skip


def no_resolution(span: Span, name: str) -> Diagnostic:
    """``to=`` names a globally pooled value."""
    return NO_LEVEL(span, f"`{name}` has no resolution", label="expected a value with a level")


def pooled_operand(span: Span) -> Diagnostic:
    """A globally pooled value is resized."""
    return NO_LEVEL(span, "a globally pooled value has no resolution to change", label="expected a value with a level")


def pooled_output(span: Span, name: str) -> Diagnostic:
    return NO_LEVEL(span, f"`{name}` is a globally pooled value", label="expected a value with a level")


def merged_widths(span: Span, message: str, width: int) -> Diagnostic:
    """Dangling values whose widths differ from the target's, of `width` channels; `message` is the `LayerError`'s."""
    return WIDTHS_DIFFER(
        span, f"{message}, where what dangles is merged", label=f"{width} channels here",
        help="merge into values of one width, and widen them in the `output` behind that",
    )  # fmt: skip


def level_misfit(span: Span, kind: str, message: str, level: str, width: int) -> Diagnostic:
    """A layer of the head that cannot take what one of the levels gives it.

    Args:
        kind, message: those of the `LayerError`.
        level: its name; that of each level of this width.
        width: channels of this level.
    """
    return layer_error_code(kind)(
        span, f"{message} at {level}", label=f"{level} of the pyramid has {width}", help=_LAYER_HELP.get(kind, "")
    )
