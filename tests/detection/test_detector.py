"""A whole detector: torchvision's convention, pictures of any size, other backbones, configs, and that it learns."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_detectors import FCOS, FEATURES, IMPROVED, RETINANET, TEXT, Body, body, eager, pictures, small, target
from torch import Tensor

from nasdsl import load, loads, resources
from nasdsl.data import Transform, make_loader, open_dataset
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.detection.backbones.weights import MSRA_MEAN, MSRA_STD
from nasdsl.detection.detector import Detector, DetectorError, resized
from nasdsl.detection.factory import detector, from_config
from nasdsl.detection.fcos import Fcos
from nasdsl.detection.pyramid import DetectionError
from nasdsl.detection.retinanet import Retinanet
from nasdsl.evaluation import evaluate
from nasdsl.evaluation.results import to_results
from nasdsl.ir import MissingFeature

SIZES = ((48, 80), (100, 60), (64, 64))
LOSSES = {FCOS: {"classification", "bbox_regression", "bbox_ctrness"}, RETINANET: {"classification", "bbox_regression"}}
PREDICTS = [FCOS, RETINANET]


def same(left: list[dict[str, Tensor]], right: list[dict[str, Tensor]], tolerance: float = 0.0) -> None:
    """The same detections, in number, order, and up to `tolerance` in pixels and scores."""
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert len(one["scores"]), "nothing was found: the test would say nothing"
        assert torch.equal(one["labels"], other["labels"])
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=0, atol=tolerance)
        torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=tolerance)


@torch.no_grad()
def detections(made: Detector, *arguments: Any, **named: Any) -> list[dict[str, Tensor]]:
    found = made(*arguments, **named)
    assert isinstance(found, list)
    return found


def losses(made: Detector, *arguments: Any, **named: Any) -> dict[str, Tensor]:
    found = made.train()(*arguments, **named)
    assert isinstance(found, dict)
    return found


# ------------------------------------------------------------------------------------------- torchvision's convention


@pytest.mark.parametrize("predict", PREDICTS)
def test_losses_in_training(predict: str) -> None:
    made = small(predict)
    targets = [target([[5, 5, 60, 40], [0, 0, 20, 20]], [2, 0]), target([[10, 10, 50, 90]]), target([])]
    found = losses(made, pictures(*SIZES), targets)
    assert set(found) == LOSSES[predict]
    assert all(loss.ndim == 0 and loss.isfinite() and loss > 0 for loss in found.values())
    torch.stack(list(found.values())).sum().backward()
    without = [name for name, p in made.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


@pytest.mark.parametrize("predict", PREDICTS)
def test_detections_in_evaluation(predict: str) -> None:
    images = pictures(*SIZES)
    for image, found in zip(images, detections(eager(predict), images), strict=True):
        assert set(found) == {"boxes", "labels", "scores"}
        count = len(found["scores"])
        assert 0 < count <= 100
        assert found["boxes"].shape == (count, 4)
        assert found["labels"].shape == (count,)
        assert found["labels"].dtype == torch.int64
        assert 0 <= found["labels"].min() <= found["labels"].max() <= 2
        assert (found["scores"].diff() <= 0).all()
        (x1, y1, x2, y2), (height, width) = found["boxes"].unbind(1), image.shape[-2:]
        assert ((x1 >= 0) & (y1 >= 0) & (x1 < x2) & (y1 < y2) & (x2 <= width + 1e-3) & (y2 <= height + 1e-3)).all()


def test_boxes_come_back_in_pixels_of_each_original() -> None:
    """A method that finds the whole of every resized picture has found the whole of every original."""
    made = small()
    sizes: list[tuple[int, int]] = []

    def whole(_: object, found: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        sizes.extend(found)
        return [
            target([[0, 0, width, height], [0, 0, width / 2, height / 4]]) | {"scores": torch.ones(2)}
            for height, width in found
        ]

    made.method = SimpleNamespace(detect=whole)  # type: ignore[assignment]
    images = pictures((48, 80), (100, 60), (30, 300))
    for image, found in zip(images, detections(made, images), strict=True):
        height, width = image.shape[-2:]
        expected = torch.tensor([[0.0, 0, width, height], [0, 0, width / 2, height / 4]])
        torch.testing.assert_close(found["boxes"], expected)
    assert sizes == [(64, 106), (106, 64), (12, 128)]


def test_targets_are_in_pixels_of_each_original() -> None:
    """The losses of a list are those of the batch that it becomes, with boxes scaled by hand."""
    made, (first, second) = small(), pictures((48, 80), (100, 60))
    boxes = torch.tensor([[8.0, 6, 40, 36]])
    batch, sizes = made.inputs([first, second])[:2]
    scaled = [boxes * torch.tensor([w / 80, h / 48] * 2) for h, w in sizes[:1]]
    scaled += [boxes * torch.tensor([w / 60, h / 100] * 2) for h, w in sizes[1:]]
    whole = batch * made.backbone.pixel_std + made.backbone.pixel_mean
    found = losses(made, [first, second], [target(boxes, [1]), target(boxes, [1])])
    expected = losses(made, whole, [target(b, [1]) for b in scaled], sizes=sizes)
    for name, loss in found.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=1e-5)
    integers = {"boxes": boxes.to(torch.int64), "labels": torch.tensor([1], dtype=torch.int32)}
    for name, loss in losses(made, [first, second], [integers, integers]).items():
        assert torch.equal(loss, found[name]), "boxes of whole numbers are boxes as well"


def test_ranges_follow_the_shorter_side() -> None:
    """That of the pictures, not of their padding; of several the largest, so that a panorama changes nothing."""
    boxes = [[4.0, 4, 60, 60], [30, 8, 44, 20], [2, 2, 12, 8]]
    batch, sizes = torch.stack(pictures((128, 128), (128, 128))), [(64, 128), (16, 128)]
    targets = [target(boxes), target([[4, 4, 14, 14]])]
    scaled = losses(small(), batch, targets, sizes=sizes)
    bounds = (64 * 64 / 800, 128 * 64 / 800)
    fixed = losses(small(ranges=bounds, reference_size=None), batch, targets, sizes=sizes)
    unscaled = losses(small(reference_size=None), batch, targets, sizes=sizes)
    for name, loss in scaled.items():
        torch.testing.assert_close(loss, fixed[name])
        assert not torch.isclose(loss, unscaled[name])


BOXES = [[4.0, 4, 60, 60], [30, 8, 44, 20], [2, 2, 12, 8]]


def losses_at(side: int, images: Any, targets: list[dict[str, Tensor]], **options: Any) -> dict[str, Tensor]:
    """Losses with the size ranges of images whose shorter side is `side`."""
    ranges = (64 * side / 800, 128 * side / 800)
    return losses(small(ranges=ranges, reference_size=None, **options), images, targets)


def test_ranges_follow_the_uncropped_image() -> None:
    """A random crop does not change the size of objects, so it must not change which level learns them."""
    batch, plain = torch.stack(pictures((64, 64))), [target(BOXES)]
    cropped = losses(small(), batch, [{**plain[0], "uncropped_size": (256, 512)}])
    expected, of_crop = losses_at(256, batch, plain), losses_at(64, batch, plain)
    for name, loss in cropped.items():
        torch.testing.assert_close(loss, expected[name])
        assert not torch.isclose(loss, of_crop[name])


def test_ranges_follow_the_uncropped_image_at_the_scale_that_the_detector_makes_of_it() -> None:
    """A list is resized by the detector: a 64x64 crop of 256x512 to 128x128, as if cut from 512x1024."""
    images, plain = pictures((64, 64)), [target(BOXES)]
    cropped = losses(small(min_size=128), images, [{**plain[0], "uncropped_size": (256, 512)}])
    expected = losses_at(512, images, plain, min_size=128)
    for name, loss in cropped.items():
        torch.testing.assert_close(loss, expected[name])


@pytest.mark.parametrize("shorter", [160, (96, 160), None])
def test_ranges_of_batches_that_were_cropped_at_random(shorter: Any) -> None:
    """From data set to losses: ranges are those of the whole images, for every form of resizing."""
    data = open_dataset("shapes:6", "train")
    transform = Transform.training(shorter, 400, crop=(64, 64))
    batch = next(iter(make_loader(data, batch_size=6, transform=transform)))
    assert batch.images.shape[-2:] == (64, 64)
    whole = [transform.output_size(target["size"]) for target in batch.targets]
    side = {160: 160, (96, 160): 160, None: min(whole[0])}[shorter]
    plain = [{"boxes": target["boxes"], "labels": target["labels"]} for target in batch.targets]
    options: dict[str, Any] = {"classes": len(data.classes)}
    found = losses(small(**options), batch.images, batch.targets)
    for name, loss in losses_at(side, batch.images, plain, **options).items():
        torch.testing.assert_close(found[name], loss)


def test_targets_are_left_alone() -> None:
    given = [target([[8, 6, 40, 36]])]
    before = given[0]["boxes"].clone()
    losses(small(), pictures((48, 80)), given)
    assert torch.equal(given[0]["boxes"], before)
    assert set(given[0]) == {"boxes", "labels"}


# ------------------------------------------------------------------------------------------------- forms of pictures


@pytest.mark.parametrize("predict", PREDICTS)
def test_whole_numbers_and_fractions_agree(predict: str) -> None:
    made, images = eager(predict), pictures(*SIZES)
    same(detections(made, images), detections(made, [image / 255 for image in images]), 1e-4)
    batch = torch.stack(pictures((64, 96), (64, 96)))
    same(detections(made, batch), detections(made, batch / 255), 1e-4)
    same(detections(made, images), detections(made, [image.double() / 255 for image in images]), 1e-4)


def test_a_list_and_a_batch_agree() -> None:
    made, images = eager(fixed_size=(64, 96)), pictures((64, 96), (64, 96))
    same(detections(made, images), detections(made, torch.stack(images)))
    one_by_one = [detections(made, [image])[0] for image in images]
    same(detections(made, images), one_by_one, 1e-4)
    same([made.detect(image) for image in images], one_by_one)


@pytest.mark.parametrize("layout", ["batch", "list"])
def test_channels_last_is_contiguous(layout: str) -> None:
    made, images = eager(), pictures((64, 96), (64, 96))
    given: Any = torch.stack(images).contiguous(memory_format=torch.channels_last)
    if layout == "list":
        given = [image.permute(1, 2, 0).contiguous().permute(2, 0, 1) for image in images]
        assert not given[0].is_contiguous()
        same(detections(made, given), detections(made, images), 1e-4)
        return
    same(detections(made, given), detections(made, torch.stack(images)), 1e-4)
    same(detections(made.to(memory_format=torch.channels_last), given), detections(made, torch.stack(images)), 1e-4)


def test_what_lies_in_the_padding_does_not_matter() -> None:
    made, sizes = eager(norm=True), [(40, 96), (64, 70)]
    clean = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
    for place, picture, (height, width) in zip(clean, pictures(*sizes), sizes, strict=True):
        place[:, :height, :width] = picture
    dirty = clean.clone()
    for place, (height, width) in zip(dirty, sizes, strict=True):
        place[:, height:] = 255
        place[:, :, width:] = 77
    same(detections(made, clean, sizes=sizes), detections(made, dirty, sizes=sizes))
    batch = made.inputs(dirty, sizes=sizes).images
    assert not batch[0, :, 40:].any()
    assert not batch[1, :, :, 70:].any()
    for found, (height, width) in zip(detections(made, dirty, sizes=sizes), sizes, strict=True):
        assert found["boxes"][:, [0, 2]].max() <= width
        assert found["boxes"][:, [1, 3]].max() <= height


class Patches(torch.nn.Module):
    """c3 and c4 of patches that do not overlap: nothing of one is seen in another."""

    def __init__(self) -> None:
        super().__init__()
        self.c3 = torch.nn.Conv2d(3, 8, 8, 8, bias=False)
        self.c4 = torch.nn.Conv2d(8, 8, 2, 2, bias=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        c3 = self.c3(x)
        return [c3, self.c4(c3)]


def test_padding_changes_no_detection() -> None:
    """A network that never looks beyond a patch finds the same in a picture alone and in one corner of a batch."""
    torch.manual_seed(0)
    text = (
        "decoder d { input c3, c4\n fpn(width=16, norm=none) { output p3 = conv_1x1(c3), p4 = conv_1x1(c4) }\n"
        " head(width=16, norm=none) { conv_1x1 }\n predict fcos(centerness=cls) }"
    )
    extractor = FeatureExtractor(Patches(), ("c3", "c4"))
    made = detector(loads(text), extractor, classes=3, min_size=64, max_size=128, score_threshold=0.55).eval()
    with torch.no_grad():
        for name, parameter in made.decoder.named_parameters():
            if name.endswith("bias"):
                parameter.fill_(2.5 if "bbox_reg" in name else 0)  # a box everywhere; no class where there are no features
            elif parameter.shape[2:] == (3, 3):
                parameter[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0  # the centre is left
            if "cls_logits.weight" in name:
                parameter.mul_(300)
    image = pictures((64, 96))[0]
    alone = detections(made, image[None])
    padded = torch.full((1, 3, 128, 160), 200, dtype=torch.uint8)
    padded[0, :, :64, :96] = image
    same(alone, detections(made, padded, sizes=[(64, 96)]), 1e-4)
    beside = detections(made, [image, *pictures((128, 64))])
    same(alone, beside[:1], 1e-4)


def test_lists_are_padded_to_a_multiple() -> None:
    images = pictures((50, 70), (60, 66))
    for divisor, expected in ((1, (64, 89)), (32, (64, 96))):
        made = small(min_size=64, max_size=90, size_divisible=divisor)
        inputs = made.inputs(images)
        assert inputs.sizes == [(64, 89), (64, 70)]
        assert tuple(inputs.images.shape) == (2, 3, *expected)


@pytest.mark.parametrize("predict", PREDICTS)
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1, 200)], ids=str)
def test_tiny_pictures(predict: str, size: tuple[int, int]) -> None:
    made, image = eager(predict), pictures(size)[0]
    for found in (made.detect(image), *detections(made, image[None])):
        assert found["boxes"].isfinite().all()
        assert found["scores"].isfinite().all()
        assert len(found["boxes"]) == 0 or found["boxes"].max() <= max(size) + 1e-3
    given = [target([[0, 0, size[1], size[0]]])]
    for found in (losses(made, [image], given), losses(made, image[None], given)):
        assert all(loss.isfinite() for loss in found.values())


@pytest.mark.parametrize("fixed", [None, (56, 72)], ids=["aspect", "fixed"])
def test_pictures_are_resized_as_data_sets_do(fixed: tuple[int, int] | None) -> None:
    """Sizes are equal, and pixels up to their rounding to whole numbers: in training, the data's transform resizes."""
    made, transform = small(min_size=64, max_size=96, fixed_size=fixed), Transform(64, 96, fixed)
    sizes = [(240, 320), (97, 33), (10, 400), (33, 34), (639, 480), (65, 64), (64, 96), (1, 1), (1, 500)]
    assert made.inputs(pictures(*sizes)).sizes == [transform.output_size(size) for size in sizes]
    sample = open_dataset("shapes:1", "train")[0]
    inputs, expected = made.inputs([sample.image]), made.backbone.normalize(transform(sample).image)
    assert (inputs.images[0] - expected).abs().max() < 1.01 / 255 / min(made.backbone.std)


@given(*(st.integers(1, 3000) for _ in range(2)), st.integers(1, 900), st.integers(1, 1400))
def test_the_size_of_any_picture(height: int, width: int, shorter: int, longest: int) -> None:
    size = resized(height, width, shorter, longest)
    assert size == Transform(shorter, longest).output_size((height, width))
    assert min(size) >= 1
    assert max(size) <= max(longest, shorter)


def test_one_of_several_sizes_in_training_and_the_last_in_evaluation() -> None:
    made, image = small(min_size=(48, 56, 64)), pictures((50, 50))
    torch.manual_seed(0)
    assert {made.train().inputs(image).sizes[0][0] for _ in range(30)} == {48, 56, 64}
    assert {made.eval().inputs(image).sizes[0][0] for _ in range(9)} == {64}


def test_half_precision() -> None:
    made = eager().to(torch.bfloat16)
    found = detections(made, pictures((48, 80)))[0]
    assert len(found["scores"])
    assert found["boxes"].isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        loss = losses(eager(), pictures((48, 80)), [target([[5, 5, 60, 40]])])
    assert all(value.dtype == torch.float32 and value.isfinite() for value in loss.values())


def test_detecting_leaves_a_detector_that_can_be_trained() -> None:
    """What was cached in inference mode could not be differentiated."""
    for name in ("nas_fcos", "retinanet"):
        decoder = load(resources.folder("genotypes") / f"{name}.nas").with_width(64)
        made = detector(decoder, body(), classes=2, min_size=64, seed=0).eval()
        image = pictures((64, 96))[0]
        made.detect(image)
        torch.stack(list(losses(made, [image], [target([[5, 5, 60, 40]])]).values())).sum().backward()


# -------------------------------------------------------------------------------------------------- targets and misuse


@pytest.mark.parametrize("predict", PREDICTS)
def test_targets_without_boxes(predict: str) -> None:
    made = small(predict)
    for empty in (target([]), {"boxes": torch.zeros(0), "labels": torch.zeros(0)}):
        found = losses(made, pictures((48, 80)), [empty])
        assert found["classification"] > 0
        assert all(loss == 0 for name, loss in found.items() if name != "classification")
        torch.stack(list(found.values())).sum().backward()


@pytest.mark.parametrize("predict", PREDICTS)
def test_boxes_without_extent_and_outside(predict: str) -> None:
    boxes = [[30.0, 20, 30, 20], [10, 10, 50, 10], [500, 500, 600, 600], [-50, -50, -5, -5], [40, 40, 20, 20]]
    made, images = small(predict), pictures((48, 80))
    found = losses(made, images, [target(boxes)])
    assert all(loss.isfinite() for loss in found.values())
    torch.stack(list(found.values())).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())
    if predict == FCOS:
        assert found["bbox_regression"] == 0, "nothing lies inside of such boxes"


@pytest.mark.parametrize("layout", ["list", "batch"])
@pytest.mark.parametrize(
    ("targets", "told"),
    [
        (None, "needs targets; call .eval()"),
        ([], "1 images and 0 targets"),
        ([target([[0, 0, 9, 9]], [3])], "labels 3 to 3; expected 0 to 2: 3 classes, none for the background"),
        ([target([[0, 0, 9, 9], [0, 0, 9, 9]], [1, -1])], "labels -1 to 1; expected 0 to 2"),
        ([{"labels": torch.zeros(1)}], "target 0 has labels; expected boxes, labels"),
        ([{"boxes": torch.zeros(1, 4)}], "target 0 has boxes; expected boxes, labels"),
        ([{"boxes": torch.zeros(2, 4), "labels": torch.zeros(1)}], r"boxes of shape \[2, 4\] and labels of shape \[1\]"),
    ],
)
def test_wrong_targets_are_named(layout: str, targets: Any, told: str) -> None:
    images = pictures((48, 80))
    with pytest.raises((DetectorError, DetectionError), match=told):
        losses(small(), images if layout == "list" else torch.stack(images), targets)


@pytest.mark.parametrize(
    ("images", "named", "told"),
    [
        ([], {}, "a list of one image or more"),
        (torch.zeros(0, 3, 8, 8), {}, r"is \[N, 3, H, W\]; got \[0, 3, 8, 8\]"),
        (torch.zeros(3, 8, 8), {}, r"is \[N, 3, H, W\]; got \[3, 8, 8\]"),
        (torch.zeros(2, 1, 8, 8), {}, r"got \[2, 1, 8, 8\]"),
        ([torch.zeros(1, 8, 8)], {}, r"is \[3, H, W\]; got \[1, 8, 8\]"),
        ([torch.zeros(3, 0, 8)], {}, r"got \[3, 0, 8\]"),
        (torch.zeros(2, 3, 8, 8), {"sizes": [(8, 8)]}, "valid part of each of 2 images of 8x8"),
        (torch.zeros(1, 3, 8, 8), {"sizes": [(8, 9)]}, "of 8x8"),
        ([torch.zeros(3, 8, 8)], {"sizes": [(8, 8)]}, "one batch of images with `sizes`"),
    ],
)
def test_wrong_images_are_named(images: Any, named: Any, told: str) -> None:
    with pytest.raises(DetectorError, match=told):
        detections(small(), images, **named)


def test_detecting_in_training_mode() -> None:
    with pytest.raises(DetectorError, match=r"call \.eval"):
        small().train().detect(pictures((48, 80))[0])


# ------------------------------------------------------------------------------------------------ making a detector


def test_names_and_ids_of_classes() -> None:
    assert small(classes=2).classes == ("class 0", "class 1")
    assert small(classes=2).category_ids == (1, 2)
    made = small(classes=["cat", "dog"], category_ids=[17, 90])
    assert (made.classes, made.category_ids) == (("cat", "dog"), (17, 90))
    with pytest.raises(DetectorError, match="2 classes and 3 category ids"):
        small(classes=2, category_ids=[1, 2, 3])
    for none in (0, []):
        with pytest.raises(DetectorError, match="at least one class"):
            small(classes=none)


def test_what_cannot_be_done_to_a_backbone_of_your_own_is_refused() -> None:
    with pytest.raises(DetectorError, match="backbone_weights, freeze_at cannot be given with a backbone of your own"):
        small(freeze_at=0, backbone_weights="imagenet")


def test_the_seed_decides_the_weights_and_leaves_the_random_state_alone() -> None:
    def weights(seed: int | None) -> list[Tensor]:
        made = detector(loads(TEXT.replace("PREDICT", FCOS)), "mobilenet_v2", classes=2, seed=seed)
        return [p.detach() for p in made.parameters()]

    torch.manual_seed(5)
    first = weights(1)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert all(torch.equal(a, b) for a, b in zip(first, weights(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, weights(2), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(None), weights(None), strict=True))


def test_options_of_the_method() -> None:
    assert small(FCOS).method == Fcos()
    made = small(FCOS, center_radius=1.5, box_loss="giou", ranges=[32, 64], detections=7)
    assert made.method == Fcos(center_radius=1.5, box_loss="giou", ranges=(32.0, 64.0), detections=7)
    assert small(RETINANET, nms=1).method == Retinanet(anchors=9, nms=1)
    assert small("retinanet(anchors=3)").method == Retinanet(anchors=3)
    assert len(detections(eager(FCOS, detections=2), pictures((48, 80)))[0]["scores"]) == 2


@pytest.mark.parametrize(
    ("predict", "options", "told"),
    [
        (FCOS, {"centre_radius": 1.5}, "unknown option centre_radius; Fcos has ranges, .*center_radius"),
        (RETINANET, {"center_radius": 1.5}, "unknown option center_radius; Retinanet has"),
        (RETINANET, {"anchors": 3}, "anchors is 3; the decoder's text says 9"),
        (FCOS, {"nms": "much"}, "nms is 'much'; expected float, not negative"),
        (FCOS, {"nms": -0.5}, "nms is -0.5; expected float, not negative"),
        (FCOS, {"candidates": 10.5}, "candidates is 10.5; expected int"),
        (FCOS, {"candidates": True}, "candidates is True; expected int"),
        (FCOS, {"center_radius": "1.5 "}, r"center_radius is '1.5 '; expected float \| None"),
        (FCOS, {"center_radius": 0}, "center_radius is 0; expected a positive number"),
        (FCOS, {"ranges": 64}, r"ranges is 64; expected tuple\[float, ...\] \| None"),
        (FCOS, {"box_loss": "l2"}, "box_loss is 'l2'; expected Literal.*giou"),
        (FCOS, {"centerness_in_score": 1}, "centerness_in_score is 1; expected bool"),
        (FCOS, {"focal_gamma": math.nan}, "focal_gamma is nan"),
    ],
)
def test_wrong_options_are_named(predict: str, options: dict[str, Any], told: str) -> None:
    with pytest.raises((DetectorError, DetectionError), match=told):
        small(predict, **options)


def test_any_backbone() -> None:
    """A backbone of one's own, whose features the decoder reads by name; what it does not give is named."""
    made = small(norm=True)
    assert isinstance(made.backbone.body, Body)
    assert made.config["backbone"] is None
    with pytest.raises(DetectorError, match="backbone of your own; give the same one as backbone="):
        from_config(made.config)
    again = from_config(made.config, body(norm=True)).eval()
    again.load_state_dict(made.state_dict())
    image = pictures((48, 80))[0]
    assert torch.equal(made.inputs([image]).images, again.inputs([image]).images)
    fewer = FeatureExtractor(Patches(), ("c3", "c4"))
    with pytest.raises(MissingFeature, match="reads c5; the backbone gives c3"):
        detector(loads(TEXT.replace("PREDICT", FCOS)), fewer)


def test_the_normalisation_goes_with_the_weights() -> None:
    """Another mean and deviation, as of the MSRA weights, is part of a detector's weights, not of its config."""
    extractor = FeatureExtractor(Body(), FEATURES, mean=MSRA_MEAN, std=MSRA_STD)
    made = detector(loads(TEXT.replace("PREDICT", FCOS)), extractor, classes=3, min_size=64, seed=0).eval()
    again = from_config(json.loads(json.dumps(made.config)), body()).eval()
    image = pictures((48, 80))[0]
    assert not torch.allclose(made.inputs([image]).images, again.inputs([image]).images)
    again.load_state_dict(made.state_dict())
    batch = again.inputs(image[None]).images[0]
    grey = torch.tensor([122.7717, 115.9465, 102.9801]).view(3, 1, 1)
    torch.testing.assert_close(batch, image.float() - grey, rtol=0, atol=1e-3)
    assert torch.equal(made.inputs([image]).images, again.inputs([image]).images)
    assert again.backbone.mean == pytest.approx(MSRA_MEAN)


def test_configs_of_the_zoo_survive_json(zoo_path: Path) -> None:
    backbone = "resnet50" if zoo_path.stem in ("fcos", "nas_fpn") else "mobilenet_v2"
    decoder = load(zoo_path).with_width(64)
    retina = "retinanet" in str(decoder)
    options: dict[str, Any] = {"nms": 0.55} if retina else {"center_radius": 1.5, "ranges": [32, 64, 128, 256]}
    with torch.device("meta"):  # names and shapes alone: the networks are large
        made = detector(
            decoder, backbone, classes=["a", "ß"], category_ids=[3, 90], freeze_at=3, norm="frozen",
            min_size=(64, 80), max_size=99, size_divisible=4, **options,
        )  # fmt: skip
        again = from_config(json.loads(json.dumps(made.config)))
    assert again.config == made.config
    assert again.method == made.method
    assert (again.classes, again.category_ids) == (("a", "ß"), (3, 90))
    shapes = [{name: value.shape for name, value in d.state_dict().items()} for d in (made, again)]
    assert shapes[0] == shapes[1]
    trained = [[name for name, p in d.named_parameters() if p.requires_grad] for d in (made, again)]
    assert trained[0] == trained[1]
    assert trained[0][0].startswith("backbone.body.layer3" if backbone == "resnet50" else "backbone.body.features.7")


# ---------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize(
    ("predict", "options"),
    [
        (FCOS, {"ranges": (24, 48), "reference_size": None}),
        (IMPROVED, {"ranges": (24, 48), "reference_size": None, "center_radius": 1.5, "box_loss": "giou"}),
        (RETINANET, {}),
    ],
    ids=["fcos", "improvements", "retinanet"],
)
def test_two_pictures_are_learnt_by_heart(predict: str, options: dict[str, Any]) -> None:
    """Targets, losses, predictions and boxes fit together: in pixels of the originals, which are 240x320."""
    data = open_dataset("shapes:2", "train")
    images, targets = [data[i].image for i in range(2)], [data[i].target for i in range(2)]
    made, steps = small(predict, classes=data.classes, norm=True, fixed_size=(96, 128), **options).train(), 120
    optimizer = torch.optim.AdamW(made.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for _ in range(steps):
        torch.stack(list(losses(made, images, targets).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    found = detections(made.eval(), images)
    measured = evaluate(data.ground_truth(), to_results(found, [0, 1], made.category_ids), ("coco", "voc12"))
    assert measured.coco is not None
    assert measured.coco.ap50 > 0.8
    assert measured.coco.ap > 0.6
