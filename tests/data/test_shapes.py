"""The synthetic data set: reproducible, with exact boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nasdsl.data import DataError, open_dataset, shapes
from nasdsl.data.shapes import CLASSES, HEIGHT, WIDTH, make_scene, paint


def _painted(shapes: list, seed: int = 0) -> torch.Tensor:
    return paint(shapes, np.random.default_rng(seed)).to(torch.int)


def test_sizes_and_classes() -> None:
    train, val = open_dataset("shapes", "train"), open_dataset("shapes", "val")
    assert (len(train), len(val), len(open_dataset("shapes:7", "val"))) == (400, 100, 7)
    image, target = train[3]
    assert (image.dtype, tuple(image.shape), target["size"]) == (torch.uint8, (3, 240, 320), (240, 320))
    assert train.classes == CLASSES
    truth = train.ground_truth()
    shares = [sum(entry["category_id"] == number for entry in truth["annotations"]) for number in train.category_ids]
    assert min(shares) > 0.15 * sum(shares)
    boxes = torch.cat([open_dataset("shapes:60", "val").read(i).target["boxes"] for i in range(10)])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2] <= WIDTH).all()
    assert (boxes[:, 3] <= HEIGHT).all()


def test_images_depend_on_split_index_and_seed_alone() -> None:
    long, short = open_dataset("shapes:30", "train"), open_dataset("shapes:5", "train")
    torch.rand(5)
    assert torch.equal(long[4].image, short[4].image)
    assert long[4].target["boxes"].tolist() == short[4].target["boxes"].tolist()
    assert long.ground_truth()["images"][:5] == [{**entry, "file_name": ""} for entry in short.ground_truth()["images"]]
    for other in (open_dataset("shapes:5", "val"), open_dataset("shapes:5", "train", seed=1)):
        assert not torch.equal(other[4].image, short[4].image)
        assert other[4].target["boxes"].tolist() != short[4].target["boxes"].tolist()


def test_scenes_are_the_same_in_later_versions() -> None:
    """Benchmarks on `shapes` must stay comparable: pixels may differ in rounding, boxes may not."""
    (shape,) = make_scene("train", 9)[:1]
    assert (CLASSES[shape.label], len(make_scene("train", 9))) == ("ring", 1)
    assert shape.box() == pytest.approx((165.6053, 108.9342, 248.0579, 191.3867), abs=1e-3)


@pytest.mark.parametrize("index", range(6))
def test_boxes_fit_the_painted_shapes(index: int) -> None:
    for shape in make_scene("val", index):
        difference = (_painted([shape]) - _painted([])).abs().amax(dim=0)
        rows, columns = (torch.nonzero((difference > 40).any(dim=side)).flatten() for side in (1, 0))
        x1, y1, x2, y2 = shape.box()
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        # A corner fades out over two pixels, and the shadow may show where a corner is pale.
        assert [int(value) for value in found] == pytest.approx([x1, y1, x2, y2], abs=3.5)


def test_shapes_hardly_overlap() -> None:
    for index in range(100):
        boxes = torch.tensor([shape.box() for shape in make_scene("train", index)])
        low = torch.maximum(boxes[:, None, :2], boxes[None, :, :2])
        high = torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
        common = (high - low).clamp(min=0).prod(dim=2).fill_diagonal_(0)
        area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        assert (common <= 0.12 * torch.minimum(area[:, None], area[None, :]) + 1e-3).all()
        assert 1 <= len(boxes) <= 5
        assert (boxes[:, 2:] - boxes[:, :2]).amax() <= 120.001


def test_a_picture_has_no_more_shapes_than_it_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_MAX_SHAPES", 40)
    assert [len(make_scene("train", index)) for index in (2, 4)] == [12, 23]  # of 12, and of 38


@pytest.mark.parametrize("spec", ["shapes:0", "shapes:-3", "shapes:many", "shapes:1e3", "shapes:²"])
def test_invalid_counts(spec: str) -> None:
    with pytest.raises(DataError, match="expected a number of images"):
        open_dataset(spec, "train")


def test_other_errors() -> None:
    with pytest.raises(DataError, match="no split 'tset'; there are: train, val, test"):
        open_dataset("shapes", "tset")
    with pytest.raises(DataError, match="shapes: there is no class 'cat'; expected classes among: circle"):
        open_dataset("shapes", "val", classes=["cat"])
    with pytest.raises(DataError, match="has no option 'colour'; there are: seed, on_error, classes"):
        open_dataset("shapes", "val", colour="red")
