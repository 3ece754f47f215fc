"""Dilated depthwise convolution: the layer, and its implementations.

`nasdsl.nn.depthwise.cpu` computes it by operations that are fast on a CPU. On a GPU, `nasdsl.nn.depthwise.autotune` picks the
fastest of torch's own, `nasdsl.nn.depthwise.space_to_batch` and `nasdsl.nn.depthwise.triton`.
"""

from nasdsl.nn.depthwise.layer import DilatedDepthwiseConv2d

__all__ = ["DilatedDepthwiseConv2d"]
