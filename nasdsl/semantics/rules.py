"""Warnings about a decoder that checks, and probably does not mean what it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nasdsl.diagnostics import Diagnostic
from nasdsl.diagnostics.catalogue import lints
from nasdsl.layers import OWN_WIDTH, UNKNOWN_WIDTH, Activation, Conv, Input, Norm
from nasdsl.semantics.architecture import Application, FpnPart, HeadPart
from nasdsl.semantics.infer_head import pyramid_widths

LEAST_VALUES = {"relu": 0.0, "relu6": 0.0, "silu": -0.278, "hardswish": -0.375, "gelu": -0.17}
"""The smallest values of the activations that are bounded below, but for those that are gates themselves."""


def layer_warnings(
    fpn: FpnPart, head: HeadPart, widths: Mapping[str, int] | None = None, *, is_open: bool = False
) -> list[Diagnostic]:
    """Warnings about the layers of a decoder.

    Args:
        widths: channels of the backbone's features by name, where the decoder names a backbone that is known.
        is_open: it is a space whose holes are open, so that the width of a value may depend on what fills them.
    """
    found = list(_warnings(fpn.applications, widths or {}, is_open=is_open))
    levels = set(pyramid_widths(fpn).values())
    differ = len(levels) > 1 and UNKNOWN_WIDTH not in levels
    for tower in head.chains:
        for layer in tower.layers:
            found += _warnings(layer.applications, None, is_open=is_open, levels_differ=differ)
    return found


def _warnings(
    applications: Sequence[Application], widths: Mapping[str, int] | None, *, is_open: bool, levels_differ: bool = False
) -> Iterator[Diagnostic]:
    for application in applications:
        layer = application.layer
        kind = type(layer)
        if kind is Norm:
            yield from _pooled_batch_norm(application)
        elif kind is Conv:
            yield from _not_depthwise(application, applications, widths, is_open=is_open, levels_differ=levels_differ)
        elif kind is Activation:
            yield from _gate_that_stays_open(application, applications)


def _pooled_batch_norm(application: Application) -> Iterator[Diagnostic]:
    """A BatchNorm of a globally pooled value, which has one value per channel of an image."""
    layer = application.layer
    if application.feature[0] is None and isinstance(layer, Norm) and layer.norm == "bn":
        yield lints.pooled_batch_norm(application.span)


def _not_depthwise(
    application: Application,
    applications: Sequence[Application],
    widths: Mapping[str, int] | None,
    *,
    is_open: bool,
    levels_differ: bool,
) -> Iterator[Diagnostic]:
    """A convolution with a group for each channel that it gives, and another number of channels that come in.

    `widths` is None in a head, whose inputs are no features of the backbone. `levels_differ`: the head is applied to levels of
    known, different widths.
    """
    layer = application.layer
    if not isinstance(layer, Conv) or layer.k == 1 or layer.groups in (1, OWN_WIDTH) or layer.groups != layer.width:
        return
    operand = applications[application.inputs[0]]
    width, name = operand.feature.width, ""
    if width == UNKNOWN_WIDTH and isinstance(operand.layer, Input):
        name = operand.layer.name
        width = (widths or {}).get(name, UNKNOWN_WIDTH)
    if width == UNKNOWN_WIDTH and is_open and (widths is None or not name):
        return  # it depends on what fills the holes
    if width != layer.groups:
        yield lints.not_depthwise(application.span, layer.groups, width, name, levels_differ=levels_differ)


def _gate_that_stays_open(application: Application, applications: Sequence[Application]) -> Iterator[Diagnostic]:
    """A sigmoid, or a hard one, of what an activation has bounded below: it never comes near 0."""
    layer = application.layer
    if not isinstance(layer, Activation) or layer.function not in ("sigmoid", "hardsigmoid"):
        return
    inner = applications[application.inputs[0]]
    before = inner.layer
    if not isinstance(before, Activation) or before.function not in LEAST_VALUES:
        return
    norm = applications[inner.inputs[0]].layer
    yield lints.open_gate(
        application.span, layer.function, before.function, LEAST_VALUES[before.function],
        is_normed=isinstance(norm, Norm) and norm.norm == "bn",
    )  # fmt: skip
