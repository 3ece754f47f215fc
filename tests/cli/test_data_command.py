"""`nasdsl data`; and datasets of every form in training, evaluation, detection and search."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from data_folders import picture
from folder_layouts import (
    CLASSES,
    SPLIT_LAYOUTS,
    WHOLE_LAYOUTS,
    Labelled,
    class_names,
    small_set,
    write_voc,
    write_yolo,
    write_yolo_with_yaml,
)
from in_process import invoke, refused
from PIL import Image
from small_spaces import FPN_SPACE

from nasdsl.cli.data import MAX_PROBLEMS
from nasdsl.training import Run
from nasdsl.training.proxy import ProxySpec, ProxyTask

TRAIN = [
    "train", "zoo:fcos", "--width", "32", "--backbone", "tiny", "--backbone-weights", "none", "--recipe", "quick",
    "--size", "64x64", "--batch-size", "4", "--workers", "0", "--steps", "2", "--method", "score_threshold=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Labelled]:
    return small_set(tmp_path_factory.mktemp("images"))


def shown(*arguments: str | Path) -> dict[str, Any]:
    result = invoke("data", *arguments, "--format", "json")
    assert result.exit_code == 0, result.output
    content: dict[str, Any] = json.loads(result.stdout)
    return content


# ------------------------------------------------------------------------------------------------------ nasdsl data


@pytest.mark.parametrize("layout", SPLIT_LAYOUTS)
def test_every_layout_with_splits(layout: str, images: list[Labelled], tmp_path: Path) -> None:
    SPLIT_LAYOUTS[layout](tmp_path, images)
    content = shown(tmp_path)
    assert set(content) == {
        "name", "classes", "category_ids", "splits", "image_sizes", "box_sizes", "recommended_size", "problems", "notes",
    }  # fmt: skip
    assert content["classes"] == list(CLASSES)
    splits = {
        "val" if name.startswith("val") else name.removesuffix("2017"): found for name, found in content["splits"].items()
    }
    assert list(splits) == ["train", "val", "test"]
    for split, found in splits.items():
        boxes = [box for image in images if image.split == split for box in image.boxes]
        assert found["images"] == sum(image.split == split for image in images)
        assert found["boxes"] == len(boxes) == sum(found["boxes_by_class"].values())
        assert found["boxes_by_class"] == {name: sum(box[0] == name for box in boxes) for name in CLASSES}
        assert found["images_without_boxes"] == sum(image.split == split and not image.boxes for image in images)
        assert found["made"] is None
    assert content["image_sizes"] == [{"size": [40, 60], "images": 8}, {"size": [48, 32], "images": 4}]
    assert sum(content["box_sizes"]["boxes"]) == sum(len(image.boxes) for image in images)
    assert content["problems"] == []


@pytest.mark.parametrize("layout", WHOLE_LAYOUTS)
def test_every_layout_without_splits(layout: str, images: list[Labelled], tmp_path: Path) -> None:
    WHOLE_LAYOUTS[layout](tmp_path, images)
    content = shown(tmp_path, "--split-share", "0.5", "--split-seed", "7")
    made = {name: (found["images"], found["made"]) for name, found in content["splits"].items() if name != "default"}
    assert made == {name: (6, {"split_share": 0.5, "split_seed": 7}) for name in ("train", "val")}


def test_what_people_see(images: list[Labelled], tmp_path: Path) -> None:
    write_yolo_with_yaml(tmp_path, images)
    result = invoke("data", tmp_path, "-o", tmp_path / "sheet.png")
    assert result.exit_code == 0, result.output
    text = result.stdout
    assert text.startswith(f"yolo:{tmp_path}: 3 classes\n")
    rows = [line.split() for line in text.splitlines()]
    assert ["train", "val", "test"] in rows
    assert ["images", "7", "3", "2"] in rows
    assert [
        "zebra",
        "crossing",
        *(str(shown(tmp_path)["splits"][s]["boxes_by_class"]["zebra crossing"]) for s in rows[1]),
    ] in rows
    for part in ("image sizes, height x width: 40x60 (8), 48x32 (4)", "box sizes", "█", "--size 32x", "no problems"):
        assert part in text
    assert "sheet.png" in result.stderr
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size[1] >= 3 * 240
    one = invoke("data", f"yolo:{tmp_path}/data.yaml", "--split", "valid", "--classes", "dog,cat", "--quick")
    assert one.exit_code == 0
    assert "2 classes" in one.stdout
    as_json = invoke("data", f"yolo:{tmp_path}/data.yaml", "--split", "valid", "--classes", '["dog", "cat"]', "--quick")
    assert as_json.stdout == one.stdout
    assert "objects of other classes" not in one.stdout


def test_the_sheet_has_the_colors_of_the_classes(tmp_path: Path) -> None:
    from nasdsl.detection.visualization import class_color

    image = picture(tmp_path / "raw/a.png", (240, 320))
    Image.new("RGB", (320, 240), "white").save(image)
    boxes = (("cat", 20, 40, 120, 140), ("dog", 180, 60, 300, 220))
    write_yolo_with_yaml(tmp_path / "data", [Labelled("train", "a", image, (240, 320), boxes)])
    assert invoke("data", tmp_path / "data", "-o", tmp_path / "sheet.png").exit_code == 0
    with Image.open(tmp_path / "sheet.png") as sheet:
        colors = {color for _, color in sheet.convert("RGB").getcolors(1 << 20)}
        # The left edges of the boxes.
        assert sheet.getpixel((20, 120)) == class_color(0)
        assert sheet.getpixel((180, 200)) == class_color(1)
    assert {class_color(0), class_color(1)} <= colors


def test_every_problem_with_its_file(images: list[Labelled], tmp_path: Path) -> None:
    write_yolo_with_yaml(tmp_path, images)
    label = tmp_path / "labels/train/im01.txt"
    label.write_text(label.read_text() * 2 + "9 0.5 0.5 0.1 0.1\n0 0.95 0.5 0.5 0.2\n")
    cut = tmp_path / "images/val/im07.jpg"
    data = cut.read_bytes()
    cut.unlink()
    cut.write_bytes(data[: len(data) * 9 // 10])
    (tmp_path / "images/test/none.png").write_bytes(b"")
    found = {(p["split"], Path(p["file"]).name, p["kind"]): p["reason"] for p in shown(tmp_path)["problems"]}
    assert set(found) == {
        ("train", "im01.txt: line 3", "box"),
        ("train", "im01.txt", "clipped"),
        ("train", "im01.jpg", "double"),
        ("val", "im07.jpg", "image"),
        ("test", "none.png", "image"),
    }
    assert "expected 0 to 2" in found["train", "im01.txt: line 3", "box"]
    assert "cannot be decoded" in found["val", "im07.jpg", "image"]  # truncated behind its header
    assert ("val", "im07.jpg", "image") not in {
        (p["split"], Path(p["file"]).name, p["kind"]) for p in shown(tmp_path, "--quick")["problems"]
    }
    text = invoke("data", tmp_path).stdout
    assert "5 problems:" in text
    assert f"{tmp_path}/images/val/im07.jpg: image left out: cannot be decoded" in text
    assert "1 broken entr" in refused("data", tmp_path, "--on-error", "refuse", "--split", "train")


def test_what_people_see_of_many_problems_and_of_no_boxes(images: list[Labelled], tmp_path: Path) -> None:
    write_yolo_with_yaml(tmp_path / "many", images)
    (tmp_path / "many/labels/train/im01.txt").write_text("9 0.5 0.5 0.1 0.1\n" * (MAX_PROBLEMS + 1234))
    text = invoke("data", tmp_path / "many", "--quick").stdout
    assert f"{MAX_PROBLEMS + 1234} problems:" in text.replace(",", "")
    assert text.count("expected 0 to 2 (cat to zebra crossing)") == MAX_PROBLEMS
    assert text.endswith("  … and 1,234 more (--format json has all of them)\n")
    write_yolo_with_yaml(tmp_path / "none", [replace(image, boxes=()) for image in images])
    (tmp_path / "none/data.yaml").write_text("train: images/train\nnames: [cat]")
    text = invoke("data", tmp_path / "none").stdout
    assert "image sizes" in text
    assert "box sizes" not in text
    assert "recommended" not in text


def test_a_sheet_without_images_that_can_be_read(images: list[Labelled], tmp_path: Path) -> None:
    write_yolo_with_yaml(tmp_path / "data", images[:2])
    whole = sorted((tmp_path / "data/images/train").iterdir())
    for path in whole[:1]:
        _cut(path)
    assert invoke("data", tmp_path / "data", "-o", tmp_path / "sheet.png").exit_code == 0
    for path in whole[1:]:
        _cut(path)
    (tmp_path / "sheet.png").unlink()
    result = invoke("data", tmp_path / "data", "-o", tmp_path / "sheet.png")
    assert result.exit_code == 2
    assert result.stderr.endswith("nasdsl: no image can be drawn: none is readable\n")
    assert not (tmp_path / "sheet.png").exists()


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()  # it is a link to the file of all tests
    path.write_bytes(data[: len(data) * 9 // 10])


def test_images_in_two_splits(images: list[Labelled], tmp_path: Path) -> None:
    write_voc(tmp_path, images, "Annotations", "JPEGImages", "ImageSets/Main")
    lists = tmp_path / "ImageSets/Main"
    (lists / "trainval.txt").write_text((lists / "train.txt").read_text() + (lists / "val.txt").read_text())
    (lists / "cat_train.txt").write_text("im00 1\n")
    result = invoke("data", tmp_path, "--format", "json")
    assert "1 other splits, such as cat_train" in result.stderr
    content = json.loads(result.stdout)
    assert list(content["splits"]) == ["train", "val", "test", "trainval"]
    assert sum(entry["images"] for entry in content["image_sizes"]) == 12  # those of trainval once
    assert content["problems"] == []
    (lists / "val.txt").write_text((lists / "val.txt").read_text() + "im00\n")
    (problem,) = shown(tmp_path)["problems"]
    assert (problem["kind"], problem["split"], Path(problem["file"]).name) == ("shared", "val", "im00.png")
    (lists / "val.txt").rename(lists / "validation.txt")
    assert [(problem["kind"], problem["split"]) for problem in shown(tmp_path)["problems"]] == [("shared", "validation")]


def test_a_single_image(tmp_path: Path) -> None:
    image = picture(tmp_path / "raw/a.png")
    write_yolo(tmp_path / "data", [Labelled("train", "a", image, (40, 60), (("cat", 1, 1, 9, 9),))], "images", "labels")
    result = invoke("data", tmp_path / "data", "--format", "json")
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.stdout)["splits"]) == ["train"]
    assert "too few images to make one (1)" in result.stderr


def test_what_is_refused(images: list[Labelled], tmp_path: Path) -> None:
    write_yolo_with_yaml(tmp_path / "data", images)
    for arguments, message in (
        (["nowhere"], "'nowhere' is not a data set: expected a folder"),
        ([tmp_path / "data", "--split", "dev"], "no such split as 'dev'; there are: train, val, test"),
        ([tmp_path / "data", "--classes", "cat,cow"], "there is no class 'cow'; expected classes among: cat, dog"),
        ([tmp_path / "data", "--classes", "cat,cat"], "expected names with commas between them, each once"),
        ([tmp_path / "data", "--classes", '["cat", 3]'], "expected names with commas between them, each once"),
        ([tmp_path / "data", "--classes", "[cat]"], "'[cat]' is no JSON list"),
        ([tmp_path / "data", "-o", "sheet.jpg"], "expected a file that ends in .png"),
        ([tmp_path / "data", "-o", "nowhere/sheet.png"], "no folder nowhere"),
    ):
        assert message in refused("data", *arguments)
    (tmp_path / "empty").mkdir()
    assert "not recognised as a data set: found no files" in refused("data", tmp_path / "empty")


# --------------------------------------------------------------------------------- train, eval, detect, search


def test_train_evaluate_and_detect_on_a_yolo_folder(images: list[Labelled], tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    write_yolo_with_yaml(data, images)
    result = invoke(*TRAIN, "--data", data, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"yolo:{data} (train): 7 images" in result.stderr
    assert f"yolo:{data} (val): 3 images" in result.stderr
    assert Run(out).classes == CLASSES
    assert "split_share" not in Run(out).read_config()["about"]
    of_run, of_results = (
        json.loads(invoke("eval", what, "--data", data, "--split", "valid", "--workers", "0", "--format", "json").stdout)
        for what in (out, out / "results.json")
    )
    assert of_run == of_results
    assert of_run["coco"]["ap"] == pytest.approx(json.loads(Run(out).metrics.read_text())["coco"]["ap"], abs=1e-6)
    found = invoke("detect", out, "--data", data, "-o", tmp_path / "found", "--sheet", "--threshold", "0")
    assert found.exit_code == 0, found.output
    assert "(test): 2 images" in found.stderr
    assert sorted(path.name for path in (tmp_path / "found").iterdir()) == [
        "detections.csv", "detections.json", "im10.png", "im11.png", "sheet.png",
    ]  # fmt: skip
    refusal = refused(*TRAIN, "--data", data, "--out", tmp_path / "other", "--split-share", "0.5")
    assert "are for a dataset without a validation split" in refusal


def test_a_run_keeps_the_split_that_it_made(images: list[Labelled], tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    write_yolo(data, images, "images", "labels")
    (data / "classes.txt").write_text("\n".join(class_names(images)))
    command = [*TRAIN, "--data", data, "--out", out]
    result = invoke(*command, "--split-share", "0.6", "--split-seed", "5")
    assert result.exit_code == 0, result.output
    assert f"yolo:{data} (train): 7 images" in result.stderr
    about = Run(out).read_config()["about"]
    assert (about["split_share"], about["split_seed"]) == (0.6, 5)
    val = shown(data, "--split-share", "0.6", "--split-seed", "5")["splits"]["val"]
    assert val["images"] == 5
    page = tmp_path / "page.html"
    assert invoke("report", out, "-o", page).exit_code == 0
    assert 'id="spec-confusion"' in page.read_text()  # with the images of the split that was made
    results = {entry["image_id"] for entry in json.loads(Run(out).results.read_text())}
    for what in (out, out / "model.pt", out / "results.json"):
        measured = invoke("eval", what, "--data", data, "--workers", "0", "--format", "json", "--results", tmp_path / "r.json")
        assert measured.exit_code == 0, measured.output
        assert f"yolo:{data} (val): 5 images" in measured.stderr
        assert {entry["image_id"] for entry in json.loads((tmp_path / "r.json").read_text())} == results
        ap = json.loads(measured.stdout)["coco"]["ap"]
        assert ap == pytest.approx(json.loads(Run(out).metrics.read_text())["coco"]["ap"], abs=1e-6)
    other = invoke("eval", out, "--data", data, "--workers", "0", "--split-share", "0.8", "--split-seed", "0")
    assert "(val): 2 images" in other.stderr
    assert "(all): 12 images" in invoke("eval", out, "--data", data, "--workers", "0", "--split", "all").stderr
    found = invoke("detect", out, "--data", data, "-o", tmp_path / "found", "--no-pictures")
    assert "(val): 5 images" in found.stderr
    # Resumed, without the options as well; with others it is refused.
    for more in ([], ["--split-seed", "5"]):
        again = invoke(*command, *more, "--resume")
        assert again.exit_code == 0, again.output
        assert "(train): 7 images" in again.stderr
    assert "a resumed run keeps its split" in refused(*command, "--split-share", "0.8", "--resume")


def test_without_a_validation_split(images: list[Labelled], tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_voc(data, [image for image in images if image.split == "train"], "{split}", "{split}")
    result = invoke(*TRAIN, "--data", data, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "(train): 6 images" in result.stderr
    assert "(val): 1 images" in result.stderr
    assert "train is made: 6 of the 7 images of the split train" in result.stderr
    result = invoke(*TRAIN, "--data", data, "--out", tmp_path / "whole", "--val-split", "none")
    assert "(train): 7 images" in result.stderr
    assert "split_share" not in Run(tmp_path / "whole").read_config()["about"]
    # A run without a made split, such as one of an earlier version, is resumed as it was.
    again = invoke(*TRAIN, "--data", data, "--out", tmp_path / "whole", "--resume")
    assert again.exit_code == 0, again.output
    assert "(train): 7 images" in again.stderr
    assert "no evaluation: " in again.stderr


def test_classes_are_restricted(images: list[Labelled], tmp_path: Path) -> None:
    for layout in ("voc", "coco, roboflow", "yolo"):
        data, out = tmp_path / layout / "data", tmp_path / layout / "run"
        SPLIT_LAYOUTS[layout](data, images)
        result = invoke(*TRAIN, "--data", data, "--out", out, "--classes", "zebra crossing,cat")
        assert result.exit_code == 0, result.output
        assert Run(out).classes == ("zebra crossing", "cat")
        assert "left out: dog (" in result.stderr
        of_run, of_results = (
            json.loads(invoke("eval", what, "--data", data, "--workers", "0", "--format", "json").stdout)
            for what in (out, out / "results.json")
        )
        assert of_run == of_results
        assert {entry["name"] for entry in of_run["coco"]["classes"]} == {"zebra crossing", "cat"}
        message = refused(*TRAIN, "--data", data, "--out", tmp_path / "no", "--classes", "cat,cow")
        assert "'cow'" in message
        assert "cat, dog, zebra crossing" in message


def test_search_on_a_folder_without_splits(images: list[Labelled], tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "search"
    WHOLE_LAYOUTS["coco, one file"](data, images)
    (tmp_path / "fpn.nas").write_text(FPN_SPACE)
    command = [
        "search", tmp_path / "fpn.nas", "--data", data, "--classes", "dog,cat", "--split-share", "0.7", "--backbone", "tiny",
        "--iterations", "2", "--proxy-size", "64", "--proxy-batch", "2", "--strategy", "random", "--size", "64x64",
        "--trials", "1", "--top", "1", "--recipe", "quick", "--set", "size=64x64", "--set", "workers=0", "--set", "steps=1",
        "--out", out,
    ]  # fmt: skip
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    assert f"coco:{data} (train): 8 images" in result.stderr
    (run,) = [Run(path.parent) for path in out.rglob("model.pt")]
    assert run.classes == ("dog", "cat")
    assert run.read_config()["data"]["pictures"] == 8
    assert (run.read_config()["about"]["split_share"], run.read_config()["about"]["split_seed"]) == (0.7, 0)
    spec = ProxySpec(
        str(data), classes=("dog", "cat"), split_share=0.7, backbone="tiny", size=64, longest=96, iterations=1, batch_size=2
    )  # fmt: skip
    task = ProxyTask(spec, quiet=True)
    assert (task.classes, len(task.train) + len(task.val)) == (("dog", "cat"), 8)
    measured = invoke("eval", run.folder, "--data", data, "--workers", "0")
    assert f"coco:{data} (val): 4 images" in measured.stderr
    assert invoke(*command, "--resume").exit_code == 0
    assert "split_share" in refused(*command[:-2], "--split-share", "0.5", "--out", out, "--resume")
