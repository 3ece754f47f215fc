"""Printing a tree and parsing the text gives an equal tree, in both forms."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import fields
from typing import TypeVar, get_args

import pytest
import random_decoders
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo_files import ZOO

from nasdsl import resources
from nasdsl.diagnostics import Source, Span
from nasdsl.syntax import ast
from nasdsl.syntax.build import duration_value
from nasdsl.syntax.lexer import RESERVED
from nasdsl.syntax.parser import parse
from nasdsl.syntax.printer import print_expression, print_file, print_statement
from nasdsl.syntax.unparse import duration_text

SHIPPED = {path.stem: path.read_text(encoding="utf-8") for path in [*ZOO, *ZOO[0].parent.glob("spaces/*.nas")]} | {
    "prelude": resources.read("grammars", "prelude.nas")
}
_T = TypeVar("_T")
_HERE = Span(Source("<made>", ""), 0, 0)
_WORDS = ("x", "x1", "c5", "p3", "conv_3x3", "a_rather_long_name_of_a_feature", "_", "K", "x3x", "ops", "inputs", "detector")


def tree(text: str) -> ast.File:
    parsed = parse(Source("t.nas", text))
    assert parsed.problems == []
    return parsed.file


class Trees:
    """Random trees of all kinds of nodes, each of which some text parses to."""

    def __init__(self, seed: int, size: int) -> None:
        self.rng = random.Random(seed)
        self.size = size  # longest list

    def some(self, make: Callable[[], _T], least: int = 1, most: int | None = None) -> tuple[_T, ...]:
        return tuple(make() for _ in range(self.rng.randint(least, most or max(least, self.size))))

    def maybe(self, make: Callable[[], _T]) -> _T | None:
        return make() if self.rng.random() < 0.5 else None

    def name(self) -> str:
        return self.rng.choice(_WORDS)

    def any_word(self) -> str:
        return self.rng.choice([*_WORDS, *RESERVED])

    def number(self) -> ast.Number:
        text = self.rng.choice(["0", "3", "007", "120G", "1.5", "2.25M", "4K", "999999999999999999"])
        return tree(f"choice a = {text}").items[0].alternatives[0]  # type: ignore[union-attr, return-value]

    def hole(self, depth: int) -> ast.Hole:
        kind = self.rng.randrange(3 if depth > 0 else 1)
        if kind == 0:
            return ast.NamedHole(_HERE, self.any_word())
        if kind == 1:
            return ast.ChoiceHole(_HERE, *self.alternatives(depth - 1))
        return ast.RangeHole(_HERE, self.attribute(depth - 1), self.attribute(depth - 1))

    def reference(self, depth: int) -> ast.Reference:
        return ast.Reference(_HERE, self.name(), self.maybe(lambda: self.attribute(depth - 1)) if depth > 0 else None)

    def target(self) -> ast.Target:
        return ast.Target(_HERE, self.name(), self.maybe(lambda: self.attribute(1)))

    def setting(self, depth: int) -> ast.Setting:
        return ast.Setting(_HERE, self.name(), _HERE, self.attribute(depth - 1))

    def operand(self, depth: int) -> ast.Operand:
        kind = self.rng.randrange(4)
        if depth <= 0 or kind == 0:
            return self.reference(depth)
        if kind == 1:
            return self.hole(depth)
        operands = self.some(lambda: self.attribute(depth - 1) if self.rng.random() < 0.1 else self.operand(depth - 1), 0)
        callee = self.name() if self.rng.random() < 0.8 else self.hole(depth - 1)
        attributes = self.some(lambda: self.setting(depth), 0 if operands else 1)
        return ast.Call(_HERE, callee, _HERE, operands, attributes, self.rng.random() < 0.1)

    def literal(self) -> ast.Number | ast.Size | ast.Text:
        kind = self.rng.randrange(4)
        if kind == 0:
            return ast.Size(_HERE, self.rng.choice([0, 1, 240]), self.rng.choice([1, 320]))
        return ast.Text(_HERE, self.rng.choice(["resnet50_v1.5", "timm:a; b # {", ""])) if kind == 1 else self.number()

    def alternative(self, depth: int) -> ast.Alternative:
        if self.rng.random() < 0.2:
            return ast.Chain(_HERE, self.some(lambda: self.link(depth), 2))
        return self.link(depth)

    def link(self, depth: int) -> ast.Link:
        kind = self.rng.randrange(10)
        if kind == 0:
            called = ast.Call(_HERE, self.name(), _HERE, (), self.some(lambda: self.setting(depth)))
            return ast.Arithmetic(_HERE, "*", called, self.factor(depth))
        if kind == 1:
            return self.attribute(depth)
        return self.literal() if kind < 4 else self.operand(depth)

    def attribute(self, depth: int) -> ast.Attribute:
        value = self.term(depth)
        for _ in range(self.rng.choice([0, 0, 0, 1, 2])):
            value = ast.Arithmetic(_HERE, self.rng.choice("+-"), value, self.term(depth))
        return value

    def term(self, depth: int) -> ast.Attribute:
        value = self.factor(depth)
        for _ in range(self.rng.choice([0, 0, 0, 1, 2])):
            value = ast.Arithmetic(_HERE, self.rng.choice("*/"), value, self.factor(depth))
        return value

    def factor(self, depth: int) -> ast.Attribute:
        kind = self.rng.randrange(5 if depth > 0 else 2)
        if kind < 2:
            return (self.literal, lambda: self.reference(depth))[kind]()
        if kind == 2:
            return self.hole(depth)
        return ast.Negative(_HERE, self.factor(depth - 1)) if kind == 3 else ast.Group(_HERE, self.attribute(depth - 1))

    def let(self) -> ast.Let:
        return ast.Let(_HERE, self.name(), _HERE, self.attribute(2))

    def statement(self, depth: int) -> ast.Statement:
        kind = self.rng.randrange(7 if depth > 0 else 6)
        if kind < 2:
            return ast.Assign(_HERE, self.some(self.target), self.operand(3))
        if kind == 2:
            return ast.Output(_HERE, self.some(lambda: ast.OutputBinding(_HERE, self.name(), _HERE, self.operand(2))))
        if kind == 3:
            return ast.Merge(_HERE, self.some(lambda: self.reference(1)))
        if kind == 4:
            return self.let()
        if kind == 5:
            return ast.OpDef(_HERE, "shared", self.name(), _HERE, self.some(self.parameter), self.operand(2))
        variable = self.maybe(self.name)
        first = None if variable is None else self.attribute(1)
        return ast.Repeat(_HERE, variable, first, self.attribute(1), self.body(depth - 1))

    def body(self, depth: int = 2) -> tuple[ast.Statement, ...]:
        return self.some(lambda: self.statement(depth), 0)

    def step(self) -> ast.Step:
        times = self.factor(1) if self.rng.random() < 0.3 else None
        if self.rng.random() < 0.2:
            return ast.Step(_HERE, self.hole(2), (), times)
        return ast.Step(_HERE, self.name(), self.some(lambda: self.setting(2), 0, 2), times)

    def section(self) -> ast.Fpn | ast.Head:
        attributes = self.some(lambda: self.setting(2), 0)
        source = self.rng.choice(["a.nas", "not # a comment.nas", "a; b{}.nas", "\N{GREEK SMALL LETTER PI} '.nas"])
        if self.rng.random() < 0.5:
            elsewhere = self.rng.random() < 0.3
            return ast.Fpn(_HERE, attributes, () if elsewhere else self.body(), source if elsewhere else None)
        if self.rng.random() < 0.3:
            return ast.Head(_HERE, attributes, (), source)
        if self.rng.random() < 0.5:
            return ast.Head(_HERE, attributes, (ast.Tower(_HERE, None, self.some(self.step)),))
        return ast.Head(_HERE, attributes, self.some(lambda: ast.Tower(_HERE, self.name(), self.some(self.step))))

    def decoder_item(self) -> ast.DecoderItem:
        kind = self.rng.randrange(7)
        if kind == 0:
            return ast.Input(_HERE, self.names())
        if kind == 6:
            return ast.Detector(_HERE, self.some(lambda: self.setting(2)))
        if kind == 1:
            return self.let()
        if kind == 2:
            comparison, size = self.rng.choice(["<=", ">=", "<", ">", "=="]), self.rng.choice([None, (800, 1088)])
            subject = self.maybe(lambda: ast.Reference(_HERE, self.name()))
            bound, runtime = self.number(), None
            if subject is None and self.rng.random() < 0.3:
                text = self.rng.choice(["15ms", "1.50s", "250us", "0.7ms"])
                bound = ast.Duration(_HERE, duration_value(text), self.rng.choice([text, ""]))
                runtime = self.maybe(lambda: ast.Reference(_HERE, self.name()))
            return ast.Require(_HERE, self.name(), _HERE, comparison, bound, size, subject, runtime)
        if kind == 3:
            return ast.Predict(_HERE, self.name(), _HERE, self.some(lambda: self.setting(1), 0))
        return self.section()

    def names(self) -> tuple[ast.InputName, ...]:
        return self.some(lambda: ast.InputName(_HERE, self.name()))

    def alternatives(self, depth: int) -> tuple[tuple[ast.Alternative, ...], tuple[ast.Number | None, ...]]:
        found = self.some(lambda: self.alternative(depth))
        weights = tuple(self.maybe(self.number) for _ in found)
        return found, weights if any(weights) else ()

    def parameter(self) -> ast.Parameter:
        return ast.Parameter(_HERE, self.name(), self.maybe(lambda: self.attribute(1)))

    def definition(self) -> ast.Definition:
        kind = self.rng.randrange(6)
        if kind == 0:
            return ast.Use(_HERE, self.rng.choice(["a.nas", "dir/b # c.nas", ""]))
        if kind < 3:
            name, parameters = self.name(), self.some(self.parameter)
            return ast.OpDef(_HERE, self.rng.choice(["op", "agg"]), name, _HERE, parameters, self.operand(3))
        if kind == 3:
            return ast.ChoiceDef(_HERE, self.any_word(), _HERE, *self.alternatives(1))
        if kind == 4:
            return ast.BlockDef(_HERE, self.name(), _HERE, self.some(self.parameter), self.names(), self.body())
        return ast.Decoder(_HERE, self.name(), _HERE, self.some(self.decoder_item, 0))

    def file(self) -> ast.File:
        return ast.File(_HERE, self.some(self.definition, 0))


def random_file(seed: int, size: int) -> ast.File:
    return Trees(seed, size).file()


def _kinds(node: object) -> set[type]:
    if isinstance(node, tuple) and not isinstance(node, Span):
        return {kind for part in node for kind in _kinds(part)}
    if not isinstance(node, ast.Node):
        return set()
    return {type(node)}.union(*(_kinds(getattr(node, field.name)) for field in fields(node)))


def test_random_trees_have_every_kind_of_node() -> None:
    found: set[type] = set().union(*(_kinds(random_file(seed, 5)) for seed in range(100)))
    unions = (ast.Definition, ast.DecoderItem, ast.Statement, ast.Operand, ast.Attribute, ast.Alternative)
    assert {kind for union in unions for kind in get_args(union)} <= found
    assert {ast.Setting, ast.Target, ast.Step, ast.Tower, ast.Parameter, ast.OutputBinding, ast.InputName} <= found


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.integers(1, 9))
def test_any_tree_reads_as_it_was_printed(seed: int, size: int) -> None:
    file = random_file(seed, size)
    text, line = print_file(file), print_file(file, one_line=True)
    assert tree(text) == file
    assert tree(line) == file
    assert "\n" not in line
    assert not any(row.endswith(" ") for row in text.split("\n"))
    assert print_file(tree(line)) == text  # numbers as they were written, in both


@pytest.mark.parametrize("text", [*SHIPPED.values(), *map(random_decoders.text, range(40))])
def test_real_texts(text: str) -> None:
    file = tree(text)
    assert tree(print_file(file)) == tree(print_file(file, one_line=True)) == file


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32))
def test_parts_print_as_in_the_whole(seed: int) -> None:
    trees = Trees(seed, 4)
    value, statement = trees.operand(3), trees.statement(2)
    assert tree(f"op f(x) = {print_expression(value)}").items[0].body == value  # type: ignore[union-attr]
    block = tree(f"block b(x) -> (y) {{ {print_statement(statement)} }}").items[0]
    assert block.body == (statement,)  # type: ignore[union-attr]


def test_one_line_form() -> None:
    text = """\
use "a.nas"  # a comment
op f(x, k=3) = conv(x, k=k)
decoder d {
  input c3, c4
  let n = 2*3
  fpn() {
    repeat t in 1..n { x[t] = ?(f | g)(c3, c[t-1], k=n+1) } repeat t in 1..n - 1 {}
    a, b = pair(c3, c4); repeat 2 { a = f(a) b = f(b) }
    output p3 = a
  }
  head(share=?(0..2)) { cls: conv_1x1 -> ?op box: conv_3x3(bias=true) }
  predict fcos()
}
"""
    assert print_file(tree(text), one_line=True) == (
        'use "a.nas" op f(x, k=3) = conv(x, k=k) decoder d { input c3, c4; let n = 2 * 3; fpn { '
        "repeat t in 1..n { x[t] = ?(f | g)(c3, c[t-1], k=n + 1) } repeat t in 1..n-1 {} a, b = pair(c3, c4); "
        "repeat 2 { a = f(a); b = f(b) } output p3 = a } "
        "head(share=?(0..2)) { cls: conv_1x1 -> ?op box: conv_3x3(bias=true) } predict fcos }"
    )
    assert print_file(ast.File(_HERE, ()), one_line=True) == print_file(ast.File(_HERE, ())) == ""


WIDE = """\
op long_one(x, width=width, norm=norm, act=act, bias=auto, dilation=dilation, groups=long_name, stride=long_name) = f(x)
op long_two(x) = outer_operation(first_inner_operation(x, dilation=long_name), second_inner_operation(x, k=1+long_name))
choice alternatives = long_one | long_two | long_three | long_four | long_five | long_six | long_seven | long_eight | n
decoder d {
  input long_one, long_two, long_three, long_four, long_five, long_six, long_seven, long_eight
  fpn(first=long_value, second=long_value, third=long_value, fourth=long_value, fifth=long_value, width=64) {
    long_one, long_two, long_three, long_four, long_five, long_six, long_seven, long_eight = pair(x, y)
    x = concat(long_one, long_two, long_three, long_four, long_five, long_six, long_seven, long_eight)
    x = outermost(outer(inner(long_one, long_two, long_three), inner(long_four, long_five, long_six)), long_seven)
    output p3 = operation(long_one), p4 = operation(long_two), p5 = operation(long_three, k=3)
    merge dangling into long_one, long_two, long_three, long_four, long_five, long_six, long_seven, long_eight
    let k = long_one + long_two * long_three + long_four + long_five + long_six + long_seven * long_eight
    repeat 2 { x = concat(long_one, long_two, long_three, long_four, long_five, long_six, long_seven) }
  }
  head {
    conv_3x3(b=long_one) -> conv_3x3(b=long_two) -> conv_3x3(b=long_three) -> conv_3x3(b=long_four) -> conv_3x3
  }
  head {
    cls: conv_3x3(b=long_one) -> conv_3x3(b=long_two) -> conv_3x3(b=long_three) -> conv_3x3(b=long_four) -> conv_3x3
  }
}
""".replace("long", "quite_a_long_name")

WIDE_BROKEN = """\
op long_one(
  x, width=width, norm=norm, act=act, bias=auto, dilation=dilation, groups=long_name,
  stride=long_name
) = f(x)
op long_two(x) = outer_operation(
  first_inner_operation(x, dilation=long_name),
  second_inner_operation(x, k=1 + long_name)
)

choice alternatives = long_one | long_two | long_three | long_four |
    long_five | long_six | long_seven | long_eight | n

decoder d {
  input long_one, long_two, long_three, long_four,
      long_five, long_six, long_seven, long_eight

  fpn(
    first=long_value, second=long_value, third=long_value,
    fourth=long_value, fifth=long_value, width=64
  ) {
    long_one, long_two, long_three, long_four,
        long_five, long_six, long_seven, long_eight = pair(x, y)
    x = concat(
      long_one, long_two, long_three, long_four,
      long_five, long_six, long_seven, long_eight
    )
    x = outermost(
      outer(
        inner(long_one, long_two, long_three),
        inner(long_four, long_five, long_six)
      ),
      long_seven
    )
    output p3 = operation(long_one),
        p4 = operation(long_two),
        p5 = operation(long_three, k=3)
    merge dangling into long_one, long_two, long_three, long_four,
        long_five, long_six, long_seven, long_eight
    let k = long_one + long_two * long_three + long_four +
        long_five + long_six + long_seven * long_eight
    repeat 2 {
      x = concat(
        long_one, long_two, long_three, long_four,
        long_five, long_six, long_seven
      )
    }
  }

  head {
    conv_3x3(b=long_one) -> conv_3x3(b=long_two) -> conv_3x3(b=long_three) ->
    conv_3x3(b=long_four) -> conv_3x3
  }

  head {
    cls: conv_3x3(b=long_one) -> conv_3x3(b=long_two) ->
        conv_3x3(b=long_three) -> conv_3x3(b=long_four) -> conv_3x3
  }
}
""".replace("long", "quite_a_long_name")


def test_wide_statements_are_broken() -> None:
    text = print_file(tree(WIDE))
    assert text == WIDE_BROKEN
    assert max(map(len, text.split("\n"))) <= 120


def test_long_sums_and_deep_trees_print() -> None:
    """Longer and deeper than any text that is parsed, and than the interpreter's stack."""
    one = ast.Number(_HERE, 1, "1")
    total: ast.Attribute = one
    signed: ast.Attribute = one
    for _ in range(20_000):
        total, signed = ast.Arithmetic(_HERE, "+", total, one), ast.Negative(_HERE, signed)
    for value, text in ((total, "1" + "+1" * 20_000), (signed, "-" * 20_000 + "1")):
        assert "".join(print_expression(value).split()) == text
        file = ast.File(_HERE, (ast.Decoder(_HERE, "d", _HERE, (ast.Let(_HERE, "k", _HERE, value),)),))
        assert "".join(print_file(file).split()) == f"decoderd{{letk={text}}}"
    for start, end in (("op f(x) = " + "f(" * 98, "x" + ")" * 98), ("decoder d { fpn { " + "repeat 2 {" * 97, "}" * 99)):
        file = tree(start + end)
        assert tree(print_file(file)) == tree(print_file(file, one_line=True)) == file


def test_trees_that_the_parser_never_makes() -> None:
    """Trees that the parser never makes keep their value; what a text cannot express is refused."""
    one, two = ast.Number(_HERE, 1, ""), ast.Number(_HERE, 0.5, "7")
    total = ast.Arithmetic(_HERE, "+", one, two)
    assert print_expression(ast.Arithmetic(_HERE, "*", total, total)) == "(1 + 0.5) * (1 + 0.5)"
    assert print_expression(ast.Arithmetic(_HERE, "-", one, ast.Arithmetic(_HERE, "-", one, two))) == "1 - (1 - 0.5)"
    assert print_expression(ast.Negative(_HERE, total)) == "-(1 + 0.5)"
    assert print_expression(ast.Number(_HERE, 1e-7, "")) == "0.0000001"
    for seconds, text, unit in ((0.015, "3s", "ms"), (2, "x", "s"), (0.0000025, "", "us"), (1e-9, "", "us")):
        printed = duration_text(ast.Duration(_HERE, seconds, text))
        assert duration_value(printed) == seconds
        assert printed.lstrip("0123456789.") == unit
    for path in ('a".nas', "a\nb.nas"):
        with pytest.raises(ValueError, match="a text cannot hold"):
            print_file(ast.File(_HERE, (ast.Use(_HERE, path),)))
