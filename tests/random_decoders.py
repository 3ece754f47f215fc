"""Random decoders for the tests: index lists as the paper's space has them, and texts that use the rest of the language."""

from __future__ import annotations

import random

from nasdsl.importers.nas_fcos import nas_fcos_text

CHANNELS = {"c2": 24, "c3": 32, "c4": 96, "c5": 320}
"""Widths of the features of the tests' backbone (MobileNetV2's)."""

_DEFINITIONS = """\
op res(x) = add(x, conv_3x3(x))
op halve(x) = pool(x, k=2, stride=2, kind=avg)
op gate(x) = mul(x, sigmoid(global_pool(x, kind=avg)))
op wide(x, k=3, d=1) = conv(x, k=k, dilation=d, norm=norm, act=silu)
agg mix(x, y) = conv_1x1(max(x, y))
agg wsum(x, y) = weighted_add(x, y)
agg fuse(x, y) = conv(concat(x, y), k=3, groups=4)
block cross(a, b) -> (s, t) {
  m = wsum(a, b)
  s = res(m)
  t = cat(resize(m, to=b, mode=nearest), conv_1x1(b))
}

"""
_UNARY = "skip conv_1x1 conv_3x3 sep_3x3 sep_3x3_d3 sep_5x5 sep_5x5_d6 dconv_3x3 res gate wide".split()
_AGGREGATIONS = "sum psum cat mix wsum fuse attend".split()


def nas_fcos_lists(rng: random.Random) -> tuple[list[list[int]], list[int], int]:
    """A sample of the paper's space with at least three unread blocks: fpn, head, share."""
    while True:
        fpn = [
            [rng.randrange(4 + t), rng.randrange(4 + t), rng.randrange(5), rng.randrange(5), rng.randrange(2)] for t in range(7)
        ]
        read = {i for block in fpn for i in block[:2]}
        if sum(4 + t not in read for t in range(7)) >= 3:
            return fpn, [rng.randrange(6) for _ in range(6)], rng.randrange(7)


def paper_text(seed: int, width: int = 32) -> str:
    """The text of a random decoder of the paper's space."""
    fpn, head, share = nas_fcos_lists(random.Random(seed))
    return nas_fcos_text(fpn, head, share, width)


def text(seed: int) -> str:
    """The text of a random decoder that uses what the language has."""
    rng = random.Random(seed)
    width = rng.choice([32, 64])
    names = ["c2", "c3", "c4", "c5"]
    inputs = sorted(rng.sample(names, rng.randint(1, 4)))
    pool = list(inputs)
    lines: list[str] = []

    def unary(x: str) -> str:
        op = rng.choice(_UNARY)
        if op == "wide":
            return f"wide({x}, k={rng.choice([1, 3, 5])}, d={rng.choice([1, 2])})"
        return f"{op}({x})"

    for t in range(1, rng.randint(2, 8)):
        kind = rng.random()
        a, b = rng.choice(pool), rng.choice(pool)
        if kind < 0.6:
            lines.append(f"x{t} = {rng.choice(_AGGREGATIONS)}({unary(a)}, {unary(b)})")
            pool.append(f"x{t}")
        elif kind < 0.75:
            lines.append(f"x{t}, y{t} = cross({a}, {b})")
            pool += [f"x{t}", f"y{t}"]
        elif kind < 0.85:
            lines.append(f"x{t} = {rng.choice(['down', 'down_max', 'halve', 'relu', 'norm'])}({a})")
            pool.append(f"x{t}")
        else:
            lines.append(f"x{t} = {unary(a)}")
            lines.append(f"repeat {rng.randint(1, 3)} {{ x{t} = {rng.choice(_AGGREGATIONS)}(x{t}, {unary(b)}) }}")
            pool.append(f"x{t}")
    outputs = rng.sample(pool, min(len(pool), rng.randint(1, 3)))
    levels = [5, 4, 3][: len(outputs)]
    lines.append("output " + ", ".join(f"p{k} = {v}" for k, v in zip(levels, outputs, strict=True)))
    if rng.random() < 0.7:
        lines.append("merge dangling into " + ", ".join(f"p{k}" for k in levels))
    if rng.random() < 0.7:
        lines.append("output p6 = down(p5), p7 = down(relu(p6))")
    depth = rng.randint(1, 4)
    steps = [rng.choice([*_UNARY[:8], "res", "conv_3x3(bias=true)"]) for _ in range(depth)]
    box = [rng.choice(_UNARY[:8]) for _ in range(rng.randint(1, 4))]
    labelled = rng.random() < 0.4
    if seed % 4 == 1:
        steps[0] += " * 2"
    chain = f"cls: {' -> '.join(steps)} box: {' -> '.join(box)}" if labelled else " -> ".join(steps)
    share = rng.randint(0, max(depth, len(box)) if labelled else depth)
    predict = rng.choice(["fcos(centerness=cls)", "fcos(centerness=box)", "retinanet(anchors=3)"])
    if predict.startswith("fcos") and seed % 2:
        predict = predict.replace(")", ", boxes=relu)")
    if seed % 5 == 2:
        others = ["gfl(bins=3, share=false)", "tal(bins=4)", "atss(kernel=1)", "gfl(bins=2, conv=sep_3x3)"]
        predict = [*others, "tal(bins=1, share=false, conv=dconv_3x3)", "fcos(centerness=none)"][seed // 5 % 6]
    body = "\n".join(f"    {line}" for line in lines)
    named = ["size=96x128", "backbone=resnet50", 'size=64x96, backbone="resnet50_v1.5"']
    detector = f"  detector({named[seed // 3 % 3]})\n" if seed % 3 == 0 else ""
    return (
        f"{_DEFINITIONS}decoder random_{seed} {{\n  input {', '.join(inputs)}\n{detector}"
        f"  fpn(width={width}, norm={rng.choice(['bn', 'gn', 'none'])}, act={rng.choice(['relu', 'silu', 'none'])}) {{\n"
        f"{body}\n  }}\n"
        f"  head(width={width}, norm={rng.choice(['gn', 'bn', 'none'])}, share={share}) {{ {chain} }}\n"
        f"  predict {predict}\n}}\n"
    )
