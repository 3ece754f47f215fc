"""YOLOX and YOLOv8, written once more with layers of torch alone: their pyramids and heads, and their own backbones.

YOLOX follows its paper (arXiv:2107.08430), whose backbone is that of YOLOv5, and YOLOv8 its authors' model file.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_layers import Features, Layers


def conv(net: Layers, x: Tensor, width: int, k: int = 1, stride: int = 1) -> Tensor:
    """Convolution, BatchNorm, SiLU: what both networks are made of."""
    return net.conv(x, width, k, "bn", "silu", stride=stride)


def doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0)


def pools(x: Tensor, *sides: int) -> list[Tensor]:
    return [F.max_pool2d(x, side, 1, side // 2) for side in sides]


# ---------------------------------------------------------------------------------------------------- YOLOX


def csp(net: Layers, x: Tensor, width: int, n: int, shortcut: bool = False) -> Tensor:
    """Cross-stage partial block with n bottlenecks (arXiv:1911.11929)."""
    half = width // 2
    through, around = conv(net, x, half), conv(net, x, half)
    for _ in range(n):
        found = conv(net, conv(net, through, half), half, 3)
        through = through + found if shortcut else found
    return conv(net, torch.cat([through, around], 1), width)


def yolox_backbone(net: Layers, image: Tensor, depth: int = 1) -> dict[str, Tensor]:
    """CSPDarknet; the width of `net` is that of C3."""
    half = net.width // 2
    slices = [image[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
    c1 = conv(net, torch.cat(slices, 1), half // 2, 3)
    c2 = csp(net, conv(net, c1, half, 3, 2), half, depth, shortcut=True)
    c3 = csp(net, conv(net, c2, 2 * half, 3, 2), 2 * half, 3 * depth, shortcut=True)
    c4 = csp(net, conv(net, c3, 4 * half, 3, 2), 4 * half, 3 * depth, shortcut=True)
    x = conv(net, conv(net, c4, 8 * half, 3, 2), 4 * half)
    x = conv(net, torch.cat([x, *pools(x, 5, 9, 13)], 1), 8 * half)
    return {"c3": c3, "c4": c4, "c5": csp(net, x, 8 * half, depth)}


def yolox(net: Layers, features: Features, depth: int = 1) -> list[Tensor]:
    """Pyramid and decoupled head, with predictions that are read as those of FCOS: the logarithms of the sides of a box."""
    w = net.width
    c3, c4, c5 = (features[name] for name in ("c3", "c4", "c5"))
    l5 = conv(net, c5, 2 * w)
    l4 = conv(net, csp(net, torch.cat([doubled(l5), c4], 1), 2 * w, depth), w)
    n3 = csp(net, torch.cat([doubled(l4), c3], 1), w, depth)
    n4 = csp(net, torch.cat([conv(net, n3, w, 3, 2), l4], 1), 2 * w, depth)
    n5 = csp(net, torch.cat([conv(net, n4, 2 * w, 3, 2), l5], 1), 4 * w, depth)
    found = [n3, n4, n5]
    for x in (n3, n4, n5):
        stem = conv(net, x, w)
        classes, boxes = (conv(net, conv(net, stem, w, 3), w, 3) for _ in range(2))
        found += [net.conv(classes, 80), net.conv(boxes, 4).exp(), net.conv(boxes, 1)]
    net.scalars += 3  # FCOS's factors, which YOLOX lacks
    return found


# --------------------------------------------------------------------------------------------------- YOLOv8


def c2f(net: Layers, x: Tensor, width: int, n: int, shortcut: bool = False) -> Tensor:
    """Two halves, and what each of n pairs of convolutions gives, concatenated."""
    parts = list(conv(net, x, width).chunk(2, 1))
    for _ in range(n):
        found = conv(net, conv(net, parts[-1], width // 2, 3), width // 2, 3)
        parts.append(parts[-1] + found if shortcut else found)
    return conv(net, torch.cat(parts, 1), width)


def yolov8_backbone(net: Layers, image: Tensor, depth: int = 1) -> dict[str, Tensor]:
    """Its layers 0 to 9; the width of `net` is that of C3."""
    half = net.width // 2
    c2 = c2f(net, conv(net, conv(net, image, half // 2, 3, 2), half, 3, 2), half, depth, shortcut=True)
    c3 = c2f(net, conv(net, c2, 2 * half, 3, 2), 2 * half, 2 * depth, shortcut=True)
    c4 = c2f(net, conv(net, c3, 4 * half, 3, 2), 4 * half, 2 * depth, shortcut=True)
    c5 = c2f(net, conv(net, c4, 8 * half, 3, 2), 8 * half, depth, shortcut=True)
    parts = [conv(net, c5, 4 * half)]
    for _ in range(3):
        parts += pools(parts[-1], 5)
    return {"c3": c3, "c4": c4, "c5": conv(net, torch.cat(parts, 1), 8 * half)}


def yolov8(net: Layers, features: Features, depth: int = 1) -> list[Tensor]:
    """Its layers 10 to 22, without the numbers 0 to 15 that the distributions are weighted by."""
    w = net.width
    c3, c4, c5 = (features[name] for name in ("c3", "c4", "c5"))
    m4 = c2f(net, torch.cat([doubled(c5), c4], 1), 2 * w, depth)
    n3 = c2f(net, torch.cat([doubled(m4), c3], 1), w, depth)
    n4 = c2f(net, torch.cat([conv(net, n3, w, 3, 2), m4], 1), 2 * w, depth)
    n5 = c2f(net, torch.cat([conv(net, n4, 2 * w, 3, 2), c5], 1), 4 * w, depth)
    found = [n3, n4, n5]
    for x in (n3, n4, n5):
        classes, boxes = (conv(net, conv(net, x, width, 3), width, 3) for width in (max(w, 80), max(w // 4, 64)))
        found += [net.conv(classes, 80), net.conv(boxes, 4 * 16)]
    return found
