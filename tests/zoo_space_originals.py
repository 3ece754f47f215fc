"""Fillings of the zoo's spaces, written once more from their papers with layers of torch alone: pyramids from decisions.

Decisions are counted in the order of the texts, each as the index of its alternative.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from torch_layers import Features, Layers
from zoo_originals import nearest

# ------------------------------------------------------------------------------------------------- OPANAS


def opanas(net: Layers, features: Features, decisions: list[int]) -> list[Tensor]:
    """arXiv:2103.04507, section 3: a densely connected graph of pyramids."""
    paths = [_top_down, _bottom_up, _fuse_split, _equalize, lambda net, xs, edge: xs, lambda net, xs, edge: [x * 0 for x in xs]]
    laterals = [net.conv(features[name], net.width) for name in ("c3", "c4", "c5")]
    top = net.conv(laterals[-1], net.width, 3, stride=2)
    pyramids = [[*laterals, top + net.conv(top, net.width).mean((2, 3), keepdim=True)]]
    left = list(decisions)
    for _ in range(5):
        sources = [paths[left.pop(0)](net, pyramid, len(left)) for pyramid in pyramids]
        pyramids.append([torch.stack(level).sum(0) for level in zip(*sources, strict=True)])
    found = [torch.stack(level).sum(0) for level in zip(*pyramids[1:], strict=True)]
    return [*found, net.conv(found[-1], net.width, 3, stride=2)]


def _top_down(net: Layers, xs: list[Tensor], edge: int) -> list[Tensor]:
    found = [net.conv(xs[-1], net.width, 3)]
    for x in reversed(xs[:-1]):
        found.insert(0, net.conv(x + nearest(found[0], x), net.width, 3))
    return found


def _bottom_up(net: Layers, xs: list[Tensor], edge: int) -> list[Tensor]:
    found = [net.conv(xs[0], net.width, 3)]
    for x in xs[1:]:
        found.append(net.conv(x + F.max_pool2d(found[-1], 2), net.width, 3))
    return found


def _fuse_split(net: Layers, xs: list[Tensor], edge: int) -> list[Tensor]:
    fine = xs[1] + F.max_pool2d(xs[0], 2)
    coarse = xs[2] + nearest(xs[3], xs[2])
    first = net.conv(torch.cat([fine, nearest(coarse, fine)], 1), net.width, 3)
    second = net.conv(torch.cat([F.max_pool2d(fine, 2), coarse], 1), net.width, 3)
    return [nearest(first, xs[0]), first, second, F.max_pool2d(second, 2)]


def _equalize(net: Layers, xs: list[Tensor], edge: int) -> list[Tensor]:
    found = []
    for i, x in enumerate(xs):
        total = net.conv(x, net.width, 3, name=f"own {edge}")
        if i > 0:
            total = total + net.conv(xs[i - 1], net.width, 3, name=f"finer {edge}", stride=2)
        if i < len(xs) - 1:
            total = total + nearest(net.conv(xs[i + 1], net.width, 3, name=f"coarser {edge}"), x)
        found.append(total.relu())
    return found


# ------------------------------------------------------------------------------------------------ Auto-FPN


def auto_fpn(net: Layers, features: Features, decisions: list[int]) -> list[Tensor]:
    """Auto-FPN (ICCV 2019): twice, each level becomes a sum over all levels."""
    pyramid = [net.conv(features[name], net.width, 1, "bn", "relu") for name in ("c3", "c4", "c5")]
    pyramid.append(net.conv(pyramid[-1], net.width, 3, stride=2))
    left = list(decisions)
    for _ in range(2):
        found = []
        for to in range(4):
            parts = []
            for at, x in enumerate(pyramid):
                op = left.pop(0)
                if op == 5:
                    continue
                moved = x if at == to else nearest(x, pyramid[to]) if at > to else F.max_pool2d(x, 2 ** (to - at))
                parts.append(_operation(net, moved, op))
            found.append(torch.stack(parts).sum(0))
        pyramid = found
    return [*pyramid, net.conv(pyramid[-1].relu(), net.width, 3, stride=2)]


def _operation(net: Layers, x: Tensor, op: int) -> Tensor:
    if op == 0:
        return x
    k = (3, 5, 3, 5)[op - 1]
    if op >= 3:
        return net.conv(x, net.width, k, "bn", "relu", dilation=2)
    deep = net.conv(x, net.width, k, bias=False, groups=net.width)
    return net.conv(deep, net.width, 1, "bn", "relu")


# ------------------------------------------------------------------------------------------------ SpineNet


def spine(net: Layers, features: Features, decisions: list[int]) -> list[Tensor]:
    """After arXiv:1912.05027, section 3, where every value is read."""
    inner = [decisions[4 * t : 4 * t + 4] for t in range(5)]  # level, kind of block, two values
    outer = [[level - 2, *decisions[20 + 3 * t : 23 + 3 * t]] for t, level in enumerate(range(3, 8))]
    read = {value for _, _, *values in inner + outer for value in values}
    known = [net.conv(x, net.width, 1, "bn", "relu") if i in read else x for i, x in enumerate(features.values())]
    side = features["c2"].shape[2] * 4
    for level, unit, first, second in inner + outer:
        size = -(-side // 2 ** (level + 2))
        x = F.interpolate(known[first], size=size) + F.interpolate(known[second], size=size)
        if unit == 0:
            within = net.conv(net.conv(x, net.width // 4, 1, "bn", "relu"), net.width // 4, 3, "bn", "relu")
            known.append((x + net.conv(within, net.width, 1, "bn")).relu())
        else:
            known.append((x + net.conv(net.conv(x, net.width, 3, "bn", "relu"), net.width, 3, "bn")).relu())
    return known[-5:]
