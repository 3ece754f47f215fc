"""Decoders of the zoo, written once more from their papers with layers of torch alone, for comparison.

Each gives the maps of the pyramid, finest first, then what the head predicts on one level after the other.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_layers import Features, Layers
from torchvision.ops import deform_conv2d

# ---------------------------------------------------------------------------------------------------- heads


def head(
    net: Layers,
    pyramid: list[Tensor],
    convs: int | tuple[int, int] = 4,
    norm: str | None = None,
    bias: bool | None = None,
    outputs: tuple[int, int] = (9 * 80, 9 * 4),
    centerness: str | None = None,
    boxes: Callable[[Tensor, int], Tensor] | None = None,
    kernel: int = 3,
) -> list[Tensor]:
    """Towers and predictions that all levels share.

    Args:
        convs: layers of the tower for classes, and of that for boxes.
        outputs: channels for classes, and for boxes.
        centerness: the tower that it is read from.
        boxes: of the convolution's output, which a factor of each level has multiplied, and the stride of the level.
        kernel: side of the predictions.
    """
    convs = (convs, convs) if isinstance(convs, int) else convs
    found = list(pyramid)
    for level, x in enumerate(pyramid):
        towers = {}
        for tower, depth in zip(("cls", "box"), convs, strict=True):
            towers[tower] = x
            for number in range(depth):
                towers[tower] = net.conv(towers[tower], x.shape[1], 3, norm, "relu", bias, name=f"{tower} {number}")
        found.append(net.conv(towers["cls"], outputs[0], kernel, name="classes"))
        sides = net.conv(towers["box"], outputs[1], kernel, name="boxes")
        found.append(boxes(sides, 8 << level) if boxes else sides)
        if centerness:
            found.append(net.conv(towers[centerness], 1, kernel, name="centerness"))
    net.scalars += len(pyramid) if boxes else 0
    return found


def fcos_head(net: Layers, pyramid: list[Tensor]) -> list[Tensor]:
    """arXiv:1904.01355, section 3, first version."""
    return head(net, pyramid, 4, "gn", True, (80, 4), "cls", lambda x, stride: x.exp())


def relu_sides(x: Tensor, stride: int) -> Tensor:
    """Sides of a box in pixels (arXiv:1912.02424)."""
    return x.relu() * stride


# ------------------------------------------------------------------------------------------------- pyramids


def nearest(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:])


def bilinear(x: Tensor, like: Tensor, aligned: bool = False) -> Tensor:
    """Bilinear interpolation; `aligned`: with the corners of both maps in one place."""
    if x.is_meta:  # its steps are many, and take long where nothing is computed
        return x.new_empty(*x.shape[:2], *like.shape[2:])
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=aligned)


def laterals(net: Layers, features: Features) -> list[Tensor]:
    return [net.conv(features[name], net.width) for name in ("c3", "c4", "c5")]


def top_down(net: Layers, features: Features) -> list[Tensor]:
    """P3 to P5 of a plain feature pyramid (arXiv:1612.03144)."""
    l3, l4, l5 = laterals(net, features)
    m4 = l4 + nearest(l5, l4)
    m3 = l3 + nearest(m4, l3)
    return [net.conv(x, net.width, 3) for x in (m3, m4, l5)]


def extra(net: Layers, x: Tensor, relu: bool = True) -> list[Tensor]:
    """P6 from `x`, and P7 (arXiv:1708.02002)."""
    p6 = net.conv(x, net.width, 3, stride=2)
    return [p6, net.conv(p6.relu() if relu else p6, net.width, 3, stride=2)]


def five_levels(net: Layers, features: Features, relu: bool = True) -> list[Tensor]:
    """P3 to P7 of a plain feature pyramid, P6 from P5."""
    l3, l4, l5 = laterals(net, features)
    m4 = l4 + nearest(l5, l4)
    m3 = l3 + nearest(m4, l3)
    p5, p4, p3 = (net.conv(x, net.width, 3) for x in (l5, m4, m3))
    return [p3, p4, p5, *extra(net, p5, relu)]


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
    return head(net, [x], (2, 4), "bn", True, (5 * 80, 5 * 4))


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
                total = total + bilinear(coarse, own, aligned=True)
            y.append(net.norm(total, "bn", f"{turn} norm").relu())
        x = y
    return head(net, x, 1, "bn", True)


def atss(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:1912.02424: the network of FCOS's later version."""
    return head(net, five_levels(net, features), 4, "gn", True, (80, 4), "box", relu_sides)


def gfl(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:2006.04388, section 3."""
    return head(net, five_levels(net, features, relu=False), 4, "gn", False, (80, 4 * 17))


def tood(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:2108.07755, section 3.1, without the maps that correct scores and boxes."""
    pyramid = five_levels(net, features, relu=False)
    found = list(pyramid)
    for x in pyramid:
        layers = []
        for number in range(6):
            x = net.conv(x, net.width, 3, "gn", "relu", name=f"layer {number}")
            layers.append(x)
        mean = torch.cat(layers, 1).mean((2, 3), keepdim=True)
        tasks = []
        for task in ("classes", "boxes"):
            hidden = net.conv(mean, net.width // 8, act="relu", name=f"{task} hidden")
            shares = net.conv(hidden, 6, act="sigmoid", name=f"{task} shares")
            weighted = [layer * shares[:, i : i + 1] for i, layer in enumerate(layers)]
            tasks.append(net.conv(torch.cat(weighted, 1), net.width, 1, "gn", "relu", name=f"{task} reduced"))
        found += [net.conv(tasks[0], 80, 3, name="classes"), net.conv(tasks[1], 4 * 17, 3, name="boxes")]
    return found


def guided(net: Layers, x: Tensor, predicted: Tensor, name: str, stride: int = 1) -> Tensor:
    """A modulated deformable convolution of 3x3, with offsets and mask of another map, and GroupNorm of 16 groups."""
    kernel = net.use(nn.Conv2d, x.shape[1], net.width, 3, stride, 1, like=x, name=name)
    if x.is_meta:  # torch counts no deformable convolutions; its own costs what a plain one does
        x = kernel(x)
    else:
        weight, bias = kernel.get_parameter("weight"), kernel.get_parameter("bias")
        x = deform_conv2d(x, predicted[:, :18], weight, bias, stride, 1, mask=predicted[:, 18:].sigmoid())
    return net.norm(x, "gn16", f"{name}.norm")


def dyhead(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:2106.08322, section 3, and its published code; offsets for the kernel of the coarser level are resized."""

    def hard_sigmoid(x: Tensor) -> Tensor:
        return F.relu6(x + 3) / 6

    def scaled(x: Tensor, block: int) -> Tensor:
        return x * hard_sigmoid(net.conv(x.mean((2, 3), keepdim=True), 1, act="relu", name=f"{block} scale"))

    levels = five_levels(net, features)
    for block in range(6):
        found = {}
        for i in (1, 2, 3, 0, 4):  # first a level with two neighbours, so that kernels are made in the order of the text
            own = levels[i]
            predicted = net.conv(own, 27, 3, name=f"{block} offsets")
            seen = [scaled(guided(net, own, predicted, f"{block} own"), block)]
            if i > 0:
                seen.append(scaled(guided(net, levels[i - 1], predicted, f"{block} finer", 2), block))
            if i < 4:
                above = guided(net, levels[i + 1], bilinear(predicted, levels[i + 1]), f"{block} coarser")
                seen.append(scaled(bilinear(above, own, aligned=True), block))
            x = torch.stack(seen).mean(0)
            hidden = net.conv(x.mean((2, 3), keepdim=True), net.width // 4, act="relu", name=f"{block} hidden")
            a1, b1, a2, b2 = (hard_sigmoid(net.conv(hidden, 4 * net.width, name=f"{block} lines")) - 0.5).chunk(4, 1)
            found[i] = torch.maximum(x * (2 * a1 + 1) + b1, x * 2 * a2 + b2)
        levels = [found[i] for i in range(5)]
    return head(net, levels, 0, outputs=(80, 4), centerness="box", boxes=relu_sides, kernel=1)


class FastFusion(nn.Module):
    """A weighted mean whose weights are learned, not negative, and divided by their sum."""

    def __init__(self, operands: int, device: torch.device) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(operands, device=device))

    def forward(self, xs: list[Tensor]) -> Tensor:
        weight = self.weight.relu()
        return (torch.stack(xs, -1) @ weight) / (weight.sum() + 1e-4)


def efficientdet_d0(net: Layers, features: Features) -> list[Tensor]:
    """arXiv:1911.09070, sections 3 and 4."""

    def separable(x: Tensor, width: int, name: str | None = None) -> Tensor:
        x = net.conv(x, x.shape[1], 3, bias=False, name=name and f"{name} depthwise", groups=x.shape[1])
        return net.conv(x, width, name=name and f"{name} pointwise")

    def lateral(name: str) -> Tensor:
        return net.conv(features[name], net.width, 1, "bn", bias=True)

    def fused(*xs: Tensor) -> Tensor:
        return net.norm(separable(F.silu(net.use(FastFusion, len(xs), like=xs[0])(list(xs))), net.width), "bn")

    def pooled(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, 1)

    p3, p4, p5, p6 = (lateral(name) for name in ("c3", "c4", "c5", "c5"))
    p6 = pooled(p6)
    p7 = pooled(p6)
    r4, r5 = lateral("c4"), lateral("c5")
    for _ in range(3):
        t6 = fused(p6, nearest(p7, p6))
        t5 = fused(p5, nearest(t6, p5))
        t4 = fused(p4, nearest(t5, p4))
        p3 = fused(p3, nearest(t4, p3))
        p4 = fused(r4, t4, pooled(p3))
        p5 = fused(r5, t5, pooled(p4))
        p6 = fused(p6, t6, pooled(p5))
        p7 = fused(p7, pooled(p6))
        r4, r5 = p4, p5
    found = [p3, p4, p5, p6, p7]
    for level, x in enumerate(list(found)):
        towers = []
        for task in ("classes", "boxes"):
            tower = x
            for number in range(3):
                layer = separable(tower, net.width, f"{task} {number}")
                tower = F.silu(net.norm(layer, "bn", f"{task} {number} of level {level}"))
            towers.append(tower)
        found += [separable(towers[0], 9 * 80, "classes"), separable(towers[1], 9 * 4, "boxes")]
    return found
