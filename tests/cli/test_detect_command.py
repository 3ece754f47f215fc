"""`nasdsl detect`: detections, files and exit codes, with images of every kind and none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import invoke, refused
from PIL import Image
from small_runs import coco, noise, untrained_detector

from nasdsl.data import read_image
from nasdsl.detection.factory import load_detector
from nasdsl.detection.weights import save_detector


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    expected = {f"{stem}.png" for stem in stems} | {"rgb_2.png", "grey_2.png", "detections.json"}
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
    assert "a.png: 20 objects, drawn in" in invoke("detect", run, picture, "-o", tmp_path / "all", "--threshold", "0").stderr
    assert torch.equal(read_image(tmp_path / "none" / "a.png"), read_image(picture))
    documents = [(tmp_path / out / "detections.json").read_text() for out in ("none", "all")]
    assert documents[0] == documents[1]
    assert (
        "a.png: 20 objects\n"
        in invoke("detect", run, picture, "-o", tmp_path / "j", "--threshold", "0", "--no-pictures").stderr
    )
    assert [path.name for path in (tmp_path / "j").iterdir()] == ["detections.json"]
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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a_2.png", "b.jpg", "b.png", "detections.json"]


def test_the_sheet_overwrites_no_image(run: Path, tmp_path: Path) -> None:
    picture = save(tmp_path / "sheet.jpg", "RGB")
    assert invoke("detect", run, picture, "--sheet", "-o", tmp_path / "out").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["detections.json", "sheet.png", "sheet_2.png"]
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
    for message in ("cut.jpg: ", "text.png: not a picture", "empty.png: the file is empty", "missing.png: no such file"):
        assert message in result.stderr
    assert "4 images could not be read" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["detections.json", "good.png"]
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
    assert sorted(path.name for path in out.iterdir()) == ["0.png", "1.png", "2.png", "detections.json", "sheet.png"]
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
    assert "pictures skipped: 1" in result.stderr
    assert "2.png: no such file" in result.stderr
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_detect_refuses(run: Path, tmp_path: Path) -> None:
    picture, out = save(tmp_path / "a.png", "RGB"), tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert "no images in" in refused("detect", run, tmp_path / "empty", "-o", out)
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


def test_detectors_are_optimized_for_inference(run: Path) -> None:
    from nasdsl.cli.files import load_detector_for_inference

    kinds = {type(module).__name__ for module in load_detector_for_inference(run, "cpu").modules()}
    assert "Conv2d" in kinds
    assert not {"BatchNorm2d", "FrozenBatchNorm2d"} & kinds
    assert {"BatchNorm2d", "FrozenBatchNorm2d"} & {type(module).__name__ for module in load_detector(run).modules()}
