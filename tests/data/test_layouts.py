"""Recognising the form of a folder: every layout gives the same images and boxes; what is none is told."""

from __future__ import annotations

import errno
import os
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from data_folders import picture, voc_object, voc_xml
from folder_layouts import (
    CLASSES,
    SPLIT_LAYOUTS,
    WHOLE_LAYOUTS,
    Labelled,
    class_names,
    from_voc,
    small_set,
    write_voc,
    write_yolo,
    write_yolo_with_yaml,
)

from nasdsl.data import DataError, Dataset, NoSplit, find_splits, open_dataset
from nasdsl.data import open as open_module
from nasdsl.data.layouts import Listing, find_split, inside, split_name
from nasdsl.data.source import Contents, Source

Make = Callable[..., Path]


def contents(data: Dataset) -> list[Any]:
    """File name, size, and classes and boxes of each image, to a millionth of a pixel."""
    found = []
    for index in range(len(data)):
        target = data.target(index)
        names = [data.classes[label] for label in target["labels"].tolist()]
        boxes = [tuple(round(side, 4) for side in row) for row in target["boxes"].tolist()]
        found.append((Path(data.file(index)).name, target["size"], list(zip(names, boxes, strict=True))))
    return sorted(found)


def expected(images: Sequence[Labelled], split: str | None) -> list[Any]:
    chosen = [image for image in images if split in (None, image.split)]
    return sorted((i.image.name, i.size, [(name, tuple(sides)) for name, *sides in i.boxes]) for i in chosen)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Labelled]:
    return small_set(tmp_path_factory.mktemp("images"))


# ---------------------------------------------------------------------------------------------- equal in every layout


@pytest.mark.parametrize("layout", SPLIT_LAYOUTS)
def test_layouts_with_splits(layout: str, images: list[Labelled], tmp_path: Path) -> None:
    root = tmp_path / "data"
    SPLIT_LAYOUTS[layout](root, images)
    form = layout.partition(",")[0].split()[0]
    for spec in (str(root), f"{form}:{root}"):
        for split, asked in (("train", "train"), ("val", "val"), ("val", "valid"), ("val", "validation"), ("test", "test")):
            data = open_dataset(spec, asked, on_error="refuse")
            assert contents(data) == expected(images, split)
            assert data.classes == CLASSES
            assert data.name == f"{form}:{root} ({asked})"
            assert data.made is None
            assert data[0].image.shape[1:] == data.size(0)
        assert len(find_splits(spec)) == 3


@pytest.mark.parametrize("layout", WHOLE_LAYOUTS)
def test_layouts_without_splits(layout: str, images: list[Labelled], tmp_path: Path) -> None:
    root = tmp_path / "data"
    WHOLE_LAYOUTS[layout](root, images)
    form = layout.partition(",")[0]
    for spec in (str(root), f"{form}:{root}"):
        whole = open_dataset(spec, "all", on_error="refuse")
        assert contents(whole) == expected(images, None)
        assert whole.classes == CLASSES
        if "cvat" in layout:
            assert contents(open_dataset(spec, "default")) == contents(whole)
        train, val = (open_dataset(spec, split) for split in ("train", "val"))
        assert (len(train), len(val)) == (10, 2)
        assert sorted(contents(train) + contents(val)) == contents(whole)
        assert train.made is not None
        assert any("--split-share 0.8 and --split-seed 0" in line for line in train.summary())
    with pytest.raises(NoSplit, match="no such split"):
        open_dataset(str(root), "test")


def test_a_form_of_a_users_own_has_a_message_for_a_split_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A subclass of `Source` names its splits and reads them."""

    class Lines(Source):
        form = "lines"

        def __init__(self, place: str, listing: Listing) -> None:
            self.place, self.splits = place, ("train", "dev")

        def read(self, split: str | None, classes: Sequence[str] | None) -> Contents:
            raise NotImplementedError

    monkeypatch.setitem(open_module.SOURCES, "lines", Lines)
    with pytest.raises(NoSplit, match=rf"^lines:{re.escape(str(tmp_path))}: no such split as 'test'; there are: train, dev"):
        open_dataset(f"lines:{tmp_path}", "test")


@pytest.mark.parametrize("layout", ["voc, train and valid", "coco, roboflow", "yolo, roboflow", "yolo, lists"])
def test_real_images_in_other_layouts(layout: str, bccd: str, tmp_path: Path) -> None:
    images = from_voc(Path(bccd), first=12)
    SPLIT_LAYOUTS[layout](tmp_path / "data", images)
    for split in ("train", "val", "test"):
        data = open_dataset(str(tmp_path / "data"), split, on_error="refuse")
        assert contents(data) == expected(images, split)
        assert data.classes == ("Platelets", "RBC", "WBC")


@pytest.mark.parametrize("layout", ["voc, train and valid", "coco, roboflow", "yolo, roboflow", "yolo, no data.yaml"])
def test_one_folder_of_a_split_alone(layout: str, images: list[Labelled], tmp_path: Path) -> None:
    """Only train was exported: val is made of it on demand."""
    root = tmp_path / "data"
    SPLIT_LAYOUTS[layout](root, [image for image in images if image.split == "train"])
    for path in [*root.glob("val*"), *root.glob("test"), *root.glob("*/val*"), *root.glob("*/test")]:
        if path.is_dir():
            for file in path.rglob("*"):
                file.unlink()
            path.rmdir()
    assert contents(open_dataset(str(root), "train")) == expected(images, "train")
    with pytest.raises(NoSplit, match=r"there are: train \(--split-share 0.8 makes a val of train\)"):
        open_dataset(str(root), "val")
    train, val = (open_dataset(str(root), split, split_share=0.5) for split in ("train", "val"))
    assert (len(train), len(val)) == (4, 3)
    assert sorted(contents(train) + contents(val)) == expected(images, "train")


# ------------------------------------------------------------------------------------------------------ made splits


def test_made_splits_depend_on_ids_share_and_seed_alone(images: list[Labelled], tmp_path: Path) -> None:
    many = [Labelled("train", f"n{k}", images[k % 12].image, images[k % 12].size, ()) for k in range(40)]
    for image in [*many, *reversed(many)]:
        for root in ("one", "two") if image is many[0] else ("one",):
            (tmp_path / root / "images").mkdir(parents=True, exist_ok=True)
    for root, ordered in (("one", many), ("two", many[::-1])):
        for image in ordered:
            picture(tmp_path / root / "images" / f"{image.stem}.png")
        (tmp_path / root / "labels").mkdir()
        (tmp_path / root / "labels/n0.txt").write_text("0 0.5 0.5 0.2 0.2\n")

    def ids(root: str, split: str, **options: Any) -> set[Any]:
        data = open_dataset(str(tmp_path / root), split, **options)
        return {data.image_id(index) for index in range(len(data))}

    whole = {image.stem for image in many}
    for share, seed in ((0.8, 0), (0.5, 0), (0.5, 1), (0.01, 0), (0.99, 3)):
        train, val = (ids("one", split, split_share=share, split_seed=seed) for split in ("train", "val"))
        assert (train | val, train & val) == (whole, set())
        assert len(train) == min(max(round(40 * share), 1), 39)
        assert train == ids("two", "train", split_share=share, split_seed=seed)
    assert ids("one", "val") == ids("one", "val", split_share=0.8, split_seed=0)
    assert ids("one", "val", split_seed=1) != ids("one", "val")
    # A few more images move few others.
    before = ids("two", "train")
    picture(tmp_path / "two/images/more.png")
    assert len(before - ids("two", "train")) <= 1
    assert ids("one", "train", split_share=1) == whole
    with pytest.raises(NoSplit, match="with --split-share 1, all images are in train"):
        ids("one", "val", split_share=1)
    for share in (0, 1.5, -1):
        with pytest.raises(DataError, match="expected above 0 and at most 1"):
            ids("one", "val", split_share=share)


def test_copies_of_an_image_are_on_one_side_of_a_made_split(tmp_path: Path) -> None:
    for number in range(10):
        for copy in "abc":
            picture(tmp_path / f"images/im{number}_jpg.rf.{copy * 32}.png")
    _files(tmp_path, "labels/x.txt", f"labels/im0_jpg.rf.{'a' * 32}.txt")
    (tmp_path / "classes.txt").write_text("cat\n")
    train, val = (open_dataset(f"yolo:{tmp_path}", split) for split in ("train", "val"))
    sides = [{str(data.image_id(index)).split("_")[0] for index in range(len(data))} for data in (train, val)]
    assert (len(sides[0]), len(sides[1]), sides[0] & sides[1]) == (8, 2, set())


# ------------------------------------------------------------------------------------------------ what is not recognised


def _refused(spec: str | Path, split: str = "train") -> str:
    with pytest.raises(DataError) as error:
        open_dataset(str(spec), split)
    return str(error.value)


def _files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    return root


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["a.csv", "pics/a.png", "pics/b.png"], "2 images in pics, a.csv"),
        (["a.png"], "1 image in the folder itself"),
        (["train2017.zip"], "train2017.zip"),
        (["x/a.xml", "x/b.xml", "x/c.xml"], "3 .xml files such as x/a.xml"),
        (["labels/a.txt", "images/a.png", "info.json"], "1 image in images, info.json, labels/a.txt"),
        ([], "no files"),
    ],
)
def test_what_is_found_and_what_each_form_needs(files: list[str], found: str, tmp_path: Path) -> None:
    message = _refused(_files(tmp_path, *files))
    assert f"{tmp_path}: not recognised as a data set: found " in message
    for part in found.split(", "):
        assert part in message
    for need in ("VOC needs an XML file", "COCO needs a JSON file", "YOLO needs a .txt file"):
        assert need in message
    message = _refused(f"yolo:{tmp_path}")
    has_labels = "labels/a.txt" in files
    assert message.startswith(f"{tmp_path}: not YOLO's layout: expected data.yaml, or folders images and labels") != has_labels
    for form in ("voc", "coco"):
        message = _refused(f"{form}:{tmp_path}")
        assert ("expected" in message and found.split(", ")[0] in message) or "no object with a name in any *.xml" in message


def test_two_forms_in_one_folder(images: list[Labelled], tmp_path: Path) -> None:
    write_voc(tmp_path, images, "annots", "images/{split}")
    write_yolo_with_yaml(tmp_path / "again", images)
    message = _refused(tmp_path)
    assert f"XML files of VOC and YOLO's data.yaml; say which to read: voc:{tmp_path} or yolo:{tmp_path}" in message
    assert contents(open_dataset(f"voc:{tmp_path}", "test")) == expected(images, "test")
    assert contents(open_dataset(f"yolo:{tmp_path}", "test")) == expected(images, "test")


def test_several_voc_folders(images: list[Labelled], tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        write_voc(tmp_path / year, images, "Annotations", "JPEGImages", "ImageSets/Main")
    assert f"holds several VOC folders, name one of them: {tmp_path}/VOC2007, {tmp_path}/VOC2012" in _refused(tmp_path)
    assert len(open_dataset(str(tmp_path / "VOC2012"), "val")) == 3


def test_several_coco_folders(images: list[Labelled], tmp_path: Path) -> None:
    for name in ("one", "two"):
        SPLIT_LAYOUTS["coco"](tmp_path / name, images)
    several = f"{tmp_path}: holds several COCO folders, name one of them: {tmp_path}/one, {tmp_path}/two"
    assert _refused(f"coco:{tmp_path}") == several
    assert len(open_dataset(f"coco:{tmp_path}/two", "val")) == 3


def test_files_that_cannot_be_opened_do_not_tell_the_form(images: list[Labelled], tmp_path: Path) -> None:
    write_yolo_with_yaml(tmp_path, images)
    (tmp_path / "gone.json").symlink_to("nowhere.json")
    assert open_dataset(str(tmp_path), "train").name == f"yolo:{tmp_path} (train)"
    assert _refused(f"coco:{tmp_path}").startswith(f"{tmp_path}: not COCO's layout: ")


def test_folders_far_down_are_not_read(tmp_path: Path) -> None:
    near, far = tmp_path / "/".join("abcdefghi"), tmp_path / "/".join("abcdefghijk")
    (far / "in").mkdir(parents=True)
    picture(far / "in/a.png")
    assert "found no files" in _refused(tmp_path)
    picture(near / "a.png")
    assert "found 1 image in a/b/c/d/e/f/g/h/i" in _refused(tmp_path)


def test_a_folder_that_cannot_be_read(images: list[Labelled], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_yolo_with_yaml(tmp_path, images)
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if path.name == "labels":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert _refused(tmp_path) == f"{tmp_path / 'labels'}: cannot be read: Permission denied"


def test_masks_are_not_taken_for_images(images: list[Labelled], tmp_path: Path) -> None:
    """VOC has PNG files of the same names in SegmentationClass."""
    write_voc(tmp_path, images, "annots", "pics")
    for image in images[:4]:
        picture(tmp_path / "masks" / f"{image.stem}.png", (7, 7))
    (tmp_path / "pics" / images[0].image.name).unlink()
    data = open_dataset(str(tmp_path), "all")
    assert {Path(data.file(index)).parent.name for index in range(len(data))} == {"pics"}
    assert [entry.reason for entry in data.skipped] == ["no such file"]


def test_images_of_another_split_are_not_taken(images: list[Labelled], tmp_path: Path) -> None:
    for layout in ("coco", "coco, roboflow", "voc, train and valid"):
        root = tmp_path / layout
        SPLIT_LAYOUTS[layout](root, images)
        (missing,) = root.glob("train/im00.png")
        (val,) = [path for path in (root / "val", root / "valid") if path.is_dir()]
        missing.rename(val / "im00.png")
        data = open_dataset(str(root), "train")
        assert [Path(entry.file).name for entry in data.skipped] == ["im00.png"]
        assert len(data) == 6
        assert [entry.reason.partition(" (")[0] for entry in data.skipped] == ["no such file"]


def test_names_of_data_sets(voc: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = voc({"a": voc_xml([voc_object("cat", 1, 1, 9, 9)])})
    assert _refused("VOC:data").endswith("; forms are in lower case: voc:data")
    assert _refused("voc:").endswith("; the folder is missing")
    assert _refused("nowhere").endswith("; there is no such folder")
    (tmp_path / "a.zip").write_text("")
    assert "expected the folder of a data set, YOLO's data.yaml or COCO's JSON file" in _refused(tmp_path / "a.zip")
    assert _refused(f"voc:{tmp_path / 'a.zip'}").endswith("a file; expected the folder of the data set")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(open_dataset(f"voc:~/{root.name}", "train")) == len(open_dataset(f"~/{root.name}", "train")) == 1
    assert _refused("voc:~/nowhere") == "~/nowhere: no such folder"
    monkeypatch.chdir(tmp_path)
    root.rename(tmp_path / "shapes")
    assert (len(open_dataset("shapes:3", "train")), len(open_dataset("./shapes", "train"))) == (3, 1)
    assert (find_splits("shapes:3"), find_splits("./shapes")) == (("train", "val", "test"), ("train",))


def test_one_json_file(images: list[Labelled], tmp_path: Path) -> None:
    SPLIT_LAYOUTS["coco"](tmp_path, images)
    file = tmp_path / "annotations/instances_val.json"
    assert contents(open_dataset(str(file), "val")) == expected(images, "val")
    assert contents(open_dataset(f"coco:{file}", "val")) == expected(images, "val")


def test_hidden_files_links_and_loops(images: list[Labelled], tmp_path: Path) -> None:
    write_yolo(tmp_path / "real", images)
    root = tmp_path / "data"
    root.mkdir()
    (root / "images").symlink_to(tmp_path / "real/images")
    (root / "labels").symlink_to(tmp_path / "real/labels")
    (root / "labels-loop").symlink_to(root)
    _files(root, "__MACOSX/images/train/._im00.png", ".cache/a.xml")
    (root / "classes.txt").write_text("\n".join(class_names(images)))
    assert contents(open_dataset(str(root), "train", on_error="refuse")) == expected(images, "train")


def test_a_link_to_itself_is_one_image_that_cannot_be_read(images: list[Labelled], tmp_path: Path) -> None:
    write_yolo_with_yaml(tmp_path, images)
    broken = tmp_path / "images/train/im00.png"
    broken.unlink()
    broken.symlink_to(broken.name)
    found = open_dataset(str(tmp_path), "train")
    assert [Path(entry.file).name for entry in found.skipped] == ["im00.png"]
    assert len(found) == len(expected(images, "train")) - 1


def test_names_of_splits() -> None:
    spellings = {
        "train2017": "train",
        "valid": "val",
        "Validation": "val",
        "TEST": "test",
        "val_2014": "val",
        "trainval": "trainval",
    }
    assert {name: split_name(name) for name in spellings} == spellings
    assert [split_name(name) for name in ("trains", "cat_train", "20", "train17", "")] == [None] * 5
    assert find_split("val", ["train", "valid", "val2017"]) == "valid"
    assert find_split("train", ["train2014", "train2017"]) == "train2017"
    assert find_split("train2014", ["train", "train2017"]) is None
    assert find_split("dev", ["dev"]) == "dev"


def test_paths_that_lead_out() -> None:
    for path in ("../a", "a/../../b", "/a", "\\a", "C:\\a", "C:a", "a\\..\\..\\b", "..", "a/.."):
        assert inside(path) is None, path
    assert [inside(path) for path in ("a/b", "./a\\b", "a//b", "a..b/c")] == ["a/b", "a/b", "a/b", "a..b/c"]


def test_random_spellings_never_lead_out() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        text = "".join(draw.choice(["..", ".", "/", "\\", "a", "b.png", "C:"]) for _ in range(draw.randint(1, 7)))
        found = inside(text)
        assert found is None or not (set(found.split("/")) & {"..", "."} or found.startswith("/") or "\\" in found)
