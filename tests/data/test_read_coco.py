"""Reading COCO folders: ids, crowd boxes, layouts, and errors."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from nasdsl.data import BrokenData, DataError, open_dataset
from nasdsl.evaluation import GroundTruth

Make = Callable[..., Path]


def _open(root: Path | str, split: str = "train", **options: object):
    return open_dataset(f"coco:{root}", split, **options)


def _box(image: Any = 5, category: Any = 3, bbox: Any = (1, 2, 10, 20), **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": bbox, "iscrowd": 0, **more}


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_folder_against_pycocotools(coco_dev: str, split: str) -> None:
    data = _open(coco_dev, split)
    with contextlib.redirect_stdout(io.StringIO()):
        official = COCO(f"{coco_dev}/annotations/instances_{split}.json")
    assert data.skipped == []
    assert data.category_ids == tuple(sorted(official.getCatIds()))
    assert len(data.classes) == 80
    assert data.category_ids[-1] == 90
    assert sorted(data.image_id(i) for i in range(len(data))) == sorted(official.getImgIds())
    crowds = 0
    for index in range(len(data)):
        image, target = data[index]
        expected = official.imgToAnns[target["image_id"]]
        assert tuple(image.shape[1:]) == target["size"]
        assert len(target["boxes"]) == len(expected)
        assert [data.category_ids[label] for label in target["labels"]] == [entry["category_id"] for entry in expected]
        assert target["iscrowd"].tolist() == [bool(entry["iscrowd"]) for entry in expected]
        assert target["area"].tolist() == pytest.approx([entry["area"] for entry in expected])
        crowds += int(target["iscrowd"].sum())
        for box, entry in zip(target["boxes"].tolist(), expected, strict=True):
            x, y, width, height = entry["bbox"]
            assert box == pytest.approx([x, y, x + width, y + height], abs=0.01)
    assert crowds == sum(entry["iscrowd"] for entry in official.anns.values())
    truth = data.ground_truth()
    for ours, theirs in zip(
        truth["annotations"], [a for i in truth["images"] for a in official.imgToAnns[i["id"]]], strict=True
    ):
        assert ours["bbox"] == pytest.approx(theirs["bbox"], abs=1e-9)
        assert (ours["category_id"], ours["area"], ours["iscrowd"]) == (
            theirs["category_id"],
            theirs["area"],
            theirs["iscrowd"],
        )
    assert min(entry["id"] for entry in truth["annotations"]) == 1


def test_labels_ids_and_images_without_boxes(coco: Make) -> None:
    data = _open(coco([_box(9, 17, area=7.5), _box(5, 3, iscrowd=1), _box(5, 17, [50, 30, 20.5, 20])]))
    assert (data.classes, data.category_ids) == (("cat", "dog"), (3, 17))
    assert [len(data[i].target["boxes"]) for i in range(3)] == [2, 0, 1]
    target = data[0].target
    assert (target["labels"].tolist(), target["iscrowd"].tolist(), target["image_id"]) == ([0, 1], [True, False], 5)
    assert target["boxes"].tolist() == [[1, 2, 11, 22], [50, 30, 60, 40]]
    assert target["area"].tolist() == [200, 410]
    assert data.clipped == {data.file(0): 1}
    assert data.ground_truth()["annotations"][1]["bbox"] == [50, 30, 20.5, 20]
    assert data.ground_truth(without={5})["annotations"][0]["area"] == 7.5
    picked = _open(coco([_box(9, 17), _box(5, 3)]), classes=["dog"])
    assert (picked.classes, picked.category_ids, picked.left_out, len(picked)) == (("dog",), (17,), {"cat": 1}, 3)


@pytest.mark.parametrize(
    ("split", "file", "folder"),
    [
        ("train", "train", "train"),
        ("train", "train2017", "train2017"),
        ("val", "val2017", "images/val2017"),
        ("val", "val", "images"),
        ("train2017", "train2017", "train2017"),
        ("train", "train2017", "images/train"),
    ],
)
def test_layouts(coco: Make, split: str, file: str, folder: str) -> None:
    data = _open(coco([], split=file, folder=folder), split)
    assert len(data) == 3
    assert data.skipped == []
    assert data[0].image.shape == (3, 40, 60)


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (_box(bbox=[1, 2, float("nan"), 3]), "not a finite number"),
        (_box(bbox=[1, 2, 0, 3]), "0 wide and 3 high"),
        (_box(bbox=[1, 2, 5, -3]), "5 wide and -3 high"),
        (_box(bbox=[1, 2, 5]), "expected four numbers"),
        (_box(bbox=[1, 2, 5, "6"]), "expected four numbers"),
        (_box(bbox=[1, 2, 5, True]), "expected four numbers"),
        (_box(bbox=[1, 2, 5, 10**400]), "expected four numbers"),
        (_box(bbox=None), "expected four numbers"),
        (_box(bbox=[61, 2, 5, 5]), "outside of the image of 60x40"),
        (_box(category=4), "of no category"),
        (_box(category="cat"), "of no category"),
        (_box(image=6), "of no image"),
        (_box(image=None), "expected an integer or a string"),
        ("box", "an object was expected"),
        (_box(image="6"), "image_id '6' is the id of no image"),
    ],
)
def test_only_the_broken_box_is_skipped(coco: Make, entry: Any, reason: str) -> None:
    root = coco([_box(id=1), entry, _box(id=2)])
    data = _open(root)
    assert len(data[0].target["boxes"]) == 2
    (skipped,) = data.skipped
    assert skipped.box
    assert reason in skipped.reason
    assert "annotations[1]" in skipped.file
    with pytest.raises(BrokenData, match=r"annotations\[1\]"):
        _open(root, on_error="refuse")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"file_name": "../train/7.png"}, "leads out of the folder"),
        ({"file_name": "/etc/passwd"}, "leads out of the folder"),
        ({"file_name": "C:\\x.png"}, "leads out of the folder"),
        ({"file_name": "..\\x.png"}, "leads out of the folder"),
        ({"file_name": 7}, "expected the name of a file"),
        ({"file_name": "8.png"}, "no such file"),
        ({"height": -1}, "expected positive integers"),
        ({"width": "60"}, "expected positive integers"),
        ({"id": 5}, "the id is given twice"),
        ({"id": 1.5}, "expected an integer or a string"),
    ],
)
def test_an_image_with_a_broken_entry_is_skipped(coco: Make, change: dict[str, Any], reason: str) -> None:
    images = [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 60} for i in (5, 7, 9)]
    images[1].update(change)
    data = _open(coco([_box(9)], images=images))
    (skipped,) = data.skipped
    assert reason in skipped.reason
    assert [data.image_id(i) for i in range(len(data))] == [5, 9]
    assert len(data[1].target["boxes"]) == 1


def test_an_image_of_which_there_are_several_files_is_skipped(coco: Make) -> None:
    root = coco([], folder="day")
    (root / "night").mkdir()
    (root / "day/7.png").rename(root / "night/7.png")
    shutil.copy(root / "day/5.png", root / "night/5.png")
    data = _open(root)
    assert [data.image_id(index) for index in range(len(data))] == [7, 9]
    (entry,) = data.skipped
    assert entry.reason == "there are several files of this name: day/5.png, night/5.png"


def test_of_many_broken_boxes_ten_are_listed(coco: Make) -> None:
    lines = _open(coco([_box(), *(_box(category=4) for _ in range(13))])).summary()
    assert "boxes skipped: 13" in lines
    assert len([line for line in lines if "of no category" in line]) == 10
    assert "  … and 3 more" in lines


def test_missing_sizes_are_read_from_the_image(coco: Make) -> None:
    data = _open(coco([], images=[{"id": "x", "file_name": "5.png"}]))
    assert data.sizes() == [(40, 60)]
    assert data.image_id(0) == "x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected an object with a list 'images'"),
        ('{"images": [], "annotations": {}, "categories": []}', "a list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "no categories"),
        ('{"images": [], "annotations": [], "categories": [{"id": "one", "name": "a"}]}', "expected an integer id and a name"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "given twice"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "no usable image"),
        ("[" * 100_000, "cannot be read as JSON"),
        (f'{{"images": {"9" * 5000}}}', "cannot be read as JSON"),
    ],
)
def test_invalid_annotation_files(coco: Make, text: str, message: str) -> None:
    root = coco([])
    (root / "annotations/instances_train.json").write_text(text)
    with pytest.raises(DataError, match=message):
        _open(root)


def test_errors_of_opening(coco: Make, tmp_path: Path) -> None:
    root = coco([])
    with pytest.raises(DataError, match="no such split; there are: train"):
        _open(root, "test")
    with pytest.raises(DataError, match="no such folder"):
        _open(tmp_path / "no")
    for classes, message in (
        (["bird"], "there is no class 'bird'; expected classes among: cat, dog"),
        ([], r"the classes are \[\]; expected at least one name, each once"),
        (["cat", "cat"], r"the classes are \['cat', 'cat'\]; expected at least one name, each once"),
    ):
        with pytest.raises(DataError, match=message):
            _open(root, classes=classes)
    json.dumps(_open(root).ground_truth())


def test_categories_of_one_name_are_refused(coco: Make) -> None:
    categories = [{"id": 0, "name": "cat"}, {"id": 3, "name": "cat"}, {"id": 17, "name": "dog"}]
    root = coco([_box(), _box(), _box(category=17)], categories=categories)
    with pytest.raises(DataError) as error:
        _open(root)
    message = str(error.value)
    assert str(root / "annotations/instances_train.json") in message
    assert "ids 0 (0 annotations) and 3 (2 annotations) are all named 'cat'" in message
    assert "rename" in message
    assert "classes=" not in message
    assert _open(root, classes=["dog"]).classes == ("dog",)  # other classes are not affected


@pytest.mark.parametrize("ids", [(0, 0, 0, 0), (1, 2, 1, 2), ("a", "a", "a", "a"), (1, None, 1.0, 1)])
def test_boxes_with_repeated_ids_are_kept(coco: Make, ids: tuple[Any, ...]) -> None:
    boxes = [_box(image, bbox=[n, 2, 10, 20], id=id) for n, (image, id) in enumerate(zip((5, 5, 7, 9), ids, strict=True))]
    data = _open(coco(boxes), on_error="refuse")
    assert [len(data[i].target["boxes"]) for i in range(3)] == [2, 1, 1]
    assert [entry["bbox"][0] for entry in data.ground_truth()["annotations"]] == [0, 1, 2, 3]
    assert [entry["id"] for entry in data.ground_truth()["annotations"]] == [1, 2, 3, 4]
    (line,) = [line for line in data.summary() if "id" in line.split()]
    assert str(len(ids) - len(set(ids))) in line


def test_no_note_without_repeated_ids(coco: Make) -> None:
    assert _open(coco([_box(), _box(), _box(id=1), _box(id=2)])).notes == ()


def _spelled(coco: Make, image: Callable[[int], Any], reference: Callable[[int], Any]) -> Path:
    """The three pictures, with ids and references that are spelled so; a box in 5 and 9."""
    images = [{"id": image(i), "file_name": f"{i}.png", "height": 40.0, "width": 60} for i in (5, 7, 9)]
    categories = [{"id": image(3), "name": "cat"}, {"id": 17.0, "name": "dog"}]
    return coco([_box(reference(5), image(3)), _box(reference(9), reference(17))], images=images, categories=categories)


@pytest.mark.parametrize("image", [int, float, str])
@pytest.mark.parametrize("reference", [int, float, str, "{:012}".format])
def test_every_spelling_of_ids(coco: Make, image: Callable[[int], Any], reference: Callable[[int], Any]) -> None:
    data = _open(_spelled(coco, image, reference), on_error="refuse")
    ids = [data.image_id(i) for i in range(3)]
    assert ids == (["5", "7", "9"] if image is str else [5, 7, 9])
    assert {type(id) for id in ids} == {str if image is str else int}
    assert (data.category_ids, data.sizes()) == ((3, 17), [(40, 60)] * 3)
    assert all(type(value) is int for value in (*data.category_ids, *data.sizes()[0]))
    assert [sample.target["labels"].tolist() for sample in data] == [[0], [], [1]]
    json.dumps(data.ground_truth())
    truth = GroundTruth.of(json.loads((Path(data.file(0)).parents[1] / "annotations/instances_train.json").read_text()))
    ours = GroundTruth.of(data.ground_truth())
    assert (truth.image_ids, truth.categories) == (ours.image_ids, ours.categories)
    assert [(box.image_id, box.category_id, box.box) for box in truth.boxes] == [
        (box.image_id, box.category_id, box.box) for box in ours.boxes
    ]


def test_partly_quoted_ids_become_integers(coco: Make) -> None:
    spelled = {5: 5, 7: "7", 9: 9.0}
    data = _open(_spelled(coco, lambda i: spelled.get(i, i), lambda i: str(i)), on_error="refuse")
    assert [data.image_id(i) for i in range(3)] == [5, 7, 9]


def test_ambiguous_ids_are_refused(coco: Make) -> None:
    images = [{"id": id, "file_name": "5.png", "height": 40, "width": 60} for id in ("07", "7", "9")]
    data = _open(coco([_box(7), _box("07"), _box(9), _box("x")], images=images))
    assert [len(sample.target["boxes"]) for sample in data] == [1, 0, 1]
    assert [entry.file.rpartition(": ")[2] for entry in data.skipped] == ["annotations[0]", "annotations[3]"]
    assert data.skipped[0].reason == "image_id 7 may mean '07' or '7', as some ids are in quotes; spell it as in `images`"
    assert data.skipped[1].reason == "image_id 'x' is the id of no image"


def test_ids_that_are_not_integers_are_refused(coco: Make) -> None:
    data = _open(coco([_box(5.5), _box(True), _box(category=3.5), _box(category=True), _box()]))
    assert [len(sample.target["boxes"]) for sample in data] == [1, 0, 0]
    assert len(data.skipped) == 4


def test_searched_folders_are_named(coco: Make) -> None:
    data = _open(coco([]))
    root = Path(data.file(0)).parents[1]
    (root / "train").rename(root / "pics")
    assert _open(root).file(0) == str(root / "pics/5.png")  # a single file of the name
    shutil.rmtree(root / "pics")
    with pytest.raises(DataError, match=r"5\.png: no such file \(there is no folder train, train2017, images/train,"):
        _open(root)
    (root / "images").mkdir()
    with pytest.raises(DataError, match=r"5\.png: no such file \(looked in images\)"):
        _open(root)


@pytest.mark.parametrize(("flag", "expected"), [("0", False), ("1", True), (0.0, False), (1.0, True), (None, False)])
def test_every_spelling_of_flags(coco: Make, flag: Any, expected: bool) -> None:
    data = _open(coco([_box(iscrowd=flag, difficult=flag)]))
    assert (data[0].target["iscrowd"].tolist(), data[0].target["difficult"].tolist()) == ([expected], [expected])
    truth = GroundTruth.of(json.loads((Path(data.file(0)).parents[1] / "annotations/instances_train.json").read_text()))
    assert (truth.boxes[0].crowd, truth.boxes[0].difficult) == (expected, expected)
