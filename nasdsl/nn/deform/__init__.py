"""Modulated deformable convolution (DCNv2): the layer, the function, and its implementations.

`nasdsl.nn.deform.reference` defines the result. `nasdsl.nn.deform.cpu` computes the same on a CPU in a fraction of the time. On
a GPU, `nasdsl.nn.deform.autotune` picks the fastest of the reference, `nasdsl.nn.deform.torchvision` and
`nasdsl.nn.deform.triton`.
"""

from nasdsl.nn.deform.layer import DeformConv2d, GuidedDeformConv2d, deform_conv2d

__all__ = ["DeformConv2d", "GuidedDeformConv2d", "deform_conv2d"]
