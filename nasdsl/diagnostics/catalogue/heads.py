"""NAS3xx: a head on the levels of a pyramid, and its predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nasdsl.diagnostics.catalogue.examples import decoder
from nasdsl.diagnostics.diagnostic import Code, Diagnostic
from nasdsl.diagnostics.span import Span

HEAD_WIDER = Code(
    "NAS311",
    "a head wider than its pyramid",
    "The head's layers start from the pyramid's features, so `head(width=…)` is at most the width of the narrowest level. To "
    "have a wider head, widen the features where they are put out: `output p3 = conv_1x1(x7, width=256)`.",
    decoder(head="width=128, norm=gn"),
    decoder("output p3 = conv_3x3(c3, width=128)", head="width=128, norm=gn"),
)

PYRAMID_WIDTHS = Code(
    "NAS312",
    "pyramid levels of different widths share weights",
    "One head is applied to every level, and weights that levels share fit one number of channels. Levels may have different "
    "widths where each has weights of its own: `head(share=N)` for the layers in front of the first one that receives one "
    "width, and `predict KIND(share=false)` where the towers themselves end in different widths.",
    decoder("output p3 = conv_3x3(c3), p4 = conv_3x3(c4, width=128)"),
    decoder("output p3 = conv_3x3(c3), p4 = conv_3x3(c4, width=128)", head="width=64, norm=gn, share=1"),
)

HEAD_LEVEL = Code(
    "NAS313",
    "a head's layer that changes the resolution",
    "Predictions belong to the locations of their level, so a head's layers keep the resolution.",
    decoder(layers="conv_3x3 -> down"),
    decoder(layers="conv_3x3 -> conv_3x3"),
)

UNFIT_PREDICTION = Code(
    "NAS318",
    "a prediction that cannot be made",
    "`predict KIND(conv=OP)` puts an op in the place of the prediction convolutions. It takes the map of a tower and ends in a "
    "convolution without groups, which gives the predicted channels: behind it there is neither norm nor activation, and no "
    "layer before it has its weights (`shared`). The size of its kernel is the op's, so that `kernel=` is left out. A kind of "
    "prediction that a package adds may refuse its attributes; its own message says why.",
    decoder(predict="predict fcos(centerness=cls, conv=relu)"),
    decoder(predict="predict fcos(centerness=cls, conv=sep_3x3)"),
)

# ------------------------------------------------------------------------------------------------ messages


def head_wider(span: Span, width: int, pyramid: int, narrowest: str = "") -> Diagnostic:
    """`pyramid`: channels of its levels, or of the `narrowest` one where they differ."""
    found = f"a pyramid whose narrowest level, {narrowest}, has {pyramid}" if narrowest else f"a pyramid of {pyramid}"
    return HEAD_WIDER(
        span, f"a head of {width} channels on {found}", label=f"expected {pyramid} or less",
        help=f"widen the pyramid: output {narrowest or 'p3'} = conv_1x1(…, width={width})",
    )  # fmt: skip


def head_level(span: Span, op: str) -> Diagnostic:
    return HEAD_LEVEL(
        span, f"`{op}` changes the resolution", label="a head's layer keeps it", help="change resolutions in the fpn"
    )  # fmt: skip


def pyramid_widths(span: Span, widths: Iterable[tuple[str, int]], share: int, kind: str, where: str = "") -> Diagnostic:
    """Levels of different widths that share weights of the head.

    Args:
        widths: name and width of each output.
        share: the least ``share=`` with which they share none of its layers; 0 where they share none that needs one width.
        kind: of the prediction, where they share its convolutions; else empty.
        where: what the widths depend on, "with this backbone".
    """
    layers = [f"`head(share={share})`"] * (share > 0)
    own = " and ".join([*layers, *([f"`predict {kind}(share=false)`"] if kind else [])])
    return PYRAMID_WIDTHS(
        span, " ".join(["the pyramid's levels differ in width", *([where] if where else []), "and share weights of the head"]),
        label=", ".join(f"{name} has {width}" for name, width in widths),
        help=f"bring them to one width, or give each level weights of its own: {own}",
    )  # fmt: skip


def prediction_layer(span: Span, op: str, kind: str, groups: int | None) -> Diagnostic:
    """An op in the place of the prediction convolutions that ends in something else.

    Args:
        kind: of its last layer.
        groups: of its last layer, where it is a convolution; 1: it changes the resolution.
    """
    found = f"`{op}` ends in `{kind}`, and not in a convolution"
    if groups is not None:
        found = f"`{op}` changes the resolution" if groups == 1 else f"the convolution that `{op}` ends in has {groups} groups"
    return UNFIT_PREDICTION(
        span, found, label="a prediction ends in a convolution without groups, at the map's own level",
        help="" if groups == 1 else f"`op mine(x) = conv_1x1({op}(x))` ends in one",
    )  # fmt: skip


def prediction_tied(span: Span, op: str) -> Diagnostic:
    """An op in the place of the prediction convolutions whose last convolution has the weights of one before it."""
    return UNFIT_PREDICTION(
        span, f"the convolution that `{op}` ends in shares its weights with one before it",
        label="it gives the predicted channels, and has weights of its own",
        help=f"`op mine(x) = conv_1x1({op}(x))` ends in such a one",
    )  # fmt: skip


def kernel_of_op(span: Span, op: str) -> Diagnostic:
    return UNFIT_PREDICTION(
        span, f"`kernel` does not change `{op}`", label="this is of the plain convolution, which `conv=` replaces",
        help="leave out one of the two",
    )  # fmt: skip


def prediction_refused(span: Span, message: str) -> Diagnostic:
    """A kind of prediction of a package that breaks its contract, or takes no such attributes; `message` names it."""
    return UNFIT_PREDICTION(span, message, label="this cannot be built")


def prediction_widths(span: Span, op: str, widths: Mapping[str, int]) -> Diagnostic:
    """An op of several layers behind towers of several widths."""
    return UNFIT_PREDICTION(
        span, f"`{op}` has several layers, and the towers differ in width",
        label=", ".join(f"{name} has {width}" for name, width in widths.items()),
        help="bring both towers to one width, or give an op of a single convolution",
    )  # fmt: skip
