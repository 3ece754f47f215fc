"""Graph to the contents of its diagram: a box for each named value, and an arrow for each operand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

from nasdsl.backends.cost import Areas, CostTable, ValueCost
from nasdsl.backends.diagrams.diagram import (
    FAMILIES,
    SHARED_WEIGHTS,
    Arrow,
    ArrowKind,
    Box,
    Diagram,
    Family,
    Lane,
    RemovedValue,
    Role,
    Tower,
    level_difference,
)
from nasdsl.backends.diagrams.labels import expression, shorten, step_expression
from nasdsl.ir import Graph
from nasdsl.ir.graph import Node
from nasdsl.layers import (
    Add,
    Attention,
    Carafe,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    Feature,
    GlobalPool,
    Layer,
    Maximum,
    Multiply,
    PixelShuffle,
    PlacewiseAdd,
    Pool,
    Resize,
    Result,
    UpConv,
    WeightedAdd,
)
from nasdsl.semantics.architecture import Value

_AGGREGATIONS = (Add, Concat, Multiply, Maximum, PlacewiseAdd, WeightedAdd)


def diagram(graph: Graph, table: CostTable) -> Diagram:
    """Make the diagram of a graph.

    Args:
        table: costs of this graph, as `nasdsl.backends.cost.cost` gives them.

    Raises:
        ValueError: the table is not of this graph.
    """
    costs = {row.name: row for row in table.nodes}
    builder = _BoxBuilder(graph, costs)
    boxes, arrows = builder.build()
    levels = {box.id: box.level for box in boxes}

    def change(arrow: Arrow) -> int:
        source = builder.level_of_result.get((arrow.source, arrow.target), levels[arrow.source])
        return level_difference(source, levels[arrow.target])

    return Diagram(
        graph.name,
        table,
        _lanes(boxes, graph, Areas(table.size)),
        tuple(a._replace(levels=change(a)) for a in arrows),
        tuple(graph.outputs),
        tuple(_towers(graph, costs)),
        tuple(RemovedValue(r.name, r.macs, r.params, r.span) for r in table.removed),
    )


def family(layers: Iterable[Layer]) -> Family:
    """Family of a value with these layers: the first one in `FAMILIES` that has one of them."""
    layers = tuple(layers)
    aggregates = any(isinstance(layer, _AGGREGATIONS) for layer in layers)
    found: set[Family] = {"identity"}
    for layer in layers:
        if isinstance(layer, CustomLayer):
            found.add("custom")
        elif isinstance(layer, DeformConv):
            found.add("deformable")
        elif isinstance(layer, Attention):
            found.add("attention")
        elif isinstance(layer, UpConv):
            found.add("convolution" if layer.groups == 1 else "separable")
        elif isinstance(layer, Conv):
            # `cat` concatenates and sums with a grouped 1x1 convolution, which is part of the aggregation.
            summing = layer.k == 1 and aggregates
            found.add("convolution" if layer.groups == 1 else "aggregation" if summing else "separable")
        elif isinstance(layer, _AGGREGATIONS):
            found.add("aggregation")
        elif isinstance(layer, (Resize, Pool, GlobalPool, PixelShuffle, Carafe)):
            found.add("resampling")
    return next(name for name in FAMILIES if name in found)


class _BoxBuilder:
    """Builds the boxes and arrows of the fpn from its nodes."""

    def __init__(self, graph: Graph, costs: Mapping[str, ValueCost]) -> None:
        self.graph = graph
        self.costs = costs
        self.nodes = {node.id: node for node in graph.nodes}
        self.nodes_of: dict[int, list[Node]] = {}  # by identity of the value: two values may have one name
        for node in graph.nodes:
            self.nodes_of.setdefault(id(node.value), []).append(node)
        removed = {id(entry.value) for entry in graph.removed}
        # Lowering resizes a value once for all readers, as part of the first reader, which may even be a removed one. So a
        # resize belongs to a value only if it is the value's result; otherwise its readers get an arrow from its source.
        self.result_of = {
            key: nodes[-1].id
            for key, nodes in self.nodes_of.items()
            if key not in removed or not all(isinstance(n.layer, Resize) for n in nodes)
        }
        self.box_of: dict[int, str] = {}  # by identity of the value: id of its box
        self.output_at = {name: f"output {name}" for name in graph.outputs}
        self.tied = {weights for weights, n in Counter(n.shared for n in graph.nodes if n.shared).items() if n > 1}
        self.boxes: list[Box] = []
        self.arrows: dict[tuple[str, str, ArrowKind], int] = {}
        self.taken: set[str] = set()
        self.level_of_result: dict[tuple[str, str], int | None] = {}  # of an arrow from a box of several results: which level

    def build(self) -> tuple[list[Box], list[Arrow]]:
        raw = {n.value.name: n for n in self.graph.nodes if n.value.kind == "input"}
        outputs = self._values_drawn_as_outputs()
        values: list[tuple[int, list[Node], Node | None]] = []
        for key, nodes in self.nodes_of.items():
            value = nodes[0].value
            if key not in self.result_of or (value.kind == "input" and f"{value.name} adapter" in self.costs):
                continue
            name = value.name.removesuffix(" adapter")
            self.box_of[key] = self._unique(self.output_at[outputs[key]] if key in outputs else name)
            source = raw[name] if value.kind == "adapter" else None
            if source is not None:
                self.box_of[id(source.value)] = self.box_of[key]
            values.append((key, nodes, source))
        for key, nodes, source in values:
            self._add_value(key, nodes, source, outputs.get(key))
        for name, node_id in self.graph.outputs.items():
            if self.output_at[name] not in self.taken:
                self._add_renaming(name, node_id)
        return self.boxes, [Arrow(*key, times=times) for key, times in self.arrows.items()]

    def _values_drawn_as_outputs(self) -> dict[int, str]:
        """Names of outputs by the value that computes them. Other outputs only rename a value."""
        outputs = {}
        for name, node_id in self.graph.outputs.items():
            value = self.nodes[node_id].value
            if self.result_of.get(id(value)) == node_id and (value.kind, value.name) in (
                ("output", name),
                ("merge", f"{name}.merge"),
            ):
                outputs[id(value)] = name
        return outputs

    def _add_value(self, key: int, nodes: list[Node], raw: Node | None, output: str | None) -> None:
        value, out = nodes[0].value, self.nodes[self.result_of[key]].out
        cost = self.costs.get(value.name)
        if cost is None and value.kind != "input":
            raise ValueError(f"the cost table lacks {value.name}: it is not of {self.graph.name}")
        name = output or value.name.removesuffix(" adapter")
        box = self.box_of[key]
        sources = self._add_arrows(nodes, box) if raw is None else []
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
        if role != "input" and any(n.shared in self.tied for n in nodes):
            note = SHARED_WEIGHTS
        self.boxes.append(
            Box(
                box, name, text, family(layers), role, out.level, out.width, macs, params, value.span, note, layers,
                value.groups,
            )
        )  # fmt: skip

    def _unique(self, name: str) -> str:
        while name in self.taken:
            name += "'"
        self.taken.add(name)
        return name

    def _label(self, box: str) -> str:
        return box.removeprefix("output ")

    def _add_arrows(self, nodes: list[Node], box: str) -> list[str]:
        """Add the arrows into the box of a value; returns the ids of their sources, in order."""
        value = nodes[0].value
        result = self.result_of[id(value)]
        sources = []
        for node in nodes:
            if isinstance(node.layer, Resize) and node.id != result:
                continue  # its readers get an arrow from its source
            for place, operand in enumerate(node.inputs):
                source = self._source(operand, value)
                if source is not None:
                    sources.append(source)
                    self._note_result(operand, source, box)
                    kind: ArrowKind = "merge" if value.kind == "merge" and place else "data"
                    self._connect(source, box, kind)
        return sources

    def _note_result(self, operand: str, source: str, box: str) -> None:
        """Note the level of what an arrow carries if that is one of several results: the box is at the level of one only."""
        node = self.nodes[operand]
        while isinstance(node.layer, Resize) and self._is_invisible(node):
            node = self.nodes[node.inputs[0]]
        if isinstance(node.layer, Result):
            self.level_of_result[source, box] = node.out.level

    def _source(self, operand: str, reader: Value) -> str | None:
        """Id of the box that computes an operand; None if that is the reader itself."""
        node = self.nodes[operand]
        if reader.kind == "output":
            for name, node_id in self.graph.outputs.items():
                # `p6 = down(p5)` reads the output p5, even if that is only another name of x5.
                if node_id == operand and name != reader.name and re.search(rf"\b{name}\b", expression(reader.span)):
                    return self.output_at[name]
        while isinstance(node.layer, Resize) and (node.value is reader or self._is_invisible(node)):
            node = self.nodes[node.inputs[0]]
        return None if node.value is reader else self.box_of[id(node.value)]

    def _is_invisible(self, node: Node) -> bool:
        """Whether a resize is drawn as a mark on an arrow, not as a box."""
        return node.value.kind == "output" or self.result_of.get(id(node.value)) != node.id

    def _connect(self, source: str, target: str, kind: ArrowKind = "data") -> None:
        key = (source, target, kind)
        self.arrows[key] = self.arrows.get(key, 0) + 1

    def _add_renaming(self, name: str, node_id: str) -> None:
        """Add the box of an output that only renames another value."""
        node = self.nodes[node_id]
        while isinstance(node.layer, Resize) and self._is_invisible(node):
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
    before: list[Box] = []  # the layers of the trunk
    for tower in head.chains:
        layers = []
        for layer in tower.layers:
            cost = costs[f"{tower.name} {layer.index}"]
            inner = tuple(n.layer for n in layer.nodes[1:])
            note = "shared" if layer.shared else "per level"
            note += ", norms per level" if layer.norms_per_level else ""
            layers.append(
                Box(
                    f"head {tower.name} {layer.index}", layer.op, step_expression(layer.span), family(inner), "layer", None,
                    cost.shape[0] or 0, cost.macs, cost.params, layer.span, note, inner,
                )
            )  # fmt: skip
        predictions = []
        for prediction in head.predictions:
            if prediction.tower == tower.name:
                cost = costs[prediction.name]
                inner = tuple(n.layer for n in prediction.with_channels(cost.shape[0] or 1).nodes[1:])
                text = f"relu(s * {prediction.op}) * stride" if prediction.form == "relu" else prediction.op
                predictions.append(
                    Box(
                        f"head {prediction.name}", prediction.name, text, family(inner), "prediction", None,
                        cost.shape[0] or 0, cost.macs, cost.params, cost.span,
                        "shared" if prediction.shared else "per level", inner,
                    )
                )  # fmt: skip
        path = [*before[-1:], *layers]
        arrows = [Arrow(one.id, following.id) for one, following in pairwise(path)]
        arrows += [Arrow(path[-1].id, prediction.id) for prediction in predictions if path]
        yield Tower(tower.name, tuple(layers), tuple(predictions), tuple(arrows), len(before))
        if tower is head.trunk:
            before = layers
