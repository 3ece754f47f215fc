"""Modules that torch lacks. Emitted stand-alone sources contain the text of these classes."""

from nasdsl.nn.deform import DeformConv2d, deform_conv2d
from nasdsl.nn.depthwise import DilatedDepthwiseConv2d
from nasdsl.nn.fusion import Group, Scale, WeightedAdd, placewise_add
from nasdsl.nn.norm import GroupNorm

__all__ = [
    "DeformConv2d",
    "DilatedDepthwiseConv2d",
    "Group",
    "GroupNorm",
    "Scale",
    "WeightedAdd",
    "deform_conv2d",
    "placewise_add",
]
