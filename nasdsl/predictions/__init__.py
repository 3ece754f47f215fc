"""What a decoder predicts: the kinds of ``predict``, built in and of other packages. torch is not imported."""

from __future__ import annotations

from nasdsl.predictions.builtin import Atss, Fcos, Gfl, Retinanet, Tal
from nasdsl.predictions.kind import (
    KINDS,
    BoxForm,
    PredictedMap,
    PredictionError,
    PredictionKind,
    describe_kind,
    find_kind,
    kind_fields,
    known_kinds,
    prediction,
)

__all__ = [
    "KINDS",
    "Atss",
    "BoxForm",
    "Fcos",
    "Gfl",
    "PredictedMap",
    "PredictionError",
    "PredictionKind",
    "Retinanet",
    "Tal",
    "describe_kind",
    "find_kind",
    "kind_fields",
    "known_kinds",
    "prediction",
]
