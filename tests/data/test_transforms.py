"""Transforms change images and boxes alike, and depend on seeds alone."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from data_folders import picture, voc_object, voc_xml
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

from nasdsl.data import Augmented, DataError, Sample, Transform, UnreadableImage, open_dataset, rescale_boxes
from nasdsl.data.geometry import MIN_VISIBLE
from nasdsl.data.transforms import Target


def _target(boxes: list[list[float]], size: tuple[int, int], crowd: tuple[int, ...] = (), hard: tuple[int, ...] = ()) -> Target:
    rows = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    count = len(rows)
    return {
        "boxes": rows,
        "labels": torch.arange(count),
        "iscrowd": torch.tensor([i in crowd for i in range(count)], dtype=torch.bool),
        "difficult": torch.tensor([i in hard for i in range(count)], dtype=torch.bool),
        "area": (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1]),
        "image_id": 1,
        "size": size,
    }


def _drawn(boxes: list[list[int]], size: tuple[int, int]) -> Sample:
    """Box k is filled in channel k."""
    image = torch.zeros(3, *size, dtype=torch.uint8)
    for channel, (x1, y1, x2, y2) in enumerate(boxes):
        image[channel, y1:y2, x1:x2] = 255
    return Sample(image, _target(boxes, size))


def _extent(channel: torch.Tensor) -> list[int]:
    rows, columns = (torch.nonzero((channel > 127).any(dim=side)).flatten() for side in (1, 0))
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**9), height=st.integers(60, 90), width=st.integers(60, 90))
def test_boxes_follow_their_objects(seed: int, height: int, width: int) -> None:
    boxes = [[5, 10, 40, 35], [20, 0, 60, 60], [width - 30, height - 20, width, height]]
    transform = Transform.training((48, 64, 100), 120, crop=(50, 70))
    image, target = transform(_drawn(boxes, (height, width)), seed)
    assert image.shape[1] <= 50
    assert image.shape[2] <= 70
    for box, channel, area in zip(target["boxes"], target["labels"].tolist(), target["area"], strict=True):
        if float((box[2:] - box[:2]).min()) > 4:
            assert _extent(image[channel]) == pytest.approx(box.tolist(), abs=1.01)
        assert float(area) == pytest.approx(float((box[2:] - box[:2]).prod()), rel=1e-3, abs=1e-2)


def test_a_crop_keeps_the_size_of_the_whole_image() -> None:
    sample = _drawn([[5, 10, 40, 35]], (60, 90))
    image, target = Transform.training(40, crop=(20, 200))(sample, 3)
    assert (tuple(image.shape[1:]), target["uncropped_size"], target["size"]) == ((20, 60), (40, 60), (60, 90))
    assert "uncropped_size" not in Transform.training(40)(sample, 3).target


def test_flipping_twice_changes_nothing() -> None:
    flip = Transform(None, None, flip=1.0)
    sample = _drawn([[5, 10, 40, 35]], (60, 80))
    once = flip(sample)
    assert once.target["boxes"].tolist() == [[40, 10, 75, 35]]
    assert _extent(once.image[0]) == [40, 10, 75, 35]
    twice = flip(once)
    assert torch.equal(twice.image, sample.image)
    assert torch.equal(twice.target["boxes"], sample.target["boxes"])
    assert sample.target["boxes"].tolist() == [[5, 10, 40, 35]]


def test_half_of_the_images_are_flipped() -> None:
    sample = _drawn([[5, 10, 40, 35]], (60, 80))
    flipped = sum(float(Transform.training(None)(sample, seed).target["boxes"][0, 0]) == 40 for seed in range(400))
    assert 160 < flipped < 240


@settings(max_examples=60, deadline=None)
@given(height=st.integers(30, 900), width=st.integers(30, 900), shorter=st.integers(30, 800), extra=st.integers(1, 800))
def test_output_size_is_torchvisions(height: int, width: int, shorter: int, extra: int) -> None:
    """As v2.Resize(shorter, max_size=longest), but no side becomes 0."""
    size = Transform(shorter, shorter + extra).output_size((height, width))
    expected = v2.functional.resize(torch.zeros(1, height, width, dtype=torch.uint8), [shorter], max_size=shorter + extra)
    assert size == tuple(expected.shape[1:])
    assert max(size) <= shorter + extra


@given(*(st.integers(1, 3000) for _ in range(2)), st.integers(1, 900), st.integers(1, 1400))
def test_bounds_of_resized_sizes(height: int, width: int, shorter: int, longest: int) -> None:
    """Also where the longest side is shorter than the shorter one should be."""
    size = Transform(shorter, longest).output_size((height, width))
    assert 1 <= min(size) <= max(size) <= max(longest, shorter)


def test_no_side_becomes_zero() -> None:
    assert Transform(10, 20).output_size((1, 5000)) == (1, 20)
    assert Transform(10, None).output_size((4000, 1)) == (40000, 10)


def test_resizing_is_torchvisions() -> None:
    image, target = open_dataset("shapes:1", "train")[0]
    theirs, their_target = GeneralizedRCNNTransform(120, 1000, [0.0] * 3, [1.0] * 3)(
        [image / 255], [{"boxes": target["boxes"], "labels": target["labels"]}]
    )
    ours = Transform(120, 1000)(Sample(image, target))
    assert theirs.image_sizes == [tuple(ours.image.shape[1:])] == [(120, 160)]
    torch.testing.assert_close(ours.target["boxes"], their_target[0]["boxes"])
    wrapped = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=(240, 320))
    exact = Transform(size=(100, 300))(Sample(image, target))
    pixels, boxes = v2.Resize((100, 300), antialias=True)(image, wrapped)
    assert torch.equal(exact.image, pixels)
    torch.testing.assert_close(exact.target["boxes"], boxes.as_subclass(torch.Tensor))


def test_dropped_boxes() -> None:
    boxes = [[0, 0, 10, 10], [5, 5, 20, 20], [30, 30, 31, 50], [1, 1, 9, 9]]
    sample = Sample(torch.zeros(3, 80, 80, dtype=torch.uint8), _target(boxes, (80, 80), crowd=(0,), hard=(1,)))
    assert Transform(40)(sample).target["labels"].tolist() == [0, 1, 2, 3]
    assert Transform.training(40)(sample).target["labels"].tolist() == [1, 3]
    assert Transform.training(80, drop_difficult=True)(sample).target["labels"].tolist() == [2, 3]
    for seed in range(20):
        _, target = Transform(None, crop=(20, 20))(sample, seed)
        assert len({len(target[key]) for key in ("boxes", "labels", "iscrowd", "difficult", "area")}) == 1
        assert (target["boxes"][:, 2:] > target["boxes"][:, :2]).all()
    empty = Sample(sample.image, _target([], (80, 80)))
    assert Transform.training(40, crop=(20, 20), jitter=0.5)(empty, 3).target["boxes"].shape == (0, 4)


def test_random_numbers_depend_on_the_seed_alone() -> None:
    sample = open_dataset("shapes:1", "train")[0]
    transform = Transform.training((100, 120, 140), jitter=0.4, crop=(90, 90))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one = transform(sample, 5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(transform(sample, 5).image, one.image)
    assert len({transform(sample, seed).image.sum().item() for seed in range(10)}) == 10


def test_augmented_by_epoch_and_index() -> None:
    data = open_dataset("shapes:3", "train")
    transform = Transform.training(120, jitter=0.4)
    augmented, cached = Augmented(data, transform, seed=4), Augmented(data, transform, seed=4, cache=True)
    first = [sample.image for sample in (augmented[0], augmented[1])]
    augmented.set_epoch(1)
    assert not torch.equal(augmented[0].image, first[0])
    assert torch.equal(augmented[0, 1].image, first[1])
    for pair in ((0, 1), (1, 1), (0, 1)):
        assert torch.equal(cached[pair].image, augmented[pair].image)
        assert torch.equal(cached[pair].target["boxes"], augmented[pair].target["boxes"])


def test_fast_decoding(bccd: str) -> None:
    data = open_dataset(f"voc:{bccd}", "test")
    exact, fast = Transform(240), Transform(240, fast_decode=True)
    assert fast.read(data, 0).image.shape == (3, 240, 320)
    one, other = (transform(transform.read(data, 0)) for transform in (exact, fast))
    assert torch.equal(one.target["boxes"], other.target["boxes"])
    assert one.image.shape == other.image.shape
    assert (one.image.float() - other.image.float()).abs().mean() < 1.5
    scales = Transform.training((150, 200), flip=0, fast_decode=True)
    assert scales(scales.read(data, 0), 1).image.shape[1] in (150, 200)


def test_rescale_boxes() -> None:
    boxes = torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    assert rescale_boxes(boxes, (100, 200), (50, 400)).tolist() == [[20, 10, 60, 20]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"shorter": 0},
        {"shorter": ()},
        {"size": (10, 0)},
        {"flip": 1.5},
        {"jitter": -1},
        {"jitter": (0.1, 0.1, 0.1, 0.6)},
        {"longest": 0},
        {"sizes": ((48, 64),)},
        {"sizes": ((0, 64),), "size": (4, 4)},
        {"mosaic": 2.0},
        {"scale_jitter": (1.5, 0.5)},
        {"scale_jitter": (0.0, 1.0)},
    ],
)
def test_invalid_values(wrong: dict[str, object]) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        Transform(**wrong)


# ------------------------------------------------------------------------------------------- scale jitter and mosaics


def _content(sample: Sample, channel: int) -> list[int]:
    return _extent(sample.image[channel].where(sample.image[channel] > 200, torch.tensor(0, dtype=torch.uint8)))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**9),
    height=st.integers(60, 120),
    width=st.integers(60, 120),
    low=st.floats(0.3, 0.99),
    high=st.floats(1.0, 3.0),
    size=st.sampled_from([None, (48, 80), (100, 64)]),
)
def test_boxes_follow_their_objects_when_images_are_enlarged(
    seed: int, height: int, width: int, low: float, high: float, size: tuple[int, int] | None
) -> None:
    """The image keeps its size; a box is where its pixels are, and is dropped only if hardly anything of it is left."""
    boxes = [[5, 10, 40, 45], [20, 0, 55, 60], [width - 30, height - 20, width, height]]
    transform = Transform.training(64, 100, size, flip=0.5, scale_jitter=(low, high))
    image, target = transform(_drawn(boxes, (height, width)), seed)
    assert tuple(image.shape[1:]) == target["uncropped_size"] == transform.output_size((height, width))
    for box, channel, area in zip(target["boxes"], target["labels"].tolist(), target["area"], strict=True):
        if float((box[2:] - box[:2]).min()) > 5:
            assert _content(Sample(image, target), channel) == pytest.approx(box.tolist(), abs=2.01)
        assert float(area) == pytest.approx(float((box[2:] - box[:2]).prod()), rel=1e-3, abs=1e-2)
    for channel in set(range(3)) - set(target["labels"].tolist()):
        visible = int((image[channel] > 200).sum())
        whole = (boxes[channel][2] - boxes[channel][0]) * (boxes[channel][3] - boxes[channel][1])
        enlarged = whole * (high * max(image.shape[1] / height, image.shape[2] / width)) ** 2
        assert visible < 0.15 * enlarged + 20


def test_enlarged_and_reduced_images_have_all_factors_and_positions() -> None:
    sample = _drawn([[30, 20, 50, 40]], (60, 80))
    transform = Transform(None, None, scale_jitter=(0.5, 1.5))
    found = [transform(sample, seed) for seed in range(300)]
    sides = torch.stack([s.target["boxes"][0, 2:] - s.target["boxes"][0, :2] for s in found if len(s.target["boxes"])]) / 20
    whole = sides[(sides[:, 0] - sides[:, 1]).abs() < 0.2]  # others are cut off
    assert 0.5 <= float(whole.min()) < 0.55
    assert 1.45 < float(whole.max()) <= 1.52
    assert 0.85 < float(whole.mean()) < 1.05
    corners = torch.stack([s.target["boxes"][0, :2] for s in found if len(s.target["boxes"])])
    assert (corners.amax(0) - corners.amin(0) > torch.tensor([40, 30])).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9), size=st.sampled_from([None, (90, 120)]))
def test_a_mosaic_shows_four_images(seed: int, size: tuple[int, int] | None) -> None:
    """Each image has one object of a colour of its own, which fills most of it: where is what, and up to which edges?"""
    colours = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
    transform = Transform.training(90, 200, size, mosaic=1.0)
    parts, areas = [], []
    for number, full in enumerate([(90, 120), (120, 90), (60, 150), (100, 100)]):
        boxes = [[4, 4, full[1] - 4, full[0] - 4]]
        height, width = size or transform.output_size(full)
        areas.append((full[0] - 8) * (full[1] - 8) * height * width / (full[0] * full[1]))  # in the image alone
        target = {**_target(boxes, full), "labels": torch.tensor([number])}
        image = torch.zeros(3, *full, dtype=torch.uint8)
        image[:, 4:-4, 4:-4] = 255 * colours[number].view(3, 1, 1)
        parts.append(transform.prepare(Sample(image, target)))
    image, target = transform.augment(parts[0], seed, others=parts[1:])
    assert tuple(image.shape[1:]) == target["uncropped_size"] == (90, 120)
    assert (target["image_id"], target["size"]) == (1, (90, 120))
    for number in {0, 1, 2, 3} - set(target["labels"].tolist()):  # of which too little is visible
        of_part = ((image > 127) == colours[number].view(3, 1, 1).bool()).all(dim=0)
        assert of_part.sum() <= MIN_VISIBLE * areas[number]  # no part is larger than its image alone
    centers = {n: (b[:2] + b[2:]) / 2 for n, b in zip(target["labels"].tolist(), target["boxes"], strict=True)}
    for left, right in ((0, 1), (2, 3)):
        assert {left, right} - set(centers) or centers[left][0] < centers[right][0]
        upper, lower = left // 2, 2 + left // 2
        assert {upper, lower} - set(centers) or centers[upper][1] < centers[lower][1]
    for number, box in zip(target["labels"].tolist(), target["boxes"], strict=True):
        of_part = ((image > 127) == colours[number].view(3, 1, 1).bool()).all(dim=0)
        rows, columns = (torch.nonzero(of_part.any(dim=side)).flatten() for side in (1, 0))
        seen = [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]
        assert seen == pytest.approx(box.tolist(), abs=1.01)
    assert len({len(target[key]) for key in ("boxes", "labels", "iscrowd", "difficult", "area")}) == 1


@pytest.mark.long
def test_mosaics_do_not_depend_on_the_cache_and_come_with_their_probability() -> None:
    data = open_dataset("shapes:6", "train")
    transform = Transform.training(size=(48, 64), mosaic=0.5, scale_jitter=(0.8, 1.5), jitter=(0.3, 0.3, 0.3, 0.1))
    plain, cached = (Augmented(data, transform, seed=4, cache=cache) for cache in (False, True))
    mosaics = 0
    for epoch in range(20):
        for index in range(6):
            one, other = plain[epoch, index], cached[epoch, index]
            assert torch.equal(one.image, other.image)
            assert torch.equal(one.target["boxes"], other.target["boxes"])
            mosaics += not torch.equal(one.image, plain.get(epoch, index, with_mosaic=False).image)
    assert 40 < mosaics < 80


@pytest.fixture
def half_broken(tmp_path: Path) -> str:
    """Two images of which the second cannot be read."""
    for stem in "ab":
        picture(tmp_path / f"{stem}.png", (48, 64), seed=ord(stem))
        (tmp_path / f"{stem}.xml").write_text(voc_xml([voc_object("cat", 3, 3, 40, 30)], size=(48, 64)))
    broken = tmp_path / "b.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    return f"voc:{tmp_path}"


def test_a_mosaic_has_no_image_that_cannot_be_read(half_broken: str) -> None:
    transform = Transform.training(size=(48, 64), mosaic=1.0)
    data = Augmented(open_dataset(half_broken, "all"), transform, seed=1)
    for epoch in range(4):  # a part is drawn in place of the broken image, the first time and when it is known
        image, target = data.get(epoch, 0)
        assert tuple(image.shape[1:]) == (48, 64)
        assert set(target["labels"].tolist()) == {0}
    refusing = Augmented(open_dataset(half_broken, "all", on_error="refuse"), transform, seed=1)
    with pytest.raises(UnreadableImage, match=r"b\.png: .*truncated"):
        [refusing.get(epoch, 0) for epoch in range(4)]


def test_images_in_memory_are_not_sent_to_workers() -> None:
    data = Augmented(open_dataset("shapes:2", "train"), Transform.training(size=(48, 64)), cache=True)
    before = pickle.dumps(data)
    first = data[0]
    assert len(pickle.dumps(data)) == len(before)
    assert torch.equal(pickle.loads(pickle.dumps(data))[0].image, first.image)


def test_images_are_kept_as_large_as_their_enlargement_needs() -> None:
    transform = Transform.training(size=(48, 64), scale_jitter=(0.5, 1.5), sizes=((32, 40), (60, 64)))
    assert transform.prepared_size((240, 320)) == (90, 96)
    assert transform.prepared_size((50, 320)) == (50, 96)
    assert Transform.training(size=(48, 64)).prepared_size((240, 320)) == (48, 64)
    sample = transform.prepare(_drawn([[5, 10, 40, 35]], (240, 320)))
    assert (tuple(sample.image.shape[1:]), sample.target["size"]) == ((90, 96), (240, 320))
    drawn = transform.augment(sample, 3, size=(32, 40))
    assert tuple(drawn.image.shape[1:]) == (32, 40)
    assert drawn.target["uncropped_size"] == (48, 64)
