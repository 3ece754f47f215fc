"""A text that is edited has the findings and the names of one that is opened: what is kept between versions changes nothing."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import pytest
from edited_texts import texts, versions
from tracked_layer import tracked_layer

from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source, Span
from nasdsl.lsp.analysis import Analysis
from nasdsl.lsp.settings import Settings
from nasdsl.semantics import builder, expansion_cache, infer, infer_shared
from nasdsl.semantics import kept as kept_semantics
from nasdsl.semantics.files import read_source
from nasdsl.semantics.kept import KeptText
from nasdsl.semantics.program import Assign
from nasdsl.semantics.resolved_names import NameTable

TEXTS = texts()


def analysis(text: str, kept: KeptText | None = None) -> Analysis:
    return Analysis(text, "t.nas", None, read_source, Settings(), "utf-16", kept)


def seen(found: Analysis) -> Any:
    """All findings, and what each name refers to."""

    def place(span: Span | None) -> Any:
        if span is None:
            return None
        assert span.source is found.source or span.source.name == "prelude.nas"
        return span.source.name, span.start, span.end

    def symbol(s: Any) -> Any:
        return s.kind, s.name, place(s.span), place(s.region), s.owner

    problems = [
        (p.code, place(p.span), p.message, p.label, p.help, p.fix, [(place(span), text) for span, text in p.related])
        for p in found.problems
    ]
    names = {
        start: (place(o.span), [symbol(s) for s in o.symbols], o.is_definition)
        for (source, start), o in found.names.occurrences.items()
        if source is found.source  # which bodies of the vocabulary are entered depends on what was checked before
    }
    architecture = found.checked.architecture
    layers = [] if architecture is None else [a._replace(span=place(a.span)) for a in architecture.fpn.applications]
    values = (
        []
        if architecture is None
        else [
            (v.name, v.op, v.kind, place(v.span), [(g.kind, g.name, place(g.span)) for g in v.groups])
            for v in architecture.fpn.values
        ]
    )
    visible = [symbol(s) for s in found.names.visible(found.source, len(found.text) // 2)]
    program = found.checked.program
    passed = [] if program is None else [definition.name for definition in program.passed]
    return problems, names, visible, layers, passed, values, [(t.type, t.start, t.end) for t in found.tokens]


def same(edited: Iterable[str]) -> None:
    """Each version is seen as one that is opened anew."""
    kept = KeptText()
    for text in edited:
        assert seen(analysis(text, kept)) == seen(analysis(text))


@pytest.mark.parametrize("name", TEXTS)
def test_edits(name: str) -> None:
    same(versions(TEXTS[name], 11, 2))


@pytest.mark.long
@pytest.mark.parametrize("name", TEXTS)
def test_many_edits(name: str) -> None:
    same(versions(TEXTS[name], 12, 25))


def test_a_failed_check_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptText()
    text = TEXTS["random 1"]
    with monkeypatch.context() as patch:
        patch.setattr("nasdsl.lsp.analysis.check_source", lambda *_, **__: 1 / 0)
        assert analysis(text, kept).problems == []
        assert analysis(text).problems == []
    assert seen(analysis(text, kept)) == seen(analysis(text))


MEANT = """decoder d {
  input c3, c4, c5
  let k = 3
  fpn(width=64, norm=bn) {
    a = sum(conv(c3, k=k, act=relu), c4)
    b = conv_3x3(a)
    t = conv_3x3(c4)
    w = conv(resize(b, to=t), k=1, width=width, act=relu)
    v = resize(sum(a, b), to=c4)
    e = mul(w, 2)
    f = add(sep_3x3(e), sep_3x3(b), v, t)
    output p3 = f
    merge dangling into p3
  }
  head(width=64) { conv_3x3 }
  predict fcos
}
"""

CHANGES = (
    ("decoder d", "op sep_3x3(x) = conv_3x3(x)\ndecoder d"),  # of the package no more
    ("decoder d", "op relu(x) = conv_3x3(x)\ndecoder d"),  # an attribute's word is an op now
    ("let k = 3", "let k = 5"),
    ("let k = 3", "let k = ?(3 | 5)"),
    ("let k = 3", "let sep_3x3 = conv_1x1"),
    ("let k = 3", "let act = none let k = 3"),
    ("width=64", "width=32"),
    ("norm=bn", "norm=gn"),
    ("    b = conv", "    let width = 32\n    b = conv"),
    ("    b = conv", "    let act = none\n    b = conv"),
    ("    b = conv", "    shared sep_3x3(x) = conv_3x3(x)\n    b = conv"),
    ("    b = conv", "    k = c3\n    b = conv"),
    ("    b = conv", "    c4 = c3\n    b = conv"),
    ("    b = conv", "    repeat t in 1..?(1 | 2) { e = c4 }\n    b = conv"),
    ("b = conv_3x3(a)", "b = a"),  # two names of one value
    ("b = conv_3x3(a)", "b = conv_3x3(c5)"),  # another level
    ("b = conv_3x3(a)", "b = global_pool(a)"),
    ("b = conv_3x3(a)", "b = ?(a | c4)"),
    ("b = conv_3x3(a)", ""),
    ("e = mul(w, 2)", "w = mul(w, 2)"),
    ("t = conv_3x3(c4)", "t = down(c4)"),
    ("t = conv_3x3(c4)", "t = sum distinct(c4)"),
    ("    v = ", "    repeat t in 1..2 { e = conv_3x3(a) }\n    v = "),
    ("    v = ", "    let act = none\n    v = "),
    ("    v = ", "    repeat t in 1..1 { c4 = down(c4) }\n    v = "),
    ("    f = ", "    repeat t in 1..2 { e = conv_3x3(a) }\n    f = "),
    ("    f = ", "    repeat t in 1..2 { b = conv_3x3(b) }\n    f = "),
    ("    f = ", "    repeat t in 1..?(1 | 2) { b = conv_3x3(b) }\n    f = "),
    ("e = mul(w, 2)", "e = mul(w, k)"),
    ("input c3, c4", "input c4"),
)


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_a_statement_whose_names_mean_something_else(number: int) -> None:
    """Its own text is as before, and so is nothing that follows from it."""
    before, after = CHANGES[number]
    assert before in MEANT
    assert analysis(MEANT).checked.architecture is not None
    changed = MEANT.replace(before, after)
    same((MEANT, changed, MEANT, "# above\n" + changed, "# above\n" + MEANT))
    same((changed, MEANT, changed))


READ = """decoder d {
  input c3, c4
  let unit = conv_3x3
  fpn(width=64, norm=bn) {
    x[1] = conv_3x3(c3)
    a = unit(c3)
    b = relu(unit(c4))
    e = conv_3x3(relu(x[1]))
    f = x[1]
    output p3 = add(a, e, f), p4 = b
  }
  head(width=64) { conv_3x3 }
  predict fcos
}
"""

OF_READ = (
    ("let unit = conv_3x3", "let unit = conv_1x1"),
    ("let unit = conv_3x3", "let unit = ?(conv_1x1 | conv_3x3)"),
    ("    a = unit", "    let unit = conv_1x1\n    a = unit"),
    ("x[1] = conv_3x3(c3)", "x[1] = conv_1x1(c3)"),
    ("x[1] = conv_3x3(c3)", "x[1] = conv_3x3(c4)"),
    ("x[1] = conv_3x3(c3)", "x[1] = conv_3x3(c3)\n    x1 = c4"),
    ("    e = ", "    repeat 2 { x[1] = relu(c4) }\n    e = "),
)


@pytest.mark.parametrize("number", range(len(OF_READ)))
def test_a_name_that_a_let_or_a_number_gives(number: int) -> None:
    before, after = OF_READ[number]
    assert before in READ
    assert analysis(READ).checked.architecture is not None
    changed = READ.replace(before, after)
    same((READ, changed, READ, "# above\n" + changed))


@pytest.mark.parametrize("text", [MEANT, READ])
def test_what_is_kept_is_dropped_now_and_then(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_semantics, "_SPARE", 0)
    monkeypatch.setattr(expansion_cache, "MOST_OF_STATEMENT", 1)
    changed = [text.replace("conv_3x3(c", f"conv(k={number}, c") for number in (1, 3, 5, 7, 9)]
    same([*changed, text, text.replace("width=64", "width=32"), text, text.replace("norm=bn", "norm=gn"), text])


@pytest.mark.parametrize("turns", [8, 9, 10, 30])
def test_a_kept_statement_that_is_too_much_for_the_limit_of_layers(turns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported where it is in a text that is opened anew."""
    for module in (builder, infer, infer_shared):
        monkeypatch.setattr(module, "MAX_LAYERS", 60)
    more = MEANT.replace("    f = ", f"    repeat {turns} {{ w = relu(w) }}\n    f = ")
    same((MEANT, more, MEANT, more.replace("f = add(sep_3x3(e), ", "f = add(")))


def test_a_custom_layer_is_asked_anew_in_each_version() -> None:
    kept, text = KeptText(), MEANT.replace("t = conv_3x3(c4)", "t = tracked(c4)")
    with tracked_layer() as inferred:
        for number in (1, 2):
            assert analysis("#\n" * number + text, kept).checked.architecture is not None
            assert len(inferred) == number


def test_what_is_kept() -> None:
    """The programs of the statements that did not change, with their layers, wherever they stand."""
    kept = KeptText()
    programs = [
        [s for s in program.fpn.statements if isinstance(s, Assign)]
        for text in (MEANT, "# above\n" + MEANT.replace("b = conv_3x3(a)", "b = conv_1x1(a)"))
        if (program := analysis(text, kept).checked.program) is not None and program.fpn is not None
    ]
    same = {new.targets[0].name for old, new in zip(*programs, strict=True) if old is new and new.targets[0] is not None}
    assert same == {"t", "w", "v", "e", "f"}  # `k` of a is a `let`


@pytest.mark.parametrize("what", ["elaborate_expression.ExpressionElaborator.call", "infer.Inference.call"])
def test_a_kept_statement_is_not_computed_again(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptText()
    text = MEANT.replace("k=k, ", "k=1, ")
    analysis(text, kept)
    called: list[str] = []
    module, name, method = what.split(".")
    owner: Any = getattr(importlib.import_module(f"nasdsl.semantics.{module}"), name)
    own = getattr(owner, method)

    def recorded(self: Any, call: Any, *more: Any) -> Any:
        called.append(call.span.text)
        return own(self, call, *more)

    monkeypatch.setattr(owner, method, recorded)
    analysis(text.replace("b = conv_3x3(a)", "b = conv_1x1(a)"), kept)
    assert [c for c in called if "(c3" in c or "(e)" in c or "(w" in c] == []
    assert "conv_1x1(a)" in called


DEFINED = """choice path = mine | skip
op mine(x, width=width) = other(conv_3x3(x, width=width))
op other(x) = relu(x)
agg both(x, y) = mine(sum(x, y))
block pair(a, b) -> (l, r) {
  l = mine(a)
  r = both(l,
           b)
}
block open(a) -> (l, r) {
  l = ?path(a)
  r = conv(l, k=?(1 | 3))
}
decoder d {
  input c3, c4
  fpn(width=32) {
    u, v = pair(c3, c4)
    w = mine(u)
    s, t = open(w)
    y = both(w, v)
    z = ?path(y)
    output p3 = sum(z, mine(t, width=32)), p4 = s
  }
  head(width=32) { mine -> conv_3x3 }
  predict fcos
}
"""

OF_DEFINITIONS = (
    ("relu(x)", "tanh(x)"),
    ("conv_3x3(x, width=width)", "conv_1x1(x, width=16)"),
    ("op other(x) = relu(x)\n", ""),
    ("op other(x) = relu(x)\n", "op other(x) = mine(x)\n"),
    ("op other(x) = relu(x)\n", "op other(x) = relu(y)\n"),
    ("op other(x) = relu(x)\n", "op other(x) = relu(x)\nop relu(x) = tanh(x)\n"),
    ("op other(x) = relu(x)\n", "op other(x) = relu(x)\nop other(x) = tanh(x)\n"),
    ("op other(x) = relu(x)\n", "op other(x) = relu(\n"),
    ("choice path = mine | skip", "choice path = both | skip"),
    ("choice path = mine | skip", "choice path = mine | skip | conv_3x3"),
    ("choice path", 'use "none.nas"\nchoice path'),
    ("           b)", "           a)"),
    ("w = mine(u)", "w = mine(v)"),
    ("w = mine(u)", "w = mine(u, wide=3)"),
    ("w = mine(u)", "w = mine(u)\n    w2 = mine(w)"),
    ("w = mine(u)", "shared mine(x) = conv_1x1(x)\n    w = mine(u)"),
    ("w = mine(u)", "let mine = other\n    w = mine(u)"),
    ("width=32) {\n    u", "width=64) {\n    u"),
    ("mine -> conv_3x3", "other -> mine"),
    ("y = both(w, v)", "y = both(w)"),
)


@pytest.mark.parametrize("number", range(len(OF_DEFINITIONS)))
def test_a_definition_that_changes_or_stays(number: int) -> None:
    before, after = OF_DEFINITIONS[number]
    assert before in DEFINED
    assert analysis(DEFINED).checked.architecture is not None
    changed = DEFINED.replace(before, after)
    same((DEFINED, "# above\n" + DEFINED, changed, DEFINED))
    same((changed, "\n" + changed, DEFINED, "# above\n" + changed))


def test_definitions_that_stay_are_not_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptText()
    first = analysis(DEFINED, kept).checked
    monkeypatch.setattr("nasdsl.semantics.check.check_definitions", lambda *_: pytest.fail("they are checked again"))
    second = analysis(DEFINED.replace("w = mine(u)", "w = mine(v)"), kept).checked
    assert first.vocabulary is second.vocabulary
    assert first.program is not None
    assert second.program is not None
    assert first.program.fpn is not None
    assert second.program.fpn is not None
    named = {"y": [], "w": []}  # type: dict[str, list[Any]]
    for program in (first.program.fpn, second.program.fpn):
        for statement in program.statements:
            if isinstance(statement, Assign) and statement.targets[0] is not None and statement.targets[0].name in named:
                named[statement.targets[0].name].append(statement)
    assert named["y"][0] is named["y"][1], "an op of the text is as good as one of the package"
    assert named["w"][0] is not named["w"][1]


def test_a_word_that_some_fillings_have_as_a_value() -> None:
    text = """decoder d {
      input c3, c4
      fpn(width=32) {
        let e = 16
        x = c3
        repeat t in 1..?(1 | 2) { x = conv_3x3(x) }
        repeat t in 1..?(0 | 1) { e = c4 }
        y = conv(c3, k=1, width=e)
        output p3 = conv_1x1(add(x, conv_1x1(y)))
      }
      head(width=32) { conv_3x3 }
      predict fcos
    }
    """
    edited = (text, text + "\n", text.replace("k=1", "k=3"), text.replace("e = c4", "f = c4"), text)
    assert all(analysis(each).checked.architecture is not None for each in edited)
    same(edited)


@pytest.mark.parametrize("text", [MEANT, DEFINED, READ])
def test_versions_with_a_table_of_names_and_versions_without(text: str) -> None:
    """What one without has kept is no reason to leave names out."""

    def entered(table: NameTable) -> Any:
        found = [(at, o) for (source, at), o in table.occurrences.items() if source.name == "t.nas"]
        return sorted((at, o.is_definition, [(s.kind, s.name) for s in o.symbols]) for at, o in found)

    kept = KeptText()
    changed = text.replace("let unit = conv_3x3", "let unit = conv_1x1").replace("let k = 3", "let k = 5")
    for version, has_table in ((text, False), (changed, False), (changed, True), (text, True), (text, False), (text, True)):
        table, new = (NameTable(), NameTable()) if has_table else (None, None)
        checked = check_source(Source("t.nas", version), names=table, kept=kept)
        expected = check_source(Source("t.nas", version), names=new)
        assert checked.problems == expected.problems == []
        assert checked.architecture is not None
        assert expected.architecture is not None
        assert [a.layer for a in checked.architecture.fpn.applications] == [
            a.layer for a in expected.architecture.fpn.applications
        ]
        assert (table is None) == (new is None)
        if table is not None and new is not None:
            assert entered(table) == entered(new)
