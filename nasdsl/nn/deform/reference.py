"""Reference implementation of deformable convolution, on `torch.nn.functional.grid_sample`.

It runs on every device, supports derivatives of any order and every exporter: exported programs and emitted stand-alone sources
contain it. The other implementations are tested against it.
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
    n, channels, height, width = x.shape
    out_channels, channels_per_group, kh, kw = weight.shape
    out_height, out_width = offset.shape[-2:]
    taps = kh * kw
    offset_groups = offset.shape[1] // (2 * taps)
    groups = channels // channels_per_group
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32

    # Sampling positions in pixels: the regular grid plus the offsets.
    offsets = offset.to(dtype).reshape(n * offset_groups, taps, 2, out_height, out_width)
    rows = torch.arange(out_height, device=x.device, dtype=dtype) * stride[0] - padding[0]
    columns = torch.arange(out_width, device=x.device, dtype=dtype) * stride[1] - padding[1]
    tap_rows = torch.arange(kh, device=x.device, dtype=dtype).repeat_interleave(kw) * dilation[0]
    tap_columns = torch.arange(kw, device=x.device, dtype=dtype).repeat(kh) * dilation[1]
    y_position = offsets[:, :, 0] + (rows.view(1, 1, -1, 1) + tap_rows.view(1, -1, 1, 1))
    x_position = offsets[:, :, 1] + (columns.view(1, 1, 1, -1) + tap_columns.view(1, -1, 1, 1))
    # grid_sample's coordinates are -1..1 over the map; with align_corners=False this also holds for maps one pixel wide.
    grid = torch.stack(((x_position - (width - 1) / 2) * (2 / width), (y_position - (height - 1) / 2) * (2 / height)), dim=-1)

    sampled = F.grid_sample(
        x.to(dtype).reshape(n * offset_groups, channels // offset_groups, height, width),
        grid.view(n * offset_groups, taps * out_height, out_width, 2),
        mode="bilinear",
        padding_mode="zeros",
        align_corners=False,
    )
    sampled = sampled.view(n * offset_groups, channels // offset_groups, taps, out_height * out_width)
    if mask is not None:
        sampled = sampled * mask.to(dtype).reshape(n * offset_groups, 1, taps, out_height * out_width)

    patches = sampled.to(x.dtype).view(n, groups, channels_per_group * taps, out_height * out_width)
    kernel = weight.reshape(groups, out_channels // groups, channels_per_group * taps)
    if groups == 1:
        out = torch.matmul(kernel[0], patches[:, 0])
    else:
        out = torch.matmul(kernel, patches)
    out = out.view(n, out_channels, out_height, out_width)
    return out if bias is None else out + bias.view(1, -1, 1, 1)
