"""Decoders of the zoo beside the same decoders written once more from their papers: parameters, MACs, outputs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yolo_originals
import zoo_originals
import zoo_space_originals
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torch_layers import Layers, Reference, copy_weights, count, maps, randomize, weighted_modules

import nasdsl
from nasdsl.backbones import backbone
from nasdsl.backends.cost import cost
from nasdsl.report import zoo
from nasdsl.spaces import load_space

GENOTYPES = Path(__file__).parents[1] / "genotypes"
WIDTHS = {
    "panet": 256,
    "carafe_fpn": 256,
    "asff": 256,
    "bfp": 256,
    "hrfpn": 256,
    "yolof": 512,
    "rtdetr": 256,
    "sepc": 256,
    "atss": 256,
    "gfl": 256,
    "tood": 256,
    "efficientdet_d0": 64,
    "dyhead": 256,
    "yolox": 128,
    "yolov8": 64,
}
SIZE = (768, 1024)  # whole at every level: papers do not say how maps with odd sides are rounded


def original(name: str) -> Reference:
    reference: Reference = getattr(yolo_originals if name in ("yolox", "yolov8") else zoo_originals, name)
    return reference


@pytest.mark.parametrize("name", WIDTHS)
def test_figures(name: str) -> None:
    """Parameters and multiply-accumulates as torch counts them."""
    found = nasdsl.load(GENOTYPES / f"{name}.nas").cost(SIZE).decoder
    assert (found.params, found.macs) == count(original(name), WIDTHS[name], backbone("resnet50").out_channels, SIZE)


@pytest.mark.parametrize("name", WIDTHS)
@torch.no_grad()
def test_outputs(name: str) -> None:
    """With the same weights, in the order of execution, pyramid and predictions are the same; at a quarter of the width."""
    decoder = nasdsl.load(GENOTYPES / f"{name}.nas").with_width(WIDTHS[name] // 4)
    channels = {feature.name: 32 for feature in decoder.architecture.inputs}
    features = maps(channels, (128, 128))
    module = decoder.build(channels, 80).eval()
    randomize(module)
    reference = original(name)
    layers = Layers(WIDTHS[name] // 4)
    reference(layers, features)
    copy_weights(weighted_modules(module, lambda: module(features)), list(layers.made))
    layers.restart()
    expected = reference(layers, features)
    predictions = module(features).values()
    found = [*module.pyramid(features).values(), *(part for p in predictions for part in p if part is not None)]
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["opanas", "auto_fpn", "spine"])
@pytest.mark.parametrize("seed", [0, 1, 2])
@torch.no_grad()
def test_fillings(name: str, seed: int) -> None:
    """Pyramids of samples, made from their decisions alone: parameters, and all maps."""
    space = load_space(GENOTYPES / "spaces" / f"{name}.nas")
    text = next(text for text in space.samples(50, seed=seed) if space.figures(text.indices).dangling == 0)
    decoder = nasdsl.loads(text)
    channels = {feature.name: 32 for feature in decoder.architecture.inputs}
    features = maps(channels, (128, 128))
    module = decoder.build(channels, 2).eval()
    randomize(module)
    layers = Layers(64)
    in_torch = getattr(zoo_space_originals, name)
    in_torch(layers, features, list(text.indices))
    copy_weights(weighted_modules(module, lambda: module.pyramid(features)), list(layers.made))
    layers.restart()
    expected = in_torch(layers, features, list(text.indices))
    assert sum(p.numel() for p in module.fpn.parameters()) == sum(p.numel() for p in layers.parameters())
    for ours, theirs in zip(module.pyramid(features).values(), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_carafe_costs_what_its_paper_says() -> None:
    """74 K parameters more than a plain interpolation, and 199 K operations for each position that comes in."""
    plain, ours = (nasdsl.load(GENOTYPES / f"{name}.nas").cost(SIZE).fpn for name in ("fcos", "carafe_fpn"))
    positions = SIZE[0] * SIZE[1] * (1 / 32**2 + 1 / 16**2)
    assert (ours.params - plain.params) / 2 == pytest.approx(74_000, abs=500)
    assert 2 * (ours.published_flops - plain.published_flops) / positions == pytest.approx(199_000, abs=500)


@pytest.mark.parametrize(
    ("name", "width", "depth", "params", "operations"),
    [
        ("yolox", 128, 1, "8.968255", "26.8"),
        pytest.param("yolox", 192, 2, "25.3", "73.8", marks=pytest.mark.long),
        ("yolov8", 64, 1, "3.157200", "8.7"),
        pytest.param("yolov8", 128, 1, "11.166560", "28.6", marks=pytest.mark.long),
    ],
)
def test_a_whole_yolo_is_the_published_one(name: str, width: int, depth: int, params: str, operations: str) -> None:
    """Behind its own backbone it has the printed parameters (M) and operations at 640x640 (G), two for a multiply-accumulate.

    YOLOX: Table 3 of its paper, and the parameters of the published YOLOX-S; what counted its operations counts four more for
    each number that a BatchNorm scales. YOLOv8: yolov8.yaml and https://docs.ultralytics.com/models/yolov8; 16 parameters of it
    are fixed numbers.
    """
    own, normed = own_backbone(name, width, depth)
    page = {("yolox", 128): zoo.YOLOX_S, ("yolov8", 64): zoo.YOLOV8_N}.get((name, width))
    assert page is None or page[1:] == own[1:]
    text = (GENOTYPES / f"{name}.nas").read_text().replace("let n = 1", f"let n = {depth}")
    decoder = nasdsl.loads(text.replace("cls: conv_3x3(width=80)", f"cls: conv_3x3(width={max(80, width)})")).with_width(width)
    ours = cost(decoder.lower(own.out_channels), (640, 640), 80).decoder
    fixed, of_a_norm = {"yolox": (-3, 4), "yolov8": (16, 0)}[name]
    assert printed(own.params + ours.params + fixed, 1e6, params) == params
    assert printed(2 * (own.macs + ours.macs) + of_a_norm * normed, 1e9, operations) == operations


def own_backbone(name: str, width: int, depth: int) -> tuple[zoo.OwnBackbone, int]:
    """The backbone, and how many numbers the BatchNorms of the whole network scale, at 640x640."""
    normed = []

    def add(module: nn.Module, _: object, out: Tensor) -> None:
        if isinstance(module, nn.BatchNorm2d):
            normed.append(out.numel())

    layers = Layers(width)
    hook = nn.modules.module.register_module_forward_hook(add)
    with hook, torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            features = getattr(yolo_originals, f"{name}_backbone")(layers, torch.empty(1, 3, 640, 640, device="meta"), depth)
        getattr(yolo_originals, name)(Layers(width), features, depth)
    channels = {feature: x.shape[1] for feature, x in features.items()}
    params = sum(p.numel() for p in layers.parameters())
    return zoo.OwnBackbone(name, channels, counter.get_total_flops() // 2, params), sum(normed)


def printed(value: float, unit: float, like: str) -> str:
    """In this unit, with as many digits as another figure."""
    return f"{value / unit:.{len(like.partition('.')[2])}f}"


def test_parts_of_yolov8_have_the_parameters_that_are_printed() -> None:
    """Of YOLOv8n's layers 12, 15, 16 to 18, 19 to 21 and 22."""
    table = cost(nasdsl.load(GENOTYPES / "yolov8.nas").lower(zoo.YOLOV8_N.out_channels), (640, 640), 80)
    found = {
        name: sum(row.params for row in table.nodes if row.name.partition(".")[0] == name) for name in ("m4", "n3", "n4", "n5")
    }
    assert found == {"m4": 148_224, "n3": 37_248, "n4": 36_992 + 123_648, "n5": 147_712 + 493_056}
    assert table.head.params == 897_664 - 16
