"""Graph to a ``torch.nn.Module`` whose parameter names follow the text.

``fpn.x1.x.deform_conv.weight`` is the weight of the deformable convolution of operand ``x`` of value ``x1``,
``fpn.refine.conv.weight`` that of all calls of the `shared` op ``refine``; ``head.cls.0.conv.weight`` that of layer 0 of the
class tower, ``head.cls.0.p3.conv.weight`` where each level has its own; ``head.cls.0.norm.p3.weight`` where only norms have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nasdsl.backends.initialization import PRIOR, offset_predictors, strided_outputs
from nasdsl.backends.interpreter import Interpreter, compute_of, needed_levels
from nasdsl.ir.graph import Graph, HeadLayer, Node
from nasdsl.ir.graph import Prediction as PredictionLayer
from nasdsl.layers import (
    GROUP_NORMS,
    Activation,
    Add,
    Attention,
    Carafe,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    Factor,
    GlobalPool,
    Input,
    Maximum,
    Multiply,
    Norm,
    NormKind,
    PixelShuffle,
    PlacewiseAdd,
    Pool,
    Resize,
    Result,
    Scale,
    Split,
    Term,
    UpConv,
    WeightedAdd,
)
from nasdsl.nn import Carafe as CarafeModule
from nasdsl.nn import (
    DeformConv2d,
    DilatedDepthwiseConv2d,
    Group,
    GroupNorm,
    GuidedDeformConv2d,
    LayerNorm2d,
    SelfAttention2d,
    UpConv2d,
)
from nasdsl.nn import PixelShuffle as PixelShuffleModule
from nasdsl.nn import Scale as ScaleModule
from nasdsl.nn import WeightedAdd as WeightedAddModule
from nasdsl.predictions import BoxForm


class Prediction(NamedTuple):
    """Predictions of the head for one level.

    Attributes:
        cls_logits: [N, classes, H, W]; with anchors [N, anchors * classes, H, W].
        bbox_reg: [N, 4, H, W], distances to the left, top, right and bottom side in pixels of the image, not negative:
            ``exp(scale * x)``, or ``relu(scale * x) * stride`` with ``boxes=relu``. With anchors [N, anchors * 4, H, W], with
            distributions [N, 4 * (bins + 1), H, W], the logits of a side adjacent: the raw output.
        centerness: [N, 1, H, W], logits; None where it is not predicted.
    """

    cls_logits: Tensor
    bbox_reg: Tensor
    centerness: Tensor | None


class TowerLayer(NamedTuple):
    """A layer of a tower.

    Attributes:
        interpreters: of each level: runs its nodes on the modules of the tower.
        needed_levels: levels, relative to its input, that something in it is resized to.
    """

    interpreters: Mapping[str, Interpreter]
    needed_levels: Sequence[int]

    def sizes(self, x: Tensor) -> dict[int, tuple[int, int]]:
        """Height and width of the levels that something in it is resized to; they are relative to the layer's input."""
        height, width = x.shape[-2:]
        return {k: (-(-height // 2**k), -(-width // 2**k)) for k in self.needed_levels if k >= 0}


class Fpn(Group):
    """Feature pyramid network: backbone features to p3, p4, …"""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.outputs = tuple(graph.outputs)
        self.input_levels = {n.layer.name: n.out.level for n in graph.inputs() if isinstance(n.layer, Input)}
        self.needed_levels = needed_levels(graph.nodes)
        self.interpreter = Interpreter(graph.nodes, list(graph.outputs.values()))
        _register(self, ((node.weights, node) for node in graph.nodes))

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features [N, C, H, W] by name to the outputs [N, width, H, W] by name, finest first.

        Raises:
            KeyError: an input is missing.
        """
        missing = [name for name in self.input_levels if name not in features]
        if missing:
            raise KeyError(f"the decoder reads {', '.join(self.input_levels)}; given are {', '.join(features) or 'none'}")
        results = self.interpreter.run(self, features, self.sizes(features))
        return dict(zip(self.outputs, results, strict=True))

    def sizes(self, features: Mapping[str, Tensor]) -> dict[int, tuple[int, int]]:
        """Height and width of each level that something is resized to.

        They follow from the nearest finer input, or from the finest one if there is no finer input.
        """
        known = {level: features[name].shape[-2:] for name, level in self.input_levels.items() if level is not None}
        sizes = {}
        for level in self.needed_levels:
            finer = [k for k in known if k <= level]
            if finer:
                height, width = known[max(finer)]
                factor = 2 ** (level - max(finer))
                sizes[level] = ((height + factor - 1) // factor, (width + factor - 1) // factor)
            else:
                height, width = known[min(known)]
                factor = 2 ** (min(known) - level)
                sizes[level] = (height * factor, width * factor)
        return sizes


class Head(Group):
    """Head: a trunk, towers and prediction convolutions, applied to every level of the pyramid.

    Attributes:
        towers: layers by name of the tower; those of the trunk, if there is one, are ``both`` and come first.
    """

    def __init__(self, graph: Graph, classes: int) -> None:
        super().__init__()
        self.levels = tuple(graph.outputs)
        self.predictions = {p.name: p for p in graph.head.predictions}
        box = self.predictions.get("bbox_reg")
        self.box_form: BoxForm = "raw" if box is None else box.form
        self.strides = {name: 2**level for name, level in graph.levels.items()}
        self.towers: dict[str, list[TowerLayer]] = {}
        self.trunk = "" if graph.head.trunk is None else graph.head.trunk.name
        for tower in graph.head.chains:
            self.add_module(tower.name, Group())
            self.towers[tower.name] = [self._layer(self.get_submodule(tower.name), layer) for layer in tower.layers]
        self.runners = {p.name: self._prediction(p, p.layer(classes)) for p in graph.head.predictions}
        if self.box_form != "raw":
            self.scale = nn.ParameterDict({level: nn.Parameter(torch.ones(())) for level in self.levels})

    def _layer(self, tower: nn.Module, layer: HeadLayer) -> TowerLayer:
        """Create the modules of a layer: one set, or one for each level, or one with norms for each level."""
        _register(tower, ((layer.path(node, level), node) for level in self.levels for node in layer.nodes_at(level)))
        return self._runners(layer, layer.path)

    def _prediction(self, prediction: PredictionLayer, layer: HeadLayer) -> TowerLayer:
        """Create the modules of a prediction: one set, or one for each level.

        Args:
            layer: its layers, with the channels that it gives.
        """
        for level in self.levels[:1] if prediction.shared else self.levels:
            nodes = layer.nodes_at(level)
            _register(self, ((prediction.path(node, level), node) for node in nodes))
            _initialise_prediction(self.get_submodule(prediction.path(nodes[-1], level)), prediction)
        return self._runners(layer, prediction.path)

    def _runners(self, layer: HeadLayer, path: Callable[[Node, str], str]) -> TowerLayer:
        """What runs a layer at each level; levels with the same nodes and weights have one interpreter.

        Args:
            path: gives the path of a node's module for a level.
        """
        made: dict[tuple[object, ...], Interpreter] = {}
        interpreters: dict[str, Interpreter] = {}
        for level in self.levels:
            nodes = layer.nodes_at(level)
            paths = {node.id: path(node, level) for node in nodes}
            key = (id(nodes), *paths.values())
            if key not in made:
                made[key] = Interpreter(nodes, [layer.result], paths)
            interpreters[level] = made[key]
        return TowerLayer(interpreters, needed_levels(layer.nodes))

    def places(self, prediction: PredictionLayer) -> list[str]:
        """Paths of the modules of a prediction: one, or one for each level."""
        return [prediction.name] if prediction.shared else [f"{prediction.name}.{level}" for level in self.levels]

    def _predict(self, name: str, x: Tensor, level: str) -> Tensor:
        """A prediction for one level."""
        runner = self.runners[name]
        return runner.interpreters[level].run(self, {"x": x}, runner.sizes(x))[0]

    def forward(self, pyramid: Mapping[str, Tensor]) -> dict[str, Prediction]:
        """Pyramid [N, width, H, W] by level to a `Prediction` for each level."""
        predictions = {}
        for level in self.levels:
            towers: dict[str, Tensor] = {}
            for name, layers in self.towers.items():
                tower = self._modules[name]
                assert tower is not None
                x = towers[self.trunk] if self.trunk in towers else pyramid[level]
                for layer in layers:
                    x = layer.interpreters[level].run(tower, {"x": x}, layer.sizes(x))[0]
                towers[name] = x
            maps = {name: self._predict(name, towers[p.tower], level) for name, p in self.predictions.items()}
            if self.box_form != "raw":
                scaled = self.scale[level] * maps["bbox_reg"]
                exp = self.box_form == "exp"
                maps["bbox_reg"] = torch.exp(scaled) if exp else torch.relu(scaled) * self.strides[level]
            predictions[level] = Prediction(maps["cls_logits"], maps["bbox_reg"], maps.get("centerness"))
        return predictions


class DecoderModule(nn.Module):
    """Decoder of an object detector: ``fpn``, then ``head``.

    Attributes:
        graph: the graph it was built from.
        classes: number of classes.
    """

    def __init__(self, graph: Graph, classes: int) -> None:
        super().__init__()
        self.graph = graph
        self.classes = classes
        self.fpn = Fpn(graph)
        self.head = Head(graph, classes)
        _initialise(self, graph)

    def pyramid(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Backbone features ``{"c3": [N, C, H/8, W/8], …}`` to ``{"p3": [N, width, H/8, W/8], …}``."""
        pyramid: dict[str, Tensor] = self.fpn(features)
        return pyramid

    def forward(self, features: Mapping[str, Tensor]) -> dict[str, Prediction]:
        """Backbone features to a `Prediction` for each level, finest first."""
        predictions: dict[str, Prediction] = self.head(self.fpn(features))
        return predictions


def build(graph: Graph, classes: int) -> DecoderModule:
    """Build the module of a graph, with weights initialized from torch's random state.

    Raises:
        ValueError: `classes` is less than 1.
    """
    if classes < 1:
        raise ValueError(f"classes is {classes}; expected 1 or more")
    return DecoderModule(graph, classes)


def _initialise_prediction(conv: nn.Module, prediction: PredictionLayer) -> None:
    """Initialize a prediction with N(0, 0.01); the bias of the class logits gives the probability `PRIOR`."""
    assert isinstance(conv, nn.Conv2d | DeformConv2d | DilatedDepthwiseConv2d)
    nn.init.normal_(conv.weight, std=0.01)
    assert conv.bias is not None
    nn.init.constant_(conv.bias, -math.log((1 - PRIOR) / PRIOR) if prediction.name == "cls_logits" else 0.0)


def _initialise(module: DecoderModule, graph: Graph) -> None:
    """Initialize strided outputs (P6, P7) with kaiming_uniform(a=1) and zero bias, as published, and with zeros what predicts
    the offsets of a deformable convolution, as the deformable convolution that predicts its own. The rest keeps torch's
    defaults."""
    predictors = [module.fpn.get_submodule(node.weights) for node in offset_predictors(graph.nodes)]
    for tower in graph.head.chains:
        root = module.head.get_submodule(tower.name)
        for layer in tower.layers:
            for level in module.head.levels[:1] if layer.shared else module.head.levels:
                predictors += [root.get_submodule(layer.path(node, level)) for node in offset_predictors(layer.nodes)]
    for predictor in predictors:
        for parameter in predictor.parameters():
            nn.init.zeros_(parameter)
    for node in strided_outputs(graph):
        conv = module.fpn.get_submodule(node.weights)
        assert isinstance(conv, nn.Conv2d)
        nn.init.kaiming_uniform_(conv.weight, a=1)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


def _register(root: nn.Module, placed: Iterable[tuple[str, Node]]) -> None:
    """Create the modules of nodes below `root`, each path's once, in the order of the tree: as the emitted source does.

    Args:
        placed: nodes with the paths of their modules. Nodes that need none are left out.
    """
    tree: dict[str, Any] = {}
    for path, node in placed:
        if isinstance(node.layer, Input) or compute_of(node.layer) is not None:
            continue
        at = tree
        *groups, name = path.split(".")
        for group in groups:
            at = at.setdefault(group, {})
        at.setdefault(name, node)
    _create(root, tree)


def _create(parent: nn.Module, tree: Mapping[str, Any]) -> None:
    for name, entry in tree.items():
        if isinstance(entry, Node):
            parent.add_module(name, make_module(entry))
            continue
        if name not in parent._modules:
            parent.add_module(name, Group())
        _create(parent.get_submodule(name), entry)


def _norm(kind: NormKind, width: int) -> nn.Module:
    if kind in GROUP_NORMS:
        return GroupNorm(GROUP_NORMS[kind], width)
    return nn.BatchNorm2d(width) if kind == "bn" else LayerNorm2d(width)


def make_module(node: Node) -> nn.Module | None:
    """Create the module of a node's layer; None for a layer that the interpreter computes itself."""
    layer, width = node.layer, node.operands[0].width if node.operands else 0
    match layer:
        case Conv():
            layer = layer.resolved(node.operands[0])
            padding = layer.dilation * (layer.k - 1) // 2
            if layer.dilation > 1 and layer.k > 1 and layer.stride == 1 and layer.groups == width == layer.width:
                return DilatedDepthwiseConv2d(width, layer.k, layer.dilation, layer.bias)
            return nn.Conv2d(width, layer.width, layer.k, layer.stride, padding, layer.dilation, layer.groups, bias=layer.bias)
        case DeformConv():
            deformable = DeformConv2d if len(node.inputs) == 1 else GuidedDeformConv2d
            layer = layer.resolved(node.operands[0])
            return deformable(
                width, layer.width, layer.k, layer.stride, layer.dilation, layer.groups, layer.offset_groups, layer.bias
            )
        case Norm():
            return _norm(layer.norm, width)
        case Scale():
            return ScaleModule(width)
        case WeightedAdd():
            return WeightedAddModule(len(node.inputs))
        case UpConv():
            layer = layer.resolved(node.operands[0])
            return UpConv2d(width, layer.width, layer.k, layer.stride, layer.groups, layer.bias)
        case PixelShuffle():
            return PixelShuffleModule(layer.factor)
        case Carafe():
            return CarafeModule(width, layer.factor, layer.k, layer.encoder_k, layer.compressed)
        case Attention():
            return SelfAttention2d(width, layer.heads, layer.position == "sine")
        case CustomLayer():
            module: nn.Module = layer.module(node.operands, node.out)
            return module
        case Input() | Activation() | Add() | Multiply() | Factor() | Term() | Maximum() | PlacewiseAdd() | Concat():
            return None
        case Split() | Result() | Resize() | Pool() | GlobalPool():
            return None
