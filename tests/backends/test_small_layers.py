"""Layers without a convolution in them against torch: the decoder's module, and each back end against the module.

`values` runs an fpn without adapters whose outputs are the values in question, so that what is expected can be written down
in a line of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest
import torch
from findings import checked
from lowest import exports_programs
from torch import Tensor

import nasdsl
from nasdsl.backends.cost import cost
from nasdsl.backends.module import DecoderModule, build
from nasdsl.backends.source import emit_source
from nasdsl.backends.torch_export import trace
from nasdsl.diagnostics import DiagnosticError
from nasdsl.ir import Graph
from nasdsl.ir.canonical import canonical_text
from nasdsl.spaces import loads_space

CHANNELS = {"c3": 64, "c4": 32, "c5": 1}


def text(body: str, before: str = "", *, head: str = "skip", adapter: str = "none") -> str:
    return (
        f"{before} decoder d {{ input c3, c4, c5 fpn(width=64, norm=none, act=none, adapter={adapter}) {{ {body} }}"
        f" head(width=1, norm=none, act=none) {{ {head} }} predict fcos }}"
    )


def lowered(body: str, before: str = "", channels: Mapping[str, int] = CHANNELS) -> Graph:
    return nasdsl.loads(text(body, before)).lower(channels)


def features(channels: Mapping[str, int] = CHANNELS, batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"c3": (25, 42), "c4": (13, 21), "c5": (7, 11)}
    return {name: torch.randn(batch, width, *sizes[name], generator=generator) for name, width in channels.items()}


def pyramid(module: DecoderModule, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        return module.pyramid(given)


def check_back_ends(graph: Graph, given: Mapping[str, Tensor], tmp_path: Any) -> dict[str, Tensor]:
    """Source and ONNX give what the module gives, which is returned; its cost is the module's."""
    module = build(graph, 2).eval()
    given = {name: given[name] for name in module.fpn.input_levels}
    assert cost(graph, (200, 336), 2).decoder.params == sum(p.numel() for p in module.parameters())
    namespace: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(emit_source(graph, 2), "emitted", "exec"), namespace)
    emitted = namespace["Decoder"](2).eval()
    emitted.load_state_dict(module.state_dict())
    with torch.no_grad():
        expected = {f"{k}.{n}": v for k, p in module(given).items() for n, v in p._asdict().items()}
        assert all(torch.equal(a, b) for a, b in zip(expected.values(), _flat(emitted(given)), strict=True))
    onnxruntime = pytest.importorskip("onnxruntime")
    from nasdsl.backends.onnx import export_onnx

    export_onnx(module, tmp_path / "d.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "d.onnx"), providers=["CPUExecutionProvider"])
    found = session.run(list(expected), {name: tensor.numpy() for name, tensor in given.items()})
    for a, b in zip(expected.values(), found, strict=True):
        assert torch.allclose(a, torch.from_numpy(b), atol=1e-4)
    return pyramid(module, given)


def _flat(predictions: Mapping[str, Any]) -> list[Tensor]:
    return [tensor for prediction in predictions.values() for tensor in prediction]


def same(one: str, other: str, before: str = "") -> bool:
    """Whether two bodies have one digest; the canonical text of each has it too."""
    digests = []
    for body in (one, other):
        decoder = nasdsl.loads(text(body, before))
        assert nasdsl.loads(str(decoder)).digest == decoder.digest
        assert str(nasdsl.loads(str(decoder))) == str(decoder)
        digests.append(decoder.digest)
    return digests[0] == digests[1]


def problems(source: str) -> list[tuple[str, str, str]]:
    """Code, place and help of each finding."""
    return [(p.code, p.span.text, p.help) for p in checked(source).problems]


EVERYTHING = """
a, b = split(c3)
gate = sigmoid(conv(c4, k=1, width=1))
by = conv(c3, k=1, width=2)
deep = conv(mul(concat(b, a), -0.2, gate), k=3, groups=in, width=in)
output p3 = weighted_add(deep, relu(c3), by=by), p4 = conv_1x1(add(c4, gate))
"""


@exports_programs
def test_torch_export_of_all_of_them() -> None:
    module, given = build(lowered(EVERYTHING), 2).eval(), features()
    given = {name: given[name] for name in module.fpn.input_levels}
    found = trace(module).module()(given)
    with torch.no_grad():
        expected = _flat(module(given))
    for a, b in zip(expected, found.values(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------- split


def test_a_split_gives_runs_of_channels_in_order(tmp_path: Any) -> None:
    graph = lowered("a, b, c, d = split(c3, parts=4) output p3 = a, p4 = resize(c, to=4)")
    given = features()
    found = check_back_ends(graph, given, tmp_path)
    assert torch.equal(found["p3"], given["c3"][:, :16])
    small = torch.nn.functional.interpolate(given["c3"][:, 32:48], size=(13, 21), mode="bilinear", align_corners=False)
    assert torch.equal(found["p4"], small)


def test_a_split_joined_again_is_its_operand() -> None:
    found = pyramid(build(lowered("a, b = split(c3) output p3 = concat(a, b)"), 2), features())
    assert torch.equal(found["p3"], features()["c3"])


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("a, b = split(c3) output p3 = add(a, b)", "b, a = split(c3, parts=2) output p3 = add(a, b)", True),
        ("a, b = split(c3) output p3 = concat(a, b)", "b, a = split(c3) output p3 = concat(a, b)", False),
        ("a, b = split(c3) output p3 = a", "a, b = split(c3) output p3 = b", False),
        ("a, b = split(c3) output p3 = a", "a, b = split(c3) c, d = split(c3) x = add(c, d) output p3 = a", True),
        ("a, b = split(c3) output p3 = add(a, b)", "a, b = split(c3) c, d = split(c3) output p3 = add(a, d)", True),
        ("a, b = split(c3) output p3 = a", "a, b, c, d = split(c3, parts=4) output p3 = a", False),
        ("let n = 4 a, b, c, d = split(c3, parts=n) output p3 = d", "a, b, c, d = split(c3, parts=2 * 2) output p3 = d", True),
    ],
)
def test_the_digest_of_a_split(one: str, other: str, equal: bool) -> None:
    assert same(one, other) is equal


def test_parts_of_a_raw_feature_are_found_with_the_backbone() -> None:
    body = "a, b, c = split(c3, parts=3) output p3 = conv_1x1(a)"
    lowered(body, channels={**CHANNELS, "c3": 63})
    with pytest.raises(DiagnosticError, match=r"NAS307(.|\n)*3 parts do not divide 64 channels with this backbone"):
        lowered(body)


def test_a_split_in_a_block_and_in_a_head() -> None:
    before = "block half(x) -> (y) { a, y = split(x) }"
    decoder = nasdsl.loads(text("a = half(c3) output p3 = a", before, head="half -> conv_1x1(width=8)"))
    module = decoder.build(CHANNELS, 2)
    assert torch.equal(pyramid(module, features())["p3"], features()["c3"][:, 32:])
    assert module.head.get_submodule("cls.1").get_submodule("conv").in_channels == 16


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("a, b, c = split(c3) output p3 = a", ("NAS310", "a, b, c = split(c3)", "`split(…, parts=3)` gives 3")),
        ("a = split(c3) output p3 = a", ("NAS310", "split", "assign them first: `a, b = …`")),
        ("a = split(c3, parts=1) output p3 = a", ("NAS303", "1", "")),
    ],
)
def test_a_wrong_split_is_one_finding(body: str, found: tuple[str, str, str]) -> None:
    assert problems(text(body)) == [found]


def test_several_results_are_equal_only_if_all_are() -> None:
    from nasdsl.layers import Feature, Features

    one = Features.of([Feature(3, 8), Feature(3, 8)])
    assert one == Features.of([Feature(3, 8), Feature(3, 8)])
    assert one != Features.of([Feature(3, 8), Feature(4, 8)])
    assert one != Feature(3, 8)
    assert Feature(3, 8) != one
    assert len({one, Feature(3, 8), Features.of([Feature(3, 8), Feature(3, 8)])}) == 2


def test_parts_that_a_space_chooses_among() -> None:
    space = loads_space(text("a, b = split(?(c3 | c4)) output p3 = conv_1x1(?(a | b))", adapter="conv_1x1"))
    made = {space.decode([i, j]) for i in range(2) for j in range(2)}
    assert [list(space.encode(text)) for text in sorted(made)] == [list(t.indices) for t in sorted(made)]
    assert len({nasdsl.loads(t).digest for t in made}) == 4


# ------------------------------------------------------------------------------------------------------------ constants


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("output p3 = mul(c3, 0.2)", lambda x: x * 0.2),
        ("output p3 = mul(-3, c3)", lambda x: x * -3),
        ("let s = 0.3 output p3 = mul(c3, s * 2 - 1)", lambda x: x * -0.4),
        ("output p3 = mul(c3, 0.5, relu(c3), 4)", lambda x: x * x.relu() * 2),
        ("output p3 = add(c3, mul(relu(c3), -1))", lambda x: x - x.relu()),
        ("output p3 = residual(c3)", lambda x: x + 0.25 * x.tanh()),
        ("output p3 = residual(c3, by=-2)", lambda x: x - 2 * x.tanh()),
        ("repeat t in 1..2 { x[t] = mul(c3, t / 2.0) } output p3 = add(x1, x2)", lambda x: 1.5 * x),
        ("output p3 = add(c3, 0.2)", lambda x: x + 0.2),
        ("output p3 = relu(add(-3, c3))", lambda x: (x - 3).relu()),
        ("let s = 0.3 output p3 = add(1, c3, s * 2, relu(c3), 4)", lambda x: x + x.relu() + 5.6),
        ("output p3 = mul(c3, add(mul(sigmoid(c3), -1), 1))", lambda x: x * (1 - x.sigmoid())),
        ("output p3 = raised(raised(c3, by=0.25))", lambda x: x + 2.25),
        ("output p3 = add(c3, none, 2)", lambda x: x + 2),
        ("output p3 = mul(c3, add(global_pool(c3, kind=avg), 1))", lambda x: x * (x.mean((2, 3), keepdim=True) + 1)),
    ],
)
def test_a_constant(body: str, expected: Any, tmp_path: Any) -> None:
    given = features()
    found = check_back_ends(
        lowered(body, "op residual(x, by=0.25) = add(x, mul(tanh(x), by)) op raised(x, by=2) = add(x, by)"), given, tmp_path
    )
    assert torch.allclose(found["p3"], expected(given["c3"]), atol=1e-6)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("output p3 = mul(c3, 0.2)", "output p3 = mul(0.2, c3)", True),
        ("output p3 = mul(c3, 2)", "output p3 = mul(c3, 2.0)", True),
        ("output p3 = mul(c3, 0.2)", "output p3 = mul(c3, 0.3)", False),
        ("output p3 = mul(c3, 0.2)", "output p3 = c3", False),
        ("output p3 = mul(c3, 1)", "output p3 = c3", True),
        ("output p3 = mul(c3, relu(c3), -4)", "output p3 = mul(-2, relu(c3), 2, c3)", True),
        ("let k = 0.00000001 output p3 = mul(c3, k)", "output p3 = mul(c3, 0.00000001)", True),
        ("output p3 = add(mul(c3, 3), mul(c3, 3))", "x = mul(c3, 3) output p3 = add(x, x)", True),
        ("output p3 = add(c3, 0.2)", "output p3 = add(0.2, c3)", True),
        ("output p3 = add(c3, 0.2)", "output p3 = add(c3, 0.3)", False),
        ("output p3 = add(c3, 2)", "output p3 = mul(c3, 2)", False),
        ("output p3 = add(c3, 0)", "output p3 = c3", True),
        ("output p3 = add(c3, relu(c3), -4)", "output p3 = add(-6, relu(c3), 2, c3)", True),
        ("output p3 = add(c3, relu(c3), 1)", "output p3 = add(add(relu(c3), c3), 1)", True),
        ("output p3 = add(c3, relu(c3), 1)", "output p3 = add(c3, add(relu(c3), 1))", False),
    ],
)
def test_the_digest_of_a_constant(one: str, other: str, equal: bool) -> None:
    assert same(one, other) is equal


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("output p3 = sum(c3, 1)", ("NAS102", "1", "`add(x, 1)` adds a number, `mul(x, 0.5)` multiplies by one")),
        ("output p3 = max(c3, 1)", ("NAS102", "1", "`relu(x)` is the maximum of x and 0; no other number is compared with")),
        ("output p3 = conv(c3, 3, k=3)", ("NAS102", "3", "operands are values; an attribute is set by its name: `k=3`")),
        ("output p3 = relu((c3))", ("NAS102", "(c3)", "leave the brackets out")),
        ("output p3 = mul(2, 3)", ("NAS301", "mul(2, 3)", "")),
        ("output p3 = add(2, 3)", ("NAS301", "add(2, 3)", "")),
        ("output p3 = add(c3, c4 + 1)", ("NAS303", "c4", "")),
        ("output p3 = mul(c3, c4 + 1)", ("NAS303", "c4", "")),
        ("output p3 = sub(c3, c4)", ("NAS201", "sub", "`add(x, mul(y, -1))` subtracts y from x; `sum` is the opposite")),
    ],
)
def test_a_number_that_is_no_constant_is_one_finding(body: str, found: tuple[str, str, str]) -> None:
    assert problems(text(body)) == [found]


def test_the_text_of_a_filling_has_its_constants_among_the_operands() -> None:
    space = loads_space(text("let k = ?(0.1 | 3) output p3 = mul(c3, k, c3, 2)"))
    assert "mul(c3, c3, k * 2)" in space.decode([0])
    assert space.encode(space.decode([1])) == [1]
    assert loads_space(text("output p3 = mul(c3, ?(-0.5 | 3))")).decode([0]).count("mul(c3, -0.5)") == 1
    assert loads_space(text("output p3 = add(c3, ?(-0.5 | 3))")).decode([0]).count("add(c3, -0.5)") == 1


def test_sum_or_product_of_a_number_is_no_choice_of_one_call() -> None:
    """What several numbers would be then is not one thing."""
    for calls in ("add | mul", "mul | relu", "sum | add"):
        ((code, place, help),) = problems(text(f"output p3 = ?({calls})(c3, 2)"))
        assert (code, place) == ("NAS102", "2")
        assert "choose between whole calls" in help
    assert loads_space(text("output p3 = ?(add(c3, 1) | mul(c3, 2))")).size == 2


# --------------------------------------------------------------------------------------------------- kinds of GroupNorm


@pytest.mark.parametrize(("name", "groups"), [("gn", 32), ("gn16", 16), ("gn8", 8), ("gn4", 4), ("gn2", 2), ("gn1", 1)])
def test_groups_of_a_norm(name: str, groups: int, tmp_path: Any) -> None:
    given = features()
    found = check_back_ends(lowered(f"output p3 = norm(c3, norm={name})"), given, tmp_path)
    assert torch.allclose(found["p3"], torch.nn.functional.group_norm(given["c3"], groups), atol=1e-5)


def test_each_number_of_groups_is_a_norm_of_its_own() -> None:
    assert not same("output p3 = norm(c3, norm=gn)", "output p3 = norm(c3, norm=gn16)")
    assert same("output p3 = conv(c3, k=1, norm=gn8)", "output p3 = norm(conv(c3, k=1, norm=none, bias=false), norm=gn8)")


@pytest.mark.parametrize(
    ("name", "width", "fits"), [("gn16", 48, True), ("gn", 48, False), ("gn16", 40, False), ("gn8", 40, True)]
)
def test_the_width_that_groups_need(name: str, width: int, fits: bool) -> None:
    found = problems(text(f"output p3 = conv_1x1(c3, width={width}, norm={name})"))
    assert [code for code, *_ in found] == ([] if fits else ["NAS308"])


# ------------------------------------------------------------------------------------------- upsampling between corners


@pytest.mark.parametrize(("source", "level", "size"), [("c4", 3, (26, 42)), ("c3", 5, (7, 11)), ("c5", 3, (28, 44))])
def test_aligned_corners(source: str, level: int, size: tuple[int, int], tmp_path: Any) -> None:
    """The first and the last position of both maps are at one place."""
    given = features()
    found = check_back_ends(lowered(f"output p{level} = resize({source}, to={level}, mode=aligned)"), given, tmp_path)
    (x,), y = (given[source],), found[f"p{level}"]
    assert y.shape[2:] == size
    assert torch.allclose(y[:, :, [0, 0, -1, -1], [0, -1, 0, -1]], x[:, :, [0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-5)
    expected = torch.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=True)
    assert torch.allclose(y, expected, atol=1e-5)


def test_modes_differ() -> None:
    bodies = [f"output p3 = resize(c4, to=3, mode={mode})" for mode in ("bilinear", "aligned", "nearest")]
    assert not any(same(one, other) for one, other in pairwise(bodies))


# --------------------------------------------------------------------------------------------------------- one channel


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("add(c3, one)", lambda x, one: x + one),
        ("add(one, c3, one)", lambda x, one: x + 2 * one),
        ("mul(one, c3)", lambda x, one: x * one),
        ("max(one, c3)", lambda x, one: torch.maximum(x, one)),
        ("weighted_add(one, c3)", lambda x, one: (x + one) / 2.0001),
    ],
)
def test_one_channel_is_spread_over_the_others(call: str, expected: Any, tmp_path: Any) -> None:
    before = (
        "block one(x) -> (y) { a, b, c, d = split(x, parts=4) e, f, g, h = split(a, parts=4) y, i, j, k = split(e, parts=4) }"
    )
    graph = lowered(f"one = one(c3) output p3 = {call}", before)
    given = features()
    found = check_back_ends(graph, given, tmp_path)
    assert torch.allclose(found["p3"], expected(given["c3"], given["c3"][:, :1]), atol=1e-6)


def test_one_channel_at_another_level_and_as_a_raw_feature(tmp_path: Any) -> None:
    """c5 has one channel, which is known with the backbone only."""
    given = features()
    found = check_back_ends(lowered("output p3 = mul(c3, c5)"), given, tmp_path)
    large = torch.nn.functional.interpolate(given["c5"], size=(25, 42), mode="bilinear", align_corners=False)
    assert torch.allclose(found["p3"], given["c3"] * large, atol=1e-6)


def test_a_sum_of_one_channel_each_has_one() -> None:
    graph = lowered("a = conv(c3, k=1, width=1) output p3 = add(a, a)")
    assert set(graph.pyramid_widths.values()) == {1}


def test_many_operands_and_what_the_aggregation_says() -> None:
    found = pyramid(build(lowered("output p3 = add(c3, relu(c3), tanh(c3), c3)"), 2), features())
    x = features()["c3"]
    assert torch.allclose(found["p3"], 2 * x + x.relu() + x.tanh(), atol=1e-6)
    help = "`add` takes any number of operands: `add(c3, c4, c5)`"
    assert problems(text("output p3 = sum(c3, c4, c5)")) == [("NAS301", "sum(c3, c4, c5)", help)]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (
            "a = conv(c3, k=1, width=1) b = conv_1x1(c3, width=32) c = conv_1x1(c3) output p3 = add(a, b, c)",
            ("NAS306", "add(a, b, c)", "bring them to one width with `conv_1x1(x, width=…)`"),
        ),
        (
            "a = conv(c3, k=1, width=1) output p3 = conv_1x1(c3) merge dangling into p3",
            ("NAS306", "p3", "merge into values of one width, and widen them in the `output` behind that"),
        ),
    ],
)
def test_widths_that_differ_still_are_one_finding(body: str, found: tuple[str, str, str]) -> None:
    assert problems(text(body)) == [found]


def test_one_channel_is_not_merged_into_a_raw_feature() -> None:
    body = "a = conv(c3, k=1, width=1) output p3 = c3 merge dangling into p3"
    with pytest.raises(DiagnosticError, match="a sum of 64 and 1 channels with this backbone"):
        lowered(body)


# -------------------------------------------------------------------------------------------------- weights per position


def test_weights_per_position(tmp_path: Any) -> None:
    """The softmax over the channels of a value, written down with exp; the first operands of a level decide the size."""
    body = (
        "a, b = split(c4) w, v = split(b) one = conv(c5, k=1, width=1) by = concat(c5, one, one)"
        " output p3 = weighted_add(c3, relu(c3), tanh(c3), by=by), p4 = resize(weighted_add(c3, c3, c3, by=by), to=4)"
    )
    given = features()
    graph = lowered(body)
    found = check_back_ends(graph, given, tmp_path)
    module = build(graph, 2).eval()
    conv = module.fpn.get_submodule("one.conv")
    module.load_state_dict({k: torch.full_like(v, 0.3) for k, v in module.state_dict().items()})
    found = pyramid(module, given)
    with torch.no_grad():
        one = conv(given["c5"])
    logits = torch.cat([given["c5"], one, one], 1)
    logits = torch.nn.functional.interpolate(logits, size=(25, 42), mode="bilinear", align_corners=False)
    weights = logits.exp() / logits.exp().sum(1, keepdim=True)
    x = given["c3"]
    expected = x * weights[:, :1] + x.relu() * weights[:, 1:2] + x.tanh() * weights[:, 2:]
    assert torch.allclose(found["p3"], expected, atol=1e-5)
    small = torch.nn.functional.interpolate(x, size=(13, 21), mode="bilinear", align_corners=False)
    assert torch.allclose(found["p4"], small, atol=1e-5), "the weights add up to 1"


def test_finer_weights_do_not_change_the_level_of_a_sum() -> None:
    graph = lowered("by = conv(c3, k=1, width=2) x = weighted_add(c4, relu(c4), by=by) output p4 = x")
    assert next(n.out.level for n in graph.nodes if n.layer.kind == "weighted_add") == 4
    assert pyramid(build(graph, 2), features())["p4"].shape[2:] == (13, 21)


def test_a_sum_of_pooled_values_has_the_level_of_its_weights(tmp_path: Any) -> None:
    body = (
        "one = global_pool(c3, kind=avg) other = global_pool(c3, kind=max) by = conv(c4, k=1, width=2, norm=none)"
        " output p4 = weighted_add(one, other, by=by)"
    )
    graph = lowered(body)
    assert next(n.out.level for n in graph.nodes if n.layer.kind == "weighted_add") == 4
    assert check_back_ends(graph, features(), tmp_path)["p4"].shape[2:] == (13, 21)


def test_globally_pooled_weights_are_those_of_each_position(tmp_path: Any) -> None:
    body = "g = global_pool(c3, kind=avg) by = conv(g, k=1, width=2, norm=none) output p3 = weighted_add(c3, relu(c3), by=by)"
    found = check_back_ends(lowered(body), features(), tmp_path)
    assert found["p3"].shape[2:] == (25, 42)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("w = conv(c3, k=1, width=2) output p3 = weighted_add(c3, c4, by=w)", "", True),
        ("w = conv(c3, k=1, width=2) output p3 = weighted_add(c3, c4, by=w)", "output p3 = weighted_add(c3, c4)", False),
        (
            "w = conv(c3, k=1, width=2) output p3 = weighted_add(c3, c4, by=w)",
            "w = conv(c3, k=1, width=2) output p3 = weighted_add(c4, c3, by=w)",
            False,
        ),
        (
            "w = conv(c3, k=1, width=2) output p3 = weighted_add(c3, c4, by=w)",
            "w = conv(c3, k=1, width=2) output p3 = asff(c3, c4, w)",
            True,
        ),
    ],
)
def test_the_digest_of_weights(one: str, other: str, equal: bool) -> None:
    other = other or one
    before = "agg asff(x, y, w) = weighted_add(x, y, by=w)"
    digests = []
    for body in (one, other):
        decoder = nasdsl.loads(text(body, before, adapter="conv_1x1"))
        assert nasdsl.loads(str(decoder)).digest == decoder.digest
        digests.append(decoder.digest)
    assert (digests[0] == digests[1]) is equal


def test_weights_in_a_layer_of_the_head() -> None:
    before = "block gated(x) -> (y) { w = conv(x, k=1, width=2) y = weighted_add(x, relu(x), by=w) }"
    decoder = nasdsl.loads(text("output p3 = conv_1x1(c3)", before, head="gated"))
    assert nasdsl.loads(str(decoder)).digest == decoder.digest
    build(decoder.lower(CHANNELS), 2)(features())


def test_weights_of_a_raw_feature_are_counted_with_the_backbone() -> None:
    with pytest.raises(DiagnosticError, match=r"NAS319(.|\n)*weights of 32 channels for 2 operands with this backbone"):
        lowered("output p3 = weighted_add(c3, relu(c3), by=c4)")


# ---------------------------------------------------------------------------------------------------- the operand's width


@pytest.mark.parametrize("call", ["conv(X, k=3, groups=in, width=in)", "deform_conv(X, k=3, groups=in, width=in)"])
@pytest.mark.parametrize("operand", ["c3", "relu(c3)", "conv_1x1(c4, width=96)"])
def test_a_depthwise_convolution_whatever_comes_in(call: str, operand: str, tmp_path: Any) -> None:
    graph = lowered(f"output p3 = {call.replace('X', operand)}")
    check_back_ends(graph, features(), tmp_path)
    width = 64 if "c3" in operand else 96
    assert set(graph.pyramid_widths.values()) == {width}
    module = build(graph, 2).fpn
    conv = next(m for m in module.modules() if getattr(m, "groups", 1) == width)
    assert conv.weight.shape == (width, 1, 3, 3)


def test_a_dilated_one_has_the_module_of_a_depthwise_one() -> None:
    graph = lowered("output p3 = conv(c3, k=3, dilation=3, groups=in, width=in)")
    module = build(graph, 2).fpn.get_submodule("p3.conv")
    assert type(module).__name__ == "DilatedDepthwiseConv2d"


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("output p3 = conv(c3, k=3, groups=in, width=in)", "let g = in output p3 = conv(c3, k=3, width=g, groups=g)", True),
        ("output p3 = conv(c3, k=3, groups=in, width=in)", "output p3 = conv(c3, k=3, width=in)", False),
        ("output p3 = conv(c3, k=3, groups=in, width=in)", "output p3 = depthwise(c3)", True),
        ("output p3 = conv(c3, k=3, groups=in, width=in)", "let width = in output p3 = conv(c3, k=3, groups=in)", True),
        (
            "output p3 = conv(conv_1x1(c3), k=3, groups=in, width=in)",
            "output p3 = conv(conv_1x1(c3), k=3, groups=64, width=64)",
            True,
        ),
        ("output p3 = deform_conv(c3, groups=in, width=in)", "output p3 = deform_conv(c3, width=in)", False),
    ],
)
def test_the_digest_of_the_width_of_an_operand(one: str, other: str, equal: bool) -> None:
    assert same(one, other, "op depthwise(x, g=in) = conv(x, k=3, groups=g, width=in)") is equal


def test_the_canonical_text_is_the_same_with_any_backbone() -> None:
    body = "output p3 = conv_1x1(conv(c3, k=3, groups=in, width=in))"
    texts = set()
    for width in (32, 64):
        texts.add(canonical_text(lowered(body, channels={**CHANNELS, "c3": width})))
    assert len(texts) == 1
    assert "groups=in" in texts.pop()


def test_in_the_head_it_is_the_width_of_the_pyramid() -> None:
    head = "conv(k=3, groups=in, width=in) -> conv(k=1, width=8) -> conv(k=3, groups=in, width=in)"
    module = nasdsl.loads(text("output p3 = c3", head=head)).build(CHANNELS, 2)
    tower = module.head.get_submodule("cls")
    assert [tower.get_submodule(f"{n}.conv").groups for n in range(3)] == [64, 1, 8]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (
            "x = conv(c3, k=1, width=48) output p3 = conv(x, k=3, groups=in)",
            (
                "NAS307", "conv(x, k=3, groups=in)",
                "a group for each channel that comes in: `width=in` gives as many channels, one of each group",
            ),
        ),
        ("output p3 = conv(c3, k=in)", ("NAS303", "in", "")),
        ("output p3 = conv(c3, k=3, groups=in / 2)", ("NAS303", "in", "")),
        ("output p3 = conv(in, k=3)", ("NAS202", "in", "")),
    ],
)  # fmt: skip
def test_a_wrong_width_of_an_operand_is_one_finding(body: str, found: tuple[str, str, str]) -> None:
    assert problems(text(body)) == [found]


def test_groups_that_do_not_fit_a_raw_feature_are_found_with_the_backbone() -> None:
    body = "output p3 = conv(c3, k=3, groups=in, width=64)"
    lowered(body)
    with pytest.raises(
        DiagnosticError, match=r"NAS307(.|\n)*96 groups do not divide 96 channels in and 64 out with this backbone"
    ):
        lowered(body, channels={**CHANNELS, "c3": 96})


def test_nothing_is_almost_depthwise_about_the_width_of_an_operand() -> None:
    decoder = nasdsl.loads(text("output p3 = conv(c3, k=3, groups=in, width=in)"))
    assert decoder.architecture.warnings == ()


def test_a_shared_op_of_the_width_of_its_operand(tmp_path: Any) -> None:
    """Its calls have one set of weights, so that operands of another width do not fit; of raw features, with the backbone."""
    op = "shared deep(x) = conv(x, k=3, groups=in, width=in, bias=true)"
    graph = lowered(f"{op} output p3 = deep(c3), p4 = deep(conv_1x1(c4))")
    found = check_back_ends(graph, features(), tmp_path)
    assert set(found) == {"p3", "p4"}
    assert cost(graph, (200, 336), 2).fpn.params == 32 * 64 + 64 + 64 * 9 + 64
    body = f"{op} output p3 = conv_1x1(deep(c3)), p4 = conv_1x1(deep(c4))"
    lowered(body, channels={**CHANNELS, "c4": 64})
    with pytest.raises(DiagnosticError, match="shared"):
        lowered(body)
