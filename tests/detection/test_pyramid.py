from __future__ import annotations

import pytest
import torch
from pyramids import as_maps, shapes_for
from torchvision import tv_tensors

from nasdsl.detection.pyramid import (
    DetectionError,
    annotated,
    boxes_and_labels,
    flatten_level,
    flatten_levels,
    level_locations,
    one_hot,
    stride_of,
    strides_of,
)


def test_strides_follow_from_names():
    assert [stride_of(f"p{k}") for k in range(1, 8)] == [2, 4, 8, 16, 32, 64, 128]
    assert strides_of(("p2", "p4")) == (4, 16)


@pytest.mark.parametrize("name", ["c3", "p", "P3", "p3x", ""])
def test_other_names_are_refused(name):
    with pytest.raises(DetectionError, match="expected p and a number"):
        stride_of(name)


@pytest.mark.parametrize("names", [(), ("p4", "p3"), ("p3", "p3")])
def test_levels_come_finest_first(names):
    with pytest.raises(DetectionError, match="finest first"):
        strides_of(names)


@pytest.mark.parametrize(("shape", "stride"), [((3, 5), 8), ((1, 1), 128), ((2, 1), 16), ((1, 4), 1), ((4, 2), 2)])
def test_locations_against_loops(shape, stride):
    slow = [(stride * x + stride // 2, stride * y + stride // 2) for y in range(shape[0]) for x in range(shape[1])]
    assert level_locations(shape, stride).tolist() == [list(map(float, location)) for location in slow]


def test_flattening_keeps_the_order_of_locations_and_anchors():
    n, anchors, channels, height, width = 2, 3, 4, 5, 6
    maps = torch.randn(n, anchors * channels, height, width)
    flat = flatten_level(maps, channels)
    assert flat.shape == (n, height * width * anchors, channels)
    for y, x, a in [(0, 0, 0), (0, 1, 0), (1, 0, 2), (4, 5, 1)]:
        location = (y * width + x) * anchors + a
        assert torch.equal(flat[:, location], maps[:, a * channels : (a + 1) * channels, y, x])


def test_flattened_levels_are_concatenated_in_float32():
    shapes = shapes_for((40, 56))
    maps = [torch.randn(2, 3, *shape) for shape in shapes.values()]
    for kind, expected in [(torch.float16, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)]:
        flat = flatten_levels([x.to(kind).to(memory_format=torch.channels_last) for x in maps], 3)
        assert flat.dtype == expected
        for back, given in zip(as_maps(flat, shapes), maps, strict=True):
            assert torch.equal(back.to(kind), given.to(kind))


def test_targets_are_converted_to_plain_tensors():
    for empty in ([], torch.zeros(0), torch.zeros(0, 4)):
        boxes, labels = boxes_and_labels({"boxes": empty, "labels": []}, 0)
        assert (boxes.shape, labels.shape, boxes.dtype, labels.dtype) == ((0, 4), (0,), torch.float32, torch.int64)
    wrapped = tv_tensors.BoundingBoxes([[1, 2, 3, 4]], format="XYXY", canvas_size=(8, 8))
    boxes, _ = boxes_and_labels({"boxes": wrapped, "labels": torch.tensor([1], dtype=torch.int32)}, 0)
    assert type(boxes) is torch.Tensor
    assert boxes.dtype == torch.float32


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"boxes": torch.zeros(1, 4)}, "image 7 has the keys boxes; expected boxes, labels"),
        ({"boxes": torch.zeros(2, 4), "labels": torch.zeros(1)}, r"boxes of shape \[2, 4\] and labels of shape \[1\]"),
        ({"boxes": torch.zeros(2, 5), "labels": torch.zeros(2)}, r"boxes of shape \[2, 5\]"),
        ({"boxes": torch.zeros(1, 4), "labels": torch.tensor([-1])}, "label -1; expected 0 to classes - 1"),
    ],
)
def test_malformed_targets_are_named(found, message):
    with pytest.raises(DetectionError, match=message):
        boxes_and_labels(found, 7)


def test_a_malformed_target_is_named_by_its_place_in_the_batch():
    right = {"boxes": torch.zeros(1, 4), "labels": torch.zeros(1)}
    with pytest.raises(DetectionError, match="the target of image 2 has the keys none"):
        annotated([right, right, {}])


def test_one_hot():
    labels = torch.tensor([[0, -1, 2], [-2, 1, -1]])
    result = one_hot(labels, torch.randn(2, 3, 3))
    assert result.tolist() == [[[1, 0, 0], [0, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0], [0, 0, 0]]]
    assert one_hot(labels[:0], torch.randn(0, 3, 2)).shape == (0, 3, 2)
    with pytest.raises(DetectionError, match="label 2, but the decoder has 2 classes"):
        one_hot(labels, torch.randn(2, 3, 2))
    with pytest.raises(DetectionError, match="2 images of 3 locations, the predictions for 2 of 4"):
        one_hot(labels, torch.randn(2, 4, 3))
