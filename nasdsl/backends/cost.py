"""Exact cost of a graph, without torch: multiply-accumulates, parameters, and FLOPs as the paper counts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nasdsl.backbones import Backbone
from nasdsl.diagnostics import Span
from nasdsl.ir.graph import Graph, HeadLayer, Node
from nasdsl.layers import Attention, Cost, Feature, Norm, layer_cost
from nasdsl.semantics.architecture import Group, Value

Size = tuple[int, int]
"""Height and width of the input image, in pixels."""


class PartCost(NamedTuple):
    """Cost of a part of the detector, for one image.

    Attributes:
        macs: multiply-accumulates of convolutions, deformable ones in full, of CARAFE's reassembly and of attention's
            products, and of nothing else.
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
        shape: channels, height and width of the result. For the head, height and width are None, and so are the channels where
            levels have different ones.
        macs, params: see `PartCost`.
        span: where the text defines it.
        groups: the repeats, turns and blocks that it stands in; see `Value`.
    """

    name: str
    op: str
    level: int | None
    shape: tuple[int | None, int | None, int | None]
    macs: int
    params: int
    span: Span
    groups: tuple[Group, ...] = ()

    @property
    def line(self) -> int:
        """Line of the text, counted from 1."""
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
        """The sum of all parts."""
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
    counted: set[str] = set()
    fpn, per_value = _sum_nodes(graph.nodes, areas, counted)
    nodes = []
    for value, total, last in per_value:
        if value.kind == "input":
            continue
        height, width = areas.map(last.out)
        shape = (last.out.width, height, width)
        nodes.append(ValueCost(value.name, value.op, last.out.level, shape, total[0], total[1], value.span, value.groups))
    head, head_nodes = _head(graph, areas, classes)
    removed = []
    for entry in graph.removed:
        dead, _ = _sum_nodes(entry.nodes, areas, counted)
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


class HeadAreas:
    """Areas of the maps in a head, whose layers are applied to several levels, and costs on all of these together.

    Args:
        levels: of the pyramid. The levels of nodes are relative to them.
    """

    __slots__ = ("_summed", "areas", "levels")

    def __init__(self, areas: Areas, levels: tuple[int, ...]) -> None:
        self.areas = areas
        self.levels = levels
        self._summed: dict[int | None, int] = {None: len(levels)}  # globally pooled: one position on each level

    def area(self, level: int | None) -> int:
        """The summed area, over the pyramid, of maps that are `level` levels above those that the head is applied to."""
        found = self._summed.get(level)
        if found is None:
            assert level is not None
            found = self._summed[level] = sum(self.areas.area(base + level) for base in self.levels)
        return found

    def cost(self, node: Node) -> Cost:
        """Cost of a node on all levels; parameters are those of one set of weights."""
        layer, operands, out = node.layer, node.operands, node.out
        if not isinstance(layer, Attention) or out.level is None:
            return layer_cost(layer, operands, out, self.area)
        each = [layer.cost(operands, out, self.areas.area(base + out.level)) for base in self.levels]
        return Cost(sum(c.macs for c in each), each[0].params, sum(c.published_flops for c in each))


def _sum_nodes(nodes: tuple[Node, ...], areas: Areas, counted: set[str]) -> tuple[Cost, list[tuple[Value, list[int], Node]]]:
    """Cost of all nodes, and for each value its [macs, params] and last node.

    Args:
        counted: paths of shared weights whose parameters are counted: they belong to the first value that has them. Those of
            the nodes are added.
    """
    macs = params = published = 0
    values: dict[int, tuple[Value, list[int], Node]] = {}
    area = areas.area
    known: dict[tuple[int, tuple[Feature, ...], Feature], Cost] = {}  # the turns of a `repeat` have the same layers
    for node in nodes:
        _, layer, _, operands, out, value, _, shared = node
        alike = id(layer), operands, out
        each = known.get(alike)
        if each is None:
            each = known[alike] = layer_cost(layer, operands, out, area)
        m, p, f = each
        if shared:
            p = 0 if shared in counted else p
            counted.add(shared)
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

    Where all levels have one width, the head is the same on every level and the cost of most layers is linear in the area, so
    it is counted once for the summed area; that of attention is counted for each level.
    """
    levels, finest = graph.levels, tuple(graph.levels)[:1]
    total = Cost()
    rows = []
    known: dict[int, Cost] = {}  # towers that are written as one chain share its layers
    for tower in graph.head.chains:
        for layer in tower.layers:
            found = known.get(id(layer))
            if found is None:
                found = known[id(layer)] = _head_layer(layer, areas, levels)
            total += found
            widths = {layer.width_at(level) for level in layer.by_level or finest}
            rows.append(
                ValueCost(
                    f"{tower.name} {layer.index}",
                    layer.op,
                    None,
                    (widths.pop() if len(widths) == 1 else None, None, None),
                    found.macs,
                    found.params,
                    layer.span,
                )
            )
    for prediction in graph.head.predictions:
        scales = Cost(params=len(levels) if prediction.form != "raw" else 0)
        found = _head_layer(prediction.layer(classes), areas, levels) + scales
        total += found
        shape = (prediction.channels(classes), None, None)
        rows.append(ValueCost(prediction.name, prediction.op, None, shape, found.macs, found.params, graph.head.span))
    return total, rows


def _head_layer(layer: HeadLayer, areas: Areas, levels: Mapping[str, int]) -> Cost:
    """Cost of a layer of the head on these levels."""
    if not layer.by_level:
        return _alike(layer, layer.nodes, HeadAreas(areas, tuple(levels.values())))
    total = Cost()
    for name, level in levels.items():  # they share no weights
        total += _alike(layer, layer.nodes_at(name), HeadAreas(areas, (level,)))
    return total


def _alike(layer: HeadLayer, nodes: Sequence[Node], on_levels: HeadAreas) -> Cost:
    """Cost of a layer of the head, whose layers are the same `nodes` at all of these levels."""
    macs = params = published = 0
    counted: set[str] = set()
    for node in nodes:
        m, p, f = on_levels.cost(node)
        macs += m
        published += f
        if node.weights not in counted:
            counted.add(node.weights)
            is_shared = layer.shared and not (layer.norms_per_level and isinstance(node.layer, Norm))
            params += p if is_shared else p * len(on_levels.levels)
    return Cost(macs, params, published)


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
