"""Weights that exist once (`shared`), trunks, and norms of each level: against modules written by hand in torch."""

from __future__ import annotations

from typing import Any

import name_free_weights
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nasdsl
from nasdsl.backends.cost import cost
from nasdsl.backends.inference import for_inference
from nasdsl.backends.module import DecoderModule, build
from nasdsl.backends.source import emit_source
from nasdsl.backends.torch_export import trace
from nasdsl.decoder import check_source
from nasdsl.diagnostics import DiagnosticError, Source
from nasdsl.semantics.calls import CallCounter

CHANNELS = {"c3": 8, "c4": 8, "c5": 8}
SIZE = (64, 96)
CLASSES = 3


def text(fpn: str, *, before: str = "", head: str = "head(width=8, norm=bn) { conv_3x3 }", adapter: str = "none") -> str:
    section = f"fpn(width=8, norm=bn, adapter={adapter})"
    return f"{before} decoder t {{ input c3, c4, c5 {section} {{ {fpn} }} {head} predict retinanet(anchors=1) }}"


def module(source: str, seed: int = 0) -> DecoderModule:
    torch.manual_seed(seed)
    made = build(nasdsl.loads(source).lower(CHANNELS), CLASSES)
    name_free_weights.set_weights(made)
    return made.double()


def features() -> dict[str, Tensor]:
    return {name: x.double() for name, x in name_free_weights.features(SIZE, CHANNELS, 2).items()}


class ConvNorm(nn.Module):
    """A convolution without bias, and what follows it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


# --------------------------------------------------------------------------------------------------------- shared

TIED = "shared refine(x) = conv_3x3(x) output p3 = refine(c3), p4 = refine(refine(c4)), p5 = refine(c5)"


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.refine = ConvNorm()

    def forward(self, c: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"p3": self.refine(c["c3"]), "p4": self.refine(self.refine(c["c4"])), "p5": self.refine(c["c5"])}


def test_calls_of_a_shared_op_are_one_module_in_torch() -> None:
    """Values, gradients and statistics after a step, which all calls take part in; one set of names."""
    ours, theirs = module(text(TIED)).fpn, Tied().double()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    found, expected = ours(features()), theirs(features())
    for level in expected:
        torch.testing.assert_close(found[level], expected[level])
    sum((x * x).sum() for x in found.values()).backward()
    sum((x * x).sum() for x in expected.values()).backward()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad)
    for name, buffer in theirs.named_buffers():
        torch.testing.assert_close(ours.get_buffer(name), buffer, msg=name)
    assert theirs.refine.norm.num_batches_tracked == 4


SETS = {
    "four calls": (TIED, 1, 4),
    "no shared op": (TIED.replace("shared refine(x) = conv_3x3(x)", "").replace("refine", "conv_3x3"), 4, 4),
    "a repeat around calls": ("shared f(x) = conv_3x3(x) a = c3 repeat 3 { a = f(a) } output p3 = a", 1, 3),
    "a shared op of each turn": ("a = c3 repeat 3 { shared f(x) = conv_3x3(x) a = f(f(a)) } output p3 = a", 3, 6),
    "a shared op of a block": ("a = twice(c3) output p3 = twice(a)", 2, 4),
    "a block in a shared op": ("shared f(x) = twice(x) a = f(c3) output p3 = f(a)", 1, 4),
    "a shared op in another": ("shared f(x) = conv_3x3(x) shared g(x) = f(conv_3x3(x)) output p3 = f(g(g(c3)))", 2, 5),
    "two of one name in two blocks": ("a = twice(c3) output p3 = thrice(a)", 2, 5),
    "calls that nothing reads": ("shared f(x) = conv_3x3(x) a = f(c4) output p3 = f(c3)", 1, 1),
    "no call that is read": ("shared f(x) = conv_3x3(x) a = f(c4) output p3 = conv_3x3(c3)", 1, 1),
    "a let": ("shared f(x) = conv_3x3(x) let k = f output p3 = k(f(c3))", 1, 2),
    "a name of the prelude": ("shared conv_3x3(x) = conv_3x3(x) output p3 = conv_3x3(conv_3x3(c3))", 1, 2),
    "a value of its name": ("shared f(x) = conv_3x3(x) f = f(c3) output p3 = f(f)", 1, 2),
    "names that torch has": ("shared apply(x) = conv_3x3(x) apply_ = conv_3x3(c3) output p3 = apply(apply(apply_))", 2, 3),
    "a layer of the head": ("output p3 = c3, p4 = c4", 0, 0),
}  # fmt: skip
BLOCKS = """
block twice(x) -> (y) { shared f(x) = conv_3x3(x) y = f(f(x)) }
block thrice(x) -> (y) { shared f(x) = conv_3x3(x) y = x repeat 3 { y = f(y) } }
"""


@pytest.mark.parametrize("name", SETS)
def test_how_many_sets_of_weights_there_are(name: str) -> None:
    """Parameters count once for a set, multiply-accumulates once for a call."""
    fpn, sets, calls = SETS[name]
    source = text(fpn, before=BLOCKS, head="head(width=8, norm=bn) { twice -> conv_3x3 }")
    graph = nasdsl.loads(source).lower(CHANNELS)
    table, built = cost(graph, SIZE, CLASSES), module(source)
    one = 9 * 8 * 8 + 2 * 8
    assert table.fpn.params == sets * one == sum(p.numel() for p in built.fpn.parameters())
    assert table.head.params == sum(p.numel() for p in built.head.parameters())
    convs = [n for n in graph.nodes if n.layer.kind == "conv"]
    areas = {3: 8 * 12, 4: 4 * 6, 5: 2 * 3}
    assert table.fpn.macs == sum(9 * 8 * 8 * areas[n.out.level or 0] for n in convs)
    assert len(convs) == calls
    tower = [n for n in table.nodes if n.name.startswith("cls ")]
    assert [n.params for n in tower] == [one, one], "a block of the head has one set for its two calls"
    assert tower[0].macs == 2 * tower[1].macs
    assert [name.startswith("head.cls.0.twice.f.") for name in built.state_dict()].count(True) == 6


def test_the_digest_tells_tied_from_untied() -> None:
    def digest(fpn: str, before: str = "") -> str:
        decoder = nasdsl.loads(text(fpn, before=BLOCKS + before, adapter="conv_1x1"))
        assert nasdsl.loads(str(decoder)).digest == decoder.digest
        return decoder.digest

    tied = digest(TIED)
    assert digest(TIED.replace("refine", "f").replace("(x)", "(left)")) == tied
    assert digest(TIED.replace("conv_3x3(x) ", "skip(relu(norm(conv(x, k=3, bias=false, act=none, norm=none)))) ")) == tied
    assert digest(TIED.replace("shared refine(x) = conv_3x3(x)", "").replace("refine", "conv_3x3")) != tied
    one_apart = TIED.replace("p5 = refine", "p5 = conv_3x3")
    assert len({tied, digest(one_apart), digest(TIED.replace("p3 = refine", "p3 = conv_3x3"))}) == 3
    pairs = "shared f(x) = conv_3x3(x) shared g(x) = conv_3x3(x) output p3 = {}(c3), p4 = {}(c4), p5 = {}(f(c5))"
    made = [digest(pairs.format(*names)) for names in ("fgg", "gff", "ffg", "gfg", "fgf", "ggg", "fff")]
    assert len(set(made)) == 7, "which calls have the same weights, where the layers are all the same"
    assert digest("shared f(x) = conv_3x3(x) output p3 = f(c3)") == digest("output p3 = conv_3x3(c3)"), (
        "one call shares nothing"
    )
    assert digest("shared f(x) = conv_3x3(x) output p3 = f(f(c3))") == digest("output p3 = twice(c3)")
    assert digest("shared f(x) = relu(x) output p3 = f(c3), p4 = f(c4)") == digest("output p3 = relu(c3), p4 = relu(c4)")
    weighted = "shared f(x, y) = weighted_add(x, y) output p3 = f(c3, resize(c4, to=3)), p4 = f({})"
    orders = [digest(weighted.format(operands)) for operands in ("resize(c3, to=4), c4", "c4, resize(c3, to=4)")]
    assert orders[0] != orders[1], "the first operand has the first weight, in each call"


FOLDS = {
    "a norm in it": (TIED, 0),
    "norms behind it": ("shared f(x) = conv(x, k=3, norm=none, act=none) output p3 = norm(f(c3)), p4 = norm(f(c4))", 2),
    "one norm behind different convolutions": ("shared f(x) = norm(x) output p3 = f(bare(c3)), p4 = f(bare(c4))", 1),
    "a call that something else reads": (
        "shared f(x) = bare(x) shared g(x) = norm(x) a = f(c3) output p3 = g(a), p4 = g(f(c4)), p5 = resize(a, to=5)", 1,
    ),
    "both shared, in all calls": ("shared f(x) = bare(x) shared g(x) = norm(x) output p3 = g(f(c3)), p4 = g(f(c4))", 0),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDS)
def test_a_norm_is_folded_only_where_all_calls_have_it(name: str) -> None:
    fpn, left = FOLDS[name]
    before = "op bare(x) = conv(x, k=3, norm=none, act=none)"
    decoder = module(text(fpn, before=before, head="head(width=8) { conv_3x3 }")).eval()
    fast = for_inference(decoder)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in fast.modules()) == left
    same_predictions(decoder, fast)


def same_predictions(one: Any, other: Any) -> None:
    with torch.no_grad():
        expected, found = one(features()), other(features())
    for level in expected:
        for a, b in zip(expected[level], found[level], strict=True):
            if a is not None:
                torch.testing.assert_close(a, b)


def test_the_emitted_source_has_one_set() -> None:
    decoder = module(text(TIED)).eval()
    namespace: dict[str, Any] = {"__name__": "emitted"}
    source = emit_source(decoder.graph, CLASSES)
    assert source.count("refine=") + source.count("self.refine = ") == 1
    exec(compile(source, "emitted", "exec"), namespace)
    emitted = namespace["Decoder"]().double().eval()
    emitted.load_state_dict(decoder.state_dict())
    same_predictions(decoder, emitted)


@pytest.mark.long
def test_a_traced_program_has_one_set() -> None:
    program = trace(module(text(TIED)).eval())
    assert [name for name in program.state_dict if "refine.conv" in name] == ["fpn.refine.conv.weight"]


def test_a_file_of_onnx_has_one_initializer() -> None:
    pytest.importorskip("onnx")
    from nasdsl.backends.onnx import onnx_model

    decoder = module(text(TIED)).float().eval()
    for exported in (decoder, for_inference(decoder)):
        model = onnx_model(exported)
        names = [tensor.name for tensor in model.graph.initializer]
        assert names.count("fpn.refine.conv.weight") == 1
        assert sum("fpn.refine.conv.weight" in node.input for node in model.graph.node) == 4
        same_in_onnxruntime(decoder, model.SerializeToString())


def same_in_onnxruntime(decoder: DecoderModule, model: bytes) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    given = {name: x.float() for name, x in features().items()}
    found = dict(
        zip(
            (output.name for output in session.get_outputs()),
            session.run(None, {name: given[name].numpy() for name in decoder.fpn.input_levels}),
            strict=True,
        )
    )
    with torch.no_grad():
        expected = decoder(given)
    for level, prediction in expected.items():
        values = torch.from_numpy(found[f"{level}.cls_logits"])
        torch.testing.assert_close(values, prediction.cls_logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", ["true", "false"])
def test_a_shared_op_in_the_place_of_the_prediction_convolutions(share: str) -> None:
    """One set for both of its calls, or one for each level: in the module, the emitted source and the file of ONNX."""
    pytest.importorskip("onnx")
    from nasdsl.backends.onnx import onnx_model

    before = "block own(x) -> (y) { shared w(x) = conv_3x3(x) y = conv_1x1(w(relu(w(x)))) }"
    decoder = module(text("output p3 = c3, p4 = c4", before=before).replace("=1)", f"=1, conv=own, share={share})")).eval()
    names = {name for name in decoder.state_dict() if "cls_logits" in name and "w.conv.weight" in name}
    places = ["cls_logits"] if share == "true" else ["cls_logits.p3", "cls_logits.p4"]
    assert names == {f"head.{place}.own.w.conv.weight" for place in places}
    namespace: dict[str, Any] = {"__name__": "emitted"}
    exec(compile(emit_source(decoder.graph, CLASSES), "emitted", "exec"), namespace)
    emitted = namespace["Decoder"]().double().eval()
    emitted.load_state_dict(decoder.state_dict())
    same_predictions(decoder, emitted)
    decoder.float()
    same_in_onnxruntime(decoder, onnx_model(decoder).SerializeToString())


def test_each_call_of_a_shared_op_counts_with_what_it_calls() -> None:
    block = "block again(x, n=2, unit=conv_3x3) -> (y) { shared f(x) = unit(x) y = x repeat n { y = f(y) } }"
    fpn = "shared g(x) = sep_3x3(conv_3x3(x)) output p3 = again(c3), p4 = again(again(c4, n=3), unit=relu), p5 = g(g(c5))"
    program = check_source(Source("t.nas", text(fpn, before=block))).program
    assert program is not None
    counted = CallCounter(program, ["f", "conv_3x3", "relu", "g", "sep_3x3"]).count()
    assert counted == {"f": 2 + 3 + 2, "conv_3x3": 2 + 3 + 2 + 2, "relu": 2, "g": 2, "sep_3x3": 2}, "and conv_3x3 in each tower"


def test_calls_that_fit_only_some_backbones() -> None:
    decoder = nasdsl.loads(text("shared f(x) = conv_3x3(x) output p3 = f(c3), p4 = f(c4)"))
    decoder.lower(CHANNELS)
    with pytest.raises(DiagnosticError, match="NAS316"):
        decoder.lower({**CHANNELS, "c4": 12})


def test_a_word_of_the_language_only_where_the_statement_begins() -> None:
    """`shared` may be the name of a value, an op, a decoder, a parameter."""
    source = text(
        "shared = shared(c3) shared shared2(shared) = relu(shared) a, b = two(shared, shared2(shared)) x = shared"
        " repeat 2 { x = shared(x) } output p3 = shared, p4 = sum(a, b), p5 = x",
        before="op shared(shared) = relu(shared) block two(x, y) -> (s, shared) { s = x shared = y }",
    )
    named = nasdsl.loads(source.replace("decoder t", "decoder shared"))
    assert named.name == "shared"
    assert (
        nasdsl.loads(source.replace("shared shared2(shared) =", "shared # the op\n shared2 (shared) =")).digest == named.digest
    )


# ------------------------------------------------------------------------------------------------------- the head


class TrunkHead(nn.Module):
    """A trunk of one layer for all levels, a class tower of one, box predictions on the trunk; norms of each level."""

    def __init__(self, *, per_level: bool) -> None:
        super().__init__()
        levels = ("p3", "p4", "p5")

        def layer() -> nn.ModuleDict:
            norms = nn.ModuleDict({k: nn.BatchNorm2d(8) for k in levels}) if per_level else nn.BatchNorm2d(8)
            return nn.ModuleDict({"conv": nn.Conv2d(8, 8, 3, padding=1, bias=False), "norm": norms})

        self.both, self.cls = nn.ModuleDict({"0": layer()}), nn.ModuleDict({"0": layer()})
        self.cls_logits, self.bbox_reg = nn.Conv2d(8, CLASSES, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.per_level = per_level

    def forward(self, pyramid: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
        made = {}
        for level, x in pyramid.items():
            trunk = self.layer(self.both["0"], x, level)
            made[level] = self.cls_logits(self.layer(self.cls["0"], trunk, level)), self.bbox_reg(trunk)
        return made

    def layer(self, layer: Any, x: Tensor, level: str) -> Tensor:
        return F.relu((layer["norm"][level] if self.per_level else layer["norm"])(layer["conv"](x)))


@pytest.mark.parametrize("norms", ["shared", "level"])
def test_a_trunk_and_norms_of_each_level(norms: str) -> None:
    """As a head written by hand, in training mode, where each level's statistics are its own."""
    head = f"head(width=8, norm=bn, norms={norms}) {{ both: conv_3x3 cls: conv_3x3 }}"
    ours = module(text("output p3 = c3, p4 = c4, p5 = c5", head=head)).head
    theirs = TrunkHead(per_level=norms == "level").double()
    assert set(ours.state_dict()) == set(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    pyramid = {f"p{name[1]}": x for name, x in features().items()}
    found, expected = ours(pyramid), theirs(pyramid)
    for level, (cls_logits, bbox_reg) in expected.items():
        torch.testing.assert_close(found[level].cls_logits, cls_logits)
        torch.testing.assert_close(found[level].bbox_reg, bbox_reg)
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


@pytest.mark.parametrize("share", range(5))
def test_the_sharing_index_counts_the_trunk_first(share: int) -> None:
    head = f"head(width=8, norm=none, share={share}) {{ both: conv_3x3 -> conv_3x3 cls: conv_3x3 -> conv_3x3 box: conv_3x3 }}"
    names = set(module(text("output p3 = c3, p4 = c4", head=head)).head.state_dict())
    places = ["both.0", "both.1", "cls.0", "cls.1"]
    assert [f"{place}.p3.conv.weight" in names for place in places] == [number < share for number in range(4)]
    assert [f"{place}.conv.weight" in names for place in places] == [number >= share for number in range(4)]
    assert ("box.0.p4.conv.weight" in names) is (share > 2)
