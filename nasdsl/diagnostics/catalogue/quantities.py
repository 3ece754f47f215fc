"""NAS3xx: what `require` can bound, and by what."""

from __future__ import annotations

from collections.abc import Sequence

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.diagnostic import Code, Diagnostic, did_you_mean
from nasdsl.diagnostics.span import Span

UNKNOWN_QUANTITY = Code(
    "NAS315",
    "a requirement on something that is not known",
    "`require` bounds `macs` or `params` of fpn and head, the number of `dangling` blocks, how often an op is called "
    "(`require count(dconv_3x3) <= 4`), or the milliseconds of the whole detector (`require latency <= 15ms on onnxruntime`).",
    decoder(inputs="input c3, c4\n  require flops <= 120G at 800x1088"),
    decoder(inputs="input c3, c4\n  require macs <= 120G at 800x1088"),
)

# ------------------------------------------------------------------------------------------------ messages


def count_of_what(span: Span, quantity: str) -> Diagnostic:
    message = "`count` of nothing" if quantity == "count" else f"`{quantity}` of an op"
    return UNKNOWN_QUANTITY(
        span, message, label="expected `count(op)` with the name of an op, or macs, params, dangling or latency"
    )


def unknown_quantity(span: Span, name: str, known: Sequence[str]) -> Diagnostic:
    guess = did_you_mean(name, known)
    return UNKNOWN_QUANTITY(
        span, f"nothing is known of `{name}`", label="expected macs, params, dangling, count(op) or latency",
        help=f"did you mean `{guess}`?" if guess else "", fix=guess,
    )  # fmt: skip


def bound_of_quantity(span: Span, quantity: str, given: str) -> Diagnostic:
    """A latency that is no time, or a number that is one."""
    expected = "a time, such as 15ms" if quantity == "latency" else "a number, such as 20 or 20M"
    return UNKNOWN_QUANTITY(span, f"`{quantity}` is bounded by `{given}`", label=f"expected {expected}")


def latency_from_below(span: Span, comparison: str) -> Diagnostic:
    return UNKNOWN_QUANTITY(span, f"`latency` is compared by `{comparison}`", label="expected `<=` or `<`")


def runtime_of_quantity(span: Span, quantity: str) -> Diagnostic:
    return UNKNOWN_QUANTITY(span, f"`{quantity}` on a runtime", label="only a latency has one: leave `on …` out")


def unknown_runtime(span: Span, name: str, known: Sequence[str]) -> Diagnostic:
    guess = did_you_mean(name, known)
    return UNKNOWN_QUANTITY(
        span, f"unknown runtime `{name}`", label=f"expected {', '.join(known)}",
        help=f"did you mean `{guess}`?" if guess else "", fix=guess,
    )  # fmt: skip
