"""Cache of expansions: a decoder checks to the same, layer for layer, whether or not its calls are in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import random_decoders
from tracked_layer import tracked_layer
from zoo_files import ZOO

from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.semantics import expansion_cache
from nasdsl.semantics.check import Checked, sample_fillings
from nasdsl.semantics.expansion_cache import LARGE, ExpansionCache
from nasdsl.semantics.infer_fpn import infer_fpn
from nasdsl.semantics.vocabulary import Op, prelude

SPACES = sorted((Path(__file__).parents[2] / "genotypes" / "spaces").glob("*.nas"))


@pytest.fixture(autouse=True)
def empty_cache() -> Iterator[None]:
    """The prelude's ops have an empty cache before and after each test."""
    clear_cache()
    yield
    clear_cache()


def clear_cache() -> None:
    for definition in prelude().definitions.values():
        if isinstance(definition, Op):
            definition.expansions.clear()


def cache_size() -> int:
    return sum(len(d.expansions) for d in prelude().definitions.values() if isinstance(d, Op))


def without_cache(source: Source) -> Checked:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ExpansionCache, "remember", lambda *_: None)
        return check_source(source)


def same(text: str) -> None:
    """The same without a cache, and with one that earlier texts and the text itself have filled."""
    source = Source("<text>", text)
    expected = without_cache(source)[:2]
    assert check_source(source)[:2] == expected
    assert check_source(source)[:2] == expected


FRAME = """
decoder d {{
  input c3, c4, c5
  fpn(width=64, norm=bn) {{
{body}
    output p3 = x1, p4 = x2
  }}
  head(width=64, norm=gn, share=0) {{ conv_3x3 -> {step} }}
  predict fcos()
}}
"""


def decoder(body: str, step: str = "skip", before: str = "") -> str:
    return before + FRAME.format(body=body, step=step)


@pytest.mark.parametrize("path", ZOO, ids=lambda p: p.stem)
def test_zoo(path: object) -> None:
    same(path.read_text())  # type: ignore[attr-defined]


@pytest.mark.parametrize("count", [60, pytest.param(400, marks=pytest.mark.long)])
def test_random_decoders_one_after_the_other(count: int) -> None:
    for seed in range(count):
        same(random_decoders.text(seed))
    assert cache_size() > 50


CASES = {
    "operands that are one value, then two": "a = conv_1x1(c3)\n x1 = cat(a, a)\n x2 = cat(a, c3)\n x3 = cat(c3, a)",
    "two, then one": "a = conv_1x1(c3)\n x1 = cat(a, c3)\n x2 = cat(a, a)\n x3 = cat(c3, c3)",
    "other levels": "x1 = sum(c3, c5)\n x2 = sum(c5, c3)\n x3 = sum(c4, c3)",
    "calls in calls": "x1 = cat(dconv_3x3(cat(c3, c4)), sep_3x3(c4))\n x2 = cat(dconv_3x3(cat(c5, c4)), sep_3x3(x1))",
    "attributes": "x1 = conv_3x3(c3, act=none)\n x2 = conv_3x3(c3)\n x3 = conv_3x3(c3, norm=none)\n x4 = conv_3x3(c3)",
    "the same value back": "x1 = skip(c3)\n x2 = skip(skip(c4))\n x3 = up(c3, to=c3)\n x4 = up(c5, to=c4)",
    "names taken": "x1 = conv_1x1(conv_1x1(c3))\n x2 = sum(conv_1x1(c3), conv_1x1(conv_1x1(c3)))",
    "a mistake twice": "x1 = conv_3x3(c3, width=0)\n x2 = conv_3x3(c3, width=0)",
    "a misfit in a body": "x1 = conv_3x3(c3, width=48)\n x2 = sep_3x3(x1)\n x3 = sep_3x3(x1)\n x4 = sum(x1, c3)",
    "rounds": "x0 = c3\n repeat t in 1..5 { x[t] = cat(dconv_3x3(x[t-1]), up(c5, to=c3)) }",
}


@pytest.mark.parametrize("name", CASES)
def test_cases(name: str) -> None:
    same(decoder(CASES[name]))


def test_own_ops_and_blocks() -> None:
    before = """
    op twice(x, act=relu) = conv_3x3(conv_3x3(x, act=act))
    block pair(a, b) -> (l, r) { l = twice(a) r = sum(l, twice(b, act=none)) }
    block one(a) -> (l) { l = twice(twice(a, act=tanh)) }
    op inside(x, act=relu) = one(x)
    """
    same(decoder("x1, x2 = pair(c3, c4)\n y, z = pair(x1, x2)\n w = inside(y)\n v = inside(z)\n u = inside(z)", before=before))


BLOCKS = """
block pair(a, b, n=2) -> (l, r) { l = conv_3x3(a) repeat n { l = skip(l) r = sum(l, b) } }
block own(a, b) -> (l, r) { shared f(x) = conv_3x3(sep_3x3(x)) l = f(a) r = sum(f(b), f(l)) }
block outer(a, b) -> (l, r) { m, o = own(a, b) l, q = pair(m, o, n=3) s, t = own(l, q) r = sum(s, t) }
block back(a, b) -> (l, r) { l = b r = a unread = conv_1x1(a) }
block split_(a) -> (l, r) { l, r = split(a, parts=2) }
"""


@pytest.mark.parametrize("name", ["pair", "own", "outer", "back"])
def test_blocks(name: str) -> None:
    assert not any(p.severity == "error" for p in check_source(Source("<text>", BLOCKS)).problems)
    calls = f"x1, x2 = {name}(c3, c4) y, z = {name}(c3, c4) u, v = {name}(y, z) w, s = {name}(w0, w0) t, r = {name}(x1, c5)"
    calls += " h, i = split_(y) j, k = split_(y)"
    same(decoder("w0 = conv_1x1(c4)\n " + calls, before=BLOCKS))
    same(decoder(f"x1, x2 = {name}(c3, c4)\n repeat 3 {{ x1, x2 = {name}(x1, x2) }}", before=BLOCKS))
    same(decoder(f"x1, x2 = {name}(c3, none)\n y, z = {name}(c3, none)", before=BLOCKS))
    same(decoder(f"width_ = conv_1x1(c3)\n let width = 32\n x1, x2 = {name}(c3, c4)\n x1, x2 = {name}(c3, c4)", before=BLOCKS))


CHAIN = """
block base(x, n=2) -> (y) {{ y = skip(x) repeat n {{ y = relu(norm(y)) }} }}
block first(x) -> (y) {{ a = base(x, n={n}) y = base(a, n={n}) }}
block second(x) -> (y) {{ a = first(x) b = base(a, n={n}) y = first(b) }}
block third(x) -> (y) {{ y = second(x) }}
op many(x) = relu({layers})
op wrapped(x) = many(norm(many(x)))
"""


@pytest.mark.parametrize("n", [LARGE // 4, LARGE // 2 - 1, LARGE // 2, LARGE])
def test_large_calls_in_calls(n: int) -> None:
    before = (
        CHAIN.format(n=n, layers="norm(" * n + "relu(" * n + "x" + ")" * 2 * n) if n <= 32 else CHAIN.format(n=n, layers="x")
    )
    body = "x1 = third(c3)\n x2 = second(x1)\n x3 = third(x2)\n x4 = base(x3)\n x5 = first(x4)\n x6 = third(x5)\n"
    same(decoder(f"{body} y = wrapped(c4)\n z = wrapped(y)\n w = many(wrapped(z))\n v = many(many(c4))", before=before))


def test_large_calls_are_kept_when_they_come_again_and_nothing_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As often as a block is within another one, its layers would be kept."""
    before = "block b0(x) -> (y) { y = x repeat 100 { y = relu(y) } }\n"
    before += "".join(f"block b{i}(x) -> (y) {{ y = b{i - 1}(x) }}\n" for i in range(1, 20))
    kept: list[int] = []
    monkeypatch.setattr(ExpansionCache, "remember", lambda _, key, found: kept.append(len(found.steps)))
    for body, expected in (("x1 = b19(c3)\n x2 = c4", []), ("x1 = b19(c3)\n x2 = b19(x1)", [100])):
        assert check_source(Source("<text>", decoder(body, before=before))).architecture
        assert [layers for layers in kept if layers >= LARGE] == expected


def test_a_block_whose_paths_are_taken() -> None:
    """Values and operands with the names of a block's values: paths are made unique as without a cache."""
    before = "block one(a) -> (l) { l = conv_1x1(a) }\nop f(one) = skip(one)\nop g(l) = skip(l)\n"
    body = "x1 = skip(skip(skip(one(c3))))\n x2 = one(c3)\n "  # a call that is nested less deep than this one is replayed
    same(decoder(body + "y = one(f(g(conv_1x1(c3))))\n z = one(f(g(conv_1x1(x1))))\n w = one(x1)", before=before))
    same(decoder(body + "y = add(one(c3), f(g(conv_1x1(c3))))", before=before))


def test_the_words_of_a_block_and_its_nesting_count() -> None:
    wide = "x1, x2 = own(c3, c4)\n let width = 32\n y, z = own(c3, c4)\n let norm = none\n w, v = own(c3, c4)"
    same(decoder(wide, before=BLOCKS))
    deep = "block deep(a) -> (b) { b = " + "conv_3x3(" * 90 + "a" + ")" * 90 + " }\n"
    for outer in (10, 56, 57, 58, 59, 60):
        same(decoder("x1 = deep(c3)\n x2 = " + "skip(" * outer + "deep(c3)" + ")" * outer, before=deep))


def test_blocks_are_remembered() -> None:
    text = decoder("x1, x2 = own(c3, c4)\n y, z = own(c3, c4)\n u, v = own(y, z)", before=BLOCKS)
    found = check_source(Source("<text>", text))
    assert found.vocabulary is not None
    assert found.architecture is not None
    block = found.vocabulary.definitions["own"]
    assert len(block.expansions) == 2
    own = [a.weights for a in found.architecture.fpn.applications if a.weights]
    assert {w.rpartition(".f.")[0] for w in own} == {"own", "own_2", "own_3"}


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.stem)
def test_fillings_of_spaces(path: Path) -> None:
    """Each filling has the same layers, values and paths, whatever fillings before it have left in the cache."""
    source = Source(path.name, path.read_text())
    parts = []
    for check in (check_source, without_cache):
        program = check(source).program
        assert program is not None
        with pytest.MonkeyPatch.context() as patch:
            if check is without_cache:
                patch.setattr(ExpansionCache, "remember", lambda *_: None)
            fillings = sample_fillings(program.decisions)
            parts.append([infer_fpn(program, [], [], None, indices) for _, indices in zip(range(3), fillings, strict=False)])
        clear_cache()
    assert any(part is not None and part.applications for part in parts[0])
    assert parts[0] == parts[1]


def test_words_of_the_section() -> None:
    text = decoder("x1 = conv_3x3(c3)\n x2 = conv_3x3(c4)", step="conv_3x3(act=silu) -> dconv_3x3")
    for other in (text, text.replace("fpn(width=64, norm=bn)", "fpn(width=64, norm=gn, act=silu)"), text.replace("64", "96")):
        same(other)


def test_a_full_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expansion_cache, "MOST", 2)
    for seed in range(20):
        same(random_decoders.text(seed))
    assert all(len(d.expansions) <= 2 for d in prelude().definitions.values() if isinstance(d, Op))


def test_the_limit_of_nesting_counts_cached_calls() -> None:
    chain = "conv_3x3(" * 148 + "c3" + ")" * 148
    source = Source("<text>", decoder(f"x1 = conv_3x3(c3)\n x2 = conv_3x3(c4)\n x3 = {chain}"))
    assert check_source(source)[:2] == without_cache(source)[:2]
    deeper = "op deep(x, width=width) = " + "conv_3x3(" * 90 + "x" + ")" * 90 + "\n"
    for outer in (10, 58, 59, 60, 61, 70):
        nested = "skip(" * outer + "deep(c3)" + ")" * outer
        around = "op around(x, width=width) = " + "skip(" * outer + "deep(x)" + ")" * outer + "\n"
        same(decoder(f"x1 = deep(c3)\n x2 = {nested}", before=deeper))
        same(decoder("x1 = deep(c3)\n x2 = around(c3)\n x3 = around(c3)", before=deeper + around))


def test_custom_layers_are_not_cached() -> None:
    text = decoder("x1 = mine(c3, width=64)\n x2 = mine(c3, width=64)", before="op mine(x, width=width) = tracked(x)\n")
    with tracked_layer() as inferred:
        assert check_source(Source("<text>", text)).architecture is not None
        assert len(inferred) == 2
