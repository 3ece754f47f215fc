"""Backbones as modules: against the described ones, what is trained, and other networks in their place."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FrozenBatchNorm2d

from nasdsl.backbones import BACKBONES, UnknownBackbone, backbone
from nasdsl.detection.backbones import IMAGENET_MEAN, IMAGENET_STD, BackboneError, FeatureExtractor, make_backbone
from nasdsl.detection.backbones.networks import NETWORKS

FEATURES = ("c2", "c3", "c4", "c5")
SIZE = (33, 70)
"""No multiples of anything."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def norm_parameters(module: nn.Module) -> int:
    return sum(2 * m.weight.numel() for m in module.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d))


def all_parameters(module: nn.Module) -> int:
    """Frozen BatchNorms keep theirs as buffers."""
    frozen = (2 * m.weight.numel() for m in module.modules() if isinstance(m, FrozenBatchNorm2d))
    return sum(p.numel() for p in module.parameters()) + sum(frozen)


def trained_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


# ------------------------------------------------------------------------------------ against the described backbones


def test_every_described_backbone_can_be_made() -> None:
    """torchvision's, and the tiny one, which has no pre-trained weights and says so."""
    assert [*NETWORKS, "tiny"] == list(BACKBONES)
    with pytest.raises(BackboneError, match="tiny has no pre-trained weights"):
        make_backbone("tiny", "imagenet")


@pytest.mark.parametrize("name", BACKBONES)
def test_against_the_description(name: str) -> None:
    """Widths, strides (rounded up), parameters in all and trained ones by the published recipe, and where the strides are."""
    described = backbone(name)
    with torch.device("meta"):  # shapes alone
        freeze_at = 2 if described.pretrained else 0
        made = make_backbone(name, freeze_at=freeze_at, norm="frozen" if described.norm_frozen else "train").eval()
        assert made.out_channels == dict(described.out_channels)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            features = made(torch.zeros(1, 3, *SIZE))
    assert list(features) == list(FEATURES)
    for key, feature in features.items():
        stride = 2 ** int(key[1:])
        assert feature.shape == (1, described.out_channels[key], -(-SIZE[0] // stride), -(-SIZE[1] // stride))
    cost = described.cost(SIZE)
    assert cost.cost.macs == counter.get_total_flops() // 2
    assert cost.cost.params == all_parameters(made)
    assert cost.trainable_params == trained_parameters(made)


@pytest.mark.parametrize("name", ["resnet50_v1.5", "mobilenet_v2"])
def test_features_are_torchvisions(name: str) -> None:
    """The same network, weight for weight, gives the same features."""
    made = make_backbone(name).eval()
    whole = torchvision.models.get_model(NETWORKS[name].model)
    missing = whole.load_state_dict(made.body.state_dict(), strict=False)
    assert not missing.unexpected_keys
    if name == "mobilenet_v2":
        taps = {f"features.{i}": f"c{level}" for level, i in enumerate((3, 6, 13, 17), 2)}
    else:
        taps = {f"layer{level - 1}": f"c{level}" for level in range(2, 6)}
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = made(images), create_feature_extractor(whole, taps).eval()(images)
    assert all(torch.equal(ours[key], theirs[key]) for key in FEATURES)


# --------------------------------------------------------------------------------------------------- what is trained


@pytest.mark.parametrize(
    ("freeze_at", "frozen", "trained"),
    [
        (0, "", "conv1 bn1 layer1 layer2 layer3 layer4"),
        (1, "conv1 bn1", "layer1 layer2 layer3 layer4"),
        (2, "conv1 bn1 layer1", "layer2 layer3 layer4"),
        (4, "conv1 bn1 layer1 layer2 layer3", "layer4"),
        (5, "conv1 bn1 layer1 layer2 layer3 layer4", ""),
    ],
)
def test_freezing_a_resnet(freeze_at: int, frozen: str, trained: str) -> None:
    with torch.device("meta"):
        made = make_backbone("resnet50", freeze_at=freeze_at).train()
    for name in frozen.split():
        part = made.body.get_submodule(name)
        assert not any(p.requires_grad for p in part.parameters())
        assert not any(m.training for m in part.modules())
    for name in trained.split():
        part = made.body.get_submodule(name)
        assert all(p.requires_grad for p in part.parameters())
        assert all(m.training for m in part.modules())


@pytest.mark.parametrize(("freeze_at", "first_trained"), [(0, 0), (1, 1), (2, 2), (3, 7), (4, 14), (5, 18)])
def test_freezing_mobilenet_v2(freeze_at: int, first_trained: int) -> None:
    """At 2 the published code freezes two modules; from 3 on everything up to c<freeze_at>."""
    made = make_backbone("mobilenet_v2", freeze_at=freeze_at).train()
    assert isinstance(made.body.features, nn.Sequential)
    for i, part in enumerate(made.body.features):
        assert all(p.requires_grad == (i >= first_trained) for p in part.parameters())
        assert all(m.training == (i >= first_trained) for m in part.modules())
    images = torch.randn(2, 3, 64, 64)
    for k, feature in zip(range(2, 6), made(images).values(), strict=True):
        assert feature.requires_grad == (k > freeze_at or (k == 2 and freeze_at < 3))


def test_a_step_changes_nothing_frozen() -> None:
    """Neither weights nor statistics, also after evaluation and back, and in a copy."""
    made = make_backbone("mobilenet_v2", freeze_at=2)
    made.eval()
    made = copy.deepcopy(made).train()
    before = {k: v.clone() for k, v in made.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in made.parameters() if p.requires_grad), lr=0.1, weight_decay=0.1)
    sum(f.square().mean() for f in made(torch.randn(2, 3, 64, 64)).values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    changed = {k for k, v in made.state_dict().items() if not torch.equal(v, before[k])}
    frozen = {k for k in before if k.startswith(("body.features.0.", "body.features.1.", "pixel_"))}
    assert changed == set(before) - frozen


def test_frozen_norms_are_constants() -> None:
    made = make_backbone("resnet50", norm="frozen", freeze_at=0).train()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in made.modules())
    assert trained_parameters(made) == all_parameters(made) - norm_parameters(made)
    assert all(m.eps == 1e-5 for m in made.modules() if isinstance(m, FrozenBatchNorm2d))


def test_defaults_without_weights() -> None:
    """Nothing frozen: random weights have nothing to keep."""
    for name in ("resnet50", "mobilenet_v2"):
        made = make_backbone(name)
        assert (made.name, made.freeze_at, made.norm) == (name, 0, "train")
        assert trained_parameters(made) == all_parameters(made)


def test_same_arguments_take_the_weights_and_their_normalisation() -> None:
    """What a checkpoint of a detector relies on."""
    made = make_backbone("mobilenet_v2", freeze_at=1)
    made.pixel_mean.fill_(0.25)
    assert made.name is not None
    again = make_backbone(made.name, freeze_at=made.freeze_at, norm=made.norm)
    again.load_state_dict(made.state_dict())
    assert again.mean == (0.25, 0.25, 0.25)
    images = torch.rand(1, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(made.eval()(images).values(), again.eval()(images).values(), strict=True))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make_backbone("resnet50", freeze_at=6), "freeze_at is 6, expected 0 .* to 5"),
        (lambda: make_backbone("resnet50", norm="group"), "norm is 'group', expected 'frozen' or 'train'"),  # type: ignore[arg-type]
        (lambda: make_backbone("resnet50", "nowhere.pth"), "no such file.*IMAGENET1K_V1, IMAGENET1K_V2"),
    ],
)
def test_arguments_out_of_range(call: Callable[[], object], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        call()


def test_unknown_name() -> None:
    with pytest.raises(UnknownBackbone, match=r"resnet51.*resnet50"):
        make_backbone("resnet51")


def test_normalisation() -> None:
    """uint8 and floating point pictures give the same, which is torchvision's."""
    made = FeatureExtractor(Tiny(), ("c2", "c3"))
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = torchvision.transforms.functional.normalize(images / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    assert torch.allclose(made.normalize(images), expected, atol=1e-6)
    assert torch.allclose(made.normalize(images / 255), expected, atol=1e-6)
    assert (made.mean, made.std) == (IMAGENET_MEAN, IMAGENET_STD)


# ------------------------------------------------------------------------------------------------------ other networks


class Tiny(nn.Module):
    """As timm's ``features_only`` networks: a list of features."""

    def __init__(self, strides: tuple[int, ...] = (4, 2), widths: tuple[int, ...] = (8, 16)) -> None:
        super().__init__()
        ins = (3, *widths)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, s, 1), nn.BatchNorm2d(o)) for i, o, s in zip(ins, widths, strides, strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def test_a_network_that_gives_a_list() -> None:
    body = Tiny().train()
    body.stages[1].eval()
    before = copy.deepcopy(body.state_dict())
    made = FeatureExtractor(body, ("c2", "c3"))
    assert made.out_channels == {"c2": 8, "c3": 16}
    assert {k: v.shape for k, v in made(torch.zeros(2, 3, 32, 64)).items()} == {"c2": (2, 8, 8, 16), "c3": (2, 16, 4, 8)}
    assert (body.training, body.stages[0].training, body.stages[1].training) == (True, True, False)
    body.load_state_dict(before)  # the call above learned statistics; the probe must not
    FeatureExtractor(body, ("c2", "c3"))
    assert all(torch.equal(v, before[k]) for k, v in body.state_dict().items())


def test_a_network_of_torchvisions() -> None:
    """The example of the class's documentation, without weights; it survives copying, as averaging of weights does."""
    model = torchvision.models.efficientnet_b0(weights=None)
    taps = {"features.2": "c2", "features.3": "c3", "features.5": "c4", "features.8": "c5"}
    made = FeatureExtractor(create_feature_extractor(model, taps), FEATURES)
    made.freeze("features.0", "features.1")
    made = copy.deepcopy(made).train()
    assert made.out_channels == {"c2": 24, "c3": 40, "c4": 112, "c5": 1280}
    assert not any(m.training for m in made.body.get_submodule("features.1").modules())
    assert made.body.get_submodule("features.2").training
    assert made(torch.zeros(1, 3, 64, 96))["c5"].shape == (1, 1280, 2, 3)


def test_the_wrong_features_of_a_dict_are_left_out() -> None:
    made = make_backbone("mobilenet_v2")
    assert list(FeatureExtractor(made.body, ("c5", "c3")).out_channels) == ["c5", "c3"]


class Flat(nn.Module):
    """Channels last, as Swin's stages in torchvision give them."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x[:, :, ::4, ::4].permute(0, 2, 3, 1)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeatureExtractor(Tiny(), ("c2", "c4")), "feature c4 has stride 8, expected 16"),
        (lambda: FeatureExtractor(Tiny((4, 4)), ("c2", "c3")), "feature c3 has stride 16, expected 8"),
        (lambda: FeatureExtractor(Tiny(), ("c2", "c3"), {"c2": 8, "c3": 32}), "feature c3 has 16 channels, expected 32"),
        (lambda: FeatureExtractor(Tiny(), ("c2", "c3"), {"c2": 8}), "out_channels has c2; expected c2, c3"),
        (lambda: FeatureExtractor(Tiny(), FEATURES), "gives 2 features, expected 4: c2, c3, c4, c5"),
        (lambda: FeatureExtractor(Tiny(), ("layer1", "layer2")), "called 'layer1', expected c<level>"),
        (lambda: FeatureExtractor(Tiny(), ("c2", "c2")), "each once"),
        (lambda: FeatureExtractor(Tiny(), ()), "the features are none"),
        (lambda: FeatureExtractor(Flat(), ("c2",)), r"shape \[1, 2, 3, 3\], expected \[1, channels, 2, 3\] \(stride 4\)"),
        (lambda: FeatureExtractor(nn.Conv2d(3, 8, 4, 4), ("c2",)), "gives a Tensor, expected a dict or a list"),
        (lambda: FeatureExtractor(make_backbone("mobilenet_v2").body, ("c2", "c6")), "no c6; it gives c2, c3, c4, c5"),
        (lambda: FeatureExtractor(Tiny(), ("c2", "c3"), std=(1.0, 0.0, 1.0)), "std is .*expected three numbers above 0"),
        (lambda: FeatureExtractor(Tiny(), ("c2", "c3")).freeze("layer1"), "no module 'layer1' to freeze; it has stages"),
    ],
)
def test_networks_that_do_not_fit(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        make()
