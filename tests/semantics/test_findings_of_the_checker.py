"""Where the checker's findings point, how often each is made, and what it does not say because it cannot know."""

from __future__ import annotations

from pathlib import Path

import pytest
from findings import checked, fixed

from nasdsl.decoder import check_source, loads
from nasdsl.diagnostics import Diagnostic, Source
from nasdsl.semantics import builder, elaborate_chain, infer, infer_head, infer_shared, primitives
from nasdsl.semantics.attributes import Accepts
from nasdsl.semantics.builder import MAX_LAYERS
from nasdsl.semantics.conditions import MAX_DEPENDENCIES
from nasdsl.semantics.elaborate_attribute import MAX_NESTED_HOLES
from nasdsl.semantics.elaborate_expression import MAX_CALLS
from nasdsl.semantics.elaborate_reference import MOST_GUESSES
from nasdsl.semantics.signature import accepted
from nasdsl.semantics.vocabulary import Op, prelude

POOLED = "x = global_pool(c3, kind=avg)"
AFTER = "\n} head(width=64, norm=gn) { conv_3x3 } predict fcos(centerness=cls) }"


def text(body: str, before: str = "", section: str = "width=64, norm=bn", inputs: str = "c3, c4, c5") -> str:
    return f"{before}\ndecoder d {{ input {inputs} fpn({section}) {{\n{body}{AFTER}"


def found(*arguments: str, **named: str) -> list[Diagnostic]:
    return checked(text(*arguments, **named)).problems


def codes(*arguments: str, **named: str) -> list[str]:
    return [d.code for d in found(*arguments, **named)]


@pytest.mark.parametrize("alternatives", ["conv(k=3, kk=3) | conv(k=2)", "conv(k=2)"])
def test_a_choice_of_ops_is_checked_whether_or_not_a_hole_draws_from_it(alternatives: str) -> None:
    before = f"choice op = {alternatives} | conv(k=1, kkk=1)"
    drawn, unused = ({(d.code, d.span.text) for d in found(f"output p3 = {x}", before)} for x in ("?op(c3)", "c3"))
    assert {("NAS303", "2"), ("NAS302", "kkk")} <= unused
    assert unused == drawn


@pytest.mark.parametrize(
    "body",
    [
        "let k = relu - 1 output p3 = c3",
        "let k = -relu output p3 = c3",
        "x[relu - 1] = c3 output p3 = c3",
        "x = c3 repeat 2 * relu { x = tanh(x) } output p3 = x",
        "repeat t in 1..(relu + 1) { x[t] = tanh(c3) } output p3 = x1",
    ],
)
def test_a_word_in_arithmetic_is_one_finding_wherever_numbers_are(body: str) -> None:
    assert [(d.code, d.span.text) for d in found(body)] == [("NAS303", "relu")]


def test_how_many_values_there_are_is_no_hole_for_an_op_that_may_be_drawn() -> None:
    halves = "block halves(x) -> (a, b) { a, b = split(x) }"
    for callee, more in (("split", []), ("?(split | halves)", [("NAS302", "parts")])):
        problems = found(f"a, b = {callee}(c3, parts=?(2 | 4)) output p3 = conv_1x1(a)", halves)
        assert [(d.code, d.span.text) for d in problems] == [*more, ("NAS503", "?(2 | 4)")]


@pytest.mark.parametrize(("steps", "expected"), [(MAX_DEPENDENCIES, []), (MAX_DEPENDENCIES + 1, ["NAS410"])])
def test_a_chain_may_be_empty_by_so_many_holes(steps: int, expected: list[str]) -> None:
    chain = " -> ".join(["conv_3x3 * ?(0..1)"] * steps)
    problems = checked(text("output p3 = c3").replace("conv_3x3 }", f"{chain} }}")).problems
    assert [d.code for d in problems] == expected
    assert all(d.span.text == chain and d.message.startswith("whether the chain has layers depends") for d in problems)


# ------------------------------------------------------------------------------------ bodies, and who calls them


@pytest.mark.parametrize(
    ("definition", "code", "at"),
    [
        ("op f(x) = cat(x)", "NAS301", "cat(x)"),
        ("op f(x) = sum(x, x, x)", "NAS301", "sum(x, x, x)"),
        ("op f(x) = nothing(x)", "NAS201", "nothing"),
        ("op f(x) = sum(x, y)", "NAS202", "y"),
        ("op f(x) = conv(x, k=4)", "NAS303", "4"),
        ("op f(x) = conv(x)", "NAS304", "conv"),
        ("op f(x) = conv_3x3(x, kernel=3)", "NAS302", "kernel"),
        ("op f(x) = conv(x, k=3, k=3)", "NAS305", "k"),
        ("op f(x) = f(x)", "NAS207", "f"),
        ("op f(x) = g(x)\nop g(x) = f(x)", "NAS207", "f"),
        ("block f(x) -> (y) { z = skip(x) }", "NAS202", "y"),
        ("block f(x) -> (y) { y = skip(x) y = relu(x) }", "NAS204", "y"),
        ("block f(x) -> (y) { repeat 3 { y = skip(z) } }", "NAS202", "z"),
    ],
)
@pytest.mark.parametrize("calls", [0, 1, 3])
def test_a_mistake_in_a_body_is_found_there_and_once_however_often_it_is_called(
    definition: str, code: str, at: str, calls: int
) -> None:
    one = "op" if definition.startswith("op") else "block"
    body = "\n".join([f"a{i} = f(c3)" for i in range(calls)] + ["output p3 = c3"])
    problems = found(body, definition)
    assert [d.code for d in problems] == [code], one
    assert problems[0].span.text == at
    assert problems[0].span.start < len(definition)


def test_what_only_a_call_makes_wrong_is_shown_at_the_call_with_the_place_in_the_body() -> None:
    definition = "op narrow(x) = conv(x, k=3, width=32)\nop f(x) = add(narrow(x), x)"
    (problem,) = found("output p3 = f(c3)", definition)
    assert (problem.code, problem.span.text) == ("NAS306", "f(c3)")
    assert [span.text for span, _ in problem.related] == ["add(narrow(x), x)"]
    for call, body, code in (
        ("f(c3, g=5)", "op f(x, g=1) = conv(x, k=3, groups=width/g)", "NAS303"),
        ("f(c3, g=5)", "op f(x, g=1) = conv(x, k=3, groups=g)", "NAS307"),
        ("f(f(c3, g=5))", "op f(x, g=1) = conv(x, k=3, groups=g)", "NAS307"),
    ):
        (problem,) = found(f"output p3 = {call}", body)
        assert problem.code == code
        assert problem.span.text == "f(c3, g=5)"
        assert problem.related
        assert problem.related[0][0].start < len(body)


def test_a_mistake_in_a_block_at_a_call_is_shown_at_the_call() -> None:
    block = "block two(x) -> (y) { y = add(conv_3x3(x, width=32), x) }"
    (problem,) = found("a = two(c3)\noutput p3 = a", block)
    assert (problem.code, problem.span.text) == ("NAS306", "two(c3)")
    assert problem.related[0][0].text == "add(conv_3x3(x, width=32), x)"


def test_the_operands_of_a_call_are_not_blamed_on_it() -> None:
    (problem,) = found("output p3 = f(nothing)", "op f(x) = conv(x, k=3)")
    assert (problem.code, problem.span.text) == ("NAS202", "nothing")


# -------------------------------------------------------------------------------------- what attributes of ops accept


def test_ops_accept_what_the_primitives_behind_them_do() -> None:
    """For the prelude: each attribute that reaches a convolution under its own name accepts what the convolution does."""
    conv = primitives.PRIMITIVES["conv"].attributes
    seen = 0
    for definition in prelude().definitions.values():
        assert isinstance(definition, Op)
        takes = accepted(definition)
        assert set(takes) <= set(definition.attributes)
        for name, accepts in takes.items():
            assert accepts == conv[name]
            seen += 1
        assert set(takes) == set(definition.attributes), definition.name
    assert seen >= 10


@pytest.mark.parametrize(
    ("before", "call", "wrong"),
    [
        ("op f(x, q=3) = conv(x, k=q)", "f(c3, q=4)", "4"),
        ("op f(x, q=3) = conv(g(x, w=q), k=3)\nop g(x, w=1) = conv_3x3(x, width=w)", "f(c3, q=even)", "even"),
        ("op f(x, norm=bn) = conv(x, k=3)", "f(c3, norm=batch)", "batch"),
        ("op f(x, m=nearest) = resize(x, to=3, mode=m)", "f(c4, m=cubic)", "cubic"),
        ("", "conv_3x3(c3, bias=maybe)", "maybe"),
        ("", "down(c3, width=0)", "0"),
    ],
)
def test_a_value_that_an_op_passes_on_is_refused_where_it_is_given(before: str, call: str, wrong: str) -> None:
    (problem,) = found(f"output p3 = {call}", before)
    assert (problem.code, problem.span.text) == ("NAS303", wrong)
    assert not problem.related
    assert checked(text(f"{call.partition('(')[0]}(c3)".join(["x = ", " output p3 = add(c3, x)"]), before)).problems == []


def test_what_accepts_says_it_expects_it_takes() -> None:
    for attributes in [p.attributes for p in primitives.PRIMITIVES.values()]:
        for accepts in attributes.values():
            assert accepts.expectation()
            assert all(accepts.takes(word) for word in accepts.words)
            assert not accepts.takes("no such word")
    assert Accepts("word", None, ("a", "b", "c")).expectation() == "a, b or c"
    assert Accepts("flag", None, ("auto",)).expectation() == "true or false or auto"
    odd = Accepts("odd", largest=7)
    assert [k for k in range(-1, 10) if odd.takes(k)] == [1, 3, 5, 7]
    assert [k for k in range(-1, 10) if Accepts("stride", largest=8).takes(k)] == [1, 2, 4, 8]
    assert [k for k in range(-1, 4) if Accepts("index", largest=2).takes(k)] == [0, 1, 2]
    assert not Accepts("count").takes(2.0)


# ------------------------------------------------------------------------------------------------------- repetition


@pytest.mark.parametrize(
    "mistake",
    ["x = cnv(x)", "x = sum(x, y)", "y = sum(conv_1x1(x, width=32), x)", "x = conv(x, k=2)", "x[t] = conv_3x3(x[t-1])"],
)
@pytest.mark.parametrize("rounds", ["repeat t in 1..9 { %s }", "repeat t in 1..3 { repeat 3 { %s } }"])
def test_one_mistake_in_a_repeat_is_one_finding(mistake: str, rounds: str) -> None:
    problems = found("x = skip(c3)\n" + rounds % mistake + "\noutput p3 = x")
    assert len(problems) == 1, [d.message for d in problems]


def test_two_mistakes_in_a_repeat_are_two_findings() -> None:
    assert codes("x = skip(c3)\nrepeat 5 { x = cnv(x) y = sum(x, zz) }\noutput p3 = x") == ["NAS201", "NAS202"]


def test_a_mistake_that_only_a_later_round_makes_is_found() -> None:
    assert codes("x1 = skip(c3)\nrepeat t in 1..3 { y[t] = relu(x[t]) }\noutput p3 = y1") == ["NAS202"]


def test_the_same_words_at_two_places_are_two_findings() -> None:
    assert codes("a = cnv(c3)\nb = cnv(c3)\noutput p3 = sum(a, b)") == ["NAS201", "NAS201"]


def test_a_norm_that_does_not_fit_the_section_is_said_once() -> None:
    assert codes("a = conv_3x3(c3)\nb = conv_3x3(c4)\noutput p3 = sum(a, b)", section="width=48, norm=gn") == ["NAS308"]


# ------------------------------------------------------------------------------------------------- names and scope


def test_help_that_knows_what_a_name_is() -> None:
    for body, words in (
        ("output p3 = sum(c3, conv_3x3)", "is an op"),
        ("output p3 = conv_3x3(c2)", "`input c2"),
        ("output p3 = c3(c4)", "is a value"),
        ("x1 = sum(x1, c3)\noutput p3 = x1", "repeat"),
        ("x1 = sum(x2, c3)\nx2 = skip(c4)\noutput p3 = x1", "move the statement"),
        ("output p3 = conv_3x3[c3]", "conv_3x3(c3)"),
    ):
        problems = found(body)
        assert len(problems) == 1
        assert words in problems[0].help, (body, problems[0].help)
        assert problems[0].fix is None


def test_an_unknown_input_is_one_mistake_though_it_is_read() -> None:
    (problem,) = found("a = conv_3x3(features)\noutput p3 = sum(a, c3)", inputs="features, c3")
    assert (problem.code, problem.span.text) == ("NAS205", "features")
    (problem,) = found("output p3 = c3", inputs="C4, c3")
    assert problem.fix == "c4"


def test_warnings_are_not_given_beside_errors() -> None:
    assert codes("a = conv_3x3(c4)\noutput p3 = c3") == ["NAS901"]
    assert codes("a = conv_3x3(c4)\noutput p3 = cnv(c3)") == ["NAS201"]


def test_an_unread_pyramid_name_is_told_how_to_be_a_level() -> None:
    (problem,) = found("output p3 = conv_3x3(c3) p4 = conv_3x3(c4)")
    assert problem.code == "NAS901"
    assert "`output p4 = …`" in problem.help


# -------------------------------------------------------------------------- what a syntax error leaves to be checked


def test_what_a_passed_over_statement_would_have_bound_is_not_missed() -> None:
    body = "x1 = c3 + c4\nrepeat t in 1..2 { y[t] = c3 - c4 }\noutput p3 = sum(x1, y2)"
    assert codes(body) == ["NAS102", "NAS102"]


def test_other_names_are_missed_all_the_same() -> None:
    problems = found("x1 = c3 + c4\noutput p3 = sum(x1, zz), p4 = cnv(c4)")
    assert [(d.code, d.span.text) for d in problems] == [("NAS102", "+"), ("NAS202", "zz"), ("NAS201", "cnv")]


def test_an_op_that_could_not_be_read_is_not_missed() -> None:
    assert codes("output p3 = f(c3)", "op f(x) = x + x") == ["NAS102"]


@pytest.mark.parametrize("missing", ["conv(c3, k=)", "sum(c3, )", "sum(, c3)", "sum()", "(c3)", "conv_3x3(c3, width=)"])
def test_nothing_is_said_of_what_is_missing_but_that_it_is(missing: str) -> None:
    problems = found(f"output p3 = {missing}")
    assert [d.code for d in problems] == ["NAS102"]
    assert "is missing" in problems[0].message


# ------------------------------------------------------------------------------------------------------------ limits


@pytest.mark.long
def test_limits_are_where_they_are_said_to_be() -> None:
    nested = lambda depth: "op a0(x) = relu(x)\n" + "\n".join(f"op a{i}(x) = a{i - 1}(x)" for i in range(1, depth))  # noqa: E731
    assert codes(f"output p3 = a{MAX_CALLS - 2}(c3)", nested(MAX_CALLS - 1)) == []
    assert codes(f"output p3 = a{MAX_CALLS}(c3)", nested(MAX_CALLS + 1)) == ["NAS410"]
    rounds = (MAX_LAYERS - 3 - 3 * 3) // 5  # but for inputs and their adapters
    five = "op five(x) = relu(relu(relu(relu(relu(x)))))"
    assert codes(f"x = skip(c3)\nrepeat {rounds - 10} {{ x = five(x) }}\noutput p3 = x", five) == []
    assert codes(f"x = skip(c3)\nrepeat {rounds + 10} {{ x = five(x) }}\noutput p3 = x", five) == ["NAS410"]


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ("x = c3 repeat 40 { x = relu(x) } output p3 = x", "relu(x)"),
        ("x = c3 repeat 40 { x = conv_3x3(x) } output p3 = x", "conv_3x3(x)"),
        ("x = c3 repeat 40 { x = relu(c3) } output p3 = ?(x | c3)", "relu(c3)"),
        ("x = c3 repeat 5 { x = seven(x) } output p3 = x", "seven(x)"),
        ("shared f(x) = relu(relu(relu(relu(x)))) x = c3 repeat 9 { x = f(x) } output p3 = x", "f(x)"),
        ("shared f(x) = relu(relu(relu(relu(x)))) output p3 = f(f(f(f(f(f(f(f(c3))))))))", "f(f(f(f(f(c3)))))"),
    ],
)
def test_too_many_layers_are_one_finding_where_the_limit_is_met(body: str, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not built any more is no value that is missing."""
    for module in (builder, infer, infer_shared):
        monkeypatch.setattr(module, "MAX_LAYERS", 30)
    before = "block seven(x) -> (y) { y = relu(relu(relu(relu(relu(relu(relu(x))))))) }"
    (problem,) = found(body, before)
    assert (problem.code, problem.message) == ("NAS410", "the decoder expands into more than 30 layers or values")
    assert problem.span.text == at


def test_calls_that_are_too_deep_are_one_finding_of_a_block() -> None:
    """What its `repeat` does not bind any more is no value that is missing."""
    deep = f"op deep(x) = {'skip(' * 100}x{')' * 100}\n"
    block = "block g(x) -> (z) { y = x repeat 3 { y = deep(y) } z = resize(x, to=y) }"
    for around, expected in ((10, []), (MAX_CALLS - 100, [("NAS410", "g(c3)")])):
        problems = found(f"output p3 = {'skip(' * around}g(c3){')' * around}", deep + block)
        assert [(problem.code, problem.span.text) for problem in problems] == expected


@pytest.mark.parametrize(
    ("chain", "at"),
    [
        ("relu * 20", ""),
        ("relu * 21", "relu * 21"),
        ("relu * 21 -> silu -> tanh", "relu * 21"),
        ("relu * ?(0 | 10) -> silu * ?(0 | 9)", ""),
        ("relu * ?(0 | 10) -> silu * ?(0 | 10)", "relu * ?(0 | 10) -> silu * ?(0 | 10)"),  # where none is there, one is put in
        ("relu * ?(0 | 11) -> silu * ?(0 | 10)", "silu * ?(0 | 10)"),
        ("?(relu * 21 | tanh)", "relu * 21"),
    ],
)
def test_a_chain_that_is_too_long_is_one_finding(chain: str, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (elaborate_chain, infer_head):
        monkeypatch.setattr(module, "MAX_STEPS", 20)
    problems = checked(text("output p3 = c3").replace("{ conv_3x3 }", f"{{ {chain} }}")).problems
    expected = [(at, "a chain of more than 20 layers")] if at else []
    assert [(problem.span.text, problem.message) for problem in problems] == expected


TURNS = " ".join("repeat ?(0..1) { x = relu(x) }" for _ in range(MAX_DEPENDENCIES + 1))
COUNT = " + ".join("?(0 | 1)" for _ in range(8))


@pytest.mark.parametrize(
    ("body", "chain", "what"),
    [
        (f"x = c3 {TURNS} output p3 = x", "skip", "what `x` means"),
        (f"x = c3 {TURNS} output p3 = x output p4 = x", "skip", "what `x` means"),
        ("output p3 = c3", f"relu * ({COUNT})", "whether the layer is there"),
        (f"x = c3 repeat {COUNT} {{ x = relu(x) }} output p3 = x", "skip", "whether there is a turn"),
    ],
)
def test_what_too_many_holes_decide_is_one_finding(body: str, chain: str, what: str) -> None:
    (problem,) = checked(text(body).replace("{ conv_3x3 }", f"{{ {chain} }}")).problems
    assert (problem.code, problem.message.partition(" depends on")[0]) == ("NAS410", what)


def test_a_pool_is_without_what_too_many_holes_decide() -> None:
    assert codes(f"{TURNS.replace('x = relu(x)', 'x = relu(c3)')} output p3 = ?pool") == []


@pytest.mark.parametrize("inner", ["?(c4 | c5)", "sum(?(c4 | c5), ?(c4 | c5))", "drawn(c4)"])
def test_holes_that_stand_too_deep_in_each_other_are_one_finding(inner: str) -> None:
    before = "op drawn(x) = ?(relu | tanh)(x)"
    for depth, expected in ((MAX_NESTED_HOLES - 3, []), (MAX_NESTED_HOLES, ["NAS410"])):
        assert codes(f"output p3 = {'?(' * depth}{inner}{' | c3)' * depth}", before) == expected


@pytest.mark.parametrize("order", [1, -1])
def test_a_circle_of_any_length_is_found(order: int) -> None:
    for length in (1, 2, 3, 250, 1000):
        lines = [f"op a{i}(x) = a{(i + 1) % length}(x)" for i in range(length)]
        problems = found("output p3 = a0(c3)", "\n".join(lines[::order]))
        assert [d.code for d in problems] == ["NAS207"]
        assert len(problems[0].message) < 120


def test_every_finding_of_a_file_in_one_run() -> None:
    """A file with a mistake of each kind: none hides another."""
    source = """\
op lost(x) = nowhere(x)
op twice(x) = x
op twice(x) = x
decoder d {
  input c3, c9
  require speed <= 3G at 800x1088
  fpn(width=64, norm=batch, colour=red) {
    x1 = conv_3x3(c3
    x2 = conv(x1, k=2)
    x2 = skip(x1)
    x3 = sum(x9, x1)
    output p3 = cat(x1), top = x2
  }
  head(width=64, share=5) { conv_3x3 -> cnv }
  predict yolo
}
"""
    problems = checked(source).problems
    lines = [(d.span.line, d.code) for d in problems]
    assert lines == [
        (1, "NAS201"), (3, "NAS206"), (5, "NAS205"), (6, "NAS315"), (7, "NAS303"), (7, "NAS302"), (8, "NAS102"), (9, "NAS303"),
        (10, "NAS204"), (11, "NAS202"), (12, "NAS301"), (12, "NAS406"), (14, "NAS407"), (14, "NAS201"), (15, "NAS208"),
    ]  # fmt: skip


def test_findings_stand_in_the_order_of_the_text_and_never_twice(tmp_path: Path) -> None:
    (tmp_path / "a.nas").write_text("op f(x) = x\nop f(x) = x\ndecoder a { input c3 fpn(width=64) {\noutput p3 = c3" + AFTER)
    source = 'decoder d { input c3, c3 fpn from "a.nas" head from "a.nas" predict fcos(centerness=bx) }'
    problems = check_source(Source("t.nas", source), path=tmp_path / "t.nas").problems
    assert [d.code for d in problems] == ["NAS204", "NAS303", "NAS206"]
    assert fixed(source, problems[1]).endswith("predict fcos(centerness=box) }")


# --------------------------------------------------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("body", "spans"),
    [
        (
            "output p3 = mul(c3, sigmoid(conv_1x1(global_pool(c3, kind=avg), act=none)))",
            ["conv_1x1(global_pool(c3, kind=avg), act=none)"],
        ),
        ("g = global_pool(c3, kind=max) h = norm(g) output p3 = mul(c3, h)", ["norm(g)"]),
        ("g = gate(c3) output p3 = mul(c3, g)", ["gate(c3)"]),
        ("output p3 = mul(c3, sigmoid(conv_1x1(global_pool(c3, kind=avg), norm=none, act=none)))", []),
        ("output p3 = mul(c3, sigmoid(conv_1x1(global_pool(c3, kind=avg), norm=gn, act=none)))", []),
        ("output p3 = conv_1x1(mul(c3, global_pool(c3, kind=avg)))", []),
    ],
)
def test_batch_norm_of_a_globally_pooled_value_is_a_warning(body: str, spans: list[str]) -> None:
    before = "op gate(x) = sigmoid(conv_1x1(global_pool(x, kind=avg), act=none))"
    checked_text = checked(text(body, before))
    assert checked_text.architecture is not None
    assert [(p.code, p.severity, p.span.text) for p in checked_text.problems] == [("NAS903", "warning", s) for s in spans]
    assert [p.code for p in checked_text.architecture.warnings] == ["NAS903"] * len(spans)


def test_batch_norm_of_a_pooled_value_in_a_head() -> None:
    before = "op gated(x) = mul(x, sigmoid(conv_1x1(global_pool(x, kind=avg), act=none)))"
    whole = text("output p3 = c3", before).replace("norm=gn) { conv_3x3", "norm=bn) { gated")
    assert [(p.code, p.span.text) for p in checked(whole).problems] == [("NAS903", "gated")]


@pytest.mark.parametrize(
    ("before", "body", "code", "message"),
    [
        ("op f(x, k=a[1]) = conv(x, k=k)", "output p3 = f(c3)", "NAS303", "`conv` does not take `k=a1`"),
        ("op f(x, k=a[0.5]) = conv(x, k=k)", "output p3 = f(c3)", "NAS303", "`0.5` cannot number a name"),
        ("op f(x, n=y) = resize(x, to=n)", "output p3 = f(c3)", "NAS303", "`n=y` names no level"),
        ("op f(x, n=3) = resize(x, to=n)", "output p3 = f(c4, n=c3)", "NAS303", "`n=c3` names no level"),
        ("op f(x, n=3) = resize(x, to=n)", "output p3 = f(c4, n=0.5)", "NAS303", "`n=0.5` names no level"),
        ("op f(x) = resize(x, to=n)", "output p3 = f(c4)", "NAS202", "no value is called `n`"),
        ("op f(x, n=3) = resize(x, to=n)", "output p3 = f(c4, n=17)", "NAS303", "`to=17` of `resize`"),
        ("op f(x, n=3) = add(x, conv_3x3(n))", "output p3 = f(c3)", "NAS202", "no value is called `n`"),
        ("", f"{POOLED} output p3 = resize(x, to=3)", "NAS309", "a globally pooled value has no resolution to change"),
        ("", f"{POOLED} output p3 = resize(c3, to=x)", "NAS309", "`x` has no resolution"),
        ("", "output p3 = resize(c3, to=17)", "NAS303", "`to=17` of `resize`"),
        ("op f(x) = conv_3x3(x)", "a, b = f(c3) output p3 = a", "NAS310", "`f` gives 1 value for 2 names"),
        ("op f(x, k=a[1/0]) = conv(x, k=k)", "output p3 = f(c3)", "NAS303", "1 / 0 is no whole number"),
        ("op f(x, k=3) = ?(conv(x, k=k) | x)", "output p3 = f(c3, kk=3)", "NAS302", "`f` has no attribute `kk`"),
        ("op f(x) = ?(resize(x, to=n) | x)", "output p3 = f(c4)", "NAS202", "no value is called `n`"),
        ("op f(x) = add(g(x), h(x))\nop g(x) = f(x)\nop h(x) = f(x)", "output p3 = f(c3)", "NAS207",
         "`f` calls itself: f -> g -> f"),
    ],
)  # fmt: skip
def test_what_an_op_cannot_be_given(before: str, body: str, code: str, message: str) -> None:
    assert [(d.code, d.message) for d in found(body, before) if d.severity == "error"] == [(code, message)]


@pytest.mark.parametrize("size", [3, "c3"])
def test_an_op_resizes_to_a_number_or_to_a_value(size: object) -> None:
    attribute = "n" if size == "c3" else "n=3"
    call = "f(c4, c3)" if size == "c3" else "f(c4)"
    assert codes(f"output p3 = {call}", f"op f(x, {attribute}) = resize(x, to=n)") == []


@pytest.mark.parametrize(
    ("before", "body"),
    [
        ("", "x = resize(c3, to=none)"),
        ("", "x = resize(c3, to=norm)"),
        ("", "x = resize(c3, to=?(none | c4))"),
        ("", "let k = none x = resize(c3, to=k)"),
        ("", "let k = ?(c4 | none) x = resize(c3, to=k)"),
        ("op f(x) = resize(x, to=none)", "x = f(c3)"),
    ],
)
def test_nothing_is_no_place_to_resize_to(before: str, body: str) -> None:
    problems = found(f"{body} output p3 = x", before, section="width=64, norm=none")
    assert [(d.code, d.message) for d in problems] == [("NAS303", "`to=none` of `resize`")]


TWICE = " ".join(f"y{number + 1} = sum(y{number}, y{number});" for number in range(40))
TWO = "block two(x) -> (a, b) { a = skip(x) b = conv_3x3(x) }"


@pytest.mark.parametrize(
    ("before", "body", "code", "at", "message"),
    [
        ("", f"{POOLED} y = deform_conv(x, k=3) output p3 = c3", "NAS309", "deform_conv(x, k=3)",
         "a deformable convolution needs a map; this value has one position"),
        ("shared", f"{POOLED} shared f(x) = deform_conv(x, k=3) y = f(x) output p3 = c3", "NAS309", "f(x)",
         "a deformable convolution needs a map; this value has one position"),
        ("", "x = deform_conv(c3, k=3, offset_groups=3) output p3 = x", "NAS307", "deform_conv(c3, k=3, offset_groups=3)",
         "3 offset groups do not divide 64 channels"),
        ("", "x = pool(c3, k=2, stride=1, kind=max) output p3 = x", "NAS303", "pool(c3, k=2, stride=1, kind=max)",
         "an even window of 2 at stride 1"),
        ("", f"{POOLED} y = resize(x, to=c4) output p3 = c3", "NAS309", "resize(x, to=c4)",
         "a globally pooled value has no resolution to change"),
        ("", f"{POOLED} y = resize(c4, to=x) output p3 = c3", "NAS309", "x", "`x` has no resolution"),
        ("", "output p3 = sum(c3, ((c4)))", "NAS102", "(c4)", "a value in brackets"),
        ("", "x = resize(c3, to=?(c4 | conv_3x3(c4))) output p3 = c3", "NAS503", "conv_3x3(c4)",
         "a call cannot stand where a number or a word is expected"),
        ("", "output p3 = conv(c3, k=k[1])", "NAS303", "k[1]", "`conv` does not take `k=k1`"),
        ("", "output p3 = conv(c3, k=3, norm=n[-1])", "NAS303", "-1", "`-1` cannot number a name"),
        ("", "output p3 = conv(c3, k=3, norm=n[1/2])", "NAS303", "1/2", "1 / 2 is no whole number"),
        ("op f(x) = ?(f | conv_3x3)(x)", "output p3 = f(c3)", "NAS207", "f", "`f` calls itself: f -> f"),
        ("block f(x) -> (y) { y = ?(f | conv_3x3)(x) }", "output p3 = f(c3)", "NAS207", "f", "`f` calls itself: f -> f"),
        ("", "a, b = c3 output p3 = c3", "NAS310", "a, b = c3", "one value for 2 names"),
        (TWO, "y = two(c3) output p3 = y", "NAS310", "two", "`two` gives 2 values"),
        (TWO, "shared f(x) = two(x) y = f(c3) output p3 = y", "NAS310", "f", "`f` gives 2 values"),
        ("", "shared f(x) = conv_3x3(x) y = f(c3, c4) output p3 = y", "NAS301", "f(c3, c4)", "`f` is given 2 operands"),
        ("", "let k = 1/0 output p3 = k(c3)", "NAS303", "1/0", "1 / 0 is no whole number"),
        ("", "let k = 1/0 output p3 = sum(c3, k)", "NAS303", "1/0", "1 / 0 is no whole number"),
        ("", "x[((?(1 | 2)))] = c3 output p3 = c3", "NAS503", "?(1 | 2)", "a hole where a name needs its number"),
        ("", "a, b = ?(c3 | split(c3)) output p3 = c3", "NAS310", "a, b = ?(c3 | split(c3))", "one value for 2 names"),
        ("", f"output p3 = c3; y0 = conv_3x3(p3); {TWICE} merge dangling into p3", "NAS416", "p3",
         "`y40` dangles and reads what it would be merged into"),
        ("", "x = ?(c3 | c9) output p3 = x", "NAS202", "c9", "no value is called `c9`"),
        ("", "x[relu], y = split(c3) output p3 = c3", "NAS303", "relu", "`relu` cannot number a name"),
        ("", "let k = ?(conv_3x3 | relu) output p3 = ?(k(kk=3) | skip)(c3)", "NAS302", "kk",
         "`conv_3x3` has no attribute `kk`"),
    ],
)  # fmt: skip
def test_mistakes_that_are_rare(before: str, body: str, code: str, at: str, message: str) -> None:
    (problem,) = found(body, before.removeprefix("shared"))
    assert (problem.code, problem.span.text, problem.message) == (code, at, message)


@pytest.mark.parametrize(
    ("name", "help", "fix"),
    [
        ("resnet5", "did you mean `resnet50`?", "resnet50"),
        ('"resnet50_v1.6"', 'did you mean `"resnet50_v1.5"`?', '"resnet50_v1.5"'),
        ("vit", "", None),
    ],
)
def test_an_unknown_backbone(name: str, help: str, fix: str | None) -> None:
    (problem,) = checked(text("output p3 = c3").replace("predict", f"detector(backbone={name}) predict")).problems
    assert (problem.code, problem.help, problem.fix) == ("NAS209", help, fix)


@pytest.mark.parametrize("whole", ["use best", "decoder d { input c3 fpn from best head(width=8) { skip } predict fcos }"])
def test_a_file_is_named_in_quotes(whole: str) -> None:
    (problem,) = (p for p in checked(whole).problems if p.span.text == "best")
    assert (problem.code, problem.help, problem.fix) == ("NAS102", 'did you mean `"best"`?', '"best"')


@pytest.mark.parametrize("word", ["bax", "boxes"])
def test_a_mistake_in_an_alternative_of_a_prediction_is_found_beside_others(word: str) -> None:
    problems = checked(text("output p3 = ?(c3 | conv(c3, k=?(3 | 2)))").replace("=cls", f"=?(cls | {word})")).problems
    assert [(p.code, p.span.text) for p in problems] == [("NAS303", "2"), ("NAS303", word)]


@pytest.mark.parametrize("chain", ["?s", "?(skip -> ?s)", "?s * 2 -> skip"])
def test_a_choice_in_a_circle_is_one_finding_in_a_chain(chain: str) -> None:
    whole = text("output p3 = c3", "choice s = relu -> ?s | skip").replace("{ conv_3x3 }", f"{{ {chain} }}")
    assert [(p.code, p.message) for p in checked(whole).problems] == [("NAS506", "the choice `s` contains itself")]


@pytest.mark.parametrize("suffix", ["K", "M", "G"])
def test_a_suffix_stands_right_behind_its_number(suffix: str) -> None:
    (problem,) = checked(text("output p3 = c3").replace("input", f"require macs <= 5 {suffix} input")).problems
    assert (problem.code, problem.span.text, problem.fix) == ("NAS102", suffix, None)
    assert problem.help == f"a suffix stands right behind its number: `5{suffix}`"


def test_advice_about_a_name_does_not_take_the_known_names_after_many_mistakes() -> None:
    """To compare many wrong names with many right ones takes long. What is like `none` is told without them."""
    many = " ".join(f"x{number} = q{number}(c3)" for number in range(MOST_GUESSES))
    first, last = (found(f"{body} output p3 = non(c3)")[-1] for body in ("", many))
    assert (first.message, first.help) == ("unknown op `non`", "did you mean `none`?")
    assert (last.message, last.help.partition(";")[0]) == ("unknown op `non`", "`skip` hands on its operand")


def test_an_adapter_that_is_drawn_among_words_is_looked_up_for_each() -> None:
    body = text("output p3 = c3", section="width=64, adapter=k")
    for word, expected in (("conv_3x3", []), ("conv_4x4", ["unknown op `conv_4x4`"])):
        problems = checked(body.replace("input", f"let k = ?(conv_1x1 | ?({word} | skip)) input")).problems
        assert [p.message for p in problems if p.severity == "error"] == expected


def test_a_word_that_names_a_value_means_what_that_name_means_where_it_is_read() -> None:
    written = "x = skip(c3) repeat 2 { let v = x x = conv_3x3(x) x = sum(v, conv_1x1(x)) }"
    meant = "x = skip(c3) repeat 2 { x = conv_3x3(x) x = sum(x, conv_1x1(x)) }"
    digests = {loads(text(f"{body} output p3 = x")).digest for body in (written, meant)}
    assert len(digests) == 1


def test_a_word_may_name_the_value_that_is_read() -> None:
    """Of a hole, each alternative is a value of its own; `none` leaves the operand out."""
    for value in ("c3", "?pool", "?(c3 | ?(c4 | c5))", "?(c3 | none)"):
        assert codes(f"let k = {value} output p3 = sum(c3, k)") == [], value
    assert codes("output p3 = resize(c3, to=?(c4 | ?(c4 | c5)))") == []
    (problem,) = found("let k = ?(c3 | bn) output p3 = sum(c3, k)")
    assert (problem.code, problem.message) == ("NAS202", "no value is called `k`")


def test_a_path_that_leads_nowhere_is_a_finding_where_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "loop.nas").symlink_to("loop.nas")
    for path, reason in (("loop.nas", ""), ("n" * 300 + ".nas", "name too long"), ("no\x00name.nas", "null")):
        (problem,) = check_source(Source("t", f'use "{path}"'), path=tmp_path / "t.nas").problems
        assert (problem.code, problem.span.text) == ("NAS411", f'use "{path}"')
        assert problem.message.startswith(f"cannot read {path[:2]}")
        assert reason in problem.message


@pytest.mark.parametrize(
    ("each", "expected"),
    [("k{0} + k{0}", {"NAS410"}), ("k{0} + 1", {"NAS410"}), ("?(k{0} | 3)", {"NAS410"}), ("((k{0}))", set())],
)
def test_lets_that_read_each_other_behind_a_hole(each: str, expected: set[str]) -> None:
    """A few are no finding; a thousand are, if they have operators or holes."""

    def body(count: int) -> str:
        lets = "".join(f"let k{number + 1} = {each.format(number)} " for number in range(count))
        return f"let k0 = ?(1 | 3) {lets} x = conv(c3, k=3, width=k{count}) output p3 = x"

    assert codes(body(3)) == []
    assert set(codes(body(1000))) == expected
