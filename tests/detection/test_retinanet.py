from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from pyramids import as_maps, boxes, gradients, random_predictions, random_target, shapes_for, target
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet, RetinaNetHead, _default_anchorgen
from torchvision.ops import box_iou

from nasdsl.backends.module import Prediction
from nasdsl.detection.pyramid import DetectionError
from nasdsl.detection.retinanet import Retinanet

CLASSES = 3
SIZE = (256, 384)  # the coarsest map divides it, so that torchvision's strides are ours
SMALL_LEVELS = ("p3", "p4", "p5")


def their_anchors(size: tuple[int, int], images: int = 1) -> list[Tensor]:
    maps = [torch.zeros(images, 1, *shape) for shape in shapes_for(size).values()]
    result: list[Tensor] = _default_anchorgen()(ImageList(torch.zeros(images, 3, *size), [size] * images), maps)
    return result


def their_outputs(predictions: dict[str, Prediction]) -> dict[str, list[Tensor]]:
    """[N, h * w * anchors, channels] of each level, by torchvision's own permutation."""
    result: dict[str, list[Tensor]] = {"cls_logits": [], "bbox_regression": []}
    for prediction in predictions.values():
        for key, x, channels in [("cls_logits", prediction.cls_logits, CLASSES), ("bbox_regression", prediction.bbox_reg, 4)]:
            n, _, h, w = x.shape
            result[key].append(x.view(n, -1, channels, h, w).permute(0, 3, 4, 1, 2).reshape(n, -1, channels))
    return result


def test_anchors_equal_torchvisions():
    ours = Retinanet().level_anchors(shapes_for(SIZE))
    assert torch.equal(torch.cat(ours), their_anchors(SIZE)[0])
    assert [len(level) for level in ours] == [h * w * 9 for h, w in shapes_for(SIZE).values()]


@pytest.mark.parametrize(
    ("anchors", "expected"),
    [
        (1, [(32, 32)]),
        (2, [(32, 32), (45, 45)]),
        (3, [(45, 23), (32, 32), (23, 45)]),
        (6, [(45, 23), (64, 32), (32, 32), (45, 45), (23, 45), (32, 64)]),
    ],
)
def test_other_numbers_of_anchors(anchors, expected):
    (result,) = Retinanet(anchors=anchors).level_anchors({"p3": (1, 1)})
    extent = result[:, 2:] - result[:, :2]
    assert (extent - torch.tensor(expected)).abs().max() <= 1  # half sides are rounded to whole pixels


@pytest.mark.parametrize("seed", range(3))
def test_losses_and_gradients_equal_torchvisions(seed):
    found = [random_target(count, SIZE, CLASSES, seed + count) for count in (3, 0, 6)]
    ours, theirs = (random_predictions(shapes_for(SIZE), 3, CLASSES, seed, anchors=9) for _ in range(2))
    model = SimpleNamespace(
        head=RetinaNetHead(4, 9, CLASSES), proposal_matcher=Matcher(0.5, 0.4, allow_low_quality_matches=True)
    )
    outputs = {key: torch.cat(x, dim=1) for key, x in their_outputs(theirs).items()}
    expected = RetinaNet.compute_loss(model, found, outputs, their_anchors(SIZE, 3))
    result = Retinanet().losses(ours, Retinanet().targets(shapes_for(SIZE), SIZE, found))
    assert result.keys() == expected.keys()
    for key, loss in expected.items():
        torch.testing.assert_close(result[key], loss)
    sum(result.values()).backward()
    sum(expected.values()).backward()
    for a, b in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("seed", range(3))
def test_detections_equal_torchvisions(seed):
    """Except for boxes that are empty after clipping, which torchvision keeps: images fill the batch here."""
    predictions = random_predictions(shapes_for(SIZE), 2, CLASSES, seed, anchors=9)
    model = SimpleNamespace(
        score_thresh=0.3, topk_candidates=60, box_coder=BoxCoder((1.0, 1.0, 1.0, 1.0)), nms_thresh=0.5, detections_per_img=90
    )
    per_level = [list(torch.split(a, [h * w * 9 for h, w in shapes_for(SIZE).values()])) for a in their_anchors(SIZE, 2)]
    expected = RetinaNet.postprocess_detections(model, their_outputs(predictions), per_level, [SIZE, SIZE])
    result = Retinanet(score_threshold=0.3, candidates=60, detections=90).detect(predictions, [SIZE, SIZE])
    for ours, theirs in zip(result, expected, strict=True):
        real = (theirs["boxes"][:, 2:] > theirs["boxes"][:, :2]).all(dim=1)
        assert real.sum() > 50
        count = min(len(ours["boxes"]), int(real.sum()))
        for key in ("boxes", "labels", "scores"):
            torch.testing.assert_close(ours[key][:count], theirs[key][real][:count])


def test_targets_by_hand():
    """One location, one square anchor of 32 pixels around 0."""
    retinanet = Retinanet(anchors=1)

    def learned(*found: list[float]) -> tuple[int, list[float]]:
        result = retinanet.targets({"p3": (1, 1)}, (8, 8), [target(found, range(len(found)))])
        return int(result.labels), result.offsets[0, 0].tolist()

    assert learned([-16, -16, 16, 16]) == (0, [0, 0, 0, 0])
    assert learned([-8, -16, 24, 16]) == (0, [0.25, 0, 0, 0])  # IoU 0.6
    assert learned([-16, -16, 0, 16]) == (0, pytest.approx([-0.25, 0, math.log(0.5), 0]))  # IoU 0.5
    assert learned([0, 0, 4, 4])[0] == 0  # the best that there is
    assert learned([100, 100, 140, 140]) == (-1, [0] * 4)
    assert learned([100, 100, 140, 140], [-16, -16, 16, 10])[0] == 1
    assert learned() == (-1, [0] * 4)


def test_anchors_between_the_thresholds_are_ignored():
    shapes = shapes_for((64, 64), SMALL_LEVELS)
    targets = Retinanet().targets(shapes, (64, 64), [target([[10, 10, 42, 42]])])
    (best,) = box_iou(torch.tensor([[10.0, 10, 42, 42]]), torch.cat(Retinanet().level_anchors(shapes)))
    assert torch.equal(targets.labels[0] == -2, (best >= 0.4) & (best < 0.5) & (best < best.max()))
    ignored = targets.labels == -2
    assert ignored.any()
    predictions = random_predictions(shapes, 1, CLASSES, 0, anchors=9)
    sum(Retinanet().losses(predictions, targets).values()).backward()
    flat = torch.cat(
        their_outputs({k: p._replace(cls_logits=p.cls_logits.grad) for k, p in predictions.items()})["cls_logits"], 1
    )
    assert not flat[ignored].any()
    assert flat[~ignored].all()


def test_boxes_that_overlap_no_anchor_are_ignored():
    """Otherwise the best anchors of such a box would be all those without overlap."""
    shapes = shapes_for((64, 64), SMALL_LEVELS)
    odd = [[5, 5, 5, 50], [30, 30, 10, 10], [5000, 5000, 5100, 5100], [float("nan")] * 4]
    result = Retinanet().targets(shapes, (64, 64), [target(odd), target([*odd, [8, 8, 40, 40]]), target([[8, 8, 40, 40]])])
    assert (result.labels[0] == -1).all()
    assert torch.equal(result.labels[1] >= 0, result.labels[2] >= 0)
    assert torch.equal(result.offsets[1], result.offsets[2])
    assert result.offsets.isfinite().all()
    assert torch.equal(result.select([2]).labels[0], result.labels[2])


@settings(max_examples=15, deadline=None)
@given(boxes((64, 96), most=3))
def test_perfect_predictions_give_the_boxes(found):
    retinanet, shapes = Retinanet(), shapes_for((64, 96), SMALL_LEVELS)
    found = found.clamp(min=0).minimum(torch.tensor([96, 64, 96, 64]))
    result = retinanet.targets(shapes, (64, 96), [target(found, range(len(found)))])
    logits = torch.full((*result.labels.shape, CLASSES), -10.0)
    image, place = torch.nonzero(result.labels >= 0, as_tuple=True)
    logits[image, place, result.labels[image, place]] = 10
    maps = (as_maps(x, shapes, 9) for x in (logits, result.offsets))
    predictions = {level: Prediction(c, b, None) for level, c, b in zip(shapes, *maps, strict=True)}
    (detected,) = retinanet.detect(predictions, [(64, 96)])
    assert sorted(detected["labels"].tolist()) == result.labels[result.labels >= 0].unique().tolist()
    assert torch.allclose(detected["boxes"], found[detected["labels"]], atol=1e-3)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(kind):
    shapes = shapes_for((64, 96))
    targets = Retinanet().targets(shapes, (64, 96), [random_target(3, (64, 96), CLASSES, 0)])
    half = {
        k: Prediction(p.cls_logits.to(kind), p.bbox_reg.to(kind), None)
        for k, p in random_predictions(shapes, 1, CLASSES, 0, anchors=9).items()
    }
    single = {k: Prediction(p.cls_logits.float(), p.bbox_reg.float(), None) for k, p in half.items()}
    for a, b in zip(Retinanet().losses(half, targets).values(), Retinanet().losses(single, targets).values(), strict=True):
        assert a.dtype == torch.float32
        assert torch.equal(a, b)
    assert Retinanet().detect(half, [(64, 96)])[0]["boxes"].dtype == torch.float32


def test_no_positives_and_smooth_l1():
    shapes = shapes_for((64, 96))
    predictions = random_predictions(shapes, 2, CLASSES, 0, anchors=9)
    losses = Retinanet().losses(predictions, Retinanet().targets(shapes, (64, 96), [target([])] * 2))
    assert losses["bbox_regression"] == 0
    sum(losses.values()).backward()
    assert all(x is not None and x.isfinite().all() for x in gradients(predictions))
    targets = Retinanet().targets(shapes, (64, 96), [random_target(3, (64, 96), CLASSES, s) for s in range(2)])
    plain, smooth = (Retinanet(beta=beta).losses(predictions, targets)["bbox_regression"] for beta in (0.0, 1 / 9))
    assert 0 < smooth < plain


def test_mismatched_predictions():
    shapes = shapes_for((64, 96))
    with pytest.raises(DetectionError, match=r"level p3 predicts 3 boxes at a location.*expected Retinanet\(anchors=3\)"):
        Retinanet().detect(random_predictions(shapes, 1, CLASSES, 0, anchors=3), [(64, 96)])
    with pytest.raises(DetectionError, match="have centerness; expected those of a decoder with 'predict retinanet"):
        Retinanet().detect(random_predictions(shapes, 1, CLASSES, 0), [(64, 96)])
    with pytest.raises(DetectionError, match="anchors is 0; expected 1 or more"):
        Retinanet(anchors=0)
    with pytest.raises(DetectionError, match="expected 0 <= background <= foreground"):
        Retinanet(background=0.6)
