"""ONNX files and torch.export programs compute what the module computes: zoo and random decoders, at sizes that no example had.

Offsets of deformable convolutions and other factors are away from where they start, so that every part takes part.
"""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import random_decoders
import torch
from exported_decoders import CHANNELS, SIZES, built, check, features, session
from lowest import exports_programs, runs_deform_conv
from torch import Tensor, nn
from zoo_files import ZOO, marks

import nasdsl
from nasdsl import layers
from nasdsl.backends.export import ExportError, MissingExtra
from nasdsl.backends.module import DecoderModule
from nasdsl.backends.torch_export import export_program, trace
from nasdsl.layers import Cost, CustomLayer, Feature, primitive
from nasdsl.nn import DeformConv2d

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
onnx_backend = pytest.importorskip("nasdsl.backends.onnx")


def small(path: Path) -> str:
    """A decoder of the zoo at width 64."""
    return path.read_text().replace("256", "64").replace("128", "64")


def zoo() -> list[Any]:
    return [pytest.param(small(path), id=path.stem, marks=marks(path.stem)) for path in ZOO]


def free(*seeds: int) -> list[Any]:
    return [
        pytest.param(random_decoders.text(seed), id=f"free{seed}", marks=() if seed < 12 else pytest.mark.long)
        for seed in seeds
    ]


def simple(body: str, before: str = "", inputs: str = "c3, c4, c5") -> str:
    return (
        f"{before} decoder d {{ input {inputs} fpn(width=32, norm=bn) {{ {body} }}"
        " head(width=32, norm=gn) { conv_3x3 } predict fcos(centerness=box) }"
    )


RELU = simple("output p3 = c3, p4 = sep_3x3(c4), p6 = down(c5)").replace("=box", "=box, boxes=relu")


# ------------------------------------------------------------------------------------------------ ONNX


@pytest.mark.parametrize("text", [*zoo(), *free(*range(24)), pytest.param(RELU, id="relu")])
def test_onnx_computes_what_the_module_does(text: str, tmp_path: Path) -> None:
    module = built(text)
    onnx_backend.export_onnx(module, tmp_path / "d.onnx")
    model = onnx.load(tmp_path / "d.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 20)]
    assert [value.name for value in model.graph.input] == list(module.fpn.input_levels)
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    check(module, session(model.SerializeToString()), [*SIZES, ((8, 9), 1)] if "norm=gn" not in text else SIZES[:2])


def test_onnx_at_full_width() -> None:
    module = built((ZOO[0].parent / "nas_fcos.nas").read_text())
    check(module, session(onnx_backend.onnx_model(module).SerializeToString()), [((96, 133), 2)])


def test_onnx_sizes_are_open_and_tied() -> None:
    module = built(simple("output p3 = add(c3, c5), p5 = c5", inputs="c3, c5"))
    graph = onnx_backend.onnx_model(module).graph
    shapes = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)}
    assert shapes["c3"] == ["batch", CHANNELS["c3"], "height_8", "width_8"]
    assert shapes["p3.cls_logits"] == ["batch", 3, "height_8", "width_8"]
    assert shapes["p5.bbox_reg"] == ["batch", 4, "height_32", "width_32"]


def test_onnx_names_follow_the_text() -> None:
    module = built(simple("x1 = cat(dconv_3x3(c3), c4)\n output p3 = x1"))
    model = onnx_backend.onnx_model(module)
    nodes = {node.name: node for node in model.graph.node}
    assert nodes["fpn/x1.x.deform_conv"].op_type == "Conv"
    assert nodes["fpn/x1.x.deform_conv/GridSample"].doc_string == "line 1: dconv_3x3(c3)"
    assert nodes["head/p3.cls.0.conv"].input[1] == "head.cls.0.conv.weight"
    state = module.state_dict()
    weights = {w.name for w in model.graph.initializer if not w.name.startswith("constant.")}
    assert weights == {name for name in state if not name.endswith("num_batches_tracked")} - {"head.scale"}
    facts = {p.key: p.value for p in model.metadata_props}
    assert facts["decoder"] == "d"
    assert facts["strides"] == '{"p3": 8}'


def test_onnx_bytes_are_a_function_of_text_and_weights(tmp_path: Path) -> None:
    for name in ("a", "b"):
        onnx_backend.export_onnx(built(random_decoders.text(3)), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_onnx_of_a_module_in_training_or_double_precision() -> None:
    module = built(simple("output p3 = conv_3x3(c3)"))
    expected = onnx_backend.onnx_model(module).SerializeToString(deterministic=True)
    module.double().train()
    assert onnx_backend.onnx_model(module).SerializeToString(deterministic=True) == expected
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "aligned"])
@pytest.mark.parametrize("size", [(1584, 40), (40, 1856), (400, 16), (9, 33)])
def test_onnx_resizes_as_torch_does(mode: str, size: tuple[int, int]) -> None:
    """Also where float32 puts the nearest pixel one off: 50 pixels to 198, 58 to 230."""
    body = (
        f"a = conv_1x1(resize(c5, to=c3, mode={mode})) b = conv_1x1(resize(c3, to=c5, mode={mode}))"
        f" c = conv_1x1(resize(c4, to=c3, mode={mode})) output p3 = add(a, c), p5 = b"
    )
    module = built(simple(body))
    check(module, session(onnx_backend.onnx_model(module).SerializeToString()), [(size, 1)])


@pytest.mark.parametrize(
    "function", ["relu", "relu6", "leaky_relu", "silu", "hardswish", "gelu", "sigmoid", "hardsigmoid", "tanh"]
)
def test_onnx_activations(function: str) -> None:
    module = built(simple(f"x = conv_3x3(c3, act=none) y = mul(x, global_pool(x, kind=max)) output p3 = {function}(y)"))
    check(module, session(onnx_backend.onnx_model(module).SerializeToString()), SIZES[:1])


FINER = [
    "up_conv(c4)", "up_conv(c5, k=3, norm=none)", "up_conv(c5, k=5, stride=4, groups=4, bias=false, act=none)",
    "up_conv(c4, k=4, groups=in, width=in)",
    "pixel_shuffle(c4)", "carafe(c4, compressed=8)", "carafe(c5, factor=4, k=3, encoder_k=1, compressed=4)",
    "attention(c4)", "attention(c5, heads=4, position=none)",
]  # fmt: skip
"""Layers that lead to finer maps, and attention."""


@pytest.mark.parametrize(
    "expression",
    [
        "pool(c3, kind=avg, k=3, stride=2)", "pool(c3, kind=max, k=3, stride=2)", "concat(global_pool(c3, kind=avg), c4)",
        "deform_conv(c3, k=3, stride=2, offset_groups=4, groups=2)", "deform_conv(c4, k=5, dilation=2)",
        "deform_conv(c4, k=1, bias=false)", "weighted_add(c4, c5, c3)", "max(c4, global_pool(c5, kind=max))",
        *FINER, "norm(c4, norm=ln)", "norm(c4, norm=gn16)", "norm(c4, norm=gn1)", "add(c4, c5, -0.75)",
        "deform_conv(c4, offset=o)", "deform_conv(c4, k=1, offset=o1, offset_groups=4, bias=false)",
    ],
)  # fmt: skip
def test_onnx_layers(expression: str) -> None:
    offsets = "o = conv(c4, k=3, width=27, act=tanh, norm=none) o1 = conv(c4, k=3, width=8, norm=none, act=none)"
    module = built(simple(f"{offsets} x = {expression} output p4 = conv_1x1(resize(x, to=c4))"))
    check(module, session(onnx_backend.onnx_model(module).SerializeToString()))


def test_onnx_sizes_inside_of_a_layer_of_the_head() -> None:
    """It is given the sizes of its own maps, each level the half of the one before it, rounded up."""
    text = simple("output p3 = c3, p4 = c4", "op bounce(x) = up_conv(conv_3x3(up_conv(down(down(x)))))")
    module = built(text.replace("{ conv_3x3 }", "{ bounce }").replace("norm=gn", "norm=gn1"))
    check(module, session(onnx_backend.onnx_model(module).SerializeToString()), [*SIZES, ((8, 9), 1)])


def _zero_offsets(right: Any) -> Any:
    return lambda writer, layer, x, size, offset, axis: right(
        writer, layer, x, size, writer.op("Mul", offset, writer.number(0)), axis
    )


def _axes_swapped(right: Any) -> Any:
    return lambda writer, layer, x, size, offset, axis: right(writer, layer, x, size, offset, 1 - axis)


@pytest.mark.parametrize(
    ("rule", "broken"),
    [
        ("_axis", _zero_offsets),
        ("_axis", _axes_swapped),
        ("_group_norm", lambda right: lambda writer, module, path, x: x),
        ("_fold", lambda right: lambda writer, kind, x: writer.op(kind, x[0], x[0])),
    ],
)
def test_a_broken_rule_is_seen(rule: str, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from nasdsl.backends.onnx import layers as rules

    module = built(simple("output p3 = add(dconv_3x3(c3), c4)"))
    check(module, session(onnx_backend.onnx_model(module).SerializeToString()), SIZES[:1])
    monkeypatch.setattr(rules, rule, broken(getattr(rules, rule)))
    with pytest.raises((AssertionError, RuntimeError, onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException)):
        check(module, session(onnx_backend.onnx_model(module).SerializeToString()), SIZES[:1])


@runs_deform_conv
def test_onnxruntime_computes_deform_conv_on_a_cpu() -> None:
    """As a comment of the exporter says: ONNX's own operator gives what the exported GridSample and the module give."""
    module = built(simple("output p3 = deform_conv(c3, k=3, dilation=2, offset_groups=4, groups=2)"))
    part = next(part for part in module.modules() if isinstance(part, DeformConv2d))
    x = features(module, (75, 109), 2)["c3"]
    with torch.no_grad():
        x = module.fpn.get_submodule("c3")(x) if part.in_channels != x.shape[1] else x
        offset, mask = part.offset(x).split([2 * 4 * 9, 4 * 9], dim=1)
        given = {"x": x, "w": part.weight, "o": offset, "b": part.bias, "m": mask.sigmoid()}
        expected = part(x)
    node = onnx.helper.make_node(
        "DeformConv", list(given), ["y"], kernel_shape=[3, 3], pads=[2] * 4, dilations=[2, 2], group=2, offset_group=4
    )
    value = onnx.helper.make_tensor_value_info
    inputs = [value(name, onnx.TensorProto.FLOAT, list(tensor.shape)) for name, tensor in given.items()]
    graph = onnx.helper.make_graph([node], "d", inputs, [value("y", onnx.TensorProto.FLOAT, None)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    found = session(model.SerializeToString())({name: tensor.detach() for name, tensor in given.items()})["y"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_without_the_package_onnx_the_message_names_the_extra() -> None:
    code = "import sys; sys.modules['onnx'] = None\nfrom nasdsl.backends.onnx import export_onnx"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith(
        "MissingExtra: writing ONNX needs the package onnx: pip install 'nasdsl[onnx]'"
    )
    assert issubclass(MissingExtra, ImportError)


# ------------------------------------------------------------------------------------------------ torch.export


SEEN_IN_OTHERS = ("deform_fpn_fcos", "fcos", "nas_fcos_128", "nas_fcos_128_256", "nas_fcos_fpn_only", "panet", "retinanet")
"""Decoders of which others have all layers: torch.export takes half a minute or more for each. `make torture` traces one random
decoder in 25."""


@exports_programs
@pytest.mark.parametrize(
    "text",
    [
        *(pytest.param(small(path), id=path.stem, marks=pytest.mark.long) for path in ZOO if path.stem not in SEEN_IN_OTHERS),
        *(pytest.param(random_decoders.text(seed), id=f"free{seed}", marks=pytest.mark.long) for seed in (2, 10, 12)),
        pytest.param(RELU, id="relu"),
    ],
)
def test_a_program_computes_what_the_module_does(text: str) -> None:
    module = built(text)
    with torch.no_grad():
        check(module, trace(module).module(), [*SIZES, ((8, 9), 1)] if "norm=gn" not in text else SIZES[:2])


@pytest.mark.long
@exports_programs
def test_a_program_of_layers_that_lead_to_finer_maps() -> None:
    """One program has them all, in the fpn and in the head."""
    body = " ".join(f"x{i} = {expression}" for i, expression in enumerate(FINER))
    merged = ", ".join(f"conv_1x1(resize(x{i}, to=c4))" for i in range(len(FINER)))
    before = "op bounce(x) = add(attention(x, heads=2), up_conv(pool(x, k=2, stride=2, kind=max), norm=ln))"
    body += " o = conv(x0, k=3, width=27, norm=none, act=tanh) y = deform_conv(c3, offset=o)"
    module = built(simple(f"{body} output p3 = y, p4 = add({merged})", before).replace("{ conv_3x3 }", "{ bounce }"))
    with torch.no_grad():
        check(module, trace(module).module(), SIZES[:2])


def test_what_is_not_traced_has_no_layer_of_its_own() -> None:
    """By kind and attributes, without widths and groups, which are numbers of channels."""

    def layers_of(path: Path) -> set[Any]:
        graph = nasdsl.loads(small(path)).lower(CHANNELS)
        attributes = [(node.layer.kind, {**asdict(node.layer), "width": 0, "groups": 0}) for node in graph.nodes]
        return {(kind, tuple(sorted(values.items()))) for kind, values in attributes}

    found = {path.stem: layers_of(path) for path in ZOO}
    traced = set().union(*(found[name] for name in found if name not in SEEN_IN_OTHERS))
    assert [name for name in SEEN_IN_OTHERS if found[name] - traced] == []


def test_an_older_torch_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.backends.torch_export.OLDEST_TORCH", (99, 1))
    with pytest.raises(ExportError, match=re.escape(f"need torch 99.1 or newer; this is torch {torch.__version__}")):
        export_program(built(simple("output p3 = conv_3x3(c3), p4 = c4")), tmp_path / "d.pt2")


@exports_programs
def test_a_program_leaves_the_module_and_this_machine_alone(tmp_path: Path) -> None:
    module = built(simple("output p3 = conv_3x3(c3), p4 = c4")).train()
    module.fpn.eval()
    before = [part.training for part in module.modules()]
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    export_program(module, tmp_path / "d.pt2")
    assert [part.training for part in module.modules()] == before
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    with zipfile.ZipFile(tmp_path / "d.pt2") as file:
        content = b"".join(file.read(name) for name in file.namelist())
    assert b'"decoder": "d"' in content
    assert str(Path(nasdsl.__file__).parent).encode() not in content
    assert b"site-packages" not in content


@pytest.mark.parametrize("name", ["d.onnx", pytest.param("d.pt2", marks=exports_programs)])
def test_a_full_disk_leaves_the_earlier_file(name: str, tmp_path: Path) -> None:
    """A limit on the size of files stands for it."""
    resource = pytest.importorskip("resource", reason="limits of POSIX")
    file, module = tmp_path / name, built(simple("output p3 = conv_3x3(c3), p4 = c4"))
    file.write_bytes(b"earlier")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match=f"File too large: '.*{name}'"):
            (onnx_backend.export_onnx if file.suffix == ".onnx" else export_program)(module, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [file]
    assert file.read_bytes() == b"earlier"


@pytest.mark.long
@pytest.mark.parametrize("format", ["onnx", pytest.param("pt2", marks=exports_programs)])
def test_files_need_no_nasdsl(format: str, tmp_path: Path) -> None:
    module = built(simple("x = weighted_add(dconv_3x3(c3), c4) output p3 = x, p4 = down(x) output p5 = down(relu(p4))"))
    given = features(module, (200, 333), 3)
    with torch.no_grad():
        expected = {f"{k}.{n}": t for k, p in module(given).items() for n, t in p._asdict().items()}
    torch.save((given, expected), tmp_path / "values.pt")
    if format == "onnx":
        onnx_backend.export_onnx(module, tmp_path / "d.onnx")
        load = (
            "import onnxruntime\n"
            "s = onnxruntime.InferenceSession('d.onnx', providers=['CPUExecutionProvider'])\n"
            "names = [o.name for o in s.get_outputs()]\n"
            "values = s.run(names, {k: v.numpy() for k, v in given.items()})\n"
            "found = {n: torch.from_numpy(v) for n, v in zip(names, values)}\n"
        )
    else:
        export_program(module, tmp_path / "d.pt2")
        load = "found = torch.export.load('d.pt2').module()(given)\n"
    code = (
        "import sys; sys.modules['nasdsl'] = None\nimport torch\ngiven, expected = torch.load('values.pt')\n" + load + "\n"
        "assert list(found) == list(expected), list(found)\n"
        "for name, value in expected.items():\n"
        "    torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4)\n"
        "assert not [m for m in sys.modules if m.startswith('nasdsl.')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------ custom primitives


class Picky(nn.Module):
    """Looks at a value: no tracer can follow."""

    def forward(self, x: Tensor) -> Tensor:
        return x if float(x.mean()) > 0 else -x


@pytest.fixture
def custom() -> Iterator[DecoderModule]:
    with mock.patch.dict(layers.CUSTOM):

        @primitive("picky")
        @dataclass(frozen=True, slots=True)
        class PickyLayer(CustomLayer):
            def infer(self, inputs: Sequence[Feature]) -> Feature:
                return inputs[0]

            def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
                return Cost()

            def module(self, inputs: Sequence[Feature], out: Feature) -> Any:
                return Picky()

        yield built(simple("x = conv_3x3(c3)\n output p3 = picky(x)"))


def test_onnx_names_a_primitive_that_it_cannot_write(custom: DecoderModule) -> None:
    with pytest.raises(
        ExportError, match=r"the primitive `picky` \(.*PickyLayer\) does not say how it is written as ONNX"
    ) as error:
        onnx_backend.onnx_model(custom)
    assert "line 2: picky(x)" in str(error.value)


@exports_programs
def test_a_program_names_a_primitive_that_cannot_be_traced(custom: DecoderModule, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"cannot trace the primitive `picky` \(.*PickyLayer\) in line 2: picky\(x\)"):
        export_program(custom, tmp_path / "d.pt2")
    assert not (tmp_path / "d.pt2").exists()


@exports_programs
def test_a_program_that_cannot_be_traced_for_another_reason_names_the_decoder(
    custom: DecoderModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such symbol\nand more")

    monkeypatch.setattr(torch.export, "export", fails)
    custom.train()
    with pytest.raises(ExportError, match=r"^torch\.export cannot trace the decoder \w+: no such symbol$"):
        export_program(custom, tmp_path / "d.pt2")
    assert all(part.training for part in custom.modules()), "as it was"
    assert not (tmp_path / "d.pt2").exists()


def test_onnx_of_a_primitive_with_an_onnx_method(custom: DecoderModule, monkeypatch: pytest.MonkeyPatch) -> None:
    def rule(self: CustomLayer, writer: Any, module: nn.Module, x: Sequence[str]) -> str:
        sign = writer.op("Sign", writer.op("ReduceMean", x[0], keepdims=0))
        product: str = writer.op("Mul", x[0], sign)
        return product

    monkeypatch.setattr(layers.CUSTOM["picky"], "onnx", rule, raising=False)
    check(custom, session(onnx_backend.onnx_model(custom).SerializeToString()), [((64, 96), 1)])
