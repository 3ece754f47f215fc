"""The nodes of a section in the order in which they run, on whatever modules stand at their paths."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nasdsl.diagnostics import Span
from nasdsl.ir.graph import Node
from nasdsl.layers import (
    Activation,
    Add,
    Concat,
    Conv,
    CustomLayer,
    DeformConv,
    GlobalPool,
    Input,
    Layer,
    Maximum,
    Multiply,
    Norm,
    Pool,
    Resize,
    Scale,
    WeightedAdd,
)

Sizes = Mapping[int, Sequence[int]]
"""Height and width of the map of each level."""

Compute = Callable[[Sequence[Tensor], Sizes], Tensor]


class Step(NamedTuple):
    """One node, ready to run: `compute` for a layer without parameters, else None and the path of its module."""

    out: int
    compute: Compute | None
    path: tuple[str, ...]
    inputs: tuple[int, ...]
    last_use: tuple[int, ...]
    span: Span


class Interpreter:
    """The nodes of a section in order. It holds no module: copies of a model run on their own weights, and a module that
    is put in another's place is used. Values are dropped after their last use."""

    def __init__(self, nodes: Sequence[Node], results: Sequence[str]) -> None:
        self._made_from = (tuple(nodes), tuple(results))
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
                tuple(node.id.split(".")),
                tuple(place[source] for source in node.inputs),
                tuple(drops.get(at, ())),
                node.span,
            )
            for at, node in enumerate(nodes)
            if not isinstance(node.layer, Input)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return Interpreter, self._made_from

    def __deepcopy__(self, memo: object) -> Interpreter:
        return self

    def run(self, root: nn.Module, features: Mapping[str, Tensor], sizes: Sizes) -> list[Tensor]:
        """The results, given the inputs by name. An error names the line of the text that was running."""
        values: dict[int, Tensor] = {at: features[name] for name, at in self.inputs.items()}
        for step in self.steps:
            operands = [values[i] for i in step.inputs]
            if torch.compiler.is_dynamo_compiling():  # dynamo traces no try
                values[step.out] = _run(step, root, operands, sizes)
            else:
                try:
                    values[step.out] = _run(step, root, operands, sizes)
                except Exception as error:
                    shapes = ", ".join(str(list(o.shape)) for o in operands)
                    error.add_note(f"while running {'.'.join(step.path)} ({step.span}: {step.span.text}) on {shapes}")
                    raise
            for used in step.last_use:
                del values[used]
        return [values[r] for r in self.results]


def _run(step: Step, root: nn.Module, operands: Sequence[Tensor], sizes: Sizes) -> Tensor:
    if step.compute is not None:
        return step.compute(operands, sizes)
    module: nn.Module | None = root
    for name in step.path:
        assert module is not None
        module = module._modules[name]
    assert module is not None
    out: Tensor = module(*operands)
    return out


def compute_of(layer: Layer) -> Compute | None:
    """How a layer without parameters is computed from its operands and the sizes of the levels; None for the others."""
    match layer:
        case Activation():
            function = ACTIVATIONS[layer.function]
            return lambda x, sizes: function(x[0])
        case Add():
            return lambda x, sizes: _fold(torch.add, x)
        case Multiply():
            return lambda x, sizes: _fold(torch.mul, x)
        case Maximum():
            return lambda x, sizes: _fold(torch.maximum, x)
        case Concat():
            return lambda x, sizes: torch.cat(_one_size(x), dim=1)
        case Resize():
            return _resize(layer)
        case Pool():
            return _pool(layer)
        case GlobalPool():
            reduce = torch.amax if layer.pool == "max" else torch.mean
            return lambda x, sizes: reduce(x[0], dim=(2, 3), keepdim=True)
        case Conv() | DeformConv() | Norm() | Scale() | WeightedAdd() | CustomLayer() | Input():
            return None


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "hardswish": F.hardswish,
    "gelu": F.gelu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


def _fold(function: Callable[[Tensor, Tensor], Tensor], operands: Sequence[Tensor]) -> Tensor:
    total = operands[0]
    for operand in operands[1:]:
        total = function(total, operand)
    return total


def _one_size(operands: Sequence[Tensor]) -> list[Tensor]:
    """Values of one position spread over the map of the others."""
    height, width = (max(o.shape[d] for o in operands) for d in (2, 3))
    return [o.expand(-1, -1, height, width) if o.shape[2:] != (height, width) else o for o in operands]


def _resize(layer: Resize) -> Compute:
    if layer.mode == "nearest":
        return lambda x, sizes: F.interpolate(x[0], size=tuple(sizes[layer.level]), mode="nearest")
    return lambda x, sizes: F.interpolate(x[0], size=tuple(sizes[layer.level]), mode="bilinear", align_corners=False)


def _pool(layer: Pool) -> Compute:
    k, stride, padding, cuts = layer.k, layer.stride, layer.padding, layer.cuts
    if layer.pool == "max":
        return lambda x, sizes: F.max_pool2d(x[0], k, stride, padding, ceil_mode=cuts)
    return lambda x, sizes: F.avg_pool2d(x[0], k, stride, padding, ceil_mode=cuts, count_include_pad=False)
