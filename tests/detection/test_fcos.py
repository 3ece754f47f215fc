from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest
import torch
import torch.distributed
from hypothesis import given, settings
from hypothesis import strategies as st
from pyramids import as_maps, boxes, gradients, random_predictions, random_target, shapes_for, target, torch_anchors
from torch import Tensor
from torchvision.models.detection.fcos import FCOSHead
from torchvision.ops import box_iou, generalized_box_iou_loss

from nasdsl.backends.module import Prediction
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.locations import LocationTargets
from nasdsl.detection.postprocess import decode_boxes
from nasdsl.detection.pyramid import DetectionError

CLASSES = 3
SMALL = (64, 96)
SMALL_LEVELS = ("p3", "p4", "p5")


def flat(predictions: dict[str, Prediction], field: str, channels: int) -> Tensor:
    maps = [getattr(x, field) for x in predictions.values()]
    return torch.cat([x.permute(0, 2, 3, 1).reshape(len(x), -1, channels) for x in maps], dim=1)


class TestLosses:
    def batch(self, seed: int = 0, counts: tuple[int, ...] = (2, 0, 5)) -> tuple[dict[str, Prediction], LocationTargets, list]:
        shapes = shapes_for(SMALL)
        found = [random_target(count, SMALL, CLASSES, seed + count) for count in counts]
        return (
            random_predictions(shapes, len(counts), CLASSES, seed),
            Fcos(reference_size=None).targets(shapes, SMALL, found),
            found,
        )

    def test_by_hand(self):
        """One location, one class: the probability 0.8 of a positive, an IoU of 1/2, a centerness of 0.5 predicted as 0.5."""
        logit = torch.full((1, 1, 1, 1), math.log(4))
        sides = torch.tensor([2.0, 2, 8, 2]).reshape(1, 4, 1, 1)
        predictions = {"p3": Prediction(logit, sides, torch.zeros(1, 1, 1, 1))}
        targets = Fcos(reference_size=None).targets({"p3": (1, 1)}, (8, 8), [target([[2, 2, 12, 8]])])
        assert targets.distances.tolist() == [[[2, 2, 8, 4]]]
        near = math.sqrt(2 / 8 * 2 / 4)
        losses = Fcos().losses(predictions, targets)
        assert losses["classification"].item() == pytest.approx(0.25 * 0.2**2 * -math.log(0.8) / (1 + 1))
        assert losses["bbox_regression"].item() == pytest.approx(-math.log(40 / 60))
        assert losses["bbox_ctrness"].item() == pytest.approx(-(near * math.log(0.5) + (1 - near) * math.log(0.5)))

    @pytest.mark.parametrize("kind", ["iou", "linear_iou", "giou"])
    def test_against_torchvision(self, kind):
        """torchvision's head divides all three by the positives and does not weight boxes; otherwise they are equal."""
        predictions, targets, found = self.batch()
        anchors = torch_anchors(shapes_for(SMALL)).expand(3, -1, -1)
        strides = (anchors[..., 2] - anchors[..., 0])[..., None]
        decoded = decode_boxes((anchors[..., :2] + anchors[..., 2:]) / 2, targets.distances)
        matched = []
        for image, its in enumerate(found):
            same = (decoded[image][:, None] == its["boxes"]).all(dim=2) & (targets.labels[image] >= 0)[:, None]
            matched.append(
                torch.where(same.any(dim=1), same.float().argmax(dim=1), -1) if len(its["boxes"]) else targets.labels[image]
            )
        outputs = {
            "cls_logits": flat(predictions, "cls_logits", CLASSES),
            "bbox_regression": flat(predictions, "bbox_reg", 4) / strides,
            "bbox_ctrness": flat(predictions, "centerness", 1),
        }
        theirs = FCOSHead(32, 1, CLASSES, 1).compute_loss(found, outputs, list(anchors), matched)
        ours = Fcos(box_loss=kind).losses(predictions, targets)
        positive = targets.labels >= 0
        count = int(positive.sum())
        assert count > 5
        torch.testing.assert_close(ours["classification"], theirs["classification"] * count / (count + 3))
        torch.testing.assert_close(ours["bbox_ctrness"], theirs["bbox_ctrness"])

        predicted = decode_boxes((anchors[..., :2] + anchors[..., 2:]) / 2, flat(predictions, "bbox_reg", 4))[positive]
        iou = box_iou(predicted, decoded[positive]).diagonal()
        loss = {"iou": -iou.log(), "linear_iou": 1 - iou, "giou": generalized_box_iou_loss(predicted, decoded[positive])}[kind]
        weights = targets.centerness[positive]
        torch.testing.assert_close(ours["bbox_regression"], (loss * weights).sum() / weights.sum())

    def test_every_map_has_gradients(self):
        predictions, targets, _ = self.batch()
        sum(Fcos().losses(predictions, targets).values()).backward()
        assert all(x is not None and x.isfinite().all() for x in gradients(predictions))
        assert predictions["p3"].bbox_reg.grad.any()

    def test_no_positives(self):
        predictions, _, _ = self.batch()
        targets = Fcos().targets(shapes_for(SMALL), SMALL, [target([])] * 3)
        losses = Fcos().losses(predictions, targets)
        assert losses["classification"] > 0
        assert losses["bbox_regression"] == losses["bbox_ctrness"] == 0
        sum(losses.values()).backward()
        for prediction in predictions.values():
            assert prediction.cls_logits.grad.any()
            assert not prediction.bbox_reg.grad.any()
            assert not prediction.centerness.grad.any()

    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
    def test_half_precision_is_summed_in_float32(self, kind):
        predictions, targets, _ = self.batch()
        half = {level: Prediction(*(x.to(kind) for x in p)) for level, p in predictions.items()}
        single = {level: Prediction(*(x.float() for x in p)) for level, p in half.items()}
        for a, b in zip(Fcos().losses(half, targets).values(), Fcos().losses(single, targets).values(), strict=True):
            assert a.dtype == torch.float32
            assert torch.equal(a, b)

    def test_two_processes_have_the_gradients_of_one(self, monkeypatch):
        predictions, targets, _ = self.batch(counts=(2, 0, 5, 4))
        together = Fcos().losses(predictions, targets)
        halves = [slice(0, 2), slice(2, 4)]
        parts = [
            ({k: Prediction(*(x[half] for x in p)) for k, p in predictions.items()}, targets.select(half)) for half in halves
        ]
        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        counts: list[Tensor] = []
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: counts.append(total.clone()))
        for part in parts:
            Fcos().losses(*part)
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.copy_(counts[0] + counts[1]))
        first, second = (Fcos().losses(*part) for part in parts)
        for key, loss in together.items():
            torch.testing.assert_close((first[key] + second[key]) / 2, loss)

    def test_mismatched_predictions(self):
        predictions, targets, _ = self.batch()
        with pytest.raises(DetectionError, match="have no centerness; expected those of a decoder with 'predict fcos"):
            Fcos().losses({k: p._replace(centerness=None) for k, p in predictions.items()}, targets)
        with pytest.raises(DetectionError, match="targets must be made for the shapes of the same maps"):
            Fcos().losses({k: p for k, p in predictions.items() if k != "p7"}, targets)
        with pytest.raises(DetectionError, match="a target has the label 4, but the decoder has 3 classes"):
            Fcos().losses(predictions, targets._replace(labels=torch.where(targets.labels >= 0, 4, -1)))


class TestDetect:
    def perfect(self, found: list[dict[str, Tensor]], fcos: Fcos) -> dict[str, Prediction]:
        """Predictions equal to the targets."""
        shapes = shapes_for(SMALL)
        targets = fcos.targets(shapes, SMALL, found)
        logits = torch.full((*targets.labels.shape, CLASSES), -10.0)
        image, location = torch.nonzero(targets.labels >= 0, as_tuple=True)
        logits[image, location, targets.labels[image, location]] = 10.0
        maps = (as_maps(x, shapes) for x in (logits, targets.distances, targets.centerness.logit(1e-4)[..., None]))
        return {level: Prediction(*x) for level, *x in zip(shapes, *maps, strict=True)}

    @settings(max_examples=20, deadline=None)
    @given(st.lists(boxes(SMALL, most=3), min_size=1, max_size=2), st.sampled_from([None, 1.5]))
    def test_perfect_predictions_give_the_boxes(self, found, radius):
        """Every box that is assigned to a location is detected, and nothing else."""
        fcos = Fcos(reference_size=None, ranges=(16, 32, 64, 128), center_radius=radius)
        given_targets = [target(x.clamp(min=0).minimum(torch.tensor([96, 64, 96, 64])), torch.arange(len(x))) for x in found]
        result = fcos.targets(shapes_for(SMALL), SMALL, given_targets)
        detections = fcos.detect(self.perfect(given_targets, fcos), [SMALL] * len(found))
        for image, (its, detected) in enumerate(zip(given_targets, detections, strict=True)):
            learnt = sorted({int(label) for label in result.labels[image] if label >= 0})
            assert sorted(detected["labels"].tolist()) == learnt
            for label, box in zip(detected["labels"].tolist(), detected["boxes"], strict=True):
                assert torch.allclose(box, its["boxes"][label])

    def test_scores(self):
        """Class score times centerness; the threshold applies to the class score."""
        logits = torch.tensor([[0.04, 0.9], [0.06, 0.5]]).logit().T.reshape(1, 2, 1, 2)  # the classes at two locations
        center = torch.tensor([0.5, 0.1]).logit().reshape(1, 1, 1, 2)
        sides = torch.full((1, 4, 1, 2), 3.0)
        predictions = {"p3": Prediction(logits, sides, center)}
        (found,) = Fcos().detect(predictions, [(8, 16)])
        assert found["scores"].tolist() == pytest.approx([0.45, 0.05, 0.006])
        assert found["labels"].tolist() == [1, 1, 0]
        assert found["boxes"].tolist() == [[1, 1, 7, 7], [9, 1, 15, 7], [9, 1, 15, 7]]
        (found,) = Fcos(centerness_in_score=False).detect(predictions, [(8, 16)])
        assert found["scores"].tolist() == pytest.approx([0.9, 0.5, 0.06])
        (found,) = Fcos(score_threshold=0.55).detect(predictions, [(8, 16)])
        assert found["scores"].tolist() == pytest.approx([0.45])
        (found,) = Fcos().detect(predictions, [(6, 8)])  # the second location lies in the padding
        assert found["boxes"].tolist() == [[1, 1, 7, 6]]

    def test_candidates_are_ranked_by_the_product(self):
        logits = torch.tensor([3.0, 2.0, 1.0]).reshape(1, 1, 1, 3)
        center = torch.tensor([-3.0, 0.0, 2.0]).reshape(1, 1, 1, 3)
        predictions = {"p3": Prediction(logits, torch.full((1, 4, 1, 3), 1.0), center)}
        (found,) = Fcos(candidates=1).detect(predictions, [(8, 24)])
        assert found["boxes"].tolist() == [[19, 3, 21, 5]]

    def test_half_precision_and_infinite_distances(self):
        predictions = random_predictions(shapes_for(SMALL), 2, CLASSES, 0)
        half = {k: Prediction(*(x.detach().half() for x in p)) for k, p in predictions.items()}
        half["p3"].bbox_reg[:, :, 0, 0] = math.inf
        half["p3"].bbox_reg[:, :, 0, 1] = math.nan
        half["p3"].cls_logits[:, :, 0, :2] = 20
        for found in Fcos().detect(half, [SMALL, (40, 50)]):
            assert found["boxes"].dtype == found["scores"].dtype == torch.float32
            assert found["boxes"].isfinite().all()
            assert len(found["boxes"]) == 100
        assert found["boxes"].amax(dim=0).tolist() <= [50, 40, 50, 40]

    def test_no_detections(self):
        predictions = {
            k: p._replace(cls_logits=p.cls_logits - 50) for k, p in random_predictions(shapes_for(SMALL), 1, 3, 0).items()
        }
        (found,) = Fcos().detect(predictions, [SMALL])
        assert (found["boxes"].shape, found["labels"].shape, found["scores"].shape) == ((0, 4), (0,), (0,))
        assert found["labels"].dtype == torch.int64


def test_optimizing_the_predictions_gives_the_boxes():
    """Targets, losses and detections are consistent: gradient descent on the maps alone ends at the boxes."""
    shapes = shapes_for(SMALL, SMALL_LEVELS)
    found = [target([[8, 8, 40, 36], [50, 20, 90, 60]], [0, 2]), target([[30, 10, 60, 50]], [1])]
    fcos = Fcos(reference_size=64, ranges=(16, 32))
    targets = fcos.targets(shapes, SMALL, found)
    torch.manual_seed(0)
    raw = {k: [torch.zeros(2, channels, *shape).requires_grad_() for channels in (3, 4, 1)] for k, shape in shapes.items()}
    optimizer = torch.optim.Adam([x for maps in raw.values() for x in maps], lr=0.1)

    def predictions() -> dict[str, Prediction]:
        return {k: Prediction(c - 4, (s + 1.5).exp(), n) for k, (c, s, n) in raw.items()}

    for _ in range(80):
        optimizer.zero_grad()
        sum(fcos.losses(predictions(), targets).values()).backward()
        optimizer.step()
    for its, detected in zip(found, fcos.detect(predictions(), [SMALL] * 2), strict=True):
        best = detected["scores"] > 0.3
        assert sorted(detected["labels"][best].tolist()) == its["labels"].tolist()
        order = detected["labels"][best].argsort()
        assert (box_iou(detected["boxes"][best][order], its["boxes"]).diagonal() > 0.9).all()


class TestOptions:
    def test_they_round_trip_through_json(self):
        fcos = Fcos(ranges=(10, 20), center_radius=1.5, box_loss="giou")
        assert Fcos(**json.loads(json.dumps(asdict(fcos)))) == fcos
        assert Fcos(**json.loads(json.dumps(asdict(Fcos())))) == Fcos()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"box_loss": "l1"}, "unknown box loss 'l1'; known are iou, linear_iou, giou"),
            ({"ranges": (64, 32)}, "ranges are 64.0, 32.0; expected positive numbers of pixels, increasing"),
            ({"ranges": (0, 32)}, "increasing"),
            ({"reference_size": 0}, "reference_size is 0; expected a positive number or None"),
            ({"center_radius": -1.5}, "center_radius is -1.5"),
        ],
    )
    def test_invalid_ones_are_refused(self, options, message):
        with pytest.raises(DetectionError, match=message):
            Fcos(**options)
