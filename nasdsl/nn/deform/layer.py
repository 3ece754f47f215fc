"""Modulated deformable convolution (DCNv2): the function, which chooses how it is computed, and the layer.

Source: "Deformable ConvNets v2: More Deformable, Better Results", arXiv:1811.11168.
"""

from __future__ import annotations

from torch import Tensor, nn

from nasdsl.nn.deform import autotune, cpu, reference


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """Convolve `x`, each tap of the kernel moved by an offset of its own and scaled by a mask.

    Args:
        x: [N, C, H, W].
        offset: [N, 2 * offset_groups * kh * kw, H', W'], in pixels; for each group and tap first dy, then dx.
        weight: [O, C / groups, kh, kw].
        bias: [O].
        stride, padding, dilation: (vertical, horizontal).
        mask: [N, offset_groups * kh * kw, H', W'], usually in 0..1.

    Returns:
        [N, O, H', W'], H' = (H + 2 * padding - dilation * (kh - 1) - 1) // stride + 1.

    A position outside the map reads zeros, and one between pixels the bilinear mixture of its four neighbours. Positions
    are always computed in float32 or better: half a precision would round them to half a pixel.
    """
    compute = reference.deform_conv2d
    if cpu.suits(x, offset, mask, weight, bias):
        compute = cpu.deform_conv2d
    elif autotune.suits(x, offset, mask, weight, bias):
        compute = autotune.deform_conv2d
    return compute(x, offset, weight, bias, stride, padding, dilation, mask)


class DeformConv2d(nn.Conv2d):
    """A deformable convolution that predicts its own offsets and mask.

    ``offset`` is the 3x3 convolution that does so: 3 * offset_groups * k * k channels, the last third of them the mask
    before its sigmoid; it starts at zero, so that the layer starts as a plain convolution of half its weights.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        offset_groups: int = 1,
        bias: bool = True,
    ) -> None:
        padding = dilation * (kernel_size - 1) // 2
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.offset_groups = offset_groups
        self.offset = nn.Conv2d(in_channels, 3 * offset_groups * kernel_size * kernel_size, 3, stride, 1)
        nn.init.zeros_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] to [N, out, ceil(H / stride), ceil(W / stride)]."""
        predicted = self.offset(x)
        third = predicted.shape[1] // 3
        offset, mask = predicted.split((2 * third, third), dim=1)
        stride, dilation = self.stride[0], self.dilation[0]
        padding = dilation * (self.kernel_size[0] - 1) // 2
        return deform_conv2d(
            x, offset, self.weight, self.bias, (stride, stride), (padding, padding), (dilation, dilation), mask.sigmoid()
        )
