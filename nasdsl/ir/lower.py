"""Lowering of an architecture to the graph for one backbone: widths put in, resizes and merges explicit, no dead layers."""

from __future__ import annotations

import keyword
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial

from nasdsl.diagnostics import DiagnosticError
from nasdsl.diagnostics.catalogue import heads, holes, types
from nasdsl.garbage_collector import paused_collector
from nasdsl.ir.dead import remove_dead
from nasdsl.ir.graph import Graph, HeadGraph, HeadLayer, Node, Prediction, Tower, verify
from nasdsl.layers import (
    Activation,
    Add,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    Factor,
    Feature,
    Input,
    Layer,
    LayerError,
    Maximum,
    Multiply,
    Norm,
    PlacewiseAdd,
    Resize,
    ResizeMode,
    Scale,
    Term,
    WeightedAdd,
    check_merged,
)
from nasdsl.predictions import PredictionKind
from nasdsl.predictions.kind import checked_maps
from nasdsl.semantics.architecture import Application, Architecture, PredictionPart, PyramidOutput, Value
from nasdsl.semantics.architecture import HeadLayer as CheckedLayer
from nasdsl.semantics.architecture import Tower as CheckedTower
from nasdsl.semantics.shared_weights import Shape, add_shape

_COMBINING = frozenset({Add, Concat, Multiply, Maximum, PlacewiseAdd, WeightedAdd})
"""Layers whose operands are resized to one level."""

_PLAIN = frozenset({Activation, Conv, DeformConv, Factor, Norm, Scale, Term})
"""Layers of one operand, which is never resized for them."""

MODULE_ATTRIBUTES = frozenset(
    "T_destination add_module append apply bfloat16 buffers call_super_init children clear compile cpu cuda "
    "default_names double dump_patches eval extra_repr float forward get_buffer get_extra_state get_parameter "
    "get_submodule half has_child ipu items keys load_state_dict modules mtia name named_buffers named_children "
    "named_modules named_parameters parameters pop register_backward_hook register_buffer register_forward_hook "
    "register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook "
    "register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter "
    "register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule "
    "share_memory state_dict to to_empty train training type update values xpu zero_grad".split()
)
"""Names that ``torch.nn.Module`` has for itself; a value of such a name gets a ``_`` in its parameters' path."""


class MissingFeature(ValueError):
    """A decoder reads a feature that the backbone does not give."""


@lru_cache(maxsize=65536)
def module_path(path: str) -> str:
    """A path of the text as the path of a module: Python's and torch's own words get a ``_``."""
    parts = path.split(".")
    return ".".join(p + "_" if p in MODULE_ATTRIBUTES or keyword.iskeyword(p) else p for p in parts)


@paused_collector()
def lower(architecture: Architecture, in_channels: Mapping[str, int]) -> Graph:
    """Lower a checked decoder for a backbone.

    Args:
        in_channels: channels of the backbone's features, ``{"c3": 512, …}``.

    Raises:
        DiagnosticError: it has open holes, or a layer cannot take the backbone's widths.
        MissingFeature: the decoder names an input that `in_channels` lacks.
    """
    if architecture.open_holes:
        raise DiagnosticError([holes.open_holes(architecture.open_holes[0], architecture.name, architecture.decisions)])
    widths: dict[str, int] = {}
    for feature in architecture.inputs:
        if feature.name not in in_channels:
            given = ", ".join(f"{k} ({v})" for k, v in in_channels.items())
            raise MissingFeature(f"`{architecture.name}` reads {feature.name}; the backbone gives {given}")
        widths[feature.name] = in_channels[feature.name]
    fpn = architecture.fpn
    nodes, place = lower_nodes(fpn.applications, fpn.values, widths)
    outputs = {o.name: place[o.result] for o in fpn.outputs}
    head = _head(architecture, fpn.outputs, {n.id: n.out for n in nodes}, outputs)
    graph = Graph(
        architecture.name, widths, nodes, outputs, {o.name: o.level for o in fpn.outputs}, head, architecture.predict, (),
        architecture.detector,
    )  # fmt: skip
    verify(graph)
    live = remove_dead(graph)
    if live is not graph:
        verify(live, before=graph)
    return live


def lower_nodes(
    applications: Sequence[Application], values: Sequence[Value], widths: Mapping[str, int], at: str = ""
) -> tuple[tuple[Node, ...], dict[int, str]]:
    """Applications as nodes, resizes explicit, for inputs of these widths; and the node of each application.

    Args:
        at: names of the pyramid's levels that have these widths, where they differ: for messages.

    Raises:
        DiagnosticError: a layer cannot take these widths.
    """
    return _Lowering(applications, values, widths, at).run()


class _Lowering:
    """Lowers the applications of one section."""

    def __init__(
        self, applications: Sequence[Application], values: Sequence[Value], widths: Mapping[str, int], at: str
    ) -> None:
        self.applications = applications
        self.values = values
        self.widths = widths
        self.at = f" at {at}" if at else ""
        self.nodes: list[Node] = []
        self.out: dict[str, Feature] = {}
        self.place: dict[int, str] = {}  # application index to node id
        self._resized: dict[tuple[str, int, ResizeMode], str] = {}
        self.roots = {module_path(a.weights) for a in applications if a.weights}  # paths that are no node's own
        self._shapes: dict[str, Shape] = {}
        self._first: dict[str, Node] = {}

    def run(self) -> tuple[tuple[Node, ...], dict[int, str]]:
        applications, values, place, out = self.applications, self.values, self.place, self.out
        for index, application in enumerate(applications):
            if index in place:
                continue
            layer, sources, checked, path, owner, span, weights = application
            if len(sources) == 1 and type(layer) in _PLAIN and sources[0] < index:
                # Most layers: one operand, read as it is. With the features that the checker had, its result holds.
                source = place[sources[0]]
                before = out[source]
                name = module_path(path)
                if before == applications[sources[0]].feature and name not in out and not weights and name not in self.roots:
                    self.nodes.append(Node(name, layer, (source,), (before,), checked, values[owner], span))
                    out[name] = checked
                    place[index] = name
                    continue
            if max(sources, default=-1) < index:
                place[index] = self._lower(application)
            else:
                self._lower_with_operands(index)
        return tuple(self.nodes), place

    def _lower_with_operands(self, index: int) -> None:
        """Lower an application that reads what comes later, as only merges do."""
        applications, place = self.applications, self.place
        stack = [index]
        while stack:
            at = stack[-1]
            waiting = [i for i in applications[at].inputs if i not in place]
            if waiting:
                stack += waiting
            else:
                stack.pop()
                if at not in place:
                    place[at] = self._lower(applications[at])

    def _lower(self, application: Application) -> str:
        layer, sources, checked, _, _, span, _ = application
        out, place = self.out, self.place
        if isinstance(layer, Input):
            return self._add(application, layer, (), (), checked._replace(width=self.widths[layer.name]))
        if len(sources) == 1:
            source = place[sources[0]]
            if isinstance(layer, Add):
                return source  # a merge that nothing dangles for
            before = out[source]
            if isinstance(layer, Resize):
                if before.level == layer.level:
                    return source
                return self._resize(source, layer.level, layer.mode, application)
            inputs: tuple[str, ...] = (source,)
            operands: tuple[Feature, ...] = (before,)
        else:
            inputs = tuple([place[i] for i in sources])
            level = checked.level
            if level is not None and (type(layer) in _COMBINING or isinstance(layer, CustomLayer)):
                inputs = tuple(
                    [
                        i if out[i].level is None or out[i].level == level else self._resize(i, level, "bilinear", application)
                        for i in inputs
                    ]
                )
            operands = tuple([out[i] for i in inputs])
        try:
            if self.values[application.owner].kind == "merge":
                check_merged(operands)
            feature = layer.infer(operands)
        except LayerError as error:
            code = types.layer_error_code(error.kind)
            raise DiagnosticError([code(span, f"{error}{self.at} with this backbone", label="this cannot be built")]) from None
        return self._add(application, layer, inputs, operands, feature)

    def _resize(self, source: str, level: int, mode: ResizeMode, application: Application) -> str:
        key = (source, level, mode)
        if key not in self._resized:
            before = self.out[source]
            feature = Feature(level, before.width)
            self._resized[key] = self._add(
                application, Resize(level, mode), (source,), (before,), feature, f"{source}.to_p{level}"
            )
        return self._resized[key]

    def _add(
        self, application: Application, layer: Layer, inputs: tuple[str, ...], operands: tuple[Feature, ...], feature: Feature,
        id: str | None = None,
    ) -> str:  # fmt: skip
        name = module_path(application.path) if id is None else id
        while name in self.out or name in self.roots:
            name += "_"
        weights = module_path(application.weights) if application.weights and id is None else ""
        node = Node(name, layer, inputs, operands, feature, self.values[application.owner], application.span, weights)
        if weights:
            first = self._first.setdefault(weights, node)
            if not add_shape(self._shapes, weights, layer, operands, feature):
                widths = operands[0].width, first.operands[0].width
                raise DiagnosticError([types.shared_misfit(node.span, "", "", widths[0], first.span, widths[1])])
        self.nodes.append(node)
        self.out[name] = feature
        return name


def _head(
    architecture: Architecture, outputs: Sequence[PyramidOutput], out: Mapping[str, Feature], ids: Mapping[str, str]
) -> HeadGraph:
    checked = architecture.head
    pyramid = {o.name: out[ids[o.name]].width for o in outputs}
    widths, share = pyramid, checked.share
    per_level = checked.norms == "level"
    trunk = None
    if checked.trunk is not None:
        trunk, widths = _tower(checked.trunk, share, widths, norms_per_level=per_level)
        share -= len(trunk.layers)
    towers: list[Tower] = []
    ends: dict[str, dict[str, int]] = {}
    for number, tower in enumerate(checked.towers):
        if number and tower.layers is checked.towers[number - 1].layers:  # one chain for both towers
            last = towers[-1]
            towers.append(Tower(tower.name, last.layers, last.width))
            ends[tower.name] = ends[last.name]
        else:
            lowered, ends[tower.name] = _tower(tower, share, widths, norms_per_level=per_level)
            towers.append(lowered)
    found = predictions(architecture.predict, architecture.prediction, ends)
    head = HeadGraph(checked.share, tuple(towers), found, checked.span, trunk)
    if len(set(pyramid.values())) > 1:
        _check_sharing(architecture, head, pyramid)
    return head


def _check_sharing(architecture: Architecture, head: HeadGraph, pyramid: Mapping[str, int]) -> None:
    """Check that levels of different widths share no weights of the head.

    Raises:
        DiagnosticError: they do.
    """
    share = 0
    for tower in head.chains:
        before = 0 if head.trunk is None or tower is head.trunk else len(head.trunk.layers)
        for layer in tower.layers:
            if layer.by_level and layer.shared and layer.has_weights:
                share = max(share, before + layer.index + 1)
    kind = architecture.predict.kind if any(p.by_level and p.shared for p in head.predictions) else ""
    if share or kind:
        raise DiagnosticError(
            [heads.pyramid_widths(architecture.fpn.outputs[0].span, pyramid.items(), share, kind, "with this backbone")]
        )


def _tower(
    tower: CheckedTower, share: int, widths: Mapping[str, int], *, norms_per_level: bool
) -> tuple[Tower, dict[str, int]]:
    """A tower, and the channels that it gives at each level.

    Args:
        share: its layers before this index have weights for each level; negative where all of a trunk are shared already.
        widths: channels that it receives at each level.
    """
    layers = []
    for index, layer in enumerate(tower.layers):
        lowered = _at_levels(widths, partial(_head_layer, layer, index, index >= share, norms_per_level))
        widths = {level: lowered.width_at(level) for level in widths}
        layers.append(lowered)
    return Tower(tower.name, tuple(layers), next(iter(widths.values()))), dict(widths)


def _at_levels(widths: Mapping[str, int], lower_at: Callable[[int, str], HeadLayer]) -> HeadLayer:
    """A layer of the head for these widths of its operand at each level.

    Args:
        lower_at: lowers it for one width; also given the names of the levels where levels differ, else "".
    """
    distinct = dict.fromkeys(widths.values())
    if len(distinct) == 1:
        return lower_at(next(iter(distinct)), "")
    of_width = {width: lower_at(width, ", ".join(name for name, w in widths.items() if w == width)) for width in distinct}
    finest = next(iter(of_width.values()))
    return replace(finest, by_level={level: of_width[width].nodes for level, width in widths.items()})


def predictions(kind: PredictionKind, part: PredictionPart, widths: Mapping[str, Mapping[str, int]]) -> tuple[Prediction, ...]:
    """What a detector predicts, given the width of each tower at each level."""
    layers = dict(part.layers)
    are_several = any(len(layer.applications) > 2 for layer in layers.values())
    for level in next(iter(widths.values())):
        at_level = {tower: of_levels[level] for tower, of_levels in widths.items()}
        if are_several and len(set(at_level.values())) > 1:
            raise DiagnosticError([heads.prediction_widths(part.layers[0][1].span, part.layers[0][1].op, at_level)])
    found = []
    lowered: dict[str, HeadLayer] = {}
    for name, tower, per_class, fixed in checked_maps(kind):
        if tower not in lowered:
            own = layers.get(tower)
            lower_at = partial(_plain_prediction, part) if own is None else partial(_prediction_layer, own)
            lowered[tower] = _at_levels(widths[tower], lower_at)
        layer = lowered[tower]
        form = kind.box_form if name == "bbox_reg" else "raw"
        width = layer.nodes[0].out.width
        found.append(Prediction(name, tower, width, per_class, fixed, form, part.share, layer.op, layer.nodes, layer.by_level))
    return tuple(found)


def _plain_prediction(part: PredictionPart, width: int, _: str) -> HeadLayer:
    op = f"conv_{part.kernel}x{part.kernel}"
    value = Value("prediction", op, "layer", part.span)
    x = Feature(0, width)
    nodes = (
        Node("x", Input("x"), (), (), x, value, part.span),
        Node("conv", Conv(width, part.kernel, bias=True), ("x",), (x,), x, value, part.span),
    )
    return HeadLayer(0, op, True, nodes, "conv", part.span)


def _prediction_layer(checked: CheckedLayer, width: int, at: str) -> HeadLayer:
    """An op in the place of the prediction convolution."""
    layer = _head_layer(checked, 0, True, False, width, at)
    *nodes, last = layer.nodes
    assert isinstance(last.layer, Conv | DeformConv)
    same_width = replace(last.layer, width=width, bias=True)
    nodes.append(last._replace(layer=same_width, out=last.out._replace(width=width)))
    return HeadLayer(0, layer.op, True, tuple(nodes), last.id, layer.span)


def _head_layer(layer: CheckedLayer, index: int, shared: bool, norms_per_level: bool, width: int, at: str) -> HeadLayer:
    """A layer of the head for an operand of one width, without layers that its result does not depend on.

    Args:
        at: the levels that give it this width, for messages.
    """
    value = Value(str(index), layer.op, "layer", layer.span)
    applications = layer.applications
    values = [value] * (1 + max(a.owner for a in applications))
    nodes, place = lower_nodes(applications, values, {"x": width}, at)
    result = place[layer.result]
    live = {result, nodes[0].id}  # its operand is there in any case
    for node in reversed(nodes):
        if node.id in live:
            live.update(node.inputs)
    nodes = tuple(node for node in nodes if node.id in live)
    of_level = norms_per_level and shared and any(isinstance(n.layer, Norm) for n in nodes)
    return HeadLayer(index, layer.op, shared, nodes, result, layer.span, of_level)
