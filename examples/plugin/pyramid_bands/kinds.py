"""A kind of prediction: FCOS whose class scores tell how good the box is, in the place of centerness.

Importing this module registers it; torch is not imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from nasdsl.predictions import BoxForm, PredictedMap, PredictionKind, prediction


@prediction("quality_fcos")
@dataclass(frozen=True, slots=True)
class QualityFcos(PredictionKind):
    """``predict quality_fcos(boxes=relu)``: classes and four sides at each location."""

    method = "pyramid_bands.losses:QualityFcos"
    boxes_are = "distances"

    boxes: Literal["exp", "relu"] = "relu"

    def maps(self) -> tuple[PredictedMap, ...]:
        return PredictedMap("cls_logits", "cls", per_class=1), PredictedMap("bbox_reg", "box", fixed=4)

    @property
    def box_form(self) -> BoxForm:
        return self.boxes

    def method_options(self) -> dict[str, Any]:
        return {"has_centerness": False}
