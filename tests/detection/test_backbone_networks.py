"""Backbone modules: against their descriptions, freezing, and custom networks."""

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
"""Not a multiple of any stride."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def norm_parameters(module: nn.Module) -> int:
    return sum(2 * m.weight.numel() for m in module.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d))


def all_parameters(module: nn.Module) -> int:
    """Including those of frozen BatchNorms, which are buffers."""
    frozen = (2 * m.weight.numel() for m in module.modules() if isinstance(m, FrozenBatchNorm2d))
    return sum(p.numel() for p in module.parameters()) + sum(frozen)


def trained_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


# ------------------------------------------------------------------------------------ against the described backbones


def test_every_described_backbone_can_be_built() -> None:
    """torchvision's, and the tiny one, which has no pre-trained weights."""
    assert [*NETWORKS, "tiny"] == list(BACKBONES)
    with pytest.raises(BackboneError, match="tiny has no pre-trained weights"):
        make_backbone("tiny", "imagenet")


@pytest.mark.parametrize("name", BACKBONES)
def test_against_the_description(name: str) -> None:
    """Channels, strides (rounded up), number of all and of trained parameters, and the convolutions with the strides."""
    described = backbone(name)
    with torch.device("meta"):  # shapes alone
        freeze_at = 2 if described.pretrained else 0
        extractor = make_backbone(name, freeze_at=freeze_at, norm="frozen" if described.norm_frozen else "train").eval()
        assert extractor.out_channels == dict(described.out_channels)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            features = extractor(torch.zeros(1, 3, *SIZE))
    assert list(features) == list(FEATURES)
    for key, feature in features.items():
        stride = 2 ** int(key[1:])
        assert feature.shape == (1, described.out_channels[key], -(-SIZE[0] // stride), -(-SIZE[1] // stride))
    cost = described.cost(SIZE)
    assert cost.cost.macs == counter.get_total_flops() // 2
    assert cost.cost.params == all_parameters(extractor)
    assert cost.trainable_params == trained_parameters(extractor)


@pytest.mark.parametrize("name", ["resnet50_v1.5", "mobilenet_v2"])
def test_features_equal_torchvisions(name: str) -> None:
    """The same weights give the same features."""
    extractor = make_backbone(name).eval()
    whole = torchvision.models.get_model(NETWORKS[name].model)
    missing = whole.load_state_dict(extractor.body.state_dict(), strict=False)
    assert not missing.unexpected_keys
    if name == "mobilenet_v2":
        taps = {f"features.{i}": f"c{level}" for level, i in enumerate((3, 6, 13, 17), 2)}
    else:
        taps = {f"layer{level - 1}": f"c{level}" for level in range(2, 6)}
    images = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = extractor(images), create_feature_extractor(whole, taps).eval()(images)
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
        extractor = make_backbone("resnet50", freeze_at=freeze_at).train()
    for name in frozen.split():
        part = extractor.body.get_submodule(name)
        assert not any(p.requires_grad for p in part.parameters())
        assert not any(m.training for m in part.modules())
    for name in trained.split():
        part = extractor.body.get_submodule(name)
        assert all(p.requires_grad for p in part.parameters())
        assert all(m.training for m in part.modules())


@pytest.mark.parametrize(("freeze_at", "first_trained"), [(0, 0), (1, 1), (2, 2), (3, 7), (4, 14), (5, 18)])
def test_freezing_mobilenet_v2(freeze_at: int, first_trained: int) -> None:
    """At 2 the published code freezes two modules; from 3 on everything up to c<freeze_at>."""
    extractor = make_backbone("mobilenet_v2", freeze_at=freeze_at).train()
    assert isinstance(extractor.body.features, nn.Sequential)
    for i, part in enumerate(extractor.body.features):
        assert all(p.requires_grad == (i >= first_trained) for p in part.parameters())
        assert all(m.training == (i >= first_trained) for m in part.modules())
    images = torch.randn(2, 3, 64, 64)
    for k, feature in zip(range(2, 6), extractor(images).values(), strict=True):
        assert feature.requires_grad == (k > freeze_at or (k == 2 and freeze_at < 3))


def test_a_training_step_does_not_change_the_frozen_part() -> None:
    """Neither weights nor statistics, also after eval() and train(), and in a copy."""
    extractor = make_backbone("mobilenet_v2", freeze_at=2)
    extractor.eval()
    extractor = copy.deepcopy(extractor).train()
    before = {k: v.clone() for k, v in extractor.state_dict().items()}
    optimizer = torch.optim.SGD((p for p in extractor.parameters() if p.requires_grad), lr=0.1, weight_decay=0.1)
    sum(f.square().mean() for f in extractor(torch.randn(2, 3, 64, 64)).values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    changed = {k for k, v in extractor.state_dict().items() if not torch.equal(v, before[k])}
    frozen = {k for k in before if k.startswith(("body.features.0.", "body.features.1.", "pixel_"))}
    assert changed == set(before) - frozen


def test_frozen_norms_are_constants() -> None:
    extractor = make_backbone("resnet50", norm="frozen", freeze_at=0).train()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in extractor.modules())
    assert trained_parameters(extractor) == all_parameters(extractor) - norm_parameters(extractor)
    assert all(m.eps == 1e-5 for m in extractor.modules() if isinstance(m, FrozenBatchNorm2d))


def test_defaults_without_weights() -> None:
    """Nothing is frozen with random weights."""
    for name in ("resnet50", "mobilenet_v2"):
        extractor = make_backbone(name)
        assert (extractor.name, extractor.freeze_at, extractor.norm) == (name, 0, "train")
        assert trained_parameters(extractor) == all_parameters(extractor)


def test_a_state_dict_contains_the_normalisation() -> None:
    """Checkpoints of detectors rely on it."""
    extractor = make_backbone("mobilenet_v2", freeze_at=1)
    extractor.pixel_mean.fill_(0.25)
    assert extractor.name is not None
    again = make_backbone(extractor.name, freeze_at=extractor.freeze_at, norm=extractor.norm)
    again.load_state_dict(extractor.state_dict())
    assert again.mean == (0.25, 0.25, 0.25)
    images = torch.rand(1, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(extractor.eval()(images).values(), again.eval()(images).values(), strict=True))


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
    """Equal for uint8 and floating point images, and to torchvision's."""
    extractor = FeatureExtractor(Tiny(), ("c2", "c3"))
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = torchvision.transforms.functional.normalize(images / 255, list(IMAGENET_MEAN), list(IMAGENET_STD))
    assert torch.allclose(extractor.normalize(images), expected, atol=1e-6)
    assert torch.allclose(extractor.normalize(images / 255), expected, atol=1e-6)
    assert (extractor.mean, extractor.std) == (IMAGENET_MEAN, IMAGENET_STD)


# ------------------------------------------------------------------------------------------------------ other networks


class Tiny(nn.Module):
    """Like timm's ``features_only`` networks: returns a list of features."""

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


def test_a_network_that_returns_a_list() -> None:
    body = Tiny().train()
    body.stages[1].eval()
    before = copy.deepcopy(body.state_dict())
    extractor = FeatureExtractor(body, ("c2", "c3"))
    assert extractor.out_channels == {"c2": 8, "c3": 16}
    assert {k: v.shape for k, v in extractor(torch.zeros(2, 3, 32, 64)).items()} == {"c2": (2, 8, 8, 16), "c3": (2, 16, 4, 8)}
    assert (body.training, body.stages[0].training, body.stages[1].training) == (True, True, False)
    body.load_state_dict(before)  # the call above learned statistics; the probe must not
    FeatureExtractor(body, ("c2", "c3"))
    assert all(torch.equal(v, before[k]) for k, v in body.state_dict().items())


def test_a_network_from_torchvision() -> None:
    """The example in the docstring, without weights; it can be copied, as weight averaging does."""
    model = torchvision.models.efficientnet_b0(weights=None)
    taps = {"features.2": "c2", "features.3": "c3", "features.5": "c4", "features.8": "c5"}
    extractor = FeatureExtractor(create_feature_extractor(model, taps), FEATURES)
    extractor.freeze("features.0", "features.1")
    extractor = copy.deepcopy(extractor).train()
    assert extractor.out_channels == {"c2": 24, "c3": 40, "c4": 112, "c5": 1280}
    assert not any(m.training for m in extractor.body.get_submodule("features.1").modules())
    assert extractor.body.get_submodule("features.2").training
    assert extractor(torch.zeros(1, 3, 64, 96))["c5"].shape == (1, 1280, 2, 3)


def test_other_features_of_a_dict_are_ignored() -> None:
    extractor = make_backbone("mobilenet_v2")
    assert list(FeatureExtractor(extractor.body, ("c5", "c3")).out_channels) == ["c5", "c3"]


class Flat(nn.Module):
    """Channels-last features, like those of Swin in torchvision."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x[:, :, ::4, ::4].permute(0, 2, 3, 1)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FeatureExtractor(Tiny(), ("c2", "c4")), "feature c4 has stride 8, expected 16"),
        (lambda: FeatureExtractor(Tiny((4, 4)), ("c2", "c3")), "feature c3 has stride 16, expected 8"),
        (lambda: FeatureExtractor(Tiny(), ("c2", "c3"), {"c2": 8, "c3": 32}), "feature c3 has 16 channels, expected 32"),
        (lambda: FeatureExtractor(Tiny(), ("c2", "c3"), {"c2": 8}), "out_channels has c2; expected c2, c3"),
        (lambda: FeatureExtractor(Tiny(), FEATURES), "returns 2 features, expected 4: c2, c3, c4, c5"),
        (lambda: FeatureExtractor(Tiny(), ("layer1", "layer2")), "called 'layer1', expected c<level>"),
        (lambda: FeatureExtractor(Tiny(), ("c2", "c2")), "each once"),
        (lambda: FeatureExtractor(Tiny(), ()), "the features are none"),
        (lambda: FeatureExtractor(Flat(), ("c2",)), r"shape \[1, 2, 3, 3\], expected \[1, channels, 2, 3\] \(stride 4\)"),
        (lambda: FeatureExtractor(nn.Conv2d(3, 8, 4, 4), ("c2",)), "returns a Tensor, expected a dict or a list"),
        (lambda: FeatureExtractor(make_backbone("mobilenet_v2").body, ("c2", "c6")), "no c6; it returns c2, c3, c4, c5"),
        (lambda: FeatureExtractor(Tiny(), ("c2", "c3"), std=(1.0, 0.0, 1.0)), "std is .*expected three numbers above 0"),
        (lambda: FeatureExtractor(Tiny(), ("c2", "c3")).freeze("layer1"), "no module 'layer1' to freeze; it has stages"),
    ],
)
def test_unsuitable_networks(make: Callable[[], object], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        make()
