"""Reading YOLO folders: label files, data.yaml, paths, and errors."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from data_folders import picture
from folder_layouts import CLASSES, Labelled, small_set, write_yolo, write_yolo_with_yaml, yolo_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nasdsl.data import BrokenData, DataError, Dataset, NoSplit, open_dataset
from nasdsl.data.yolo import parse_line


def make(root: Path, labels: str | bytes | None = "0 0.5 0.5 0.5 0.5\n", yaml: str | None = "names: [cat, dog]") -> Path:
    """A folder with two images 40x60; the labels are those of the first."""
    picture(root / "images/train/a.png")
    picture(root / "images/train/b.jpg", seed=1)
    (root / "labels/train").mkdir(parents=True, exist_ok=True)
    if labels is not None:
        (root / "labels/train/a.txt").write_bytes(labels if isinstance(labels, bytes) else labels.encode())
    if yaml is not None:
        (root / "data.yaml").write_text("train: images/train\n" + yaml)
    return root


def _open(root: Path | str, split: str = "train", **options: object) -> Dataset:
    return open_dataset(f"yolo:{root}", split, **options)


def test_labels(tmp_path: Path) -> None:
    lines = "1 0.5 0.5 0.5 0.5\n\n0.0 0.25 0.25 .1 1e-1 \r\n0 0.1 0.2 0.3 0.4 0.5 0.1\n"
    data = _open(make(tmp_path, lines), on_error="refuse")
    assert (data.classes, data.category_ids) == (("cat", "dog"), (0, 1))
    assert [data.image_id(0), data.image_id(1)] == ["a", "b"]
    target = data[0].target
    assert target["labels"].tolist() == [1, 0, 0]
    rounded = [[round(side, 4) for side in row] for row in target["boxes"].tolist()]
    assert rounded == [[15, 10, 45, 30], [12, 8, 18, 12], [6, 4, 30, 16]]
    assert [round(area, 3) for area in target["area"].tolist()] == [600, 24, 288]
    assert (target["size"], target["iscrowd"].any().item()) == ((40, 60), False)
    assert len(data[1].target["boxes"]) == 0
    assert data.notes == ("images without a label file, which have no objects: 1",)
    one = _open(tmp_path, classes=["dog"])
    assert (one.classes, one.category_ids, one.left_out) == (("dog",), (1,), {"cat": 2})
    assert one[0].target["labels"].tolist() == [0]
    turned = _open(tmp_path, classes=["dog", "cat"])
    assert (turned.category_ids, turned[0].target["labels"].tolist()) == ((1, 0), [0, 1, 1])


def test_labels_whose_image_is_missing(tmp_path: Path) -> None:
    """They are said; labels of another split's images, in the same folder, are not meant."""
    root = make(tmp_path)
    for name in ("b", "c", "d"):
        (root / f"labels/train/{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "labels/train/classes.txt").write_text("cat\ndog\n")
    expected = f"label files without an image, not used: 2, such as {root}/labels/train/c.txt"
    assert _open(root).notes == (expected,)
    picture(root / "images/train/c.png")
    picture(root / "images/train/d.png")
    (root / "data.yaml").write_text("train: train.txt\nnames: [cat, dog]")
    (root / "train.txt").write_text("images/train/a.png\nimages/train/b.jpg\n")
    assert _open(root).notes == ()


_side = st.integers(0, 500)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(CLASSES), _side, _side, _side, _side), max_size=5),
    st.integers(1, 500),
    st.integers(1, 500),
    st.booleans(),
)
def test_round_trip(rows: list[tuple[str, int, int, int, int]], height: int, width: int, polygons: bool) -> None:
    """Boxes that are written as YOLO's lines come back, as they are or as outlines."""
    boxes = []
    for name, *sides in rows:
        x1, x2 = sorted(min(side, width) for side in sides[:2])
        y1, y2 = sorted(min(side, height) for side in sides[2:])
        if x1 < x2 and y1 < y2:
            boxes.append((name, x1, y1, x2, y2))
    lines = yolo_lines(Labelled("train", "a", Path("a.png"), (height, width), tuple(boxes)), CLASSES, polygons)
    found = [parse_line(line) for line in lines.splitlines()]
    assert [CLASSES[label] for label, _ in found] == [name for name, *_ in boxes]
    for (_, box), (_, *expected) in zip(found, boxes, strict=True):
        scaled = [box[0] * width, box[1] * height, box[2] * width, box[3] * height]
        assert all(math.isclose(one, other, abs_tol=1e-6) for one, other in zip(scaled, expected, strict=True))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.5", "4 numbers; expected 5"),
        ("0 0.5 0.5 0.5 0.5 0.9", "6 numbers; expected 5"),
        ("0 0.5 0.5 0.5 0.5 0.9", "the score belongs to detections"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "8 numbers"),
        ("2 0.5 0.5 0.5 0.5", r"the class is 2; expected 0 to 1 \(cat to dog\)"),
        ("-1 0.5 0.5 0.5 0.5", "the class is -1; expected a whole number"),
        ("0.5 0.5 0.5 0.5 0.5", "the class is 0.5"),
        ("cat 0.5 0.5 0.5 0.5", "'cat 0.5 0.5 0.5 0.5': expected numbers"),
        ("0,0.5,0.5,0.5,0.5", "expected numbers"),
        ("0 nan 0.5 0.5 0.5", "not a finite number"),
        ("0 0.5 0.5 inf 0.5", "not a finite number"),
        ("0 30 20 12 12", "30 among the numbers of the box; expected 0 to 1, relative to the image, not pixels"),
        ("0 -0.5 0.5 0.5 0.5", "-0.5 among the numbers"),
        ("0 0.5 0.5 0 0.5", "the box is 0 wide and 0.5 high"),
        ("0 0.2 0.1 0.2 0.5 0.2 0.7", "the box is 0 wide"),
    ],
)
def test_only_the_broken_line_is_skipped(line: str, reason: str, tmp_path: Path) -> None:
    root = make(tmp_path, f"0 0.5 0.5 0.5 0.5\n{line}\n1 0.5 0.5 0.1 0.1\n")
    data = _open(root)
    assert data[0].target["labels"].tolist() == [0, 1]
    (entry,) = data.skipped
    assert (entry.file, entry.box, entry.image_id) == (f"{root}/labels/train/a.txt: line 2", True, "a")
    with pytest.raises(BrokenData, match=reason):
        _open(root, on_error="refuse")


def test_broken_images_and_label_files(tmp_path: Path) -> None:
    root = make(tmp_path, b"\xff\xfe\x00\x80")
    (root / "images/train/c.png").write_bytes(b"")
    (root / "images/train/d.png").write_text("no image")
    (root / "labels/train/c.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    data = _open(root)
    assert {entry.image_id: entry.reason for entry in data.skipped} == {
        "a": "not a text file of labels",
        "c": "the file is empty",
        "d": "not an image of a known format",
    }
    assert [data.image_id(index) for index in range(len(data))] == ["b"]
    with pytest.raises(BrokenData, match="3 broken entries"):
        _open(root, on_error="refuse")


def test_a_label_file_that_cannot_be_opened(tmp_path: Path) -> None:
    label = make(tmp_path) / "labels/train/a.txt"
    label.unlink()
    label.symlink_to(label.name)
    data = _open(tmp_path)
    (entry,) = data.skipped
    assert (entry.file, entry.image_id) == (str(label), "a")
    assert entry.reason.startswith("cannot be read: ")
    assert [data.image_id(index) for index in range(len(data))] == ["b"]


def test_boxes_at_the_edge(tmp_path: Path) -> None:
    data = _open(make(tmp_path, "0 0 0.5 0.2 0.5\n0 1.001 0.5 0.1 0.2\n0 0.5 0.5 1 1\n"))
    assert data.skipped == []
    assert data.clipped == {f"{tmp_path}/labels/train/a.txt": 2}
    assert f"boxes clipped to their image: 2, in {tmp_path}/labels/train/a.txt" in data.summary()
    assert data[0].target["boxes"].tolist()[0] == [0, 10, 6, 30]


def test_boxes_are_relative_to_the_upright_image(tmp_path: Path) -> None:
    root = make(tmp_path, "0 0.25 0.125 0.5 0.25\n")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(root / "images/train/a.png", exif=exif)
    target = _open(root)[0].target
    assert (target["size"], target["boxes"].tolist()) == ((60, 40), [[0, 0, 20, 15]])


def test_images_of_one_stem(tmp_path: Path) -> None:
    root = make(tmp_path)
    picture(root / "images/train/a.jpg")
    picture(root / "images/train/night/a.jpg")
    data = _open(root)
    assert [data.image_id(index) for index in range(4)] == ["a", "a.png", "b", "night/a"]
    assert [len(data[index].target["boxes"]) for index in range(4)] == [1, 1, 0, 0]


# -------------------------------------------------------------------------------------------------------- data.yaml


@pytest.mark.parametrize(
    ("yaml", "names"),
    [
        ("names: [cat, dog]", ["cat", "dog"]),
        ("names: ['no', on, 1, 2.50, null]\nnc: 5", ["no", "on", "1", "2.50", "null"]),
        ("names:\n  1: dog\n  0: cat\n", ["cat", "dog"]),
        ("names: {'0': cat, '1': dog}\nnc: 2", ["cat", "dog"]),
        ("nc: 3", ["class_0", "class_1", "class_2"]),
        ("names: [Änderung, 猫]", ["Änderung", "猫"]),
        ("download: exit(1)\nnames: [cat]", ["cat"]),
    ],
)
def test_names(yaml: str, names: list[str], tmp_path: Path) -> None:
    assert _open(make(tmp_path, yaml=yaml)).classes == tuple(names)


TEN_TIMES = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 4))
"""Thousands of lists in a few lines: messages show the first ones."""


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [cat, dog]\nnc: 3", "nc is 3, but there are 2 names"),
        ("names: {0: cat, 2: dog}", "the numbers are 0, 2; expected 0 to 1, each once"),
        ("names: {0: cat, 00: dog}", "the numbers are 0; expected 0 to 1, each once"),
        (f"{TEN_TIMES}names: *a3", r"names: \[\[\[.*expected a list of names"),
        (f"{TEN_TIMES}test: *a3\nnames: [cat]", r"test: expected a folder, .* found \[\[\["),
        (f"{TEN_TIMES}path: *a3\nnames: [cat]", r"path: \[\[\[.*expected the folder"),
        ("nc: 4000000000", "expected the number of classes, at most 100,000"),
        (f"nc: {'9' * 5000}", "expected the number of classes, at most 100,000"),
        (f"names: {{{'9' * 500}: cat}}", "expected the classes by their numbers 0, 1, …; found 9999"),
        ("names: {cat: 0}", "expected the classes by their numbers 0, 1, …; found cat"),
        ("names: cat", "names: 'cat'; expected a list of names"),
        ("names: [cat, [dog]]", "expected a list of names"),
        ("names: [cat, cat]", "the classes 0 and 1 are both named 'cat'"),
        ("names: [cat, '']", "expected the names of the classes; found an empty one"),
        ("names: []\nnc: many", "nc: 'many'; expected the number of classes"),
        ("path: [a]", r"path: \['a'\]; expected the folder"),
        ("val: {a: b}", "val: expected a folder, a list of images"),
        ("names: [cat", "cannot be read as YAML"),
        ("- a", "cannot be read as YAML"),
        ("x: &a [*a]\nnames: [b]\nval: [1, [2]]", "cannot be read as YAML|val: expected a folder"),
    ],
)
def test_invalid_data_yaml(yaml: str, message: str, tmp_path: Path) -> None:
    root = make(tmp_path, yaml=yaml)
    for spec in (f"yolo:{root}", f"yolo:{root}/data.yaml", str(root)):
        with pytest.raises(DataError, match=message) as error:
            open_dataset(spec, "train")
        assert "data.yaml" in str(error.value)


def test_splits_of_data_yaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = small_set(tmp_path / "raw")
    root = tmp_path / "animals"
    write_yolo(root, images)
    names = "\nnames: [cat, dog, zebra crossing]\n"
    whole = {image.stem for image in images}

    def ids(split: str, text: str, file: Path = root / "data.yaml") -> set[object]:
        file.write_text(text + names)
        data = open_dataset(f"yolo:{file}", split, on_error="refuse")
        assert data.classes == CLASSES
        return {Path(data.file(index)).stem for index in range(len(data))}

    train = {image.stem for image in images if image.split == "train"}
    assert ids("train", "train: images/train\nval: images/val") == train
    assert ids("train", f"path: {root}\ntrain: images/train") == train
    assert ids("train", "path: ../animals\ntrain: ./images/train/") == train
    assert ids("train", "path: .\ntrain: images\\train") == train
    assert ids("train", f"train: {root}/images/train") == train
    assert ids("train", "path: animals\ntrain: animals/images/train") == train
    assert ids("train", "train: [images/train, images/val]") == train | (whole - train - ids("test", "test: images/test"))
    assert ids("train", "train: images") == whole
    assert ids("val", "validation: images/val\ntest:\ntrain: images/train") == {"im07", "im08", "im09"}
    assert ids("val", "train: images/train\nvalid: images/val") == {"im07", "im08", "im09"}
    # Elsewhere, and relative to the working directory.
    elsewhere = tmp_path / "configs"
    elsewhere.mkdir()
    assert ids("train", f"path: {root}\ntrain: images/train", elsewhere / "animals.yaml") == train
    monkeypatch.chdir(tmp_path)
    assert ids("train", "path: animals\ntrain: images/train", elsewhere / "animals.yaml") == train
    (tmp_path / "datasets").mkdir()
    root.rename(tmp_path / "datasets/moved")
    assert ids("train", "path: moved\ntrain: images/train", elsewhere / "animals.yaml") == train


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    root = make(tmp_path, yaml="val: images/val\nnames: [cat, dog]")
    data = _open(root)
    assert any("val: images/val is not in" in note for note in data.notes)
    with pytest.raises(NoSplit, match=r"data\.yaml: no such split as 'val'; there are: train"):
        _open(root, "val")
    (root / "data.yaml").write_text("train: pics\nval: more\nnames: [cat]")
    with pytest.raises(DataError, match=r"train: pics is not in .*expected folders of images.*found 2 images in images/train"):
        _open(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("names: [cat]", "names no split; expected train: and val: with their folders of images"),
        ("[train, val]", "expected a mapping with train, val and names"),
        (b"train: \xff", "cannot be read as UTF-8"),
        ("#" * (2**20 + 1), "has more than 1 MiB"),
        (None, "no such file"),
    ],
)
def test_files_that_are_no_data_yaml(
    content: str | bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make(tmp_path) / "data.yaml"
    file.unlink()
    if content is None:
        file.symlink_to("gone.yaml")
    else:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr("nasdsl.data.yolo_config._MAX_BYTES", 2**20)
    with pytest.raises(DataError, match=message) as error:
        _open(tmp_path if content is None else file)
    assert str(error.value).startswith(f"{file}: ")


def test_a_split_of_single_images_and_lists_has_each_once(tmp_path: Path) -> None:
    root = make(tmp_path, yaml="val: [images/train/a.png, val.txt]\nnames: [cat, dog]")
    (root / "val.txt").write_text("images/train/a.png\nimages/train/b.jpg\nimages/train/b.jpg\n")
    data = _open(root, "val")
    assert [data.image_id(index) for index in range(len(data))] == ["a", "b"]
    (root / "val.txt").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=r"val\.txt: cannot be read as a list of images: 'utf-8' codec"):
        _open(root, "val")


def test_several_files_like_data_yaml(tmp_path: Path) -> None:
    root = make(tmp_path, yaml=None)
    for name in ("one.yaml", "two.yaml"):
        (root / name).write_text("train: images/train\nnames: [cat, dog]")
    (root / "settings.yaml").write_text("epochs: 3")
    with pytest.raises(
        DataError, match=r"several files like data\.yaml, name one of them: yolo:FILE with one\.yaml, two\.yaml"
    ):
        open_dataset(str(root), "train")
    assert len(_open(root / "two.yaml")) == 2


def test_no_names(tmp_path: Path) -> None:
    root = make(tmp_path, "1 0.5 0.5 0.5 0.5\n2 0.5 0.5\n\n3 0.5 0.5 0.5 0.5\n", yaml=None)
    data = open_dataset(str(root), "train")
    assert data.classes == ("class_0", "class_1", "class_2", "class_3")  # also those behind a broken line
    assert any("no file names the classes" in note for note in data.notes)
    (root / "classes.txt").write_text("a\nb\nc\nd\n")
    assert open_dataset(str(root), "train").classes == ("a", "b", "c", "d")
    (root / "classes.txt").write_text("a\nb\nc\nd e\n\n \n")  # blank lines at the end are no names
    assert open_dataset(str(root), "train").classes == ("a", "b", "c", "d e")
    (root / "classes.txt").unlink()
    (root / "labels/train/a.txt").write_text("\n")
    with pytest.raises(DataError, match=r"no names of classes: expected names in data\.yaml, or a file classes\.txt"):
        open_dataset(f"yolo:{root}", "train")


def test_an_empty_label_file_does_not_tell_the_form(tmp_path: Path) -> None:
    root = make(tmp_path, "\n", yaml=None)
    (root / "labels/train/b.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    data = open_dataset(str(root), "train")
    assert (data.name, data.classes) == (f"yolo:{root} (train)", ("class_0", "class_1"))


def test_images_in_no_folder_of_a_split(tmp_path: Path) -> None:
    root = make(tmp_path, yaml=None)
    for name in ("extra", "train/night/c", "val/d"):
        picture(root / f"images/{name}.png")
        (root / f"labels/{name}.txt").parent.mkdir(parents=True, exist_ok=True)
        (root / f"labels/{name}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    data = _open(root)
    assert [data.image_id(index) for index in range(len(data))] == ["a", "b", "night/c"]
    assert "images in no folder of a split, not used: images" in data.notes


# ---------------------------------------------------------------------------------------- files outside of the folder


@pytest.mark.parametrize("how", ["../out/images", "{out}/images", "images/../../out/images", "..\\out\\images"])
def test_folders_outside_are_not_read(how: str, tmp_path: Path) -> None:
    picture(tmp_path / "out/images/secret.png")
    root = make(tmp_path / "data", yaml=f"val: {how.format(out=tmp_path / 'out')}\nnames: [cat, dog]")
    assert _names(_open(root)) == ["a.png", "b.jpg"]
    with pytest.raises(NoSplit, match="no such split as 'val'"):  # and no other folder `images` is taken for it
        _open(root, "val")


def test_lists_name_no_files_outside(tmp_path: Path) -> None:
    secret = picture(tmp_path / "secret.png")
    root = make(tmp_path / "data", yaml="val: val.txt\nnames: [cat, dog]")
    lines = ["../secret.png", str(secret), "images/../../secret.png", "..\\secret.png", "images/train/a.png", "", "nowhere.png"]
    (root / "val.txt").write_text("\n".join(lines))
    data = _open(root, "val")
    assert [data.image_id(index) for index in range(len(data))] == ["a"]
    assert [entry.file.rpartition(": ")[2] for entry in data.skipped] == ["line 1", "line 2", "line 3", "line 4", "line 7"]
    with pytest.raises(BrokenData, match="is no file in"):
        _open(root, "val", on_error="refuse")


def test_random_damage_raises_no_other_errors(tmp_path: Path) -> None:
    """A damaged data set opens with what is left or raises a DataError, never anything else."""
    draw = random.Random(0)
    images = small_set(tmp_path / "raw")
    root = tmp_path / "data"
    file = write_yolo_with_yaml(root, images)
    label = next(root.glob("labels/train/*.txt"))
    whole = {path: path.read_bytes() for path in (file, label)}
    opened = 0
    for _ in range(150):
        for path, content in whole.items():
            damaged = bytearray(content)
            for _ in range(draw.randint(0, 3)):
                damaged[draw.randrange(len(damaged))] = draw.choice(b"0.-:[]{}&*!/\\ \n\x00\xff9e")
            path.write_bytes(bytes(damaged))
        try:
            data = _open(root)
        except DataError:
            continue
        opened += 1
        for index in range(len(data)):
            boxes = data.target(index)["boxes"]
            assert len(boxes) == 0 or (boxes[:, 2:] > boxes[:, :2]).all()
    assert opened > 20


def _names(data: Dataset) -> Sequence[str]:
    return [Path(data.file(index)).name for index in range(len(data))]


def test_train_and_val_of_the_same_images(tmp_path: Path) -> None:
    """As in small sets for a first try: both are what the file says."""
    root = make(tmp_path, yaml="val: images/train\nnames: [cat, dog]")
    assert _names(_open(root, "train")) == _names(_open(root, "val")) == ["a.png", "b.jpg"]
