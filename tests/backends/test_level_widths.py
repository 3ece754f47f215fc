"""Pyramids whose levels have different widths, as of YOLOv8: against modules of torch, and what the checker says of them."""

from __future__ import annotations

from pathlib import Path

import name_free_weights
import onnxruntime
import pytest
import torch
from lowest import exports_programs
from torch import Tensor, nn

import nasdsl
from nasdsl.backends import onnx as onnx_backend
from nasdsl.backends.cost import cost
from nasdsl.backends.inference import for_inference
from nasdsl.backends.module import DecoderModule, build
from nasdsl.backends.torch_export import trace
from nasdsl.decoder import check_source
from nasdsl.diagnostics import DiagnosticError, Source

CHANNELS = {"c3": 24, "c4": 40, "c5": 56}
WIDTHS = {"p3": 32, "p4": 64, "p5": 96}
SIZE = (64, 96)
CLASSES = 5
LAYERS = (
    "cls: conv_3x3(width=48) -> conv(k=3, groups=in, width=in) -> skip box: conv(k=3, groups=in, width=in) -> relu -> conv_1x1"
)
TAL = "tal(bins=3, kernel=1, share=false)"


def text(
    layers: str = LAYERS, predict: str = TAL, *, share: int = 3, settings: str = "norm=bn, act=silu", outputs: str = ""
) -> str:
    outputs = outputs or ", ".join(f"{p} = conv_1x1(c{p[1]}, width={width})" for p, width in WIDTHS.items())
    return (
        f"decoder d {{ input c3, c4, c5 fpn(width=32, norm=bn, adapter=none) {{ output {outputs} }}"
        f" head(width=32, share={share}, {settings}) {{ {layers} }} predict {predict} }}"
    )


def built(source: str) -> DecoderModule:
    module = build(nasdsl.loads(source).lower(CHANNELS), CLASSES)
    name_free_weights.set_weights(module)
    return module.eval()


def features(number: int = 2) -> dict[str, Tensor]:
    return name_free_weights.features(SIZE, CHANNELS, number)


def outputs_of(module: DecoderModule, given: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        f"{level}.{name}": tensor
        for level, prediction in module(given).items()
        for name, tensor in prediction._asdict().items()
        if tensor is not None
    }


# ---------------------------------------------------------------------------------------------------- back ends


class ConvNorm(nn.Sequential):
    def __init__(self, before: int, behind: int, k: int, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, behind, k, padding=k // 2, groups=groups, bias=False), nn.BatchNorm2d(behind), nn.SiLU()
        )


def by_hand(width: int) -> dict[str, nn.Module]:
    """The head of one level, whose map has so many channels."""
    return {
        "cls_logits": nn.Sequential(ConvNorm(width, 48, 3), ConvNorm(48, 48, 3, 48), nn.Conv2d(48, CLASSES, 1)),
        "bbox_reg": nn.Sequential(ConvNorm(width, width, 3, width), nn.ReLU(), ConvNorm(width, 32, 1), nn.Conv2d(32, 16, 1)),
    }


def test_against_torch() -> None:
    """Each level has the network that is written for its width, with the parameters of all of them."""
    module = built(text()).double()
    given = {name: x.double() for name, x in features().items()}
    pyramid = module.pyramid(given)
    assert {name: x.shape[1] for name, x in pyramid.items()} == WIDTHS
    state = module.state_dict()
    expected = module(given)
    count = 0
    for level, width in WIDTHS.items():
        for name, network in by_hand(width).items():
            tower = "cls" if name == "cls_logits" else "box"
            own = [key for key in state if key.startswith((f"head.{tower}.", f"head.{name}.")) and f".{level}." in key]
            copied = network.double().eval()
            copied.load_state_dict(dict(zip(copied.state_dict(), (state[key] for key in own), strict=True)))
            count += sum(p.numel() for p in copied.parameters())
            torch.testing.assert_close(copied(pyramid[level]), getattr(expected[level], name), rtol=1e-9, atol=1e-9)
    assert count == cost(module.graph, SIZE, CLASSES).head.params


BEHIND = ["fcos(share=false, conv=sep_3x3)", "gfl(bins=2, share=false, conv=dconv_3x3)", "retinanet(anchors=2, share=false)"]
VARIANTS = {
    "towers": text(),
    "a trunk": text("both: conv(k=3, groups=in, width=in) -> norm -> relu", BEHIND[0], share=2),
    "norms of each level": text(
        "cls: conv_3x3 -> conv_1x1 box: conv_1x1 -> norm", "fcos", settings="norm=gn, norms=level", share=1
    ),
    "layers at any width that levels share": text("both: conv_1x1(width=in) -> relu -> skip", BEHIND[1], share=1),
    "no layers": text("skip", BEHIND[2], share=0),
    "raw features": text(
        "conv_3x3(width=16)", "fcos", outputs="p3 = c3, p4 = c4, p5 = c5", settings="norm=bn", share=1
    ).replace("head(width=32", "head(width=16"),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_exports_compute_what_the_module_does(name: str, tmp_path: Path) -> None:
    module = built(VARIANTS[name])
    assert len(set(module.graph.pyramid_widths.values())) == 3
    given = features()
    with torch.no_grad():
        expected = outputs_of(module, given)
        folded = outputs_of(for_inference(module), given)
    onnx_backend.export_onnx(module, tmp_path / "d.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "d.onnx", providers=["CPUExecutionProvider"])
    found = session.run(list(expected), {key: x.numpy() for key, x in given.items()})
    for (key, tensor), other in zip(expected.items(), found, strict=True):
        torch.testing.assert_close(folded[key], tensor, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(torch.from_numpy(other), tensor, rtol=1e-3, atol=1e-4)


@exports_programs
def test_a_program_of_torch_computes_what_the_module_does() -> None:
    module = built(VARIANTS["a trunk"])
    given = features()
    with torch.no_grad():
        found = trace(module).module()(given)
    for level, expected in module(given).items():
        torch.testing.assert_close(found[f"{level}.bbox_reg"], expected.bbox_reg, rtol=1e-4, atol=1e-4)


def test_what_is_written_tells_the_levels_apart() -> None:
    """The canonical text is that of its own, and other widths of the outputs are other decoders."""
    decoders = [nasdsl.loads(source) for source in VARIANTS.values()]
    decoders += [nasdsl.loads(text().replace("width=96", f"width={width}")) for width in (32, 64, 128)]
    assert len({d.digest for d in decoders}) == len(decoders)
    for decoder in decoders:
        assert nasdsl.loads(decoder.canonical).digest == decoder.digest


# ------------------------------------------------------------------------------------------------------ messages

MISTAKES = {
    "all is shared": (text(share=0), "NAS312", "`head(share=3)`"),
    "a layer is": (text(share=2), "NAS312", "`head(share=3)`"),
    "the first layer is": (text("conv_3x3", "fcos", share=0), "NAS312", "`head(share=1)`"),
    "the trunk is": (text("both: conv_1x1(width=in) cls: conv_3x3 -> conv_3x3", TAL, share=0), "NAS312", "`head(share=2)`"),
    "a norm of each level is": (
        text("relu -> norm", TAL, settings="norm=bn, norms=level", share=0), "NAS312", "`head(share=2)`"
    ),
    "predictions are": (text(predict="tal(bins=3)").replace(" -> conv_1x1", ""), "NAS312", "`predict tal(share=false)`"),
    "layers and predictions are": (
        text("conv_3x3(width=in)", "gfl", share=0), "NAS312", "`head(share=1)` and `predict gfl(share=false)`"
    ),
    "an op of the prediction has several layers": (
        text("cls: conv_1x1(width=in) box: conv_3x3", "fcos(share=false, conv=sep_3x3)", share=1), "NAS318",
        "bring both towers to one width, or give an op of a single convolution",
    ),
    "the head is wider": (
        text().replace("head(width=32", "head(width=33"), "NAS311",
        "widen the pyramid: output p3 = conv_1x1(…, width=33)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_weights_that_levels_cannot_share(name: str) -> None:
    source, code, end = MISTAKES[name]
    (problem,) = check_source(Source("t.nas", source)).problems
    assert (problem.code, problem.help.endswith(end)) == (code, True), problem.help
    if code == "NAS312":
        assert problem.label == "p3 has 32, p4 has 64, p5 has 96"
        assert problem.span.text.startswith("p3 = ")


MISFITS = {
    "groups": (
        text("conv(k=3, groups=3, width=48)", "fcos", share=1), "NAS307",
        {"conv(k=3, groups=3, width=48)": ["p3 of the pyramid has 32", "p4 of the pyramid has 64"]},
    ),
    "a norm": (
        text("skip -> norm", "fcos(share=false)", share=2, settings="norm=gn").replace("width=96", "width=80"), "NAS308",
        {"norm": ["p5 of the pyramid has 80"]},
    ),
    "an op of the prediction": (
        text("conv_1x1(width=in)", "fcos(share=false, conv=tripled)", share=1), "NAS307",
        {"tripled": ["p3 of the pyramid has 32", "p4 of the pyramid has 64"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_a_layer_that_does_not_fit_a_level(name: str) -> None:
    """One finding for each width that does not fit, at the layer, which names the level."""
    source, code, expected = MISFITS[name]
    problems = check_source(Source("t.nas", "op tripled(x) = conv_1x1(conv(x, k=3, groups=3, width=48)) " + source)).problems
    assert {p.code for p in problems} == {code}
    assert [(p.span.text, p.label) for p in problems] == [
        (place, label) for place, labels in expected.items() for label in labels
    ]


def test_raw_features() -> None:
    """Their widths are known with a backbone; what levels share is found then, and what does not fit names the level."""
    raw = "p3 = c3, p4 = c4, p5 = c5"
    with pytest.raises(DiagnosticError) as caught:
        nasdsl.loads(text("conv_3x3", "fcos", share=0, outputs=raw)).lower(CHANNELS)
    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.label) == ("NAS312", "p3 has 24, p4 has 40, p5 has 56")
    assert problem.help.endswith("own: `head(share=1)`")
    with pytest.raises(DiagnosticError) as caught:
        nasdsl.loads(text("conv(k=3, groups=5, width=40)", "fcos", share=1, outputs=raw, settings="norm=none")).lower(CHANNELS)
    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.message) == (
        "NAS307",
        "5 groups do not divide 24 channels in and 40 out at p3 with this backbone",
    )


def test_a_convolution_that_is_depthwise_at_one_level_only() -> None:
    checked = check_source(Source("t.nas", text("sep_3x3", "fcos", share=1)))
    assert {(p.code, p.label) for p in checked.problems} == {
        ("NAS904", "what comes in has another number of channels at each level")
    }


# ------------------------------------------------------------------------------------------------- whole detectors


def test_a_detector_learns_and_is_exported(tmp_path: Path) -> None:
    torch.manual_seed(0)
    decoder = nasdsl.loads(text(predict="tal(bins=15, kernel=1, share=false)"))
    model = nasdsl.detector(decoder, backbone="tiny", classes=CLASSES, fixed_size=SIZE)
    images = torch.rand(2, 3, *SIZE)
    targets = [{"boxes": torch.tensor([[8.0, 8.0, 56.0, 40.0]]), "labels": torch.tensor([1])}] * 2
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    totals = []
    for _ in range(3):
        total = sum(model(images, targets).values())
        optimizer.zero_grad()
        total.backward()
        for name, parameter in model.decoder.head.named_parameters():
            assert parameter.grad is not None, name
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < totals[0]
    with torch.no_grad():
        for conv in model.decoder.head.cls_logits.children():
            conv.weight.normal_(std=0.3)
            conv.bias.fill_(-2)
    nasdsl.export_detector(model.eval(), tmp_path / "d.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "d.onnx", providers=["CPUExecutionProvider"])
    boxes, scores, labels = session.run(None, {"images": images[:1].numpy()})
    with torch.no_grad():
        (expected,) = model(images[:1])
    count = len(expected["scores"])
    assert count > 5
    torch.testing.assert_close(torch.from_numpy(scores[0, :count]), expected["scores"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(torch.from_numpy(boxes[0, :count]), expected["boxes"], rtol=1e-3, atol=1e-2)
    assert torch.equal(torch.from_numpy(labels[0, :count]), expected["labels"])
