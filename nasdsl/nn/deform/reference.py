"""Deformable convolution on `torch.nn.functional.grid_sample`: for every device, every derivative and every export.

It is what exported programs and stand-alone files contain, and what `nasdsl.nn.deform.cpu` is compared with.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
    n, channels, height, width = x.shape
    out_channels, channels_per_group, kh, kw = weight.shape
    out_height, out_width = offset.shape[-2:]
    taps = kh * kw
    offset_groups = offset.shape[1] // (2 * taps)
    groups = channels // channels_per_group
    precise = x.dtype if x.dtype == torch.float64 else torch.float32

    # Where each tap reads, in pixels: its place in the regular grid, plus the offset.
    moved = offset.to(precise).reshape(n * offset_groups, taps, 2, out_height, out_width)
    rows = torch.arange(out_height, device=x.device, dtype=precise) * stride[0] - padding[0]
    columns = torch.arange(out_width, device=x.device, dtype=precise) * stride[1] - padding[1]
    tap_rows = torch.arange(kh, device=x.device, dtype=precise).repeat_interleave(kw) * dilation[0]
    tap_columns = torch.arange(kw, device=x.device, dtype=precise).repeat(kh) * dilation[1]
    y = moved[:, :, 0] + (rows.view(1, 1, -1, 1) + tap_rows.view(1, -1, 1, 1))
    z = moved[:, :, 1] + (columns.view(1, 1, 1, -1) + tap_columns.view(1, -1, 1, 1))
    # grid_sample counts from -1 to 1 over the map; without aligned corners this also holds for maps one pixel wide.
    grid = torch.stack(((z - (width - 1) / 2) * (2 / width), (y - (height - 1) / 2) * (2 / height)), dim=-1)

    sampled = F.grid_sample(
        x.to(precise).reshape(n * offset_groups, channels // offset_groups, height, width),
        grid.view(n * offset_groups, taps * out_height, out_width, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    sampled = sampled.view(n * offset_groups, channels // offset_groups, taps, out_height * out_width)
    if mask is not None:
        sampled = sampled * mask.to(precise).reshape(n * offset_groups, 1, taps, out_height * out_width)

    taken = sampled.to(x.dtype).view(n, groups, channels_per_group * taps, out_height * out_width)
    kernel = weight.reshape(groups, out_channels // groups, channels_per_group * taps)
    if groups == 1:
        out = torch.matmul(kernel[0], taken[:, 0])
    else:
        out = torch.matmul(kernel, taken)
    out = out.view(n, out_channels, out_height, out_width)
    return out if bias is None else out + bias.view(1, -1, 1, 1)
