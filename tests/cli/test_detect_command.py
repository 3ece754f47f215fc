"""`nasdsl detect`: detections, files and exit codes, with images of every kind and none."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_process import invoke, refused
from PIL import Image
from small_runs import coco, noise, untrained_detector

from nasdsl.cli.detect import SECONDS_BETWEEN_REPORTS, _VideoProgress
from nasdsl.cli.files import load_detector_for_inference
from nasdsl.data import read_image
from nasdsl.data.video import VideoReader, VideoWriter
from nasdsl.detection import inference
from nasdsl.detection.factory import load_detector
from nasdsl.detection.inference import InferenceDetector
from nasdsl.detection.weights import save_detector


def save(path: Path, kind: str) -> Path:
    """Write an image of 48x64 of some kind."""
    picture = Image.fromarray(noise((48, 64)))
    if kind == "16-bit":
        values = np.asarray(picture.convert("L")).astype(np.uint16) * 257
        Image.fromarray(values).save(path)
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(path, exif=exif)
    else:
        picture.convert(kind).save(path)
    return path


KINDS = {
    "rgb.png": "RGB", "rgb.jpg": "RGB", "grey.png": "L", "grey.jpg": "L", "rgba.png": "RGBA", "palette.png": "P",
    "bits.png": "1",
    "cmyk.jpg": "CMYK", "deep.png": "16-bit", "turned.jpg": "turned", "b.bmp": "RGB", "w.webp": "RGBA", "t.tif": "CMYK",
}  # fmt: skip


def test_images_of_every_kind(run: Path, tmp_path: Path) -> None:
    files = [save(tmp_path / name, kind) for name, kind in KINDS.items()]
    out = tmp_path / "new" / "out"
    result = invoke("detect", run, *files, "-o", out, "--threshold", "0.2")
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    document = json.loads((out / "detections.json").read_text())
    assert [entry["file_name"] for entry in document["images"]] == [str(file) for file in files]
    sizes = {Path(entry["file_name"]).name: (entry["height"], entry["width"]) for entry in document["images"]}
    assert sizes == {name: (64, 48) if name == "turned.jpg" else (48, 64) for name in KINDS}
    made = load_detector(run)
    for number, file in enumerate(files, 1):
        mine = [a for a in document["annotations"] if a["image_id"] == number]
        found = made.detect(read_image(file))
        assert len(mine) == len(found["scores"]) > 0
        assert [a["category_id"] - 1 for a in mine] == found["labels"].tolist()
        assert [a["score"] for a in mine] == pytest.approx(found["scores"].tolist(), abs=1e-5)
        for annotation, box in zip(mine, found["boxes"].tolist(), strict=True):
            x, y, width, height = annotation["bbox"]
            assert [x, y, x + width, y + height] == pytest.approx(box, abs=0.02)
            assert annotation["area"] == pytest.approx((box[2] - box[0]) * (box[3] - box[1]), abs=0.01)
    assert document["categories"] == [{"id": i, "name": n} for i, n in enumerate(made.classes, 1)]
    stems = [Path(name).stem for name in KINDS]
    expected = {f"{stem}.png" for stem in stems} | {"rgb_2.png", "grey_2.png", "detections.json", "detections.csv"}
    assert {path.name for path in out.iterdir()} == expected
    with Image.open(out / "turned.png") as drawn:
        assert (drawn.mode, drawn.size) == ("RGB", (48, 64))
    assert not np.array_equal(read_image(out / "rgb.png"), read_image(tmp_path / "rgb.png")), "boxes are drawn"


def test_pycocotools_reads_the_detections(run: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    assert invoke("detect", run, save(tmp_path / "a.png", "RGB"), "-o", tmp_path / "out").exit_code == 0
    read = COCO(str(tmp_path / "out" / "detections.json"))
    assert len(read.getAnnIds(imgIds=[1])) == 20
    assert read.loadCats([1])[0]["name"] == "circle"


def test_the_threshold_is_for_drawing_only(run: Path, tmp_path: Path) -> None:
    picture = save(tmp_path / "a.png", "RGB")
    assert "a.png: 0 objects, drawn in" in invoke("detect", run, picture, "-o", tmp_path / "none", "--threshold", "1").stderr
    message = invoke("detect", run, picture, "-o", tmp_path / "all", "--threshold", "0").stderr
    assert re.search(r"a\.png: 20 objects \((\d+ \w+(, )?)+\), drawn in", message)
    assert torch.equal(read_image(tmp_path / "none" / "a.png"), read_image(picture))
    documents = [(tmp_path / out / "detections.json").read_text() for out in ("none", "all")]
    assert documents[0] == documents[1]
    message = invoke("detect", run, picture, "-o", tmp_path / "j", "--threshold", "0", "--no-pictures").stderr
    assert re.search(r"a\.png: 20 objects \([^)]*\)\n", message)
    assert sorted(path.name for path in (tmp_path / "j").iterdir()) == ["detections.csv", "detections.json"]
    assert (tmp_path / "j" / "detections.json").read_text() == documents[0]


def test_a_folder_with_names_that_clash(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub.png").mkdir(parents=True)
    for name in ("a.png", "a.jpg", "A.PNG", "b ü.png", "a_2.png"):
        save(folder / name, "RGB")
    (folder / "notes.txt").write_text("no picture")
    result = invoke("detect", run, folder, folder / "a.png", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(document["images"]) == 5, "a.png is named twice and read once"
    written = [path.name for path in (tmp_path / "out").iterdir() if path.suffix == ".png"]
    assert len(written) == len({name.lower() for name in written}) == 5


def test_no_image_is_overwritten(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.jpg"):
        save(tmp_path / name, "RGB")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.chdir(tmp_path)
    result = invoke("detect", run, "a.png", tmp_path / "b.jpg", "-o", ".")
    assert result.exit_code == 0, result.output
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.png", "a_2.png", "b.jpg", "b.png", "detections.csv", "detections.json",
    ]  # fmt: skip


def test_the_sheet_overwrites_no_image(run: Path, tmp_path: Path) -> None:
    picture = save(tmp_path / "sheet.jpg", "RGB")
    assert invoke("detect", run, picture, "--sheet", "-o", tmp_path / "out").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "detections.csv", "detections.json", "sheet.png", "sheet_2.png",
    ]  # fmt: skip
    before = (tmp_path / "out" / "sheet.png").read_bytes()
    message = refused("detect", run, tmp_path / "out" / "sheet.png", "--sheet", "-o", tmp_path / "out")
    assert "sheet.png would be overwritten" in message
    assert (tmp_path / "out" / "sheet.png").read_bytes() == before


def test_unreadable_images_are_named_and_skipped(run: Path, tmp_path: Path) -> None:
    good = save(tmp_path / "good.png", "RGB")
    cut, text, empty = tmp_path / "cut.jpg", tmp_path / "text.png", tmp_path / "empty.png"
    cut.write_bytes(save(tmp_path / "whole.jpg", "RGB").read_bytes()[:400])
    text.write_text("no picture")
    empty.write_bytes(b"")
    result = invoke("detect", run, cut, text, empty, tmp_path / "missing.png", good, "-o", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (2, "")
    for message in ("cut.jpg: ", "text.png: not an image", "empty.png: the file is empty", "missing.png: no such file"):
        assert message in result.stderr
    assert "4 images could not be read" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["detections.csv", "detections.json", "good.png"]
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [entry["file_name"] for entry in document["images"]] == [str(good)]


def test_tiny_images(run: Path, tmp_path: Path) -> None:
    for size in ((1, 1), (7, 3), (1, 300)):
        Image.fromarray(noise(size)).save(tmp_path / f"{size[0]}x{size[1]}.png")
    result = invoke("detect", run, tmp_path, "-o", tmp_path / "out", "--threshold", "0")
    assert result.exit_code == 0, result.output
    for size in ("1x1", "7x3", "1x300"):
        assert read_image(tmp_path / "out" / f"{size}.png").shape == read_image(tmp_path / f"{size}.png").shape


def test_detect_in_a_dataset(run: Path, tmp_path: Path) -> None:
    """The images of `--data`, and a sheet with all of them side by side."""
    out = tmp_path / "out"
    result = invoke("detect", run, "--data", "shapes", "--split", "val", "--first", "3", "--sheet", "-o", out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [
        "0.png", "1.png", "2.png", "detections.csv", "detections.json", "sheet.png",
    ]  # fmt: skip
    document = json.loads((out / "detections.json").read_text())
    assert [entry["height"] for entry in document["images"]] == [240, 240, 240]
    sheet = read_image(out / "sheet.png")
    one = read_image(out / "0.png")
    assert torch.equal(sheet[:, 4:244, 4:324], one)
    assert sheet.shape[1] >= 2 * 244 or sheet.shape[2] >= 3 * 324


def test_detect_names_missing_images_of_a_dataset(tmp_path: Path) -> None:
    """Output files stay in the folder, whatever the image ids are."""
    data = coco(tmp_path)
    save_detector(untrained_detector(("dog", "cat"), (17, 18)), tmp_path / "model.pt")
    file = data / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    content["images"] = [{**entry, "id": f"../{entry['id']}"} for entry in content["images"]]
    content["annotations"] = [{**entry, "image_id": f"../{entry['image_id']}"} for entry in content["annotations"]]
    file.write_text(json.dumps(content))
    (data / "val" / "2.png").unlink()
    result = invoke("detect", tmp_path, "--data", f"coco:{data}", "--split", "val", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "images skipped: 1" in result.stderr
    assert "2.png: no such file" in result.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_detect_refuses(run: Path, tmp_path: Path) -> None:
    picture, out = save(tmp_path / "a.png", "RGB"), tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert refused("detect", run, tmp_path / "empty", "-o", out).endswith(f"no images in {tmp_path / 'empty'}\n")
    (tmp_path / "folders" / "in").mkdir(parents=True)
    message = refused("detect", run, tmp_path / "folders", "-o", out)
    assert f"itself; '{tmp_path / 'folders'}/**/*' takes those of the folders in it too" in message
    assert "no file" in refused("detect", tmp_path / "nowhere", picture, "-o", out)
    assert "has no model.pt" in refused("detect", tmp_path / "empty", picture, "-o", out)
    assert "a.png is not a file of weights" in refused("detect", picture, picture, "-o", out)
    assert "Missing option '-o'" in refused("detect", run, picture)
    assert "either images (IMAGE…) or a dataset (--data)" in refused("detect", run, "-o", out)
    assert "either images (IMAGE…) or a dataset (--data)" in refused("detect", run, picture, "--data", "shapes", "-o", out)
    assert "no split 'tset'" in refused("detect", run, "--data", "shapes", "--split", "tset", "-o", out)
    assert "device 'gpu' cannot be used" in refused("detect", run, picture, "-o", out, "--device", "gpu")
    assert not out.exists()
    assert "is a file" in refused("detect", run, picture, "-o", picture)
    (out / "a.png").mkdir(parents=True)
    assert f"{out / 'a.png'}: Is a directory" in refused("detect", run, picture, "-o", out)


@pytest.mark.long
def test_from_a_shell(run: Path, tmp_path: Path) -> None:
    """As a program of its own: the exit code, the streams, and a name that is no UTF-8."""
    name = os.fsdecode(b"b\xffr.png") if sys.platform == "linux" else "bär.png"
    save(tmp_path / name, "RGB")
    ran = subprocess.run(
        [sys.executable, "-m", "nasdsl", "detect", str(run), name, "missing.png", "-o", "out"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "nasdsl: missing.png: no such file\n" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "Warning" not in ran.stderr
    assert (tmp_path / "out" / name).exists()
    document = json.loads((tmp_path / "out" / "detections.json").read_text(encoding="utf-8"))
    assert [entry["file_name"] for entry in document["images"]] == [name]


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "detections.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_has_what_is_drawn(run: Path, tmp_path: Path) -> None:
    files = [save(tmp_path / name, "RGB") for name in ("a, b.png", 'c"d.png')]
    threshold = float(load_detector_for_inference(run, "cpu").predict(read_image(files[0])).scores.median())
    assert invoke("detect", run, *files, "-o", tmp_path / "out", "--threshold", str(threshold)).exit_code == 0
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    names = {entry["id"]: entry["name"] for entry in document["categories"]}
    expected = [a for a in document["annotations"] if a["score"] >= round(threshold, 5)]
    found = rows(tmp_path / "out")
    assert 0 < len(expected) < len(document["annotations"])
    assert list(found[0]) == ["file", "class", "score", "x1", "y1", "x2", "y2"]
    assert [row["file"] for row in found] == [document["images"][a["image_id"] - 1]["file_name"] for a in expected]
    assert [row["class"] for row in found] == [names[a["category_id"]] for a in expected]
    assert [float(row["score"]) for row in found] == [a["score"] for a in expected]
    for row, annotation in zip(found, expected, strict=True):
        x, y, width, height = annotation["bbox"]
        box = [float(row[side]) for side in ("x1", "y1", "x2", "y2")]
        assert box == pytest.approx([x, y, x + width, y + height], abs=0.02)


def test_the_same_as_predict_and_eval(run: Path, tmp_path: Path) -> None:
    """Of a data set, from its files, and by `eval`."""
    data = coco(tmp_path, names=load_detector(run).classes)
    detector = load_detector(run)
    content = json.loads((data / "annotations" / "instances_val.json").read_text())
    content["categories"] = [{"id": i, "name": n} for i, n in zip(detector.category_ids, detector.classes, strict=True)]
    content["annotations"] = [{**a, "category_id": detector.category_ids[0]} for a in content["annotations"]]
    (data / "annotations" / "instances_val.json").write_text(json.dumps(content))
    evaluated = invoke(
        "eval", run, "--data", f"coco:{data}", "--split", "val", "--batch-size", "1", "--workers", "0", "--results",
        tmp_path / "results.json",
    )  # fmt: skip
    assert evaluated.exit_code == 0, evaluated.output
    results = json.loads((tmp_path / "results.json").read_text())
    assert invoke("detect", run, data / "val", "-o", tmp_path / "out").exit_code == 0
    annotations = json.loads((tmp_path / "out" / "detections.json").read_text())["annotations"]
    optimized = load_detector_for_inference(run, "cpu")
    predicted = [a for n, found in enumerate(optimized.predict(data / "val"), 1) for a in found.to_coco(n)]
    assert len(results) == len(annotations) == len(predicted) == 60
    for one, other, third in zip(results, annotations, predicted, strict=True):
        assert one["image_id"] == other["image_id"] == third["image_id"]
        assert one["category_id"] == other["category_id"] == third["category_id"]
        assert other["score"] == round(one["score"], 5)
        assert other["bbox"] == [round(value, 2) for value in one["bbox"]]
        assert one["score"] == pytest.approx(third["score"], rel=1e-5), "in a batch"
        assert one["bbox"] == pytest.approx(third["bbox"], abs=1e-3)


def test_only_some_classes(run: Path, tmp_path: Path) -> None:
    picture = save(tmp_path / "a.png", "RGB")
    invoke("detect", run, picture, "-o", tmp_path / "all", "--threshold", "0")
    counts = Counter(row["class"] for row in rows(tmp_path / "all"))
    (wanted, count), *others = counts.most_common()
    assert others
    result = invoke("detect", run, picture, "-o", tmp_path / "some", "--threshold", "0", "--classes", f" {wanted} ,")
    assert f"a.png: {count} objects ({count} {wanted}), drawn" in result.stderr
    assert {row["class"] for row in rows(tmp_path / "some")} == {wanted}
    assert len(json.loads((tmp_path / "some" / "detections.json").read_text())["annotations"]) == count
    assert not torch.equal(read_image(tmp_path / "some" / "a.png"), read_image(tmp_path / "all" / "a.png"))
    message = refused("detect", run, picture, "-o", tmp_path / "none", "--classes", f"{wanted},cow")
    assert re.search(r"no class 'cow'; the detector has \w+, ", message)
    assert not (tmp_path / "none").exists()


def test_a_pattern(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("a.png", "in/b.png", "in/deep/c.jfif"):
        save(tmp_path / name, "RGB")
    assert invoke("detect", run, tmp_path / "in" / "**" / "*", "-o", tmp_path / "out").exit_code == 0
    images = json.loads((tmp_path / "out" / "detections.json").read_text())["images"]
    assert [Path(entry["file_name"]).name for entry in images] == ["b.png", "c.jfif"]
    assert invoke("detect", run, tmp_path / "in" / "**" / "*", "--first", 1, "-o", tmp_path / "one").exit_code == 0
    assert [path.name for path in (tmp_path / "one").glob("*.png")] == ["b.png"]
    assert "no images in" in refused("detect", run, tmp_path / "*.bmp", "-o", tmp_path / "out")


# ------------------------------------------------------------------------------------------------------------ videos


def write_video(path: Path, frames: int = 6, size: tuple[int, int] = (48, 64)) -> Path:
    with VideoWriter(path) as writer:
        for number in range(frames):
            writer.write(torch.from_numpy(noise(size, number)).permute(2, 0, 1), number / 10)
    return path


def test_videos(run: Path, tmp_path: Path) -> None:
    """Frames with their times in JSON and CSV, an annotated video at the same speed, and images beside it."""
    folder = tmp_path / "in"
    folder.mkdir()
    clip, image = write_video(folder / "clip.mp4"), save(folder / "clip.png", "RGB")
    out = tmp_path / "out"
    result = invoke("detect", run, folder, "-o", out, "--every", "2", "--sheet")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [
        "clip.mp4", "clip.png", "detections.csv", "detections.json", "sheet.png",
    ]  # fmt: skip
    assert re.search(r"clip\.mp4: \d+ objects \(.*\) in 3 frames, drawn in .*clip\.mp4\n", result.stderr)
    document = json.loads((out / "detections.json").read_text())
    assert [(Path(i["file_name"]), i.get("frame"), i.get("time")) for i in document["images"]] == [
        (image, None, None), (clip, 0, 0.0), (clip, 2, 0.2), (clip, 4, 0.4),
    ]  # fmt: skip
    found = rows(out)
    assert list(found[0]) == ["file", "frame", "time", "class", "score", "x1", "y1", "x2", "y2"]
    assert {(row["frame"], row["time"]) for row in found} == {("", ""), ("0", "0.0"), ("2", "0.2"), ("4", "0.4")}
    optimized = load_detector_for_inference(run, "cpu")
    with VideoReader(clip) as video:
        for entry, frame in zip(document["images"][1:], video.read(2), strict=True):
            mine = [a["score"] for a in document["annotations"] if a["image_id"] == entry["id"]]
            assert mine == [round(score, 5) for score in optimized.predict(frame.image).scores.tolist()]
    with VideoReader(out / "clip.mp4") as video:
        drawn = list(video.read())
    assert [frame.time for frame in drawn] == pytest.approx([0, 0.2, 0.4])
    with VideoReader(clip) as video:
        for before, after in zip(video.read(2), drawn, strict=True):
            assert before.image.shape == after.image.shape
            assert 5 < (before.image.float() - after.image.float()).abs().mean() < 120


def test_videos_that_cannot_be_read(run: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    result = invoke("detect", run, tmp_path / "text.mp4", tmp_path / "gone.avi", clip, "-o", tmp_path / "out", "--no-pictures")
    assert result.exit_code == 2
    assert "text.mp4: not a video of a known format" in result.stderr
    assert "gone.avi: no such file" in result.stderr
    assert "2 image or videos could not be read" not in result.stderr
    assert "2 images or videos could not be read" in result.stderr
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())["images"]) == 6
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["detections.csv", "detections.json"]


def test_videos_without_their_library(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_video(tmp_path / "clip.mp4", 1)
    monkeypatch.setitem(sys.modules, "av", None)
    message = refused("detect", run, clip, "-o", tmp_path / "out")
    assert "videos are read with PyAV, which is not installed: pip install 'nasdsl[video]'" in message
    assert invoke("detect", run, save(tmp_path / "a.png", "RGB"), "-o", tmp_path / "out").exit_code == 0


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_stopped_detection_keeps_what_was_found(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nasdsl.detection.detector import Detector

    predict, calls = Detector.predict, []

    def stopped(self: Detector, image: Any) -> Any:
        calls.append(image)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return predict(self, image)

    monkeypatch.setattr(Detector, "predict", stopped)
    result = invoke("detect", run, write_video(tmp_path / "clip.mp4"), "-o", tmp_path / "out")
    assert result.exit_code == 130
    assert len(json.loads((tmp_path / "out" / "detections.json").read_text())["images"]) == 3
    with VideoReader(tmp_path / "out" / "clip.mp4") as video:
        assert len(list(video.read())) == 3


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_after_a_stop_no_other_image_or_video_is_begun(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nasdsl.detection.detector import Detector

    predict = Detector.predict

    def stopped(self: Detector, image: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return predict(self, image)

    monkeypatch.setattr(Detector, "predict", stopped)
    images = [save(tmp_path / name, "RGB") for name in ("a.png", "b.png")]
    result = invoke("detect", run, *images, write_video(tmp_path / "clip.mp4"), "-o", tmp_path / "out")
    assert result.exit_code == 130
    document = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [Path(entry["file_name"]).name for entry in document["images"]] == ["a.png"]
    assert "clip.mp4" not in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "detections.csv", "detections.json"]


@pytest.mark.parametrize(("frames", "steps"), [(1, [(1, 1), (2, 2)]), (None, [])])
def test_a_video_that_does_not_say_its_length_has_no_bar(
    frames: int | None, steps: list[Any], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is longer than it says has a bar that is full."""
    clip = write_video(tmp_path / "clip.mp4", 2)
    shown: list[tuple[int, int]] = []

    @contextmanager
    def bar(label: str) -> Iterator[Any]:
        yield lambda done, total: shown.append((done, total))

    class Reader(VideoReader):
        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.frames = frames

    monkeypatch.setattr("nasdsl.cli.detect.progress_bar", bar)
    monkeypatch.setattr("nasdsl.data.video.VideoReader", Reader)
    result = invoke("detect", run, clip, "-o", tmp_path / "out", "--no-pictures")
    assert (result.exit_code, shown) == (0, steps), result.output


def test_a_long_video_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    known, unknown = _VideoProgress("a.mp4", 5000), _VideoProgress("b.ts", None)
    for seconds, frame in ((1, 10), (SECONDS_BETWEEN_REPORTS, 1000), (SECONDS_BETWEEN_REPORTS + 1, 1100), (100, 6000)):
        now[0] = seconds
        known(frame)
        unknown(frame)
    left = 4 * SECONDS_BETWEEN_REPORTS
    assert capsys.readouterr().err.splitlines() == [
        f"a.mp4: frame 1,000 of about 5,000, {left:.0f} s left", "b.ts: frame 1,000",
        "a.mp4: frame 6,000", "b.ts: frame 6,000",  # more than the file said
    ]  # fmt: skip


def test_detectors_are_optimized_for_inference(run: Path) -> None:
    kinds = {type(module).__name__ for module in load_detector_for_inference(run, "cpu").modules()}
    assert "Conv2d" in kinds
    assert not {"BatchNorm2d", "FrozenBatchNorm2d"} & kinds
    assert {"BatchNorm2d", "FrozenBatchNorm2d"} & {type(module).__name__ for module in load_detector(run).modules()}


@pytest.mark.parametrize("command", ["detect", pytest.param("eval", marks=pytest.mark.long)])
def test_precision_and_graphs_are_those_of_the_command(
    command: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[InferenceDetector] = []
    original = inference.for_inference

    def for_inference(*arguments: Any, **options: Any) -> InferenceDetector:
        made.append(original(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(inference, "for_inference", for_inference)
    options = ["-o", tmp_path / "out"] if command == "detect" else []
    for extra in ([], ["--precision", "bfloat16", "--no-graphs"]):
        result = invoke(command, run, "--data", "shapes:2", "--device", "cpu", *options, *extra)
        assert result.exit_code == 0, result.output
    assert [(one.precision, one.graphs) for one in made] == [(None, True), ("bfloat16", False)]
    told = refused(command, run, "--data", "shapes:2", "--device", "cpu", *options, "--precision", "tf32")
    assert "precision is 'tf32', which cpu does not have" in told.splitlines()[-1]
