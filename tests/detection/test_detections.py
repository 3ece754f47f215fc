"""`Detector.predict` and `Detections`: every kind of input, the same as in an evaluation, and what the result can do."""

from __future__ import annotations

import io
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_detectors import FCOS, RETINANET, confident_detector, random_images
from torch import Tensor

import nasdsl
from nasdsl.data import Transform, UnreadableImage, open_dataset, read_image
from nasdsl.detection.detections import Detections
from nasdsl.detection.detector import Detector
from nasdsl.detection.inference import for_inference
from nasdsl.detection.prediction import _MOST_WAITING, _batches
from nasdsl.detection.pyramid import DetectionError
from nasdsl.detection.visualization import class_color
from nasdsl.training.predict import predict as predict_dataset


@pytest.fixture(scope="module")
def model() -> Detector:
    return confident_detector(FCOS, classes=["cat", "dog", "cow"], category_ids=[17, 18, 21])


def picture(size: tuple[int, int] = (60, 100), seed: int = 0) -> Image.Image:
    return Image.fromarray(random_images(size, seed=seed)[0].permute(1, 2, 0).numpy())


def same(left: Detections, right: Detections, exactly: bool = True) -> None:
    assert len(left) == len(right) > 0
    for one, other in ((left.boxes, right.boxes), (left.scores, right.scores), (left.labels, right.labels)):
        if exactly:
            assert torch.equal(one, other)
        else:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


# ----------------------------------------------------------------------------------------------- inputs


def test_every_kind_of_input_gives_the_same(model: Detector, tmp_path: Path) -> None:
    one = picture()
    file = tmp_path / "a.png"
    one.save(file)
    array = np.asarray(one)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    expected = model.predict(str(file))
    assert isinstance(expected, Detections)
    for given in (file, one, array, array[:, ::1], tensor, tensor.contiguous()):
        found = model.predict(given)
        assert isinstance(found, Detections)
        same(found, expected)
        listed = model.predict([given])
        assert isinstance(listed, list)
        same(listed[0], expected)
    floats = model.predict(tensor.float() / 255)
    assert (floats.size, floats.image.shape) == ((60, 100), (3, 60, 100))
    torch.testing.assert_close(floats.scores, expected.scores, rtol=0, atol=0.05)
    assert torch.equal(floats.image, tensor)
    folder, batch, mixed = model.predict(tmp_path), model.predict(tensor[None]), model.predict([file, tmp_path, one, array])
    assert [len(x) for x in (folder, batch, mixed)] == [1, 1, 4]
    for found in (*folder, *batch, *mixed):
        same(found, expected, exactly=False)
    assert model.predict([]) == []


def test_the_exif_orientation_of_files_and_images(model: Detector, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(tmp_path / "turned.png", exif=exif)
    found = model.predict(tmp_path / "turned.png")
    assert (found.size, found.image.shape[1:]) == ((100, 60), (100, 60))
    assert (found.boxes[:, 2] <= 60).all()
    assert found.boxes[:, 3].max() > 60
    with Image.open(tmp_path / "turned.png") as opened:
        same(model.predict(opened), found)
    same(model.predict(read_image(tmp_path / "turned.png")), found)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_images_of_pillow_of_every_mode(model: Detector, mode: str, tmp_path: Path) -> None:
    one = (
        Image.fromarray(np.asarray(picture().convert("L")).astype(np.uint16) * 257)
        if mode == "I;16"
        else picture().convert(mode)
    )
    assert one.mode == mode
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    one.save(file)
    same(model.predict(one), model.predict(file))


def test_many_sizes_keep_their_order(model: Detector) -> None:
    sizes = [(60, 100), (100, 60), (64, 64), (60, 100), (1, 300)] * 3
    images = [random_images(size, seed=number)[0] for number, size in enumerate(sizes)]
    for batch_size in (2, 8):
        found = model.predict(images, batch_size=batch_size)
        assert [f.size for f in found] == sizes
        for image, one in zip(images, found, strict=True):
            alone = model.predict(image)
            assert len(one) == len(alone)
            torch.testing.assert_close(one.scores, alone.scores, rtol=1e-4, atol=1e-5)
            assert torch.equal(one.image, image)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (3, "a int was given; expected a path, a folder, an image"),
        (b"abc", "a bytes was given"),
        (np.zeros((5, 5, 3)), r"an array is uint8 \[H, W, 3\], RGB; got float64 \[5, 5, 3\]"),
        (np.zeros((3, 5, 5), np.uint8), r"an array is uint8 .*; got uint8 \[3, 5, 5\]"),
        (torch.zeros(5, 5, 3), r"a tensor is \[3, H, W\], or \[N, 3, H, W\]; got \[5, 5, 3\]"),
        (torch.zeros(3, 0, 3), "a tensor is"),
        (torch.full((3, 5, 5), 255.0), "a tensor of floats is 0 to 1; got 255 to 255"),
        (torch.zeros(3, 5, 5, dtype=torch.int32), "a tensor is uint8, or float 0 to 1; got int32"),
        ("clip.mp4", "clip.mp4 is a video; `nasdsl detect` takes videos"),
    ],
    ids=str,
)
def test_other_inputs_are_refused(model: Detector, given: Any, told: str) -> None:
    for one in (given, [given]):
        with pytest.raises(DetectionError, match=told):
            model.predict(one)


def test_broken_files_are_named(model: Detector, tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    with pytest.raises(UnreadableImage, match=r"nowhere\.png: no such file"):
        model.predict([tmp_path / "a.png", tmp_path / "nowhere.png"])
    with pytest.raises(DetectionError, match="no images in the folder"):
        model.predict((tmp_path / "empty").mkdir() or tmp_path / "empty")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    with pytest.raises(UnreadableImage, match=r"cut\.png: cannot be decoded"):
        model.predict(tmp_path)
    for options in ({"threshold": 1.5}, {"threshold": -1}, {"batch_size": 0}):
        with pytest.raises(DetectionError, match="expected 0 to 1, and 1 or more"):
            model.predict(picture(), **options)


# ----------------------------------------------------------------------------------------------- the detector


def test_the_mode_is_restored() -> None:
    model = confident_detector(FCOS, norm=True)
    expected = model.predict(picture())
    model.train()
    model.backbone.body.stages[0].eval()
    modes = {name: part.training for name, part in model.named_modules()}
    before = {k: v.clone() for k, v in model.state_dict().items()}
    same(model.predict(picture()), expected)
    assert {name: part.training for name, part in model.named_modules()} == modes
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(UnreadableImage):
        model.predict("nowhere.png")
    assert {name: part.training for name, part in model.named_modules()} == modes
    losses = model(random_images((64, 64)), [{"boxes": torch.tensor([[2.0, 2, 40, 40]]), "labels": torch.tensor([0])}])
    sum(losses.values()).backward()


@pytest.mark.parametrize(
    ("predict", "options"),
    [(FCOS, {}), (FCOS, {"size_divisible": 32}), (RETINANET, {"fixed_size": (64, 96)})],
    ids=["resized", "padded", "fixed"],
)
def test_the_same_as_in_an_evaluation(predict: str, options: dict[str, Any]) -> None:
    dataset = open_dataset("shapes:4", "val")
    options = {"min_size": 100, "max_size": 160, **options}
    model = confident_detector(predict, classes=dataset.classes, category_ids=dataset.category_ids, **options)
    for one in (model, for_inference(model)):
        divisible = model.transform.size_divisible
        results = predict_dataset(one, dataset, batch_size=2, size_divisible=divisible, channels_last=one is not model).results
        found = one.predict([dataset[i].image for i in range(len(dataset))], batch_size=2)
        coco = [entry for index, f in enumerate(found) for entry in f.to_coco(dataset.image_id(index))]
        names = ("image_id", "category_id", "bbox", "score")
        assert len(results) > 50
        assert [{name: entry[name] for name in names} for entry in coco] == results


@pytest.mark.parametrize("size", [(48, 80), (64, 128)])
def test_the_same_as_the_detector_called_directly(model: Detector, size: tuple[int, int]) -> None:
    """Where nothing is resized."""
    image = random_images((64, 128))[0]
    raw = model.detect(image)
    found = model.predict(image)
    assert torch.equal(found.boxes, raw["boxes"])
    assert torch.equal(found.scores, raw["scores"])


# ----------------------------------------------------------------------------------------------- the result


def found_in(image: Tensor | Path, **options: Any) -> Detections:
    return Detections(
        torch.tensor([[10.0, 20, 40, 50], [60, 10, 90, 50], [5, 5, 9, 9]]),
        torch.tensor([0.9, 0.5, 0.1]),
        torch.tensor([1, 0, 1]),
        ("cat", "dog"),
        (17, 18),
        (60, 100),
        image,
        **options,
    )


GREY = torch.full((3, 60, 100), 128, dtype=torch.uint8)


def test_length_iteration_and_indices() -> None:
    found = found_in(GREY)
    assert (len(found), found.names) == (3, ["dog", "cat", "dog"])
    assert [one.name for one in found] == found.names
    assert found[0] == ("dog", pytest.approx(0.9), (10.0, 20.0, 40.0, 50.0), 1)
    assert found[-1].box == (5.0, 5.0, 9.0, 9.0)
    for index in (3, -4):
        with pytest.raises(IndexError):
            found[index]
    assert found[found.scores.argmax()] == found[np.int64(0)] == found[0]
    for index in (slice(1, None), [1, 2], torch.tensor([1, 2]), torch.tensor([False, True, True]), found.scores < 0.6):
        part = found[index]
        assert isinstance(part, Detections)
        assert part.names == ["cat", "dog"]
        assert torch.equal(part.boxes, found.boxes[1:])
    assert len(found[[]]) == 0
    assert list(found[[]]) == []


def test_filter() -> None:
    found = found_in(GREY)
    assert found.filter(0.5).names == ["dog", "cat"]
    assert found.filter(classes="dog").names == ["dog", "dog"]
    assert found.filter(0.5, ["dog"]).names == ["dog"]
    assert len(found.filter(classes=[])) == 0
    assert found.filter(0.5).filter(0.2).threshold == 0.5
    with pytest.raises(DetectionError, match="no class 'cow', 'bird'; the detector has cat, dog"):
        found.filter(classes=["cow", "cat", "bird"])


def test_the_threshold_of_predict(model: Detector) -> None:
    every = model.predict(picture())
    middle = float(every.scores.median())
    some = model.predict(picture(), threshold=middle)
    assert 0 < len(some) < len(every)
    assert torch.equal(some.scores, every.scores[every.scores >= middle])


def colors(drawn: Image.Image) -> set[tuple[int, int, int]]:
    return {color for _, color in drawn.convert("RGB").getcolors(1 << 20)}


def test_drawing(tmp_path: Path) -> None:
    found = found_in(GREY)
    drawn = found.draw()
    assert (drawn.mode, drawn.size) == ("RGB", (100, 60))
    drawn.save(tmp_path / "found.png")
    assert {class_color(0), class_color(1)} <= colors(drawn)
    assert class_color(0) not in colors(found.draw(0.6))
    assert class_color(0) not in colors(found.filter(0.6).draw())
    low = found_in(GREY)[[2]]
    assert class_color(1) not in colors(low.draw()), "it is below 0.3"
    assert class_color(1) in colors(low.filter(0.05).draw()), "unless a threshold was given"
    Image.fromarray(GREY.permute(1, 2, 0).numpy()).save(tmp_path / "grey.png")
    assert np.array_equal(found_in(tmp_path / "grey.png").draw(), drawn)
    assert np.array_equal(found_in(GREY / 255).draw(), drawn)


def test_the_line_and_what_notebooks_show(tmp_path: Path) -> None:
    assert repr(found_in(GREY)) == "Detections(100x60: 1 dog, 1 cat; 1 below 0.3)"
    assert repr(found_in(GREY, threshold=0.05)) == "Detections(100x60: 2 dog, 1 cat)"
    assert repr(found_in(GREY)[[]]) == "Detections(100x60: no objects)"
    assert repr(found_in(Path("a<b.png"))[[]]) == "Detections(a<b.png, 100x60: no objects)"
    with Image.open(io.BytesIO(found_in(GREY)._repr_png_())) as shown:
        assert (shown.format, shown.size) == ("PNG", (100, 60))
    page = found_in(GREY)._repr_html_()
    assert 'src="data:image/jpeg;base64,' in page
    assert "1 dog, 1 cat; 1 below 0.3)</figcaption>" in page
    Image.fromarray(GREY.permute(1, 2, 0).numpy()).save(tmp_path / "a&b.png")
    assert "a&amp;b.png, 100x60" in found_in(tmp_path / "a&b.png")._repr_html_()


def test_coco() -> None:
    from pycocotools.coco import COCO

    truth = {"images": [{"id": 7, "height": 60, "width": 100}], "categories": [{"id": 17}, {"id": 18}], "annotations": []}
    api = COCO()
    api.dataset = truth
    api.createIndex()
    made = found_in(GREY).to_coco(7, first_id=5)
    assert json.loads(json.dumps(made)) == made
    assert [(a["id"], a["image_id"], a["category_id"]) for a in made] == [(5, 7, 18), (6, 7, 17), (7, 7, 18)]
    assert made[0]["bbox"] == [10, 20, 30, 30]
    assert made[0]["area"] == 900
    assert len(api.loadRes(made).getAnnIds()) == 3


def test_supervision() -> None:
    supervision = pytest.importorskip("supervision")
    made = found_in(GREY).to_supervision()
    assert isinstance(made, supervision.Detections)
    assert made.xyxy.tolist() == found_in(GREY).boxes.tolist()
    assert made.class_id.tolist() == [1, 0, 1]
    assert list(made["class_name"]) == ["dog", "cat", "dog"]
    assert made.confidence.tolist() == pytest.approx([0.9, 0.5, 0.1])
    empty = found_in(GREY)[[]].to_supervision()
    assert len(empty) == 0
    assert len(made[made.confidence > 0.4]) == 2


def test_supervision_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ImportError, match=r"pip install 'nasdsl\[supervision\]'"):
        found_in(GREY).to_supervision()
    fake = types.ModuleType("supervision")
    fake.Detections = lambda **fields: fields  # type: ignore[attr-defined]  # a module of its own
    monkeypatch.setitem(sys.modules, "supervision", fake)
    made = found_in(GREY).to_supervision()
    assert sorted(made) == ["class_id", "confidence", "data", "xyxy"]
    assert made["xyxy"].shape == (3, 4)


def test_a_public_name() -> None:
    assert nasdsl.Detections is Detections
    assert isinstance(nasdsl.Detector.predict, types.FunctionType)


def test_of_images_of_many_sizes_few_wait_in_memory() -> None:
    """Those of a size of their own never fill a batch; what waits is detected before more is read."""
    read: list[int] = []

    class Images(list[Tensor]):
        def __iter__(self) -> Iterator[Tensor]:
            for number, image in enumerate(super().__iter__()):
                read.append(number)
                yield image

    images = Images(torch.zeros(3, 40, 40 + 2 * number, dtype=torch.uint8) for number in range(20))
    seen: list[int] = []
    for numbers, batch in _batches(images, Transform(40, 200), 2):
        assert len(numbers) == len(batch)
        seen += numbers
        assert len(read) - len(seen) < 2 * _MOST_WAITING
    assert seen == list(range(20))
