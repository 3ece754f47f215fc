"""Decoders of the zoo, written once more from their papers with layers of torch alone, for comparison.

Each gives the maps of the pyramid, finest first, then what the head predicts on one level after the other.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_layers import Features, Layers

# ---------------------------------------------------------------------------------------------------- heads


def head(
    net: Layers,
    pyramid: list[Tensor],
    convs: int | tuple[int, int] = 4,
    norm: str | None = None,
    anchors: int = 9,
    bias: bool | None = None,
    classes: int = 80,
) -> list[Tensor]:
    """Towers and 3x3 predictions that all levels share; without anchors there is a centerness beside the classes (FCOS)."""
    convs = (convs, convs) if isinstance(convs, int) else convs
    found = list(pyramid)
    for x in pyramid:
        towers = {}
        for tower, depth in zip(("cls", "box"), convs, strict=True):
            towers[tower] = x
            for number in range(depth):
                towers[tower] = net.conv(towers[tower], x.shape[1], 3, norm, "relu", bias, name=f"{tower} {number}")
        scores = net.conv(towers["cls"], max(anchors, 1) * classes, 3, name="classes")
        sides = net.conv(towers["box"], max(anchors, 1) * 4, 3, name="boxes")
        found += [scores, sides if anchors else sides.exp()]
        if not anchors:
            found.append(net.conv(towers["cls"], 1, 3, name="centerness"))
    if not anchors:
        net.scalars += len(pyramid)  # a learnable factor of each level, which is 1 here
    return found


def fcos_head(net: Layers, pyramid: list[Tensor]) -> list[Tensor]:
    return head(net, pyramid, norm="gn", anchors=0, bias=True)


# ------------------------------------------------------------------------------------------------- pyramids


def nearest(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:])


def laterals(net: Layers, features: Features) -> list[Tensor]:
    return [net.conv(features[name], net.width) for name in ("c3", "c4", "c5")]


def top_down(net: Layers, features: Features) -> list[Tensor]:
    """P3 to P5 of a plain feature pyramid (arXiv:1612.03144)."""
    l3, l4, l5 = laterals(net, features)
    m4 = l4 + nearest(l5, l4)
    m3 = l3 + nearest(m4, l3)
    return [net.conv(x, net.width, 3) for x in (m3, m4, l5)]


def extra(net: Layers, x: Tensor) -> list[Tensor]:
    """P6 from `x`, and P7 (arXiv:1708.02002)."""
    p6 = net.conv(x, net.width, 3, stride=2)
    return [p6, net.conv(p6.relu(), net.width, 3, stride=2)]


def carafe(net: Layers, x: Tensor, k: int = 5, compressed: int = 64) -> Tensor:
    """Content-aware reassembly to twice the size, new pixel by new pixel (arXiv:1905.02188, section 3)."""
    n, c, h, w = x.shape
    kernels = net.conv(net.conv(x, compressed), (2 * k) ** 2, 3)
    kernels = F.pixel_shuffle(kernels, 2).softmax(1)  # [N, k * k, 2H, 2W]
    windows = F.unfold(x, k, padding=k // 2).view(n, c, k * k, h, w)
    if x.is_meta:  # as the paper counts: each weight of each new pixel times each channel
        torch.mm(x.new_empty(c, k * k), x.new_empty(k * k, 4 * h * w))
        return x.new_empty(n, c, 2 * h, 2 * w)
    grown = windows.repeat_interleave(2, 3).repeat_interleave(2, 4)
    return (grown * kernels[:, None]).sum(2)


def carafe_fpn(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:1905.02188, section 4.1."""
    l3, l4, l5 = laterals(net, features)
    m4 = l4 + carafe(net, l5)
    m3 = l3 + carafe(net, m4)
    p5, p4, p3 = (net.conv(x, net.width, 3) for x in (l5, m4, m3))
    return fcos_head(net, [p3, p4, p5, *extra(net, p5)])


def panet(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:1803.01534, section 3.1: all convolutions of the path up have a ReLU."""
    l3, l4, l5 = laterals(net, features)
    m4 = l4 + nearest(l5, l4)
    m3 = l3 + nearest(m4, l3)
    path = [net.conv(m3, net.width, 3)]
    for m in (m4, l5):
        p = net.conv(m, net.width, 3)
        path.append(net.conv(p + net.conv(path[-1], net.width, 3, act="relu", stride=2), net.width, 3, act="relu"))
    return fcos_head(net, [*path, *extra(net, path[-1])])


def asff(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:1911.09516, section 3."""

    def halved(x: Tensor) -> Tensor:
        return net.conv(x, net.width, 3, "bn", "relu", stride=2)

    def fused(*xs: Tensor) -> Tensor:
        hidden = torch.cat([net.conv(x, 16, 1, "bn", "relu") for x in xs], 1)
        shares = net.conv(hidden, 3).softmax(1)
        return sum((x * shares[:, i : i + 1] for i, x in enumerate(xs)), torch.zeros_like(xs[0]))

    n3, n4, n5 = top_down(net, features)
    p5 = fused(n5, halved(n4), halved(F.max_pool2d(n3, 3, 2, 1)))
    p4 = fused(nearest(n5, n4), n4, halved(n3))
    p3 = fused(nearest(n5, n3), nearest(n4, n3), n3)
    return head(net, [p3, p4, p5, *extra(net, features["c5"])])


def bfp(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:1904.02701, section 3.2, with the embedded Gaussian block of arXiv:1711.07971, section 3.2."""
    levels = [*top_down(net, features), *extra(net, features["c5"])]
    size = levels[1].shape[2:]
    gathered = [F.adaptive_max_pool2d(levels[0], size), *(F.interpolate(x, size=size) for x in levels[1:])]
    mean = torch.stack(gathered).mean(0)
    theta, phi, g = (net.conv(mean, net.width).flatten(2) for _ in range(3))
    theta = theta / net.width**0.5  # what the weights of the queries are larger by here
    seen = torch.matmul(torch.matmul(theta.transpose(1, 2), phi).softmax(-1), g.transpose(1, 2))
    refined = mean + net.conv(seen.transpose(1, 2).reshape(mean.shape), net.width)
    back = [nearest(refined, levels[0]), *(F.adaptive_max_pool2d(refined, x.shape[2:]) for x in levels[1:])]
    return head(net, [x + y for x, y in zip(levels, back, strict=True)])


def hrfpn(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:1904.04514, section 3 (HRNetV2p)."""
    size = features["c2"].shape[2:]
    grown = [F.interpolate(x, size=size, mode="bilinear") for x in features.values()]
    x = net.conv(torch.cat(grown, 1), net.width)
    return fcos_head(net, [net.conv(F.avg_pool2d(x, 2**i), net.width, 3, stride=2) for i in range(5)])


def yolof(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:2103.09460, section 4; without the objectness."""
    x = net.conv(net.conv(features["c5"], net.width, 1, "bn", bias=True), net.width, 3, "bn", bias=True)
    for dilation in (2, 4, 6, 8):
        inner = net.conv(net.conv(x, net.width // 4, 1, "bn", "relu"), net.width // 4, 3, "bn", "relu", dilation=dilation)
        x = x + net.conv(inner, net.width, 1, "bn", "relu")
    return head(net, [x], (2, 4), "bn", anchors=5, bias=True)


def sine_embedding(x: Tensor) -> Tensor:
    """Sines and cosines of column and row, [1, H * W, C] (arXiv:2304.08069)."""
    height, width = x.shape[2:]
    quarter = x.shape[1] // 4
    omega = 1 / 10000 ** (torch.arange(quarter) / quarter)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    parts = [side.flatten()[:, None] * omega for side in (columns, rows)]
    return torch.cat([f(part) for part in parts for f in (torch.sin, torch.cos)], 1)[None].to(x.device)


def rtdetr(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:2304.08069, section 4.2; RepVGG blocks as for inference."""
    c3, c4, c5 = (features[name] for name in ("c3", "c4", "c5"))
    x = net.conv(c5, net.width, 1, "bn")
    n, c, h, w = x.shape
    tokens = x.flatten(2).transpose(1, 2)
    placed = tokens + sine_embedding(x)
    query, key, value = (net.linear(source, c).view(n, h * w, 8, c // 8).transpose(1, 2) for source in (placed, placed, tokens))
    weights = torch.matmul(query, key.transpose(2, 3)).div((c // 8) ** 0.5).softmax(-1)
    tokens = net.norm(tokens + net.linear(torch.matmul(weights, value).transpose(1, 2).reshape(n, h * w, c), c), "ln")
    tokens = net.norm(tokens + net.linear(F.gelu(net.linear(tokens, 4 * c)), c), "ln")
    f5 = tokens.transpose(1, 2).reshape(n, c, h, w)

    def fused(coarse: Tensor, fine: Tensor) -> Tensor:
        both = torch.cat([coarse, fine], 1)
        a = net.conv(both, net.width, 1, "bn", "silu")
        for _ in range(3):
            a = net.conv(a, net.width, 3, act="silu")
        return a + net.conv(both, net.width, 1, "bn", "silu")

    f4 = net.conv(c4, net.width, 1, "bn")
    f3 = net.conv(c3, net.width, 1, "bn")
    l5 = net.conv(f5, net.width, 1, "bn", "silu")
    l4 = net.conv(fused(nearest(l5, f4), f4), net.width, 1, "bn", "silu")
    n3 = fused(nearest(l4, f3), f3)
    n4 = fused(net.conv(n3, net.width, 3, "bn", "silu", stride=2), l4)
    n5 = fused(net.conv(n4, net.width, 3, "bn", "silu", stride=2), l5)
    return fcos_head(net, [n3, n4, n5])


def sepc(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:2005.03101, section 3: at each level the sum of three kernels, of the level above, its own, and below."""
    x = [*top_down(net, features), *extra(net, features["c5"])]
    for turn in range(4):
        y = []
        for i, own in enumerate(x):
            total = net.conv(own, net.width, 3, name=f"{turn} own")
            if i > 0:
                total = total + net.conv(x[i - 1], net.width, 3, name=f"{turn} finer", stride=2)
            if i < len(x) - 1:
                coarse = net.conv(x[i + 1], net.width, 3, name=f"{turn} coarse")
                total = total + F.interpolate(coarse, size=own.shape[2:], mode="bilinear")
            y.append(net.norm(total, "bn", f"{turn} norm").relu())
        x = y
    return head(net, x, 1, "bn", bias=True)
