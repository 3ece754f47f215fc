"""The digest over 2,000 random decoders: what it must not see, and that equal digests mean equal outputs."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, replace

import name_free_weights
import pytest
import torch

import nasdsl

COUNT = 2000
CHANNELS = {"c3": 8, "c4": 16, "c5": 24}
COMMUTATIVE = ("sum", "psum", "peak", "wsum")
AGGREGATIONS = (*COMMUTATIVE, "cat", "fuse")
OPS = ("skip", "conv_1x1", "sep_3x3", "dconv_3x3", "relu", "norm")
DEFINITIONS = """\
agg peak(x, y) = max(x, y)
agg wsum(x, y) = weighted_add(x, y)
agg fuse(x, y) = conv_1x1(concat(x, y))
"""


@dataclass(frozen=True)
class Block:
    name: str
    agg: str
    operands: tuple[tuple[str, str], tuple[str, str]]  # (op, value) twice


@dataclass(frozen=True)
class Sketch:
    """A small decoder, so that different draws often mean the same."""

    blocks: tuple[Block, ...]
    outputs: tuple[str, str]
    merge: bool
    head: tuple[str, ...]
    share: int
    definitions: str = DEFINITIONS

    def text(self) -> str:
        lines = [f"{b.name} = {b.agg}({', '.join(f'{op}({v})' for op, v in b.operands)})" for b in self.blocks]
        merge = "merge dangling into p3, p5" if self.merge else ""
        return (
            f"{self.definitions}decoder d {{ input c3, c4, c5 fpn(width=32, norm=bn) {{ {'; '.join(lines)};"
            f" output p3 = {self.outputs[0]}, p5 = {self.outputs[1]}; {merge} }}"
            f" head(width=32, norm=gn, share={self.share}) {{ {' -> '.join(self.head)} }} predict fcos() }}"
        )


def sketch(rng: random.Random) -> Sketch:
    pool = ["c3", "c4", "c5"]
    blocks = []
    for t in range(rng.randint(1, 4)):
        operands = ((rng.choice(OPS), rng.choice(pool)), (rng.choice(OPS), rng.choice(pool)))
        blocks.append(Block(f"x{t}", rng.choice(AGGREGATIONS), operands))
        pool.append(f"x{t}")
    names = [b.name for b in blocks]
    head = tuple(rng.choice(("conv_1x1", "skip", "sep_3x3")) for _ in range(rng.randint(1, 3)))
    return Sketch(tuple(blocks), (rng.choice(names), rng.choice(names)), rng.random() < 0.5, head, rng.randint(0, len(head)))


def rewrite(made: Sketch, rng: random.Random) -> Sketch:
    """The same decoder, written otherwise: renamed, reordered, operands swapped, skips put in, dead blocks added."""
    blocks = list(made.blocks)
    for at, block in enumerate(blocks):
        if block.agg in COMMUTATIVE and rng.random() < 0.5:
            blocks[at] = replace(block, operands=(block.operands[1], block.operands[0]))
    ready, order = {"c3", "c4", "c5"}, []
    while len(order) < len(blocks):  # any order in which operands come first
        block = rng.choice([b for b in blocks if b not in order and {v for _, v in b.operands} <= ready])
        order.append(block)
        ready.add(block.name)
    if not made.merge and rng.random() < 0.5:
        order.insert(rng.randint(0, len(order)), Block("unread", "cat", (("dconv_3x3", "c3"), ("skip", "c5"))))
    names = {b.name: f"v{n}" for n, b in enumerate(rng.sample(order, len(order)))}
    definitions = made.definitions
    if rng.random() < 0.5:
        definitions = "op again(x) = skip(skip(x))\n" + definitions
        order = [
            replace(b, operands=tuple((f"again({op}" if rng.random() < 0.3 else op, v) for op, v in b.operands)) for b in order
        ]
    renamed = tuple(Block(names[b.name], b.agg, tuple((op, names.get(v, v)) for op, v in b.operands)) for b in order)
    outputs = (names[made.outputs[0]], names[made.outputs[1]])
    place = rng.randint(0, len(made.head))
    head = (*made.head[:place], "skip", *made.head[place:])
    return Sketch(renamed, outputs, made.merge, head, made.share + (place < made.share), definitions)


def text_of(made: Sketch) -> str:
    """`again(op(x)` stands for ``again(op(x))``: the bracket that `rewrite` opened is closed here."""
    text = made.text()
    for op in OPS:
        for value in {v for b in made.blocks for _, v in b.operands}:
            text = text.replace(f"again({op}({value})", f"again({op}({value}))")
    return text


def outputs_of(decoder: nasdsl.Decoder) -> torch.Tensor:
    module = decoder.build(CHANNELS, 3).eval()
    name_free_weights.set_weights(module)
    with torch.no_grad():
        predictions = module(name_free_weights.features((64, 96), CHANNELS))
    return torch.cat([t.flatten() for p in predictions.values() for t in p if t is not None])


@pytest.mark.long
def test_rewriting_leaves_the_digest() -> None:
    rng = random.Random(0)
    for _ in range(COUNT):
        made = sketch(rng)
        again = rewrite(made, rng)
        one, two = nasdsl.loads(made.text()), nasdsl.loads(text_of(again))
        assert one.digest == two.digest, (made.text(), text_of(again))


@pytest.mark.long
def test_equal_digests_mean_equal_outputs() -> None:
    rng = random.Random(1)
    groups: dict[str, list[nasdsl.Decoder]] = defaultdict(list)
    for _ in range(COUNT // 2):
        made = sketch(rng)
        for text in (made.text(), text_of(rewrite(made, rng))):
            decoder = nasdsl.loads(text)
            groups[decoder.digest].append(decoder)
    shared = [group for group in groups.values() if len(group) > 1]
    assert len(shared) >= COUNT // 4
    for group in shared:
        expected = outputs_of(group[0])
        for other in group[1:]:
            assert torch.allclose(outputs_of(other), expected, rtol=1e-4, atol=1e-5), (group[0].source.text, other.source.text)


@pytest.mark.long
def test_different_outputs_mean_different_digests() -> None:
    """One small change at a time; where the numbers differ, so must the digest."""
    rng = random.Random(2)
    differing = 0
    for _ in range(COUNT // 4):
        made = sketch(rng)
        at = rng.randrange(len(made.blocks))
        block = made.blocks[at]
        changed = rng.choice(
            [
                replace(block, agg=rng.choice(AGGREGATIONS)),
                replace(block, operands=(block.operands[0], (rng.choice(OPS), block.operands[1][1]))),
                replace(block, operands=((block.operands[0][0], rng.choice(["c3", "c4", "c5"])), block.operands[1])),
            ]
        )
        other = replace(made, blocks=(*made.blocks[:at], changed, *made.blocks[at + 1 :]))
        one, two = nasdsl.loads(made.text()), nasdsl.loads(other.text())
        a, b = outputs_of(one), outputs_of(two)
        if not torch.allclose(a, b, rtol=1e-3, atol=1e-4):
            differing += 1
            assert one.digest != two.digest, (made.text(), other.text())
    assert differing >= COUNT // 16
