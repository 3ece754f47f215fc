"""What a picture shows: the named values of the text with their figures, and who reads whom.

The picture back ends (`dot`, `mermaid`, `page`, `diff`) draw this. A graph has a node for each primitive layer; a diagram has
a box for each named value, which is how the text and the papers' figures speak of a decoder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

from nasdsl.backends.cost import Areas, CostTable, ValueCost
from nasdsl.backends.diagrams.labels import expression, shorten
from nasdsl.diagnostics import Span
from nasdsl.ir import Graph
from nasdsl.ir.graph import Node
from nasdsl.layers import (
    Add,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    Feature,
    GlobalPool,
    Layer,
    Maximum,
    Multiply,
    Pool,
    Resize,
    WeightedAdd,
)
from nasdsl.semantics.architecture import Fcos, Value

Family: TypeAlias = Literal["deformable", "separable", "convolution", "aggregation", "resampling", "identity", "custom"]
"""Kind of op, which gives a box its colour."""

Role: TypeAlias = Literal["input", "value", "merge", "output", "layer", "prediction", "reference"]

ArrowKind: TypeAlias = Literal["data", "merge"]

FAMILIES: Mapping[Family, str] = {
    "deformable": "deformable convolution",
    "separable": "grouped or separable convolution",
    "convolution": "convolution",
    "aggregation": "aggregation",
    "resampling": "pooling, resize",
    "identity": "identity",
    "custom": "custom primitive",
}
"""What the legend calls each family, in the order of precedence: a value that has layers of several takes the first."""

_COMBINING = (Add, Concat, Multiply, Maximum, WeightedAdd)


class Box(NamedTuple):
    """One thing drawn.

    Attributes:
        id: unique in the diagram. A value's own name; ``output p5`` and ``head cls 0`` cannot be names of values.
        name: what is printed on it in bold.
        text: its expression as the text has it, on one line.
        family, role: kind of op; what it is in the decoder.
        level: of its result; None for a globally pooled value, and in the head, which is applied to every level.
        width: channels of its result.
        macs, params: its own cost for one image.
        span: where the text says so.
        note: in small print: how a head's layer is shared, the width of a raw input.
        layers: what it computes. Two boxes of equal layers and equal operands compute the same.
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


class Arrow(NamedTuple):
    """One box reads another.

    Attributes:
        source, target: ids of boxes.
        kind: ``merge`` where a dangling value is added to an output.
        times: how often it is read; ``cat(f(c5), g(c5))`` reads c5 twice.
        levels: how many levels it goes up (stride doubled each time), or down where negative; 0 at one resolution, and
            where an end has no level.
    """

    source: str
    target: str
    kind: ArrowKind = "data"
    times: int = 1
    levels: int = 0

    @property
    def mark(self) -> str:
        """``↑4`` where the map gets four times as high and wide, ``↓2`` where half, empty where it stays."""
        return "" if not self.levels else f"{'↓' if self.levels > 0 else '↑'}{1 << abs(self.levels)}"


class Lane(NamedTuple):
    """The boxes of one level. ``level`` is None for globally pooled values."""

    level: int | None
    label: str
    boxes: tuple[Box, ...]


class Tower(NamedTuple):
    """A tower of the head: its layers in order, the predictions that read the last of them, and the arrows between."""

    name: str
    layers: tuple[Box, ...]
    predictions: tuple[Box, ...]
    arrows: tuple[Arrow, ...]

    @property
    def entries(self) -> tuple[Box, ...]:
        """What reads the pyramid."""
        return self.layers[:1] or self.predictions


class Absent(NamedTuple):
    """A value that no output depends on, and what it would have cost."""

    name: str
    macs: int
    params: int
    span: Span


@dataclass(frozen=True, slots=True)
class Diagram:
    """A decoder as it is drawn.

    Attributes:
        name: of the decoder.
        table: its figures, and the size for which they hold.
        lanes: boxes of the fpn by level, coarsest level first, globally pooled values last.
        arrows: of the fpn, in the order of the text.
        pyramid: names of the outputs, finest first.
        towers: the head, written once for all levels.
        removed: values that are not drawn because nothing depends on them.
    """

    name: str
    table: CostTable
    lanes: tuple[Lane, ...]
    arrows: tuple[Arrow, ...]
    pyramid: tuple[str, ...]
    towers: tuple[Tower, ...]
    removed: tuple[Absent, ...]

    @property
    def boxes(self) -> Iterable[Box]:
        """All boxes, the fpn's first."""
        for lane in self.lanes:
            yield from lane.boxes
        for tower in self.towers:
            yield from tower.layers
            yield from tower.predictions


def diagram(graph: Graph, table: CostTable) -> Diagram:
    """The picture's contents.

    Args:
        table: figures of this graph, as `nasdsl.backends.cost.cost` gives them.

    Raises:
        ValueError: the table is not of this graph.
    """
    costs = {row.name: row for row in table.nodes}
    boxes, arrows = _Values(graph, costs).run()
    levels = {box.id: box.level for box in boxes}
    return Diagram(
        graph.name,
        table,
        _lanes(boxes, graph, Areas(table.size)),
        tuple(a._replace(levels=climb(levels[a.source], levels[a.target])) for a in arrows),
        tuple(graph.outputs),
        tuple(_towers(graph, costs)),
        tuple(Absent(r.name, r.macs, r.params, r.span) for r in table.removed),
    )


def climb(source: int | None, target: int | None) -> int:
    """Levels from source to target; 0 where one of them has none."""
    return 0 if source is None or target is None else target - source


def family(layers: Iterable[Layer]) -> Family:
    """The first family of `FAMILIES` that one of the layers belongs to."""
    layers = tuple(layers)
    combines = any(isinstance(layer, _COMBINING) for layer in layers)
    found: set[Family] = {"identity"}
    for layer in layers:
        if isinstance(layer, CustomLayer):
            found.add("custom")
        elif isinstance(layer, DeformConv):
            found.add("deformable")
        elif isinstance(layer, Conv):
            # A grouped 1x1 is how `cat` sums what it has put side by side, and no op of its own there.
            summing = layer.k == 1 and combines
            found.add("convolution" if layer.groups == 1 else "aggregation" if summing else "separable")
        elif isinstance(layer, _COMBINING):
            found.add("aggregation")
        elif isinstance(layer, (Resize, Pool, GlobalPool)):
            found.add("resampling")
    return next(name for name in FAMILIES if name in found)


class _Values:
    """Gathers the fpn's layers into boxes, one a value."""

    def __init__(self, graph: Graph, costs: Mapping[str, ValueCost]) -> None:
        self.graph = graph
        self.costs = costs
        self.nodes = {node.id: node for node in graph.nodes}
        self.own: dict[int, list[Node]] = {}  # by identity of the value: equal names may be two values
        for node in graph.nodes:
            self.own.setdefault(id(node.value), []).append(node)
        removed = {id(entry.value) for entry in graph.removed}
        # Lowering makes a resized copy of a value once and books it on whoever asks first, who may even be dead. So a
        # resize stands for a value only where it is that value's result; elsewhere readers are taken to its source.
        self.drawn = {
            key: nodes[-1].id
            for key, nodes in self.own.items()
            if key not in removed or not all(isinstance(n.layer, Resize) for n in nodes)
        }
        self.box_of: dict[int, str] = {}  # identity of the value to the id of its box
        self.output_at = {name: f"output {name}" for name in graph.outputs}
        self.boxes: list[Box] = []
        self.arrows: dict[tuple[str, str, ArrowKind], int] = {}
        self.taken: set[str] = set()

    def run(self) -> tuple[list[Box], list[Arrow]]:
        raw = {n.value.name: n for n in self.graph.nodes if n.value.kind == "input"}
        folded = self._outputs()
        drawn: list[tuple[int, list[Node], Node | None]] = []
        for key, nodes in self.own.items():
            value = nodes[0].value
            if key not in self.drawn or (value.kind == "input" and f"{value.name} adapter" in self.costs):
                continue
            name = value.name.removesuffix(" adapter")
            self.box_of[key] = self._unique(self.output_at[folded[key]] if key in folded else name)
            source = raw[name] if value.kind == "adapter" else None
            if source is not None:
                self.box_of[id(source.value)] = self.box_of[key]
            drawn.append((key, nodes, source))
        for key, nodes, source in drawn:
            self._value(key, nodes, source, folded.get(key))
        for name, node_id in self.graph.outputs.items():
            if self.output_at[name] not in self.taken:
                self._renamed(name, node_id)
        return self.boxes, [Arrow(*key, times=times) for key, times in self.arrows.items()]

    def _outputs(self) -> dict[int, str]:
        """Values that are drawn as an output: its own layers, or the merge that it is. The rest are renamings."""
        folded = {}
        for name, node_id in self.graph.outputs.items():
            value = self.nodes[node_id].value
            if self.drawn.get(id(value)) == node_id and (value.kind, value.name) in (
                ("output", name),
                ("merge", f"{name}.merge"),
            ):
                folded[id(value)] = name
        return folded

    def _value(self, key: int, nodes: list[Node], raw: Node | None, output: str | None) -> None:
        value, out = nodes[0].value, self.nodes[self.drawn[key]].out
        cost = self.costs.get(value.name)
        if cost is None and value.kind != "input":
            raise ValueError(f"the cost table lacks {value.name}: it is not of {self.graph.name}")
        name = output or value.name.removesuffix(" adapter")
        box = self.box_of[key]
        sources = self._read(nodes, box) if raw is None else []
        note = ""
        if value.kind == "input" or raw is not None:
            text = "backbone" if raw is None else f"backbone → {value.op}"
            note = "" if raw is None else f"{raw.out.width} → "
        elif value.kind == "merge":
            names = list(dict.fromkeys(self._label(s) for s in sources))
            text = shorten(" + ".join(names[:9]), 60) + (f" + {len(names) - 9} more" if len(names) > 9 else "")
        else:
            text = expression(value.span)
        roles: dict[str, Role] = {"input": "input", "adapter": "input", "merge": "merge"}
        role: Role = "output" if output else roles.get(value.kind, "value")
        macs, params = (cost.macs, cost.params) if cost else (0, 0)
        layers = tuple(n.layer for n in nodes)
        self.boxes.append(
            Box(box, name, text, family(layers), role, out.level, out.width, macs, params, value.span, note, layers)
        )

    def _unique(self, name: str) -> str:
        while name in self.taken:
            name += "'"
        self.taken.add(name)
        return name

    def _label(self, box: str) -> str:
        return box.removeprefix("output ")

    def _read(self, nodes: list[Node], box: str) -> list[str]:
        """Book the arrows into a value's box; the boxes read, in order."""
        value = nodes[0].value
        result = self.drawn[id(value)]
        sources = []
        for node in nodes:
            if isinstance(node.layer, Resize) and node.id != result:
                continue  # whoever reads it asks for its source
            for place, operand in enumerate(node.inputs):
                source = self._source(operand, value)
                if source is not None:
                    sources.append(source)
                    kind: ArrowKind = "merge" if value.kind == "merge" and place else "data"
                    self._connect(source, box, kind)
        return sources

    def _source(self, operand: str, reader: Value) -> str | None:
        """The box behind an operand; None where that is the reader itself."""
        node = self.nodes[operand]
        if reader.kind == "output":
            for name, node_id in self.graph.outputs.items():
                # `p6 = down(p5)` speaks of p5, which may be no more than another name of x5.
                if node_id == operand and name != reader.name and re.search(rf"\b{name}\b", expression(reader.span)):
                    return self.output_at[name]
        while isinstance(node.layer, Resize) and (node.value is reader or self._passes(node)):
            node = self.nodes[node.inputs[0]]
        return None if node.value is reader else self.box_of[id(node.value)]

    def _passes(self, node: Node) -> bool:
        return node.value.kind == "output" or self.drawn.get(id(node.value)) != node.id

    def _connect(self, source: str, target: str, kind: ArrowKind = "data") -> None:
        key = (source, target, kind)
        self.arrows[key] = self.arrows.get(key, 0) + 1

    def _renamed(self, name: str, node_id: str) -> None:
        """An output that only names what another value computes."""
        node = self.nodes[node_id]
        while isinstance(node.layer, Resize) and self._passes(node):
            node = self.nodes[node.inputs[0]]
        source, box = self.box_of[id(node.value)], self._unique(self.output_at[name])
        self._connect(source, box)
        out = self.nodes[node_id].out
        kind: Family = "identity" if out.level == node.out.level else "resampling"
        span = node.value.span
        self.boxes.append(Box(box, name, self._label(source), kind, "output", out.level, out.width, 0, 0, span, "", ()))


def _lanes(boxes: list[Box], graph: Graph, areas: Areas) -> tuple[Lane, ...]:
    by_level: dict[int | None, list[Box]] = {}
    for box in boxes:
        by_level.setdefault(box.level, []).append(box)
    order = sorted((level for level in by_level if level is not None), reverse=True)
    lanes = []
    for level in [*order, *([None] if None in by_level else [])]:
        found = tuple(by_level[level])
        lanes.append(Lane(level, "global pooling · 1x1" if level is None else _lane_label(level, found, areas), found))
    return tuple(lanes)


def _lane_label(level: int, boxes: tuple[Box, ...], areas: Areas) -> str:
    names = [f"P{level}"] if any(b.role == "output" for b in boxes) else []
    names += [b.name.upper() for b in boxes if b.role == "input"]
    height, width = areas.map(Feature(level, 0))
    return f"{' / '.join(names) or f'level {level}'} · stride {1 << level} · {height}x{width}"


def _towers(graph: Graph, costs: Mapping[str, ValueCost]) -> Iterable[Tower]:
    head = graph.head
    for tower in head.towers:
        layers = []
        for layer in tower.layers:
            cost = costs[f"{tower.name} {layer.index}"]
            inner = tuple(n.layer for n in layer.nodes[1:])
            note = "shared" if layer.shared else "per level"
            layers.append(
                Box(
                    f"head {tower.name} {layer.index}", layer.op, expression(layer.span), family(inner), "layer", None,
                    cost.shape[0], cost.macs, cost.params, layer.span, note, inner,
                )
            )  # fmt: skip
        predictions = []
        for prediction in head.predictions:
            if prediction.tower == tower.name:
                cost = costs[prediction.name]
                conv = Conv(cost.shape[0], 3, bias=True)
                relu = prediction.name == "bbox_reg" and isinstance(graph.predict, Fcos) and graph.predict.boxes == "relu"
                text = "relu(s * conv_3x3) * stride" if relu else "conv_3x3"
                predictions.append(
                    Box(
                        f"head {prediction.name}", prediction.name, text, "convolution", "prediction", None,
                        cost.shape[0], cost.macs, cost.params, cost.span, "shared", (conv,),
                    )
                )  # fmt: skip
        arrows = [Arrow(before.id, after.id) for before, after in pairwise(layers)]
        arrows += [Arrow(layers[-1].id, prediction.id) for prediction in predictions if layers]
        yield Tower(tower.name, tuple(layers), tuple(predictions), tuple(arrows))
