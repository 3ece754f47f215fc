"""Costs of whole detectors that are known before an evaluation, in tens of microseconds for a filling of a space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

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
        size: height and width of the image.
        latency: predicts latencies. None: there is no ``latency`` among the costs.

    Attributes:
        names: of the costs.
        backbone: costs of the backbone alone, which no filling can go below.
    """

    def __init__(self, space: Space, size: Size, latency: LatencyPredictor | None = None) -> None:
        cost = space.backbone.cost(size).cost
        self.names = ("macs", "params", *(() if latency is None else ("latency",)))
        self.backbone = {"macs": float(cost.macs), "params": float(cost.params)}
        self._space, self._size, self._latency = space, size, latency
        self._counter = FigureCounter(space.program, space.backbone, space.classes, (size,))
        self._seconds: dict[Indices, float] = {}

    def __call__(self, indices: Indices) -> dict[str, float] | None:
        """The costs of a filling by name; None for one that cannot be built."""
        figures = self._counter.figures(indices)
        if figures is None:
            return None
        costs = {
            "macs": self.backbone["macs"] + figures.macs[self._size],
            "params": self.backbone["params"] + figures.params,
        }
        if self._latency is not None:
            if indices not in self._seconds:
                self._seconds[indices] = float(self._latency(str(self._space.decode(indices))))
            costs["latency"] = self._seconds[indices]
        return costs
