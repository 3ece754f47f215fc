"""Layers without a convolution in them against torch: the decoder's module, and each back end against the module.

`values` runs an fpn without adapters whose outputs are the values in question, so that what is expected can be written down
in a line of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from findings import checked
from torch import Tensor

import nasdsl
from nasdsl.backends.cost import cost
from nasdsl.backends.module import DecoderModule, build
from nasdsl.backends.source import emit_source
from nasdsl.backends.torch_export import trace
from nasdsl.diagnostics import DiagnosticError
from nasdsl.ir import Graph
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
output p3 = concat(b, a)
"""


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
