"""The detector that a decoder is for: ``detector(size=240x320, backbone=mobilenet_v2)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nasdsl.backbones import BACKBONES, TIMM, backbone
from nasdsl.diagnostics import Diagnostic
from nasdsl.diagnostics.catalogue import names
from nasdsl.semantics import attributes
from nasdsl.semantics.architecture import DetectorPart
from nasdsl.semantics.attributes import Accepts, Size
from nasdsl.semantics.program import DetectorProgram, Program, chosen, fill_settings

ATTRIBUTES = {"size": Accepts("size", largest=16384, optional=True), "backbone": Accepts("name", optional=True)}


def infer_detector(program: Program, problems: list[Diagnostic], indices: Sequence[int] | None = None) -> DetectorPart | None:
    """The detector that a decoder is for; None where it names none, or one with a mistake.

    Models of timm are looked up where the backbone is needed, because that imports torch.

    Args:
        indices: the alternative that fills each slot; None leaves slots open.
    """
    node = program.detector
    if node is None:
        return None
    settings = node.settings if indices is None else fill_settings(node.settings, indices)
    values = attributes.settings(settings, ATTRIBUTES, "detector", node.keyword, {}, problems)
    if values is None:
        return None
    size, name = values.get("size"), values.get("backbone")
    if isinstance(name, str):
        _check_backbone(str(name), program, node, problems, indices)
    return DetectorPart(
        (size.height, size.width) if isinstance(size, Size) else None, str(name) if isinstance(name, str) else None
    )


def _check_backbone(
    name: str, program: Program, node: DetectorProgram, problems: list[Diagnostic], indices: Sequence[int] | None
) -> None:
    """Report a backbone that is not known, and inputs that it lacks."""
    value = next(s.value for s in node.settings if s.name == "backbone")
    place = value.span if indices is None else chosen(value, indices).span
    if name.startswith(TIMM) and name != TIMM:
        return
    if name not in BACKBONES:
        problems.append(names.unknown_backbone(place, name, BACKBONES))
        return
    given = backbone(name).out_channels
    for feature in program.inputs:
        if feature.name not in given:
            problems.append(names.missing_input(place, feature.name, name, given, feature.span))


def feature_widths(detector: DetectorPart | None) -> Mapping[str, int]:
    """Channels of the backbone's features, where the decoder names a backbone that is no model of timm."""
    if detector is None or detector.backbone not in BACKBONES:
        return {}
    return backbone(detector.backbone).out_channels
