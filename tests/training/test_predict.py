"""Inference over a data set: results and metrics."""

from __future__ import annotations

import copy

import pytest
import torch
from small_training import VAL, small

from nasdsl.data import Dataset, Sample, Transform, UnreadableImage
from nasdsl.training import TrainingError, compute_metrics, predict


def test_boxes_are_in_pixels_of_the_stored_pictures() -> None:
    """The small detector detects one box of label 2, the whole picture."""
    assert VAL.sizes()[0] == (240, 320)
    for transform in (None, Transform(60, 70), Transform(size=(48, 31))):
        found = predict(small(), VAL, batch_size=3, transform=transform, size_divisible=32)
        assert [r["image_id"] for r in found.results] == [VAL.image_id(i) for i in range(len(VAL))]
        for result in found.results:
            assert result["bbox"] == pytest.approx([0, 0, 320, 240])
            assert (result["category_id"], result["score"]) == (VAL.category_ids[2], 0.5)
        assert found.skipped == []


def test_the_detector_is_left_in_evaluation_mode_with_its_weights() -> None:
    detector = small().train()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    predict(detector, VAL)
    assert not detector.training
    assert all(torch.equal(before[name], value) for name, value in detector.state_dict().items())


def test_metrics_of_perfect_results() -> None:
    truth = VAL.ground_truth()
    keys = ("image_id", "category_id", "bbox")
    results = [{**{k: a[k] for k in keys}, "score": 1.0} for a in truth["annotations"]]
    found = predict(small(), VAL)._replace(results=results)
    assert compute_metrics(found, VAL, ("coco",)).coco.ap == pytest.approx(1)  # type: ignore[union-attr]


def test_an_unreadable_picture_is_recorded_and_its_boxes_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    read = type(VAL).__getitem__

    def one_is_broken(self: Dataset, index: int) -> Sample:
        if index == 1:
            raise UnreadableImage("1.png", "it is truncated")
        return read(self, index)

    monkeypatch.setattr(type(VAL), "__getitem__", one_is_broken)
    found = predict(small(), VAL)
    assert [skip.image_id for skip in found.skipped] == [VAL.image_id(1)]
    assert VAL.image_id(1) not in {r["image_id"] for r in found.results}
    assert compute_metrics(found, VAL).images == len(VAL) - 1


def test_other_classes_are_refused() -> None:
    """Also those in another order: with ids alone, a detector of cats and dogs would be measured on dogs and cats."""
    detector = small()
    detector.classes = VAL.classes[::-1]
    with pytest.raises(TrainingError, match=r"5 classes: ring, .*; shapes.* has 5: circle, "):
        predict(detector, VAL)


def test_results_have_the_ids_of_the_data() -> None:
    detector = small()
    expected = [result["category_id"] + 6 for result in predict(detector, VAL).results]
    data = copy.copy(VAL)
    data.category_ids = (7, 8, 9, 10, 11)
    found = predict(detector, data).results
    assert [result["category_id"] for result in found] == expected != []
