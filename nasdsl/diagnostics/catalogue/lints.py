"""NAS9xx: warnings. A file with nothing worse checks."""

from __future__ import annotations

import math

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.diagnostic import Code, Diagnostic
from nasdsl.diagnostics.span import Span

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
    "of the group `nasdsl.primitives`) raises an error when it is imported. The op itself is reported as NAS201. The same is "
    "told of the group `nasdsl.predictions` where the kind of prediction is not known (NAS208). (The example "
    "stands for a text with a primitive of such a package; an installation without one gives NAS201 only.)",
    decoder("output p3 = shuffle(c3)"),
    decoder("output p3 = conv_3x3(c3)"),
    severity="warning",
)

POOLED_BATCH_NORM = Code(
    "NAS903",
    "BatchNorm of a globally pooled value",
    "Global pooling leaves one value per channel of each image. BatchNorm takes its mean and variance over the batch alone "
    "then: it fails in training with one image per step, and is noisy with few. Set `norm=none` where it is convolved.",
    decoder("g = conv_1x1(global_pool(c3, kind=avg), act=none)\noutput p3 = mul(c3, sigmoid(g))"),
    decoder("g = conv_1x1(global_pool(c3, kind=avg), norm=none, act=none)\noutput p3 = mul(c3, sigmoid(g))"),
    severity="warning",
)

NOT_DEPTHWISE = Code(
    "NAS904",
    "a convolution that is almost depthwise",
    "A convolution with a group for each channel that it gives is depthwise if as many channels come in. Here there are more: "
    "each filter reads several of them. `groups=width` is the width of the section, not that of the operand, and a raw "
    "backbone feature (`adapter=none`) has the backbone's width, such as 2048. Bring the operand to the width first.",
    decoder("output p3 = sep_3x3(c3)", fpn="width=64, norm=bn, adapter=none"),
    decoder("output p3 = sep_3x3(conv_1x1(c3))", fpn="width=64, norm=bn, adapter=none"),
    severity="warning",
)

DEFAULT_OF_SECTION = Code(
    "NAS905",
    "a default that follows the section's attribute and not the call's",
    "The default of an op's attribute is computed from `width`, `norm` and `act` of the section. A call that sets one of these "
    "for itself does not change the defaults that are computed from it: set those as well.",
    decoder(
        "output p3 = squeeze(c3, width=128)",
        before="op squeeze(x, width=width, inner=width / 2) = conv_3x3(conv_1x1(x, width=inner), width=width)",
    ),
    decoder(
        "output p3 = squeeze(c3, width=128, inner=64)",
        before="op squeeze(x, width=width, inner=width / 2) = conv_3x3(conv_1x1(x, width=inner), width=width)",
    ),
    severity="warning",
)

OPEN_GATE = Code(
    "NAS906",
    "a gate that cannot close",
    "A `sigmoid` or `hardsigmoid` of what an activation has cut off below, as ReLU does at 0, gives no less than a half: as a "
    "factor it cannot suppress anything. `conv_1x1` and the like end in the section's norm and activation; set "
    "`norm=none, act=none` where the gate is computed.",
    decoder("output p3 = mul(c3, sigmoid(conv_1x1(c4)))"),
    decoder("output p3 = mul(c3, sigmoid(conv_1x1(c4, norm=none, act=none)))"),
    severity="warning",
)

RESIZED_OUTPUT = Code(
    "NAS907",
    "an output that is resized without being asked",
    "An output pK has stride 2^K, and a value of another level is resized to it by interpolation (bilinear), or, if it is much "
    "finer, loses most of its positions. Say so by `resize(x, to=K)`, or make the level by `down` or `up`. It is about values "
    "that are made from one feature: an aggregation has the level that its rule gives it, and may be put out at another.",
    decoder("output p3 = conv_3x3(c3), p4 = conv_3x3(c3)"),
    decoder("output p3 = conv_3x3(c3), p4 = resize(conv_3x3(c3), to=4)"),
    severity="warning",
)

# ------------------------------------------------------------------------------------------------ messages


def unread(span: Span, name: str, *, is_pyramid_name: bool) -> Diagnostic:
    """A value that nothing reads; `is_pyramid_name`: it is called p3 or the like, so an `output` was probably meant."""
    return UNREAD(
        span, f"nothing reads `{name}`", label="its layers are left out",
        help=f"`output {name} = …` makes it a level of the pyramid"
        if is_pyramid_name
        else "read it, or `merge dangling into …` the outputs",
    )  # fmt: skip


def pooled_batch_norm(span: Span) -> Diagnostic:
    """A convolution, or a norm, of a globally pooled value with ``norm=bn``."""
    return POOLED_BATCH_NORM(
        span, "BatchNorm of a globally pooled value", label="one value per channel of each image",
        help="set `norm=none` here; training with one image per step fails otherwise",
    )  # fmt: skip


def not_depthwise(span: Span, groups: int, width: int, feature: str, *, levels_differ: bool = False) -> Diagnostic:
    """A convolution that is not depthwise, and looks like it.

    Args:
        width: channels that come in, 0 where they are not the same everywhere.
        feature: the raw backbone feature that comes in, if it is one.
        levels_differ: each level gives other ones; else the backbone decides.
    """
    if width:
        label = f"each filter reads {width // groups} of {width} channels"
    elif levels_differ:
        label = "what comes in has another number of channels at each level"
    else:
        label = f"{feature or 'its operand'} has as many channels as the backbone gives it, 512 or 2048 for instance"
    return NOT_DEPTHWISE(
        span, f"a convolution of {groups} groups that is not depthwise", label=label,
        help=f"bring the operand to {groups} channels first, by `conv_1x1(x)`, an adapter, or `width=…` where it is made; "
        "`groups=in, width=in` is depthwise whatever comes in",
    )  # fmt: skip


def default_of_section(span: Span, op: str, default: tuple[str, object, object], word: str) -> Diagnostic:
    """A call that sets `word`; `default`: the attribute computed from it, its value, and that for the call's own word."""
    name, value, meant = default
    return DEFAULT_OF_SECTION(
        span, f"`{name}` of `{op}` is {value}: its default follows the section's `{word}`", label="and not this one",
        help=f"set it beside `{word}`: `{name}={meant}`, or `{name}={value}` if that is meant",
    )  # fmt: skip


def open_gate(span: Span, gate: str, function: str, least: float, *, is_normed: bool) -> Diagnostic:
    """A gate, sigmoid or hardsigmoid, of an activation that gives no less than `least`.

    `is_normed`: a BatchNorm stands before that.
    """
    low = 1 / (1 + math.exp(-least)) if gate == "sigmoid" else min(max((least + 3) / 6, 0), 1)
    return OPEN_GATE(
        span, f"a {gate} of what {'BatchNorm and ' if is_normed else ''}{function} give{'' if is_normed else 's'}",
        label=f"it is never less than {low:.2g}: the gate does not close",
        help="set `norm=none, act=none` where the gate is convolved",
    )  # fmt: skip


def resized_output(span: Span, name: str, level: int, found: int) -> Diagnostic:
    """An output of level `level` whose value has level `found`."""
    changed = f"{'shrunk' if found < level else 'enlarged'} {2 ** abs(level - found)} times in height and width"
    path = f"by `{'down' if found < level else 'up'}`"
    return RESIZED_OUTPUT(
        span, f"`{name}` is a value of stride {2**found}, which is resized to stride {2**level}", label=f"{changed}, bilinear",
        help=f"say so: `{name} = resize(…, to={level})`; or make the level {path}",
    )  # fmt: skip


def plugin_failed(
    span: Span, package: str, error: object, entry_point: str, group: str, what: str = "primitives"
) -> Diagnostic:
    """An unknown op or prediction, and a package whose primitives or predictions cannot be loaded, of which it may be one."""
    return PLUGIN_FAILED(
        span, f"the {what} of {package} cannot be loaded: {error}", label="this may be one of them",
        help=f"importing its entry point `{entry_point}` of the group {group} fails: repair the package, or remove it",
    )  # fmt: skip
