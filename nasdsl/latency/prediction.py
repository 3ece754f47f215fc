"""Latency of whole detectors, predicted from the table of measured parts. torch is imported only to measure what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends.cost import Size
from nasdsl.decoder import Decoder, loads
from nasdsl.latency.pieces import Part, parts_of
from nasdsl.latency.session import LatencyError
from nasdsl.latency.table import Context, Correction, Table, Times

if TYPE_CHECKING:
    from nasdsl.latency.measuring import PartTime

MeasureParts: TypeAlias = "Callable[[Context, Sequence[Part], float | None], Iterator[tuple[Part, PartTime]]]"
OnPart: TypeAlias = Callable[[int, int], object]
"""Called after each part that is measured with the number of those that are done and of all."""

SAVE_EVERY = 10
"""Parts after which they are written to the table."""


class PredictedPart(NamedTuple):
    """A part with its predicted milliseconds.

    Attributes:
        section: ``backbone``, ``fpn``, ``head``, ``predict``, ``postprocess``, or ``other`` for what the correction adds.
        name: where it stands in the text.
        key: what it is; the key of the table.
    """

    section: str
    name: str
    key: str
    milliseconds: float


@dataclass(frozen=True)
class PredictedLatency:
    """Predicted latency of a whole detector for one image.

    Attributes:
        milliseconds: the prediction.
        parts: what it is the sum of, in the order of the detector.
        total: sum of the parts' times in reference times, without the correction.
        measured: number of parts that had to be measured for it.
        correction: which the parts' times have in them; None if none was fitted.
        size, backbone, classes, context: what it is for.
    """

    milliseconds: float
    parts: tuple[PredictedPart, ...]
    total: float
    measured: int
    correction: Correction | None
    size: Size
    backbone: str
    classes: int
    context: Context

    @property
    def sections(self) -> dict[str, float]:
        """Milliseconds by section."""
        totals: dict[str, float] = {}
        for part in self.parts:
            totals[part.section] = totals.get(part.section, 0.0) + part.milliseconds
        return totals

    def slowest(self, count: int = 10) -> list[list[PredictedPart]]:
        """The slowest parts, slowest first; those with one key, such as layers of a head, are together.

        Args:
            count: how many parts.
        """
        alike: dict[str, list[PredictedPart]] = {}
        for part in self.parts:
            alike.setdefault(part.key, []).append(part)
        return sorted(alike.values(), key=lambda parts: -sum(part.milliseconds for part in parts))[:count]


@dataclass(frozen=True)
class LatencyPredictor:
    """Predicts the milliseconds of whole detectors from texts: ``predictor(text)``.

    It can be pickled, for workers. Parts that the table lacks are measured when they are first met, one process at a time;
    after that a prediction takes milliseconds and imports no torch.

    Attributes:
        runtime: ``onnxruntime``, ``openvino`` or ``torch``. For the former two the detector is as `nasdsl export --size`
            writes it.
        threads: of the CPU.
        backbone, size: of detectors whose text does not say them.
        classes: number of classes.
        method: options of the detection method, such as ``{"candidates": 300}``.
        table: its file; None: `nasdsl.latency.table.default_path`.
        measure_parts: replaces `nasdsl.latency.measuring.measure_parts`.
        on_part: for progress, while parts are measured.
    """

    runtime: str = "onnxruntime"
    threads: int = 1
    backbone: str | None = None
    size: Size | None = None
    classes: int = 80
    method: Mapping[str, Any] = field(default_factory=dict)
    table: str | Path | None = None
    measure_parts: MeasureParts | None = None
    on_part: OnPart | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_open", None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None, "on_part": None}

    def __call__(self, text: str) -> float:
        """Milliseconds of the detector of a text; see `predict`."""
        return self.predict(text).milliseconds

    def predict(self, decoder: str | Decoder, backbone: str | None = None, size: Size | None = None) -> PredictedLatency:
        """The latency of a whole detector.

        Args:
            decoder: or its text.
            backbone: of the detector. None: what the text says, or else the predictor's.
            size: height and width of its images in pixels, likewise.

        Raises:
            DiagnosticError, MissingFeature, UnknownBackbone: the decoder does not check, or does not fit the backbone.
            LatencyError: the size or backbone is not known, or the runtime cannot run a part.
        """
        if isinstance(decoder, str):
            decoder = loads(decoder)
        backbone = backbone or decoder.backbone or self.backbone
        size = size or decoder.size or self.size
        if backbone is None or size is None:
            lacking = "backbone" if backbone is None else "size"
            raise LatencyError(f"{decoder.name}: the latency of a whole detector depends on its {lacking}; give one")
        graph = decoder.lower(find_backbone(backbone).out_channels)
        parts = list(parts_of(graph, backbone, size, self.classes, self.method))
        table, context = self._opened()
        times, measured = self._measured(table, context, parts)
        return _predicted(parts, times, measured, size, backbone, self.classes, context)

    def _opened(self) -> tuple[Table, Context]:
        opened: tuple[Table, Context] | None = self.__dict__["_open"]
        if opened is None:
            opened = Table(self.table), Context.here(self.runtime, self.threads)
            object.__setattr__(self, "_open", opened)
        return opened

    def _measured(self, table: Table, context: Context, parts: Sequence[Part]) -> tuple[Times, int]:
        """The times of the table with all these parts, and how many had to be measured."""
        times = table.times(context)
        if not _missing(parts, times):
            return times, 0
        with table.lock():
            times = table.times(context)  # another process may have measured meanwhile
            missing = _missing(parts, times)
            unsaved: dict[str, float] = {}
            references: list[float] = []
            for number, (part, time) in enumerate(self._measuring(context, missing, times.reference), 1):
                unsaved[part.key] = time.relative
                references += time.references
                if number % SAVE_EVERY == 0 or number == len(missing):
                    table.add(context, unsaved, references)
                    unsaved, references = {}, []
                if self.on_part is not None:
                    self.on_part(number, len(missing))
        return table.times(context), len(missing)

    def _measuring(self, context: Context, missing: Sequence[Part], pace: float | None) -> Iterator[tuple[Part, PartTime]]:
        if not missing:
            return iter(())
        if self.measure_parts is not None:
            return self.measure_parts(context, missing, pace)
        from nasdsl.latency.measuring import measure_parts

        return measure_parts(context, missing, pace)


def predict_latency(
    decoder: str | Decoder,
    *,
    backbone: str | None = None,
    size: Size | None = None,
    runtime: str = "onnxruntime",
    threads: int = 1,
    classes: int = 80,
    table: str | Path | None = None,
) -> PredictedLatency:
    """Predict the latency of a whole detector from measured parts, without building it; see `LatencyPredictor`.

    Args:
        decoder: or its text.
        backbone: None: what the text says.
        size: height and width of the image in pixels; None: what the text says.
        runtime: one of `RUNTIMES`.
        threads: of the CPU.
        classes: number of classes.
        table: file of measured parts; None: `nasdsl.latency.table.default_path`.
    """
    return LatencyPredictor(runtime, threads, backbone, size, classes, table=table).predict(decoder)


def _missing(parts: Sequence[Part], times: Times) -> list[Part]:
    """One part for each key that the table lacks."""
    return list({part.key: part for part in parts if part.key not in times.relative}.values())


def _predicted(
    parts: Sequence[Part], times: Times, measured: int, size: Size, backbone: str, classes: int, context: Context
) -> PredictedLatency:
    correction = times.correction
    factor = 1.0 if correction is None else correction.factor
    found = [PredictedPart(part.section, part.name, part.key, factor * (times.milliseconds(part.key) or 0.0)) for part in parts]
    if correction is not None and times.reference is not None:
        constant = correction.constant * times.reference
        found.append(PredictedPart("other", "correction", "constant of the correction", constant))
    milliseconds = sum(part.milliseconds for part in found)
    total = sum(times.relative[part.key] for part in parts)
    return PredictedLatency(milliseconds, tuple(found), total, measured, correction, size, backbone, classes, context)
