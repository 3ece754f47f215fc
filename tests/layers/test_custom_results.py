"""Custom layers with several results or a size: their shapes, their back ends, and what breaks the contract."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nasdsl
from nasdsl.backends.cost import cost
from nasdsl.backends.diagrams.from_graph import diagram
from nasdsl.backends.export import ExportError
from nasdsl.backends.onnx import onnx_model
from nasdsl.backends.source import emit_source
from nasdsl.decoder import check_source
from nasdsl.diagnostics import Source
from nasdsl.layers import CUSTOM, Cost, CustomLayer, Feature, Features, PrimitiveError, primitive
from nasdsl.layers.origins import registering
from nasdsl.spaces import loads_space

CHANNELS = {"c3": 8, "c4": 8}


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    with mock.patch.dict(CUSTOM, clear=True):
        yield


def text(body: str, before: str = "", head: str = "conv_3x3") -> str:
    return (
        f"{before}decoder d {{\n  input c3, c4\n  fpn(width=32, norm=bn) {{ {body} }}\n"
        f"  head(width=32, norm=gn) {{ {head} }}\n  predict fcos(centerness=cls)\n}}\n"
    )


class Halves(nn.Module):
    """A stand-in for what packages bring."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, dim=1)
        return a, b


class Enlarge(nn.Module):
    """A stand-in for what packages bring."""

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return F.interpolate(x, size=size)


def halves(**rules: Any) -> type[CustomLayer]:
    class Base(CustomLayer):
        def infer(self, inputs: Sequence[Feature]) -> Any:
            (x,) = inputs
            return (Feature(x.level, x.width // 2), Feature(x.level, x.width - x.width // 2))

        def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
            return Cost()

        def module(self, inputs: Sequence[Feature], out: Feature) -> Any:
            return Halves()

        def source(self, inputs: Sequence[Feature], out: Feature) -> str:
            return "Halves()"

        def definitions(self) -> Sequence[Any]:
            return [Halves]

    return primitive("halves", results=2)(dataclass(frozen=True)(type("HalvesLayer", (Base,), rules)))


def enlarge(*, sized: bool = True, **rules: Any) -> type[CustomLayer]:
    class Base(CustomLayer):
        def infer(self, inputs: Sequence[Feature]) -> Any:
            (x,) = inputs
            assert x.level is not None
            return Feature(x.level - 1, x.width)

        def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
            return Cost()

        def module(self, inputs: Sequence[Feature], out: Feature) -> Any:
            return Enlarge()

    return primitive("enlarge", sized=sized)(dataclass(frozen=True)(type("EnlargeLayer", (Base,), rules)))


def problems(source: str) -> list[tuple[str, str]]:
    return [(p.code, p.message) for p in check_source(Source("t.nas", source)).problems]


def features(height: int, width: int) -> dict[str, Tensor]:
    return {"c3": torch.randn(1, 8, height, width), "c4": torch.randn(1, 8, -(-height // 2), -(-width // 2))}


# ------------------------------------------------------------------------------------------------- several results


def test_several_results_in_fpn_op_block_repeat_and_head() -> None:
    halves()
    source = text(
        "a, b = halves(c3) repeat 2 { a, b = halves(concat(a, b)) } q, r = swap(c4) "
        "output p3 = concat(a, b), p4 = concat(q, r)",
        "block swap(x) -> (s, t) { t, s = halves(x) }\nblock flip(x) -> (y) { s, t = halves(x) y = concat(t, s) }\n",
        "conv_3x3 -> flip",
    )
    assert problems(source) == []
    decoder = nasdsl.loads(source)
    assert nasdsl.loads(decoder.canonical).digest == decoder.digest
    module = decoder.build(CHANNELS, 2).eval()
    given = features(5, 7)
    pyramid = module.pyramid(given)
    assert pyramid["p4"].shape == (1, 32, 3, 4)
    plain = nasdsl.loads(source.replace("t, s = halves(x)", "s, t = halves(x)"))
    other = plain.build(CHANNELS, 2).eval()
    other.load_state_dict(module.state_dict())
    swapped = other.pyramid(given)["p4"]
    torch.testing.assert_close(torch.cat([swapped[:, 16:], swapped[:, :16]], 1), pyramid["p4"])
    assert plain.digest != decoder.digest
    namespace: dict[str, Any] = {"__name__": "written"}
    exec(emit_source(module.graph, 2), namespace)
    written = namespace["Decoder"]()
    written.load_state_dict(module.state_dict())
    for a, b in zip(written.eval()(given).values(), module(given).values(), strict=True):
        torch.testing.assert_close(a[0], b[0])


def test_shapes_of_several_results_survive_copies() -> None:
    several = Features.of([Feature(3, 4), Feature(2, 8)])
    assert (several.level, several.width) == (3, 4), "it is the first of them"
    for again in (copy.deepcopy(several), pickle.loads(pickle.dumps(several))):
        assert (again, again.results) == (several, several.results)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("output p3 = conv_3x3(halves(c3))", "`halves` gives 2 values"),
        ("a = halves(c3) output p3 = a", "`halves` gives 2 values"),
        ("a, b, c = halves(c3) output p3 = a", "`halves` gives 2 values for 3 names"),
    ],
)
def test_the_number_of_names_is_that_of_the_results(body: str, message: str) -> None:
    halves()
    assert problems(text(body)) == [("NAS310", message)]


def test_a_result_that_nothing_reads() -> None:
    halves()
    source = text("a, b = halves(c3) output p3 = conv_1x1(a)")
    assert problems(source) == [("NAS901", "nothing reads `b`")]
    decoder = nasdsl.loads(source)
    assert nasdsl.loads(decoder.canonical).digest == decoder.digest
    other = nasdsl.loads(text("a, b = halves(c3) output p3 = conv_1x1(b)"))
    assert other.digest != decoder.digest, "which of the results is read"


def test_spaces_count_and_match_several_results() -> None:
    halves()
    space = loads_space(text("a, b = halves(?(c3 | conv_3x3(c3))) output p3 = concat(?(a | conv_1x1(a, width=16)), b)"))
    assert space.size == 4
    seen = set()
    for sample in space.samples(12, seed=0):
        table = nasdsl.loads(sample).cost()
        figures = space.figures(sample.indices)
        assert figures is not None
        assert figures.params == table.fpn.params + table.head.params
        assert space.encode(sample) == list(sample.indices)
        seen.add(sample.indices)
    assert len(seen) == 4


def two(*features: Any) -> Any:
    return lambda self, inputs: features


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda self, inputs: None, "infer returns None; expected a tuple of 2 Features"),
        (lambda self, inputs: inputs[0], "expected a tuple of 2 Features"),
        (two(Feature(3, 4)), "expected a tuple of 2 Features"),
        (two(Feature(3, 4), None), "expected a tuple of 2 Features"),
        (two(Feature(3, 4), Feature(3, -1)), "expected a tuple of 2 Features"),
        (two(Feature(3, 4), Feature(3, 0)), "although the width of every operand is known"),
    ],
)
def test_a_shape_rule_that_gives_other_than_its_results(rule: Any, message: str) -> None:
    halves(infer=rule)
    ((code, said),) = problems(text("a, b = halves(c3) output p3 = concat(a, b)"))
    assert code == "NAS314"
    assert message in said


@pytest.mark.parametrize("results", [0, -1, True, 1.0, "2", 65])
def test_a_number_of_results_that_is_none(results: Any) -> None:
    with pytest.raises(PrimitiveError, match="has results="):
        primitive("made", results=results)(dataclass(frozen=True)(type("Made", (CUSTOM.get("halves") or halves(),), {})))


# ------------------------------------------------------------------------------------------------------------ sizes


def test_an_upsampling_primitive_on_odd_maps() -> None:
    enlarge()
    source = text("output p3 = add(enlarge(c4), c3)", "op pass(x) = enlarge(down_max(x))\n", "conv_3x3 -> pass")
    module = nasdsl.loads(source).build(CHANNELS, 2)
    for height, width in ((5, 7), (13, 4), (8, 8), (1, 1)):
        assert module.eval()(features(height, width))["p3"].cls_logits.shape == (1, 2, height, width)


def test_one_without_a_size_is_found_when_the_text_is_checked() -> None:
    enlarge(sized=False)
    ((code, message),) = problems(text("output p3 = add(enlarge(c4), c3)"))
    assert code == "NAS314"
    assert re.search(r"`enlarge` \(.*EnlargeLayer\) gives a finer map than its operands, and takes no size", message)


class Wrong(nn.Module):
    def __init__(self, result: Any) -> None:
        super().__init__()
        self.result = result

    def forward(self, *_: Tensor, size: Any = None) -> Any:
        return self.result


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (torch.zeros(1, 32, 10, 14), r"gives \[1, 32, 10, 14\] where its shape rule says \[N, 32, 5, 7\]"),
        (torch.zeros(1, 8, 5, 7), r"gives \[1, 8, 5, 7\] where"),
        (None, "gives NoneType where"),
        ((torch.zeros(1, 32, 5, 7),), "gives tuple where"),
    ],
)
def test_a_module_whose_result_has_another_shape_is_named(result: Any, message: str) -> None:
    with registering("nasdsl-x 1.0, entry point `x`"):
        enlarge(module=lambda self, inputs, out: Wrong(result))
    module = nasdsl.loads(text("output p3 = add(enlarge(c4), c3)")).build(CHANNELS, 2)
    with pytest.raises(PrimitiveError, match=message) as caught:
        module(features(5, 7))
    assert "EnlargeLayer of nasdsl-x 1.0, entry point `x`)" in str(caught.value)


def test_a_module_that_gives_another_number_of_results() -> None:
    halves(module=lambda self, inputs, out: nn.Identity())
    module = nasdsl.loads(text("a, b = halves(c3) output p3 = concat(a, b)")).build(CHANNELS, 2)
    with pytest.raises(PrimitiveError, match="gives Tensor; expected 2 tensors in a tuple"):
        module(features(5, 7))


# ------------------------------------------------------------------------------------------------------ source, ONNX


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"definitions": lambda self: [3]}, "definitions gives 3; expected classes, functions and strings"),
        ({"definitions": lambda self: 1 // 0}, "fails in definitions: ZeroDivisionError"),
        ({"definitions": lambda self: [type("Fpn", (), {})]}, "the file has another Fpn already; rename it"),
    ],
)
def test_definitions_that_cannot_be_copied(rules: dict[str, Any], message: str) -> None:
    halves(**rules)
    graph = nasdsl.loads(text("a, b = halves(c3) output p3 = concat(a, b)")).lower(CHANNELS)
    with pytest.raises(PrimitiveError, match=message):
        emit_source(graph, 2)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda self, writer, module, x: x[0], "onnx returns .*; expected the names of 2 tensors"),
        (lambda self, writer, module, x: None, "onnx returns None"),
        (lambda self, writer, module, x: writer.nothing, "fails in onnx: AttributeError"),
    ],
)
def test_an_onnx_rule_that_fails_names_its_class(rule: Any, message: str) -> None:
    halves(onnx=rule)
    module = nasdsl.loads(text("a, b = halves(c3) output p3 = concat(a, b)")).build(CHANNELS, 2).eval()
    with pytest.raises(PrimitiveError, match=r"`halves` \(.*HalvesLayer\)") as caught:
        onnx_model(module)
    assert re.search(message, str(caught.value))


def test_no_onnx_rule() -> None:
    halves()
    module = nasdsl.loads(text("a, b = halves(c3) output p3 = concat(a, b)")).build(CHANNELS, 2).eval()
    with pytest.raises(ExportError, match=r"`halves` \(.*\) does not say how it is written as ONNX"):
        onnx_model(module)


def test_weights_of_two_layers_of_one_class_stay_apart_in_onnx() -> None:
    class Factor(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.rand(()))

        def forward(self, x: Tensor) -> Tensor:
            return self.w * x

    class Base(CustomLayer):
        def infer(self, inputs: Sequence[Feature]) -> Any:
            return inputs[0]

        def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
            return Cost(0, 1)

        def module(self, inputs: Sequence[Feature], out: Feature) -> Any:
            return Factor()

        def onnx(self, writer: Any, module: Any, x: Sequence[str]) -> Any:
            return writer.op("Mul", x[0], writer.own_weight("w", module.w))

    primitive("factor")(dataclass(frozen=True)(type("FactorLayer", (Base,), {})))
    module = nasdsl.loads(text("output p3 = factor(factor(c3))", head="factor")).build(CHANNELS, 2).eval()
    written = {i.name for i in onnx_model(module).graph.initializer}
    assert {name for name in module.state_dict() if name.endswith(".w")} <= written
    assert len([name for name in written if name.endswith(".w")]) == 4


def test_the_picture_of_a_custom_primitive_inside_a_call() -> None:
    """Whatever stands around it: its family was that of the convolution."""
    enlarge()
    graph = nasdsl.loads(text("a = conv_3x3(enlarge(c4)) output p3 = add(a, c3)")).lower(CHANNELS)
    drawn = diagram(graph, cost(graph, (64, 64), 2))
    families = {box.name: box.family for lane in drawn.lanes for box in lane.boxes}
    assert families == {"a": "custom", "p3": "aggregation", "c3": "convolution", "c4": "convolution"}
