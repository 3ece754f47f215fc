"""Holes that decide how often something is repeated: every filling is the decoder that one writes by hand."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Sequence

import pytest
from language_page import TEXTS
from machine_speed import slowness
from test_holes_everywhere import agrees

import nasdsl
from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.search.strategies.mutation import cross, mutate, neighbours
from nasdsl.spaces import Space, SpaceError, loads_space
from nasdsl.spaces.tokens import tokens_of

PAGE = TEXTS["deep_space"]
"""The example of the language's page."""


def text(body: str, head: str = "conv_3x3", before: str = "", inside: str = "", share: str = "0") -> str:
    return (
        f"{before} decoder t {{ input c3, c4 {inside} fpn(width=32, norm=bn) {{ {body} }}"
        f" head(width=32, share={share}) {{ {head} }} predict fcos }}"
    )


def fillings(space: Space) -> list[tuple[int, ...]]:
    """All fillings, by decoding every list of integers."""
    every = itertools.product(*(range(len(d)) for d in space.domains))
    return sorted({space.decode(indices).indices for indices in every})


# ------------------------------------------------------------------------------------- what one would write by hand

PLAIN = "x = c3 repeat {d} {{ x = conv_3x3(x) }} output p3 = x"
NUMBERED = "x0 = c3 repeat t in 1..{d} {{ x[t] = conv(x[t-1], k=3, dilation=t) }} output p3 = x1"

BY_HAND: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "a range": (
        text(PLAIN.format(d="?(1..4)")),
        [(str(d), "", text(PLAIN.format(d=d))) for d in range(1, 5)],
    ),
    "no turns": (
        text(PLAIN.format(d="?(0..2)")),
        [("0", "", text("x = c3 output p3 = x")), *((str(d), "", text(PLAIN.format(d=d))) for d in (1, 2))],
    ),
    "numbers that are no range": (
        text(PLAIN.format(d="?(1 | 4 | 2)")),
        [(str(d), "", text(PLAIN.format(d=d))) for d in (1, 4, 2)],
    ),
    "numbered names": (
        text(NUMBERED.format(d="?(1..3)")),
        [(str(d), "", text(NUMBERED.format(d=d))) for d in range(1, 4)],
    ),
    "arithmetic": (
        text("let d = ?(0..2) " + PLAIN.format(d="d * 2 + 1")),
        [(str(d), f"let d = {d}", text(f"let d = {d} " + PLAIN.format(d=2 * d + 1))) for d in range(3)],
    ),
    "a beginning": (
        text("let d = ?(1..3) a = c3 repeat t in d..3 { a = conv(a, k=3, dilation=t) } output p3 = a"),
        [
            (
                str(d), f"let d = {d}",
                text(f"let d = {d} a = c3 repeat t in {d}..3 {{ a = conv(a, k=3, dilation=t) }} output p3 = a"),
            )
            for d in (1, 2, 3)
        ],
    ),
    "a step of a chain": (
        text("output p3 = c3", "conv_3x3 * ?(1..3) -> sep_3x3"),
        [(str(d), "", text("output p3 = c3", " -> ".join(["conv_3x3"] * d + ["sep_3x3"]))) for d in (1, 2, 3)],
    ),
    "a choice among chains": (
        text("output p3 = c3", "conv_3x3 -> ?(sep_3x3 -> conv(k=5) | skip | conv_1x1 * 3)"),
        [
            (str(at), "", text("output p3 = c3", f"conv_3x3 -> {chain}"))
            for at, chain in enumerate(["sep_3x3 -> conv(k=5)", "skip", "conv_1x1 -> conv_1x1 -> conv_1x1"])
        ],
    ),
    "an output that some have": (
        text("output p3 = c3 repeat ?(0..1) { output p4 = conv_1x1(c4) }"),
        [("0", "", text("output p3 = c3")), ("1", "", text("output p3 = c3 output p4 = conv_1x1(c4)"))],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BY_HAND)
def test_a_filling_is_the_decoder_written_by_hand(name: str) -> None:
    """The same digest, parameters and multiply-accumulates, in the order of the alternatives; its own text tells which."""
    space_text, written = BY_HAND[name]
    space = loads_space(space_text)
    assert space.size == len(written) == len(fillings(space))
    for indices, (_, _, by_hand) in zip(fillings(space), written, strict=True):
        mine, theirs = nasdsl.loads(space.decode(indices)), nasdsl.loads(by_hand)
        assert mine.digest == theirs.digest
        assert mine.cost().decoder == theirs.cost().decoder
        assert "repeat" not in str(space.decode(indices))
        assert space.encode(by_hand) == list(indices)


def test_a_word_of_the_section_ends_with_its_turn() -> None:
    """Also that of a `repeat` whose count is no hole: the second turn begins with the section's own width."""
    turns = "x = c3 repeat {d} {{ x = conv_3x3(x) let width = 64 x = conv_1x1(conv_3x3(x), width=32) }} output p3 = conv_1x1(x)"
    space = loads_space(text(turns.format(d="?(1..2)")))
    by_hand = "c3"
    for depth in (1, 2):
        by_hand = f"conv_1x1(conv_3x3(conv_3x3({by_hand}, width=32), width=64), width=32)"
        expected = nasdsl.loads(text(f"output p3 = conv_1x1({by_hand}, width=32)")).digest
        assert nasdsl.loads(space.decode([depth - 1])).digest == expected
        assert nasdsl.loads(text(turns.format(d=depth))).digest == expected


# ------------------------------------------------------------------------------------------ all stages on every filling

BLOCKS = """
choice op = relu | conv_3x3
choice depth = 1 | 3
choice tower = conv_1x1 -> relu | skip
block deep(x) -> (y) { y = x repeat ?(0..2) { y = ?op(y) } }
block stack(x, z) -> (y, w) { w = z let k = ?(1..2) y = x repeat k { y = conv_1x1(y) w = sum(w, y) } }
op twice(x) = deep(deep(x))
"""

SMALL = {
    "a choice in each turn": (text("x = c3 repeat ?(1..3) { x = ?op(x) } output p3 = x", before=BLOCKS), 2 + 4 + 8),
    "a named choice": (text("x = c3 repeat ?depth { x = relu(x) } output p3 = x", before=BLOCKS), 2),
    "a nested choice": (text("x = c3 repeat ?(0 | ?(2..3)) { x = ?op(x) } output p3 = x", before=BLOCKS), 1 + 4 + 8),
    "two holes": (
        text("let d = ?(0..1) let e = ?(1..2) x = c3 repeat d + e { x = ?op(x) } output p3 = x", before=BLOCKS),
        2 + 4 + 4 + 8,
    ),
    "both ends": (
        text("let d = ?(1..2) let e = ?(1..2) x = c3 repeat t in d..e { x = ?(conv(k=3) | relu)(x) } output p3 = x"),
        2 + 4 + 1 + 2,
    ),
    "one let, two places": (
        text(
            "let d = ?(1..2) x = c3 repeat d { x = conv_3x3(x) } y = c4 repeat d { y = ?op(y) } output p3 = x, p4 = y",
            before=BLOCKS,
        ),
        2 + 4,
    ),
    "one let, fpn and head": (text(PLAIN.format(d="d"), "conv_3x3 * d -> ?(relu | skip)", inside="let d = ?(1..3)"), 6),
    "a let behind the fpn": (text(PLAIN.format(d="d")).replace("head(", "let d = ?(1..3) head("), 3),
    "a let behind the fpn that decides about holes": (
        text("x = c3 repeat d { x = ?op(x) } output p3 = x", before=BLOCKS).replace("head(", "let d = ?(1..3) head("),
        2 + 4 + 8,
    ),
    "nested repeats": (
        text(
            "let d = ?(1..2) let e = ?(0..1) x = c3 repeat d { repeat e { x = ?op(x) } x = relu(x) } output p3 = x",
            before=BLOCKS,
        ),
        1 + 2 + 1 + 4,
    ),
    "a hole of each turn as an inner count": (
        text("x = c3 repeat ?(1..2) { repeat ?(0..1) { x = conv_1x1(x) } x = relu(x) } output p3 = x"),
        2 + 4,
    ),
    "turns that read turns": (
        text("let d = ?(1..2) x0 = c3 repeat t in 1..d { x[t] = conv_3x3(x[t-1]) } y = c4"
             " repeat t in 1..d { y = sum(y, x[t]) } output p3 = y"),
        2,
    ),
    "a pool behind turns": (text("x = c3 repeat ?(0..2) { x = conv_3x3(x) } output p3 = conv_1x1(?pool)"), 9),
    "a pool in turns": (text("x1 = c3 repeat t in 2..?(2..3) { x[t] = relu(?pool) } output p3 = x2"), 3 + 12),
    "a let in turns": (
        text("x = c3 repeat ?(1..2) { let k = ?op x = sum(k(x), k(c4)) } output p3 = x", before=BLOCKS), 2 + 4,
    ),
    "a word of the section in turns": (
        text(
            "x = c3 repeat ?(0..2) { x = relu(x) let width = 64 x = conv_1x1(conv_3x3(x), width=32) } output p3 = conv_1x1(x)"
        ),
        3,
    ),
    "a level behind turns": (
        text("x = c3 repeat ?(0..2) { x = down(x) } output p3 = resize(conv_1x1(c3), to=x), p5 = x"), 3,
    ),
    "a merge in turns": (
        text("a = conv_1x1(c4) x = c3 repeat ?(0..1) { merge dangling into x } output p3 = conv_3x3(x) b = relu(c4)"), 2,
    ),
    "a merge into what turns bind": (
        text("a = conv_1x1(c4) x = c3 repeat ?(0..2) { x = conv_3x3(x) } merge dangling into x output p3 = relu(x)"), 3,
    ),
    "a merge into what turns read": (
        text("output p4 = c4 x = c3 repeat ?(0..2) { x = sum(x, p4) } output p3 = x merge dangling into p4"), 3,
    ),
    "what turns bind, read once, and a merge of another width": (
        text(
            "output p3 = c3 x = c4 repeat ?(1..2) { x = conv_1x1(x, width=64) } y = conv_1x1(x) merge dangling into p3"
        ),
        2,
    ),
    "a pool without what some fillings lack": (
        text("x = c3 repeat ?(0..1) { z = relu(c4) } output p3 = conv_1x1(?pool)"), 2 * 3,
    ),
    "dangling turns": (
        text("output p3 = c3 x = c4 repeat ?(0..2) { x = conv_1x1(x) } merge dangling into p3"), 3,
    ),
    "two repeats that bind alike": (
        text(
            "output p3 = c3 repeat ?(0..1) { y = relu(c4) } repeat ?(0..1) { y = relu(c4) } merge dangling into p3"
        ),
        4,
    ),
    "a block with depth": (text("output p3 = deep(?(c3 | c4))", before=BLOCKS), 2 * (1 + 2 + 4)),
    "a block of two results": (text("a, b = stack(c3, c4) output p3 = a, p4 = b", before=BLOCKS), 2),
    "blocks in an op": (text("output p3 = twice(c3)", before=BLOCKS), 7 * 7),
    "a block in turns": (text("x = c3 repeat ?(0..1) { x = deep(x) } output p3 = x", before=BLOCKS), 1 + 7),
    "a block with depth in an alternative": (text("output p3 = ?(deep | relu)(c3)", before=BLOCKS), 7 + 1),
    "a let of an op with holes in an alternative": (
        text("let k = ?(free | relu) output p3 = ?(k(c3) | c4)", before="op free(x) = ?(tanh | sigmoid)(x)"), 2 + 1 + 2,
    ),
    "a hole in an alternative": (text("output p3 = ?(deep(c3) | relu(?pool))", before=BLOCKS), 7 + 2),
    "steps with holes": (text("output p3 = c3", "?op * ?(1..2) -> conv(k=?(1 | 3))", before=BLOCKS), 2 * (2 + 4)),
    "a chain that may be empty": (text("output p3 = c3", "conv_3x3 * ?(0..1)", share="?(0..1)"), 4),
    "chains within choices": (
        text("output p3 = c3", "cls: ?(conv_3x3 * ?(1..2) -> ?op | ?tower) box: conv_3x3", before=BLOCKS), 2 * 2 + 2,
    ),
    "a choice among chains, twice": (text("output p3 = c3", "?tower * 2 -> conv_3x3", before=BLOCKS), 4),
    "share and depth": (text("output p3 = c3", "conv_3x3 * ?(1..2)", share="?(0..2)"), 6),
}  # fmt: skip

AMBIGUOUS = {"a choice among chains, twice", "chains within choices"}
"""Chains whose layers do not tell which repetition they belong to: several lists have one text."""


@pytest.mark.parametrize("name", SMALL)
def test_all_stages_agree_on_every_filling(name: str) -> None:
    """Text, integers, figures and the whole pipeline; their number is counted by hand."""
    space_text, size = SMALL[name]
    space = loads_space(space_text)
    every = fillings(space)
    assert space.size == len(every) == size
    for indices in every:
        if name in AMBIGUOUS:
            assert space.decode(space.encode(space.decode(indices))) == space.decode(indices)
        else:
            agrees(space, indices)
        for index, domain in zip(indices, space.domains, strict=True):
            assert domain.condition.holds(indices) or index == 0


@pytest.mark.parametrize("name", SMALL)
def test_every_filling_is_legal_token_by_token(name: str) -> None:
    space = loads_space(SMALL[name][0])
    every = fillings(space)
    for indices in random.Random(0).sample(every, min(4, len(every))):
        tokens = tokens_of(space.decode(indices))
        for place, token in enumerate(tokens):
            assert token in space.legal(tokens[:place])
        assert space.legal(tokens) == set()
    rng = random.Random(1)
    walked: list[str] = []
    while legal := space.legal(walked):
        walked.append(rng.choice(sorted(legal)))
    assert space.decode(space.encode(" ".join(walked))) is not None


def test_the_page_s_example() -> None:
    space = loads_space(PAGE)
    assert space.size == (3 + 9 + 27 + 81) * 3 * 4 * 2
    assert [str(d.condition) for d in space.domains[:4]] == [
        "always", "always", "where 0 is 1 or 2 or 3", "where 0 is 2 or 3",
    ]  # fmt: skip
    rng = random.Random(0)
    for _ in range(20):
        agrees(space, space.sample(rng).indices)


def test_uniform_samples_touch_every_filling() -> None:
    space = loads_space(SMALL["a choice in each turn"][0])
    rng = random.Random(0)
    assert {space.sample(rng).indices for _ in range(300)} == set(fillings(space))


def random_space(seed: int) -> str:
    """A small space with depth holes of all kinds."""
    rng = random.Random(seed)
    lines = ["let d = ?(0..2)", "x = c3", "y = c4"]
    counts = ["?(0..1)", "?(1..2)", "d", "d + 1", "2 - d", "?(0 | 2)"]
    for number in range(rng.randint(1, 3)):
        body = [
            rng.choice(
                ["x = ?(relu | conv_3x3)(x)", "x = sum(x, y)", "y = conv_1x1(y)", f"z{number} = relu(x) x = sum(x, z{number})"]
            )
            for _ in range(rng.randint(1, 2))
        ]
        if rng.random() < 0.3:
            body.append(f"repeat {rng.choice(counts)} {{ y = relu(y) }}")
        lines.append(f"repeat {rng.choice(counts)} {{ {' '.join(body)} }}")
    lines.append("output p3 = conv_1x1(x), p4 = y")
    if rng.random() < 0.5:
        lines.append("merge dangling into p3")
    head = rng.choice(["conv_3x3", "conv_3x3 * ?(1..2)", "?(relu -> conv_1x1 | conv_3x3)"])
    return text(" ".join(lines), head)


@pytest.mark.parametrize("seed", range(12))
def test_random_spaces_with_depth(seed: int) -> None:
    """Sizes, integers and figures of random spaces, against each other and against enumeration."""
    space = loads_space(random_space(seed))
    if sum(map(len, space.domains)) < 22:
        assert space.size == len(fillings(space))
    rng = random.Random(seed)
    for _ in range(6):
        agrees(space, space.decode([rng.randrange(len(d)) for d in space.domains]).indices)


def test_sizes_against_enumeration_where_decisions_depend_on_several() -> None:
    """Conditions that join several decisions, in a space too large for a product of sums over a tree."""
    body = "let d = ?(0..3) let e = ?(0..3) x = c3 repeat d { repeat e { x = ?(relu | tanh | skip)(x) } } output p3 = x"
    assert loads_space(text(body)).size == sum(3 ** (d * e) for d in range(4) for e in range(4))
    loops = " ".join("repeat ?(1..4) { x = ?(relu | tanh)(x) }" for _ in range(30))
    assert loads_space(text(f"x = c3 {loops} output p3 = x")).size == (2 + 4 + 8 + 16) ** 30


# ----------------------------------------------------------------------------------------------------- search


def changes(space: Space, rng: random.Random) -> Iterator[Sequence[int]]:
    first, second = space.sample(rng).indices, space.sample(rng).indices
    yield mutate(space, first, rng)
    yield cross(space, first, second, rng)
    yield from neighbours(space, first, rng)


@pytest.mark.parametrize("name", ["a choice in each turn", "nested repeats", "two holes", "both ends", "share and depth"])
def test_changes_of_fillings_are_fillings(name: str) -> None:
    """Decisions of turns that are not there are 0, and those of new turns are drawn."""
    space = loads_space(SMALL[name][0])
    every = set(fillings(space))
    rng = random.Random(0)
    seen = {tuple(found) for _ in range(60) for found in changes(space, rng)}
    assert seen <= every
    assert len(seen) == len(every)


# ------------------------------------------------------------------------------------------------------- mistakes


def codes(source: str) -> list[tuple[str, str]]:
    return [(p.code, p.span.text) for p in check_source(Source("t.nas", source)).problems]


MISTAKES = {
    "a value that some fillings lack": ("repeat ?(0..2) { x = relu(c3) } output p3 = x", "NAS510", "x"),
    "a number that some fillings lack": (NUMBERED.format(d="?(1..3)").replace("= x1", "= x2"), "NAS510", "x2"),
    "a word": (PLAIN.format(d="?(relu | 2)"), "NAS303", "?(relu | 2)"),
    "a fraction": ("let d = ?(1..3) " + PLAIN.format(d="d / 2"), "NAS303", "d / 2"),
    "less than nothing": ("let d = ?(1..3) " + PLAIN.format(d="d - 2"), "NAS303", "?(1..3)"),
    "never a turn": (PLAIN.format(d="?(0..0)"), "NAS303", "?(0..0)"),
    "a value as a count": (PLAIN.format(d="?pool"), "NAS303", "?pool"),
    "too many together": ("let a = ?(1..200) let b = ?(1..200) " + PLAIN.format(d="a * b"), "NAS504", "a * b"),
    "too many turns": (PLAIN.format(d="?(1 | 200K)"), "NAS410", "?(1 | 200K)"),
    "a chain for a value": ("output p3 = ?(relu -> relu | relu)(c3)", "NAS503", "relu -> relu"),
    "layers in a row for a value": ("output p3 = ?(conv(k=3) * 2 | relu)(c3)", "NAS503", "conv(k=3) * 2"),
    "an output bound in two turns": ("output p3 = c3 repeat ?(1..2) { output p4 = relu(c3) }", "NAS204", "p4"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_finding_in_their_place(name: str) -> None:
    body, code, place = MISTAKES[name]
    assert codes(text(body)) == [(code, place)]


HEAD_MISTAKES = {
    "a number": ("?(3 -> relu | relu)", "NAS503", "3"),
    "a call with operands": ("?(relu(c3) -> relu | relu)", "NAS503", "relu(c3)"),
    "an unknown op": ("?(relu -> rellu | relu)", "NAS201", "rellu"),
    "no layer": ("conv_3x3 * 0", "NAS303", "0"),
    "too many layers": ("conv_3x3 * 20000", "NAS410", "conv_3x3 * 20000"),
    "a layer that changes the level": ("conv_3x3 * ?(1..2) -> down", "NAS313", "down"),
    "two factors": ("?(relu * 2 * 3 | relu)", "NAS503", "relu * 2 * 3"),
}


@pytest.mark.parametrize("name", HEAD_MISTAKES)
def test_mistakes_in_chains(name: str) -> None:
    head, code, place = HEAD_MISTAKES[name]
    assert codes(text("output p3 = c3", head)) == [(code, place)]


def test_a_mistake_in_a_deep_turn_is_found() -> None:
    """Each alternative of each turn stands in one of the fillings that are checked."""
    body = "x = c3 repeat t in 1..?(1..4) { x = ?(relu | conv(k=2 * t - 1) | conv(k=t + 1))(x) } output p3 = x"
    found = codes(text(body))
    assert {code for code, _ in found} == {"NAS303"}


def test_sharing_more_layers_than_a_drawn_depth_cannot_be_built() -> None:
    space = loads_space(text("output p3 = c3", "conv_3x3 * ?(1..3)", share="2"))
    assert [space.keeps([depth]) for depth in range(3)] == [False, True, True]
    assert codes(text("output p3 = c3", "conv_3x3 * ?(1..3)", share="4")) == [("NAS407", "share=4")]


def test_a_text_that_is_no_filling() -> None:
    space = loads_space(PAGE)
    filled = space.decode([3, 0, 1, 0, 1, 2, 1, 0])
    with pytest.raises(SpaceError, match="cannot stand there"):
        space.encode(filled.replace("x_4 = conv_3x3(x_3)", "x_4 = relu(x_3)"))
    with pytest.raises(SpaceError):
        space.encode(filled.replace("conv_3x3 -> conv_3x3", "conv_1x1 -> conv_3x3"))


AMBIGUOUS = {
    "layers in a row that are alike": text("output p3 = c3", head=" -> ".join(["?(conv_3x3 | skip * ?(1..3))"] * 3)),
    "an earlier number decides a later one": text(
        "output p3 = c3", inside="let n = ?(1..2)", head="conv_3x3 * n -> ?(skip | conv_3x3 * ?(1..2)) -> conv_3x3 * n"
    ),
    "an earlier number is read in a later attribute": text(
        "output p3 = c3", inside="let k = ?(1 | 3)", head="?(skip | conv_3x3 * ?(1..2)) * 2 -> conv(k=k) * ?(1..2)"
    ),
    "statements that may be there": text(
        "let n = ?(0..1) repeat n { a = relu(c3) } repeat ?(0..1) { b = relu(c3) } repeat n + ?(0..1) { c = relu(c3) } "
        "output p3 = c3"
    ),
    "a number that is read on both sides of others": text(
        "x = c3 repeat ?(1..2) { let n = ?(1..2) repeat n { x = relu(x) } repeat ?(1..2) { x = relu(x) }"
        " repeat ?(1..2) { x = skip(x) } repeat n { x = conv_1x1(x) } } output p3 = x"
    ),
    "an op with holes": text(
        "output p3 = c3", before="op f(x) = ?(skip | conv_3x3)(x)", head="?(f | skip * ?(1..2)) -> ?(f | skip * ?(1..2))"
    ),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_can_be_cut_up_in_several_ways_is_found_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own names: texts with other ones are compared once more."""
    monkeypatch.setattr("nasdsl.spaces.match._has_turns", lambda space: False)
    space = loads_space(AMBIGUOUS[name])
    texts = {str(space.decode(indices)) for indices in fillings(space)}
    assert len(texts) > 4
    for written in texts:
        assert space.decode(space.encode(written)) == written


def test_many_layers_that_are_alike_are_told_apart_at_once() -> None:
    """Tried one by one, the ways to cut up 40 layers would take years."""
    space = loads_space(text("output p3 = c3", head=" -> ".join(["?(conv_3x3 | skip * ?(1..3))"] * 40)))
    for seed in range(3):
        filled = space.sample(random.Random(seed))
        start = time.process_time()
        assert space.decode(space.encode(filled)) == filled
        assert time.process_time() - start < slowness()
