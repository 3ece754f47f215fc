"""Random decoders for the tests: index lists as the paper's space has them, and texts that use the rest of the language."""

from __future__ import annotations

import random
import re

from nasdsl.importers.nas_fcos import nas_fcos_text

CHANNELS = {"c2": 24, "c3": 32, "c4": 96, "c5": 320}
"""Widths of the features of the tests' backbone (MobileNetV2's)."""

_DEFINITIONS = """\
op res(x) = add(x, conv_3x3(x))
op halve(x) = pool(x, k=2, stride=2, kind=avg)
op gate(x) = mul(x, sigmoid(global_pool(x, kind=avg)))
op dw(x, g=in) = conv(x, k=3, groups=g, width=in, norm=none)
op wide(x, k=3, d=1) = conv(x, k=k, dilation=d, norm=norm, act=silu)
agg mix(x, y) = conv_1x1(max(x, y))
agg some(x, y) = add(x, none(y), none)
agg wsum(x, y) = weighted_add(x, y)
op deconv(x, k=2) = up_conv(x, k=k)
op rearrange(x) = conv_1x1(pixel_shuffle(conv_1x1(x, width=width * 4)))
op reassemble(x) = carafe(x, k=3, compressed=8)
op encoder(x) = norm(add(x, attention(x, heads=4)), norm=ln)
op bounce(x) = deconv(down(x), k=3)
op return_(x) = reassemble(down_max(x))
agg fuse(x, y) = conv(concat(x, y), k=3, groups=4)
block cross(a, b, n=0, unit=conv_3x3) -> (s, t) {
  m = wsum(a, b)
  repeat n { m = sum(m, unit(m)) }
  s = res(m)
  t = cat(resize(m, to=b, mode=nearest), conv_1x1(b))
}
block paired(a, b) -> (s, t) {
  shared f(x, y) = wsum(x, conv_3x3(y))
  s = f(a, b)
  t = conv_1x1(f(f(b, a), s))
}

"""
_SHARED = ["conv_3x3(x)", "res(sep_3x3(x))", "dconv_3x3(x)", "add(wide(x, k=1), halve(wide(x)))"]
_SMALL = [
    "u{n}, v{n} = split({a}) s{n} = conv_1x1(concat(v{n}, relu(u{n})))",
    "s{n} = mul({a}, 0.2)",
    "s{n} = conv_1x1(dw(conv_3x3({a}, width=96)))",
    "s{n} = dw(deform_conv({a}, groups=in), g=in)",
    "w{n} = conv({b}, k=3, width=2, norm=none) s{n} = weighted_add({a}, {b}, by=w{n})",
    "s{n} = mul({a}, sigmoid(conv({b}, k=3, width=1, norm=none, act=none)))",
    "w{n} = conv({b}, k=1, width=1, norm=none) s{n} = {fold}(w{n}, {a}, w{n})",
    "let f = 0.5 s{n} = add({a}, mul({b}, f * -3, sigmoid({a})))",
    "s{n} = mul({a}, add(mul(hardsigmoid(conv({b}, k=1, width=1, norm=none, act=none)), -2), 1.5, {b}))",
    "s{n} = norm(sum(resize(norm({a}, norm=gn8), to={b}, mode=aligned), {b}), norm=gn4)",
    "q{n}, r{n}, u{n}, v{n} = split({a}, parts=4) s{n} = cat(concat(u{n}, q{n}, r{n}, v{n}), {b})",
]
"""Statements that bind s{n}, a value of the section's width."""

_UNARY = "skip conv_1x1 conv_3x3 sep_3x3 sep_3x3_d3 sep_5x5 sep_5x5_d6 dconv_3x3 res gate wide".split()
_FINER = ["deconv({})", "deconv({}, k=3)", "up_conv({}, k=4, groups=4)", "up_conv({}, k=5, stride=4, norm=none, bias=false)",
          "rearrange({})", "reassemble({})", "carafe({}, factor=4, k=1, encoder_k=1, compressed=4)"]  # fmt: skip
_IN_HEAD = "bounce return_ encoder".split()
_AT_ANY_WIDTH = ["conv_3x3", "conv_1x1", "dw", "gate", "norm", "relu", "dconv_3x3", "conv(k=3, width=in, groups=4)"]
"""Layers of a head on levels of different widths."""

_AGGREGATIONS = "sum psum cat mix wsum fuse attend some".split()


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
    shares = seed % 3 == 1
    lines: list[str] = []
    if shares:
        lines += [f"shared tie(x) = {_SHARED[seed // 3 % 4]}", "shared crossed(x, y) = cross(tie(x), y)"]

    def unary(x: str) -> str:
        op = rng.choice(_UNARY)
        if shares and op in ("conv_1x1", "conv_3x3", "res"):
            op = "tie"
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
            settings = rng.choice(["", ", n=1", ", n=2, unit=res", ", n=1, unit=relu"])
            called = f"{('crossed', 'paired')[t % 2]}({a}, {b})" if shares else f"cross({a}, {b}{settings})"
            lines.append(f"x{t}, y{t} = {called}")
            pool += [f"x{t}", f"y{t}"]
        elif kind < 0.85:
            lines.append(f"x{t} = {rng.choice(['down', 'down_max', 'halve', 'relu', 'norm'])}({a})")
            pool.append(f"x{t}")
        else:
            lines.append(f"x{t} = {unary(a)}")
            lines.append(f"repeat {rng.randint(1, 3)} {{ x{t} = {rng.choice(_AGGREGATIONS)}(x{t}, {unary(b)}) }}")
            pool.append(f"x{t}")
    more = random.Random(f"more {seed}")
    for n in range(more.randint(0, 2)):
        names = {"a": more.choice(pool), "b": more.choice(pool), "fold": more.choice(["add", "max", "weighted_add"])}
        lines.append(more.choice(_SMALL).format(n=n, **names))
        pool.append(f"s{n}")
    if seed % 4 == 1:
        lines += _finer(random.Random(f"finer {seed}"), pool)
    outputs = rng.sample(pool, min(len(pool), rng.randint(1, 3)))
    levels = [5, 4, 3][: len(outputs)]
    differ = random.Random(f"widths {seed}") if seed % 7 == 3 else None  # levels of different widths
    if differ is not None:
        outputs = [f"conv_1x1({v}, width={width * differ.randint(1, 3)})" for v in outputs]
    lines.append("output " + ", ".join(f"p{k} = {v}" for k, v in zip(levels, outputs, strict=True)))
    if rng.random() < 0.7 and differ is None:
        lines.append("merge dangling into " + ", ".join(f"p{k}" for k in levels))
    if rng.random() < 0.7:
        lines.append("output p6 = down(p5), p7 = down(relu(p6))")
    depth = rng.randint(1, 4)
    steps = [rng.choice([*_UNARY[:8], "res", "conv_3x3(bias=true)"]) for _ in range(depth)]
    box = [rng.choice(_UNARY[:8]) for _ in range(rng.randint(1, 4))]
    labelled = rng.random() < 0.4
    if seed % 15 == 2:
        steps.append(_IN_HEAD[seed // 15 % 3])
    if seed % 4 == 1:
        steps[0] += " * 2"
    chain = f"cls: {' -> '.join(steps)} box: {' -> '.join(box)}" if labelled else " -> ".join(steps)
    share = rng.randint(0, max(depth, len(box)) if labelled else depth)
    if seed % 5 == 2:  # a trunk, from which the box tower may go straight on to its predictions
        chain = f"both: conv_3x3 -> res {chain if labelled else f'cls: {chain}'}"
        share += seed % 3
    norms = ", norms=level" if seed % 5 in (2, 3) else ""
    predict = rng.choice(["fcos(centerness=cls)", "fcos(centerness=box)", "retinanet(anchors=3)"])
    if predict.startswith("fcos") and seed % 2:
        predict = predict.replace(")", ", boxes=relu)")
    if seed % 5 == 2:
        others = ["gfl(bins=3, share=false)", "tal(bins=4)", "atss(kernel=1)", "gfl(bins=2, conv=sep_3x3)"]
        predict = [*others, "tal(bins=1, share=false, conv=dconv_3x3)", "fcos(centerness=none)"][seed // 5 % 6]
    if differ is not None:
        chains = {name: differ.choices(_AT_ANY_WIDTH, k=differ.randint(1, 3)) for name in ("both", "cls", "box")}
        if differ.random() < 0.5:
            chains["both"] = []
        chain = " ".join(f"{name}: {' -> '.join(steps)}" for name, steps in chains.items() if steps)
        share = len(chains["both"]) + max(len(chains["cls"]), len(chains["box"]))
        predict = re.sub(r"\)$", ", share=false)", predict.replace(", share=false", "").replace(", conv=sep_3x3", ""))
    body = "\n".join(f"    {line}" for line in lines)
    named = ["size=96x128", "backbone=resnet50", 'size=64x96, backbone="resnet50_v1.5"']
    detector = f"  detector({named[seed // 3 % 3]})\n" if seed % 3 == 0 else ""
    made = (
        f"{_DEFINITIONS}decoder random_{seed} {{\n  input {', '.join(inputs)}\n{detector}"
        f"  fpn(width={width}, norm={rng.choice(['bn', 'gn', 'none'])}, act={rng.choice(['relu', 'silu', 'none'])}) {{\n"
        f"{body}\n  }}\n"
        f"  head(width={width}, norm={rng.choice(['gn', 'bn', 'none'])}, share={share}{norms}) {{ {chain} }}\n"
        f"  predict {predict}\n}}\n"
    )
    return re.sub(r"(fpn\(width=\d+, norm=)\w+", r"\1ln", made) if seed % 8 == 6 else made


def _finer(rng: random.Random, pool: list[str]) -> list[str]:
    """Statements with layers that lead to finer maps, with attention and given offsets; only `merge` reads what they bind."""
    finer = rng.choice(_FINER).format(rng.choice(pool))
    attended = f"encoder(down_max({rng.choice(pool)}, stride=4))"
    offsets = rng.choice([36, 54])  # without and with a mask
    return [
        f"f0 = conv({rng.choice(pool)}, k=3, width={offsets}, norm=none, act=none)",
        f"f3 = deform_conv(resize({rng.choice(pool)}, to=f0), offset=f0, offset_groups=2)",
        f"f1 = {finer}",
        f"f2 = sum(attention({attended}, heads=2, position=none), down_max(f1, stride=8))",
    ]
