from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import box_iou

from nasdsl.detection.candidates import NEVER, select_candidates, suppress
from nasdsl.detection.postprocess import LevelCandidates, decode_boxes, postprocess_detections
from nasdsl.detection.pyramid import DetectionError, RawDetections


def candidates_of(boxes: object, scores: object, threshold: float = 0.05) -> LevelCandidates:
    """One image: boxes [P, 4], scores [P, classes]."""
    result = torch.tensor(scores, dtype=torch.float32)[None]
    return LevelCandidates(torch.tensor(boxes, dtype=torch.float32).reshape(1, -1, 4), result, result > threshold)


def slow_detections(
    levels: list[LevelCandidates], image: int, size: tuple[int, int], candidates: int, nms: float, most: int
) -> list[tuple[float, int, list[float]]]:
    """(score, label, box), one box at a time."""
    found = []
    for level in levels:
        of_level = []
        for location in range(level.boxes.shape[1]):
            for label in range(level.scores.shape[2]):
                if level.allowed[image, location, label]:
                    of_level.append((level.scores[image, location, label].item(), label, level.boxes[image, location].tolist()))
        found += sorted(of_level, reverse=True)[:candidates]
    kept: list[tuple[float, int, list[float]]] = []
    for score, label, (x1, y1, x2, y2) in sorted(found, reverse=True):
        box = [min(max(x1, 0), size[1]), min(max(y1, 0), size[0]), min(max(x2, 0), size[1]), min(max(y2, 0), size[0])]
        if box[2] > box[0] and box[3] > box[1] and all(label != other or iou(box, its) <= nms for _, other, its in kept):
            kept.append((score, label, box))
    return kept[:most]


def iou(a: list[float], b: list[float]) -> float:
    return box_iou(torch.tensor([a]), torch.tensor([b])).item()


def random_level(locations: int, classes: int, generator: torch.Generator) -> LevelCandidates:
    corner = torch.rand(2, locations, 2, generator=generator) * 60 - 10
    boxes = torch.cat([corner, corner + torch.rand(2, locations, 2, generator=generator) * 40], dim=2)
    scores = torch.rand(2, locations, classes, generator=generator)
    return LevelCandidates(boxes, scores, torch.rand(2, locations, classes, generator=generator) > 0.3)


def of_whole_batch(
    levels: list[LevelCandidates], sizes: list[tuple[int, int]], candidates: int, nms: float, most: int
) -> list[RawDetections]:
    """What is computed on a GPU."""
    return suppress(select_candidates(levels, torch.tensor(sizes), candidates), nms, most)


@pytest.mark.parametrize("postprocess", [postprocess_detections, of_whole_batch])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), candidates=st.integers(1, 12), nms=st.sampled_from([0.1, 0.5]), most=st.integers(1, 15))
def test_against_loops(postprocess, seed, candidates, nms, most):
    generator = torch.Generator().manual_seed(seed)
    levels = [random_level(locations, 3, generator) for locations in (9, 4, 1)]
    sizes = [(30, 50), (48, 33)]
    result = postprocess(levels, sizes, candidates, nms, most)
    for image, size in enumerate(sizes):
        slow = slow_detections(levels, image, size, candidates, nms, most)
        assert result[image]["scores"].tolist() == [score for score, _, _ in slow]
        assert result[image]["labels"].tolist() == [label for _, label, _ in slow]
        assert torch.equal(result[image]["boxes"], torch.tensor([box for _, _, box in slow]).reshape(-1, 4))


def found(levels: list[LevelCandidates], size: tuple[int, int] = (100, 100), nms: float = 0.6) -> dict[str, Tensor]:
    return postprocess_detections(levels, [size], 1000, nms, 100)[0]


def test_suppression_is_class_wise():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 5]]
    result = found([candidates_of(boxes, [[0.9, 0.1], [0.8, 0.6], [0.7, 0]])])
    assert result["scores"].tolist() == pytest.approx([0.9, 0.7, 0.6])
    assert result["labels"].tolist() == [0, 0, 1]


def test_an_iou_equal_to_the_threshold_is_kept():
    result = found([candidates_of([[0, 0, 10, 10], [0, 0, 10, 5]], [[0.9], [0.8]])], nms=0.5)
    assert len(result["boxes"]) == 2


def test_boxes_are_clipped_before_suppression():
    """Different boxes of one class that are equal inside the image."""
    result = found([candidates_of([[0, 0, 50, 10], [0, 0, 100, 10]], [[0.9], [0.8]])], size=(20, 40))
    assert result["boxes"].tolist() == [[0, 0, 40, 10]]


def test_empty_and_nan_boxes_are_dropped():
    nan, inf = float("nan"), float("inf")
    boxes = [[50, 5, 60, 10], [nan, 0, 10, 10], [-inf, -inf, inf, inf], [10, 10, 10, 20], [20, 10, 15, 20], [1, 2, 3, 4]]
    result = found([candidates_of(boxes, [[0.9], [0.9], [0.8], [0.9], [0.9], [0.7]])], size=(40, 50))
    assert result["boxes"].tolist() == [[0, 0, 50, 40], [1, 2, 3, 4]]
    result = found(
        [LevelCandidates(torch.ones(1, 1, 4).cumsum(2), torch.full((1, 1, 1), nan), torch.ones(1, 1, 1, dtype=torch.bool))]
    )
    assert len(result["boxes"]) == 0


def test_limits_of_candidates_and_detections():
    levels = [candidates_of([[i * 5, 0, i * 5 + 4, 4] for i in range(4)], [[0.9 - i / 10] for i in range(4)]) for _ in range(2)]
    result = postprocess_detections(levels, [(100, 100)], 2, 1.0, 3)[0]
    assert result["scores"].tolist() == pytest.approx([0.9, 0.9, 0.8])


def test_nothing_above_the_threshold():
    result = found([candidates_of([[0, 0, 5, 5]], [[0.01]])])
    assert {key: list(x.shape) for key, x in result.items()} == {"boxes": [0, 4], "labels": [0], "scores": [0]}


def test_one_size_for_each_image():
    with pytest.raises(DetectionError, match="2 image sizes for predictions of 1 images"):
        postprocess_detections([candidates_of([[0, 0, 5, 5]], [[0.5]])], [(8, 8), (8, 8)], 1, 0.5, 1)


def test_decode_boxes():
    locations = torch.tensor([[4.0, 12.0], [20.0, 12.0]])
    sides = torch.tensor([[[1.0, 2, 3, 4], [5, 6, 7, 8]]])
    assert decode_boxes(locations, sides).tolist() == [[[3, 10, 7, 16], [15, 6, 27, 20]]]


def test_candidates_that_are_none_are_last():
    boxes = [[0, 0, 5, 5], [20, 20, 30, 30], [float("nan"), 0, 5, 5], [1, 1, 6, 6], [4, 4, 2, 6]]
    scores = [[0.5], [0.9], [0.9], [float("nan")], [0.8]]
    level = candidates_of(boxes, scores)
    level = level._replace(allowed=torch.ones_like(level.allowed))
    selected = select_candidates([level], torch.tensor([[10, 10]]), 8)
    assert selected.scores.tolist() == [[0.5, *[NEVER] * 7]]
    assert [one["scores"].tolist() for one in suppress(selected, 0.5, 100)] == [[0.5]]
