"""Distributions of sides, quality focal loss, and the losses of GFL and task-aligned assignment, against loops and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from slow_targets import SHAPES, iou, locations, random_boxes, slow_alignment, slow_atss
from small_detectors import small_detector
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from nasdsl.backends.module import Prediction
from nasdsl.detection.distributions import distribution_focal_loss, expected_distances, quality_focal_loss
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.gfl import Gfl
from nasdsl.detection.pyramid import DetectionError, shapes_of
from nasdsl.detection.tal import Tal

BINS = 4
CLASSES = 3


def random_predictions(seed: int, bins: int = BINS, images: int = 2) -> dict[str, Prediction]:
    generator = torch.Generator().manual_seed(seed)
    return {
        level: Prediction(
            torch.randn(images, CLASSES, *shape, generator=generator).requires_grad_(),
            torch.randn(images, 4 * (bins + 1), *shape, generator=generator).requires_grad_(),
            None,
        )
        for level, shape in SHAPES.items()
    }


def random_targets(seed: int) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [{"boxes": random_boxes(count, generator), "labels": torch.arange(count) % CLASSES} for count in (3, 1)]


class Flat:
    """Predictions of one image as lists: scores, distributions and boxes of each location."""

    def __init__(self, predictions: dict[str, Prediction], image: int, bins: int = BINS) -> None:
        self.logits: list[list[float]] = []
        self.distributions: list[list[list[float]]] = []
        self.boxes: list[list[float]] = []
        self.strides: list[int] = []
        for level, prediction in predictions.items():
            stride = 2 ** int(level[1:])
            height, width = SHAPES[level]
            for row in range(height):
                for column in range(width):
                    self.logits.append(prediction.cls_logits[image, :, row, column].tolist())
                    values = prediction.bbox_reg[image, :, row, column].tolist()
                    sides = [values[side * (bins + 1) : (side + 1) * (bins + 1)] for side in range(4)]
                    soft = [[math.exp(v) / sum(map(math.exp, side)) for v in side] for side in sides]
                    left, top, right, bottom = (sum(k * p for k, p in enumerate(side)) * stride for side in soft)
                    x, y = column * stride + stride // 2, row * stride + stride // 2
                    self.distributions.append(soft)
                    self.boxes.append([x - left, y - top, x + right, y + bottom])
                    self.strides.append(stride)
        self.scores = [[1 / (1 + math.exp(-v)) for v in each] for each in self.logits]


def slow_quality(score: float, quality: float) -> float:
    """Equation 5 of arXiv:2006.04388."""
    return -(abs(quality - score) ** 2) * ((1 - quality) * math.log(1 - score) + quality * math.log(score))


def slow_distribution(soft: list[list[float]], distances: list[float]) -> float:
    """Equation 6 of arXiv:2006.04388, mean of the sides."""
    total = 0.0
    for side, distance in zip(soft, distances, strict=True):
        y = min(max(distance, 0.0), len(side) - 1)
        i = min(int(y), len(side) - 2)
        total -= (i + 1 - y) * math.log(side[i]) + (y - i) * math.log(side[i + 1])
    return total / 4


def slow_giou(a: list[float], b: list[float]) -> float:
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    overlap = iou(a, b)
    union = sum(areas) / (1 + overlap)  # areas - intersection, and intersection = overlap * union
    return 1 - overlap + (hull - union) / hull


def distances_in_strides(at: int, box: list[float], stride: int) -> list[float]:
    _, x, y = locations()[at]
    return [(x - box[0]) / stride, (y - box[1]) / stride, (box[2] - x) / stride, (box[3] - y) / stride]


@pytest.mark.parametrize("seed", range(2))
def test_losses_of_gfl(seed: int) -> None:
    predictions, truth = random_predictions(seed), random_targets(seed)
    method = Gfl(bins=BINS)
    losses = method.losses(predictions, method.targets(SHAPES, (64, 80), truth))
    classification = boxes = distribution = weight_sum = 0.0
    positives = 0
    for image, target in enumerate(truth):
        flat, given = Flat(predictions, image), target["boxes"].tolist()
        for at, number in enumerate(slow_atss(given)):
            quality = [0.0] * CLASSES
            if number >= 0:
                positives += 1
                label = int(target["labels"][number])
                quality[label] = iou(flat.boxes[at], given[number])
                weight = max(flat.scores[at])
                weight_sum += weight
                boxes += weight * slow_giou(flat.boxes[at], given[number])
                steps = distances_in_strides(at, given[number], flat.strides[at])
                distribution += weight * slow_distribution(flat.distributions[at], steps)
            classification += sum(slow_quality(s, q) for s, q in zip(flat.scores[at], quality, strict=True))
    assert positives > 3
    assert losses["classification"].item() == pytest.approx(classification / positives, rel=1e-4)
    assert losses["bbox_regression"].item() == pytest.approx(2 * boxes / weight_sum, rel=1e-4)
    assert losses["distribution"].item() == pytest.approx(0.25 * distribution / weight_sum, rel=1e-4)


@pytest.mark.parametrize("seed", range(2))
def test_losses_of_task_aligned_assignment(seed: int) -> None:
    predictions, truth = random_predictions(seed), random_targets(seed)
    method = Tal(bins=BINS)
    losses = method.losses(predictions, method.targets(SHAPES, (64, 80), truth))
    classification = boxes = distribution = total = 0.0
    for image, target in enumerate(truth):
        flat, given = Flat(predictions, image), target["boxes"].tolist()
        labels = target["labels"].tolist()
        owner, aligned = slow_alignment(flat.scores, flat.boxes, given, labels, method)
        for at, number in enumerate(owner):
            quality = [0.0] * CLASSES
            if number >= 0:
                quality[labels[number]] = aligned[at]
                total += aligned[at]
                boxes += aligned[at] * slow_giou(flat.boxes[at], given[number])
                steps = distances_in_strides(at, given[number], flat.strides[at])
                distribution += aligned[at] * slow_distribution(flat.distributions[at], steps)
            classification += sum(slow_quality(s, q) for s, q in zip(flat.scores[at], quality, strict=True))
    count = max(total, 1.0)
    assert total > 0.5
    assert losses["classification"].item() == pytest.approx(classification / count, rel=1e-3)
    assert losses["bbox_regression"].item() == pytest.approx(2 * boxes / count, rel=1e-3)
    assert losses["distribution"].item() == pytest.approx(0.25 * distribution / count, rel=1e-3)


def test_the_loss_of_a_batch_without_boxes_is_a_sum_over_locations() -> None:
    predictions = random_predictions(0, images=1)
    for method in (Gfl(bins=BINS), Tal(bins=BINS), Tal(bins=BINS).at(0.0)):
        truth = [{"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}]
        losses = method.losses(predictions, method.targets(SHAPES, (64, 80), truth))
        expected = sum(slow_quality(score, 0.0) for scores in Flat(predictions, 0).scores for score in scores)
        assert losses["classification"].item() == pytest.approx(expected, rel=1e-4)
        assert losses["bbox_regression"].item() == losses["distribution"].item() == 0


@pytest.mark.parametrize("progress", [0.0, 1.0])
@pytest.mark.parametrize("kind", [Gfl, Tal])
def test_losses_are_in_proportion_to_their_weights(kind: type[Gfl] | type[Tal], progress: float) -> None:
    predictions, truth = random_predictions(3), random_targets(3)

    def losses(**weights: float) -> dict[str, Tensor]:
        method = kind(bins=BINS, **weights).at(progress)
        return method.losses(predictions, method.targets(SHAPES, (64, 80), truth))

    once = losses(box_weight=2.0, distribution_weight=0.25)
    changed = losses(box_weight=6.0, distribution_weight=1.25)
    for name, factor in (("classification", 1), ("bbox_regression", 3), ("distribution", 5)):
        assert changed[name].item() == pytest.approx(factor * once[name].item(), rel=1e-5)
        assert once[name].item() > 0


@pytest.mark.parametrize("method", [Gfl(bins=BINS), Tal(bins=BINS)])
def test_gradients_without_boxes_are_finite(method: Gfl | Tal) -> None:
    predictions = random_predictions(0, images=1)
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = method.losses(predictions, method.targets(SHAPES, (64, 80), [nothing]))
    assert losses["bbox_regression"].item() == losses["distribution"].item() == 0
    torch.stack(list(losses.values())).sum().backward()
    for prediction in predictions.values():
        assert prediction.cls_logits.grad is not None
        assert prediction.bbox_reg.grad is not None
        assert prediction.cls_logits.grad.isfinite().all()
        assert (prediction.bbox_reg.grad == 0).all()


def test_distances_by_hand() -> None:
    """All weight on one bin gives its distance; equal weights give the middle."""
    logits = torch.full((1, 4, 5), -100.0)
    for side, bin in enumerate((0, 1, 2, 4)):
        logits[0, side, bin] = 100.0
    assert expected_distances(logits.flatten(1)).tolist() == [[0, 1, 2, 4]]
    assert expected_distances(torch.zeros(1, 20)).tolist() == [[2.0] * 4]


def test_distribution_loss_by_hand() -> None:
    """A distance of 1.25 wants 3/4 of bin 1 and 1/4 of bin 2; one beyond the last bin wants the last."""
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().repeat(1, 4)
    loss = distribution_focal_loss(probabilities, torch.tensor([[1.25, 0.0, 3.0, 9.0]]))
    sides = [-0.75 * math.log(0.2) - 0.25 * math.log(0.3), -math.log(0.1), -math.log(0.4), -math.log(0.4)]
    assert loss.item() == pytest.approx(sum(sides) / 4, rel=1e-5)


def test_quality_focal_loss_by_hand() -> None:
    logits, quality = torch.tensor([0.3, -2.0, 1.5]), torch.tensor([0.0, 1.0, 0.6])
    found = quality_focal_loss(logits, quality, 2.0)
    expected = [slow_quality(1 / (1 + math.exp(-x)), q) for x, q in zip(logits.tolist(), quality.tolist(), strict=True)]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    # With qualities of 0 and 1 it is the focal loss with gamma 2, without alpha.
    hard = torch.tensor([0.0, 1.0, 1.0])
    assert torch.allclose(quality_focal_loss(logits, hard, 2.0), sigmoid_focal_loss(logits, hard, alpha=-1, gamma=2))


def test_the_slow_giou_is_torchvisions() -> None:
    a, b = random_boxes(2, torch.Generator().manual_seed(3)).tolist()
    assert slow_giou(a, b) == pytest.approx(generalized_box_iou_loss(torch.tensor([a]), torch.tensor([b])).item(), rel=1e-4)


def test_detections_are_the_expected_boxes() -> None:
    predictions = random_predictions(5, images=1)
    flat = Flat(predictions, 0)
    candidates = Gfl(bins=BINS).level_candidates(predictions)
    boxes = torch.cat([level.boxes[0] for level in candidates])
    assert torch.allclose(boxes, torch.tensor(flat.boxes), atol=1e-3)
    scores = torch.cat([level.scores[0] for level in candidates])
    assert torch.allclose(scores, torch.tensor(flat.scores), atol=1e-5)


def test_predictions_of_another_kind_are_refused() -> None:
    predictions = random_predictions(0, bins=8, images=1)
    for method in (Gfl(bins=4), Tal(bins=4)):
        with pytest.raises(DetectionError, match="36 values for a box; expected 20"):
            method.level_candidates(predictions)
    with pytest.raises(DetectionError, match="no centerness"):
        Fcos().level_candidates(predictions)
    with_centerness = {k: p._replace(centerness=p.cls_logits[:, :1]) for k, p in predictions.items()}
    with pytest.raises(DetectionError, match="has_centerness is False"):
        Fcos(has_centerness=False).level_candidates(with_centerness)
    with pytest.raises(DetectionError, match=r" 36 values for a box and centerness; expected 36 without centerness, of "):
        Gfl(bins=8).level_candidates(with_centerness)


def test_fcos_without_centerness_ranks_by_the_class_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    maps = {
        level: Prediction(torch.randn(1, 3, *shape, generator=generator), torch.rand(1, 4, *shape, generator=generator), None)
        for level, shape in SHAPES.items()
    }
    method = Fcos(has_centerness=False)
    losses = method.losses(maps, method.targets(SHAPES, (64, 80), random_targets(0)[:1]))
    assert set(losses) == {"classification", "bbox_regression"}
    for level, candidates in zip(maps.values(), method.level_candidates(maps), strict=True):
        assert torch.allclose(candidates.scores[0].T.reshape(3, *level.cls_logits.shape[2:]), level.cls_logits[0].sigmoid())


def test_at_first_tal_has_the_losses_of_gfl_at_the_locations_of_atss() -> None:
    predictions, truth = random_predictions(3), random_targets(3)
    method, gfl = Tal(bins=BINS, warmup=0.25), Gfl(bins=BINS)
    targets = method.targets(SHAPES, (64, 80), truth)
    expected = gfl.losses(predictions, gfl.targets(SHAPES, (64, 80), truth))
    own = method.losses(predictions, targets)
    assert all(abs(own[name] - expected[name]) > 1e-5 for name in own)
    for progress in (0.0, 0.2499):
        assert method.at(progress).losses(predictions, targets) == expected
    for progress in (0.25, 1.0):
        assert method.at(progress).losses(predictions, targets) == own
    assert Tal(bins=BINS, warmup=0).at(0.0).losses(predictions, targets) == own
    with pytest.raises(DetectionError, match="the targets are for 1 images, the predictions for 2"):
        method.at(0.0).losses(predictions, targets.select([0]))


def test_the_warmup_is_a_share() -> None:
    with pytest.raises(DetectionError, match=r"warmup is 1.5; expected a share of the training, 0 to 1"):
        Tal(warmup=1.5)


def test_a_detector_is_trained_by_the_share_of_the_training() -> None:
    made = small_detector("tal(bins=4)").train()
    images = torch.rand(2, 3, 64, 80, generator=torch.Generator().manual_seed(0))
    truth = random_targets(3)
    inputs = made.prepare(images, truth)
    predictions = made.decoder(made.backbone(inputs.images))
    for progress in (0.0, 1.0):
        method = made.method.at(progress)
        expected = method.losses(predictions, method.targets(shapes_of(predictions), (64, 64), truth))
        assert made(images, truth, progress=progress) == expected
    assert made(images, truth) == expected
    assert made(images, truth, progress=0.0) != expected
