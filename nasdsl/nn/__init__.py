"""Modules that torch lacks. Emitted stand-alone sources contain the text of these classes."""

from nasdsl.nn.deform import DeformConv2d, deform_conv2d
from nasdsl.nn.depthwise import DilatedDepthwiseConv2d
from nasdsl.nn.fusion import Group, Scale, WeightedAdd
from nasdsl.nn.norm import GroupNorm, LayerNorm2d

__all__ = [
    "DeformConv2d",
    "DilatedDepthwiseConv2d",
    "Group",
    "GroupNorm",
    "LayerNorm2d",
    "Scale",
    "WeightedAdd",
    "deform_conv2d",
]
