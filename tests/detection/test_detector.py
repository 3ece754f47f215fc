"""The detector module: torchvision's interface, images of any size, custom backbones, configs, and that it learns."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_detectors import (
    FCOS,
    FEATURES,
    IMPROVED,
    RETINANET,
    TEXT,
    Body,
    body,
    confident_detector,
    random_images,
    small_detector,
    target,
)
from torch import Tensor

from nasdsl import load, loads, resources
from nasdsl.data import Transform, make_loader, open_dataset
from nasdsl.detection.backbones import FeatureExtractor
from nasdsl.detection.backbones.weights import MSRA_MEAN, MSRA_STD
from nasdsl.detection.detector import Detector, DetectorError
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


def assert_same(left: list[dict[str, Tensor]], right: list[dict[str, Tensor]], tolerance: float = 0.0) -> None:
    """The same detections in the same order, with boxes and scores up to `tolerance`."""
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert len(one["scores"]), "without detections the test is void"
        assert torch.equal(one["labels"], other["labels"])
        torch.testing.assert_close(one["boxes"], other["boxes"], rtol=0, atol=tolerance)
        torch.testing.assert_close(one["scores"], other["scores"], rtol=0, atol=tolerance)


@torch.no_grad()
def detections(model: Detector, *arguments: Any, **named: Any) -> list[dict[str, Tensor]]:
    found = model(*arguments, **named)
    assert isinstance(found, list)
    return found


def losses(model: Detector, *arguments: Any, **named: Any) -> dict[str, Tensor]:
    found = model.train()(*arguments, **named)
    assert isinstance(found, dict)
    return found


# ------------------------------------------------------------------------------------------- torchvision's interface


@pytest.mark.parametrize("predict", PREDICTS)
def test_losses_in_training(predict: str) -> None:
    model = small_detector(predict)
    targets = [target([[5, 5, 60, 40], [0, 0, 20, 20]], [2, 0]), target([[10, 10, 50, 90]]), target([])]
    found = losses(model, random_images(*SIZES), targets)
    assert set(found) == LOSSES[predict]
    assert all(loss.ndim == 0 and loss.isfinite() and loss > 0 for loss in found.values())
    torch.stack(list(found.values())).sum().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []


@pytest.mark.parametrize("predict", PREDICTS)
def test_detections_in_evaluation(predict: str) -> None:
    images = random_images(*SIZES)
    for image, found in zip(images, detections(confident_detector(predict), images), strict=True):
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


def test_boxes_are_in_pixels_of_the_originals() -> None:
    """A detection of a whole resized image is one of the whole original."""
    model = small_detector()
    sizes: list[tuple[int, int]] = []

    def whole(_: object, found: list[tuple[int, int]]) -> list[dict[str, Tensor]]:
        sizes.extend(found)
        return [
            target([[0, 0, width, height], [0, 0, width / 2, height / 4]]) | {"scores": torch.ones(2)}
            for height, width in found
        ]

    model.method = SimpleNamespace(detect=whole)  # type: ignore[assignment]
    images = random_images((48, 80), (100, 60), (30, 300))
    for image, found in zip(images, detections(model, images), strict=True):
        height, width = image.shape[-2:]
        expected = torch.tensor([[0.0, 0, width, height], [0, 0, width / 2, height / 4]])
        torch.testing.assert_close(found["boxes"], expected)
    assert sizes == [(64, 106), (106, 64), (12, 128)]


def test_targets_are_in_pixels_of_the_originals() -> None:
    """The losses of a list equal those of the resized batch with boxes scaled by hand."""
    model, (first, second) = small_detector(), random_images((48, 80), (100, 60))
    boxes = torch.tensor([[8.0, 6, 40, 36]])
    batch, sizes = model.prepare([first, second])[:2]
    scaled = [boxes * torch.tensor([w / 80, h / 48] * 2) for h, w in sizes[:1]]
    scaled += [boxes * torch.tensor([w / 60, h / 100] * 2) for h, w in sizes[1:]]
    whole = batch * model.backbone.pixel_std + model.backbone.pixel_mean
    found = losses(model, [first, second], [target(boxes, [1]), target(boxes, [1])])
    expected = losses(model, whole, [target(b, [1]) for b in scaled], sizes=sizes)
    for name, loss in found.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-4, atol=1e-5)
    integers = {"boxes": boxes.to(torch.int64), "labels": torch.tensor([1], dtype=torch.int32)}
    for name, loss in losses(model, [first, second], [integers, integers]).items():
        assert torch.equal(loss, found[name]), "integer boxes are allowed"


def test_ranges_follow_the_shorter_side() -> None:
    """Of the images without padding; the largest in the batch, so that panoramas have no effect."""
    boxes = [[4.0, 4, 60, 60], [30, 8, 44, 20], [2, 2, 12, 8]]
    batch, sizes = torch.stack(random_images((128, 128), (128, 128))), [(64, 128), (16, 128)]
    targets = [target(boxes), target([[4, 4, 14, 14]])]
    scaled = losses(small_detector(), batch, targets, sizes=sizes)
    bounds = (64 * 64 / 800, 128 * 64 / 800)
    fixed = losses(small_detector(ranges=bounds, reference_size=None), batch, targets, sizes=sizes)
    unscaled = losses(small_detector(reference_size=None), batch, targets, sizes=sizes)
    for name, loss in scaled.items():
        torch.testing.assert_close(loss, fixed[name])
        assert not torch.isclose(loss, unscaled[name])


BOXES = [[4.0, 4, 60, 60], [30, 8, 44, 20], [2, 2, 12, 8]]


def losses_at(side: int, images: Any, targets: list[dict[str, Tensor]], **options: Any) -> dict[str, Tensor]:
    """Losses with the size ranges of images whose shorter side is `side`."""
    ranges = (64 * side / 800, 128 * side / 800)
    return losses(small_detector(ranges=ranges, reference_size=None, **options), images, targets)


def test_ranges_follow_the_uncropped_image() -> None:
    """A random crop does not change the size of objects, so it must not change which level learns them."""
    batch, plain = torch.stack(random_images((64, 64))), [target(BOXES)]
    cropped = losses(small_detector(), batch, [{**plain[0], "uncropped_size": (256, 512)}])
    expected, of_crop = losses_at(256, batch, plain), losses_at(64, batch, plain)
    for name, loss in cropped.items():
        torch.testing.assert_close(loss, expected[name])
        assert not torch.isclose(loss, of_crop[name])


def test_ranges_follow_the_uncropped_image_after_resizing() -> None:
    """The detector resizes a 64x64 crop of 256x512 to 128x128, as if cut from 512x1024."""
    images, plain = random_images((64, 64)), [target(BOXES)]
    cropped = losses(small_detector(min_size=128), images, [{**plain[0], "uncropped_size": (256, 512)}])
    expected = losses_at(512, images, plain, min_size=128)
    for name, loss in cropped.items():
        torch.testing.assert_close(loss, expected[name])


@pytest.mark.parametrize("shorter", [160, (96, 160), None])
def test_ranges_of_randomly_cropped_batches(shorter: Any) -> None:
    """From data set to losses, ranges are those of the uncropped images, for every kind of resizing."""
    data = open_dataset("shapes:6", "train")
    transform = Transform.training(shorter, 400, crop=(64, 64))
    batch = next(iter(make_loader(data, batch_size=6, transform=transform)))
    assert batch.images.shape[-2:] == (64, 64)
    whole = [transform.output_size(target["size"]) for target in batch.targets]
    side = {160: 160, (96, 160): 160, None: min(whole[0])}[shorter]
    plain = [{"boxes": target["boxes"], "labels": target["labels"]} for target in batch.targets]
    options: dict[str, Any] = {"classes": len(data.classes)}
    found = losses(small_detector(**options), batch.images, batch.targets)
    for name, loss in losses_at(side, batch.images, plain, **options).items():
        torch.testing.assert_close(found[name], loss)


def test_targets_are_not_modified() -> None:
    given = [target([[8, 6, 40, 36]])]
    before = given[0]["boxes"].clone()
    losses(small_detector(), random_images((48, 80)), given)
    assert torch.equal(given[0]["boxes"], before)
    assert set(given[0]) == {"boxes", "labels"}


# ------------------------------------------------------------------------------------------------- forms of images


@pytest.mark.parametrize("predict", PREDICTS)
def test_uint8_and_float_images_agree(predict: str) -> None:
    model, images = confident_detector(predict), random_images(*SIZES)
    assert_same(detections(model, images), detections(model, [image / 255 for image in images]), 1e-4)
    batch = torch.stack(random_images((64, 96), (64, 96)))
    assert_same(detections(model, batch), detections(model, batch / 255), 1e-4)
    assert_same(detections(model, images), detections(model, [image.double() / 255 for image in images]), 1e-4)


def test_a_list_and_a_batch_agree() -> None:
    model, images = confident_detector(fixed_size=(64, 96)), random_images((64, 96), (64, 96))
    assert_same(detections(model, images), detections(model, torch.stack(images)))
    one_by_one = [detections(model, [image])[0] for image in images]
    assert_same(detections(model, images), one_by_one, 1e-4)
    assert_same([model.detect(image) for image in images], one_by_one)


@pytest.mark.parametrize("layout", ["batch", "list"])
def test_channels_last_is_contiguous(layout: str) -> None:
    model, images = confident_detector(), random_images((64, 96), (64, 96))
    given: Any = torch.stack(images).contiguous(memory_format=torch.channels_last)
    if layout == "list":
        given = [image.permute(1, 2, 0).contiguous().permute(2, 0, 1) for image in images]
        assert not given[0].is_contiguous()
        assert_same(detections(model, given), detections(model, images), 1e-4)
        return
    assert_same(detections(model, given), detections(model, torch.stack(images)), 1e-4)
    assert_same(detections(model.to(memory_format=torch.channels_last), given), detections(model, torch.stack(images)), 1e-4)


def test_padding_pixels_are_ignored() -> None:
    model, sizes = confident_detector(norm=True), [(40, 96), (64, 70)]
    clean = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
    for row, image, (height, width) in zip(clean, random_images(*sizes), sizes, strict=True):
        row[:, :height, :width] = image
    dirty = clean.clone()
    for row, (height, width) in zip(dirty, sizes, strict=True):
        row[:, height:] = 255
        row[:, :, width:] = 77
    assert_same(detections(model, clean, sizes=sizes), detections(model, dirty, sizes=sizes))
    batch = model.prepare(dirty, sizes=sizes).images
    assert not batch[0, :, 40:].any()
    assert not batch[1, :, :, 70:].any()
    for found, (height, width) in zip(detections(model, dirty, sizes=sizes), sizes, strict=True):
        assert found["boxes"][:, [0, 2]].max() <= width
        assert found["boxes"][:, [1, 3]].max() <= height


class Patches(torch.nn.Module):
    """c3 and c4 of disjoint patches: no patch affects another."""

    def __init__(self) -> None:
        super().__init__()
        self.c3 = torch.nn.Conv2d(3, 8, 8, 8, bias=False)
        self.c4 = torch.nn.Conv2d(8, 8, 2, 2, bias=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        c3 = self.c3(x)
        return [c3, self.c4(c3)]


def test_padding_does_not_change_detections() -> None:
    """A network of disjoint patches has the same detections in an image alone and in a padded batch."""
    torch.manual_seed(0)
    text = (
        "decoder d { input c3, c4\n fpn(width=16, norm=none) { output p3 = conv_1x1(c3), p4 = conv_1x1(c4) }\n"
        " head(width=16, norm=none) { conv_1x1 }\n predict fcos(centerness=cls) }"
    )
    extractor = FeatureExtractor(Patches(), ("c3", "c4"))
    model = detector(loads(text), extractor, classes=3, min_size=64, max_size=128, score_threshold=0.55).eval()
    with torch.no_grad():
        for name, parameter in model.decoder.named_parameters():
            if name.endswith("bias"):
                parameter.fill_(2.5 if "bbox_reg" in name else 0)  # boxes everywhere, and no class where features are zero
            elif parameter.shape[2:] == (3, 3):
                parameter[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0  # keep only the center
            if "cls_logits.weight" in name:
                parameter.mul_(300)
    image = random_images((64, 96))[0]
    alone = detections(model, image[None])
    padded = torch.full((1, 3, 128, 160), 200, dtype=torch.uint8)
    padded[0, :, :64, :96] = image
    assert_same(alone, detections(model, padded, sizes=[(64, 96)]), 1e-4)
    beside = detections(model, [image, *random_images((128, 64))])
    assert_same(alone, beside[:1], 1e-4)


def test_lists_are_padded_to_a_multiple() -> None:
    images = random_images((50, 70), (60, 66))
    for divisor, expected in ((1, (64, 89)), (32, (64, 96))):
        model = small_detector(min_size=64, max_size=90, size_divisible=divisor)
        inputs = model.prepare(images)
        assert inputs.sizes == [(64, 89), (64, 70)]
        assert tuple(inputs.images.shape) == (2, 3, *expected)


@pytest.mark.parametrize("predict", PREDICTS)
@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1, 200)], ids=str)
def test_tiny_images(predict: str, size: tuple[int, int]) -> None:
    model, image = confident_detector(predict), random_images(size)[0]
    for found in (model.detect(image), *detections(model, image[None])):
        assert found["boxes"].isfinite().all()
        assert found["scores"].isfinite().all()
        assert len(found["boxes"]) == 0 or found["boxes"].max() <= max(size) + 1e-3
    given = [target([[0, 0, size[1], size[0]]])]
    for found in (losses(model, [image], given), losses(model, image[None], given)):
        assert all(loss.isfinite() for loss in found.values())


@pytest.mark.parametrize("fixed", [None, (56, 72)], ids=["aspect", "fixed"])
def test_images_are_resized_as_by_the_data_transform(fixed: tuple[int, int] | None) -> None:
    """The same sizes, and the same pixels up to rounding: in training, the data transform resizes."""
    model, transform = small_detector(min_size=64, max_size=96, fixed_size=fixed), Transform(64, 96, fixed)
    sizes = [(240, 320), (97, 33), (10, 400), (33, 34), (639, 480), (65, 64), (64, 96), (1, 1), (1, 500)]
    assert model.prepare(random_images(*sizes)).sizes == [transform.output_size(size) for size in sizes]
    sample = open_dataset("shapes:1", "train")[0]
    inputs, expected = model.prepare([sample.image]), model.backbone.normalize(transform(sample).image)
    assert (inputs.images[0] - expected).abs().max() < 1.01 / 255 / min(model.backbone.std)


def test_a_random_size_in_training_and_the_last_in_evaluation() -> None:
    model, image = small_detector(min_size=(48, 56, 64)), random_images((50, 50))
    torch.manual_seed(0)
    assert {model.train().prepare(image).sizes[0][0] for _ in range(30)} == {48, 56, 64}
    assert {model.eval().prepare(image).sizes[0][0] for _ in range(9)} == {64}


def test_half_precision() -> None:
    model = confident_detector().to(torch.bfloat16)
    found = detections(model, random_images((48, 80)))[0]
    assert len(found["scores"])
    assert found["boxes"].isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        loss = losses(confident_detector(), random_images((48, 80)), [target([[5, 5, 60, 40]])])
    assert all(value.dtype == torch.float32 and value.isfinite() for value in loss.values())


def test_a_detector_can_be_trained_after_detecting() -> None:
    """Tensors cached in inference mode could not be differentiated."""
    for name in ("nas_fcos", "retinanet"):
        decoder = load(resources.folder("genotypes") / f"{name}.nas").with_width(64)
        model = detector(decoder, body(), classes=2, min_size=64, seed=0).eval()
        image = random_images((64, 96))[0]
        model.detect(image)
        torch.stack(list(losses(model, [image], [target([[5, 5, 60, 40]])]).values())).sum().backward()


# -------------------------------------------------------------------------------------------------- targets and errors


@pytest.mark.parametrize("predict", PREDICTS)
def test_targets_without_boxes(predict: str) -> None:
    model = small_detector(predict)
    for empty in (target([]), {"boxes": torch.zeros(0), "labels": torch.zeros(0)}):
        found = losses(model, random_images((48, 80)), [empty])
        assert found["classification"] > 0
        assert all(loss == 0 for name, loss in found.items() if name != "classification")
        torch.stack(list(found.values())).sum().backward()


@pytest.mark.parametrize("predict", PREDICTS)
def test_empty_boxes_and_boxes_outside(predict: str) -> None:
    boxes = [[30.0, 20, 30, 20], [10, 10, 50, 10], [500, 500, 600, 600], [-50, -50, -5, -5], [40, 40, 20, 20]]
    model, images = small_detector(predict), random_images((48, 80))
    found = losses(model, images, [target(boxes)])
    assert all(loss.isfinite() for loss in found.values())
    torch.stack(list(found.values())).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    if predict == FCOS:
        assert found["bbox_regression"] == 0, "no location is inside these boxes"


@pytest.mark.parametrize("layout", ["list", "batch"])
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, "needs targets; call .eval()"),
        ([], "1 images and 0 targets"),
        ([target([[0, 0, 9, 9]], [3])], "labels 3 to 3; expected 0 to 2: 3 classes, without a background class"),
        ([target([[0, 0, 9, 9], [0, 0, 9, 9]], [1, -1])], "labels -1 to 1; expected 0 to 2"),
        ([{"labels": torch.zeros(1)}], "target 0 has labels; expected boxes, labels"),
        ([{"boxes": torch.zeros(1, 4)}], "target 0 has boxes; expected boxes, labels"),
        ([{"boxes": torch.zeros(2, 4), "labels": torch.zeros(1)}], r"boxes of shape \[2, 4\] and labels of shape \[1\]"),
    ],
)
def test_invalid_targets_are_named(layout: str, targets: Any, message: str) -> None:
    images = random_images((48, 80))
    with pytest.raises((DetectorError, DetectionError), match=message):
        losses(small_detector(), images if layout == "list" else torch.stack(images), targets)


@pytest.mark.parametrize(
    ("images", "named", "message"),
    [
        ([], {}, "a non-empty list of images"),
        (torch.zeros(0, 3, 8, 8), {}, r"is \[N, 3, H, W\]; got \[0, 3, 8, 8\]"),
        (torch.zeros(3, 8, 8), {}, r"is \[N, 3, H, W\]; got \[3, 8, 8\]"),
        (torch.zeros(2, 1, 8, 8), {}, r"got \[2, 1, 8, 8\]"),
        ([torch.zeros(1, 8, 8)], {}, r"is \[3, H, W\]; got \[1, 8, 8\]"),
        ([torch.zeros(3, 0, 8)], {}, r"got \[3, 0, 8\]"),
        (torch.zeros(2, 3, 8, 8), {"sizes": [(8, 8)]}, "without padding of each of 2 images of 8x8"),
        (torch.zeros(1, 3, 8, 8), {"sizes": [(8, 9)]}, "of 8x8"),
        ([torch.zeros(3, 8, 8)], {"sizes": [(8, 8)]}, "a batch of images with `sizes`"),
    ],
)
def test_invalid_images_are_named(images: Any, named: Any, message: str) -> None:
    with pytest.raises(DetectorError, match=message):
        detections(small_detector(), images, **named)


def test_detecting_in_training_mode_is_an_error() -> None:
    with pytest.raises(DetectorError, match=r"call \.eval"):
        small_detector().train().detect(random_images((48, 80))[0])


# ------------------------------------------------------------------------------------------------ building a detector


def test_names_and_ids_of_classes() -> None:
    assert small_detector(classes=2).classes == ("class 0", "class 1")
    assert small_detector(classes=2).category_ids == (1, 2)
    model = small_detector(classes=["cat", "dog"], category_ids=[17, 90])
    assert (model.classes, model.category_ids) == (("cat", "dog"), (17, 90))
    with pytest.raises(DetectorError, match="2 classes and 3 category ids"):
        small_detector(classes=2, category_ids=[1, 2, 3])
    for none in (0, []):
        with pytest.raises(DetectorError, match="at least one class"):
            small_detector(classes=none)


def test_options_of_named_backbones_are_refused_for_custom_ones() -> None:
    with pytest.raises(DetectorError, match="backbone_weights, freeze_at cannot be given with a custom backbone"):
        small_detector(freeze_at=0, backbone_weights="imagenet")


def test_the_seed_determines_the_weights_and_keeps_the_random_state() -> None:
    def weights(seed: int | None) -> list[Tensor]:
        model = detector(loads(TEXT.replace("PREDICT", FCOS)), "mobilenet_v2", classes=2, seed=seed)
        return [p.detach() for p in model.parameters()]

    torch.manual_seed(5)
    first = weights(1)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(1))
    assert all(torch.equal(a, b) for a, b in zip(first, weights(1), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, weights(2), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(None), weights(None), strict=True))


def test_options_of_the_method() -> None:
    assert small_detector(FCOS).method == Fcos()
    model = small_detector(FCOS, center_radius=1.5, box_loss="giou", ranges=[32, 64], detections=7)
    assert model.method == Fcos(center_radius=1.5, box_loss="giou", ranges=(32.0, 64.0), detections=7)
    assert small_detector(RETINANET, nms=1).method == Retinanet(anchors=9, nms=1)
    assert small_detector("retinanet(anchors=3)").method == Retinanet(anchors=3)
    assert len(detections(confident_detector(FCOS, detections=2), random_images((48, 80)))[0]["scores"]) == 2


@pytest.mark.parametrize(
    ("predict", "options", "message"),
    [
        (FCOS, {"centre_radius": 1.5}, "unknown option centre_radius; Fcos has ranges, .*center_radius"),
        (RETINANET, {"center_radius": 1.5}, "center_radius is an option of Fcos, and .*: leave it out; Retinanet has"),
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
def test_invalid_options_are_named(predict: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises((DetectorError, DetectionError), match=message):
        small_detector(predict, **options)


def test_custom_backbones() -> None:
    """The decoder reads features of a custom backbone by name; missing ones are named."""
    model = small_detector(norm=True)
    assert isinstance(model.backbone.body, Body)
    assert model.config["backbone"] is None
    with pytest.raises(DetectorError, match="built with a custom backbone; give the same one as backbone="):
        from_config(model.config)
    again = from_config(model.config, body(norm=True)).eval()
    again.load_state_dict(model.state_dict())
    image = random_images((48, 80))[0]
    assert torch.equal(model.prepare([image]).images, again.prepare([image]).images)
    fewer = FeatureExtractor(Patches(), ("c3", "c4"))
    with pytest.raises(MissingFeature, match="reads c5; the backbone gives c3"):
        detector(loads(TEXT.replace("PREDICT", FCOS)), fewer)


def test_the_normalisation_is_part_of_the_weights() -> None:
    """Another mean and deviation, such as MSRA's, is in a detector's weights, not in its config."""
    extractor = FeatureExtractor(Body(), FEATURES, mean=MSRA_MEAN, std=MSRA_STD)
    model = detector(loads(TEXT.replace("PREDICT", FCOS)), extractor, classes=3, min_size=64, seed=0).eval()
    again = from_config(json.loads(json.dumps(model.config)), body()).eval()
    image = random_images((48, 80))[0]
    assert not torch.allclose(model.prepare([image]).images, again.prepare([image]).images)
    again.load_state_dict(model.state_dict())
    batch = again.prepare(image[None]).images[0]
    grey = torch.tensor([122.7717, 115.9465, 102.9801]).view(3, 1, 1)
    torch.testing.assert_close(batch, image.float() - grey, rtol=0, atol=1e-3)
    assert torch.equal(model.prepare([image]).images, again.prepare([image]).images)
    assert again.backbone.mean == pytest.approx(MSRA_MEAN)


@pytest.mark.long
def test_configs_of_the_zoo_round_trip_through_json(zoo_path: Path) -> None:
    backbone = "resnet50" if zoo_path.stem in ("fcos", "nas_fpn") else "mobilenet_v2"
    decoder = load(zoo_path).with_width(64)
    is_fcos = "predict fcos" in str(decoder)
    options: dict[str, Any] = {"center_radius": 1.5, "ranges": [32, 64, 128, 256]} if is_fcos else {"nms": 0.55}
    with torch.device("meta"):  # only names and shapes: the networks are large
        model = detector(
            decoder, backbone, classes=["a", "ß"], category_ids=[3, 90], freeze_at=3, norm="frozen",
            min_size=(64, 80), max_size=99, size_divisible=4, **options,
        )  # fmt: skip
        again = from_config(json.loads(json.dumps(model.config)))
    assert again.config == model.config
    assert again.method == model.method
    assert (again.classes, again.category_ids) == (("a", "ß"), (3, 90))
    shapes = [{name: value.shape for name, value in d.state_dict().items()} for d in (model, again)]
    assert shapes[0] == shapes[1]
    trained = [[name for name, p in d.named_parameters() if p.requires_grad] for d in (model, again)]
    assert trained[0] == trained[1]
    assert trained[0][0].startswith("backbone.body.layer3" if backbone == "resnet50" else "backbone.body.features.7")


# ---------------------------------------------------------------------------------------------------------- learning


@pytest.mark.parametrize(
    ("predict", "options"),
    [
        pytest.param(FCOS, {"ranges": (24, 48), "reference_size": None}, marks=pytest.mark.long),
        (IMPROVED, {"ranges": (24, 48), "reference_size": None, "center_radius": 1.5, "box_loss": "giou"}),
        pytest.param(RETINANET, {}, marks=pytest.mark.long),
    ],
    ids=["fcos", "improvements", "retinanet"],
)
def test_overfitting_two_images(predict: str, options: dict[str, Any]) -> None:
    """Targets, losses, predictions and boxes are consistent, in pixels of the originals (240x320)."""
    data = open_dataset("shapes:2", "train")
    images, targets = [data[i].image for i in range(2)], [data[i].target for i in range(2)]
    model, steps = small_detector(predict, classes=data.classes, norm=True, fixed_size=(96, 128), **options).train(), 120
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=steps)
    for _ in range(steps):
        torch.stack(list(losses(model, images, targets).values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    found = detections(model.eval(), images)
    measured = evaluate(data.ground_truth(), to_results(found, [0, 1], model.category_ids), ("coco", "voc12"))
    assert measured.coco is not None
    assert measured.coco.ap50 > 0.8
    assert measured.coco.ap > 0.6
