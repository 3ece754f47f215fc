"""Pre-trained weights: both layouts, every kind of wrapping, and unsuitable files."""

from __future__ import annotations

import os
import pickle
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d

from nasdsl.detection.backbones import IMAGENET_MEAN, IMAGENET_STD, BackboneError, FeatureExtractor, make_backbone
from nasdsl.detection.backbones.networks import NETWORKS, ResNet
from nasdsl.detection.backbones.weights import conversion_command, load, read_file

MOBILENET = Path(__file__).resolve().parents[2].parent / "shared/weights/mobilenet_v2_imagenet_features.pth"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def shuffled(body: nn.Module) -> nn.Module:
    """With distinct norms and statistics, so that swapped ones are detected."""
    generator = torch.Generator().manual_seed(0)
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d | FrozenBatchNorm2d):
            for values, low in (
                (module.weight, 0.2),
                (module.bias, -0.1),
                (module.running_mean, -0.1),
                (module.running_var, 0.5),
            ):
                assert values is not None
                values.data.copy_(low + 0.3 * torch.rand(values.shape, generator=generator))
    return body


@pytest.fixture(scope="module")
def mobilenet() -> dict[str, Tensor]:
    return dict(shuffled(torchvision.models.mobilenet_v2()).state_dict())


def small_resnet(norm_layer: type[nn.Module] = FrozenBatchNorm2d) -> nn.Module:
    """A ResNet-14 with narrow bottlenecks and the stride in the 1x1."""
    whole = torchvision.models.ResNet(Bottleneck, [1, 2, 1, 1], width_per_group=8, norm_layer=norm_layer)
    return shuffled(ResNet(whole, "1x1")).eval()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return small_resnet()


def load_file(body: nn.Module, path: Path) -> FeatureExtractor:
    """Like `make_backbone`, for a network that it does not list."""
    loaded = load(body, read_file(path), "resnet14")
    return FeatureExtractor(body, ("c2", "c3", "c4", "c5"), None, loaded.mean, loaded.std).eval()


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def same_weights(extractor: FeatureExtractor, state: dict[str, Tensor]) -> bool:
    ours = extractor.body.state_dict()
    return all(torch.equal(v, state[k]) for k, v in ours.items() if not k.endswith("num_batches_tracked"))


# -------------------------------------------------------------------------------------------- torchvision's layout


@pytest.mark.skipif(
    not MOBILENET.exists(), reason="NOT CHECKED: the shared test data beside the checkout has no ImageNet weights"
)
def test_the_shared_imagenet_weights() -> None:
    extractor = make_backbone("mobilenet_v2", MOBILENET)
    assert same_weights(extractor, torch.load(MOBILENET, weights_only=True))
    assert (extractor.freeze_at, extractor.norm) == (2, "train")
    assert (extractor.mean, extractor.std) == (IMAGENET_MEAN, IMAGENET_STD)


WRAPPINGS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda s: s,
    "state_dict": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"state": {}}},
    "model in state_dict": lambda s: {"model": {"state_dict": s}},
    "module": lambda s: {"model": {f"module.{k}": v for k, v in s.items()}},
    "in a detector": lambda s: {
        **{f"module.backbone.body.{k}": v for k, v in s.items()},
        "head.cls_logits.weight": torch.ones(3),
    },
    "without counters": lambda s: {k: v for k, v in s.items() if not k.endswith("num_batches_tracked")},
    "without classifier": lambda s: {k: v for k, v in s.items() if not k.startswith(("classifier.", "features.18."))},
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_wrappings(mobilenet: dict[str, Tensor], tmp_path: Path, wrapping: str) -> None:
    extractor = make_backbone("mobilenet_v2", saved(tmp_path / "w.pth", WRAPPINGS[wrapping](mobilenet)))
    assert same_weights(extractor, mobilenet)


def test_npz_and_half_precision(mobilenet: dict[str, Tensor], tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", **{k: v.numpy() for k, v in mobilenet.items()})
    assert same_weights(make_backbone("mobilenet_v2", str(tmp_path / "w.npz")), mobilenet)
    half = {k: v.half() if v.is_floating_point() else v for k, v in mobilenet.items()}
    extractor = make_backbone("mobilenet_v2", saved(tmp_path / "half.pth", half))
    assert same_weights(extractor, {k: v.float() for k, v in half.items()})


def test_safetensors(mobilenet: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    try:
        from safetensors.torch import save_file
    except ModuleNotFoundError:
        path.write_bytes(b"")
        with pytest.raises(BackboneError, match="pip install safetensors"):
            make_backbone("mobilenet_v2", path)
        pytest.skip("reading is NOT CHECKED: safetensors is not installed")
    save_file(mobilenet, path)
    assert same_weights(make_backbone("mobilenet_v2", path), mobilenet)


@pytest.mark.parametrize("norm_layer", [FrozenBatchNorm2d, nn.BatchNorm2d])
def test_resnet_weights_load_into_either_norm(tmp_path: Path, norm_layer: type[nn.Module]) -> None:
    trained = small_resnet(nn.BatchNorm2d)
    extractor = load_file(
        ResNet(torchvision.models.ResNet(Bottleneck, [1, 2, 1, 1], width_per_group=8, norm_layer=norm_layer), "1x1"),
        saved(tmp_path / "w.pth", trained.state_dict()),
    )
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for key, feature in trained(x).items():
            assert torch.allclose(extractor(x)[key], feature, rtol=1e-4, atol=1e-5 * float(feature.abs().max())), key


def test_all_mismatches_are_named_at_once(mobilenet: dict[str, Tensor], tmp_path: Path) -> None:
    broken = dict(mobilenet)
    del broken["features.2.conv.0.0.weight"]
    broken["features.99.weight"] = torch.ones(2)
    broken["features.3.conv.0.0.weight"] = torch.ones(7, 24, 1, 1)
    broken["features.4.conv.0.0.weight"] = broken["features.4.conv.0.0.weight"].to(torch.int8)
    broken["features.5.conv.0.1.bias"] = torch.full_like(broken["features.5.conv.0.1.bias"], torch.nan)
    with pytest.raises(BackboneError) as caught:
        make_backbone("mobilenet_v2", saved(tmp_path / "w.pth", broken))
    message = str(caught.value)
    assert "1 missing (features.2.conv.0.0.weight)" in message
    assert "1 unexpected (features.99.weight)" in message
    assert "2 of another shape (features.3.conv.0.0.weight [7, 24, 1, 1], expected [144, 24, 1, 1]" in message
    assert "features.4.conv.0.0.weight [144, 24, 1, 1] of int8, expected [144, 24, 1, 1])" in message
    assert "1 not finite (features.5.conv.0.1.bias)" in message


def test_weights_of_another_network(mobilenet: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", mobilenet)
    with pytest.raises(BackboneError, match=r"do not fit resnet50: 265 missing.*, …\); \d+ unexpected.*another network"):
        make_backbone("resnet50", path)


def test_two_backbones_in_a_file(mobilenet: dict[str, Tensor], tmp_path: Path) -> None:
    both = {f"{owner}.{k}": v for owner in ("student", "teacher") for k, v in mobilenet.items()}
    with pytest.raises(BackboneError, match=r"2 backbones, under 'student\.', 'teacher\.'"):
        make_backbone("mobilenet_v2", saved(tmp_path / "w.pth", both))


# ---------------------------------------------------------------------------------------------------- MSRA layout


def msra_layout(body: nn.Module) -> dict[str, Any]:
    """A ResNet with frozen norms in Detectron's layout: BGR in 0..255, statistics merged into scale and bias."""
    blobs: dict[str, Tensor] = {"fc1000_w": torch.ones(2, 2), "fc1000_b": torch.ones(2), "conv1_w_momentum": torch.ones(1)}

    def put(conv: nn.Module, norm: nn.Module, conv_name: str, norm_name: str) -> None:
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, FrozenBatchNorm2d)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        blobs[f"{conv_name}_w"] = conv.weight.detach()
        blobs[f"{norm_name}_bn_s"] = scale
        blobs[f"{norm_name}_bn_b"] = norm.bias - norm.running_mean * scale

    body_: Any = body
    put(body_.conv1, body_.bn1, "conv1", "res_conv1")
    blobs["conv1_w"] = blobs["conv1_w"][:, [2, 1, 0]]
    for stage in range(2, 6):
        for i, block in enumerate(body.get_submodule(f"layer{stage - 1}").children()):
            b: Any = block
            for letter, conv, norm in (("a", b.conv1, b.bn1), ("b", b.conv2, b.bn2), ("c", b.conv3, b.bn3)):
                put(conv, norm, f"res{stage}_{i}_branch2{letter}", f"res{stage}_{i}_branch2{letter}")
            if b.downsample is not None:
                put(b.downsample[0], b.downsample[1], f"res{stage}_{i}_branch1", f"res{stage}_{i}_branch1")
    return blobs


@pytest.fixture(scope="module")
def blobs(resnet: nn.Module) -> dict[str, Tensor]:
    return msra_layout(resnet)


def test_msra_layout_has_the_same_output(resnet: nn.Module, blobs: dict[str, Tensor], tmp_path: Path) -> None:
    """For the same image: the original from BGR 0..255 minus the mean, ours from RGB 0..1 normalised by the extractor."""
    extractor = load_file(small_resnet(), saved(tmp_path / "w.pth", {"blobs": blobs}))
    picture = torch.randint(0, 256, (1, 3, 64, 96), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    bgr = picture.flip(1).float() - torch.tensor([102.9801, 115.9465, 122.7717]).view(3, 1, 1)
    with torch.no_grad():
        expected, found = resnet(bgr.flip(1)), extractor(extractor.normalize(picture))
    for key, feature in expected.items():
        assert torch.allclose(found[key], feature, rtol=1e-3, atol=1e-4 * float(feature.abs().max())), key


def test_msra_stem_in_bgr_order(blobs: dict[str, Tensor], tmp_path: Path) -> None:
    """The first convolution, with the weight and channel order of the file."""
    extractor = load_file(small_resnet(), saved(tmp_path / "w.pth", blobs))
    picture = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    bgr = picture.flip(1).float() - torch.tensor([102.9801, 115.9465, 122.7717]).view(3, 1, 1)
    expected = nn.functional.conv2d(bgr, blobs["conv1_w"], stride=2, padding=3)
    body: Any = extractor.body
    assert torch.allclose(body.conv1(extractor.normalize(picture)), expected, rtol=1e-4, atol=1e-2)
    stem = expected * blobs["res_conv1_bn_s"].view(-1, 1, 1) + blobs["res_conv1_bn_b"].view(-1, 1, 1)
    assert torch.allclose(body.bn1(expected), stem, rtol=1e-4, atol=1e-3)


def test_msra_with_statistics_and_a_bias(resnet: nn.Module, tmp_path: Path) -> None:
    """Norms with statistics, and a bias in front of the first one; these can be trained."""
    names = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    layout = msra_layout(resnet)
    norms = {n: m for n, m in resnet.named_modules() if isinstance(m, FrozenBatchNorm2d)}
    for name, norm in norms.items():
        if name == "bn1":
            owner = "res_conv1"
        else:
            stage, block, part, *_ = name.split(".")
            branch = "branch1" if part == "downsample" else f"branch2{' abc'[int(part[-1])]}"
            owner = f"res{int(stage[-1]) + 1}_{block}_{branch}"
        layout |= {f"{owner}_bn_{short}": getattr(norm, full) for full, short in names.items()}
    bias = torch.linspace(-1, 1, 64)
    layout["conv1_b"] = bias
    extractor = load_file(small_resnet(nn.BatchNorm2d), saved(tmp_path / "w.pth", layout))
    ours, theirs = extractor.body.state_dict(), resnet.state_dict()
    different = {k for k in theirs if not torch.equal(ours[k], theirs[k])}
    assert different == {"bn1.bias"}
    x = torch.randn(1, 64, 4, 4)
    body, original = extractor.body, resnet
    assert torch.allclose(body.get_submodule("bn1")(x), original.get_submodule("bn1")(x + bias.view(-1, 1, 1)), atol=1e-5)


def test_msra_without_statistics_is_not_for_training_norms(blobs: dict[str, Tensor], tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"no BatchNorm statistics.*norm='frozen'"):
        load_file(small_resnet(nn.BatchNorm2d), saved(tmp_path / "w.pth", blobs))


def test_msra_mismatches_are_named_in_that_layout(blobs: dict[str, Tensor], tmp_path: Path) -> None:
    broken = {k: v for k, v in blobs.items() if k != "res3_1_branch2b_w"} | {"res9_0_branch2a_w": torch.ones(1)}
    with pytest.raises(BackboneError, match=r"1 missing \(res3_1_branch2b_w\); 1 unexpected \(res9_0_branch2a_w\)"):
        load_file(small_resnet(), saved(tmp_path / "w.pth", broken))
    broken = {k: v for k, v in blobs.items() if k != "conv1_w"}
    with pytest.raises(BackboneError, match=r"1 missing \(conv1_w\)"):
        load_file(small_resnet(), saved(tmp_path / "w.pth", broken))
    with pytest.raises(BackboneError, match="MSRA layout, which only ResNets have; expected weights of mobilenet_v2"):
        make_backbone("mobilenet_v2", saved(tmp_path / "w.pth", blobs))


def test_msra_weights_of_resnet50(tmp_path: Path) -> None:
    """For a named backbone: defaults, a warning where the strides differ, and the normalisation of the weights."""
    network = shuffled(make_backbone("resnet50", norm="frozen").body)
    path = saved(tmp_path / "w.pth", msra_layout(network))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor = make_backbone("resnet50", path)
    assert (extractor.freeze_at, extractor.norm) == (2, "frozen")
    assert extractor.mean == pytest.approx((122.7717 / 255, 115.9465 / 255, 102.9801 / 255))
    assert extractor.std == pytest.approx((1 / 255,) * 3, rel=1e-4)
    with pytest.warns(
        UserWarning, match=r"stride in the 1x1, and resnet50_v1\.5 has it in the 3x3; use --backbone resnet50 for"
    ):
        make_backbone("resnet50_v1.5", path)

    detector = {"model": {f"backbone.{k}": v for k, v in extractor.state_dict().items()}}
    again = make_backbone("resnet50", saved(tmp_path / "model.pt", detector))
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in extractor.state_dict().items())


# ------------------------------------------------------------------------------------------- files that are not safe


class Malicious:
    """A pickle that runs code when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("with_torch", [True, False])
def test_no_code_in_a_file_is_run(tmp_path: Path, with_torch: bool) -> None:
    path, trap = tmp_path / "w.pkl", tmp_path / "trap"
    content = {"model": {"conv1.weight": Malicious(trap)}}
    if with_torch:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(BackboneError, match="can run any code"):
        make_backbone("mobilenet_v2", path)
    assert not trap.exists()


def test_a_pickle_is_refused_and_the_suggested_command_works(blobs: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"blobs": {k: v.numpy() for k, v in blobs.items()}, "cfg": "TRAIN: …"}, protocol=2))
    with pytest.raises(BackboneError) as caught:
        read_file(path)
    assert conversion_command(path) in str(caught.value)
    program, *arguments = shlex.split(conversion_command(path))
    assert program == "python"
    subprocess.run([sys.executable, *arguments], check=True)
    extractor = load_file(small_resnet(), tmp_path / "R-50.npz")
    assert torch.equal(extractor.body.get_submodule("layer1.0.conv1").weight, blobs["res2_0_branch2a_w"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["w.pth", "w.npz"])
@pytest.mark.parametrize("kind", ["empty", "text", "cut", "bytes"])
def test_broken_files(mobilenet: dict[str, Tensor], tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if name == "w.pth":
        torch.save(mobilenet, path)
    else:
        np.savez(path, **{k: v.numpy() for k, v in mobilenet.items()})
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "text": b"not weights\n", "cut": whole[: len(whole) // 2], "bytes": bytes(range(256))}[kind]
    )
    with pytest.raises(BackboneError, match="cannot read the weights"):
        make_backbone("mobilenet_v2", path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, expected a dict"),
        ({"epoch": 3, "lr": 0.1}, "no tensors by name; its keys are epoch, lr"),
        ({}, "none"),
    ],
)
def test_files_without_weights(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        make_backbone("mobilenet_v2", saved(tmp_path / "w.pth", content))


def test_arrays_that_are_too_large_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zeros are packed to next to nothing."""
    np.savez_compressed(tmp_path / "w.npz", weight=np.zeros(1000, np.float32))
    assert (tmp_path / "w.npz").stat().st_size < 2000
    monkeypatch.setattr("nasdsl.detection.backbones.weights.MAX_BYTES", 2000)
    with pytest.raises(BackboneError, match=r"w\.npz.*its arrays have 0 GB"):
        read_file(tmp_path / "w.npz")


def test_without_safetensors_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    (tmp_path / "w.safetensors").touch()
    with pytest.raises(BackboneError, match=r"w\.safetensors: `pip install safetensors` first"):
        read_file(tmp_path / "w.safetensors")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"cannot read the weights .*directory"):
        make_backbone("mobilenet_v2", tmp_path)


# --------------------------------------------------------------------------------------------- torchvision's by name


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's download folder, empty, without a network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def refuse(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    checkpoints = tmp_path / "hub/checkpoints"
    checkpoints.mkdir(parents=True)
    return checkpoints


def test_without_a_network(hub: Path) -> None:
    with pytest.raises(BackboneError, match=r"https://.*mobilenet_v2-.*no route to host.*--backbone-weights PATH"):
        make_backbone("mobilenet_v2", "imagenet")


def test_by_name(hub: Path, mobilenet: dict[str, Tensor]) -> None:
    model = NETWORKS["mobilenet_v2"].model
    for name, entry in (("imagenet", "DEFAULT"), ("IMAGENET1K_V1", "IMAGENET1K_V1")):
        weights = torchvision.models.get_model_weights(model)[entry]
        torch.save(mobilenet, hub / Path(weights.url).name)
        assert same_weights(make_backbone("mobilenet_v2", name), mobilenet)


def test_a_downloaded_file_runs_no_code(hub: Path, tmp_path: Path) -> None:
    url = torchvision.models.get_model_weights("mobilenet_v2")["DEFAULT"].url
    torch.save({"x": Malicious(tmp_path / "trap")}, hub / Path(url).name)
    with pytest.raises(BackboneError, match="cannot get the weights"):
        make_backbone("mobilenet_v2", "imagenet")
    assert not (tmp_path / "trap").exists()


def test_torchvisions_weights_in_the_original_placement(hub: Path) -> None:
    url = torchvision.models.get_model_weights("resnet50")["DEFAULT"].url
    torch.save(make_backbone("resnet50_v1.5").body.state_dict(), hub / Path(url).name)
    with pytest.warns(
        UserWarning, match=r"stride in the 3x3, and resnet50 has it in the 1x1; use --backbone resnet50_v1\.5 for"
    ):
        make_backbone("resnet50", "imagenet")
