"""The graph: its data classes, and `verify`, which every pass must satisfy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from nasdsl.diagnostics import Span
from nasdsl.layers import UNKNOWN_WIDTH, WITHOUT_WEIGHTS, Conv, DeformConv, Feature, Input, Layer, Norm
from nasdsl.predictions import BoxForm, PredictionKind
from nasdsl.semantics.architecture import DetectorPart, Value
from nasdsl.semantics.shared_weights import Shape, add_shape

if TYPE_CHECKING:
    import networkx


class VerifyError(AssertionError):
    """Raised if a pass produced an invalid graph: a bug of the compiler, never a mistake in the text."""


class Node(NamedTuple):
    """One layer at one place.

    Attributes:
        id: unique in its section; also the path of its parameters in the section's module: ``x1.x.conv``.
        layer: what is computed.
        inputs: ids of the operands, in order; one may stand twice.
        operands: level and width of each operand.
        out: level and width of the result.
        value: the named value of the text that it belongs to.
        span: the expression in the text.
        shared: path of the weights that it has in common with the same layer in other calls of a `shared` op; empty for
            weights of its own, whose path is its id.
    """

    id: str
    layer: Layer
    inputs: tuple[str, ...]
    operands: tuple[Feature, ...]
    out: Feature
    value: Value
    span: Span
    shared: str = ""

    @property
    def weights(self) -> str:
        """Path of its parameters in the section's module; nodes of one path have one set."""
        return self.shared or self.id


@dataclass(frozen=True, slots=True)
class Removed:
    """A value that no output depends on: its layers are not in the graph.

    Attributes:
        value: in the text.
        nodes: its layers.
    """

    value: Value
    nodes: tuple[Node, ...]


class OfLevels:
    """What a layer of a tower and a prediction have in common: the head applies them to every level.

    Attributes:
        nodes: its layers; the first is the input ``x``. Levels in it are relative to the map it is applied to.
        by_level: its layers at each level, where these give it different widths: the same but for their widths. `nodes` are
            then those of the finest level.
    """

    __slots__ = ()
    nodes: tuple[Node, ...]
    by_level: Mapping[str, tuple[Node, ...]]

    def nodes_at(self, level: str) -> tuple[Node, ...]:
        """Its layers at a level, ``p3``.

        Args:
            level: its name.
        """
        return self.by_level.get(level, self.nodes)


@dataclass(frozen=True, slots=True)
class HeadLayer(OfLevels):
    """A layer of a tower.

    Attributes:
        index: its place in the chain, from 0.
        op: its name in the text.
        shared: whether all levels share its weights.
        nodes, by_level: see `OfLevels`.
        result: id of the node that it gives.
        span: its place in the text.
        norms_per_level: whether each level has norms of its own, although all share the other weights.
    """

    index: int
    op: str
    shared: bool
    nodes: tuple[Node, ...]
    result: str
    span: Span
    norms_per_level: bool = False
    by_level: Mapping[str, tuple[Node, ...]] = field(default_factory=dict, hash=False)

    def width_at(self, level: str) -> int:
        """Channels of what it gives at a level.

        Args:
            level: its name, ``p3``.
        """
        return next(node.out.width for node in self.nodes_at(level) if node.id == self.result)

    @property
    def has_weights(self) -> bool:
        """Whether it has parameters."""
        return not all(isinstance(node.layer, WITHOUT_WEIGHTS) for node in self.nodes)

    @property
    def is_identity(self) -> bool:
        """Whether it does nothing, as `skip`."""
        return len(self.nodes) == 1

    def path(self, node: Node, level: str) -> str:
        """Path of the parameters of one of its nodes for a level, in the tower's module.

        Args:
            node: one of its nodes.
            level: its name, ``p3``.
        """
        if not self.shared:
            return f"{self.index}.{level}.{node.weights}"
        of_level = f".{level}" if self.norms_per_level and isinstance(node.layer, Norm) else ""
        return f"{self.index}.{node.weights}{of_level}"


@dataclass(frozen=True, slots=True)
class Tower:
    """A chain of layers. `width`: channels of what it gives, at the finest level where levels differ.

    Attributes:
        name: ``cls``, ``box`` or ``both``.
        layers: in order.
        width: channels of what it gives, at the finest level where levels differ.
    """

    name: str
    layers: tuple[HeadLayer, ...]
    width: int

    @property
    def effective_layers(self) -> tuple[HeadLayer, ...]:
        """The layers without those that do nothing."""
        return tuple(layer for layer in self.layers if not layer.is_identity)


@dataclass(frozen=True, slots=True)
class Prediction(OfLevels):
    """What is predicted from a tower, at each level: by a plain convolution with bias, or by an op that ends in one.

    Attributes:
        name: ``cls_logits``, ``bbox_reg`` or ``centerness``; its parameters are at this path of the head's module.
        tower: the tower that it reads.
        width: channels of that tower, at the finest level where levels differ.
        per_class, fixed: its channels are ``per_class * classes + fixed``.
        form: what follows the convolution; other than ``raw`` it has a learnt scalar for each level.
        shared: whether all levels share its weights.
        op: its name in the text; ``conv_3x3`` or ``conv_1x1`` for the plain convolution.
        nodes, by_level: see `OfLevels`; the last of `nodes` is the convolution, whose width is replaced by that of `layer`.
    """

    name: str
    tower: str
    width: int
    per_class: int
    fixed: int
    form: BoxForm
    shared: bool
    op: str
    nodes: tuple[Node, ...]
    by_level: Mapping[str, tuple[Node, ...]] = field(default_factory=dict, hash=False)

    def width_at(self, level: str) -> int:
        """Channels of the tower that it reads, at a level.

        Args:
            level: its name, ``p3``.
        """
        return self.nodes_at(level)[0].out.width

    @property
    def is_plain(self) -> bool:
        """Whether it is a single layer, whose parameters have its own path."""
        return len(self.nodes) == 2

    @property
    def place(self) -> str:
        """Path of its parameters below its own, where it is not a single layer: that of the convolution."""
        return self.nodes[-1].weights

    def path(self, node: Node, level: str) -> str:
        """Path of the parameters of one of its nodes for a level, in the head's module.

        Args:
            node: one of its nodes.
            level: its name, ``p3``.
        """
        place = self.name if self.shared else f"{self.name}.{level}"
        return place if self.is_plain else f"{place}.{node.weights}"

    def channels(self, classes: int) -> int:
        """Its channels for so many classes.

        Args:
            classes: number of classes.
        """
        return self.per_class * classes + self.fixed

    def layer(self, classes: int) -> HeadLayer:
        """Its layers for so many classes. Levels in it are relative to the map it is applied to.

        Args:
            classes: number of classes.
        """
        return self.with_channels(self.channels(classes))

    def with_channels(self, channels: int) -> HeadLayer:
        """Its layers for so many channels; see `layer`.

        Args:
            channels: of the last convolution.
        """
        last = self.nodes[-1]
        by_level = {level: _with_last_width(nodes, channels) for level, nodes in self.by_level.items()}
        nodes = _with_last_width(self.nodes, channels)
        return HeadLayer(0, self.op, self.shared, nodes, last.id, last.span, by_level=by_level)


def _with_last_width(nodes: tuple[Node, ...], channels: int) -> tuple[Node, ...]:
    """Nodes whose last, a convolution, gives so many channels."""
    last = nodes[-1]
    assert isinstance(last.layer, Conv | DeformConv)
    layer = replace(last.layer, width=channels, bias=True)
    return (*nodes[:-1], last._replace(layer=layer, out=last.out._replace(width=channels)))


@dataclass(frozen=True, slots=True)
class HeadGraph:
    """The head, written once: the back ends apply it to every level.

    Attributes:
        share: layers before this index have weights for each level; those of the trunk are counted first.
        towers: ``cls`` and ``box``, which read what the trunk gives.
        predictions: what is predicted from the towers.
        span: the head in the text.
        trunk: the layers ``both`` that read the pyramid; None where the towers read it themselves.
    """

    share: int
    towers: tuple[Tower, ...]
    predictions: tuple[Prediction, ...]
    span: Span
    trunk: Tower | None = None

    @property
    def chains(self) -> tuple[Tower, ...]:
        """The trunk, if there is one, and the towers: each stands behind what it reads."""
        return self.towers if self.trunk is None else (self.trunk, *self.towers)


@dataclass(frozen=True, slots=True)
class Graph:
    """A decoder for one backbone.

    Attributes:
        name: of the decoder.
        in_channels: width of each input, in the order of the text.
        nodes: of the fpn, operands before their readers.
        outputs: pyramid name to node id, finest level first.
        levels: pyramid name to level.
        head, predict: what follows the pyramid.
        removed: values that nothing depends on.
        detector: the detector that the decoder is for; None where it names none.
    """

    name: str
    in_channels: Mapping[str, int]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    levels: Mapping[str, int]
    head: HeadGraph
    predict: PredictionKind
    removed: tuple[Removed, ...]
    detector: DetectorPart | None = None

    @property
    def pyramid_widths(self) -> dict[str, int]:
        """Channels of each level of the pyramid, finest first."""
        wanted = set(self.outputs.values())
        widths = {node.id: node.out.width for node in self.nodes if node.id in wanted}
        return {name: widths[node_id] for name, node_id in self.outputs.items()}

    def inputs(self) -> Iterator[Node]:
        """The backbone features that are read."""
        return (node for node in self.nodes if isinstance(node.layer, Input))

    def networkx(self) -> networkx.MultiDiGraph[str]:
        """The fpn as a networkx multigraph (parallel edges are kept: a block may read one value twice).

        Nodes carry ``layer``, ``level``, ``width``, ``value`` and ``line``, and ``outputs`` (pyramid names); edges carry
        ``operand``, the place among the reader's operands. The head is in the graph's attribute ``head``.
        """
        import networkx

        view: networkx.MultiDiGraph[str] = networkx.MultiDiGraph(name=self.name, head=self.head, predict=self.predict)
        named: dict[str, list[str]] = {}
        for name, node_id in self.outputs.items():
            named.setdefault(node_id, []).append(name)
        for node in self.nodes:
            attributes: dict[str, Any] = {
                "layer": node.layer,
                "level": node.out.level,
                "width": node.out.width,
                "value": node.value.name,
                "line": node.span.line,
                "outputs": named.get(node.id, []),
            }
            view.add_node(node.id, **attributes)
            for operand, source in enumerate(node.inputs):
                view.add_edge(source, node.id, operand=operand)
        return view


def verify(graph: Graph, before: Graph | None = None) -> None:
    """Check the rules of a graph.

    Args:
        graph: what a pass has made.
        before: what a pass has made it from, verified. Nodes and a head that the pass has left alone keep their shapes, so
            that only their places are verified again.

    Raises:
        VerifyError: an id stands twice; an operand is missing or comes later; recorded levels and widths are not those
            that the layers' shape rules give; a width is unknown; nodes share weights of different shapes; an output names no
            node or is not at its level; the parts of the head do not fit each other.
    """
    known = _verify_nodes(graph.nodes, frozenset() if before is None else frozenset(map(id, before.nodes)))
    for name, node_id in graph.outputs.items():
        if node_id not in known:
            raise VerifyError(f"output {name} names no node: {node_id!r}")
        if known[node_id].level != graph.levels[name]:
            raise VerifyError(f"output {name} is at level {known[node_id].level}")
    pyramid = {name: known[node_id].width for name, node_id in graph.outputs.items()}
    if before is None or graph.head is not before.head or pyramid != before.pyramid_widths:
        _verify_head(graph.head, pyramid)


def _verify_head(head: HeadGraph, pyramid: dict[str, int]) -> None:
    towers: dict[str, dict[str, int]] = {}
    verified: dict[int, dict[str, int]] = {}
    share = head.share
    finest = next(iter(pyramid))
    if head.trunk is not None:
        pyramid = _verify_layers(head.trunk, share, pyramid)
        share -= len(head.trunk.layers)
        if head.trunk.width != pyramid[finest]:
            raise VerifyError(f"the trunk gives {pyramid[finest]} channels, not {head.trunk.width}")
    for tower in head.towers:
        widths = verified.get(id(tower.layers))
        if widths is None:  # towers of one chain share its layers
            widths = verified[id(tower.layers)] = _verify_layers(tower, share, pyramid)
        if tower.width != widths[finest]:
            raise VerifyError(f"tower {tower.name} gives {widths[finest]} channels, not {tower.width}")
        towers[tower.name] = widths
    for prediction in head.predictions:
        widths = towers.get(prediction.tower, {})
        if widths.get(finest) != prediction.width:
            raise VerifyError(f"{prediction.name} does not fit the tower {prediction.tower}")
        for nodes in (prediction.nodes, *prediction.by_level.values()):
            _verify_nodes(nodes)
            if len(nodes) < 2 or not isinstance(nodes[-1].layer, Conv | DeformConv):
                raise VerifyError(f"{prediction.name} does not end in a convolution")
            if any(node.weights == nodes[-1].weights for node in nodes[:-1]):
                raise VerifyError(f"{prediction.name} ends in a convolution that has the weights of one before it")
        for level, width in widths.items():
            if prediction.width_at(level) != width:
                raise VerifyError(f"{prediction.name} does not take {width} channels")
        if prediction.shared and len(set(widths.values())) > 1:
            raise VerifyError(f"{prediction.name} is shared by levels of the widths {widths}")


def _verify_layers(tower: Tower, share: int, widths: dict[str, int]) -> dict[str, int]:
    """Number of channels of a tower's output, at each level of a pyramid of these widths."""
    for index, layer in enumerate(tower.layers):
        inside = {id(nodes): _verify_nodes(nodes) for nodes in (layer.nodes, *layer.by_level.values())}
        for level, width in widths.items():
            entry = layer.nodes_at(level)[0]
            if layer.index != index or not isinstance(entry.layer, Input) or entry.out.width != width:
                raise VerifyError(f"{tower.name} layer {index} ({layer.op}) does not take {width} channels")
        if layer.shared != (index >= share):
            raise VerifyError(f"{tower.name} layer {index} is marked shared={layer.shared}, share={share}")
        if layer.norms_per_level and not layer.shared:
            raise VerifyError(f"{tower.name} layer {index} has all weights for each level, and is marked as if norms only")
        if layer.shared and layer.has_weights and len(set(widths.values())) > 1:
            raise VerifyError(f"{tower.name} layer {index} is shared by levels of the widths {widths}")
        widths = {level: inside[id(layer.nodes_at(level))][layer.result].width for level in widths}
    return widths


def _verify_nodes(nodes: tuple[Node, ...], verified: frozenset[int] = frozenset()) -> dict[str, Feature]:
    """Level and width of each node. `verified`: identities of nodes whose shapes were verified before."""
    known: dict[str, Feature] = {}
    shapes: dict[str, Shape] = {}
    for node in nodes:
        name, layer, inputs, recorded, out, _, _, shared = node
        if shared and not add_shape(shapes, shared, layer, recorded, out):
            raise VerifyError(f"{name} has the weights {shared}, whose shape is another in a node before it")
        if name in known:
            raise VerifyError(f"two nodes are called {name}")
        if out.width <= UNKNOWN_WIDTH:
            raise VerifyError(f"{name} has the width {out.width}")
        if not isinstance(layer, Input):
            try:
                operands = (known[inputs[0]],) if len(inputs) == 1 else tuple([known[i] for i in inputs])
            except KeyError as missing:
                raise VerifyError(f"{name} reads {missing}, which is not before it") from None
            if operands != recorded:
                raise VerifyError(f"{name} records operands {recorded}, and has {operands}")
            if not operands or (id(node) not in verified and layer.infer(operands) != out):
                raise VerifyError(f"{name} records {out}, and its layer gives otherwise")
        known[name] = out
    return known
