"""`nasdsl train`, from the command line to the files of a run; and what it says to those who mistype."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from click.testing import Result
from in_process import invoke, refused

from nasdsl.cli.training_plan import recorded_recipe
from nasdsl.decoder import load
from nasdsl.detection.factory import load_detector
from nasdsl.detection.fcos import Fcos
from nasdsl.training import Run

DETECTOR = ["zoo:fcos", "--width", "32", "--backbone", "mobilenet_v2", "--backbone-weights", "none"]
SMALL = ["--recipe", "quick", "--size", "96x128", "--batch-size", "4", "--epochs", "1", "--workers", "0"]
DATA = ["--data", "shapes:8"]
TRAIN = ["train", *DETECTOR, *SMALL, *DATA]


def evaluated(*arguments: str | Path) -> dict[str, Any]:
    result = invoke("eval", *arguments, "--format", "json", "--metrics", "coco,voc07,voc12")
    assert result.exit_code == 0, result.output
    measured: dict[str, Any] = json.loads(result.stdout)
    return measured


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Run]:
    """A finished run of two steps."""
    out = tmp_path_factory.mktemp("runs") / "new" / "run"
    result = invoke(*TRAIN, "--out", out, "--val-split", "train", "--method", "score_threshold=0", "--seed", "3")
    assert result.exit_code == 0, result.output
    return result, Run(out)


@pytest.mark.parametrize("is_main", [True, False])
def test_one_process_of_several_says_what_was_trained(is_main: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "decoder.nas").write_text(load("zoo:fcos").source.text)
    result = SimpleNamespace(run=run, steps=9, seconds=1.0, evaluation=None, best_step=6)
    monkeypatch.setattr("nasdsl.training.train", lambda *_, **__: result)
    for module in ("train", "files"):
        monkeypatch.setattr(f"nasdsl.cli.{module}.is_main_process", lambda: is_main)
    shown = invoke("train", tmp_path / "before", *DETECTOR[1:], *SMALL, *DATA, "--out", run.folder)
    assert shown.exit_code == 0, shown.output
    if not is_main:
        assert "shapes:8" not in shown.output
        assert "trained" not in shown.output
        assert "reading " not in shown.output
        assert "report" not in shown.output
        return
    assert f"reading {tmp_path / 'before' / 'decoder.nas'}\nshapes:8 (train): 8 images" in shown.stderr
    assert f"trained 9 steps in 1 s; the detector is {run.model}\n" in shown.stderr
    assert f"the best evaluation was at step 6; its detector is {run.best}\n" in shown.stderr
    assert "the training is saved, but its report could not be written: " in shown.stderr


# ------------------------------------------------------------------------------------------------------ a whole run


def test_the_files_of_a_run(whole: tuple[Result, Run]) -> None:
    result, run = whole
    names = "best.pt checkpoint.pt config.json decoder.nas log.jsonl metrics.json model.pt report.html results.json"
    assert sorted(path.name for path in run.folder.iterdir() if not path.name.startswith(".")) == names.split()
    page = (run.folder / "report.html").read_text()
    assert 'id="spec-confusion"' in page
    assert "not finished" not in page
    assert result.stderr.endswith(f"wrote {run.folder / 'report.html'}\n")
    config = run.read_config()
    assert config["about"]["data"] == "shapes:8"
    assert config["about"]["decoder"] == "zoo:fcos"
    assert config["recipe"]["size"] == [96, 128]
    assert (config["recipe"]["epochs"], config["recipe"]["steps"], config["recipe"]["seed"]) == (1, None, 3)
    assert config["detector"]["classes"] == ["circle", "square", "triangle", "star", "ring"]
    assert config["detector"]["fixed_size"] == [96, 128]
    assert config["detector"]["method"]["score_threshold"] == 0
    assert invoke("check", run.decoder).exit_code == 0
    assert "width=32" in run.decoder.read_text()
    made = load_detector(run.folder)
    assert made.method == Fcos(score_threshold=0)
    assert len(json.loads(run.results.read_text())) > 0
    assert "ring" in result.stdout
    assert "mean" in result.stdout
    for message in ("shapes:8 (train): 8 images", "random weights", "2 steps an epoch, 2 steps", f"detector is {run.model}"):
        assert message in result.stderr
    assert "\x1b[" not in result.output


def test_commands_that_take_a_file_take_the_folder_of_a_run(whole: tuple[Result, Run], tmp_path: Path) -> None:
    run = whole[1]
    result = invoke("compile", run.folder, "--format", "json")
    assert (result.exit_code, result.stderr) == (0, f"reading {run.decoder}\n")
    assert json.loads(result.stdout)["digest"] == load(run.decoder).digest
    assert invoke("check", run.folder).exit_code == 0
    again = ["--backbone", "mobilenet_v2", "--backbone-weights", "none", *SMALL, *DATA, "--val-split", "none"]
    assert invoke("train", run.folder, *again, "--out", tmp_path / "again").exit_code == 0
    assert (tmp_path / "again" / "decoder.nas").read_text() == run.decoder.read_text()


def test_a_run_and_its_results_have_the_same_metrics(whole: tuple[Result, Run]) -> None:
    run = whole[1]
    of_run = evaluated(run.folder, *DATA, "--split", "train", "--workers", "0", "--batch-size", "4")
    of_model = evaluated(run.model, *DATA, "--split", "train", "--workers", "0", "--batch-size", "4")
    of_results = evaluated(run.results, *DATA, "--split", "train")
    metrics = json.loads(run.metrics.read_text())
    assert of_run["detections"] > 100
    assert of_run == of_model == of_results == {name: metrics[name] for name in of_run}


def test_the_best_detector_is_evaluated_as_well(whole: tuple[Result, Run]) -> None:
    run = whole[1]
    metrics = json.loads(run.metrics.read_text())
    of_best = evaluated(run.best, *DATA, "--split", "train", "--workers", "0", "--batch-size", "4")
    assert of_best == {name: metrics["best"][name] for name in of_best}
    assert metrics["best"]["step"] == 2


def test_training_for_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.training.pace.SHORTEST", 0.1)
    alone = [a for a in TRAIN if a not in ("--epochs", "1")]
    result = invoke(*alone, "--out", tmp_path / "run", "--val-split", "none", "--minutes", "0.0001")
    assert result.exit_code == 0, result.output
    assert "1 step (0.5 epochs) fit, in more than the" in result.stderr
    recipe = Run(tmp_path / "run").read_config()["recipe"]
    assert (recipe["steps"], recipe["epochs"]) == (1, None)


def test_an_existing_run_is_not_touched(whole: tuple[Result, Run]) -> None:
    run = whole[1]
    before = {path: path.read_bytes() for path in run.folder.iterdir()}
    message = refused(*TRAIN, "--out", run.folder)
    assert f"{run.folder} holds a run already: resume it (--resume), or choose another folder" in message
    message = refused(*TRAIN, "--out", run.folder, "--resume", "--epochs", "2", "--method", "nms=0.5", "--seed", "3")
    assert "recipe: epochs was 1.0, is 2" in message
    assert "detector: method was" in message
    assert {path: path.read_bytes() for path in run.folder.iterdir()} == before


def test_resuming_what_is_finished_evaluates_it_again(whole: tuple[Result, Run]) -> None:
    run = whole[1]
    before, weights = run.metrics.read_text(), run.model.read_bytes()
    run.metrics.unlink()
    same = ["--val-split", "train", "--method", "score_threshold=0", "--seed", "3"]
    result = invoke(*TRAIN, "--out", run.folder, *same, "--resume")
    assert result.exit_code == 0, result.output
    assert "resuming from step 2 of 2" in result.stderr
    assert run.metrics.read_text() == before
    assert run.model.read_bytes() == weights


def test_without_validation(tmp_path: Path) -> None:
    result = invoke(*TRAIN, "--out", tmp_path / "run", "--val-split", "none", "--steps", "1", "--improvements")
    assert result.exit_code == 2, "the recipe has epochs and steps"
    alone = [a for a in TRAIN if a not in ("--epochs", "1")]
    result = invoke(*alone, "--out", tmp_path / "run", "--val-split", "none", "--steps", "1", "--improvements")
    assert (result.exit_code, result.stdout) == (0, "")
    assert not (tmp_path / "run" / "metrics.json").exists()
    made = load_detector(tmp_path / "run")
    assert made.method == Fcos(center_radius=1.5, box_loss="giou")
    assert "predict fcos(centerness=box, boxes=relu)" in (tmp_path / "run" / "decoder.nas").read_text()


@pytest.mark.long
def test_stopped_by_ctrl_c_and_resumed(tmp_path: Path) -> None:
    """In a process of its own, as users do: exit code 130, a message about --resume, and resuming works."""
    import signal
    import time

    out = tmp_path / "run"
    arguments = [a for a in TRAIN if a not in ("--epochs", "1")] + ["--out", str(out), "--val-split", "none"]
    arguments += ["--set", "log_every=1", "--set", "schedule=constant", "--steps", "100000"]
    running = subprocess.Popen(
        [sys.executable, "-m", "nasdsl", *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while not (out / "log.jsonl").exists() and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _, message = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "finishing the step and saving" in message
    assert f"of 100000; {out} is saved: --resume goes on from there" in message
    assert "Traceback" not in message
    step = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    assert step >= 1
    config = json.loads((out / "config.json").read_text())
    config["recipe"]["steps"] = step + 1
    (out / "config.json").write_text(json.dumps(config))
    result = invoke(*arguments[:-1], str(step + 1), "--resume")
    assert result.exit_code == 0, result.output
    assert f"resuming from step {step} of {step + 1}" in result.stderr
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == step + 1


def test_starting_another_decoder_from_a_run(whole: tuple[Result, Run], tmp_path: Path) -> None:
    """What it inherits is told, and that it is not everything; of the same decoder everything is."""
    rest = [*SMALL, *DATA, "--backbone", "mobilenet_v2", "--val-split", "none", "--weights", whole[1].folder]
    text = (whole[1].folder / "decoder.nas").read_text().replace("conv_3x3(m3)", "sep_3x3(m3)").replace("l4", "lateral")
    (tmp_path / "mine.nas").write_text(text)
    result = invoke("train", tmp_path / "mine.nas", *rest, "--out", tmp_path / "mine")
    assert result.exit_code == 0, result.output
    assert re.search(r"warning: 99\.\d % of [\d,]+ parameters are inherited from .*model\.pt", result.stderr)
    assert re.search(r"\n  backbone: 100 % of [\d,]+ parameters\n  fpn: [\d.]+ % of [\d,]+ parameters; not p3\n", result.stderr)
    same = invoke("train", "zoo:fcos", "--width", "32", *rest, "--out", tmp_path / "same")
    assert re.search(r"\n100 % of [\d,]+ parameters are inherited from .*model\.pt\n", same.stderr)
    assert "warning: 100 %" not in same.stderr


def test_starting_from_another_run(whole: tuple[Result, Run], tmp_path: Path) -> None:
    """Its weights are taken, what the backbone keeps fixed as well, and no pre-trained ones are asked for."""
    detector = [a for a in DETECTOR if a not in ("--backbone-weights", "none")]
    for weights in (whole[1].folder, whole[1].model):
        out = tmp_path / weights.name
        result = invoke("train", *detector, *SMALL, *DATA, "--out", out, "--weights", weights, "--learning-rate", "1e-12")
        assert result.exit_code == 0, result.output
        assert "random weights" not in result.stderr
        before, after = load_detector(whole[1].folder).state_dict(), load_detector(out).state_dict()
        for name, value in after.items():
            if "running" not in name and "num_batches" not in name:
                torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6)


def test_a_recipe_setting_by_setting(tmp_path: Path) -> None:
    settings = ["--set", "optimizer=sgd", "--set", "learning-rate=0.001", "--set", "shorter_side=[64,80]", "--set", "size=none"]
    result = invoke(*TRAIN, "--out", tmp_path, *settings, "--set", "longest_side=128", "--val-split", "none")
    assert result.exit_code == 0, result.output
    recipe = Run(tmp_path).read_config()["recipe"]
    assert (recipe["optimizer"], recipe["learning_rate"], recipe["shorter_side"]) == ("sgd", 0.001, [64, 80])
    assert recipe["size"] is None
    made = load_detector(tmp_path)
    assert (made.transform.min_size, made.transform.max_size, made.transform.fixed_size) == ((64, 80), 128, None)


# ---------------------------------------------------------------------------------------------------- wrong arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "epoch=3"], "a recipe has no setting 'epoch'; did you mean epochs?"),
        (["--set", "epochs"], "'epochs' is no setting: expected NAME=VALUE"),
        (["--set", "optimizer=adam"], 'optimizer is "adam": expected one of sgd, adamw'),
        (["--recipe", "fast"], "there is no recipe 'fast'; expected one of published, small, quick"),
        (["--size", "96"], "'96' is no size; expected height x width"),
        (["--steps", "0"], "0 is not in the range"),
        (["--method", "centre_radius=1.5"], "unknown option centre_radius; Fcos has ranges"),
        (["--method", "nms"], "--method nms: expected NAME=VALUE"),
        (["--method", "nms=high"], "nms is 'high'; expected float"),
        (["--method", "box-loss=l1"], "box_loss is 'l1'; expected Literal['iou'"),
        (["--backbone", "vgg"], "unknown backbone 'vgg'; known are resnet50"),
        (["--backbone-weights", "nowhere.pth"], "no weights 'nowhere.pth': there is no such file"),
        (["--weights", "nowhere"], "no file nowhere"),
        (["--data", "shape"], "'shape' is not a data set: expected a folder, voc:DIR, coco:DIR"),
        (["--data", "voc:nowhere"], "nowhere: no such folder"),
        (["--data", "shapes:0"], "expected a number of images"),
        (["--split", "dev"], "shapes has no split 'dev'; there are: train, val, test"),
        (["--val-split", "dev"], "shapes has no split 'dev'"),
        (["--device", "gpu"], "device 'gpu' cannot be used: expected cpu, cuda, cuda:1 or mps"),
        (["--freeze-at", "6"], "6 is not in the range 0<=x<=5"),
        (["--epoch", "3"], "No such option"),
        (["--minutes", "3"], "--minutes and --epochs both say how long the training is: give one of them"),
        (["--minutes", "0"], "0.0 is not in the range x>0"),
        (["--patience", "2", "--evaluate-every", "0"], "there is no evaluation before the end to stop after"),
        (["--log", "neptune"], "'neptune' is not one of 'tensorboard', 'trackio', 'wandb', 'mlflow'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(*TRAIN, "--out", "run", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_decoders_that_do_not_check(tmp_path: Path) -> None:
    rest = [*SMALL, *DATA, "--backbone", "mobilenet_v2", "--backbone-weights", "none", "--out", tmp_path / "run"]
    bad = tmp_path / "bad.nas"
    bad.write_text("decoder d {\n")
    assert refused("train", bad, *rest, code=1).startswith("error[NAS")
    assert "error[NAS308]" in refused("train", "zoo:fcos", "--width", "30", *rest, code=1)
    assert "no such file" in refused("train", tmp_path / "nowhere.nas", *rest)
    assert "the zoo has no 'fcso'" in refused("train", "zoo:fcso", *rest)
    assert "improvements are FCOS's; retinanet" in refused("train", "zoo:retinanet", "--improvements", *rest)
    other = refused("train", "zoo:retinanet", "--method", "center_radius=1", *rest)
    assert "center_radius is an option of Fcos, and the decoder's text says `predict retinanet`: leave it out" in other
    assert not (tmp_path / "run").exists()


SQUEEZE_EXCITATION = """decoder se {
  input c3
  fpn(width=32, norm=bn) {
    x1 = mul(c3, sigmoid(conv_1x1(global_pool(c3, kind=avg))))
    output p3 = x1
  }
  head(width=32) { conv_3x3 }
  predict fcos
}
"""
TINY = ["--recipe", "quick", "--size", "64x64", *DATA, "--backbone", "tiny", "--backbone-weights", "none", "--workers", "0"]


@pytest.mark.parametrize("width", [[], ["--width", "128"]], ids=["as_written", "another_width"])
def test_a_layer_that_torch_cannot_train_is_named_with_its_line(width: list[str], tmp_path: Path) -> None:
    """A BatchNorm has one value per channel where a global pool meets one image a step."""
    file = tmp_path / "se.nas"
    file.write_text(SQUEEZE_EXCITATION.replace("width=32", "width=128") if not width else SQUEEZE_EXCITATION)
    options = [*TINY, "--batch-size", "1", "--steps", "1", "--out", tmp_path / "run", *width]
    said = refused("train", file, *options).splitlines()[-1]
    assert said.startswith(f"nasdsl: {file}:4:26: x1.norm (in `conv_1x1(global_pool(c3, kind=avg))`) cannot be computed")
    assert "Expected more than 1 value per channel when training" in said
    assert "internal error" not in said


@pytest.mark.parametrize(
    "text", ["CUDA out of memory. Tried to allocate 20 GiB.\nmore", "DefaultCPUAllocator: can't allocate memory"]
)
def test_too_little_memory_is_no_internal_error(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backward pass has no line in the text; what can be done is said anyway."""

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError(text) if "CUDA" in text else RuntimeError(text)

    monkeypatch.setattr("nasdsl.training.trainer.Trainer.train_step", fail)
    said = refused(*TRAIN, "--out", tmp_path / "run").splitlines()[-1]
    assert said == f"nasdsl: not enough memory: {text.splitlines()[0]}; smaller batches or images need less"


def test_folders_that_cannot_be_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(*TRAIN, "--out", tmp_path / "file")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.pt").write_text("")
    assert "has a checkpoint and no config.json" in refused(*TRAIN, "--out", tmp_path / "other")
    assert "file/run" in refused(*TRAIN, "--out", tmp_path / "file" / "run")


def test_the_recipe_of_a_folder_without_a_run(tmp_path: Path) -> None:
    assert recorded_recipe(tmp_path) is None


def test_missing_validation_data_is_no_error(tmp_path: Path) -> None:
    """Unless the user named the split."""
    from PIL import Image

    for folder in ("annotations", "train"):
        (tmp_path / "coco" / folder).mkdir(parents=True)
    Image.new("RGB", (128, 96), "green").save(tmp_path / "coco" / "train" / "a.png")
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 96, "width": 128}],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 90, "bbox": [9, 9, 50, 50], "area": 2500, "iscrowd": 0}],
        "categories": [{"id": 90, "name": "thing"}],
    }
    (tmp_path / "coco" / "annotations" / "instances_train.json").write_text(json.dumps(content))
    data = ["--data", f"coco:{tmp_path / 'coco'}"]
    result = invoke("train", *DETECTOR, *SMALL, *data, "--out", tmp_path / "run", "--steps", "1", "--set", "epochs=none")
    assert result.exit_code == 2
    one_step = [a for a in SMALL if a not in ("--epochs", "1")]
    result = invoke("train", *DETECTOR, *one_step, *data, "--out", tmp_path / "run", "--steps", "1")
    assert result.exit_code == 0, result.output
    assert "no evaluation: " in result.stderr
    assert load_detector(tmp_path / "run").category_ids == (90,)
    message = refused("train", *DETECTOR, *SMALL, *data, "--out", tmp_path / "2", "--val-split", "val")
    assert "no evaluation" not in message
    # A part that is there and broken is no missing one.
    (tmp_path / "coco" / "annotations" / "instances_val.json").write_text("{")
    assert "cannot be read as JSON" in refused("train", *DETECTOR, *SMALL, *data, "--out", tmp_path / "3")


# ------------------------------------------------------------------------------------------------------------- help


def test_every_setting_is_listed() -> None:
    from nasdsl.training.recipe import SETTINGS

    result = invoke("train", "--show-settings")
    assert (result.exit_code, result.stderr) == (0, "")
    rows = {line.split()[0] for line in result.stdout.splitlines() if line[:1].strip()}
    assert rows == {"setting", *SETTINGS}
    assert "90000" in result.stdout


@pytest.mark.parametrize("command", ["train", "eval", "detect"])
def test_help_without_torch(command: str) -> None:
    code = (
        "import sys\nsys.argv = ['nasdsl', sys.argv[1], '--help']\nfrom nasdsl.cli import main\n"
        "try:\n    main()\nfinally:\n    heavy = {'torch', 'torchvision', 'numpy', 'PIL'} & set(sys.modules)\n"
        "    print('LIGHT' if not heavy else heavy, file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "LIGHT\n")
    assert ran.stdout.startswith(f"Usage: nasdsl {command} [OPTIONS]")
    assert max(map(len, ran.stdout.splitlines())) <= 120


def test_the_examples_in_the_help_are_right() -> None:
    """Options of the examples exist, and so do the decoders and the module that torchrun starts."""
    import re
    from importlib.util import find_spec

    from nasdsl.cli.files import find_nas_file

    for command in ("train", "eval"):
        text = invoke(command, "--help").stdout
        known = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE))
        examples = [line for line in text.splitlines() if line.startswith(("  nasdsl ", "  torchrun "))]
        assert len(examples) >= 2
        for line in examples:
            _, _, options = line.partition(f" {command} ")
            assert set(re.findall(r"--[a-z-]+", options)) <= known
            for name in re.findall(r"zoo:\S+", line):
                assert Path(find_nas_file(name)).is_file()
            for module in re.findall(r" -m (\S+)", line):
                assert find_spec(f"{module}.__main__"), "a package that python -m runs"
