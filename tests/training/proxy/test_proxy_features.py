"""Cached feature maps and crops of them, against the backbone and against pictures with known pixels."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from proxy_tools import Painted, means, small_spec, text
from torch import nn

import nasdsl
from nasdsl.data import Dataset, Transform, open_dataset
from nasdsl.detection.backbones import BackboneError, FeatureExtractor
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.weights import save_detector
from nasdsl.training.proxy import ProxySpec
from nasdsl.training.proxy.cache import load_or_compute_features
from nasdsl.training.proxy.crops import Crop, CropSampler, TargetCache, load_annotations
from nasdsl.training.proxy.errors import NonFiniteFeatures, ProxyError
from nasdsl.training.proxy.extraction import (
    backbone_feature_function,
    cache_key,
    make_frozen_backbone,
    make_layout,
    resized_sizes,
)
from nasdsl.training.proxy.features import FeatureLayout, Features, Level, map_size
from nasdsl.training.proxy.spec import DTYPES

SIZES = [(96, 416), (96, 224), (256, 96), (100, 96)]
BOXES = [(192, 32, 256, 96), (0, 64, 32, 96), (32, 128, 96, 192), (64, 0, 96, 32)]


def features_of(dataset: Dataset, extractor: FeatureExtractor, spec: ProxySpec) -> Features:
    layout = make_layout(extractor.out_channels, resized_sizes(dataset, spec), spec)
    compute = backbone_feature_function(dataset, extractor, layout, spec, torch.device("cpu"))
    key = cache_key(dataset, extractor, layout, spec)
    limit, dtype = spec.memory_limit, DTYPES[spec.dtype]
    return load_or_compute_features("features", key, layout, compute, dtype, cache=spec.cache, memory_limit=limit, quiet=True)


def all_crops(features: Features, size: int) -> list[Crop]:
    stride = features.layout.stride
    return [
        Crop(picture, mirrored, top, left)
        for picture, (height, width) in enumerate(features.layout.padded_sizes)
        for mirrored in (False, True)[: features.layout.copies]
        for top in range(0, height - size + 1, stride)
        for left in range(0, width - size + 1, stride)
    ]


def test_cached_maps_are_those_of_the_backbone() -> None:
    dataset, spec = open_dataset("shapes:3", "train"), small_spec(size=96)
    extractor = make_frozen_backbone(spec)
    features = features_of(dataset, extractor, spec)
    for picture in range(3):
        image = Transform(96, 160).prepare(dataset[picture]).image
        assert image.shape == (3, 96, 128)
        for mirrored in (False, True):
            with torch.no_grad():
                fresh = extractor(extractor.normalize(image.flip(2) if mirrored else image)[None])
            for name in ("c2", "c3", "c4", "c5"):
                torch.testing.assert_close(features.full_map(picture, mirrored, name), fresh[name][0], rtol=1e-5, atol=1e-6)


def test_a_crop_of_the_maps_is_a_part_of_them() -> None:
    dataset, spec = open_dataset("shapes:3", "train"), small_spec()
    features = features_of(dataset, make_frozen_backbone(spec), spec)
    crops = all_crops(features, 96)
    assert len(crops) == 3 * 2 * 2
    maps = features.crops(crops, ("c2", "c5"), (96, 96))
    assert maps["c2"].is_contiguous(memory_format=torch.channels_last)
    for row, (picture, mirrored, top, left) in enumerate(crops):
        for name, stride in (("c2", 4), ("c5", 32)):
            whole, across = features.full_map(picture, mirrored, name), 96 // stride
            y, x = top // stride, left // stride
            assert torch.equal(maps[name][row], whole[:, y : y + across, x : x + across])


def test_a_white_box_is_at_the_targets_position_in_every_crop_and_level() -> None:
    dataset, spec = Painted(SIZES, BOXES), small_spec(longest=416)
    features = features_of(dataset, means(), spec)
    store = TargetCache(load_annotations(dataset, resized_sizes(dataset, spec)), resized_sizes(dataset, spec), (96, 96))
    crops, seen = all_crops(features, 96), 0
    assert len(crops) == 2 * (11 + 5 + 6 + 2)  # 100x96 is padded to 128x96
    maps = features.crops(crops, ("c3", "c4", "c5"), (96, 96))
    for row, crop in enumerate(crops):
        boxes = store.boxes_in(crop)["boxes"].tolist()
        seen += len(boxes)
        for name, stride in (("c3", 8), ("c4", 16), ("c5", 32)):
            expected = torch.zeros(96 // stride, 96 // stride)
            for x1, y1, x2, y2 in boxes:
                left, top, right, bottom = (int(v) // stride for v in (x1, y1, x2, y2))
                expected[top:bottom, left:right] = 1
            torch.testing.assert_close(maps[name][row, 0], expected)
    assert seen == 20


@pytest.mark.parametrize("level", [3, 4, 5])
def test_positive_locations_are_the_white_ones(level: int) -> None:
    """With ranges of FCOS that assign every box to one level."""
    dataset, spec = Painted(SIZES, BOXES), small_spec(longest=416)
    features = features_of(dataset, means(), spec)
    sizes = resized_sizes(dataset, spec)
    store = TargetCache(load_annotations(dataset, sizes), sizes, (96, 96))
    crops, stride = all_crops(features, 96), 1 << level
    shapes = {f"p{k}": map_size((96, 96), 1 << k) for k in (3, 4, 5)}
    method = Fcos(ranges={3: (1e8, 1e9), 4: (1e-3, 1e8), 5: (1e-4, 1e-3)}[level], reference_size=None)
    targets = store.at_locations(crops, method, shapes)
    first = sum(h * w for name, (h, w) in shapes.items() if int(name[1]) < level)
    labels = targets.labels[:, first : first + (96 // stride) ** 2].reshape(-1, 96 // stride, 96 // stride)
    white = features.crops(crops, (f"c{level}",), (96, 96))[f"c{level}"][:, 0] > 0.5
    assert white.any()
    assert torch.equal(labels == 1, white)
    assert int((targets.labels >= 0).sum()) == int(white.sum())


def test_pictures_smaller_than_the_crop_are_padded() -> None:
    dataset = Painted([(40, 200)], [(0, 0, 200, 40)], grey=255)
    spec = small_spec(size=96, longest=160)
    features = features_of(dataset, means(), spec)
    assert features.layout.padded_sizes == [(96, 160)]
    for mirrored in (False, True):
        c5 = features.full_map(0, mirrored, "c5")[0]
        torch.testing.assert_close(c5, torch.ones(3, 5) * torch.tensor([[1.0], [0.0], [0.0]]))
    sizes = resized_sizes(dataset, spec)
    assert sizes == [(32, 160)]
    boxes = TargetCache(load_annotations(dataset, sizes), sizes, (96, 96)).boxes_in(Crop(0, True, 0, 64))["boxes"]
    assert boxes.tolist() == [[0, 0, 96, 32]]


def test_a_width_that_is_no_multiple_of_the_stride_is_padded_at_the_right() -> None:
    """The mirror image as well, so that its boxes are measured from its own left side."""
    dataset, spec = Painted([(96, 100)], [(0, 0, 32, 96)], grey=128), small_spec()
    features = features_of(dataset, means(), spec)
    assert features.layout.padded_sizes == [(96, 128)]
    grey = 128 / 255
    for mirrored, expected in ((False, [1.0, grey, grey, 4 / 32 * grey]), (True, [grey, grey, (4 * grey + 28) / 32, 4 / 32])):
        torch.testing.assert_close(features.full_map(0, mirrored, "c5")[0], torch.tensor([expected] * 3))


def test_a_crop_from_the_inside_of_a_map() -> None:
    layout = FeatureLayout({"c3": Level(8, 2), "c4": Level(16, 3)}, [(64, 96), (32, 128)], 2)
    features = Features(torch.arange(layout.offsets[-1], dtype=torch.float32), layout, {}, mapped=False)
    for picture, top, left in ((0, 16, 32), (0, 32, 16), (1, 0, 64)):
        crops = features.crops([Crop(picture, True, top, left)], ("c3", "c4"), (32, 32))
        for name, stride in (("c3", 8), ("c4", 16)):
            whole, n = features.full_map(picture, True, name), 32 // stride
            y, x = top // stride, left // stride
            assert torch.equal(crops[name][0], whole[:, y : y + n, x : x + n])


def test_mapped_features_and_features_in_memory_are_equal(tmp_path: Path) -> None:
    dataset = open_dataset("shapes:3", "train")
    in_memory = features_of(dataset, make_frozen_backbone(small_spec()), small_spec())
    stored = small_spec(cache=str(tmp_path))
    read = features_of(dataset, make_frozen_backbone(stored), stored)
    (file,) = tmp_path.glob("*/features.bin")
    file.chmod(stat.S_IRUSR)
    mapped_spec = replace(stored, memory_limit=0)
    mapped = features_of(dataset, make_frozen_backbone(stored), mapped_spec)
    assert (in_memory.mapped, read.mapped, mapped.mapped) == (False, False, True)
    assert in_memory.nbytes == read.nbytes == file.stat().st_size
    crops = all_crops(in_memory, 96)
    for name in ("c2", "c3", "c4", "c5"):
        maps = [features.crops(crops, (name,), (96, 96))[name] for features in (in_memory, read, mapped)]
        assert torch.equal(maps[0], maps[1])
        assert torch.equal(maps[0], maps[2])


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_takes_half_the_space_and_is_correctly_rounded(tmp_path: Path, dtype: str, error: float) -> None:
    dataset = open_dataset("shapes:2", "train")
    full = features_of(dataset, make_frozen_backbone(small_spec()), small_spec())
    spec = small_spec(dtype=dtype, cache=str(tmp_path), memory_limit=0)
    half = features_of(dataset, make_frozen_backbone(spec), spec)
    assert 2 * half.nbytes == full.nbytes
    crops = all_crops(full, 96)
    a, b = (features.crops(crops, ("c4",), (96, 96))["c4"] for features in (full, half))
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, rtol=error, atol=1e-6)


def test_only_the_named_levels_are_stored() -> None:
    dataset = open_dataset("shapes:2", "train")
    spec = small_spec(levels=("c5", "c3"))
    features = features_of(dataset, make_frozen_backbone(spec), spec)
    assert list(features.layout.levels) == ["c3", "c5"]
    assert features.nbytes == 4 * 2 * 2 * (12 * 16 * 64 + 3 * 4 * 128)
    full = features_of(dataset, make_frozen_backbone(small_spec()), small_spec())
    assert torch.equal(features.full_map(1, True, "c5"), full.full_map(1, True, "c5"))


def test_features_that_exceed_the_memory_limit_are_refused_before_they_are_computed() -> None:
    dataset, spec = open_dataset("shapes:2", "train"), small_spec(memory_limit=1000)
    with pytest.raises(ProxyError, match=r"name a folder as cache"):
        features_of(dataset, make_frozen_backbone(spec), spec)


def test_features_that_overflow_are_refused() -> None:
    dataset, spec = Painted([(96, 96)], [(0, 0, 32, 32)]), small_spec(dtype="float16")
    loud = FeatureExtractor(nn.Sequential(_Scale(1e6), means().body), ("c3", "c4", "c5"), mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(NonFiniteFeatures, match="not finite in float16: take dtype float32, or other weights"):
        features_of(dataset, loud, spec)
    features_of(dataset, loud, replace(spec, dtype="bfloat16"))


def test_weights_may_be_a_detector_with_the_same_backbone(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    spec = replace(small_spec(), backbone_weights=str(path))
    trained = nasdsl.detector(nasdsl.loads(text()), "tiny", classes=2, seed=5)
    save_detector(trained, path)
    found = make_frozen_backbone(spec)
    assert all(torch.equal(value, trained.backbone.state_dict()[key]) for key, value in found.state_dict().items())
    with pytest.raises(ProxyError, match=f"^{path} has a detector with the backbone tiny; expected mobilenet_v2$"):
        make_frozen_backbone(replace(spec, backbone="mobilenet_v2"))
    torch.save({"epoch": 3}, path)
    with pytest.raises(BackboneError, match=f"{path}"):
        make_frozen_backbone(replace(spec, backbone="mobilenet_v2"))


def test_maps_that_are_not_stored_have_no_place() -> None:
    layout = FeatureLayout({"c3": Level(8, 2)}, [(32, 32)], 1)
    assert layout.offset(0, False, "c3") == 0
    with pytest.raises(KeyError, match="c4"):
        layout.offset(0, False, "c4")


def test_a_crop_must_be_a_multiple_of_the_stride() -> None:
    with pytest.raises(ProxyError, match="size is 100; expected a multiple of 32"):
        features_of(Painted([(128, 128)], [(0, 0, 9, 9)]), means(), small_spec(size=100))


def test_a_level_that_the_backbone_lacks_is_named() -> None:
    with pytest.raises(ProxyError, match="levels has c6; tiny gives c2, c3, c4, c5"):
        features_of(Painted([(96, 96)], [(0, 0, 9, 9)]), make_frozen_backbone(small_spec()), small_spec(levels=("c6",)))


class _Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_center_crop() -> None:
    crop_sampler = CropSampler([(96, 416), (128, 96)], (96, 96), 32, True)
    assert crop_sampler.center_crop(0) == Crop(0, False, 0, 160)
    assert crop_sampler.center_crop(1) == Crop(1, False, 0, 0)
