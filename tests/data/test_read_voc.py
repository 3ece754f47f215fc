"""Reading VOC folders: coordinates, classes, splits, and errors."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from data_folders import picture, voc_object, voc_xml

from nasdsl.data import BrokenData, DataError, open_dataset
from nasdsl.data.voc import VOC_CLASSES

Make = Callable[..., Path]


def _open(root: Path, split: str = "train", **options: object):
    return open_dataset(f"voc:{root}", split, **options)


def test_real_folder(bccd: str) -> None:
    counts = {split: _open(Path(bccd), split) for split in ("train", "val", "test")}
    assert {split: len(data) for split, data in counts.items()} == {"train": 205, "val": 87, "test": 72}
    assert all(data.classes == ("Platelets", "RBC", "WBC") and data.category_ids == (1, 2, 3) for data in counts.values())
    boxes = sum(len(data.ground_truth()["annotations"]) for data in counts.values())
    skipped = [entry for data in counts.values() for entry in data.skipped]
    assert boxes + len(skipped) == 4888
    assert {entry.image_id for entry in skipped} == {"BloodImage_00338", "BloodImage_00343"}
    assert all(entry.box and "no box" in entry.reason for entry in skipped)
    assert not any(data.clipped for data in counts.values())
    data = counts["train"]
    image, target = data[0]
    element = ElementTree.parse(Path(bccd) / "Annotations" / f"{target['image_id']}.xml").getroot()
    assert tuple(image.shape) == (3, *target["size"]) == (3, 480, 640)
    for row, thing in zip(target["boxes"].tolist(), element.iterfind("object"), strict=True):
        xmin, ymin, xmax, ymax = (int(thing.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax"))
        assert row == [xmin - 1, ymin - 1, xmax, ymax]


def test_pixels_from_1_inclusive_to_continuous(voc: Make) -> None:
    root = voc({"a": voc_xml([voc_object("cat", 1, 1, 60, 40), voc_object("dog", 11, 5, 11.5, 5.25)])})
    target = _open(root)[0].target
    assert target["boxes"].tolist() == [[0, 0, 60, 40], [10, 4, 11.5, 5.25]]
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [0, 1]
    assert target["area"].tolist() == [2400, 1.5 * 1.25]
    assert (target["image_id"], target["size"]) == ("a", (40, 60))
    root = voc({"a": voc_xml([voc_object("cat", 0, 0, 59, 39)])})
    assert _open(root, one_based=False)[0].target["boxes"].tolist() == [[0, 0, 60, 40]]


def test_targets_without_boxes_have_all_keys(voc: Make) -> None:
    target = _open(voc({"a": voc_xml([]), "b": voc_xml([voc_object("cat", 1, 1, 9, 9)])}))[0].target
    shapes = {key: (tuple(value.shape), value.dtype) for key, value in target.items() if isinstance(value, torch.Tensor)}
    flag = ((0,), torch.bool)
    assert shapes == {
        "boxes": ((0, 4), torch.float32),
        "labels": ((0,), torch.int64),
        "iscrowd": flag,
        "difficult": flag,
        "area": ((0,), torch.float32),
    }


def test_classes_are_the_same_in_every_split(voc: Make) -> None:
    folder = {"a": voc_xml([voc_object("car", 1, 1, 9, 9)]), "b": voc_xml([voc_object("van", 1, 1, 9, 9)])}
    root = voc(folder, train=["a"], val=["b"])
    assert _open(root, "train").classes == _open(root, "val").classes == ("car", "van")
    root = voc({**folder, "b": voc_xml([voc_object("dog", 1, 1, 9, 9)])}, train=["a"], val=["b"])
    assert _open(root, "train").classes == _open(root, "val").classes == ("car", "dog")
    data = _open(root, "val", classes=("dog", "car"))
    assert (data.classes, data[0].target["labels"].tolist(), data.left_out) == (("dog", "car"), [0], {})
    data = _open(root, "val", classes=("car",))
    assert (len(data), data.left_out) == (1, {"dog": 1})
    assert any("dog (1)" in line for line in data.summary())


def _of_classes(names: Sequence[str], database: str | None = None) -> dict[str, str]:
    return {f"2007_{i:06}": voc_xml([voc_object(name, 1, 1, 9, 9)], database=database) for i, name in enumerate(names)}


@pytest.mark.parametrize("database", [None, "Unknown", "The VOC2007 Database"])
@pytest.mark.parametrize("folder", ["pets", "VOC2007"])
def test_classes_are_those_of_the_data(voc: Make, folder: str, database: str | None) -> None:
    data = _open(voc(_of_classes(["dog", "cat", "dog"], database), folder=folder))
    assert (data.classes, data.category_ids) == (("cat", "dog"), (1, 2))
    assert [sample.target["labels"].tolist() for sample in data] == [[1], [0], [1]]
    assert data.notes == ()
    everything = _open(data_root := Path(data.file(0)).parents[1], classes=VOC_CLASSES)
    assert (len(everything.classes), everything[1].target["labels"].tolist()) == (20, [VOC_CLASSES.index("cat")])
    assert data_root.name == folder


def test_all_voc_classes_keep_their_order(voc: Make) -> None:
    assert _open(voc(_of_classes(VOC_CLASSES[::-1]))).classes == tuple(VOC_CLASSES)


def test_a_part_of_voc_has_the_classes_that_it_has(voc: Make) -> None:
    names = [name for name in VOC_CLASSES if name not in ("bus", "cow", "sofa")]
    data = _open(voc(_of_classes(names, "The VOC2012 Database")))
    assert (data.classes, data.notes) == (tuple(sorted(names)), ())


def test_difficult_and_ground_truth(voc: Make) -> None:
    hard = voc_object("cat", 5, 5, 90, 20, "<difficult>1</difficult>")
    data = _open(voc({"a": voc_xml([hard, voc_object("cat", 0, 1, 9, 9, "<difficult>0</difficult>")])}))
    truth = data.ground_truth()
    assert [entry["difficult"] for entry in truth["annotations"]] == [1, 0]
    assert [entry["bbox"] for entry in truth["annotations"]] == [[4, 4, 86, 16], [-1, 0, 10, 9]]  # as written
    assert data[0].target["boxes"].tolist() == [[4, 4, 60, 20], [0, 0, 9, 9]]  # clipped
    assert data[0].target["difficult"].tolist() == [True, False]
    assert list(data.clipped.values()) == [1]  # counting from 0 instead of 1 is not worth a word
    assert truth["images"][0]["id"] == "a"
    assert data.ground_truth(without=["a"])["annotations"] == []


def test_layouts(voc: Make, tmp_path: Path) -> None:
    cat = voc_object("cat", 1, 1, 9, 9)
    root = voc({"a": voc_xml([cat]), "b c": voc_xml([cat], size=None), "d": voc_xml([cat], filename="old/D.PNG")})
    (root / "ImageSets/Main/cat_train.txt").write_text("\ufeffa  1\r\nb c -1\r\n\r\n", encoding="utf-8")
    data = _open(root, "cat_train")
    assert [data.image_id(i) for i in range(len(data))] == ["a", "b c"]
    assert data.sizes() == [(40, 60), (40, 60)]
    (root / "JPEGImages/d.jpg").unlink()
    picture(root / "JPEGImages/D.PNG")
    assert _open(root).skipped == []
    (tmp_path / "up" / "VOCdevkit").mkdir(parents=True)
    root.rename(tmp_path / "up/VOCdevkit/VOC2007")
    assert len(_open(tmp_path / "up")) == len(_open(tmp_path / "up/VOCdevkit")) == 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation><object>", "not well-formed XML"),
        ("", "not well-formed XML"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', "not well-formed XML"),
        ("<html/>", "<annotation> was expected"),
        (voc_xml([], size=(41, 60)), None),
        (voc_xml([]).replace("60", "wide"), "not a number"),
    ],
)
def test_an_image_with_a_broken_annotation_is_skipped(voc: Make, text: str, reason: str | None) -> None:
    root = voc({"a": text, "b": voc_xml([voc_object("cat", 1, 1, 9, 9)])})
    data = _open(root)
    if reason is None:  # the wrong size shows when the picture is read
        with pytest.raises(DataError, match="60x40 pixels, but annotated as 60x41"):
            data[0]
        return
    assert [data.image_id(i) for i in range(len(data))] == ["b"]
    (entry,) = data.skipped
    assert reason in entry.reason
    assert (entry.file, entry.image_id, entry.box) == (str(root / "Annotations/a.xml"), "a", False)
    with pytest.raises(BrokenData, match=r"1 broken entry.*\n.*a\.xml: ") as caught:
        _open(root, on_error="refuse")
    assert caught.value.skipped == [entry]


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        (voc_object("cat", 9, 9, 9, 9), "no box"),
        (voc_object("cat", 20, 9, 10, 19), "no box"),
        (voc_object("cat", "nan", 9, 10, 19), "not a finite number"),
        (voc_object("cat", "1e999", 9, 10, 19), "not a finite number"),
        (voc_object("cat", "left", 9, 10, 19), "'left', not a number"),
        (voc_object("cat", 100, 9, 110, 19), "outside of the image of 60x40"),
        ("<object><name>cat</name></object>", "no <bndbox/xmin>"),
        ("<object/>", "no <name>"),
    ],
)
def test_only_the_broken_box_is_skipped(voc: Make, thing: str, reason: str) -> None:
    root = voc({"a": voc_xml([voc_object("cat", 1, 1, 9, 9), thing, voc_object("cat", 2, 2, 9, 9)])})
    data = _open(root)
    assert len(data[0].target["boxes"]) == 2
    (entry,) = data.skipped
    assert entry.box
    assert reason in entry.reason
    assert "object 2" in entry.reason
    assert any(reason in line for line in data.summary())
    with pytest.raises(BrokenData):
        _open(root, on_error="refuse")


def test_missing_files_and_invalid_lines_are_skipped(voc: Make) -> None:
    root = voc({"a": voc_xml([voc_object("cat", 1, 1, 9, 9)]), "b": voc_xml([])}, train=["a", "b", "a", "c", "../a", "/etc/x"])
    (root / "JPEGImages/b.jpg").unlink()
    data = _open(root)
    reasons = {str(entry.image_id): entry.reason for entry in data.skipped}
    outside = "the split names a file outside of the folder"
    assert reasons == {
        "b": "no such file",
        "a": "the split names it twice",
        "c": "no such annotation",
        "../a": outside,
        "/etc/x": outside,
    }
    assert len(pickle.loads(pickle.dumps(data))) == 1


def test_annotations_that_cannot_be_opened_are_skipped(voc: Make) -> None:
    root = voc({stem: voc_xml([voc_object("cat", 1, 1, 9, 9)]) for stem in "abc"})
    for stem, target in (("b", "b.xml"), ("c", "gone.xml")):
        (root / f"Annotations/{stem}.xml").unlink()
        (root / f"Annotations/{stem}.xml").symlink_to(target)
    data = _open(root)
    assert [data.image_id(index) for index in range(len(data))] == ["a"]
    reasons = {str(entry.image_id): entry.reason.partition(":")[0] for entry in data.skipped}
    assert reasons == {"b": "cannot be read", "c": "no such annotation"}


def test_a_list_of_a_split_that_is_no_text(voc: Make) -> None:
    root = voc({"a": voc_xml([voc_object("cat", 1, 1, 9, 9)])})
    (root / "ImageSets/Main/train.txt").write_bytes(b"a\n\xff\n")
    with pytest.raises(DataError, match=r"ImageSets/Main/train\.txt: cannot be read: 'utf-8' codec"):
        _open(root)


def test_notes_on_what_is_not_used(tmp_path: Path) -> None:
    for name in ("train/a", "val/b", "c"):
        picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.xml").write_text(voc_xml([voc_object("cat", 1, 1, 9, 9)]))
    assert _open(tmp_path).notes == ("annotations in no folder of a split, not used: 1",)
    whole = tmp_path / "train"
    picture(whole / "d.png")
    picture(whole / "e.png")
    assert _open(whole, "all").notes == ("images without an annotation, not used: 2",)


def test_errors_of_opening(voc: Make, tmp_path: Path) -> None:
    root = voc({"a": voc_xml([voc_object("cat", 1, 1, 9, 9)]), "b": "<"}, train=["a"], broken=["b"], empty=[])
    for place, split, options, message in (
        (tmp_path / "no", "train", {}, "no such folder"),
        (tmp_path, "train", {"on_error": "ignore"}, "expected 'skip' or 'refuse'"),
        (root, "tset", {}, "no such split; there are: broken, empty, train"),
        (root, "broken", {}, r"no usable image is in it\n.*b\.xml"),
        (root, "empty", {}, "the split lists none"),
        (root, "train", {"classes": ()}, "expected at least one name"),
        (root / "JPEGImages", "train", {}, "not a VOC folder"),
    ):
        with pytest.raises(DataError, match=message):
            _open(place, split, **options)
    for spec in ("voc", "voc:", "pascal:x", ""):
        with pytest.raises(DataError, match="expected a folder, voc:DIR"):
            open_dataset(spec, "train")


def test_random_damage_raises_no_other_errors(voc: Make) -> None:
    """A damaged data set opens with what is left or raises a DataError, never anything else."""
    draw = random.Random(0)
    whole = voc_xml([voc_object("cat", 1, 1, 9, 9), voc_object("dog", 2, 2, 30, 30)])
    good = voc_xml([voc_object("cat", 1, 1, 9, 9)])
    for _ in range(150):
        text = list(whole)
        for _ in range(draw.randint(1, 3)):
            text[draw.randrange(len(text))] = draw.choice("<>/&-19.e \x00xé")
        data = _open(voc({"a": "".join(text), "good": good}))
        for index in range(len(data)):
            boxes = data._records[index].boxes
            assert len(boxes) == 0 or (boxes[:, 2:] > boxes[:, :2]).all()
