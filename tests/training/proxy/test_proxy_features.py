"""Cached maps and crops of them, against the backbone itself and against pictures whose every pixel is known."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from proxy_tools import Painted, means, small_spec
from torch import nn

from nasdsl.data import Dataset, Transform, open_dataset
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.detection.fcos import Fcos
from nasdsl.training.proxy import ProxySpec
from nasdsl.training.proxy.cache import make_features
from nasdsl.training.proxy.crops import Cropping, Place, TargetStore, objects_of
from nasdsl.training.proxy.errors import ProxyError
from nasdsl.training.proxy.extraction import backbone_maps, frozen_backbone, key_of, layout_of, resized_sizes
from nasdsl.training.proxy.features import Features, Layout, Level, cells
from nasdsl.training.proxy.spec import DTYPES

SIZES = [(96, 416), (96, 224), (256, 96), (100, 96)]
BOXES = [(192, 32, 256, 96), (0, 64, 32, 96), (32, 128, 96, 192), (64, 0, 96, 32)]


def features_of(dataset: Dataset, extractor: FeatureExtractor, spec: ProxySpec) -> Features:
    layout = layout_of(extractor, resized_sizes(dataset, spec), spec)
    compute = backbone_maps(dataset, extractor, layout, spec, torch.device("cpu"))
    key = key_of(dataset, extractor, layout, spec)
    limit, dtype = spec.memory_limit, DTYPES[spec.dtype]
    return make_features("features", key, layout, compute, dtype, folder=spec.cache, memory_limit=limit, quiet=True)


def every_place(features: Features, size: int) -> list[Place]:
    stride = features.layout.stride
    return [
        Place(picture, mirrored, top, left)
        for picture, (height, width) in enumerate(features.layout.extents)
        for mirrored in (False, True)[: features.layout.copies]
        for top in range(0, height - size + 1, stride)
        for left in range(0, width - size + 1, stride)
    ]


def test_cached_maps_are_those_of_the_backbone() -> None:
    dataset, spec = open_dataset("shapes:3", "train"), small_spec(size=96)
    extractor = frozen_backbone(spec)
    features = features_of(dataset, extractor, spec)
    for picture in range(3):
        image = Transform(96, 160).prepare(dataset[picture]).image
        assert image.shape == (3, 96, 128)
        for mirrored in (False, True):
            with torch.no_grad():
                fresh = extractor(extractor.normalize(image.flip(2) if mirrored else image)[None])
            for name in ("c2", "c3", "c4", "c5"):
                torch.testing.assert_close(features.whole(picture, mirrored, name), fresh[name][0], rtol=1e-5, atol=1e-6)


def test_a_crop_of_the_maps_is_a_part_of_them() -> None:
    dataset, spec = open_dataset("shapes:3", "train"), small_spec()
    features = features_of(dataset, frozen_backbone(spec), spec)
    places = every_place(features, 96)
    assert len(places) == 3 * 2 * 2
    crops = features.crops(places, ("c2", "c5"), 96)
    assert crops["c2"].is_contiguous(memory_format=torch.channels_last)
    for row, (picture, mirrored, top, left) in enumerate(places):
        for name, stride in (("c2", 4), ("c5", 32)):
            whole, across = features.whole(picture, mirrored, name), 96 // stride
            y, x = top // stride, left // stride
            assert torch.equal(crops[name][row], whole[:, y : y + across, x : x + across])


def test_a_white_box_is_where_the_target_says_in_every_crop_at_every_level() -> None:
    dataset, spec = Painted(SIZES, BOXES), small_spec(longest=416)
    features = features_of(dataset, means(), spec)
    store = TargetStore(objects_of(dataset, resized_sizes(dataset, spec)), resized_sizes(dataset, spec), 96)
    places, seen = every_place(features, 96), 0
    assert len(places) == 2 * (11 + 5 + 6 + 2)  # 100x96 is padded to 128x96
    crops = features.crops(places, ("c3", "c4", "c5"), 96)
    for row, place in enumerate(places):
        boxes = store.boxes_in(place)["boxes"].tolist()
        seen += len(boxes)
        for name, stride in (("c3", 8), ("c4", 16), ("c5", 32)):
            expected = torch.zeros(96 // stride, 96 // stride)
            for x1, y1, x2, y2 in boxes:
                left, top, right, bottom = (int(v) // stride for v in (x1, y1, x2, y2))
                expected[top:bottom, left:right] = 1
            torch.testing.assert_close(crops[name][row, 0], expected)
    assert seen == 20


@pytest.mark.parametrize("level", [3, 4, 5])
def test_the_locations_that_learn_the_box_are_white(level: int) -> None:
    """With the ranges of FCOS put so that one level learns everything."""
    dataset, spec = Painted(SIZES, BOXES), small_spec(longest=416)
    features = features_of(dataset, means(), spec)
    sizes = resized_sizes(dataset, spec)
    store = TargetStore(objects_of(dataset, sizes), sizes, 96)
    places, stride = every_place(features, 96), 1 << level
    shapes = {f"p{k}": cells((96, 96), 1 << k) for k in (3, 4, 5)}
    method = Fcos(ranges={3: (1e8, 1e9), 4: (1e-3, 1e8), 5: (1e-4, 1e-3)}[level], reference_size=None)
    targets = store.fcos(places, method, shapes)
    first = sum(h * w for name, (h, w) in shapes.items() if int(name[1]) < level)
    labels = targets.labels[:, first : first + (96 // stride) ** 2].reshape(-1, 96 // stride, 96 // stride)
    white = features.crops(places, (f"c{level}",), 96)[f"c{level}"][:, 0] > 0.5
    assert white.any()
    assert torch.equal(labels == 1, white)
    assert int((targets.labels >= 0).sum()) == int(white.sum())


def test_pictures_smaller_than_the_crop_are_padded() -> None:
    dataset = Painted([(40, 200)], [(0, 0, 200, 40)], grey=255)
    spec = small_spec(size=96, longest=160)
    features = features_of(dataset, means(), spec)
    assert features.layout.extents == [(96, 160)]
    for mirrored in (False, True):
        c5 = features.whole(0, mirrored, "c5")[0]
        torch.testing.assert_close(c5, torch.ones(3, 5) * torch.tensor([[1.0], [0.0], [0.0]]))
    sizes = resized_sizes(dataset, spec)
    assert sizes == [(32, 160)]
    boxes = TargetStore(objects_of(dataset, sizes), sizes, 96).boxes_in(Place(0, True, 0, 64))["boxes"]
    assert boxes.tolist() == [[0, 0, 96, 32]]


def test_a_width_that_is_no_multiple_of_the_stride_is_padded_at_the_right() -> None:
    """The mirror image, too, so that its boxes are counted from its own left side."""
    dataset, spec = Painted([(96, 100)], [(0, 0, 32, 96)], grey=128), small_spec()
    features = features_of(dataset, means(), spec)
    assert features.layout.extents == [(96, 128)]
    grey = 128 / 255
    for mirrored, expected in ((False, [1.0, grey, grey, 4 / 32 * grey]), (True, [grey, grey, (4 * grey + 28) / 32, 4 / 32])):
        torch.testing.assert_close(features.whole(0, mirrored, "c5")[0], torch.tensor([expected] * 3))


def test_a_crop_from_the_inside_of_a_map() -> None:
    layout = Layout({"c3": Level(8, 2), "c4": Level(16, 3)}, [(64, 96), (32, 128)], 2)
    features = Features(torch.arange(layout.starts[-1], dtype=torch.float32), layout, {}, mapped=False)
    for picture, top, left in ((0, 16, 32), (0, 32, 16), (1, 0, 64)):
        crops = features.crops([Place(picture, True, top, left)], ("c3", "c4"), 32)
        for name, stride in (("c3", 8), ("c4", 16)):
            whole, n = features.whole(picture, True, name), 32 // stride
            y, x = top // stride, left // stride
            assert torch.equal(crops[name][0], whole[:, y : y + n, x : x + n])


def test_mapped_in_memory_and_without_a_file_are_the_same(tmp_path: Path) -> None:
    dataset = open_dataset("shapes:3", "train")
    in_memory = features_of(dataset, frozen_backbone(small_spec()), small_spec())
    stored = small_spec(cache=str(tmp_path))
    read = features_of(dataset, frozen_backbone(stored), stored)
    (file,) = tmp_path.glob("*/features.bin")
    file.chmod(stat.S_IRUSR)
    mapped_spec = replace(stored, memory_limit=0)
    mapped = features_of(dataset, frozen_backbone(stored), mapped_spec)
    assert (in_memory.mapped, read.mapped, mapped.mapped) == (False, False, True)
    assert in_memory.nbytes == read.nbytes == file.stat().st_size
    places = every_place(in_memory, 96)
    for name in ("c2", "c3", "c4", "c5"):
        crops = [features.crops(places, (name,), 96)[name] for features in (in_memory, read, mapped)]
        assert torch.equal(crops[0], crops[1])
        assert torch.equal(crops[0], crops[2])


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11), ("bfloat16", 2**-8)])
def test_half_precision_takes_half_the_space_and_is_as_near_as_it_can_be(tmp_path: Path, dtype: str, error: float) -> None:
    dataset = open_dataset("shapes:2", "train")
    full = features_of(dataset, frozen_backbone(small_spec()), small_spec())
    spec = small_spec(dtype=dtype, cache=str(tmp_path), memory_limit=0)
    half = features_of(dataset, frozen_backbone(spec), spec)
    assert 2 * half.nbytes == full.nbytes
    places = every_place(full, 96)
    a, b = (features.crops(places, ("c4",), 96)["c4"] for features in (full, half))
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, rtol=error, atol=1e-6)


def test_only_the_named_levels_are_kept() -> None:
    dataset = open_dataset("shapes:2", "train")
    spec = small_spec(levels=("c5", "c3"))
    features = features_of(dataset, frozen_backbone(spec), spec)
    assert list(features.layout.levels) == ["c3", "c5"]
    assert features.nbytes == 4 * 2 * 2 * (12 * 16 * 64 + 3 * 4 * 128)
    full = features_of(dataset, frozen_backbone(small_spec()), small_spec())
    assert torch.equal(features.whole(1, True, "c5"), full.whole(1, True, "c5"))


def test_what_does_not_fit_into_memory_is_refused_before_it_is_made() -> None:
    dataset, spec = open_dataset("shapes:2", "train"), small_spec(memory_limit=1000)
    with pytest.raises(ProxyError, match=r"name a folder as cache"):
        features_of(dataset, frozen_backbone(spec), spec)


def test_features_that_overflow_are_refused() -> None:
    dataset, spec = Painted([(96, 96)], [(0, 0, 32, 32)]), small_spec(dtype="float16")
    loud = FeatureExtractor(nn.Sequential(_Times(1e6), means().body), ("c3", "c4", "c5"), mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(ProxyError, match="not finite in float16: dtype or weights"):
        features_of(dataset, loud, spec)
    features_of(dataset, loud, replace(spec, dtype="bfloat16"))


def test_a_crop_must_be_a_multiple_of_the_stride() -> None:
    with pytest.raises(ProxyError, match="size is 100; expected a multiple of 32"):
        features_of(Painted([(128, 128)], [(0, 0, 9, 9)]), means(), small_spec(size=100))


def test_a_level_that_the_backbone_lacks_is_named() -> None:
    with pytest.raises(ProxyError, match="levels has c6; tiny gives c2, c3, c4, c5"):
        features_of(Painted([(96, 96)], [(0, 0, 9, 9)]), frozen_backbone(small_spec()), small_spec(levels=("c6",)))


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_the_middle_crop_is_in_the_middle() -> None:
    cropping = Cropping([(96, 416), (128, 96)], 96, 32, True)
    assert cropping.middle(0) == Place(0, False, 0, 160)
    assert cropping.middle(1) == Place(1, False, 0, 0)
