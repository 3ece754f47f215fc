"""Costs of whole detectors that are known before an evaluation, in tens of microseconds for a filling of a space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from nasdsl.backbones import Backbone
from nasdsl.backbones import backbone as find_backbone
from nasdsl.backends.cost import CostTable, Size
from nasdsl.search.objective import AIMS
from nasdsl.spaces import Space
from nasdsl.spaces.figures import FigureCounter

Indices: TypeAlias = tuple[int, ...]
"""The decisions of a filling; inactive ones are 0."""

KnownCosts: TypeAlias = Callable[[Indices], Mapping[str, float] | None]
"""Function from the decisions of a filling to its costs by name (keys of `AIMS`); None for a filling that cannot be built."""


class LatencyPredictor(Protocol):
    """Predicts the latency of a whole detector, from an image to boxes, without running it."""

    def __call__(self, text: str) -> float:
        """Seconds for one image, from the text of a decoder. The same text gives the same number during a search."""


def detector_figures(cost: CostTable) -> dict[str, int]:
    """The figures of a trial that are costs of the whole detector: backbone, fpn and head."""
    return {AIMS["macs"]: cost.total.macs, AIMS["params"]: cost.total.params}


class DetectorCosts:
    """Costs of the whole detectors of a space: multiply-accumulates, parameters, and latency if it can be predicted.

    They are those that the check of a search counts (`detector_figures`), without building the decoder.

    Args:
        size: height and width of the image, for decoders whose text names none.
        latency: predicts latencies. None: there is no ``latency`` among the costs.

    Attributes:
        names: of the costs.
        backbone: costs of the backbone alone, which no filling can go below; of several backbones and sizes, the least.
    """

    def __init__(self, space: Space, size: Size, latency: LatencyPredictor | None = None) -> None:
        self.names = ("macs", "params", *(() if latency is None else ("latency",)))
        self._space, self._size, self._latency = space, size, latency
        self._counter = FigureCounter(space.program, space.backbone, space.classes, space.sizes or (size,))
        self._alone: dict[tuple[str, Size], dict[str, float]] = {}
        self._seconds: dict[Indices, float] = {}
        names = space.backbones or (space.backbone.name,)
        alone = [self._of_backbone(find_backbone(name), own) for name in names for own in space.sizes or (size,)]
        self.backbone = {name: min(costs[name] for costs in alone) for name in ("macs", "params")}

    def _of_backbone(self, backbone: Backbone, size: Size) -> dict[str, float]:
        key = backbone.name, size
        if key not in self._alone:
            cost = backbone.cost(size).cost
            self._alone[key] = {"macs": float(cost.macs), "params": float(cost.params)}
        return self._alone[key]

    def __call__(self, indices: Indices) -> dict[str, float] | None:
        """The costs of a filling by name; None for one that cannot be built."""
        figures = self._counter.figures(indices)
        if figures is None:
            return None
        size = self._counter.size(indices) or self._size
        alone = self._of_backbone(self._counter.backbone_of(indices), size)
        costs = {"macs": alone["macs"] + figures.macs[size], "params": alone["params"] + figures.params}
        if self._latency is not None:
            if indices not in self._seconds:
                self._seconds[indices] = float(self._latency(str(self._space.decode(indices))))
            costs["latency"] = self._seconds[indices]
        return costs
