"""What a decoder predicts: ``predict fcos(…)``, ``predict retinanet(…)``."""

from __future__ import annotations

from collections.abc import Sequence

from nasdsl.diagnostics import Diagnostic
from nasdsl.diagnostics.catalogue import names
from nasdsl.semantics import attributes
from nasdsl.semantics.architecture import Fcos, Predict, Retinanet
from nasdsl.semantics.attributes import Accepts
from nasdsl.semantics.program import Program, fill_settings

DETECTORS: dict[str, dict[str, Accepts]] = {
    "fcos": {"centerness": Accepts("word", "cls", ("cls", "box")), "boxes": Accepts("word", "exp", ("exp", "relu"))},
    "retinanet": {"anchors": Accepts("count", 9, largest=1000)},
}
"""Kinds of prediction, with their attributes."""


def infer_prediction(program: Program, problems: list[Diagnostic], indices: Sequence[int] | None = None) -> Predict | None:
    """The prediction of a decoder; None where it has none, or one with a mistake."""
    node = program.predict
    if node is None:
        return None
    accepted = DETECTORS.get(node.detector)
    if accepted is None:
        problems.append(names.unknown_detector(node.detector_span, node.detector, DETECTORS))
        return None
    settings = node.settings if indices is None else fill_settings(node.settings, indices)
    values = attributes.settings(settings, accepted, node.detector, node.detector_span, {}, problems)
    if values is None:
        return None
    if node.detector == "fcos":
        return Fcos(str(values["centerness"]), str(values["boxes"]))
    anchors = values["anchors"]
    return Retinanet(anchors if isinstance(anchors, int) else 9)
