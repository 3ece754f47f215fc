"""`nasdsl eval`: numbers, files and exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from in_process import invoke, refused
from PIL import Image
from small_runs import coco, noise, untrained_detector

from nasdsl.data import open_dataset
from nasdsl.detection.weights import save_detector

DATA = ["--data", "shapes:6"]


def test_a_detector_and_its_results_give_the_same_numbers(run: Path, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    first = invoke(
        "eval", run, *DATA, "--results", results, "--format", "json", "--workers", "0", "--metrics", "coco,voc07,voc12"
    )
    assert first.exit_code == 0, first.output
    assert f"wrote {results}" in first.stderr
    assert "shapes:6 (val): 6 images" in first.stderr
    measured = json.loads(first.stdout)
    assert measured["images"] == 6
    assert measured["detections"] == len(json.loads(results.read_text())) > 0
    assert {"coco", "voc07", "voc12"} <= set(measured)
    second = invoke("eval", results, *DATA, "--format", "json", "--metrics", "coco,voc07,voc12")
    assert (second.exit_code, json.loads(second.stdout)) == (0, measured)
    alone = tmp_path / "alone.json"
    one_by_one = invoke("eval", run, *DATA, "--results", alone, "--workers", "0", "--batch-size", "1")
    assert one_by_one.exit_code == 0, one_by_one.output
    for one, other in zip(*(json.loads(file.read_text()) for file in (results, alone)), strict=True):
        assert (one["image_id"], one["category_id"]) == (other["image_id"], other["category_id"])
        assert one["bbox"] == pytest.approx(other["bbox"], abs=0.05)


def perfect(path: Path) -> Path:
    """Write results that are the annotations themselves."""
    truth = open_dataset("shapes:6", "val").ground_truth()["annotations"]
    path.write_text(json.dumps([{k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.9} for a in truth]))
    return path


def test_output_formats(tmp_path: Path) -> None:
    results = perfect(tmp_path / "results.json")
    people = invoke("eval", results, *DATA)
    assert people.exit_code == 0
    for message in ("circle", "ring", "mean", "AP 100.0", "AP50 100.0", "VOC12 100.0", "6 images"):
        assert message in people.stdout
    assert "VOC07" not in people.stdout
    assert "\x1b[" not in people.output
    programs = json.loads(invoke("eval", results, *DATA, "--format", "json", "--metrics", "voc07").stdout)
    assert programs["voc07"]["mean_ap"] == pytest.approx(1)
    assert programs["coco"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--bar", "99"], 0, ""),
        (["--bar", "0"], 0, ""),
        (["--bar", "99", "--metrics", "voc07"], 0, ""),
        (["--bar", "99", "--split", "test"], 1, "AP {} is below the bar of 99"),
        (["--bar", "50.5", "--split", "test", "--metrics", "voc07,voc12"], 1, "VOC07 {} is below the bar of 50.5"),
        (["--bar", "50.5", "--split", "test", "--metrics", "voc12,voc07"], 1, "VOC12 {} is below the bar of 50.5"),
        (["--bar", "50.5", "--split", "test", "--metrics", "voc12,coco"], 1, "AP {} is below the bar of 50.5"),
    ],
)
def test_the_bar(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    """The results of one split are wrong for another."""
    result = invoke("eval", perfect(tmp_path / "results.json"), *DATA, *arguments)
    assert result.exit_code == code, result.output
    before, _, after = message.partition(" {} ")
    assert after in result.stderr
    assert before in result.stderr
    assert ("below the bar" in result.stderr) == bool(message)
    assert "mean" in result.stdout, "the numbers are there in any case"


def test_the_bar_without_objects(tmp_path: Path) -> None:
    """AP without boxes is nan, which is below any bar."""
    coco(tmp_path, annotations=[])
    results = tmp_path / "results.json"
    results.write_text("[]")
    assert invoke("eval", results, "--data", f"coco:{tmp_path}", "--bar", "0").exit_code == 1


@pytest.mark.parametrize("suffix", [".png", ".svg", ".PDF"])
def test_curves(suffix: str, tmp_path: Path) -> None:
    curves = tmp_path / f"curves{suffix}"
    result = invoke("eval", perfect(tmp_path / "results.json"), *DATA, "--curves", curves)
    assert result.exit_code == 0, result.output
    assert f"wrote {curves}" in result.stderr
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".PDF": b"%PDF"}[suffix]
    assert curves.read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", *DATA], "no file nowhere"),
        (["nowhere.json", *DATA], "nowhere.json"),
        (["."], "Missing option '--data'"),
        ([".", *DATA], ". has no model.pt: is it a run"),
        (["RUN", *DATA, "--metrics", "ap"], "--metrics ap: expected some of coco, voc07, voc12"),
        (["RUN", *DATA, "--metrics", ","], "--metrics ,: expected some of"),
        (["RUN", *DATA, "--curves", "c.jpg"], "--curves c.jpg: expected a file that ends in .svg, .png, .pdf"),
        (["RUN", *DATA, "--curves", "no/c.svg"], "no folder no to write c.svg to"),
        (["RUN", *DATA, "--results", "no/r.json"], "no folder no to write r.json to"),
        (["RUN", *DATA, "--bar", "101"], "101.0 is not in the range"),
        (["RUN", *DATA, "--split", "x"], "shapes has no split 'x'"),
        (["RUN", *DATA, "--device", "cuda:99"], "device 'cuda:99' cannot be used"),
        (["RUN", "--data", "shapes:x"], "'shapes:x': expected a number"),
        (["broken.json", *DATA], "broken.json"),
        (["other.json", *DATA], "image_id"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments(
    arguments: list[str], message: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text('[{"image_id": ')
    Path("other.json").write_text('[{"image_id": 77, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}]')
    assert message in refused("eval", *(str(run) if a == "RUN" else a for a in arguments))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.json", "other.json"]


def test_unreadable_images_are_named_and_left_out(tmp_path: Path) -> None:
    data = coco(tmp_path)
    save_detector(untrained_detector(("dog", "cat"), (17, 18)), tmp_path / "model.pt")
    broken = data / "val" / "2.png"
    broken.write_bytes(broken.read_bytes()[:120])
    result = invoke("eval", tmp_path, "--data", f"coco:{data}", "--workers", "0", "--format", "json")
    assert result.exit_code == 0, result.output
    assert "2.png" in result.stderr
    assert json.loads(result.stdout)["images"] == 2
    assert "1 image left out" in result.stderr
    results = tmp_path / "results.json"
    results.write_text("[]")
    alone = invoke("eval", results, "--data", f"coco:{data}", "--format", "json")
    assert alone.exit_code == 0, alone.output
    assert json.loads(alone.stdout)["images"] == 2, "a detector and its results are evaluated on the same images"
    assert "2.png" in alone.stderr
    for what in (tmp_path, results):
        message = refused("eval", what, "--data", f"coco:{data}", "--workers", "0", "--on-error", "refuse")
        assert "2.png" in message


def test_data_of_other_classes_is_refused(run: Path, tmp_path: Path) -> None:
    message = refused("eval", run, "--data", f"coco:{coco(tmp_path)}", "--workers", "0")
    assert "circle" in message or "classes" in message
    voc = tmp_path / "voc"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (voc / folder).mkdir(parents=True)
    Image.fromarray(noise((48, 64))).save(voc / "JPEGImages" / "1.png")
    box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    (voc / "Annotations" / "1.xml").write_text(f"<annotation><object><name>dog</name>{box}</object></annotation>")
    (voc / "ImageSets" / "Main" / "val.txt").write_text("1")
    message = refused("eval", run, "--data", f"voc:{voc}", "--workers", "0")
    assert "is of a class of the detector: circle, " in message
    assert "dog (1)" in message
