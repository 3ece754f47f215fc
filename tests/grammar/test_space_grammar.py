"""The grammar of a space accepts its fillings only: for small spaces the two sets are compared, for large ones random walks."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from engines import LlGuidance, lark_accepts
from gbnf_reader import Grammar
from test_depth_holes import SMALL
from test_holes_everywhere import BLOCKS, MEANINGFUL, text

from nasdsl import resources
from nasdsl.diagnostics import DiagnosticError
from nasdsl.grammar_export import FORMATS, LAYOUTS, space_grammar
from nasdsl.grammar_export import filling as filling_rules
from nasdsl.spaces import Space, load_space, loads_space
from nasdsl.spaces.tokens import tokens_of

SPACES = {path.stem: path for path in sorted((resources.folder("genotypes") / "spaces").glob("*.nas"))}

EVERYWHERE = {**{name: text(body, BLOCKS) for name, body in MEANINGFUL.items()}, **{name: t for name, (t, _) in SMALL.items()}}

OFTEN = {
    "one let, fpn and head", "nested repeats", "a choice among chains, twice", "a let of an op with holes", "numbered names",
    "blocks with attributes as alternatives", "calls of a shared op", "lets that are computed",
    "a count of nested alternatives",
}  # fmt: skip
"""What is compared each time; the long tests compare all."""


def is_filling(space: Space, walked: str) -> bool:
    """Whether a text is a filling, as its integers say."""
    return tokens_of(space.decode(space.encode(walked))) == tokens_of(walked)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in OFTEN else (pytest.mark.long,)) for name in EVERYWHERE]
)
def test_the_texts_of_the_grammar_are_the_fillings(name: str) -> None:
    space = loads_space(EVERYWHERE[name])
    every = {space.decode(i) for i in itertools.product(*(range(len(d)) for d in space.domains))}
    made = {walked.rstrip("\n") for walked in Grammar(space_grammar(space, "gbnf")).texts()}
    assert {tuple(tokens_of(t)) for t in made} == {tuple(tokens_of(t)) for t in every}
    assert every <= made  # beside them are those with or without a `;` where a conditional statement is missing


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.long if n in ("opanas", "spine") else ()) for n in SPACES])
def test_samples_are_accepted_and_walks_are_fillings(name: str, layout: str) -> None:
    space = load_space(SPACES[name])
    grammar = Grammar(space_grammar(space, "gbnf", layout))
    engine = LlGuidance(space_grammar(space, "llguidance", layout))
    for number, sampled in enumerate(space.samples(5, seed=0)):
        assert engine.accepts(sampled)
        if number == 0:
            assert grammar.accepts(sampled)
            assert not engine.accepts(sampled.replace("conv_3x3", "conv_9x9"))
    rng = random.Random(0)
    for _ in range(3):
        assert is_filling(space, grammar.walk(rng, 60))


@pytest.mark.long
@pytest.mark.parametrize("name", SPACES)
def test_many_walks_are_fillings(name: str) -> None:
    space = load_space(SPACES[name])
    grammars = [Grammar(space_grammar(space, "gbnf", layout)) for layout in LAYOUTS]
    rng = random.Random(1)
    codes: set[str] = set()
    unbuildable = 0
    for number in range(200):
        try:
            assert is_filling(space, grammars[number % 2].walk(rng, 60))
        except DiagnosticError as error:  # a grammar's first lines warn of fillings that cannot be built
            codes |= {d.code for d in error.diagnostics}
            unbuildable += 1
    assert codes <= {"NAS306", "NAS511"}
    assert unbuildable < 100


def test_a_walk_of_llguidance_is_a_filling() -> None:
    space = load_space(SPACES["nas_fcos_head"])
    engine = LlGuidance(space_grammar(space, "llguidance"))
    rng = random.Random(0)
    made = {engine.walk(rng.choice, 2000) for _ in range(5)}
    assert len(made) == 5
    for walked in made:
        assert walked is not None
        assert is_filling(space, walked.decode())


@pytest.mark.parametrize("layout", ["line", pytest.param("free", marks=pytest.mark.long)])
def test_lark_reads_the_grammar_of_a_space(layout: str) -> None:
    space = loads_space(SMALL["one let, fpn and head"][0])
    accepts = lark_accepts(space_grammar(space, "lark", layout), parser="earley", lexer="dynamic", start="root")
    filled = space.sample(0)
    assert accepts(filled)
    assert not accepts(filled.replace("c3", "c5"))


def test_lark_reads_a_free_layout() -> None:
    space = loads_space(
        "decoder t { input c3 fpn(width=8) { output p3 = ?(relu | tanh)(c3) } head(width=8) { conv_3x3 } predict fcos }"
    )
    accepts = lark_accepts(space_grammar(space, "lark", "free"), parser="earley", lexer="dynamic", start="root")
    filled = space.decode([0])
    assert accepts(filled)
    assert accepts(filled.replace("{", "{ # here\n").replace(";", "\n"))
    assert not accepts(filled.replace("decoder t", "decodert"))
    assert not accepts(filled.replace("relu", "silu"))


def test_a_free_layout_has_any_white_space() -> None:
    space = loads_space(SMALL["two holes"][0])
    filled = space.sample(3)
    lines = "# a filling\n" + filled.replace("; ", "\n  ").replace("{", "{ # here\n").replace(",", " ,") + "  # the end"
    free, line = Grammar(space_grammar(space, "gbnf", "free")), Grammar(space_grammar(space, "gbnf", "line"))
    assert free.accepts(lines)
    assert free.accepts(filled)
    assert not line.accepts(lines)
    assert not free.accepts(lines.replace("input c3", "inputc3"))


def test_what_a_grammar_cannot_say_is_named() -> None:
    written = text("output p3 = ?(sum | psum)(?(c3 | c4), ?(c3 | c4)) distinct").replace(
        "input", "require macs <= 10G at 320x320 input"
    )
    space = loads_space(written)
    for format in FORMATS:
        head = space_grammar(space, format).partition("\n\n")[0]
        assert "- `require macs <= 10G at 320x320`" in head
        assert "`distinct`" in head
        assert "NAS513" in head
    walked = next(t for t in Grammar(space_grammar(space, "gbnf")).texts() if "(c3, c3)" in t)
    with pytest.raises(DiagnosticError):
        space.encode(walked)


def test_allowed_warnings_stand_behind_a_filling() -> None:
    space = loads_space(text("output p3 = ?(relu | tanh)(c3)") + "  # nas: allow NAS907 (as it is)")
    grammar = Grammar(space_grammar(space, "gbnf"))
    assert space.sample(0).endswith("# nas: allow NAS907")
    assert grammar.accepts(space.sample(0))


MANY = "".join(f"op o{n}(x) = ?(relu | tanh)(conv(x, k=1, dilation={n + 1}))\n" for n in range(5))


def test_a_space_that_would_take_too_many_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call of an op with a hole has a definition of its own, so that 5**5 sets of them are called: that is left out."""
    op = "?(" + " | ".join(f"o{n}" for n in range(5)) + ")"
    space = loads_space(text(" ".join(f"x{n} = {op}(c3)" for n in range(5)) + " output p3 = x0 merge dangling into p3", MANY))
    monkeypatch.setattr(filling_rules, "MAX_RULES", 200)
    written = space_grammar(space, "gbnf")
    assert "a definition stands behind the decoder where it calls it, and only there: o0_1, o1_1" in written
    assert Grammar(written).accepts(space.sample(0))
    deep = loads_space(SMALL["two holes"][0])
    monkeypatch.setattr(filling_rules, "MAX_RULES", 3)
    assert "holes that are read in several places have one value" in space_grammar(deep, "gbnf")
    assert all(Grammar(space_grammar(deep, "gbnf")).accepts(sampled) for sampled in deep.samples(10, seed=0))


def test_a_space_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "ops.nas").write_text("op mine(x) = conv_1x1(x)\n")
    (tmp_path / "space.nas").write_text('use "ops.nas"\n' + text("output p3 = ?(mine | relu)(c3)"))
    space = load_space(tmp_path / "space.nas")
    made = {walked.rstrip("\n") for walked in Grammar(space_grammar(space, "gbnf")).texts()}
    assert made == {space.decode([0]), space.decode([1])}
