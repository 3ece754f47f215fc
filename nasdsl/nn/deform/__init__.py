"""Modulated deformable convolution: the layer, the function, and its implementations.

`nasdsl.nn.deform.reference` is the definition. `nasdsl.nn.deform.cpu` gives the same on a CPU in a fraction of the time. On a
GPU, `nasdsl.nn.deform.autotune` picks the fastest of the reference, `nasdsl.nn.deform.torchvision` and
`nasdsl.nn.deform.triton`.
"""

from nasdsl.nn.deform.layer import DeformConv2d, deform_conv2d

__all__ = ["DeformConv2d", "deform_conv2d"]
