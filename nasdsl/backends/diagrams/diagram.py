"""Contents of a diagram: a box for each named value, and an arrow for each operand.

`dot`, `mermaid`, `html` and `diff` draw it. A graph has a node for each primitive layer; a diagram has a box for each named
value, as the text and the figures of papers do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

from nasdsl.backends.cost import Areas, CostTable
from nasdsl.diagnostics import Span
from nasdsl.layers import Feature, Layer
from nasdsl.semantics.architecture import Group

Family: TypeAlias = Literal[
    "deformable", "attention", "separable", "convolution", "aggregation", "resampling", "identity", "custom"
]
"""Kind of op, which decides the color of a box."""

Role: TypeAlias = Literal["input", "value", "merge", "output", "layer", "prediction", "reference", "group"]

SEVERAL_LEVELS: Final = -1
"""In the place of a level: that of a group whose values have different ones, and of the lane for such groups."""

ArrowKind: TypeAlias = Literal["data", "merge"]

FAMILIES: Mapping[Family, str] = {
    "custom": "custom primitive",
    "deformable": "deformable convolution",
    "attention": "attention",
    "separable": "grouped or separable convolution",
    "convolution": "convolution",
    "aggregation": "aggregation",
    "resampling": "pooling, resize",
    "identity": "identity",
}
"""Text of the legend for each family, in order of precedence: a value with layers of several families gets the first."""

SHARED_WEIGHTS = "shared weights"
"""The note of a value that other values have weights of."""


class Box(NamedTuple):
    """A box of a diagram.

    Attributes:
        id: unique in the diagram: the name of a value, or a name that no value can have (``output p5``, ``head cls 0``).
        name: title of the box.
        text: expression of the value, on one line.
        family: kind of op.
        role: what it is in the decoder. A ``reference`` stands for a box in another row of a wrapped diagram, a ``group``
            for the values of a block or a `repeat`.
        level: level of the result; None for a globally pooled value, and in the head, which is applied to every level;
            `SEVERAL_LEVELS` for a group.
        width: channels of the result; 0 for a group whose values have different ones, and for a layer of the head where levels
            have.
        macs, params: cost for one image.
        span: where the text defines it.
        note: how a layer of the head is shared, the channels of a raw input, how many values a group has, or that other values
            have weights of this one.
        layers: layers that compute it. Two boxes with equal layers and operands compute the same.
        groups: the repeats, turns and blocks that its statement stands in, outermost first.
    """

    id: str
    name: str
    text: str
    family: Family
    role: Role
    level: int | None
    width: int
    macs: int
    params: int
    span: Span
    note: str
    layers: tuple[Layer, ...]
    groups: tuple[Group, ...] = ()


class Arrow(NamedTuple):
    """An arrow: the box `target` reads the box `source`.

    Attributes:
        source, target: ids of boxes.
        kind: ``merge`` if a dangling value is added to an output.
        times: how many operands it stands for; ``cat(f(c5), g(c5))`` reads c5 twice.
        levels: level of the target minus that of the source; 0 if one of them has no level.
    """

    source: str
    target: str
    kind: ArrowKind = "data"
    times: int = 1
    levels: int = 0

    @property
    def mark(self) -> str:
        """``↑4`` if the map becomes four times as high and wide, ``↓2`` if half, empty if its size does not change."""
        return "" if not self.levels else f"{'↓' if self.levels > 0 else '↑'}{1 << abs(self.levels)}"


class Lane(NamedTuple):
    """The boxes of one level; level None is for globally pooled values."""

    level: int | None
    label: str
    boxes: tuple[Box, ...]


class Tower(NamedTuple):
    """A tower of the head: its layers in order, the predictions that read the last layer, and the arrows into these.

    Attributes:
        start: number of layers in front of it: those of the trunk, for the towers that go on from one.
    """

    name: str
    layers: tuple[Box, ...]
    predictions: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    start: int = 0

    @property
    def entries(self) -> tuple[Box, ...]:
        """The boxes that read the pyramid."""
        read = {arrow.target for arrow in self.arrows}  # by boxes of the trunk
        return tuple(box for box in self.layers[:1] or self.predictions if box.id not in read)

    @property
    def end(self) -> int:
        """Number of layers from the pyramid to its predictions."""
        return self.start + len(self.layers)


class RemovedValue(NamedTuple):
    """A value that no output depends on, and what it would have cost."""

    name: str
    macs: int
    params: int
    span: Span


@dataclass(frozen=True, slots=True)
class Diagram:
    """The diagram of a decoder.

    Attributes:
        name: name of the decoder.
        table: its costs, with the image size they are for.
        lanes: boxes of the fpn by level, coarsest level first, globally pooled values last.
        arrows: arrows of the fpn, in the order of the text.
        pyramid: names of the outputs, finest first.
        towers: the head, once for all levels.
        removed: values that are not drawn because no output depends on them.
    """

    name: str
    table: CostTable
    lanes: tuple[Lane, ...]
    arrows: tuple[Arrow, ...]
    pyramid: tuple[str, ...]
    towers: tuple[Tower, ...]
    removed: tuple[RemovedValue, ...]

    @property
    def boxes(self) -> Iterable[Box]:
        """All boxes: those of the fpn, then those of the head."""
        for lane in self.lanes:
            yield from lane.boxes
        for tower in self.towers:
            yield from tower.layers
            yield from tower.predictions

    def shape(self, box: Box) -> str:
        """``256 x 100 x 136``: channels, height and width of a box's map; in the head, which is applied to every level, the
        channels alone, and empty where they differ."""
        if box.level is None:
            return str(box.width or "")
        height, width = Areas(self.table.size).map(Feature(box.level, box.width))
        return f"{box.width} x {height} x {width}"


def level_difference(source: int | None, target: int | None) -> int:
    """Level of the target minus that of the source; 0 if one of them has none."""
    return 0 if source is None or target is None else target - source
