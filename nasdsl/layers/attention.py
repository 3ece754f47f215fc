"""Primitive layer in which every position reads every other one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

from nasdsl.layers.base import Cost, Feature, LayerError

PositionKind: TypeAlias = Literal["sine", "none"]


@dataclass(frozen=True, slots=True)
class Attention:
    """Multi-head self-attention over all positions of a map (arXiv:1706.03762, section 3.2.2): softmax(q k^T / sqrt(d)) v.

    Queries, keys, values and the result are each projected with bias. ``position=sine`` adds sines and cosines of row and
    column to what queries and keys are made from, as in the encoders of DETR and of RT-DETR (arXiv:2304.08069, AIFI).
    """

    heads: int = 8
    position: PositionKind = "sine"

    kind: ClassVar[str] = "attention"

    def infer(self, inputs: Sequence[Feature]) -> Feature:
        (x,) = inputs
        if x.level is None:
            raise LayerError("no level", "attention is among the positions of a map; this value has one position")
        if x.width % self.heads:
            raise LayerError("heads", f"{self.heads} heads do not divide {x.width} channels")
        if self.position == "sine" and x.width % 4:
            raise LayerError("position", f"`position=sine` has 4 parts, which do not divide {x.width} channels")
        return x

    def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
        """Four projections, linear in the area of one map, and two products of all positions with all, quadratic in it."""
        width = out.width
        projections = 4 * width * width
        macs = projections * area + 2 * width * area * area
        return Cost(macs, projections + 4 * width, macs + 4 * width * area)
