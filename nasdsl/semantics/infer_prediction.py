"""What a decoder predicts: ``predict fcos(…)``, ``predict gfl(bins=16)``, and by which layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from nasdsl.diagnostics import Diagnostic, Span
from nasdsl.diagnostics.catalogue import heads, lints, names
from nasdsl.layers import UNKNOWN_WIDTH, Conv, DeformConv, Feature
from nasdsl.layers.plugins import PREDICTIONS, load_plugins
from nasdsl.predictions import KINDS, PredictionError, PredictionKind, describe_kind, find_kind, kind_fields, known_kinds
from nasdsl.predictions.kind import checked_maps
from nasdsl.semantics import attributes, primitives
from nasdsl.semantics.architecture import HeadLayer, HeadPart, PredictionPart
from nasdsl.semantics.attributes import Accepts, Unknown
from nasdsl.semantics.builder import UNFIT
from nasdsl.semantics.infer import Inference
from nasdsl.semantics.infer_head import CURRENT_LEVEL
from nasdsl.semantics.infer_scope import Binding, Frame
from nasdsl.semantics.program import Call, PredictProgram, Program, Ref, Target, chosen, fill_settings

COMMON: Mapping[str, Accepts] = {
    "kernel": Accepts("odd", 3, largest=3),
    "conv": Accepts("op"),
    "share": Accepts("flag", "true"),
}
"""Attributes of every kind."""

_accepted: dict[type[PredictionKind], dict[str, Accepts]] = {}


class PredictionSettings(NamedTuple):
    """The values of the attributes of ``predict``; `kernel` and `share` as of `PredictionPart`."""

    kind: PredictionKind
    kernel: int
    share: bool


def infer_prediction(
    program: Program,
    head: HeadPart | None,
    problems: list[Diagnostic],
    warnings: list[Diagnostic],
    indices: Sequence[int] | None = None,
) -> tuple[PredictionKind, PredictionPart] | None:
    """The prediction of a decoder, and its layers; None where it has none, or one with a mistake.

    Args:
        head: whose towers it reads; None where it is not known.
        warnings, indices: see `infer_fpn`.
    """
    node = program.predict
    if node is None:
        return None
    settings = infer_settings(node, problems, indices)
    conv: Any = node.conv if indices is None else chosen(node.conv, indices)
    layers: list[tuple[str, HeadLayer]] = []
    if isinstance(conv, Target) and head is not None:
        kernel = next((s for s in node.settings if s.name == "kernel"), None)
        if kernel is not None:
            problems.append(heads.kernel_of_op(kernel.span, conv.name))
        layers = _infer_layers(conv, _place_of_conv(node), head, problems, warnings, indices)
    if settings is None:
        return None
    kind, kernel_size, share = settings
    return kind, PredictionPart(kernel_size, share, tuple(layers), node.span)


def infer_settings(
    node: PredictProgram, problems: list[Diagnostic], indices: Sequence[int] | None = None
) -> PredictionSettings | None:
    """The kind of a prediction, with its attributes; None where something is wrong. Open slots have their defaults."""
    cls = find_kind(node.detector)
    if cls is None:
        problems.append(names.unknown_detector(node.detector_span, node.detector, known_kinds()))
        for failed in load_plugins(PREDICTIONS, KINDS):
            problems.append(
                lints.plugin_failed(node.detector_span, failed.package, failed.error, failed.name, PREDICTIONS, "predictions")
            )
        return None
    accepted = kind_attributes(cls)
    settings = node.settings if indices is None else fill_settings(node.settings, indices)
    values = attributes.settings(settings, {**accepted, **COMMON}, node.detector, node.detector_span, {}, problems)
    if values is None:
        return None
    known = {
        field.name: field.convert(value)  # type: ignore[arg-type]  # sizes are not accepted
        for field in kind_fields(cls)
        if not isinstance(value := values[field.name], Unknown)
    }
    try:
        for field in kind_fields(cls):
            if field.required and field.name not in known:  # open, and without a default
                known[field.name] = field.words[0] if field.words else field.convert(1)
        kind = cls(**known)
        checked_maps(kind)
    except PredictionError as error:
        problems.append(heads.prediction_refused(node.detector_span, str(error)))
        return None
    except Exception as error:
        message = f"{describe_kind(cls)} takes no such attributes: {type(error).__name__}: {error}"
        problems.append(heads.prediction_refused(node.detector_span, message))
        return None
    kernel, share = values["kernel"], values["share"]
    return PredictionSettings(kind, kernel if isinstance(kernel, int) else 3, share != "false")


def kind_attributes(cls: type[PredictionKind]) -> dict[str, Accepts]:
    """The attributes of a kind without those of every kind, and what each accepts."""
    if cls not in _accepted:
        metadata = {field.name: field.metadata for field in fields(cls)}  # type: ignore[arg-type]  # registered ones are dataclasses
        _accepted[cls] = {field.name: primitives.accepts(field, **_bounds(metadata[field.name])) for field in kind_fields(cls)}
    return _accepted[cls]


def _bounds(metadata: Mapping[str, Any]) -> dict[str, int]:
    return {name: metadata[name] for name in ("least", "largest") if isinstance(metadata.get(name), int)}


def _place_of_conv(node: PredictProgram) -> Span:
    return next(s.value.span for s in node.settings if s.name == "conv")


def _infer_layers(
    target: Target,
    place: Span,
    head: HeadPart,
    problems: list[Diagnostic],
    warnings: list[Diagnostic],
    indices: Sequence[int] | None,
) -> list[tuple[str, HeadLayer]]:
    """The layers of an op in the place of the prediction convolutions, behind each tower.

    It has no norm and no activation but those that its definition writes out, and ends in a convolution.
    """
    layers: list[tuple[str, HeadLayer]] = []
    done: dict[int, HeadLayer | None] = {}
    for tower in head.towers:
        width = _width_behind(tower.layers)
        if width not in done:
            done[width] = _infer_layer(target, place, width, head.width, problems, warnings, indices)
        layer = done[width]
        if layer is not None:
            layers.append((tower.name, layer))
    widths = {tower.name: _width_behind(tower.layers) for tower in head.towers}
    known = {width for width in widths.values() if width != UNKNOWN_WIDTH}
    if len(known) > 1 and any(len(layer.applications) > 2 for _, layer in layers):
        problems.append(heads.prediction_widths(place, target.name, widths))
    return layers


def _width_behind(layers: Sequence[HeadLayer]) -> int:
    """Channels behind a tower; `UNKNOWN_WIDTH` where they are not known."""
    last = layers[-1] if layers else None
    return UNKNOWN_WIDTH if last is None or last.result == UNFIT else last.applications[last.result].feature.width


def _infer_layer(
    target: Target,
    place: Span,
    width: int,
    section_width: int,
    problems: list[Diagnostic],
    warnings: list[Diagnostic],
    indices: Sequence[int] | None,
) -> HeadLayer | None:
    words = {"width": width or section_width, "norm": "none", "act": "none"}
    inference = Inference(problems, indices)
    call = Call(target, (Ref("x", place),), (), False, place, place)
    inference.layers.own(target.name, target.name, "layer", place)
    source = inference.layers.source("x", Feature(CURRENT_LEVEL, width), place)
    result = inference.expand(call, Frame({"x": Binding("x", source, place)}, words, None), "", None)
    warnings += inference.warnings
    if result == UNFIT:
        return None
    applications = tuple(inference.layers.applications)
    last = applications[result]
    groups = last.layer.groups if isinstance(last.layer, Conv | DeformConv) else None
    if groups != 1 or last.feature.level != CURRENT_LEVEL:
        problems.append(heads.prediction_layer(place, target.name, last.layer.kind, groups))
        return None
    if last.weights and any(a.weights == last.weights for a in applications[:result]):
        problems.append(heads.prediction_tied(place, target.name))
        return None
    return HeadLayer(target.name, place, applications, result)
