"""Modulated deformable convolution (DCNv2): the function, which dispatches to an implementation, and the layer.

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
    """Convolve `x`, with every tap of the kernel moved by its own offset and scaled by a mask.

    Args:
        x: [N, C, H, W].
        offset: [N, 2 * offset_groups * kh * kw, H', W'], in pixels; dy, then dx for each group and tap.
        weight: [O, C / groups, kh, kw].
        bias: [O].
        stride, padding, dilation: (vertical, horizontal).
        mask: [N, offset_groups * kh * kw, H', W'], usually in 0..1.

    Returns:
        [N, O, H', W'], H' = (H + 2 * padding - dilation * (kh - 1) - 1) // stride + 1.

    Values between pixels are interpolated bilinearly; outside of the map they are zero. Positions are computed in float32 or
    better: half precision would round them to half a pixel.
    """
    implementation = reference.deform_conv2d
    if cpu.supports(x, offset, mask, weight, bias):
        implementation = cpu.deform_conv2d
    elif autotune.supports(x, offset, mask, weight, bias):
        implementation = autotune.deform_conv2d
    return implementation(x, offset, weight, bias, stride, padding, dilation, mask)


class GuidedDeformConv2d(nn.Conv2d):
    """A deformable convolution whose offsets and mask are predicted elsewhere.

    Attributes:
        function: computes it, with the interface of `deform_conv2d`.
    """

    function = staticmethod(deform_conv2d)

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

    def forward(self, x: Tensor, predicted: Tensor) -> Tensor:  # type: ignore[override]  # it takes a second map
        """[N, in, H, W] and what is predicted to [N, out, H', W'], with H' = ceil(H / stride).

        Args:
            predicted: [N, 2 * taps, H', W'], offsets, or [N, 3 * taps, H', W'], offsets and mask before its sigmoid; with
                taps = offset_groups * k * k.
        """
        taps = self.offset_groups * self.kernel_size[0] ** 2
        offset, mask = predicted[:, : 2 * taps], predicted[:, 2 * taps :].sigmoid() if predicted.shape[1] > 2 * taps else None
        stride, dilation = self.stride[0], self.dilation[0]
        padding = dilation * (self.kernel_size[0] - 1) // 2
        return self.function(
            x,
            offset,
            self.weight,
            self.bias,
            (stride, stride),
            (padding, padding),
            (dilation, dilation),
            mask,
        )


class DeformConv2d(GuidedDeformConv2d):
    """A deformable convolution that predicts its own offsets and mask.

    ``offset`` is the 3x3 convolution that predicts them: 3 * offset_groups * k * k channels, the last third of which are the
    mask before its sigmoid. It is initialised to zero, so the layer starts as an ordinary convolution with halved weights.
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
        super().__init__(in_channels, out_channels, kernel_size, stride, dilation, groups, offset_groups, bias)
        self.offset = nn.Conv2d(in_channels, 3 * offset_groups * kernel_size * kernel_size, 3, stride, 1)
        nn.init.zeros_(self.offset.weight)
        assert self.offset.bias is not None
        nn.init.zeros_(self.offset.bias)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # it takes one map
        """[N, in, H, W] to [N, out, ceil(H / stride), ceil(W / stride)]."""
        return super().forward(x, self.offset(x))
