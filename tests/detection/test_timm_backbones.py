"""Models of timm as backbones: against timm's own networks, and their cost against counts that use no meta device."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import nasdsl
from nasdsl.backbones import UnknownBackbone, backbone
from nasdsl.cli import cli
from nasdsl.detection.backbones import BackboneError, make_backbone
from nasdsl.detection.backbones.timm import load, make_timm_backbone
from nasdsl.detection.backbones.weights import read_file
from nasdsl.detection.weights import save_detector
from nasdsl.timm_models import SIZES, TimmBody, describe, freezable, without_memory

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'nasdsl[timm]'")

SIZE = (64, 96)
ODD = (75, 101)
LONG = ("mobilenetv3_small_100", "efficientnet_b0", "swin_tiny_patch4_window7_224")
FAMILIES = [
    *("resnet18", "convnext_atto"),
    *(pytest.param(name, marks=pytest.mark.long) for name in LONG),
]
DECODER = """
decoder small {
  input c3, c4, c5
  fpn(width=32, norm=bn) { output p3 = sum(c3, c4), p4 = sum(c4, c5) }
  head(width=32, norm=gn) { conv_3x3 }
  predict fcos()
}
"""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def reference(name: str, **options: Any) -> nn.Module:
    """timm's own network; its maps are from stride 4 on."""
    if name.startswith("swin"):
        options["strict_img_size"] = False
    indices = (0, 1, 2, 3) if name.startswith(("swin", "convnext")) else (1, 2, 3, 4)
    return timm.create_model(name, features_only=True, out_indices=indices, **options).eval()


def macs_by_hooks(network: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates of convolution and linear layers, from the shapes that they meet."""
    total = 0

    def count(layer: Any, inputs: Any, out: Tensor) -> None:
        nonlocal total
        total += out.numel() * layer.weight[0].numel()

    for part in network.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            part.register_forward_hook(count)
    with torch.no_grad():
        network(images)
    return total


@pytest.mark.parametrize("name", FAMILIES)
def test_cost_and_features(name: str) -> None:
    """Cost as counted on a real run of timm's network; maps with their sizes rounded up, and equal to timm's."""
    described, network = backbone(f"timm:{name}"), reference(name)
    images = torch.rand(2, 3, *SIZE)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        expected = network(images)
    cost = described.cost(SIZE)
    assert cost.cost.macs == counter.get_total_flops() // 2 // len(images)
    assert cost.cost.params == sum(p.numel() for p in network.parameters())
    if not name.startswith("swin"):  # whose attention is no layer
        assert cost.cost.macs == macs_by_hooks(network, images[:1])

    extractor = make_backbone(f"timm:{name}").eval()
    extractor.body.network.load_state_dict(network.state_dict())
    with torch.no_grad():
        found, odd = extractor(images), extractor(torch.rand(1, 3, *ODD))
    for level, x in enumerate(expected, 2):
        theirs = x.permute(0, 3, 1, 2) if name.startswith("swin") else x
        torch.testing.assert_close(found[f"c{level}"], theirs)
        assert odd[f"c{level}"].shape == (1, theirs.shape[1], *(-(-length // 2**level) for length in ODD))
    assert extractor.out_channels == described.out_channels == {key: x.shape[1] for key, x in found.items()}
    assert described.cost(ODD).cost.macs > cost.cost.macs


@pytest.mark.long
def test_a_model_without_finer_maps() -> None:
    """A plain ViT has stride 16 alone, which serves decoders that read nothing else; its normalisation is its own."""
    extractor = make_backbone("timm:vit_tiny_patch16_224")
    assert extractor.features == ("c4",)
    assert (extractor.mean, extractor.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(nasdsl.MissingFeature, match="reads c3"):
        nasdsl.detector(nasdsl.loads(DECODER), "timm:vit_tiny_patch16_224", classes=2)


# ---------------------------------------------------------------------------------------------------------- weights


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_from_a_file(name: str, tmp_path: Path) -> None:
    """A file of the whole model, as timm's own loader reads it into its features."""
    suffix = ".safetensors" if name == "convnext_atto" else ".pth"
    torch.manual_seed(0)
    whole = timm.create_model(name, num_classes=7)
    for value in [*whole.parameters(), *(b for b in whole.buffers() if b.is_floating_point())]:
        value.data = torch.rand_like(value) / 8
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": whole.state_dict()}, file)
    else:
        pytest.importorskip("safetensors.torch").save_file(whole.state_dict(), file)
    expected = reference(name, pretrained=True, pretrained_cfg_overlay={"state_dict": whole.state_dict(), "num_classes": 7})

    extractor = make_backbone(f"timm:{name}", file)
    found, wanted = extractor.body.network.state_dict(), expected.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in found)
    assert extractor.freeze_at == 2
    # The same file through a detector of this package.
    own = tmp_path / "model.pt"
    save_detector(nasdsl.detector(nasdsl.loads(DECODER), f"timm:{name}", backbone_weights=file, classes=2), own)
    again = make_backbone(f"timm:{name}", own).body.network.state_dict()
    assert all(torch.equal(again[key], wanted[key]) for key in again)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    whole = timm.create_model("resnet18").state_dict()
    body, model = describe("resnet18").build(), describe("resnet18")
    before = {key: value.clone() for key, value in body.state_dict().items()}

    def misfit(**changes: Any) -> str:
        given = {key: value for key, value in {**whole, **changes}.items() if value is not None}
        torch.save(given, tmp_path / "weights.pth")
        with pytest.raises(BackboneError) as caught:
            load(body, model, read_file(tmp_path / "weights.pth"), "timm:resnet18")
        return str(caught.value)

    assert "1 missing (conv1.weight)" in misfit(**{"conv1.weight": None})
    assert "1 unexpected (layer9.weight)" in misfit(**{"layer9.weight": torch.ones(1)})
    assert "layer1.0.conv1.weight [3], expected [64, 64, 3, 3]" in misfit(**{"layer1.0.conv1.weight": torch.ones(3)})
    assert "1 not finite (bn1.bias)" in misfit(**{"bn1.bias": torch.full((64,), float("nan"))})
    assert all(torch.equal(value, before[key]) for key, value in body.state_dict().items())
    with pytest.raises(BackboneError, match="there is no such file"):
        make_backbone("timm:resnet18", tmp_path / "none.pth")


def test_a_failed_download_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
        if pretrained:
            raise OSError("Name or service not known")
        return real(name, **options)

    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", create_model)
    with pytest.raises(BackboneError, match=r"cannot get the weights of timm:resnet18: Name or service.*--backbone-weights"):
        make_backbone("timm:resnet18", "imagenet")


# -------------------------------------------------------------------------------------------------- freezing, norms


def test_freezing() -> None:
    """What c3 is computed from gets no gradients and keeps its statistics; the rest is trained."""
    extractor = make_backbone("timm:resnet18", freeze_at=3).train()
    before = {key: value.clone() for key, value in extractor.body.network.state_dict().items()}
    maps = extractor(torch.rand(2, 3, *SIZE))
    assert [name for name, x in maps.items() if x.requires_grad] == ["c4", "c5"]
    changed = {
        key.split(".")[0] for key, value in extractor.body.network.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed == {"layer3", "layer4"}
    trained = {name.split(".")[0] for name, p in extractor.body.network.named_parameters() if p.requires_grad}
    assert trained == {"layer3", "layer4"}


@pytest.mark.parametrize("name", FAMILIES)
def test_trainable_parameters_of_the_cost(name: str) -> None:
    """Those that need gradients at `freeze_at` 2, which is the default with weights."""
    extractor = make_backbone(f"timm:{name}", freeze_at=2)
    trained = sum(p.numel() for p in extractor.parameters() if p.requires_grad)
    assert backbone(f"timm:{name}").cost(SIZE).trainable_params == trained < sum(p.numel() for p in extractor.parameters())


def test_parts_that_cannot_be_frozen() -> None:
    with pytest.raises(BackboneError, match="freeze_at is 1, and for timm:convnext_atto it can be 0, 2, 3, 4, 5"):
        make_backbone("timm:convnext_atto", freeze_at=1)


@pytest.mark.long
def test_maps_that_are_computed_side_by_side() -> None:
    assert set(freezable("hrnet_w18_small")) == {1, 5}
    with pytest.raises(BackboneError, match="it can be 0, 1, 5"):
        make_backbone("timm:hrnet_w18_small", freeze_at=2)


def test_frozen_norms() -> None:
    extractor = make_backbone("timm:mobilenetv3_small_100", norm="frozen").train()
    assert not any(isinstance(part, nn.BatchNorm2d) for part in extractor.modules())
    before = {name: b.clone() for name, b in extractor.named_buffers()}
    extractor(torch.rand(2, 3, *SIZE))
    assert all(torch.equal(b, before[name]) for name, b in extractor.named_buffers())
    with pytest.raises(BackboneError, match="timm:convnext_atto has no BatchNorms"):
        make_backbone("timm:convnext_atto", norm="frozen")


# --------------------------------------------------------------------------------------------------------- detectors


@pytest.mark.parametrize(
    ("name", "norm"),
    [pytest.param(*case, marks=pytest.mark.long) for case in (("resnet18", "frozen"), ("convnext_atto", None))],
)
def test_a_saved_detector_is_loaded_without_a_download(
    name: str, norm: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = nasdsl.loads(DECODER)
    detector = nasdsl.detector(decoder, f"timm:{name}", classes=2, norm=norm, freeze_at=2, seed=0, score_threshold=0.0)
    losses = detector([torch.rand(3, *ODD)], [{"boxes": torch.tensor([[8.0, 8, 40, 60]]), "labels": torch.tensor([1])}])
    torch.stack(list(losses.values())).sum().backward()
    save_detector(detector, tmp_path / "model.pt")
    real = timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda name, pretrained=False, **options: real(name, **options) if not pretrained else 1 / 0
    )
    loaded = nasdsl.load_detector(tmp_path / "model.pt")
    assert loaded.config["backbone"] == {"name": f"timm:{name}", "freeze_at": 2, "norm": norm or "train"}
    images = [torch.rand(3, *ODD)]
    with torch.no_grad():
        expected, found, fast = (d.eval()(images)[0] for d in (detector, loaded, nasdsl.for_inference(detector)))
    assert len(expected["scores"]) > 10
    assert torch.equal(found["boxes"], expected["boxes"])
    torch.testing.assert_close(fast["scores"], expected["scores"], atol=1e-4, rtol=1e-4)


def test_names_with_a_tag_are_the_same_network(tmp_path: Path) -> None:
    """The tag of a model of timm names its weights alone: a detector inherits the backbone whatever tag it was made with."""
    save_detector(nasdsl.detector(nasdsl.loads(DECODER), "timm:resnet18", classes=2, freeze_at=3), tmp_path / "model.pt")
    again = nasdsl.detector(nasdsl.loads(DECODER), "timm:resnet18.tv_in1k", tmp_path / "model.pt", classes=2)
    assert again.inherited is not None
    assert again.inherited.is_complete, str(again.inherited)
    assert again.config["backbone"]["freeze_at"] == 3


def test_the_normalisation_goes_with_the_weights_of_a_detector(tmp_path: Path) -> None:
    """Tags of one model may differ in it."""
    detector = nasdsl.detector(nasdsl.loads(DECODER), "timm:resnet18", classes=2)
    detector.backbone.pixel_mean.fill_(0.25)
    save_detector(detector, tmp_path / "model.pt")
    assert make_backbone("timm:resnet18", tmp_path / "model.pt").mean == (0.25, 0.25, 0.25)
    assert make_backbone("timm:resnet18").mean == (0.485, 0.456, 0.406)


@pytest.mark.long
def test_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    compile_ = ["compile", "zoo:fcos", "--format", "json", "--backbone"]
    done = CliRunner().invoke(cli, [*compile_, "timm:resnet18"])
    figures = json.loads(done.stdout)["cost"]["backbone"]
    assert (figures["params"], round(figures["macs"] / 1e9, 2)) == (11176512, 31.46)
    for name, message in (
        ("timm:resnet8", "did you mean resnet18"),
        ("timm:hf_hub:timm/resnet18", "has no model"),
        ("timm:", "has no model ''"),
        ("timm:resnet18.tv", "has no weights 'tv' of resnet18; it has resnet18.a1_in1k, "),
        ("timm:inception_v3", "strides are not exact"),
        ("timm:hiera_tiny_224", "cannot compute features of images of any size"),
        ("resnet51", "timm:NAME"),
    ):
        done = CliRunner().invoke(cli, [*compile_, name])
        assert done.exit_code == 2
        assert message in done.stderr


def test_arguments_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackboneError, match="norm is 'batch', expected 'frozen' or 'train'"):
        make_backbone("timm:resnet18", norm="batch")  # type: ignore[arg-type]  # which is refused
    with pytest.raises(UnknownBackbone, match="no_such_model"):
        make_timm_backbone("timm:no_such_model")
    without = replace(describe("resnet18"), pretrained=False)
    monkeypatch.setattr("nasdsl.detection.backbones.timm.describe", lambda name: without)
    with pytest.raises(BackboneError, match="timm has no pretrained weights of timm:resnet18; expected 'none' or a file"):
        make_timm_backbone("timm:resnet18", "imagenet")


def test_a_network_that_takes_no_small_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: TimmBody, images: Tensor) -> Any:
        raise AssertionError(f"Input height ({images.shape[2]}) doesn't match model (224).\nmore")

    monkeypatch.setattr(TimmBody, "forward", forward)
    says = r"^timm:resnet18 cannot compute features of a small image: Input height \(\d+\) doesn't match model \(224\)$"
    with pytest.raises(BackboneError, match=says):
        make_timm_backbone("timm:resnet18")


class Maps(nn.Module):
    """A network of timm's form whose maps are by one pixel too small, of images whose sides are multiples of a number."""

    def __init__(self, reductions: list[int], multiple: int) -> None:
        super().__init__()
        self.multiple = multiple
        self.feature_info = SimpleNamespace(reduction=lambda: reductions)
        self.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

    def forward(self, images: Tensor) -> list[Tensor]:
        if any(side % self.multiple for side in images.shape[2:]):
            raise AssertionError(f"expected a multiple of {self.multiple}")
        return [images[..., 1::4, 1::4][..., 1:, 1:]]


@pytest.mark.parametrize(
    ("reductions", "multiple", "message"),
    [
        ([64, 2, 2], 1, "has maps with strides 2, 64; expected some of 4, 8, 16, 32"),
        ([], 1, "has maps with strides none; expected"),
        ([4], 512, "cannot compute features of images of any size (expected a multiple of 512); choose another model"),
        (
            [4],
            4,
            "has maps whose strides are not exact: of an image of 224x288 they are c2 [55, 71]; choose another",
        ),
    ],
)
def test_networks_without_maps_for_a_decoder(
    reductions: list[int], multiple: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timm, "create_model", lambda name, **options: Maps(reductions, multiple))
    with pytest.raises(UnknownBackbone, match=re.escape(f"timm:resnet34d {message}")):
        backbone("timm:resnet34d")


def test_a_size_that_a_network_does_not_take_has_no_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    described = backbone("timm:resnet18")

    def forward(self: TimmBody, images: Tensor) -> Any:
        raise AssertionError(f"Input height ({images.shape[2]}) doesn't match model (224).\nmore")

    monkeypatch.setattr(TimmBody, "forward", forward)
    says = r"^timm:resnet18 cannot take images of 9x12: Input height \(9\) doesn't match model \(224\)\.$"
    with pytest.raises(UnknownBackbone, match=says):
        described.cost((9, 12))


def test_without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UnknownBackbone, match=r"pip install 'nasdsl\[timm\]'"):
        backbone("timm:resnet10t")


def test_a_network_that_reads_values_while_it_is_built() -> None:
    """The rates of stochastic depth, say; on torch's meta device there are no values."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            rates = torch.linspace(0.0, 0.5, 3)
            if rates.is_meta:
                raise NotImplementedError("Cannot copy out of meta tensor; no data!")
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.Dropout(rate)) for rate in rates.tolist())

    found = without_memory(Network)
    assert [layer[1].p for layer in found.layers] == [0.0, 0.25, 0.5]
    assert all(weight.is_meta for weight in found.parameters())
    assert torch.get_default_device().type == "cpu"


def test_sizes_show_rounding() -> None:
    """The second size of the trial is a multiple of no stride, so that a network that rounds down is noticed."""
    assert all(length % 32 == 0 for length in SIZES[0])
    assert all(length % 2 == 1 for length in SIZES[1])
