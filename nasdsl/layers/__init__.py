"""The closed set of primitive layers.

Every op of the language expands into these, and back ends handle these and nothing else. A layer holds what the text says
of it; the widths of its operands come from the graph, so the same layer serves any backbone.

A package adds a primitive that no composition of these gives as a subclass of `CustomLayer`.
"""

from typing import TypeAlias

from nasdsl.layers.base import FREE, UNKNOWN_WIDTH, Cost, Feature, Features, LayerError
from nasdsl.layers.builtin import (
    GROUP_NORM_GROUPS,
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
    WeightedAdd,
    check_merged,
    halvings,
)
from nasdsl.layers.custom import CUSTOM, CustomLayer, PrimitiveError, attribute_texts, primitive
from nasdsl.layers.plugins import load_plugins

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
    | Maximum
    | WeightedAdd
    | PlacewiseAdd
    | Concat
    | Split
    | Resize
    | Pool
    | GlobalPool
    | Result
    | CustomLayer
)

__all__ = [
    "CUSTOM",
    "FREE",
    "GROUP_NORM_GROUPS",
    "OWN_WIDTH",
    "UNKNOWN_WIDTH",
    "Activation",
    "ActivationKind",
    "Add",
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
    "PlacewiseAdd",
    "Pool",
    "PoolKind",
    "PrimitiveError",
    "Resize",
    "ResizeMode",
    "Result",
    "Scale",
    "Split",
    "WeightedAdd",
    "attribute_texts",
    "check_merged",
    "halvings",
    "load_plugins",
    "primitive",
]
