"""Runs of earlier versions on VOC folders of a few of VOC's classes: they have all twenty, and go on being of use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import invoke
from PIL import Image

import nasdsl.data.voc
from nasdsl.data import open_dataset
from nasdsl.data.voc import VOC_CLASSES
from nasdsl.training import Run

TRAIN = [
    "train", "zoo:fcos", "--width", "32", "--backbone", "mobilenet_v2", "--backbone-weights", "none", "--recipe", "quick",
    "--size", "64x64", "--batch-size", "2", "--epochs", "1", "--workers", "0", "--method", "score_threshold=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VOC folder of cats and dogs."""
    root = tmp_path_factory.mktemp("data") / "pets"
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog", "cat", "dog")):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(root / "JPEGImages" / f"{number}.png")
        box = "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>50</xmax><ymax>50</ymax></bndbox>"
        (root / "Annotations" / f"{number}.xml").write_text(
            f"<annotation><object><name>{name}</name>{box}</object></annotation>"
        )
    for split in ("train", "val"):
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text("0\n1\n2\n3\n")
    return root


@pytest.fixture(scope="module")
def earlier(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run that an earlier version has made of them."""
    out = tmp_path_factory.mktemp("runs") / "pets"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nasdsl.data.voc.VocSource, "_class_names", lambda source: list(VOC_CLASSES))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        result = invoke(*TRAIN, "--data", f"voc:{pets}", "--out", out)
        torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    assert Run(out).classes == tuple(VOC_CLASSES)
    return Run(out)


def test_run_and_results_are_measured_alike(earlier: Run, pets: Path) -> None:
    assert open_dataset(f"voc:{pets}", "val").classes == ("cat", "dog")
    measured = [
        invoke("eval", what, "--data", f"voc:{pets}", "--workers", "0", "--format", "json")
        for what in (earlier.folder, earlier.results)
    ]
    assert [result.exit_code for result in measured] == [0, 0], measured[1].output
    of_run, of_results = (json.loads(result.stdout) for result in measured)
    assert of_run == of_results
    assert len(of_run["coco"]["classes"]) == 20
    assert of_run["detections"] > 0
    written = json.loads(earlier.metrics.read_text())
    assert of_run["coco"]["ap"] == pytest.approx(written["coco"]["ap"], abs=1e-6)


def test_it_is_resumed(earlier: Run, pets: Path) -> None:
    before = earlier.metrics.read_text()
    earlier.metrics.unlink()
    result = invoke(*TRAIN, "--data", f"voc:{pets}", "--out", earlier.folder, "--resume")
    assert result.exit_code == 0, result.output
    assert "resuming from step 2 of 2" in result.stderr
    assert earlier.metrics.read_text() == before


def test_a_new_run_has_the_classes_of_the_data(pets: Path, tmp_path: Path) -> None:
    result = invoke(*TRAIN, "--data", f"voc:{pets}", "--out", tmp_path / "run", "--val-split", "none", "--resume")
    assert result.exit_code == 0, result.output
    assert Run(tmp_path / "run").classes == ("cat", "dog")


def test_results_beside_a_file_that_is_no_run(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"classes": ["bird"]}')
    assert Run(tmp_path).classes is None
    truth = open_dataset(f"voc:{pets}", "val").ground_truth()["annotations"]
    results = [{key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for a in truth]
    (tmp_path / "results.json").write_text(json.dumps(results))
    result = invoke("eval", tmp_path / "results.json", "--data", f"voc:{pets}", "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["coco"]["ap"] == pytest.approx(1)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_resumed_run_keeps_its_recipe(recorded: bool, tmp_path: Path) -> None:
    """Small data got the published recipe before there was `small`, and runs did not record its name."""
    out = tmp_path / "run"
    command = [
        "train", "zoo:fcos", "--width", "32", "--backbone", "tiny", "--data", "shapes:2", "--size", "32x32",
        "--batch-size", "2", "--steps", "1", "--workers", "0", "--val-split", "none", "--out", out,
    ]  # fmt: skip
    first = invoke(*command, *([] if recorded else ["--recipe", "published"]))
    assert first.exit_code == 0, first.output
    config = Run(out).read_config()
    assert config["about"]["recipe"] == ("small" if recorded else "published")
    if not recorded:
        del config["about"]["recipe"]
        Run(out).config.write_text(json.dumps(config))
    again = invoke(*command, "--resume")
    assert again.exit_code == 0, again.output
    assert f"recipe {'small' if recorded else 'published'} for 2 images" in again.stderr
