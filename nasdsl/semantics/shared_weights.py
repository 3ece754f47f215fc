"""The weights of `shared` ops: one set for all calls, whose layers must have the same shapes in each of them.

A call is expanded by itself, its operands as inputs, and its layers are then put where the call stands. So the paths of its
parameters are the same in each call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from nasdsl.diagnostics import Span
from nasdsl.layers import OWN_WIDTH, UNKNOWN_WIDTH, Conv, CustomLayer, DeformConv, Feature, Layer

if TYPE_CHECKING:
    from nasdsl.semantics.architecture import Application
    from nasdsl.semantics.vocabulary import Op

Shape: TypeAlias = tuple[Layer, tuple[int, ...]]
"""What the parameters of a layer follow from: the layer, and the channels of its operands."""


Operands: TypeAlias = "tuple[Feature | None, ...]"
"""The features of a call's operands; None for one that is left out (``none``)."""


class SharedExpansion(NamedTuple):
    """The layers of a call.

    Attributes:
        applications: the operands as inputs, without those that are left out, then the layers.
        operands: number of these inputs.
        results: indices of what the op gives, `NOTHING` for what is left out.
    """

    applications: tuple[Application, ...]
    operands: int
    results: tuple[int, ...]


class FirstCall(NamedTuple):
    """The call that the others are compared with."""

    features: Operands
    place: Span


@dataclass(slots=True)
class WeightSet:
    """The weights of a `shared` op, from its statement on.

    Attributes:
        root: path that they live below.
        words: what words mean in the body: as where the op is defined.
        is_broken: its body has a mistake that is reported already.
        first: its first call; None before there is one.
        shapes: of the layers with parameters, by path.
        expansions: of calls, by the features of their operands; None for one with a mistake.
    """

    op: Op
    root: str
    words: dict[str, Any]
    is_broken: bool = False
    first: FirstCall | None = None
    shapes: dict[str, Shape] = field(default_factory=dict)
    expansions: dict[Operands, SharedExpansion | None] = field(default_factory=dict)

    def fits(self, features: Operands, expansion: SharedExpansion, place: Span) -> bool:
        """Whether the layers of a call fit those of the calls before it."""
        if self.first is None:
            self.first = FirstCall(features, place)
        applications = expansion.applications
        for application in applications[expansion.operands :]:
            operands = [applications[i].feature for i in application.inputs]
            path = application.weights or f"{self.root}.{application.path}"
            if not add_shape(self.shapes, path, application.layer, operands, application.feature):
                return False
        return True


def add_shape(shapes: dict[str, Shape], path: str, layer: Layer, operands: Sequence[Feature], out: Feature) -> bool:
    """Note the shape of a layer with parameters; whether it is that of the layers of this path before it.

    A width that is not known fits any.
    """
    if isinstance(layer, Conv | DeformConv):
        layer = layer.resolved(operands[0])
        if OWN_WIDTH in (layer.width, layer.groups):
            return True  # its shape is known with the backbone, and compared then
    if not isinstance(layer, CustomLayer) and not layer.cost(operands, out, 1).params:
        return True
    widths = tuple([feature.width for feature in operands])
    if path not in shapes:
        shapes[path] = layer, widths
        return True
    before, known = shapes[path]
    if before != layer or len(known) != len(widths):
        return False
    shapes[path] = layer, tuple([a or b for a, b in zip(known, widths, strict=True)])
    return all(UNKNOWN_WIDTH in (a, b) or a == b for a, b in zip(known, widths, strict=True))
