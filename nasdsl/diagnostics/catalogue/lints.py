"""NAS9xx: warnings. A file with nothing worse checks."""

from __future__ import annotations

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
    "of the group `nasdsl.primitives`) raises an error when it is imported. The op itself is reported as NAS201. (The example "
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
    decoder("g = conv_1x1(global_pool(c3, kind=avg))\noutput p3 = mul(c3, sigmoid(g))"),
    decoder("g = conv_1x1(global_pool(c3, kind=avg), norm=none, act=none)\noutput p3 = mul(c3, sigmoid(g))"),
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


def plugin_failed(span: Span, package: str, error: object, entry_point: str, group: str) -> Diagnostic:
    """An unknown op, and a package whose primitives cannot be loaded, of which it may be one."""
    return PLUGIN_FAILED(
        span, f"the primitives of {package} cannot be loaded: {error}", label="this may be one of them",
        help=f"importing its entry point `{entry_point}` of the group {group} fails: repair the package, or remove it",
    )  # fmt: skip
