"""What is known of a value before any tensor exists, and what a layer costs."""

from __future__ import annotations

from typing import NamedTuple


class Feature(NamedTuple):
    """What is known of a value before any tensor exists.

    Attributes:
        level: its stride is 2**level; its map of an H x W image is ceil(H / stride) x ceil(W / stride).
            None: one value a channel (1x1), as global pooling leaves it; it broadcasts over any map.
        width: its channels; `UNKNOWN_WIDTH` for a raw backbone feature before a backbone is chosen.
    """

    level: int | None
    width: int


UNKNOWN_WIDTH = 0
"""Every number of groups divides 0, so the rules below let an unknown width pass; lowering asks them again."""


class Cost(NamedTuple):
    """What a layer costs for one image.

    Attributes:
        macs: multiply-accumulates of convolutions (deformable ones in full), and of nothing else.
        params: parameters.
        published_flops: "FLOPs" as Table 2 of the paper counts them: `macs`, + 1 per output element for a bias, + 2 per
            element of a BatchNorm, + 1 per element of a ReLU.
    """

    macs: int = 0
    params: int = 0
    published_flops: int = 0

    def __add__(self, other: Cost) -> Cost:  # type: ignore[override]  # a cost is a vector, not a sequence
        return Cost(self[0] + other[0], self[1] + other[1], self[2] + other[2])


FREE = Cost()


class LayerError(ValueError):
    """A layer that cannot take its operands; `kind` names the diagnostic, the message says why."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
