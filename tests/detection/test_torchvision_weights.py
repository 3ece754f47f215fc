"""Weights of torchvision's FCOS and RetinaNet: its own modules at random weights give the same maps and detections."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

from nasdsl import load, resources
from nasdsl.data import open_dataset
from nasdsl.detection.detector import Detector
from nasdsl.detection.factory import detector, load_detector
from nasdsl.detection.torchvision_weights import convert, is_torchvision_detector
from nasdsl.detection.weights import read_weights

FCOS, RETINANET, RETINANET_V2 = "fcos_resnet50_fpn", "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2"
ZOO = {FCOS: "fcos", RETINANET: "retinanet", RETINANET_V2: "retinanet_v2"}
COCO = Path(__file__).parents[2].with_name("shared") / "data" / "coco_cc_dev"
SIZE = (128, 256)
"""A multiple of the coarsest stride: elsewhere torchvision's anchors and locations are not a stride apart."""


def torchvision_model(name: str, **options: Any) -> nn.Module:
    options = {"weights": None, "weights_backbone": None, **options}
    return getattr(detection, name)(**options).eval()


def on_meta(name: str, **options: Any) -> dict[str, Tensor]:
    """Names and shapes of the weights alone."""
    with torch.device("meta"):
        return torchvision_model(name, **options).state_dict()


def zoo(name: str) -> Any:
    return load(resources.folder("genotypes") / f"{name}.nas")


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def random_model(name: str, image: Tensor, **options: Any) -> nn.Module:
    """A model of torchvision with random weights and statistics, whose scores are spread and whose boxes are of many sizes."""
    torch.manual_seed(0)
    options = {"min_size": min(SIZE), "max_size": max(SIZE), "detections_per_img": 100, **options}
    model = torchvision_model(name, score_thresh=0.0 if name == FCOS else 0.05, **options)
    for key, buffer in model.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif key.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    features = list(model.backbone(model.transform([image])[0].tensors).values())
    for head, conv, mean, spread in (
        ("classification_head", "cls_logits", -4.0, 1.5),
        ("regression_head", "bbox_reg", 3.0 if name == FCOS else 0.0, 0.5 if name == FCOS else 0.3),
        *([("regression_head", "bbox_ctrness", 0.0, 1.0)] if name == FCOS else []),
    ):
        part = getattr(model.head, head)
        layer = getattr(part, conv)
        layer.bias.zero_()
        values = torch.cat([layer(part.conv(x)).flatten(1) for x in features], dim=1)
        layer.weight.mul_(spread / values.std())
        layer.bias.normal_(mean, 0.1)
    return model


def raw_maps(model: nn.Module, image: Tensor) -> list[dict[str, Tensor]]:
    """The maps of each level before any activation, of torchvision's model."""
    with torch.no_grad():
        found = []
        for x in model.backbone(model.transform([image])[0].tensors).values():
            cls, box = model.head.classification_head, model.head.regression_head
            tower = box.conv(x)
            maps = {"cls_logits": cls.cls_logits(cls.conv(x)), "bbox_reg": box.bbox_reg(tower)}
            if hasattr(box, "bbox_ctrness"):
                maps["centerness"] = box.bbox_ctrness(tower)
            found.append(maps)
    return found


@pytest.mark.parametrize("name", [FCOS, *(pytest.param(name, marks=pytest.mark.long) for name in (RETINANET, RETINANET_V2))])
def test_maps_and_detections_are_those_of_torchvision(name: str, image: Tensor, tmp_path: Path) -> None:
    theirs = random_model(name, image)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = load_detector(tmp_path / "theirs.pth")
    ours.transform.min_size, ours.transform.max_size = (min(SIZE),), max(SIZE)
    same_maps(theirs, ours, image)
    same_detections(theirs, ours, image)


def same_maps(theirs: nn.Module, ours: Detector, image: Tensor) -> None:
    with torch.no_grad():
        predictions = ours.decoder(ours.backbone(ours.prepare([image]).images))
    rows = torch.tensor(ours.category_ids)
    for expected, found, stride in zip(raw_maps(theirs, image), predictions.values(), (8, 16, 32, 64, 128), strict=True):
        anchors = 1 if found.centerness is not None else 9
        logits = expected["cls_logits"].unflatten(1, (anchors, 91))[:, :, rows].flatten(1, 2)
        torch.testing.assert_close(found.cls_logits, logits, rtol=1e-4, atol=1e-4)
        boxes = expected["bbox_reg"]
        if found.centerness is not None:
            torch.testing.assert_close(found.centerness, expected["centerness"], rtol=1e-4, atol=1e-4)
            # Distances from the center of a cell instead of its corner, in pixels.
            boxes = (boxes + torch.tensor([0.5, 0.5, -0.5, -0.5]).view(1, 4, 1, 1)).relu() * stride
        torch.testing.assert_close(found.bbox_reg, boxes, rtol=1e-4, atol=1e-4)


def same_detections(theirs: nn.Module, ours: Detector, image: Tensor) -> None:
    """As far as the methods agree: torchvision ranks by the square root of what ours ranks by, and keeps empty boxes and the
    classes that COCO does not have."""
    if ours.decoder.graph.predict.kind == "fcos":
        object.__setattr__(ours.method, "score_threshold", 0.0)
    absent = [row for row in range(91) if row not in ours.category_ids]
    cls = theirs.head.classification_head.cls_logits
    with torch.no_grad():
        cls.bias.unflatten(0, (-1, 91))[:, absent] = -100
        cls.weight.unflatten(0, (-1, 91))[:, absent] = 0
        expected, found = theirs([image])[0], ours([image])[0]
    assert len(found["scores"]) == len(expected["scores"]) == 100
    scores = expected["scores"].square() if ours.decoder.graph.predict.kind == "fcos" else expected["scores"]
    torch.testing.assert_close(found["scores"], scores, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=1e-5, atol=1e-3)
    assert torch.equal(torch.tensor(ours.category_ids)[found["labels"]], expected["labels"])
    assert len(found["scores"].unique()) > 90


@pytest.mark.parametrize(("name", "prefix"), [(FCOS, "module."), (RETINANET, ""), (RETINANET_V2, "")])
def test_every_weight_has_its_place(name: str, prefix: str) -> None:
    """All names and shapes are those of the detector, and nothing is left over."""
    given = {prefix + key: value for key, value in on_meta(name).items()}
    assert is_torchvision_detector(given)
    weights, config, _ = convert(given)
    text = config["decoder"]
    assert re.search(rf"^decoder {ZOO[name]} ", text, re.M)
    with torch.device("meta"):
        model = detector(zoo(ZOO[name]).with_prediction(re.search(r"predict (.*)", text)[1]), "resnet50_v1.5")
    own = {key: list(value.shape) for key, value in model.state_dict().items()}
    found = {key: list(value.shape) for key, value in weights.items()}
    assert {k: v for k, v in own.items() if "tracked" not in k} == {k: v for k, v in found.items() if "tracked" not in k}
    assert len(config["classes"]) == 80
    assert config["classes"][0] == "person"
    assert (config["category_ids"][0], config["category_ids"][-1]) == (1, 90)


def test_names_of_the_published_files() -> None:
    """The files are older than the names that torchvision gives now, which its own loading translates."""
    for name in (FCOS, RETINANET):
        new = on_meta(name)
        old = {}
        for key, value in new.items():
            key = re.sub(r"(inner_blocks|layer_blocks)\.(\d)\.0\.", r"\1.\2.", key)
            if name == RETINANET:
                key = re.sub(r"(head\.conv)\.(\d)\.0\.", lambda found: f"{found[1]}.{2 * int(found[2])}.", key)
            old[key] = value
        assert old.keys() != new.keys()
        one, other = convert(old), convert(new)
        assert one[1] == other[1]
        assert {k: v.shape for k, v in one[0].items()} == {k: v.shape for k, v in other[0].items()}


def test_the_published_retinanet_has_no_epsilon() -> None:
    variance = torch.tensor([0.5, 2.0])
    given = {key: torch.zeros(value.shape) if value.numel() < 1000 else value for key, value in on_meta(RETINANET).items()}
    given = {re.sub(r"(head\.conv)\.(\d)\.0\.", lambda f: f"{f[1]}.{2 * int(f[2])}.", k): v for k, v in given.items()}
    given["backbone.body.bn1.running_var"] = variance
    assert torch.equal(convert(given)[0]["backbone.body.bn1.running_var"] + 1e-5, variance)


def test_rows_of_classes_follow_the_names_of_the_data(tmp_path: Path) -> None:
    """For COCO's classes the rows of their ids; for data with some of them, those; for others a new layer."""
    given = {key: torch.zeros(()).expand(value.shape) for key, value in on_meta(FCOS).items()}
    given = {key: torch.zeros(3).sum().expand(value.shape) for key, value in given.items()}
    bias = torch.arange(91, dtype=torch.float32)
    given["head.classification_head.cls_logits.bias"] = bias
    torch.save(given, tmp_path / "fcos.pth")
    saved = read_weights(tmp_path / "fcos.pth")
    decoder = zoo("fcos").with_prediction("fcos(centerness=box, boxes=relu)")
    ids = {"zebra": 24, "person": 1, "toothbrush": 90, "traffic light": 10}
    model = detector(decoder, "tiny", classes=[*ids, "helmet"])
    result = saved.inherit(model)
    own = model.state_dict()["decoder.head.cls_logits.bias"]
    assert own[:4].tolist() == [float(row) for row in ids.values()]
    assert own[4] == pytest.approx(-4.595, abs=1e-3)
    text = str(result)
    assert "anew are the classes helmet" in text
    assert "the weights are of resnet50_v1.5, this is tiny" in text
    other = detector(decoder, "tiny", classes=["helmet", "vest"])
    assert "it begins anew: none of the 2 classes" in str(saved.inherit(other))


@pytest.mark.skipif(not COCO.is_dir(), reason="THE SHARED TEST DATA IS MISSING: coco_cc_dev beside the checkout")
def test_classes_of_coco_as_the_data_has_them() -> None:
    dataset = open_dataset(f"coco:{COCO}", "val")
    config = convert(on_meta(FCOS)).config
    assert tuple(config["classes"]) == dataset.classes
    assert tuple(config["category_ids"]) == dataset.category_ids


def test_a_decoder_that_cannot_hold_all_of_it(tmp_path: Path) -> None:
    """What differs is told: other boxes, P6 from another map, another backbone's strides."""
    given = {key: torch.zeros(()).expand(value.shape) for key, value in on_meta(FCOS, num_classes=4).items()}
    torch.save(given, tmp_path / "fcos.pth")
    with pytest.warns(UserWarning, match="parameters are inherited") as warned:
        model = detector(zoo("fcos"), "resnet50", tmp_path / "fcos.pth", classes=4)
    (message,) = (str(warning.message) for warning in warned)
    assert "box layer: nothing; the weights are of a detector that measures boxes in another way" in message
    assert "strides elsewhere than resnet50_v1.5" in message
    assert "zoo:fcos --improvements --backbone resnet50_v1.5 holds all of them" in message
    assert model.config["backbone"] == {"name": "resnet50", "freeze_at": 2, "norm": "frozen"}


def test_other_detectors_of_torchvision() -> None:
    assert not is_torchvision_detector(on_meta("fasterrcnn_resnet50_fpn"))
    assert not is_torchvision_detector({"head.classification_head.module_list.0.0.weight": torch.zeros(3)})


def test_a_retinanet_with_other_anchors_or_levels_gives_its_backbone(tmp_path: Path) -> None:
    """No decoder of the zoo is like it. Its names are read as they are, and those of the backbone are the same."""
    given = {key: torch.zeros(()).expand(value.shape) for key, value in on_meta(RETINANET).items()}
    three = {
        key: value[: len(value) // 3] if "cls_logits" in key or "bbox_reg" in key else value for key, value in given.items()
    }
    pooled = {key: value for key, value in given.items() if "extra_blocks" not in key}
    for weights in (three, pooled):
        torch.save(weights, tmp_path / "retinanet.pth")
        with pytest.warns(UserWarning, match="backbone: 100 % of"):
            detector(zoo("retinanet"), "resnet50_v1.5", tmp_path / "retinanet.pth", classes=4)
