"""ATSS and task-aligned assignment against slow versions with loops, and their decoding against plain arithmetic."""

from __future__ import annotations

import pytest
import torch
from slow_targets import SHAPES, locations, random_boxes, slow_alignment, slow_atss

from nasdsl.backends.module import Prediction
from nasdsl.detection.atss import Atss
from nasdsl.detection.pyramid import DetectionError
from nasdsl.detection.tal import Tal


@pytest.mark.parametrize("seed", range(5))
def test_atss_targets_are_those_of_the_algorithm(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(1 + seed % 5, generator, largest=40.0 if seed % 2 else 110.0)
    labels = torch.arange(len(boxes)) % 3
    targets = Atss().targets(SHAPES, (64, 80), [{"boxes": boxes, "labels": labels}])
    owner = slow_atss(boxes.tolist())
    assert targets.labels[0].tolist() == [int(labels[n]) if n >= 0 else -1 for n in owner]
    for at, (number, (_, x, y)) in enumerate(zip(owner, locations(), strict=True)):
        if number >= 0:
            x1, y1, x2, y2 = boxes[number].tolist()
            assert targets.distances[0, at].tolist() == pytest.approx([x - x1, y - y1, x2 - x, y2 - y], abs=1e-4)


@pytest.mark.parametrize("side", range(4))
def test_a_location_on_a_side_of_a_box_is_not_inside(side: int) -> None:
    """Of a box around p4's locations 8 and 24 on both axes, first without and then with those of one side on it."""
    box = torch.tensor([[-2.0, -2, 34, 34]])
    on_side = box.clone()
    on_side[0, side] = 8 if side < 2 else 24
    for boxes, left in ((box, {8, 24}), (on_side, {24} if side < 2 else {8})):
        targets = Atss(top=4).targets({"p4": (2, 2)}, (32, 32), [{"boxes": boxes, "labels": torch.tensor([0])}])
        inside = {(8, 24)[at % 2 if side % 2 == 0 else at // 2] for at in (targets.labels[0] >= 0).nonzero().flatten().tolist()}
        assert inside <= left


def test_atss_assigns_by_hand() -> None:
    """A box as large as an anchor of p4 (128 pixels) around one of its locations: that location, and none of other levels."""
    target = {"boxes": torch.tensor([[-40.0, -40, 88, 88]]), "labels": torch.tensor([2])}
    targets = Atss(top=1).targets(SHAPES, (64, 80), [target])
    positive = (targets.labels[0] >= 0).nonzero().flatten().tolist()
    assert [locations()[at] for at in positive] == [("p4", 24, 24)]
    assert targets.distances[0, positive[0]].tolist() == [64.0, 64, 64, 64]
    assert targets.centerness[0, positive[0]] == 1


def test_images_without_boxes_are_background() -> None:
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    targets = Atss().targets(
        SHAPES, (64, 80), [nothing, {"boxes": torch.tensor([[10.0, 10, 40, 40]]), "labels": torch.tensor([0])}]
    )
    assert (targets.labels[0] == -1).all()
    assert (targets.labels[1] == 0).any()


def test_a_map_of_one_location() -> None:
    """The standard deviation of a single IoU is none, and the location is assigned."""
    targets = Atss().targets(
        {"p5": (1, 1)}, (32, 32), [{"boxes": torch.tensor([[2.0, 2, 30, 30]]), "labels": torch.tensor([1])}]
    )
    assert targets.labels.tolist() == [[1]]


@pytest.mark.parametrize("seed", range(5))
def test_task_aligned_assignment_is_that_of_the_paper(seed: int) -> None:
    generator = torch.Generator().manual_seed(100 + seed)
    grid = locations()
    truth = random_boxes(1 + seed % 5, generator)
    labels = torch.arange(len(truth)) % 3
    scores = torch.rand(len(grid), 3, generator=generator)
    place = torch.tensor([[x, y] for _, x, y in grid])
    reach = 2 + torch.rand(len(grid), 4, generator=generator) * 25
    boxes = torch.cat([place - reach[:, :2], place + reach[:, 2:]], dim=1)
    tal = Tal(top=4 if seed % 2 else 13)
    found = tal.assign(scores, boxes, place, truth, labels)
    owner, quality = slow_alignment(scores.tolist(), boxes.tolist(), truth.tolist(), labels.tolist(), tal)
    assert found.box.tolist() == owner
    assert found.quality.tolist() == pytest.approx(quality, rel=1e-3, abs=1e-6)


def test_padded_boxes_of_task_aligned_assignment() -> None:
    box = {"boxes": torch.tensor([[10.0, 10, 40, 40]]), "labels": torch.tensor([2])}
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    targets = Tal().targets(SHAPES, (64, 80), [nothing, box])
    assert targets.labels.tolist() == [[-1], [2]]
    assert targets.boxes[1].tolist() == [[10, 10, 40, 40]]
    assert targets.select([1]).labels.tolist() == [[2]]


@pytest.mark.parametrize("method", [Atss(), Tal()])
def test_the_order_of_boxes_does_not_matter(method: Atss | Tal) -> None:
    generator = torch.Generator().manual_seed(7)
    boxes, labels = random_boxes(4, generator), torch.tensor([0, 1, 2, 1])
    predictions = {
        level: Prediction(
            torch.randn(1, 3, *shape, generator=generator),
            (torch.randn(1, 68, *shape, generator=generator) if isinstance(method, Tal)
             else torch.rand(1, 4, *shape, generator=generator) * 30),
            None if isinstance(method, Tal) else torch.randn(1, 1, *shape, generator=generator),
        )
        for level, shape in SHAPES.items()
    }  # fmt: skip
    losses = [
        method.losses(predictions, method.targets(SHAPES, (64, 80), [{"boxes": boxes[order], "labels": labels[order]}]))
        for order in (torch.arange(4), torch.tensor([2, 0, 3, 1]))
    ]
    for name, loss in losses[0].items():
        assert loss.item() == pytest.approx(losses[1][name].item(), rel=1e-5)


def test_targets_of_another_batch_or_other_classes_are_refused() -> None:
    predictions = {
        level: Prediction(torch.zeros(1, 3, *shape), torch.zeros(1, 68, *shape), None) for level, shape in SHAPES.items()
    }
    box = {"boxes": torch.tensor([[10.0, 10, 40, 40]]), "labels": torch.tensor([3])}
    with pytest.raises(
        DetectionError, match=r"the label 3, but the decoder has 3 classes; expected labels 0 to 2 \(there is no"
    ):
        Tal().losses(predictions, Tal().targets(SHAPES, (64, 80), [box]))
    with pytest.raises(DetectionError, match="the targets are for 2 images, the predictions for 1"):
        Tal().losses(predictions, Tal().targets(SHAPES, (64, 80), [box, box]))


def test_wrong_options() -> None:
    for wrong in (lambda: Atss(top=0), lambda: Tal(top=0), lambda: Tal(bins=0), lambda: Atss(box_loss="l1")):  # type: ignore[arg-type]
        with pytest.raises(DetectionError):
            wrong()
