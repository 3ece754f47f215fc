"""Errors about folders of another layout: what was expected, what was found, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from data_folders import voc_object, voc_xml

from nasdsl.data import DataError, NoSplit, open_dataset
from nasdsl.data.layouts import describe_layout

Make = Callable[..., Path]


def _refused(spec: str, split: str = "train") -> str:
    with pytest.raises(DataError) as error:
        open_dataset(spec, split)
    return str(error.value)


def _files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("{}")
    return root


def test_roboflow_coco(tmp_path: Path) -> None:
    root = _files(tmp_path, "train/_annotations.coco.json", "train/a.jpg", "valid/_annotations.coco.json", "README.txt")
    message = _refused(f"coco:{root}")
    assert "expected annotations/instances_train.json or annotations/instances_train2017.json" in message
    assert "found train/_annotations.coco.json, valid/_annotations.coco.json, Roboflow's layout of COCO" in message
    assert "copy each to annotations/instances_SPLIT.json" in message
    assert "none" not in message
    assert "Roboflow" in _refused(f"voc:{root}")
    assert _refused(f"coco:{root / 'valid'}").endswith(f"open coco:{root}")


def test_the_advice_about_roboflow_coco_works(coco: Make) -> None:
    root = coco([])
    (root / "annotations/instances_train.json").rename(root / "train/_annotations.coco.json")
    assert "Roboflow" in _refused(f"coco:{root}")
    (root / "train/_annotations.coco.json").rename(root / "annotations/instances_train.json")
    assert len(open_dataset(f"coco:{root}", "train")) == 3


def test_cvat_coco(coco: Make) -> None:
    root = coco([], split="default", folder="images/default")
    with pytest.raises(
        NoSplit, match=r"instances_train\.json: no such split; there are: default \(CVAT's name for all images\)"
    ):
        open_dataset(f"coco:{root}", "train")
    assert len(open_dataset(f"coco:{root}", "default")) == 3


def test_cvat_voc(voc: Make) -> None:
    root = voc({"a": voc_xml([voc_object("cat", 1, 1, 9, 9)])}, default=["a"])
    with pytest.raises(NoSplit, match=r"train\.txt: no such split; there are: default$"):
        open_dataset(f"voc:{root}", "train")


def test_folders_of_the_other_format(coco: Make, voc: Make) -> None:
    of_coco, of_voc = coco([]), voc({"a": voc_xml([voc_object("cat", 1, 1, 9, 9)])})
    assert f"found COCO's layout with the splits train; open coco:{of_coco}" in _refused(f"voc:{of_coco}")
    assert f"found VOC's layout; open voc:{of_voc}" in _refused(f"coco:{of_voc}")
    assert f"found VOC's layout; open voc:{of_voc}" in _refused(f"coco:{of_voc.parent}")
    assert _refused(f"voc:{of_voc / 'JPEGImages'}").endswith(
        f"found a part of {of_voc}, which has VOC's layout; open voc:{of_voc}"
    )
    assert f"open coco:{of_coco}" in _refused(f"coco:{of_coco / 'annotations'}")
    (of_coco / "a/b").mkdir(parents=True)
    of_voc.rename(of_coco / "a/b/voc")
    assert _refused(f"coco:{of_coco.parent}").endswith(f"COCO's layout with the splits train in coco; open coco:{of_coco}")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["annotations/train.json"], "JSON files of other names: annotations/train.json"),
        (["result.json", "images/a.png"], "JSON files of other names: result.json"),
        (["train/a.xml", "train/a.jpg"], "XML files that are not in a folder called Annotations: train/a.xml"),
        (["data.yaml", "train/labels/a.txt"], "data.yaml, YOLO's layout, which cannot be read"),
        (["labels/train/a.txt"], "labels/train/a.txt, YOLO's layout, which cannot be read"),
        ([f"{n}.png" for n in range(9)], "0.png, 1.png, 2.png, 3.png, 4.png, … (9 in all)"),
        (["train2017.zip"], "train2017.zip"),
        (["pics/a.png"], "pics/"),
        ([], "an empty folder"),
    ],
)
def test_other_layouts(files: list[str], expected: str, tmp_path: Path) -> None:
    root = _files(tmp_path, *files)
    assert describe_layout(root) == expected
    for format in ("voc", "coco"):
        assert _refused(f"{format}:{root}").endswith(f"found {expected}")


def test_voc_without_lists_of_splits(voc: Make) -> None:
    root = voc({"a": voc_xml([voc_object("cat", 1, 1, 9, 9)])})
    (root / "ImageSets/Main/train.txt").unlink()
    message = _refused(f"voc:{root}")
    assert message.endswith("train.txt: no such file; expected the names of the split's pictures, without suffix, one a line")
    _files(root, "ImageSets/train.txt", "classes.txt")
    assert _refused(f"voc:{root}") == f"{message}; found ImageSets/train.txt instead"


def test_invalid_names_of_data_sets(voc: Make, coco: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_voc, of_coco = voc({"a": voc_xml([voc_object("cat", 1, 1, 9, 9)])}), coco([])
    assert _refused(str(of_voc)).endswith(f"; {of_voc} has VOC's layout; open voc:{of_voc}")
    assert _refused(str(of_coco)).endswith(f"; open coco:{of_coco}")
    assert _refused("VOC:data").endswith("; formats are in lower case: voc:data")
    assert _refused("voc:").endswith("; the folder is missing")
    file = tmp_path / "train.json"
    file.write_text(json.dumps({}))
    assert _refused(f"coco:{file}") == f"{file}: a file; expected the folder of the data set"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(open_dataset(f"voc:~/{of_voc.name}", "train")) == 1
    assert _refused("voc:~/nowhere") == "~/nowhere: no such folder"
