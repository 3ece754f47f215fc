"""What is kept of earlier versions of a text changes nothing: each version is read as by a parser that starts anew."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from edited_texts import DAMAGE, texts, versions

from nasdsl.diagnostics import Diagnostic, Source, Span
from nasdsl.diagnostics.span import Moving
from nasdsl.syntax import ast
from nasdsl.syntax.kept import KeptSyntax
from nasdsl.syntax.lexer import scan
from nasdsl.syntax.parser import Parsed, parse

TEXTS = texts()


def plain(value: Any, source: Source) -> Any:
    """A tree or a finding without objects that differ from one parse to the next: spans as offsets."""
    if isinstance(value, Span):
        assert value.source is source
        return value.start, value.end
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__name__, *(plain(getattr(value, field.name), source) for field in fields(value))
    return tuple(plain(part, source) for part in value) if isinstance(value, tuple | list) else value


def read(parsed: Parsed, source: Source) -> Any:
    return plain(parsed.file, source), plain(parsed.problems, source), parsed.lost


def same(text: str, kept: KeptSyntax) -> None:
    """The tokens, the tree, its spans and the findings are those of a parser that starts anew."""
    source, other = Source("t.nas", text), Source("t.nas", text)
    assert read(parse(source, kept), source) == read(parse(other), other)
    tokens = [(t.type, t.value, t.start, t.end) for line in kept.lines for t in line.tokens]
    problems: list[Diagnostic] = []
    assert tokens == [(t.type, t.value, t.start, t.end) for t in scan(other, problems)]


@pytest.mark.parametrize("name", TEXTS)
def test_edits(name: str) -> None:
    kept = KeptSyntax()
    for text in versions(TEXTS[name], 1, 5):
        same(text, kept)


@pytest.mark.long
@pytest.mark.parametrize("name", TEXTS)
def test_many_edits(name: str) -> None:
    kept = KeptSyntax()
    for text in versions(TEXTS[name], 3, 60):
        same(text, kept)


SHORT = """choice op = conv_3x3 | skip
block pair(a, b) -> (l, r) {
  shared f(x) = conv_3x3(x)
  l = f(a)
  r = sum(l,
          f(b))
}
decoder d {
  input c3, c4
  detector(size=240x320)
  require latency <= 15ms on torch
  fpn(width=64) {
    x, y = pair(c3, c4)
    z = ?op(x)
    output p3 = z, p4 = y
  }
  head { conv_3x3 -> ?op }
  predict fcos
}
"""


@pytest.mark.parametrize("damage", DAMAGE)
def test_each_damage_behind_lines(damage: str) -> None:
    """Put in, and taken back: what was kept under the damage must not stay."""
    kept = KeptSyntax()
    ends = [at for at, c in enumerate(SHORT) if c == "\n"]
    for number in (0, 3, 8, 14):
        at = ends[number]
        same(SHORT, kept)
        same(SHORT[:at] + damage + SHORT[at:], kept)
        same("# above\n" + SHORT[:at] + damage + SHORT[at:], kept)
        same(SHORT[:at] + damage + SHORT[at + 1 :], kept)


def test_spans_are_equal_where_they_cover_the_same_characters() -> None:
    """Whatever they count from; and equal to nothing else."""
    source = Source("t.nas", "x = c3\ny = c4\n")
    span, moving = source.span(7, 8), Span(Moving(source, 7), 0, 1)
    assert span == moving
    assert len({span, moving}) == 1
    others = (Span(Moving(source, 7), 1, 2), Source("t.nas", source.text).span(7, 8), None, "y", (7, 8))
    assert all(span != other and moving != other for other in others)


def test_what_is_kept() -> None:
    """Of a changed statement its own node is new, and no other; all spans are those of the new text."""
    kept = KeptSyntax()
    before = parse(Source("t.nas", SHORT), kept).file
    moved = "# above\n" + SHORT
    parse(Source("t.nas", moved), kept)
    after = parse(Source("t.nas", moved.replace("z = ?op(x)", "z = skip(x)")), kept).file
    assert before.items[0] is after.items[0]
    assert before.items[1] is after.items[1]
    assert after.items[1].span.text.startswith("block pair")
    old, new = (next(i for i in f.items if isinstance(i, ast.Decoder)) for f in (before, after))
    assert [a is b for a, b in zip(old.items, new.items, strict=True)] == [True, True, True, False, False, True]
    fpns = [next(i for i in d.items if isinstance(i, ast.Fpn)) for d in (old, new)]
    assert [a is b for a, b in zip(fpns[0].body, fpns[1].body, strict=True)] == [True, False, True]


def test_what_was_kept_of_a_text_that_became_short_is_dropped() -> None:
    kept = KeptSyntax()
    long = "decoder d {\n  fpn {\n" + "".join(f"    x{number} = skip(c3)\n" for number in range(20)) + "  }\n}"
    same(long, kept)
    tokens = [token for line in kept.lines for token in line.tokens]
    assert any(map(kept.begins_piece, tokens))
    same("decoder d { }", kept)
    assert not any(map(kept.begins_piece, tokens))
    same(long, kept)


def test_a_line_that_is_gone_takes_its_statement_along() -> None:
    """A statement of several lines has the same first and last line, and not the same between: also if only its end moves."""
    kept = KeptSyntax()
    lines = ["decoder d {", "  fpn {", "    x = sum(c3,", "      c4,", "      c5)", "    output p3 = x", "  }", "}"]
    same("\n".join(lines), kept)
    same("\n".join([*lines[:4], "      # a comment", *lines[4:]]), kept)
    same("\n".join(lines), kept)
    same("\n".join([*lines[:3], "      c2,", *lines[4:]]), kept)
    same("\n".join([*lines[:3], *lines[4:]]), kept)
    same("\n".join([*lines[:3], "      c2,", *lines[4:]]), kept)
    same("\n".join([*lines[:3], "      c2,", *lines[3:]]), kept)


@pytest.mark.parametrize("word", ["shared", "detector", "15ms on"])
def test_the_last_word_of_a_line_is_what_the_next_line_makes_it(word: str) -> None:
    statement, item = KeptSyntax(), KeptSyntax()
    for behind in ("f(x) = skip(x)", "= c3", "(size=1x1)", "torch", ""):
        same(f"decoder d {{\n  fpn {{\n    x = c3\n    {word}\n    {behind}\n  }}\n}}", statement)
        same(f"decoder d {{\n  require latency <= 15ms\n  {word}\n  {behind}\n}}", item)


def test_a_statement_that_goes_on_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tokens are kept and its node is not, so that there is no error to recover from."""
    monkeypatch.setattr("nasdsl.syntax.recovery._Recovery.run", lambda _: pytest.fail("an error in a right text"))
    for end in ("(centerness=cls)\n", ""):
        kept = KeptSyntax()
        for text in ("decoder d { predict fcos\n}", f"decoder d {{ predict fcos\n{end}}}"):
            same(text, kept)


def test_a_block_whose_lines_changed_while_it_had_mistakes() -> None:
    """As many tokens between the same first and last line are not the same tokens: an earlier node stays away."""
    kept = KeptSyntax()
    for text in list(versions(TEXTS["genotypes/nas_fpn"], 3, 143))[122:]:
        same(text, kept)
