"""The table of names: each name of a text has an entry, and refers to what the language says."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_docs import LANGUAGE, fences, framed
from zoo_files import ZOO

from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.semantics.resolved_names import NameTable, Occurrence
from nasdsl.syntax.lexer import scan

ROOT = Path(__file__).parents[2]
SPACES = sorted((ROOT / "genotypes" / "spaces").glob("*.nas"))


def names_of(text: str, path: Path | None = None) -> tuple[Source, NameTable]:
    source, table = Source("t.nas", text), NameTable()
    outcome = check_source(source, path=path, names=table)
    assert not [p for p in outcome.problems if p.severity == "error"], outcome.problems
    return source, table


def at(table: NameTable, source: Source, text: str, number: int = 0) -> Occurrence:
    """The entry of the word that begins where `text` stands for the n-th time."""
    offset = -1
    for _ in range(number + 1):
        offset = source.text.index(text, offset + 1)
    found = table.at(source, offset)
    assert found is not None, text
    return found


def lines_of(table: NameTable, occurrence: Occurrence) -> list[int]:
    """Lines of all places that name the same."""
    return [o.span.line for o in table.occurrences_of(occurrence.symbols)]


@pytest.mark.parametrize("path", [*ZOO, *SPACES, ROOT / "grammars" / "prelude.nas"], ids=lambda p: p.stem)
def test_each_name_of_the_zoo_refers_to_something(path: Path) -> None:
    source, table = names_of(path.read_text(encoding="utf-8"), path)
    for token in scan(source, []):
        if token.type == "NAME":
            found = table.at(source, token.start)
            assert found is not None, token.span
            assert found.span == token.span
            assert len(found.symbols) == len({(s.kind, s.name, s.span, s.owner) for s in found.symbols}), (
                "one thing is one symbol"
            )
            for symbol in found.symbols:
                stem = symbol.name.rstrip("0123456789") if symbol.name != token.value else symbol.name
                assert token.value == stem, (token.span, symbol)
                assert symbol.span is None or symbol.name.startswith(symbol.span.text)


def test_each_name_of_the_language_page_refers_to_something(tmp_path: Path) -> None:
    examples = [f for f in fences(LANGUAGE.read_text()) if f.words[:1] == ("nas",) and "wrong" not in f.words]
    for fence in examples:
        if fence.file:
            (tmp_path / fence.file).write_text(fence.text)
    assert len(examples) > 30
    for fence in examples:
        if "shuffle(" in fence.text:  # calls a primitive that another example registers
            continue
        source, table = names_of(framed(fence), tmp_path / "t.nas")
        missing = [t.span for t in scan(source, []) if t.type == "NAME" and table.at(source, t.start) is None]
        assert not missing, (fence.line, [m.text for m in missing])


HEAD = "head(width=64) { conv_3x3 } predict fcos }"


def test_a_value_is_the_one_of_its_body() -> None:
    text = f"""block pair(x, y) -> (z) {{ z = sum(x, y) }}
decoder d {{ input c3, c4
  fpn(width=64) {{
    x = conv_3x3(c3)
    z = pair(x, c4)
    repeat 2 {{ z = sum(z, x) }}
    output p3 = z
  }}
  {HEAD}"""
    source, table = names_of(text)
    assert lines_of(table, at(table, source, "x, y")) == [1, 1]
    assert lines_of(table, at(table, source, "x = conv")) == [4, 5, 6]
    assert lines_of(table, at(table, source, "z = pair")) == [5, 6, 6, 7]
    assert lines_of(table, at(table, source, "pair(x, y)")) == [1, 5]
    assert lines_of(table, at(table, source, "c3", 1)) == [2, 4]


def test_numbered_names_are_one_family() -> None:
    text = f"""decoder d {{ input c3
  fpn(width=64) {{
    n0 = skip(c3)
    repeat t in 1..3 {{ n[t] = conv_3x3(n[t - 1]) }}
    n = conv_1x1(c3)
    output p3 = sum(n1, sum(n[3], n))
  }}
  {HEAD}"""
    source, table = names_of(text)
    assert [s.name for s in at(table, source, "n[t]").symbols] == ["n1", "n2", "n3"]
    assert [s.name for s in at(table, source, "n[t - 1]").symbols] == ["n0", "n1", "n2"]
    assert lines_of(table, at(table, source, "n0")) == [3, 4, 4, 6, 6]
    assert lines_of(table, at(table, source, "n = ")) == [5, 6]
    assert lines_of(table, at(table, source, "t in")) == [4, 4, 4]


def test_words_are_those_in_force() -> None:
    text = f"""op wide(x, k=3) = conv(x, k=k, width=width)
decoder d {{ input c3, c4
  let k = 5
  fpn(width=64) {{
    a = wide(c3, k=k)
    let k = 3
    let op_of = sep_3x3
    b = op_of(wide(c4, k=k))
    c = resize(b, to=a, mode=nearest)
    output p3 = sum(a, c)
  }}
  {HEAD}"""
    source, table = names_of(text)
    assert lines_of(table, at(table, source, "k = 5")) == [3, 5]
    assert lines_of(table, at(table, source, "k = 3")) == [6, 8]
    assert lines_of(table, at(table, source, "k=3")) == [1, 1, 5, 8]
    assert lines_of(table, at(table, source, "op_of =")) == [7, 8]
    assert lines_of(table, at(table, source, "a = wide")) == [5, 9, 10]
    assert at(table, source, "width=width").symbols[0].owner == "conv"
    assert at(table, source, "width)").symbols[0].kind == "section"
    assert at(table, source, "nearest").symbols[0].kind == "word"
    assert at(table, source, "sep_3x3").symbols[0].kind == "op"


def test_alternatives_of_choices_and_holes() -> None:
    text = f"""choice mix = conv_3x3 | sep_3x3(bias=true)
block twice(x, unit=conv_1x1) -> (y) {{ y = unit(unit(x)) }}
decoder d {{ input c3, c4
  fpn(width=64) {{
    a = ?mix(?pool)
    b = twice(?(a | c4), unit=?(sep_3x3 | conv_3x3))
    output p3 = sum(a, b)
  }}
  {HEAD}"""
    source, table = names_of(text)
    assert lines_of(table, at(table, source, "mix =")) == [1, 5]
    assert at(table, source, "pool").symbols[0].kind == "pool"
    assert lines_of(table, at(table, source, "a = ?mix")) == [5, 6, 7]
    assert lines_of(table, at(table, source, "unit=conv_1x1")) == [2, 2, 2, 6]
    assert at(table, source, "conv_3x3").symbols[0].kind == "op"


def test_words_that_are_read_by_way_of_another_name() -> None:
    """A choice that fills an attribute has its words, a let of a value is that value, and one of an op stays a let."""
    text = f"""choice norms = gn | none
choice units = sep_3x3 | conv_1x1
op pass(x, o=relu) = o(x)
decoder d {{ input c3, c4
  let unit = conv_3x3
  fpn(width=64, adapter=unit) {{
    a = conv(c3, k=3, norm=?norms)
    let b = c4
    let u = ?units
    c = sum(pass(a, o=?units), b)
    output p3 = u(c)
  }}
  {HEAD}"""
    source, table = names_of(text)
    assert [s.kind for s in at(table, source, "gn |").symbols] == ["word"]
    assert [s.kind for s in at(table, source, "sep_3x3").symbols] == ["op"]
    assert lines_of(table, at(table, source, "c4", 1)) == [4, 8]
    assert [(s.kind, s.name) for s in at(table, source, "unit)").symbols] == [("let", "unit")]


def test_names_of_used_files_are_theirs(tmp_path: Path) -> None:
    (tmp_path / "ops.nas").write_text("op conv_3x3(x) = conv(x, k=3)\nop two(x) = conv_3x3(conv_3x3(x))\n")
    text = f"""use "ops.nas"
decoder d {{ input c3
  fpn(width=64) {{ output p3 = two(sep_3x3(c3)) }}
  {HEAD}"""
    source, table = names_of(text, tmp_path / "t.nas")
    two, sep = at(table, source, "two(").symbols[0], at(table, source, "sep_3x3").symbols[0]
    assert two.span is not None
    assert two.span.source.name == "ops.nas"
    assert sep.span is not None
    assert sep.span.source.name == "prelude.nas"
    inner = at(table, two.span.source, "conv_3x3(conv").symbols[0].span
    assert inner is not None
    assert (inner.source.name, inner.line) == ("ops.nas", 1)


def test_a_check_without_a_table_finds_the_same() -> None:
    text = (ROOT / "examples" / "mistakes.nas").read_text()
    without, with_table = check_source(Source("t", text)), check_source(Source("t", text), names=NameTable())
    assert [p.to_json() for p in without.problems] == [p.to_json() for p in with_table.problems]
