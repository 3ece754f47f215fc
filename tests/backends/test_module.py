"""The module tree: names, initial weights, errors that name the text."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

import name_free_weights
import pytest
import random_decoders
import torch
from torch import nn

import nasdsl
from nasdsl import layers
from nasdsl.backends.module import DecoderModule
from nasdsl.backends.source import emit_source
from nasdsl.backends.source.definitions import definition
from nasdsl.ir.lower import MODULE_ATTRIBUTES
from nasdsl.layers import Cost, CustomLayer, Feature, primitive
from nasdsl.nn.fusion import Group

CHANNELS = random_decoders.CHANNELS


def build(body: str, head: str = "share=0) { conv_3x3 -> conv_1x1", before: str = "") -> DecoderModule:
    return nasdsl.loads(
        f"{before} decoder d {{ input c3, c4, c5 fpn(width=64, norm=bn) {{ {body} }}"
        f" head(width=64, norm=gn, {head} }} predict fcos(centerness=box) }}"
    ).build(CHANNELS, 5)


def test_names_follow_the_text() -> None:
    before = "block pair(a, b) -> (s) { m = conv_3x3(a); s = psum(m, b) }"
    module = build(
        "x1 = cat(sep_3x3(c3), c5); x2 = pair(x1, c4); output p3 = x2, p5 = conv_3x3(c5)",
        "share=1) { conv_3x3 -> sep_3x3",
        before,
    )
    names = [n for n, _ in module.named_parameters()]
    for expected in (
        "fpn.c3.conv.weight", "fpn.x1.x.conv.weight", "fpn.x1.x.conv2.weight", "fpn.x1.x.norm.bias", "fpn.x1.conv.weight",
        "fpn.x2.pair.m.conv.weight", "fpn.p5.conv.weight", "head.cls.0.p3.conv.weight", "head.cls.0.p5.norm.weight",
        "head.box.1.conv2.weight", "head.cls_logits.bias", "head.bbox_reg.weight", "head.centerness.weight", "head.scale.p5",
    ):  # fmt: skip
        assert expected in names, (expected, names)
    assert not [n for n in names if n.startswith("fpn.x1.y")]


def test_the_source_names_layers_by_a_group_of_them() -> None:
    group = Group(conv=nn.Conv2d(4, 8, 1, bias=False), inner=Group(norm=nn.BatchNorm2d(8)))
    assert [name for name, _ in group.named_parameters()] == ["conv.weight", "inner.norm.weight", "inner.norm.bias"]
    assert definition("nasdsl.nn.fusion", "Group").startswith("class Group(nn.Module):")
    with pytest.raises(LookupError, match=r"nasdsl\.nn\.fusion defines no Groups"):
        definition("nasdsl.nn.fusion", "Groups")


def test_keywords_of_python_and_attributes_of_torch_can_be_names() -> None:
    module = build("class = conv_3x3(c3); forward = conv_1x1(class); type = sum(class, forward); output p3 = conv_3x3(type)")
    assert {"class_", "forward_"} <= {n for n, _ in module.fpn.named_children()}
    text = emit_source(module.graph, 5)
    exec(compile(text, "emitted", "exec"), {"__name__": "emitted"})


def test_all_attributes_of_a_module_are_reserved() -> None:
    public = {n for n in dir(nn.ModuleDict()) if not n.startswith("_")}
    assert public <= MODULE_ATTRIBUTES


def test_initial_weights() -> None:
    torch.manual_seed(0)
    module = build("output p3 = conv_3x3(c3), p6 = down(c5)")
    head, p6 = module.head, module.fpn.get_submodule("p6.conv")
    logits = head.get_submodule("cls_logits")
    assert isinstance(logits, nn.Conv2d)
    assert logits.bias is not None
    assert torch.allclose(logits.bias.sigmoid(), torch.full((5,), 0.01))
    assert logits.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert isinstance(p6, nn.Conv2d)
    assert p6.weight.abs().max().item() == pytest.approx(math.sqrt(3 / (64 * 9)), rel=0.01)  # kaiming_uniform(a=1)
    assert p6.bias is not None
    assert not p6.bias.any()


def test_share_index() -> None:
    """Levels have weights of their own before the index, and one set from it on."""
    torch.manual_seed(0)
    module = build("output p3 = c3, p4 = c4", "share=1) { conv_3x3 -> conv_3x3").eval()
    same = torch.randn(1, 64, 8, 8)
    with torch.no_grad():
        out = module.head({"p3": same, "p4": same})
        assert not torch.allclose(out["p3"].cls_logits, out["p4"].cls_logits)
        for tower in ("cls", "box"):
            module.head.get_submodule(f"{tower}.0.p4").load_state_dict(module.head.get_submodule(f"{tower}.0.p3").state_dict())
        out = module.head({"p3": same, "p4": same})
    assert torch.equal(out["p3"].cls_logits, out["p4"].cls_logits)
    assert torch.equal(out["p3"].bbox_reg, out["p4"].bbox_reg)


def test_centerness_reads_its_tower() -> None:
    module = build("output p3 = c3").eval()
    features = name_free_weights.features((64, 64), {"c3": CHANNELS["c3"]})
    with torch.no_grad():
        before = module(features)["p3"]
        for parameter in module.head.get_submodule("cls").parameters():
            parameter.add_(0.1)
        after = module(features)["p3"]
    assert torch.equal(before.centerness, after.centerness)  # type: ignore[arg-type]  # both predict it
    assert not torch.equal(before.cls_logits, after.cls_logits)


def test_boxes_as_exp_and_relu() -> None:
    """One network, read as exp(s * x) and as relu(s * x) * stride: pixels of the image on every level."""
    text = (
        "decoder d {{ input c3, c5 fpn(width=64, norm=bn) {{ output p3 = c3, p5 = c5, p6 = down(c5) }}"
        " head(width=64, norm=gn) {{ conv_3x3 }} predict fcos(boxes={}) }}"
    )
    exp, relu = (nasdsl.loads(text.format(form)).build(CHANNELS, 5).eval() for form in ("exp", "relu"))
    name_free_weights.set_weights(exp)
    with torch.no_grad():
        for level, factor in (("p3", 0.5), ("p5", 1.5), ("p6", -2.0)):
            exp.head.get_parameter(f"scale.{level}").fill_(factor)
    relu.load_state_dict(exp.state_dict())
    features = name_free_weights.features((96, 128), {k: CHANNELS[k] for k in ("c3", "c5")})
    with torch.no_grad():
        as_exp, as_relu = exp(features), relu(features)
    for level, stride in (("p3", 8), ("p5", 32), ("p6", 64)):
        scaled = as_exp[level].bbox_reg.log()
        assert scaled.min() < -0.01 < 0.01 < scaled.max(), "both sides of where relu bends"
        torch.testing.assert_close(as_relu[level].bbox_reg, scaled.clamp(min=0) * stride, rtol=1e-4, atol=1e-4 * stride)
        assert torch.equal(as_relu[level].cls_logits, as_exp[level].cls_logits)
        assert torch.equal(as_relu[level].centerness, as_exp[level].centerness)  # type: ignore[arg-type]  # both predict it


def test_run_time_errors_name_the_line() -> None:
    module = build("x1 = conv_3x3(c3)\n output p3 = x1")
    with pytest.raises(RuntimeError) as error:
        module({"c3": torch.randn(1, 7, 8, 8)})
    assert "c3.conv" in error.value.__notes__[0]
    assert "<text>:1" in error.value.__notes__[0]


def test_missing_features_are_named() -> None:
    with pytest.raises(KeyError, match="reads c3"):
        build("output p3 = c3")({"c4": torch.zeros(1, 96, 4, 4)})


def test_no_classes() -> None:
    with pytest.raises(ValueError, match="classes is 0"):
        nasdsl.loads("decoder d { input c3 fpn(width=64) { output p3 = c3 } head(width=64) { skip } predict fcos() }").build(
            CHANNELS, 0
        )


def test_gradients_reach_every_parameter() -> None:
    for seed in range(10):
        module = nasdsl.loads(random_decoders.text(seed)).build(CHANNELS, 3)
        features = name_free_weights.features((96, 96), {k: CHANNELS[k] for k in module.fpn.input_levels}, 2)
        total = sum(t.square().mean() for p in module(features).values() for t in p if t is not None)
        assert isinstance(total, torch.Tensor)
        total.backward()  # type: ignore[no-untyped-call]  # torch has no types for it
        missing = [n for n, p in module.named_parameters() if p.grad is None]
        assert not missing


def test_copies_run_on_their_own_weights() -> None:
    """Deep copies (such as an average of the weights), pickles, and replaced submodules."""
    module = build("x1 = cat(sep_3x3(c3), c5); output p3 = x1, p4 = c4", "share=1) { conv_3x3 -> conv_1x1").eval()
    features = name_free_weights.features((64, 64), {k: CHANNELS[k] for k in ("c3", "c4", "c5")})
    with torch.no_grad():
        before = module(features)["p3"].cls_logits
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            for parameter in module.parameters():
                parameter.mul_(1.5)
            assert torch.equal(twin(features)["p3"].cls_logits, before)
            module.load_state_dict(twin.state_dict())
        module.fpn.get_submodule("x1").add_module("conv", nn.Conv2d(128, 64, 1))
        assert not torch.equal(module(features)["p3"].cls_logits, before)


@mock.patch.dict(layers.CUSTOM)
def test_custom_primitive() -> None:
    """A primitive in one decorated class: text, cost, module and source all know it."""

    @primitive("shuffle")
    @dataclass(frozen=True, slots=True)
    class Shuffle(CustomLayer):
        groups: int = 2

        def infer(self, inputs: Sequence[Feature]) -> Feature:
            return inputs[0]

        def cost(self, inputs: Sequence[Feature], out: Feature, area: int) -> Cost:
            return Cost(0, 0, out.width * area)

        def module(self, inputs: Sequence[Feature], out: Feature) -> Any:
            return nn.ChannelShuffle(self.groups)

        def source(self, inputs: Sequence[Feature], out: Feature) -> str:
            return f"nn.ChannelShuffle({self.groups})"

    module = build("output p3 = shuffle(c3, groups=4)").eval()
    assert isinstance(module.fpn.get_submodule("p3.shuffle"), nn.ChannelShuffle)
    namespace: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(emit_source(module.graph, 5), "emitted", "exec"), namespace)
    emitted = namespace["Decoder"]().eval()
    emitted.load_state_dict(module.state_dict())
    features = name_free_weights.features((64, 64), {"c3": CHANNELS["c3"]})
    with torch.no_grad():
        assert torch.equal(module(features)["p3"].cls_logits, emitted(features)["p3"].cls_logits)
    assert "shuffle(c3" not in str(
        nasdsl.loads("decoder d { input c3 fpn(width=64) { output p3 = c3 } head(width=64) { skip } predict fcos() }")
    )
    assert "shuffle(" in module.graph.networkx().nodes["p3.shuffle"]["layer"].kind + "("
    with pytest.raises(ValueError, match=r"is .*Shuffle already"):
        primitive("shuffle")(type("Other", (CustomLayer,), {}))
