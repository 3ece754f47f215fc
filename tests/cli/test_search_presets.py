"""Presets of `nasdsl search`: what they choose, that the user's options win, whole searches, killed and resumed; the cost."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from in_process import invoke, refused
from killed_searches import journal, killed, lines, ranked
from small_runs import untrained_detector
from small_spaces import FPN_SPACE

from nasdsl.cli.feature_cache import report_feature_cache
from nasdsl.cli.presets import PRESETS, SUMMARIES
from nasdsl.cli.search import search
from nasdsl.cli.search_setup import PreparedSearch
from nasdsl.data import open_dataset
from nasdsl.detection.weights import save_detector
from nasdsl.search import load_trials
from nasdsl.spaces import SpaceError
from nasdsl.training import Run
from nasdsl.training.errors import Diverged
from nasdsl.training.proxy.spec import ProxySpec

DATA = ["--data", "shapes:16"]
SMALL = [
    "--backbone", "tiny", "--iterations", "2", "--proxy-size", "64", "--proxy-batch", "4", "--set", "workers=0",
    "--set", "batch_size=4", "--set", "log_every=1", "--set", "checkpoint_every=1",
]  # fmt: skip
PAPER = [
    *DATA, *SMALL, "--trials", "4", "--head-trials", "3", "--top", "1", "--head-top", "1", "--full-width", "32",
    "--finetune-backbone", "1", "--epochs", "1", "--set", "size=64x96",
]  # fmt: skip
QUICK = [*DATA, *SMALL, "--size", "64x96,96x128", "--width", "32,64", "--trials", "6", "--top", "2"]


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PreparedSearch]:
    """The search of a command, which is checked and not run."""
    found: list[PreparedSearch] = []

    def keep(self: PreparedSearch) -> None:
        found.append(self)
        raise SystemExit(0)

    monkeypatch.setattr(PreparedSearch, "run", keep)

    def run(*arguments: str | Path) -> PreparedSearch:
        result = invoke("search", *arguments, "--out", tmp_path / "run")
        assert result.exit_code == 0, result.output
        prepared.output = result.stderr
        return found[-1]

    prepared = run
    return run


def config(found: PreparedSearch) -> list[Any]:
    """Everything that a search is made of."""
    backbones = [training.to_dict() for training in found.backbones]
    plan, beside = (None, None) if found.full is None else (found.full.plan.to_dict(), list(found.full.beside))
    stages = [(stage.to_dict(), stage.detectors, stage.proxy) for stage in found.stages]
    minutes = None if found.full is None else found.full.minutes
    return [stages, found.settings.to_dict(), plan, beside, minutes, backbones]


# ------------------------------------------------------------------------------------------------ the table


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_the_options_that_are_printed(name: str, prepared: Any) -> None:
    by_preset = config(prepared("--preset", name, *DATA))
    (line,) = [line for line in prepared.output.splitlines() if line.startswith(f"preset {name}: ")]
    typed = shlex.split(line.removeprefix(f"preset {name}: "))
    assert config(prepared(*typed, *DATA)) == by_preset
    parameters = {param.name for param in search.params}
    assert PRESETS[name].keys() <= parameters
    assert SUMMARIES[name].split()[0] in invoke("search", "--help").stdout


def test_the_numbers_of_the_paper(prepared: Any) -> None:
    found = prepared("--preset", "nas-fcos", *DATA)
    assert [(stage.trials, stage.top) for stage in found.stages] == [(2800, 20), (600, 10)]
    assert found.settings.strategy == "ppo"
    spec = found.proxy
    assert (spec.size, spec.batch_size, spec.iterations, spec.learning_rate, spec.average) == (384, 200, 300, 8e-4, 0.9)
    assert spec.longest == 640
    assert round(5715 * spec.val_share) == 1715
    assert spec.reward == "loss"
    assert [stage.space.load(stage.space.sample(0)).architecture.fpn.width for stage in found.stages] == [64, 128]
    assert found.full is not None
    recipe = found.full.plan.recipe
    assert (recipe.steps, recipe.batch_size, recipe.shorter_side, recipe.learning_rate) == (90_000, 16, (800,), 0.01)
    assert (found.full.plan.width, found.full.plan.improvements) == (256, False)
    (training,) = found.backbones
    assert (training.plan.backbone, training.plan.backbone_weights) == ("resnet50", "imagenet")
    assert (training.plan.recipe.epochs, training.plan.recipe.steps, training.plan.recipe.shorter_side) == (12, None, (800,))
    assert (training.decoder.name, training.decoder.architecture.fpn.width) == ("fcos", 256)
    assert spec.backbone_weights == str(training.folder)
    assert found.full.plan.backbone_weights == "imagenet", "the full training does not start from the proxy's backbone"
    typed = ["--progressive", "--strategy", "ppo", "--backbone", "resnet50", "--finetune-backbone", "12"]
    assert config(prepared(*typed, "--recipe", "published", "--full-width", "256", *DATA)) == config(found), "docs/search.md"
    prepared("--preset", "nas-fcos", *DATA)
    assert "12 epochs, 2,800 fpn trials, 600 head trials, 30 full trainings of 90,000 steps" in prepared.output


# ------------------------------------------------------------------------------------------------ precedence


def test_the_users_options_win(prepared: Any, tmp_path: Path) -> None:
    (tmp_path / "own.nas").write_text(FPN_SPACE)
    found = prepared(
        "--preset", "quick", *DATA, tmp_path / "own.nas", "--trials", "7", "--strategy", "random", "--objective", "reward",
        "--size", "96x128", "--top", "1", "--epochs", "2", "--workers", "inline",
    )  # fmt: skip
    (stage,) = found.stages
    assert (stage.space.name, stage.trials, stage.top) == ("small_fpn", 7, 1)
    assert (found.settings.strategy, found.settings.objective, found.settings.workers) == ("random", "reward", "inline")
    assert stage.space.sizes == ((96, 128),)
    assert found.proxy.image_size == (96, 128), "its --proxy-size of 192 is that of larger detectors"
    assert found.full is not None
    assert (found.full.minutes, found.full.plan.recipe.epochs) == (None, 2), "--epochs replaces its --top-minutes"
    assert "yours: --strategy, --objective, --trials, --size, --workers, --top" in prepared.output


def test_a_detector_that_the_users_text_names_wins(prepared: Any, tmp_path: Path) -> None:
    text = FPN_SPACE.replace("input c3", "detector(size=96x128, backbone=tiny)\n  input c3", 1)
    (tmp_path / "own.nas").write_text(text)
    (stage,) = prepared("--preset", "quick", *DATA, tmp_path / "own.nas").stages
    assert (stage.space.sizes, stage.space.backbones) == (((96, 128),), ("tiny",))


def test_without_full_training_or_one_stage_alone(prepared: Any) -> None:
    assert prepared("--preset", "quick", *DATA, "--top", "0").full is None, "its --beside is no reason to refuse that"
    alone = prepared("--preset", "nas-fcos", *DATA, "--stages", "head")
    assert [stage.trials for stage in alone.stages] == [600]
    assert "is not searched" not in prepared.output


def test_sizes_that_suit_the_boxes(prepared: Any) -> None:
    (stage,) = prepared("--preset", "quick", *DATA).stages
    sizes = stage.space.sizes
    assert len(sizes) == 3
    assert f"--size auto: {','.join(f'{h}x{w}' for h, w in sizes)}" in prepared.output
    assert all(side % 32 == 0 for size in sizes for side in size)
    assert sizes[-1][0] / sizes[0][0] == pytest.approx(2, abs=0.35)
    assert "to do: 150 trials, 4 full trainings of 30 minutes each, 2 h 00 min in all; how long a trial" in prepared.output


# ------------------------------------------------------------------------------------------------ the backbone


def test_a_trained_backbone_is_not_fine_tuned_by_a_preset(prepared: Any, tmp_path: Path) -> None:
    run = tmp_path / "run_before"
    run.mkdir()
    found = prepared("--preset", "nas-fcos", *DATA, "--backbone-weights", run)
    assert found.backbones == ()
    assert found.proxy.backbone_weights == str(run)
    assert f"the backbone is that of {run}, and is not fine-tuned" in prepared.output
    (training,) = prepared("--preset", "nas-fcos", *DATA, "--backbone-weights", run, "--finetune-backbone", "3").backbones
    assert (training.plan.weights, training.plan.backbone_weights, training.plan.recipe.epochs) == (str(run), None, 3)
    assert prepared("--preset", "nas-fcos", *DATA, "--finetune-backbone", "0").backbones == ()


def test_each_of_several_backbones_is_fine_tuned(prepared: Any) -> None:
    found = prepared(
        "zoo:nas_fcos_fpn", *DATA, "--backbone", "tiny,mobilenet_v2", "--finetune-backbone", "2", "--width", "32,64"
    )
    assert [training.folder.name for training in found.backbones] == ["tiny", "mobilenet_v2"]
    assert [training.plan.backbone_weights for training in found.backbones] == [None, "imagenet"]
    weights = {key[0]: spec.backbone_weights for key, spec in found.stages[0].detectors.items()}
    assert weights == {training.plan.backbone: str(training.folder) for training in found.backbones}
    assert {training.decoder.architecture.fpn.width for training in found.backbones} == {64}


def test_fine_tuning_without_a_preset(tmp_path: Path) -> None:
    """What is frozen is the trained backbone; another length is another search; a finished training is not repeated."""
    (tmp_path / "own.nas").write_text(FPN_SPACE)
    out = tmp_path / "run"
    command = ["search", tmp_path / "own.nas", "--data", "shapes:8", *SMALL, "--set", "size=64x64", "--strategy", "random"]
    command += ["--trials", "1", "--recipe", "quick", "--out", out]
    result = invoke(*command, "--finetune-backbone", "1")
    assert result.exit_code == 0, result.output
    assert "fine-tuning tiny with fcos at width 32 on shapes:8 (train)" in result.stderr
    run = Run(out / "backbone")
    trained = torch.load(run.model, weights_only=True)["model"]
    from nasdsl.training.proxy.extraction import make_frozen_backbone
    from nasdsl.training.proxy.spec import ProxySpec

    recorded = json.loads((out / "search.json").read_text())
    frozen = make_frozen_backbone(
        ProxySpec("shapes:8", backbone="tiny", backbone_weights=recorded["proxy"]["backbone_weights"])
    )
    for name, value in frozen.state_dict().items():
        assert torch.equal(value, trained[f"backbone.{name}"]), name
    assert recorded["backbones"]["tiny"]["recipe"]["epochs"] == 1
    before = run.log.read_bytes()
    again = invoke(*command, "--finetune-backbone", "1", "--resume")
    assert (again.exit_code, run.log.read_bytes()) == (0, before)
    assert "fine-tuning" not in again.stderr
    assert "backbones.tiny.recipe.epochs was 1.0, is 2.0" in refused(*command, "--finetune-backbone", "2", "--resume")
    (out / "journal.jsonl").unlink()
    assert "holds a run already: resume it (--resume)" in refused(*command, "--finetune-backbone", "1")


@pytest.fixture
def own(tmp_path: Path) -> list[str | Path]:
    """A search of a small space, with full training of the best."""
    (tmp_path / "own.nas").write_text(FPN_SPACE)
    return [tmp_path / "own.nas", *DATA, "--top", "1", "--recipe", "quick", "--epochs", "1"]


def test_a_detector_under_any_name_is_no_backbone_to_train_from(own: list[str], prepared: Any, tmp_path: Path) -> None:
    """Its backbone is frozen in the trials; a full training starts from ImageNet's, which `tiny` has not."""
    detector, backbone = tmp_path / "cells.pt", tmp_path / "backbone.npz"
    save_detector(untrained_detector(2), detector)
    np.savez(backbone, conv1=np.zeros(1))
    found = prepared(*own, "--backbone", "tiny", "--backbone-weights", detector)
    assert (found.proxy.backbone_weights, found.full.plan.backbone_weights) == (str(detector), None)
    found = prepared(*own, "--backbone", "tiny", "--backbone-weights", backbone)
    assert (found.proxy.backbone_weights, found.full.plan.backbone_weights) == (str(backbone), str(backbone))
    for weights, starts in ((detector, (str(detector), None)), (backbone, (None, str(backbone)))):
        (training,) = prepared(*own, "--backbone", "tiny", "--backbone-weights", weights, "--finetune-backbone", "1").backbones
        assert (training.plan.weights, training.plan.backbone_weights) == starts


def test_full_trainings_have_the_weights_and_the_size_that_are_given_for_them(own: list[str], prepared: Any) -> None:
    own = [*own, "--size", "64x64,96x128", "--finetune-backbone", "1"]
    found = prepared(*own, "--backbone", "mobilenet_v2")
    assert found.full.plan.backbone_weights == "imagenet"
    assert found.backbones[0].plan.recipe.size == (96, 128), "the largest"
    assert "--set size" not in prepared.output
    found = prepared(*own, "--backbone", "mobilenet_v2", "--full-backbone-weights", "none", "--set", "size=64x96")
    assert (found.full.plan.backbone_weights, found.full.plan.recipe.size) == (None, (64, 96))
    assert "--set size: the best are trained at 64x96, instead of at the size that each names\n" in prepared.output


# ------------------------------------------------------------------------------------------------ messages


def test_what_is_refused(tmp_path: Path) -> None:
    out = ["--out", tmp_path / "run"]
    assert "'slow' is not one of 'nas-fcos', 'quick'" in refused("search", "--preset", "slow", *DATA, *out)
    assert "or --preset nas-fcos or quick" in refused("search", *DATA, *out)
    both = ["--top-minutes", "3", "--epochs", "2"]
    message = refused("search", "--preset", "quick", *DATA, "--backbone", "tiny", *both, *out)
    assert "--top-minutes and --epochs both say how long" in message
    (tmp_path / "own.nas").write_text(FPN_SPACE)
    message = refused("search", tmp_path / "own.nas", *DATA, "--top", "1", "--top-minutes", "3", "--set", "steps=9", *out)
    assert "--top-minutes and --set steps both say how long" in message
    assert not (tmp_path / "run").exists()


def test_the_feature_cache_of_the_papers_search_is_said(prepared: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """5,717 images of VOC2012 with ResNet-50: 126 GiB (135 GB), which `test_the_features_of_the_paper` counts."""
    monkeypatch.setattr("nasdsl.training.proxy.estimate.resized_sizes", lambda dataset, spec: [(384, 512)] * 5717)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**12})())
    prepared("--preset", "nas-fcos", *DATA)
    assert "(c2, c3, c4, c5 of resnet50, float16) take 126 GiB" in prepared.output
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**10})())
    message = refused("search", "--preset", "nas-fcos", *DATA, "--out", tmp_path / "run")
    for advice in ("--cache DIR", "--proxy-size 256 (", "--no-mirror (", "--backbone mobilenet_v2 (", "does not read c2 ("):
        assert advice in message


def test_an_fpn_that_the_heads_do_not_fit_is_no_reason_to_refuse_a_search(
    prepared: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others may fit: the search tries some, and refuses if none does."""
    monkeypatch.setattr("nasdsl.cli.feature_cache.WORTH_SAYING", 1)
    prepared("--preset", "nas-fcos", *DATA)
    assert ", and the outputs of the fpn " in prepared.output

    def misfit(*_: object) -> None:
        raise SpaceError("this sample does not fit")

    monkeypatch.setattr("nasdsl.cli.search_setup.with_fixed_fpn", misfit)
    assert len(prepared("--preset", "nas-fcos", *DATA).stages) == 2
    assert "features of 16 images" in prepared.output
    assert ", and the outputs of the fpn " not in prepared.output


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"dtype": "float16"}, ["--proxy-size 256", "--no-mirror", "--backbone mobilenet_v2"]),
        ({"backbone": "mobilenet_v2", "dtype": "float32", "mirror": False}, ["--proxy-size 256", "--dtype float16"]),
    ],
)
def test_an_estimate_warns_of_a_small_disk_and_advises_what_is_not_chosen_yet(
    settings: dict[str, Any],
    advice: list[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("nasdsl.training.proxy.estimate.resized_sizes", lambda dataset, spec: [(384, 512)] * 5717)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10**9})())
    spec = ProxySpec("shapes:16", cache=str(tmp_path), levels=("c3", "c4"), **settings)
    report_feature_cache(open_dataset("shapes:16", "train"), [spec], None, only_say=True)
    warning = capsys.readouterr().err.splitlines()[1]
    assert warning.startswith(f"warning: the disk of {tmp_path} has 0.9 GiB free: choose a larger disk with --cache DIR, or ")
    assert re.findall(r"(--[^,()]+) \(\d", warning) == advice


# ------------------------------------------------------------------------------------------------ whole searches


def test_an_estimate_searches_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The figures are tested in tests/search/test_search_estimate.py; for the paper's search see below."""
    monkeypatch.setattr("nasdsl.search.estimate.in_process", lambda function, *arguments: function(*arguments))
    (tmp_path / "own.nas").write_text(FPN_SPACE)
    out = tmp_path / "run"
    command = ["search", tmp_path / "own.nas", *DATA, *SMALL, "--trials", "5", "--out", out, "--estimate"]
    result = invoke(*command, "--format", "json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [part["name"] for part in found["parts"]] == ["features", "trials"]
    assert found["seconds"] == sum(part["seconds"] for part in found["parts"]) > 0
    assert found["disk"].keys() == {"feature cache", "journal and tables"}
    assert found["memory"]["trials"] > found["memory"]["features in memory"] > 0
    assert not out.exists()
    assert "nothing was written; the same command without --estimate searches" in invoke(*command).stderr


@pytest.mark.long
def test_the_papers_search_killed_in_every_phase(tmp_path: Path) -> None:
    """Scaled down: the backbone, trials of the fpn, full trainings, trials of the head. What comes out is the same."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    command = ["search", "--preset", "nas-fcos", *PAPER]
    estimated = invoke(*command, "--out", whole, "--estimate", "--format", "json")
    assert estimated.exit_code == 0, estimated.output
    result = invoke(*command, "--out", whole)
    assert result.exit_code == 0, result.output
    sizes = {name: sum(path.stat().st_size for path in folder) for name, folder in {
        "feature cache": whole.glob("features/*/features.bin"), "backbone": whole.glob("backbone/*.pt"),
    }.items()}  # fmt: skip
    disk = json.loads(estimated.stdout)["disk"]
    names = ["fine-tuning of tiny", "features", "fpn trials", "fpn outputs", "head trials", "full trainings"]
    assert [part["name"] for part in json.loads(estimated.stdout)["parts"]] == names
    assert disk["feature cache"] + disk["fpn outputs"] == sizes["feature cache"]
    assert disk["backbone"] == pytest.approx(sizes["backbone"], rel=0.05)

    phases: list[Callable[[], bool]] = [
        lambda: lines(out / "backbone" / "log.jsonl") >= 2,
        lambda: lines(out / "fpn" / "journal.jsonl") >= 4,
        lambda: any(lines(log) >= 2 for log in out.glob("fpn/full/trial_*/log.jsonl")),
        lambda: lines(out / "head" / "journal.jsonl") >= 3,
    ]
    for number, phase in enumerate(phases):
        resume = ["--resume"] if number else []
        assert killed([*command, "--out", str(out), *resume], signal.SIGKILL, phase) == -signal.SIGKILL
    resumed = invoke(*command, "--out", out, "--resume")
    assert resumed.exit_code == 0, resumed.output
    steps = [r["step"] for r in map(json.loads, Run(out / "backbone").log.read_text().splitlines()) if r["event"] == "train"]
    assert steps == [1, 2, 3, 4], "the fine-tuning was gone on with"
    for stage in ("fpn", "head"):
        assert journal(out / stage) == journal(whole / stage)
        assert ranked(out / stage) == ranked(whole / stage)
    assert (out / "best.nas").read_bytes() == (whole / "best.nas").read_bytes()
    page = tmp_path / "report.html"
    assert invoke("report", out, "-o", page).exit_code == 0
    assert page.exists()


@pytest.mark.long
def test_the_runner_up_is_taken_where_the_best_fpn_diverges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import nasdsl.training.proxy.task as module

    make, calls = module.load_or_train_fpn, []

    def diverge_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise Diverged("the loss is not finite at step 1 of 2")
        return make(*arguments)

    monkeypatch.setattr(module, "load_or_train_fpn", diverge_once)
    result = invoke("search", "--preset", "nas-fcos", *PAPER, "--head-top", "0", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "heads cannot be searched on the fpn of trial" in result.stderr
    assert "the fpn cannot be trained: the loss is not finite" in result.stderr
    (failed,) = json.loads((tmp_path / "head" / "failed_fpns.json").read_text())
    fpn = (tmp_path / "head" / "fpn.nas").read_text()
    assert f"trial {failed['trial']} " not in fpn
    assert "Better ones failed" in fpn
    assert load_trials(tmp_path / "head").counts["ok"] > 0


@pytest.mark.long
def test_the_quick_search_killed_in_trials_and_in_a_full_training(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["search", "--preset", "quick", *QUICK, "--top-minutes", "0.05", "--out", str(out)]
    assert killed(command, signal.SIGKILL, lambda: lines(out / "journal.jsonl") >= 5) == -signal.SIGKILL
    have = journal(out)
    assert killed([*command, "--resume"], signal.SIGKILL, lambda: any(out.glob("full/*/log.jsonl"))) == -signal.SIGKILL
    assert journal(out)[: len(have)] == have
    resumed = invoke(*command, "--resume")
    assert resumed.exit_code == 0, resumed.output
    trials = load_trials(out)
    assert [trial.number for trial in trials] == list(range(6))
    assert len({trial.text for trial in trials}) > 1
    assert trials.front(), "of the reward and the MACs"
    rows = ranked(out)
    assert len(rows) == 3
    assert {row[4] for row in rows} == {"ok"}
    assert "gfl" in [row[0] for row in rows]
