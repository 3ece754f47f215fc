"""Interpreter of graph nodes: runs them in order on the modules of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasdsl.backends.export import sized_levels
from nasdsl.backends.layer_errors import RunningLayer, attach
from nasdsl.ir.graph import Node
from nasdsl.layers import (
    Activation,
    Add,
    Attention,
    Carafe,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    Factor,
    Feature,
    Features,
    GlobalPool,
    Input,
    Layer,
    Maximum,
    Multiply,
    Norm,
    PixelShuffle,
    PlacewiseAdd,
    Pool,
    PrimitiveError,
    Resize,
    Result,
    Scale,
    Split,
    Term,
    UpConv,
    WeightedAdd,
    is_sized,
)
from nasdsl.layers.custom import describe
from nasdsl.nn import placewise_add

Sizes = Mapping[int, Sequence[int]]
"""Height and width of the feature map, by level."""

Compute = Callable[[Sequence[Tensor], Sizes], Tensor]


class Step(NamedTuple):
    """A node, prepared for running.

    Attributes:
        out: index of its value.
        compute: function of a layer without parameters; None for one with a module.
        path: where its module is.
        inputs: indices of its operands.
        last_use: indices of the values that no later step reads.
        span: where the text defines it.
    """

    out: int
    compute: Compute | None
    path: tuple[str, ...]
    inputs: tuple[int, ...]
    last_use: tuple[int, ...]
    node: Node


class Interpreter:
    """Runs the nodes of the fpn, or of a layer of the head, one by one, like `torch.fx.Interpreter`.

    It holds no modules but finds them by path when it runs, so a copy of a model runs on its own weights, and a replaced
    submodule is used. Values are freed after their last use.

    Args:
        nodes: in topological order.
        results: ids of the nodes whose values `run` returns.
        paths: of the nodes' modules, by id, where they are elsewhere than at `Node.weights`.
    """

    def __init__(self, nodes: Sequence[Node], results: Sequence[str], paths: Mapping[str, str] | None = None) -> None:
        self._arguments = (tuple(nodes), tuple(results), paths)
        place = {node.id: i for i, node in enumerate(nodes)}
        self.inputs = {node.layer.name: place[node.id] for node in nodes if isinstance(node.layer, Input)}
        self.results = [place[r] for r in results]
        last: dict[int, int] = {}
        for at, node in enumerate(nodes):
            for source in node.inputs:
                last[place[source]] = at
        drops: dict[int, list[int]] = {}
        for used, at in last.items():
            if used not in self.results:
                drops.setdefault(at, []).append(used)
        self.steps = tuple(
            Step(
                at,
                compute_of(node.layer),
                tuple((node.weights if paths is None else paths[node.id]).split(".")),
                tuple(place[source] for source in node.inputs),
                tuple(drops.get(at, ())),
                node,
            )
            for at, node in enumerate(nodes)
            if not isinstance(node.layer, Input)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Interpreter, self._arguments

    def __deepcopy__(self, memo: object) -> Interpreter:
        return self

    def run(self, root: nn.Module, features: Mapping[str, Tensor], sizes: Sizes) -> list[Tensor]:
        """Run all nodes; returns the results in order. An error carries the layer that was running (`layer_errors`).

        Args:
            root: model with the modules.
            features: inputs by name, [N, C, H, W].
            sizes: height and width of each level that something is resized to.
        """
        values: dict[int, Tensor] = {at: features[name] for name, at in self.inputs.items()}
        for step in self.steps:
            operands = [values[i] for i in step.inputs]
            if torch.compiler.is_dynamo_compiling():  # dynamo traces no try
                values[step.out] = _run(step, root, operands, sizes)
            else:
                try:
                    values[step.out] = _run(step, root, operands, sizes)
                except Exception as error:
                    shapes = tuple(tuple(o.shape) for o in operands if isinstance(o, Tensor))
                    attach(error, RunningLayer(step.node, shapes))
                    raise
            for used in step.last_use:
                del values[used]
        return [values[r] for r in self.results]


def _run(step: Step, root: nn.Module, operands: Sequence[Tensor], sizes: Sizes) -> Tensor:
    """The result of a node; of a layer of several results a tuple of them, which only `Result` reads."""
    if step.compute is not None:
        return step.compute(operands, sizes)
    module: nn.Module | None = root
    for name in step.path:
        assert module is not None
        module = module._modules[name]
    assert module is not None
    layer, level = step.node.layer, step.node.out.level
    size = {"size": tuple(sizes[level])} if is_sized(layer) and level is not None else {}
    out: Tensor = module(*operands, **size)
    if isinstance(layer, CustomLayer) and not torch.compiler.is_compiling():  # then sizes are symbols
        _check_results(layer, out, _results(step.node), sizes)
    return out


def _results(node: Node) -> tuple[Feature, ...]:
    """Level and width of each result of a node."""
    return node.out.results if isinstance(node.out, Features) else (node.out,)


def _check_results(layer: CustomLayer, given: object, features: Sequence[Feature], sizes: Sizes) -> None:
    """Compare the shapes of what the module of a custom layer gives with those of its shape rule.

    Raises:
        PrimitiveError: they differ.
    """
    several = given if layer.results > 1 else (given,)
    if not isinstance(several, tuple | list) or len(several) != len(features):
        raise PrimitiveError(
            f"{describe(type(layer))} gives {type(given).__name__}; expected {len(features)} tensors in a tuple"
        )
    for x, feature in zip(several, features, strict=True):
        height, width = (1, 1) if feature.level is None else sizes[feature.level]
        if not isinstance(x, Tensor) or tuple(x.shape[1:]) != (feature.width, height, width):
            found = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise PrimitiveError(
                f"{describe(type(layer))} gives {found} where its shape rule says [N, {feature.width}, {height}, {width}]"
            )


def compute_of(layer: Layer) -> Compute | None:
    """Function that computes a layer without parameters from its operands and the sizes; None for other layers."""
    match layer:
        case Activation():
            function = ACTIVATIONS[layer.function]
            return lambda x, sizes: function(x[0])
        case Add():
            return lambda x, sizes: _reduce(torch.add, x)
        case Multiply():
            return lambda x, sizes: _reduce(torch.mul, x)
        case PlacewiseAdd():
            return lambda x, sizes: placewise_add(x[-1], *x[:-1])
        case Factor():
            return lambda x, sizes: x[0] * layer.value
        case Term():
            return lambda x, sizes: x[0] + layer.value
        case Maximum():
            return lambda x, sizes: _reduce(torch.maximum, x)
        case Concat():
            return lambda x, sizes: torch.cat(_expand(x), dim=1)
        case Split():
            return lambda x, sizes: torch.chunk(x[0], layer.parts, dim=1)  # type: ignore[return-value]  # several: only `Result` reads them
        case Resize():
            return _resize(layer)
        case Pool():
            return _pool(layer)
        case GlobalPool():
            reduce = torch.amax if layer.pool == "max" else torch.mean
            return lambda x, sizes: reduce(x[0], dim=(2, 3), keepdim=True)
        case Result():
            return lambda x, sizes: x[0][layer.index]
        case Conv() | DeformConv() | UpConv() | PixelShuffle() | Carafe() | Attention():
            return None
        case Norm() | Scale() | WeightedAdd() | CustomLayer() | Input():
            return None


def needed_levels(nodes: Sequence[Node]) -> list[int]:
    """The levels whose height and width are needed: those that layers are given, and those of custom layers, to check them."""
    levels: set[int | None] = set(sized_levels(nodes))
    for node in nodes:
        if isinstance(node.layer, CustomLayer):
            levels.update(feature.level for feature in _results(node))
    return sorted(level for level in levels if level is not None)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "tanh": torch.tanh,
}


def _reduce(function: Callable[[Tensor, Tensor], Tensor], operands: Sequence[Tensor]) -> Tensor:
    total = operands[0]
    for operand in operands[1:]:
        total = function(total, operand)
    return total


def _expand(operands: Sequence[Tensor]) -> list[Tensor]:
    """Expand globally pooled values, [N, C, 1, 1], to the height and width of the other operands."""
    height, width = (max(o.shape[d] for o in operands) for d in (2, 3))
    return [o.expand(-1, -1, height, width) if o.shape[2:] != (height, width) else o for o in operands]


def _resize(layer: Resize) -> Compute:
    if layer.mode == "nearest":
        return lambda x, sizes: F.interpolate(x[0], size=tuple(sizes[layer.level]), mode="nearest")
    aligned = layer.mode == "aligned"
    return lambda x, sizes: F.interpolate(x[0], size=tuple(sizes[layer.level]), mode="bilinear", align_corners=aligned)


def _pool(layer: Pool) -> Compute:
    k, stride, padding, cuts = layer.k, layer.stride, layer.padding, layer.cuts
    if layer.pool == "max":
        return lambda x, sizes: F.max_pool2d(x[0], k, stride, padding, ceil_mode=cuts)
    return lambda x, sizes: F.avg_pool2d(x[0], k, stride, padding, ceil_mode=cuts, count_include_pad=False)
