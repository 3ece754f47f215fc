"""The closed set of primitive layers.

Every op of the language expands into these, and back ends handle these and nothing else. A layer holds what the text says
of it; the widths of its operands come from the graph, so the same layer serves any backbone.

A package adds a primitive that no composition of these gives as a subclass of `CustomLayer`.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from nasdsl.layers.attention import Attention
from nasdsl.layers.base import FREE, UNKNOWN_WIDTH, Cost, Feature, Features, LayerError
from nasdsl.layers.builtin import (
    GROUP_NORMS,
    OWN_WIDTH,
    Activation,
    ActivationKind,
    Add,
    Concat,
    Conv,
    DeformConv,
    Factor,
    GlobalPool,
    Input,
    Maximum,
    Multiply,
    Norm,
    NormKind,
    PlacewiseAdd,
    Pool,
    PoolKind,
    Resize,
    ResizeMode,
    Result,
    Scale,
    Split,
    Term,
    WeightedAdd,
    check_merged,
    halvings,
)
from nasdsl.layers.custom import CUSTOM, CustomLayer, PrimitiveError, attribute_texts, primitive
from nasdsl.layers.plugins import load_plugins
from nasdsl.layers.upsampling import Carafe, PixelShuffle, UpConv

Layer: TypeAlias = (
    Input
    | Conv
    | DeformConv
    | Norm
    | Activation
    | Scale
    | Add
    | Multiply
    | Factor
    | Term
    | Maximum
    | WeightedAdd
    | PlacewiseAdd
    | Concat
    | Split
    | Resize
    | Pool
    | GlobalPool
    | UpConv
    | PixelShuffle
    | Carafe
    | Attention
    | Result
    | CustomLayer
)

WITHOUT_WEIGHTS = (
    Activation,
    Add,
    Concat,
    Factor,
    GlobalPool,
    Input,
    Maximum,
    Multiply,
    PixelShuffle,
    PlacewiseAdd,
    Pool,
    Resize,
    Result,
    Split,
    Term,
)
"""Layers that never have weights."""

_SIZED = (UpConv, PixelShuffle, Carafe)  # no union: torch.compile of torch 2.4 knows none


def is_sized(layer: Layer) -> bool:
    """Whether its module is given the height and width of the result, ``module(*operands, size=(height, width))``."""
    return isinstance(layer, _SIZED) or (isinstance(layer, CustomLayer) and layer.sized)


def layer_cost(layer: Layer, inputs: Sequence[Feature], out: Feature, area: Callable[[int | None], int]) -> Cost:
    """Cost of a layer for one image.

    Args:
        area: gives height * width of the map of a level.
    """
    return layer.cost(inputs, out, area(inputs[0].level if isinstance(layer, UpConv | Carafe) else out.level))


__all__ = [
    "CUSTOM",
    "FREE",
    "GROUP_NORMS",
    "OWN_WIDTH",
    "UNKNOWN_WIDTH",
    "WITHOUT_WEIGHTS",
    "Activation",
    "ActivationKind",
    "Add",
    "Attention",
    "Carafe",
    "Concat",
    "Conv",
    "Cost",
    "CustomLayer",
    "DeformConv",
    "Factor",
    "Feature",
    "Features",
    "GlobalPool",
    "Input",
    "Layer",
    "LayerError",
    "Maximum",
    "Multiply",
    "Norm",
    "NormKind",
    "PixelShuffle",
    "PlacewiseAdd",
    "Pool",
    "PoolKind",
    "PrimitiveError",
    "Resize",
    "ResizeMode",
    "Result",
    "Scale",
    "Split",
    "Term",
    "UpConv",
    "WeightedAdd",
    "attribute_texts",
    "check_merged",
    "halvings",
    "is_sized",
    "layer_cost",
    "load_plugins",
    "primitive",
]
