"""Shape and cost of values and layers, without tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Feature(NamedTuple):
    """The shape of a value.

    Attributes:
        level: the stride is 2**level; for an H x W image the map is ceil(H / stride) x ceil(W / stride).
            None: 1x1, the result of global pooling; it broadcasts over any map.
        width: number of channels; `UNKNOWN_WIDTH` for a backbone feature before a backbone is chosen.
    """

    level: int | None
    width: int


class Features(Feature):
    """The shapes of several results of one layer: itself the first of them.

    Attributes:
        results: all of them, in order.
        level: of the first result.
        width: of the first result.
    """

    results: tuple[Feature, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Features) and self.results == other.results

    def __ne__(self, other: object) -> bool:  # that of a tuple sees the first result only
        return not self == other

    def __hash__(self) -> int:
        return hash(self.results)

    @classmethod
    def of(cls, results: Sequence[Feature]) -> Features:
        """The shapes of several results, in order.

        Args:
            results: one at least.
        """
        made = cls(*results[0])
        made.results = tuple(results)
        return made


UNKNOWN_WIDTH = 0
"""Any number of groups divides 0, so shape rules accept an unknown width; lowering applies them again with known widths."""


class Cost(NamedTuple):
    """The cost of a layer for one image.

    Attributes:
        macs: multiply-accumulates of convolutions (of deformable ones, all), of CARAFE's reassembly and of the products of
            attention only.
        params: number of parameters.
        published_flops: "FLOPs" as Table 2 of the paper counts them: `macs`, + 1 per output element for a bias, + 2 per
            element of a BatchNorm, + 1 per element of a ReLU.
    """

    macs: int = 0
    params: int = 0
    published_flops: int = 0

    def __add__(self, other: Cost) -> Cost:  # type: ignore[override]  # a cost is a vector, not a sequence
        return Cost(self[0] + other[0], self[1] + other[1], self[2] + other[2])


FREE = Cost()
"""The cost of a layer that has no weights and multiplies nothing."""


class LayerError(ValueError):
    """A layer that cannot take its operands. `kind` selects the diagnostic; the message says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
