"""Modulated deformable convolution: the layer, the function, and the ways in which it is computed.

`nasdsl.nn.deform.plain` is the definition. `nasdsl.nn.deform.rows` gives the same on a CPU in a fraction of the time. On a
GPU, `nasdsl.nn.deform.choice` takes the fastest of the definition, torchvision's (`vision`) and our own in Triton (`gpu`).
"""

from nasdsl.nn.deform.layer import DeformConv2d, deform_conv2d

__all__ = ["DeformConv2d", "deform_conv2d"]
