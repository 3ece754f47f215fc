"""Modules that torch lacks. Emitted stand-alone sources contain the text of these classes."""

from nasdsl.nn.attention import SelfAttention2d
from nasdsl.nn.deform import DeformConv2d, GuidedDeformConv2d, deform_conv2d
from nasdsl.nn.depthwise import DilatedDepthwiseConv2d
from nasdsl.nn.fusion import Group, Scale, WeightedAdd, placewise_add
from nasdsl.nn.group_norm import GroupNorm
from nasdsl.nn.norm import LayerNorm2d
from nasdsl.nn.upsampling import Carafe, PixelShuffle, UpConv2d

__all__ = [
    "Carafe",
    "DeformConv2d",
    "DilatedDepthwiseConv2d",
    "Group",
    "GroupNorm",
    "GuidedDeformConv2d",
    "LayerNorm2d",
    "PixelShuffle",
    "Scale",
    "SelfAttention2d",
    "UpConv2d",
    "WeightedAdd",
    "deform_conv2d",
    "placewise_add",
]
