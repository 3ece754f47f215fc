"""Layers that lead to finer maps, cut to the size of a level: transposed convolution, pixel shuffle, CARAFE."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class UpConv2d(nn.ConvTranspose2d):
    """A transposed convolution whose result is `stride` times as large, or smaller: it is cut to the size that is asked for.

    Args:
        kernel_size: at least `stride`; padding follows from both.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, groups: int = 1, bias: bool = True
    ) -> None:
        padding = (kernel_size - stride + 1) // 2
        extra = 2 * padding - (kernel_size - stride)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, extra, groups, bias)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:  # type: ignore[override]  # the size is needed
        """[N, in, H, W] to [N, out, *size], size <= stride * (H, W)."""
        assert not isinstance(self.padding, str)
        out = F.conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups)
        return out.narrow(2, 0, size[0]).narrow(3, 0, size[1])


class PixelShuffle(nn.Module):
    """``torch.nn.PixelShuffle``, cut to a size: [N, C * factor^2, H, W] to [N, C, *size].

    Source: "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network",
    arXiv:1609.05158.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        return F.pixel_shuffle(x, self.factor).narrow(2, 0, size[0]).narrow(3, 0, size[1])


class Carafe(nn.Module):
    """Content-aware reassembly of features: each new pixel is a weighted mean of the k x k old ones around it.

    The weights are predicted from the map: a 1x1 convolution, a convolution, a pixel shuffle, a softmax over k * k.

    Source: "CARAFE: Content-Aware ReAssembly of FEatures", arXiv:1905.02188.
    """

    def __init__(self, channels: int, factor: int = 2, k: int = 5, encoder_k: int = 3, compressed: int = 64) -> None:
        super().__init__()
        self.factor, self.k = factor, k
        self.compress = nn.Conv2d(channels, compressed, 1)
        self.encode = nn.Conv2d(compressed, (k * factor) ** 2, encoder_k, padding=(encoder_k - 1) // 2)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """[N, C, H, W] to [N, C, *size], size <= factor * (H, W)."""
        n, channels, height, width = x.shape
        taps, inner = self.k**2, self.factor**2
        # A pixel shuffle keeps the k * k weights of a new pixel together: channel t * factor^2 + s is tap t of new pixel s.
        weights = self.encode(self.compress(x)).view(n, taps, inner, height, width).softmax(dim=1)
        around = F.unfold(x, self.k, padding=(self.k - 1) // 2).view(n, channels, taps, height * width)
        weights = weights.to(x.dtype).view(n, taps, inner, height * width)
        # One product [C, k * k] x [k * k, factor^2] for each old position.
        new = around.permute(0, 3, 1, 2) @ weights.permute(0, 3, 1, 2)  # [N, H * W, C, factor^2]
        new = new.permute(0, 2, 3, 1).reshape(n, channels * inner, height, width)
        return F.pixel_shuffle(new, self.factor).narrow(2, 0, size[0]).narrow(3, 0, size[1])
