"""A decoder in pieces that are timed by themselves: what runtimes fuse, such as a convolution with its norm and activation.

torch is not imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from nasdsl.backends.cost import Areas, Size
from nasdsl.ir.graph import Graph, Node
from nasdsl.ir.graph import Prediction as PredictionLayer
from nasdsl.layers import (
    Activation,
    Attention,
    Carafe,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    Factor,
    Feature,
    Features,
    Input,
    Layer,
    Norm,
    Resize,
    Result,
    Scale,
    Term,
    UpConv,
    is_sized,
)
from nasdsl.predictions import Fcos, Retinanet
from nasdsl.semantics.architecture import Value


@dataclass(frozen=True, eq=False)
class Piece:
    """Layers that follow one another, and the maps that they read and give.

    Attributes:
        nodes: in order; the first one reads the operands, each other one the node before it.
        maps: (height, width) of each operand.
        out_map: (height, width) of the result.
        target: of a resize, the (height, width) of its level.
    """

    nodes: tuple[Node, ...]
    maps: tuple[Size, ...]
    out_map: Size
    target: Size | None

    @property
    def operands(self) -> tuple[Feature, ...]:
        return self.nodes[0].operands

    @property
    def out(self) -> Feature:
        return self.nodes[-1].out

    @property
    def shares_operands(self) -> bool:
        """Whether copies of it may read the same maps: their first layers have weights of their own. Equal layers without
        weights are computed once by some runtimes."""
        layer = self.nodes[0].layer
        return isinstance(layer, Conv | DeformConv | UpConv | Carafe | Attention | Norm | Scale | CustomLayer)

    @property
    def repeats(self) -> bool:
        """Whether its result can be its operand: then copies of it are timed one behind the other."""
        fits = len(self.operands) == 1 and self.operands[0] == Feature(*self.out) and self.maps[0] == self.out_map
        return fits and self.shares_operands

    @property
    def key(self) -> str:
        """What its time depends on: layers with their attributes, widths and sizes of maps; not its place in the text."""
        layers = " > ".join(describe(node.layer) for node in self.nodes)
        operands = ", ".join(_map_text(x, size) for x, size in zip(self.operands, self.maps, strict=True))
        return f"{layers} [{operands} to {_map_text(self.out, self.out_map)}]"


class Part(NamedTuple):
    """A part of a detector that is timed by itself.

    Attributes:
        section: ``backbone``, ``fpn``, ``head``, ``predict`` or ``postprocess``.
        name: where it stands: ``x1.x.conv``, ``p3.cls.0.conv``.
        key: of the table of times; parts that cost the same have the same key.
        piece: its layers; None for the backbone and the postprocessing, which `request` describes.
        request: what has to be built to time it, as plain values.
    """

    section: str
    name: str
    key: str
    piece: Piece | None
    request: Mapping[str, Any] = {}


def parts_of(graph: Graph, backbone: str, size: Size, classes: int, method: Mapping[str, Any] | None = None) -> Iterator[Part]:
    """The parts of a whole detector.

    Args:
        graph: of the decoder, for this backbone.
        backbone: its name.
        size: height and width of the image.
        classes: number of classes.
        method: options of what the decoder predicts, such as those of `nasdsl.detection.fcos.Fcos`.
    """
    areas = Areas(size)
    text = f"{size[0]}x{size[1]}"
    yield Part("backbone", backbone, f"backbone {backbone} [{text}]", None, {"backbone": backbone, "size": size})
    results = graph.outputs.values()
    yield from (_part("fpn", "", nodes, areas) for nodes in split(graph.nodes, results))
    for level_name, level in graph.levels.items():
        for tower in graph.head.chains:
            for layer in tower.effective_layers:
                place = f"{level_name}.{tower.name}.{layer.index}."
                pieces = _split_head_layer(layer.nodes_at(level_name), layer.result, level)
                yield from (_part("head", place, nodes, areas) for nodes in pieces)
        for prediction in graph.head.predictions:
            yield from (
                _part("predict", f"{level_name}.", nodes, areas)
                for nodes in _prediction_pieces(prediction, level_name, level, classes)
            )
    yield _postprocess(graph, size, areas, classes, dict(method or {}))


def split(nodes: Sequence[Node], results: Iterable[str]) -> list[tuple[Node, ...]]:
    """Nodes in pieces: a node continues the piece of its operand if nothing else reads that, and runtimes fuse the two or
    texts have them together.

    Args:
        results: ids of the nodes that are read from outside.
    """
    readers: dict[str, int] = dict.fromkeys(results, 1)
    for node in nodes:
        for source in node.inputs:
            readers[source] = readers.get(source, 0) + 1
    pieces: list[list[Node]] = []
    last_of: dict[str, list[Node]] = {}
    for node in nodes:
        if isinstance(node.layer, Input | Result):  # taking one of several results costs nothing
            continue
        before = last_of.get(node.inputs[0]) if len(node.inputs) == 1 and readers[node.inputs[0]] == 1 else None
        if before is not None and _continues(before, node.layer):
            before.append(node)
            del last_of[node.inputs[0]]
        else:
            before = [node]
            pieces.append(before)
        last_of[node.id] = before
    return [tuple(piece) for piece in pieces]


def _continues(piece: list[Node], layer: Layer) -> bool:
    """Whether a layer belongs to the piece that it reads."""
    if isinstance(layer, Norm | Activation | Scale | Factor | Term):
        return True
    if not isinstance(layer, Conv) or layer.k > 1 or layer.stride > 1:
        return False
    first, last = piece[0], piece[-1]
    is_depthwise = isinstance(last.layer, Conv) and last.layer.resolved(last.operands[0]).groups == last.operands[0].width > 1
    return is_depthwise or isinstance(first.layer, Concat)


def _split_head_layer(nodes: Sequence[Node], result: str, level: int) -> list[tuple[Node, ...]]:
    """The pieces of a layer of the head at a level; in the graph its levels are relative to the map."""
    placed = [
        node._replace(operands=tuple(_raised(x, level) for x in node.operands), out=_raised(node.out, level)) for node in nodes
    ]
    return split(placed, [result])


def _raised(x: Feature, level: int) -> Feature:
    if isinstance(x, Features):
        return Features.of([_raised(result, level) for result in x.results])
    return x if x.level is None else Feature(x.level + level, x.width)


def _prediction_pieces(prediction: PredictionLayer, level_name: str, level: int, classes: int) -> list[tuple[Node, ...]]:
    """The pieces of a prediction at a level. A scale follows boxes that are no raw output, and a sigmoid in place of exp, which
    is no layer and takes as long."""
    layer = prediction.layer(classes)
    value = Value(prediction.name, layer.op, "layer", layer.span)

    def name_of(id: str) -> str:
        return prediction.name if prediction.is_plain and id == layer.result else f"{prediction.name}.{id}"

    nodes = [
        n._replace(id=name_of(n.id), inputs=tuple(map(name_of, n.inputs)), value=value) for n in layer.nodes_at(level_name)
    ]
    behind: dict[str, list[Layer]] = {"exp": [Scale(), Activation("sigmoid")], "relu": [Scale(), Activation("relu"), Scale()]}
    for index, one in enumerate(behind.get(prediction.form, []), 1):
        last = nodes[-1]
        nodes.append(Node(f"{prediction.name}_{index}", one, (last.id,), (last.out,), last.out, value, layer.span))
    return _split_head_layer(nodes, nodes[-1].id, level)


def _part(section: str, place: str, nodes: tuple[Node, ...], areas: Areas) -> Part:
    first, last = nodes[0], nodes[-1]
    is_resized = isinstance(first.layer, Resize) or is_sized(first.layer)
    target = areas.map(Feature(first.out.level, 1)) if is_resized else None
    piece = Piece(nodes, tuple(areas.map(x) for x in first.operands), areas.map(last.out), target)
    return Part(section, place + first.id, piece.key, piece)


def _postprocess(graph: Graph, size: Size, areas: Areas, classes: int, method: dict[str, Any]) -> Part:
    maps = {name: areas.map(Feature(level, 1)) for name, level in graph.levels.items()}
    predict = graph.predict
    kind = predict.text()
    if isinstance(predict, Fcos) and predict.centerness != "none":  # two names that tables have from before the other kinds
        kind = "fcos"
    elif isinstance(predict, Retinanet):
        kind = f"retinanet of {predict.anchors} anchors"
    options = "".join(f", {name} {value}" for name, value in sorted(method.items()))
    levels = ", ".join(f"{name} {height}x{width}" for name, (height, width) in maps.items())
    key = f"postprocess {kind}, {classes} classes{options} [{levels} of {size[0]}x{size[1]}]"
    request = {"predict": predict.text(), "classes": classes, "method": method, "maps": maps, "size": size}
    return Part("postprocess", "postprocess", key, None, request)


def describe(layer: Layer) -> str:
    """A layer with the attributes that are not its defaults; of a resize, without the level, which the sizes tell."""
    if not dataclasses.is_dataclass(layer):
        return repr(layer)
    shown = []
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if value != field.default and not (isinstance(layer, Resize) and field.name == "level"):
            shown.append(f"{field.name}={value}")
    owner = f"{type(layer).__module__}." if isinstance(layer, CustomLayer) else ""
    return f"{owner}{layer.kind}({', '.join(shown)})"


def _map_text(x: Feature, size: Size) -> str:
    return f"{x.width}x{size[0]}x{size[1]}"
