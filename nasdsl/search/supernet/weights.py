"""Weights that the fillings of a space share: each layer at each place has one set, whatever the rest of the filling is.

A layer's weights belong to its place in the text (``x3.y``), to what the op there consists of, and to its largest shape, which
differs where it reads a raw feature of another width. So the alternatives of a hole keep weights of their own, and a pool
input is read with the same weights whatever it is. Of a width the first channels are used (slimmable networks,
arXiv:1812.08928); behind a concatenation, the first channels of each operand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nasdsl.backends.module import DecoderModule
from nasdsl.ir.graph import Graph, Node, Prediction
from nasdsl.layers import Concat, Conv, CustomLayer, DeformConv, Input, PixelShuffle, Result, Split, UpConv
from nasdsl.search.supernet.widths import kind

Channels = tuple[int, ...]
"""Which channels of the widest form a map has."""


class SharedWeights:
    """The weights of all fillings.

    Attributes:
        parameters: by key, at the largest width, in the order in which they were first needed.
    """

    def __init__(self) -> None:
        self.parameters: dict[str, nn.Parameter] = {}

    @property
    def count(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    def bind(
        self, graph: Graph, widest: Graph, classes: int, make_widest: Callable[[], DecoderModule], *, keep: bool = True
    ) -> BoundDecoder:
        """The decoder of a filling with these weights.

        Args:
            graph: of the filling.
            widest: of the same filling with its largest widths.
            make_widest: makes the module of `widest`, from which weights are taken that no filling before has needed. Called
                only if there are some.
            keep: keep these weights for the fillings that come after it.
        """
        module = DecoderModule(graph, classes)
        layers = _layers(graph, widest)
        made: dict[str, nn.Parameter] | None = None
        weights: dict[str, Tensor] = {}
        for name, parameter in module.named_parameters():
            layer = _find(layers, name)
            key = name if layer is None else f"{name} {layer.op}"
            wide = self.parameters.get(key)
            if wide is None:
                made = made or dict(make_widest().named_parameters())
                wide = nn.Parameter(made[name].detach().clone())
                if keep:
                    self.parameters[key] = wide
            weights[name] = _narrow(wide, parameter.shape, layer)
        return BoundDecoder(module, weights)

    def state(self) -> dict[str, Tensor]:
        """The weights as plain tensors."""
        return {key: parameter.detach() for key, parameter in self.parameters.items()}

    def load(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Replace the weights by saved ones."""
        self.parameters = {key: nn.Parameter(value.to(device)) for key, value in state.items()}


class BoundDecoder(nn.Module):
    """A decoder whose weights are given from outside.

    In training mode, its BatchNorms use the statistics of each batch; those of evaluation mode are measured by `calibrate`.

    Args:
        module: the decoder's structure; its own parameters and buffers are not used.
        weights: by the names of the parameters.
    """

    def __init__(self, module: DecoderModule, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.module = module
        self.weights = dict(weights)
        device = next(iter(self.weights.values())).device
        self.statistics = {
            name: (torch.ones if name.endswith("running_var") else torch.zeros)(value.shape, dtype=value.dtype, device=device)
            for name, value in module.named_buffers()
        }

    def forward(self, features: Mapping[str, Tensor]) -> Any:
        """See `DecoderModule`."""
        return torch.func.functional_call(self.module, {**self.weights, **self.statistics}, (features,))

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """Measure the BatchNorms' statistics: their means over batches of features (arXiv:1903.05134, section 3.1)."""
        norms = [module for module in self.module.modules() if isinstance(module, nn.BatchNorm2d)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.momentum = None  # the plain mean of all batches
        training = self.training
        self.train()
        for features in batches if norms else ():
            self(features)
        self.train(training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum

    def own_state(self) -> dict[str, Tensor]:
        """The state dict of a `DecoderModule` with these weights."""
        return {name: value.detach().clone() for name, value in {**self.weights, **self.statistics}.items()}


class _Layer(NamedTuple):
    """A layer at its place.

    Attributes:
        op: what the layers of its op compute, and its largest widths.
        read, written: channels of its first operand and of its result.
        is_transposed: its kernel has the channels of the operand first.
    """

    op: str
    read: Channels
    written: Channels
    is_transposed: bool = False


def _layers(graph: Graph, widest: Graph) -> dict[str, _Layer]:
    """The layers with operands, by the path of their parameters."""
    channels = {n.id: tuple(range(n.out.width)) for n in graph.nodes if isinstance(n.layer, Input)}
    found = _section(graph.nodes, widest.nodes, channels, ["fpn"])
    levels = tuple(graph.outputs)
    runs = {level: [level] for level in levels}  # the levels that layers at a level stand for
    if not (_levels_differ(graph) or _levels_differ(widest)):
        runs = {levels[0]: list(levels)}
    pyramid = {level: channels[graph.outputs[level]] for level in runs}
    for tower, wide_tower in zip(graph.head.chains, widest.head.chains, strict=True):
        read = dict(pyramid)
        for layer, wide in zip(tower.layers, wide_tower.layers, strict=True):
            place = f"head.{tower.name}.{layer.index}"
            for level, alike in runs.items():
                of_layer = {"x": read[level]}
                places = [place] if layer.shared else [f"{place}.{one}" for one in alike]
                found |= _section(layer.nodes_at(level), wide.nodes_at(level), of_layer, places)
                read[level] = of_layer[layer.result]
        if tower is graph.head.trunk:
            pyramid = read
        for prediction, wide_prediction in zip(graph.head.predictions, widest.head.predictions, strict=True):
            if prediction.tower == tower.name:
                for level, alike in runs.items():
                    found |= _prediction(prediction, wide_prediction, read[level], level, alike)
    return found


def _levels_differ(graph: Graph) -> bool:
    return len(set(graph.pyramid_widths.values())) > 1


def _prediction(
    prediction: Prediction, widest: Prediction, read: Channels, level: str, alike: Iterable[str]
) -> dict[str, _Layer]:
    """The layers of a prediction at a level, and those `alike`.

    With another op, or another number of values for a box, they are other weights.
    """
    place = f"head.{prediction.name}"
    places = [place] if prediction.shared else [f"{place}.{one}" for one in alike]
    op = "" if prediction.op == "conv_3x3" else f" {prediction.op}"
    op += "" if prediction.fixed in (0, 1, 4) else f" {prediction.fixed}"
    if prediction.is_plain:
        return {each: _Layer(f"{widest.width_at(level)}{op}", read, ()) for each in places}
    nodes = prediction.nodes_at(level)
    found = _section(nodes, widest.nodes_at(level), {nodes[0].id: read}, places)
    return {path: layer._replace(op=f"{layer.op}{op}") for path, layer in found.items()}


def _section(
    nodes: Sequence[Node], widest: Sequence[Node], channels: dict[str, Channels], places: Sequence[str]
) -> dict[str, _Layer]:
    """The layers of a section, or of a layer of the head; adds the channels of their results to `channels`."""
    ops: dict[str, list[str]] = {}
    for node in {node.weights: node for node in nodes}.values():  # how often a `shared` op is called differs between fillings
        ops.setdefault(_op(node), []).append(kind(node.layer))
    found: dict[str, _Layer] = {}
    for node, wide in zip(nodes, widest, strict=True):
        if isinstance(node.layer, Input):
            continue
        channels[node.id] = _written(node, wide, [channels[id] for id in node.inputs])
        widths = f"{'+'.join(str(feature.width) for feature in wide.operands)}>{wide.out.width}"
        layer = _Layer(
            f"{widths} {' '.join(ops[_op(node)])}", channels[node.inputs[0]], channels[node.id], isinstance(node.layer, UpConv)
        )
        for place in places:
            found.setdefault(f"{place}.{node.weights}", layer)
    return found


def _op(node: Node) -> str:
    return node.weights.rpartition(".")[0]


def _written(node: Node, widest: Node, operands: Sequence[Channels]) -> Channels:
    match node.layer:
        case Conv() | DeformConv() | UpConv() | PixelShuffle() | CustomLayer() | Split() | Result():
            return tuple(range(node.out.width))
        case Concat():
            starts = [sum(feature.width for feature in widest.operands[:i]) for i in range(len(operands))]
            return tuple(start + channel for start, read in zip(starts, operands, strict=True) for channel in read)
    return next(read for read in operands if len(read) == node.out.width)


def _find(layers: Mapping[str, _Layer], name: str) -> _Layer | None:
    """The layer of a parameter; None for the factor of a level."""
    path = name
    while path and path not in layers:
        path = path.rpartition(".")[0]
    return layers.get(path)


def _narrow(wide: Tensor, shape: Sequence[int], layer: _Layer | None) -> Tensor:
    """The part of a weight that a layer of this shape uses: a view where its channels are the first ones."""
    for dim, length in enumerate(shape):
        if wide.shape[dim] == length:
            continue
        is_operand = dim > 0 if layer is None or not layer.is_transposed or wide.dim() == 1 else dim == 0
        channels: Channels = () if layer is None else layer.read if is_operand else layer.written
        if len(channels) == length and channels[-1] != length - 1:
            wide = wide.index_select(dim, torch.tensor(channels, device=wide.device))
        else:  # the channels of a group, and layers whose channels are the first ones
            wide = wide.narrow(dim, 0, length)
    return wide
