"""Exact cost of a graph, without torch: multiply-accumulates, parameters, and FLOPs as the paper counts them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from nasdsl.backbones import Backbone
from nasdsl.diagnostics import Span
from nasdsl.ir.graph import Graph, HeadLayer, Node
from nasdsl.layers import Cost, Feature
from nasdsl.semantics.architecture import Value

Size = tuple[int, int]
"""Height and width of the input image, in pixels."""


class PartCost(NamedTuple):
    """Cost of a part of the detector, for one image.

    Attributes:
        macs: multiply-accumulates of convolutions, deformable ones in full, and of nothing else.
        params: parameters.
        trainable_params: parameters without those that the FCOS recipe freezes (a ResNet's stem, first stage and
            BatchNorms).
        published_flops: "FLOPs" as in the paper's Table 2. This includes removed layers, because the published code runs
            them.
        published_params: "Params" as in that table: `trainable_params` plus the parameters of removed layers.
    """

    macs: int = 0
    params: int = 0
    trainable_params: int = 0
    published_flops: int = 0
    published_params: int = 0

    def __add__(self, other: PartCost) -> PartCost:  # type: ignore[override]  # added like a vector, not like a tuple
        return PartCost(*(a + b for a, b in zip(self, other, strict=True)))


class ValueCost(NamedTuple):
    """Cost of a named value of the text, or of a layer of the head.

    Attributes:
        name: name of the value; ``cls 0`` and so on for layers of the head.
        op: op that computes it.
        level: level of the result; None for the head, whose costs are sums over all levels.
        shape: channels, height and width of the result; height and width are None for the head.
        macs, params: see `PartCost`.
        span: where the text defines it.
    """

    name: str
    op: str
    level: int | None
    shape: tuple[int, int | None, int | None]
    macs: int
    params: int
    span: Span

    @property
    def line(self) -> int:
        return self.span.line


class RemovedCost(NamedTuple):
    """What a value that was removed, because no output depends on it, would have cost."""

    name: str
    macs: int
    params: int
    published_flops: int
    span: Span

    @property
    def line(self) -> int:
        return self.span.line


@dataclass(frozen=True, slots=True)
class CostTable:
    """Exact cost of a detector for one image of a given size; see `PartCost` for the units.

    Attributes:
        size: height and width of the image.
        classes: number of classes.
        backbone: cost of the backbone; zero if none was given.
        fpn, head: cost of the two parts of the decoder.
        nodes: cost of each named value, then of each layer of the head.
        removed: cost of the removed values, which is in no other entry but `PartCost.published_flops` and
            ``published_params``.
    """

    size: Size
    classes: int
    backbone: PartCost
    fpn: PartCost
    head: PartCost
    nodes: tuple[ValueCost, ...]
    removed: tuple[RemovedCost, ...]

    @property
    def total(self) -> PartCost:
        return self.backbone + self.fpn + self.head

    @property
    def decoder(self) -> PartCost:
        """Cost of fpn and head together, which ``require macs`` and ``require params`` limit."""
        return self.fpn + self.head


def cost(graph: Graph, size: Size, classes: int, backbone: Backbone | None = None) -> CostTable:
    """Exact cost of a graph.

    Args:
        size: height and width of the image; the map of level K is ceil(size / 2**K).
        classes: number of classes.
        backbone: included in the total if given.
    """
    areas = Areas(size)
    fpn, per_value = _sum_nodes(graph.nodes, areas)
    nodes = []
    for value, total, last in per_value:
        if value.kind == "input":
            continue
        height, width = areas.map(last.out)
        shape = (last.out.width, height, width)
        nodes.append(ValueCost(value.name, value.op, last.out.level, shape, total[0], total[1], value.span))
    head, head_nodes = _head(graph, areas, classes)
    removed = []
    for entry in graph.removed:
        dead, _ = _sum_nodes(entry.nodes, areas)
        removed.append(RemovedCost(entry.value.name, dead.macs, dead.params, dead.published_flops, entry.value.span))
    dead_flops, dead_params = sum(r.published_flops for r in removed), sum(r.params for r in removed)
    backbone_figures = PartCost()
    if backbone is not None:
        whole, trained = backbone.cost(size)
        backbone_figures = PartCost(whole.macs, whole.params, trained, whole.published_flops, trained)
    return CostTable(
        size,
        classes,
        backbone_figures,
        PartCost(fpn[0], fpn[1], fpn[1], fpn[2] + dead_flops, fpn[1] + dead_params),
        PartCost(head[0], head[1], head[1], head[2], head[1]),
        (*nodes, *head_nodes),
        tuple(removed),
    )


class Areas:
    """Sizes and areas of feature maps, by level, for one image size."""

    __slots__ = ("_areas", "_sizes", "size")

    def __init__(self, size: Size) -> None:
        self.size = size
        self._areas: dict[int | None, int] = {None: 1}
        self._sizes: dict[int | None, Size] = {None: (1, 1)}

    def map(self, feature: Feature) -> Size:
        """Height and width of a feature map."""
        self.area(feature.level)
        return self._sizes[feature.level]

    def area(self, level: int | None) -> int:
        """Number of positions of a feature map; 1 for level None, a globally pooled value."""
        found = self._areas.get(level)
        if found is None:
            assert level is not None
            height, width = (-(-length // (1 << level)) for length in self.size)
            self._sizes[level] = height, width
            found = self._areas[level] = height * width
        return found


def _sum_nodes(nodes: tuple[Node, ...], areas: Areas) -> tuple[Cost, list[tuple[Value, list[int], Node]]]:
    """Cost of all nodes, and for each value its [macs, params] and last node."""
    macs = params = published = 0
    values: dict[int, tuple[Value, list[int], Node]] = {}
    area = areas.area
    for node in nodes:
        _, layer, _, operands, out, value, _ = node
        m, p, f = layer.cost(operands, out, area(out.level))
        macs += m
        params += p
        published += f
        key = id(value)
        entry = values.get(key)
        if entry is None:
            values[key] = (value, [m, p], node)
        else:
            sums = entry[1]
            sums[0] += m
            sums[1] += p
            values[key] = (value, sums, node)
    return Cost(macs, params, published), list(values.values())


def _head(graph: Graph, areas: Areas, classes: int) -> tuple[Cost, list[ValueCost]]:
    """Cost of the head, and of each of its layers and predictions.

    The head is the same on every level and its cost is linear in the area, so it is counted once for the summed area.
    """
    levels = len(graph.levels)
    area = sum(areas.area(level) for level in graph.levels.values())
    total = Cost()
    rows = []
    known: dict[int, Cost] = {}  # towers that are written as one chain share its layers
    for tower in graph.head.towers:
        for layer in tower.layers:
            layer_cost = known.get(id(layer))
            if layer_cost is None:
                layer_cost = known[id(layer)] = _head_layer(layer, area, levels)
            total += layer_cost
            width = layer.nodes[-1].out.width
            rows.append(
                ValueCost(
                    f"{tower.name} {layer.index}",
                    layer.op,
                    None,
                    (width, None, None),
                    layer_cost.macs,
                    layer_cost.params,
                    layer.span,
                )
            )
    for prediction in graph.head.predictions:
        one_cost = _head_layer(prediction.layer(classes), area, levels)
        scales = levels if prediction.form != "raw" else 0
        one_cost = one_cost + Cost(0, scales, 0)
        total += one_cost
        shape = (prediction.channels(classes), None, None)
        rows.append(ValueCost(prediction.name, prediction.op, None, shape, one_cost[0], one_cost[1], graph.head.span))
    return total, rows


def _head_layer(layer: HeadLayer, area: int, levels: int) -> Cost:
    """Cost of a layer of the head on a pyramid of `levels` levels with `area` positions in all."""
    macs = params = published = 0
    for node in layer.nodes:
        pooled = node.out.level is None  # globally pooled: one position on each level
        m, p, f = node.layer.cost(node.operands, node.out, levels if pooled else area)
        macs += m
        params += p
        published += f
    return Cost(macs, params if layer.shared else params * levels, published)


def to_json(table: CostTable) -> Mapping[str, object]:
    """The fields ``cost``, ``removed`` and ``nodes`` of ``nasdsl compile --format json``."""
    parts = {"total": table.total, "backbone": table.backbone, "fpn": table.fpn, "head": table.head}
    return {
        "cost": {name: part._asdict() for name, part in parts.items()},
        "removed": [{"name": r.name, "macs": r.macs, "params": r.params, "line": r.line} for r in table.removed],
        "nodes": [
            {
                "name": n.name,
                "op": n.op,
                "level": n.level,
                "shape": list(n.shape),
                "macs": n.macs,
                "params": n.params,
                "line": n.line,
            }
            for n in table.nodes
        ],
    }
