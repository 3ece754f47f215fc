"""Sampling of crops, and their annotations and targets."""

from __future__ import annotations

import random
from collections import Counter
from itertools import chain

import pytest
import torch

from nasdsl.data import Transform, open_dataset
from nasdsl.detection.fcos import Fcos
from nasdsl.training.proxy.crops import Annotations, Crop, CropSampler, TargetCache, crop_annotations, load_annotations, split

EXTENTS = [(96, 416), (96, 96), (256, 96), (128, 160), (96, 128)]
CROP_SAMPLER = CropSampler(EXTENTS, (96, 96), 32, True)
SHAPES = {"p3": (12, 12), "p4": (6, 6), "p5": (3, 3), "p6": (2, 2), "p7": (1, 1)}


def annotations(seed: int, size: tuple[int, int], count: int = 6) -> Annotations:
    """Random boxes in a picture, some over its whole width."""
    draw = random.Random(seed)
    boxes = []
    for _ in range(count):
        xs, ys = (sorted(draw.uniform(0, side) for _ in range(2)) for side in (size[1], size[0]))
        boxes.append([xs[0], ys[0], xs[1], ys[1]])
    flags = torch.tensor([draw.random() < 0.2 for _ in range(count)])
    return Annotations(torch.tensor(boxes), torch.tensor([draw.randrange(5) for _ in range(count)]), flags, ~flags)


def test_every_picture_is_in_meta_train_or_meta_val() -> None:
    train, val = split(range(5715), 1715 / 5715, 0)
    assert (len(train), len(val)) == (4000, 1715)
    assert sorted(train + val) == list(range(5715))
    assert train == sorted(train)
    assert split(range(5715), 1715 / 5715, 0) == (train, val)
    assert split(range(5715), 1715 / 5715, 1)[1] != val


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_neither_part_is_empty(share: float) -> None:
    train, val = split([4, 9, 11], share, 0)
    assert min(len(train), len(val)) == 1
    assert sorted(train + val) == [4, 9, 11]


def test_every_picture_is_sampled_once_an_epoch_across_batches() -> None:
    crops = list(chain(*CROP_SAMPLER.sample([0, 2, 3, 4], 3, 8, seed=5)))
    assert len(crops) == 24
    for start in range(0, 24, 4):
        assert sorted(crop.picture for crop in crops[start : start + 4]) == [0, 2, 3, 4]


def test_crops_are_inside_and_aligned_and_all_positions_are_sampled() -> None:
    drawn = Counter(chain(*CROP_SAMPLER.sample(range(len(EXTENTS)), 50, 200, seed=0)))
    for picture, _, top, left in drawn:
        height, width = EXTENTS[picture]
        assert top % 32 == left % 32 == 0
        assert 0 <= top <= height - 96
        assert 0 <= left <= width - 96
    expected = 2 * (11 + 1 + 6 + 2 * 3 + 2)
    assert len(drawn) == expected
    wide = [drawn[Crop(0, mirrored, 0, left)] for mirrored in (False, True) for left in range(0, 321, 32)]
    assert sum(wide) == 2000
    assert min(wide) > 55
    assert max(wide) < 130


def test_the_order_depends_on_the_seed_and_on_nothing_else() -> None:
    torch.manual_seed(1)
    first = list(CROP_SAMPLER.sample(range(5), 4, 6, seed=3))
    torch.manual_seed(2)
    assert list(CROP_SAMPLER.sample(range(5), 4, 9, seed=3))[:6] == first
    assert list(CROP_SAMPLER.sample(range(5), 4, 6, seed=4)) != first
    state = torch.random.get_rng_state()
    list(CROP_SAMPLER.sample(range(5), 4, 6, seed=4))
    assert torch.equal(state, torch.random.get_rng_state())


def test_without_mirroring_no_crop_is_mirrored() -> None:
    plain = CropSampler(EXTENTS, (96, 96), 32, False)
    assert not any(crop.mirrored for crop in chain(*plain.sample(range(5), 10, 10, seed=0)))


def test_annotations_of_the_resized_pictures() -> None:
    dataset = open_dataset("shapes:6", "train")
    found = load_annotations(dataset, [(96, 128)] * 6)
    for index in range(6):
        expected = Transform(96, 160).prepare(dataset[index]).target
        torch.testing.assert_close(found[index].boxes, expected["boxes"], rtol=0, atol=1e-4)
        assert torch.equal(found[index].labels, expected["labels"])
        assert torch.equal(found[index].iscrowd, expected["iscrowd"])


@pytest.mark.parametrize("crop", [Crop(0, m, top, left) for m in (False, True) for top, left in ((0, 0), (32, 0), (0, 64))])
def test_crop_annotations_against_a_loop(crop: Crop) -> None:
    size = (120, 150)  # of extent 128x160
    everything = annotations(7, size, 40)
    expected = []
    for (x1, y1, x2, y2), label in zip(everything.boxes.tolist(), everything.labels.tolist(), strict=True):
        if crop.mirrored:
            x1, x2 = size[1] - x2, size[1] - x1
        x1, x2 = (min(max(x - crop.left, 0.0), 96.0) for x in (x1, x2))
        y1, y2 = (min(max(y - crop.top, 0.0), 96.0) for y in (y1, y2))
        if x2 - x1 >= 1 and y2 - y1 >= 1:
            expected.append([x1, y1, x2, y2, label])
    found = crop_annotations(everything, size, crop, (96, 96))
    torch.testing.assert_close(torch.cat((found.boxes, found.labels[:, None].float()), 1), torch.tensor(expected))
    assert 5 < len(expected) < 40


@pytest.mark.parametrize("method", [Fcos(), Fcos(center_radius=1.5), Fcos(ranges=(9.0, 20.0, 40.0, 60.0), reference_size=None)])
def test_cached_targets_are_those_of_fcos_on_the_crop(method: Fcos) -> None:
    sizes = [(96, 400), (96, 96), (250, 96), (120, 150), (90, 128)]
    everything = [annotations(i, size) for i, size in enumerate(sizes)]
    cache = TargetCache(everything, sizes, (96, 96))
    for crops in CROP_SAMPLER.sample(range(5), 7, 6, seed=1):
        boxes = []
        for crop in crops:
            found = crop_annotations(everything[crop.picture], sizes[crop.picture], crop, (96, 96))
            boxes.append({"boxes": found.boxes[~found.iscrowd], "labels": found.labels[~found.iscrowd]})
        expected = method.targets(SHAPES, (96, 96), boxes)
        for _ in range(2):  # computed, then cached
            for found, wanted in zip(cache.at_locations(crops, method, SHAPES), expected, strict=True):
                assert found.dtype == wanted.dtype
                assert torch.equal(found, wanted)
        assert (expected.labels >= 0).any()


def test_targets_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    computed = []
    targets = Fcos.targets
    monkeypatch.setattr(Fcos, "targets", lambda *args: computed.append(1) or targets(*args))
    cache = TargetCache([annotations(0, (96, 400))], [(96, 400)], (96, 96))
    crops = [Crop(0, False, 0, 0), Crop(0, True, 0, 0), Crop(0, False, 0, 0)]
    cache.at_locations(crops, Fcos(), SHAPES)
    cache.at_locations(crops, Fcos(), SHAPES)
    assert len(computed) == 2
    cache.at_locations(crops[:1], Fcos(center_radius=1.5), SHAPES)
    cache.at_locations(crops[:1], Fcos(), dict(list(SHAPES.items())[:4]))
    assert len(computed) == 4


@pytest.mark.parametrize("size", [(240, 320), (40, 256)])
def test_ranges_follow_the_size_of_the_image_that_a_crop_is_a_part_of(size: tuple[int, int]) -> None:
    everything = [annotations(0, (120, 160))]
    cache, crop = TargetCache(everything, [(120, 160)], (96, 96), size), Crop(0, False, 0, 32)
    found = crop_annotations(everything[0], (120, 160), crop, (96, 96))
    boxes = {"boxes": found.boxes[~found.iscrowd], "labels": found.labels[~found.iscrowd]}
    wanted, others = (Fcos().targets(SHAPES, one, [boxes]).labels for one in (size, (96, 96)))
    assert torch.equal(cache.at_locations([crop], Fcos(), SHAPES).labels, wanted)
    assert not torch.equal(wanted, others), "or this test shows nothing"


def test_ranges_follow_the_size_of_the_crop_where_images_differ() -> None:
    """A box of 30 pixels in a crop of 96 is what one of 250 is at 800: too large for p3, which ends at 64."""
    whole = Annotations(
        torch.tensor([[20.0, 20.0, 50.0, 50.0]]), torch.tensor([0]), torch.tensor([False]), torch.tensor([False])
    )
    found = TargetCache([whole], [(96, 96)], (96, 96)).at_locations([Crop(0, False, 0, 0)], Fcos(), SHAPES)
    positive = torch.nonzero(found.labels[0] >= 0).flatten()
    assert len(positive)
    assert bool((positive >= 144).all())
