"""The built-in kinds of prediction: what a text says about them. Targets, losses and decoding are in `nasdsl.detection`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from nasdsl.predictions.kind import BoxForm, PredictedMap, PredictionKind, prediction


@dataclass(frozen=True, slots=True)
class _Distances(PredictionKind):
    """Classes, four sides and perhaps centerness at each location.

    Attributes:
        centerness: the tower that centerness is read from, ``cls`` or ``box``; ``none``: it is not predicted.
        boxes: how the 4 sides, in pixels, come from the convolution's result x and the level's scalar s:
            ``exp`` is exp(s * x), ``relu`` is relu(s * x) * stride.
    """

    boxes_are = "distances"

    centerness: Literal["cls", "box", "none"]
    boxes: Literal["exp", "relu"]

    def maps(self) -> tuple[PredictedMap, ...]:
        maps = (PredictedMap("cls_logits", "cls", per_class=1), PredictedMap("bbox_reg", "box", fixed=4))
        return maps if self.centerness == "none" else (*maps, PredictedMap("centerness", self.centerness, fixed=1))

    @property
    def box_form(self) -> BoxForm:
        return self.boxes

    def method_options(self) -> dict[str, Any]:
        return {"has_centerness": self.centerness != "none"}


@dataclass(frozen=True, slots=True)
class _Distributions(PredictionKind):
    """Classes and, for each of four sides, a distribution over distances.

    Attributes:
        bins: the largest distance in strides; a side is a distribution over 0, 1, …, bins.
    """

    boxes_are = "distributions"
    always_written = ("bins",)

    bins: int = field(default=16, metadata={"least": 1, "largest": 256})

    def maps(self) -> tuple[PredictedMap, ...]:
        return PredictedMap("cls_logits", "cls", per_class=1), PredictedMap("bbox_reg", "box", fixed=4 * (self.bins + 1))

    def method_options(self) -> dict[str, Any]:
        return {"bins": self.bins}


@prediction("fcos")
@dataclass(frozen=True, slots=True)
class Fcos(_Distances):
    """``predict fcos(centerness=cls|box|none, boxes=exp|relu)``: classes, 4 sides, centerness at each location.

    FCOS (arXiv:1904.01355): ``exp`` is its first version, ``relu`` the later one with regression targets in strides.
    """

    method = "nasdsl.detection.fcos:Fcos"
    always_written = ("centerness",)

    centerness: Literal["cls", "box", "none"] = "cls"
    boxes: Literal["exp", "relu"] = "exp"


@prediction("retinanet")
@dataclass(frozen=True, slots=True)
class Retinanet(PredictionKind):
    """``predict retinanet(anchors=9)``: classes and 4 offsets for each anchor (arXiv:1708.02002)."""

    method = "nasdsl.detection.retinanet:Retinanet"
    boxes_are = "offsets"
    always_written = ("anchors",)

    anchors: int = field(default=9, metadata={"least": 1, "largest": 1000})

    def maps(self) -> tuple[PredictedMap, ...]:
        return (
            PredictedMap("cls_logits", "cls", per_class=self.anchors),
            PredictedMap("bbox_reg", "box", fixed=4 * self.anchors),
        )

    def method_options(self) -> dict[str, Any]:
        return {"anchors": self.anchors}


@prediction("atss")
@dataclass(frozen=True, slots=True)
class Atss(_Distances):
    """``predict atss(centerness=box)``: FCOS's maps, trained with adaptive training sample selection (arXiv:1912.02424)."""

    method = "nasdsl.detection.atss:Atss"
    always_written = ("centerness", "boxes")

    centerness: Literal["cls", "box", "none"] = "box"
    boxes: Literal["exp", "relu"] = "relu"


@prediction("gfl")
@dataclass(frozen=True, slots=True)
class Gfl(_Distributions):
    """``predict gfl(bins=16)``: scores that tell the quality of the box, sides as distributions (arXiv:2006.04388)."""

    method = "nasdsl.detection.gfl:Gfl"


@prediction("tal")
@dataclass(frozen=True, slots=True)
class Tal(_Distributions):
    """``predict tal(bins=16)``: as `Gfl`, with the task-aligned assignment of TOOD (arXiv:2108.07755)."""

    method = "nasdsl.detection.tal:Tal"
