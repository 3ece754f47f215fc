"""`nasdsl search` from the command line to the files: whole, killed at several places, in stages; and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import Result
from in_process import invoke, refused
from killed_searches import journal, killed, lines, ranked
from small_spaces import BESIDE, FPN_SPACE, HEAD_SPACE

from nasdsl.cli.search_output import print_outcome
from nasdsl.cli.search_training import _load_compared
from nasdsl.decoder import load, loads
from nasdsl.report.tables import humanise
from nasdsl.search import load_trials, search
from nasdsl.search.progressive import SearchResult
from nasdsl.search.stages import StageResult
from nasdsl.spaces import loads_space
from nasdsl.training.proxy.spec import ProxySpec

TASK = [
    "--data", "shapes:12", "--backbone", "tiny", "--iterations", "3", "--proxy-size", "64", "--proxy-batch", "4",
    "--strategy", "random", "--size", "64x64", "--proxy", "average=0.5",
]  # fmt: skip
SEARCH = [*TASK, "--trials", "6"]
FULL = ["--recipe", "quick", "--epochs", "4", "--set", "size=64x64", "--set", "workers=0", "--set", "batch_size=4"]
LOGGED = ["--set", "log_every=1", "--set", "checkpoint_every=1"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for name, text in (("fpn", FPN_SPACE), ("head", HEAD_SPACE), ("plain", BESIDE)):
        (folder / f"{name}.nas").write_text(text)
    return folder


def arguments(texts: Path, out: Path) -> list[str]:
    top = ["--top", "1", "--beside", str(texts / "plain.nas")]
    return ["search", str(texts / "fpn.nas"), *SEARCH, *top, *FULL, *LOGGED, "--out", str(out)]


@pytest.fixture(scope="module")
def whole(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """An uninterrupted search with full training."""
    out = tmp_path_factory.mktemp("searches") / "new" / "whole"
    result = invoke(*arguments(texts, out), "--format", "json")
    assert result.exit_code == 0, result.output
    return result, out


# ------------------------------------------------------------------------------------------------------ a whole one


def test_the_files_and_the_output(whole: tuple[Result, Path], texts: Path) -> None:
    result, out = whole
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    files = "best.nas features full journal.jsonl pareto.json search.json space.nas strategy.pt trials.csv"
    assert names == set(files.split())
    trials = load_trials(out)
    assert len(trials) == 6
    best = trials.best
    assert best is not None
    assert {path.name for path in (out / "full").iterdir()} == {"ranking.json", f"trial_{best.number}", "plain"}
    for run in (f"trial_{best.number}", "plain"):
        assert {"config.json", "log.jsonl", "metrics.json", "model.pt", "decoder.nas"} <= {
            path.name for path in (out / "full" / run).iterdir()
        }
    output = json.loads(result.stdout)
    assert (output["folder"], output["counts"]["ok"]) == (str(out), trials.counts["ok"])
    assert sum(output["counts"].values()) == 6
    assert output["best"]["trial"] == best.number
    assert loads(output["best"]["text"]).digest == output["best"]["digest"] == best.digest
    assert output["best"]["reward"] == best.reward
    metrics = json.loads((out / "full" / f"trial_{best.number}" / "metrics.json").read_text())
    assert output["best"]["ap"] == metrics["coco"]["ap"]
    assert [row["name"] for row in output["stages"][0]["ranking"]] == [row[0] for row in ranked(out)]
    for words in ("shapes:12 (train): 12 images", "full training 1 of 2", "full training 2 of 2: plain", "left for all",
                  "6 trials: ", "on the front of macs", f"best: trial {best.number}", "next: nasdsl report"):  # fmt: skip
        assert words in result.stderr
    assert "\x1b[" not in result.output
    config = json.loads((out / "search.json").read_text())
    assert (config["format"], config["stages"]) == ("nasdsl search run 1", [])
    assert config["proxy"]["levels"] == ["c3", "c4", "c5"], "those that the space can read, and not all"
    assert (config["proxy"]["average"], config["proxy"]["image_size"], config["proxy"]["size"]) == (0.5, [64, 64], 64)
    assert loads((out / "best.nas").read_text()).size == (64, 64)
    assert config["full"]["recipe"]["size"] == [64, 64]


def test_a_finished_search_is_reported_again_and_changed_options_are_named(whole: tuple[Result, Path], texts: Path) -> None:
    _, out = whole
    before = (out / "journal.jsonl").read_bytes()
    again = invoke(*arguments(texts, out), "--resume")
    assert again.exit_code == 0, again.output
    assert (out / "journal.jsonl").read_bytes() == before
    assert "fully trained" in again.stdout
    assert "full training" not in again.stderr.replace("after full training", "")
    assert "holds a search already: resume it (--resume)" in refused(*arguments(texts, out))
    other = ["--resume", "--seed", "1", "--iterations", "4", "--set", "flip=0"]
    message = refused(*arguments(texts, out), *other)
    for difference in ("how.seed was 0, is 1", "proxy.iterations was 3, is 4", "full.recipe.flip was 0.5, is 0"):
        assert difference in message
    assert (out / "journal.jsonl").read_bytes() == before


def test_commands_take_the_decoder_and_the_space_in_the_folder_of_a_search(whole: tuple[Result, Path], tmp_path: Path) -> None:
    _, out = whole
    compiled = invoke("compile", out, "--backbone", "tiny", "--format", "json")
    assert (compiled.exit_code, compiled.stderr) == (0, f"reading {out / 'best.nas'}\n")
    assert json.loads(compiled.stdout)["digest"] == load_trials(out).best.digest
    assert invoke("render", out, "--backbone", "tiny", "-o", tmp_path / "best.dot").exit_code == 0
    sampled = invoke("sample", out, "-n", "2")
    assert (sampled.exit_code, sampled.stdout) == (0, invoke("sample", out / "space.nas", "-n", "2").stdout)
    again = invoke("search", out, *TASK, "--trials", "1", "--out", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again" / "space.nas").read_text() == (out / "space.nas").read_text()
    message = refused("eval", out, "--data", "shapes:2")
    assert f"is the folder of a search; its trained detectors are in {out / 'full'}: plain, trial_" in message


# ----------------------------------------------------------------------------------------------------------- kills


@pytest.mark.long
def test_a_search_that_is_killed_twice_and_resumed_gives_the_same_result(
    whole: tuple[Result, Path], texts: Path, tmp_path: Path
) -> None:
    """This also shows that two searches with the same seed are equal."""
    expected, out = whole[1], tmp_path / "run"
    command = arguments(texts, out)
    assert killed(command, signal.SIGKILL, lambda: lines(out / "journal.jsonl") >= 5) == -signal.SIGKILL
    have = journal(out)
    assert 1 <= sum(record["kind"] == "result" for record in have) < 6
    log = out / "full" / f"trial_{load_trials(expected).best.number}" / "log.jsonl"
    assert killed([*command, "--resume"], signal.SIGTERM, lambda: lines(log) >= 2) == 143
    assert journal(out)[: len(have)] == have
    assert 2 <= lines(log) < 12
    result = invoke(*command, "--resume")
    assert result.exit_code == 0, result.output
    assert "resuming from step" in result.stderr
    assert journal(out) == journal(expected)
    assert ranked(out) == ranked(expected)
    steps = [record["step"] for record in map(json.loads, log.read_text().splitlines()) if record["event"] == "train"]
    assert steps == list(range(1, 13)), "no step twice in the log, and none missing"


# ---------------------------------------------------------------------------------------------------------- stages


def test_progressive_search(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    stages = ["--progressive", "--trials", "3", "--head-space", str(texts / "head.nas"), "--head-trials", "2", "--top", "1"]
    result = invoke("search", texts / "fpn.nas", *TASK, *stages, "--head-top", "0", *FULL, "--format", "json", "--out", out)
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {
        "best.nas", "features", "fpn", "head", "search.json",
    }  # fmt: skip
    assert not (out / "head" / "full").exists(), "--head-top 0"
    assert len(list((out / "features").iterdir())) == 2, "the backbone's, and the pyramids of the best fpn"
    output = json.loads(result.stdout)
    assert [stage["name"] for stage in output["stages"]] == ["fpn", "head"]
    assert [stage["trials"] for stage in output["stages"]] == [3, 2]
    assert output["best"]["stage"] == "fpn", "the only one that was trained"
    fixed = loads((out / "head" / "fpn.nas").read_text())
    assert fixed.canonical_fpn == loads(load_trials(out / "fpn").best.text).with_width(64).canonical_fpn
    heads = load_trials(out / "head")
    assert all(loads(trial.text).canonical_fpn == fixed.canonical_fpn for trial in heads)
    assert heads.counts["ok"] >= 1


@pytest.mark.long
def test_workers_in_a_shared_folder_give_the_trials_of_an_inline_one(texts: Path, tmp_path: Path) -> None:
    """Both stages of a progressive search, with another evaluation each; one worker is killed, another ended."""
    command = [
        "search", str(texts / "fpn.nas"), *TASK, "--progressive", "--trials", "4", "--head-space", str(texts / "head.nas"),
        "--head-trials", "4", "--top", "0", "--head-top", "0", "--batch", "3",
    ]  # fmt: skip
    result = invoke(*command, "--out", str(tmp_path / "inline"))
    assert result.exit_code == 0, result.output
    shared = tmp_path / "shared"
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    worker = [sys.executable, "-m", "nasdsl", "worker", str(shared)]
    killed, stays = (subprocess.Popen(worker, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2))
    nasdsl = [sys.executable, "-m", "nasdsl", *command, "--workers", f"folder:{shared}", "--out", str(tmp_path / "folder")]
    running = subprocess.Popen(nasdsl, env=environment)
    while not list(shared.glob(f"searches/*/running/*-{killed.pid}-*")) and running.poll() is None:
        time.sleep(0.01)
    killed.kill()
    killed.communicate(timeout=60)
    assert running.wait(280) == 0
    stays.terminate()
    said = stays.communicate(timeout=30)[1]
    assert stays.returncode == 128 + signal.SIGTERM
    assert "ends after" in said
    for stage in ("fpn", "head"):
        records = [journal(tmp_path / kind / stage) for kind in ("inline", "folder")]
        for found in records:
            found.sort(key=lambda record: (record["kind"], record["number"]))
            for record in found:
                record.pop("worker", None), record.pop("attempts", None)
        assert records[0] == records[1]
    assert list((shared / "searches").iterdir()) == []


def test_samples_that_diverge_do_not_stop_a_search(texts: Path, tmp_path: Path) -> None:
    wild = ["--trials", "3", "--proxy", "learning_rate=1e30"]
    result = invoke("search", texts / "fpn.nas", *TASK, *wild, "--stages", "fpn", "--top", "1", *FULL, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    trials = load_trials(tmp_path / "fpn")
    assert trials.counts["diverged"] + trials.counts["duplicate"] == 3
    assert trials.best is None
    assert "no trial has a reward" in result.stderr
    assert not (tmp_path / "best.nas").exists()
    message = refused("search", texts / "fpn.nas", *TASK, *wild, "--progressive", "--out", tmp_path / "both")
    assert "none of the 3 trials" in message


def test_the_head_alone_with_latency(texts: Path, tmp_path: Path) -> None:
    command = ["search", *TASK, "--stages", "head", "--head-space", texts / "head.nas", "--fpn", texts / "plain.nas"]
    wild = refused(*command, "--proxy", "learning_rate=1e30", "--head-top", "0", "--out", tmp_path / "wild")
    assert "the fpn cannot be trained: the loss is not finite" in wild
    good = tmp_path / "good"
    result = invoke(*command, "--head-trials", "1", "--head-top", "0", "--objective", "latency:1ms", "--out", good)
    assert result.exit_code == 0, result.output
    (trial,) = load_trials(good / "head")
    assert trial.details["latency"] > 0
    assert trial.score != trial.reward
    assert "score" in result.stdout
    assert (good / "best.nas").exists()


# --------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "SPACE is missing"),
        (["PLAIN"], "has no holes, so there is nothing to search"),
        (["FPN", "--stages", "neck"], "'neck' is not one of 'fpn', 'head', 'fpn+head'"),
        (["FPN", "--head-trials", "5"], "--head-trials is for a progressive search"),
        (["FPN", "--stages", "head", "--trials", "5"], "use --head-trials"),
        (["FPN", "--progressive", "--fpn", "zoo:fcos"], "--fpn is for --stages head"),
        (["--stages", "head", "--fpn", "FPN"], "has holes; expected a decoder without"),
        (["FPN", "--beside", "PLAIN"], "say with --top how many"),
        (["FPN", "--top", "1", "--beside", "FPN"], "--beside"),
        (["FPN", "--top", "1", "--val-split", "none"], "a ranking needs images to evaluate on"),
        (["FPN", "--top", "1", "--val-split", "dev"], "shapes has no split 'dev'"),
        (["FPN", "--top", "1", "--recipe", "slow"], "there is no recipe 'slow'"),
        (["FPN", "--top", "1", "--set", "epoch=3"], "did you mean epochs?"),
        (["FPN", "--data", "voc:nowhere"], "nowhere"),
        (["FPN", "--split", "dev"], "shapes has no split 'dev'"),
        (["FPN", "--backbone", "vgg"], "unknown backbone 'vgg'"),
        (["FPN", "--backbone-weights", "imagenet"], "tiny has no pre-trained weights"),
        (["FPN", "--strategy", "sarch"], "there is no strategy 'sarch'"),
        (["FPN", "--strategy-option", "x=1"], "the strategy 'random' has no option 'x'"),
        (["FPN", "--objective", "macs"], "expected COST:TARGET"),
        (["--evaluate", "supernet", "--progressive"], "--evaluate supernet is for a search without stages"),
        (["FPN", "--evaluate", "supernet", "--early-stop", "median"], "--evaluate supernet trains none of them"),
        (["FPN", "--supernet", "iterations=3"], "--supernet is for --evaluate supernet"),
        (
            ["FPN", "--evaluate", "supernet", "--supernet", "steps=3"],
            "--supernet steps: there is no such setting; expected one of",
        ),
        (["FPN", "--evaluate", "supernet", "--supernet", "iterations=many"], "--supernet"),
        (["FPN", "--early-stop", "soon"], "early stopping is 'soon'"),
        (["FPN", "--workers", "threads:2"], "workers are 'threads:2'"),
        (["FPN", "--objective", "latency:1ms", "--early-stop", "median"], "or no early stopping"),
        (["FPN", "--timeout", "5"], "a timeout needs workers that can be ended"),
        (["FPN", "--proxy", "itertions=3"], "--proxy itertions: the proxy task has no such setting"),
        (["FPN", "--proxy", "iterations"], "expected NAME=VALUE"),
        (["FPN", "--proxy", "iterations=many"], "--proxy"),
        (["FPN", "--proxy", "batch_size=0"], "batch_size is 0; expected 1 or more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_refused(more: list[str], message: str, texts: Path, tmp_path: Path) -> None:
    known = {"FPN": texts / "fpn.nas", "PLAIN": texts / "plain.nas"}
    assert message in refused("search", *TASK, "--out", tmp_path / "run", *(known.get(word, word) for word in more))
    assert not list(tmp_path.rglob("journal.jsonl"))


def test_decoders_of_one_name_are_compared_under_several(texts: Path, tmp_path: Path) -> None:
    """Each has a folder of its own, and none that of a trial."""
    (tmp_path / "trial.nas").write_text(BESIDE.replace(load(texts / "plain.nas").name, "trial_1", 1))
    found = _load_compared((str(texts / "plain.nas"), str(texts / "plain.nas"), str(tmp_path / "trial.nas")))
    name = load(texts / "plain.nas").name
    assert list(found) == [name, f"{name}_beside_2", "trial_1_beside_2"]


def test_a_refused_task_leaves_the_folder_free(texts: Path, tmp_path: Path) -> None:
    task = [word for word in TASK if word not in ("--size", "64x64")]
    command = ["search", texts / "fpn.nas", *task, "--trials", "0", "--out", tmp_path / "run"]
    assert "size is 50; expected a multiple of 32" in refused(*command, "--proxy-size", "50")
    assert invoke(*command).exit_code == 0, "without --resume"


def test_a_large_feature_cache_is_said_before_the_search_starts(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the paper's size see `test_the_features_of_the_paper`."""
    command = [
        "search", str(texts / "fpn.nas"), *TASK, "--progressive", "--head-space", str(texts / "head.nas"), "--trials", "1",
        "--head-trials", "1", "--top", "0", "--head-top", "0",
    ]  # fmt: skip
    monkeypatch.setattr("nasdsl.cli.feature_cache.WORTH_SAYING", 1)
    said = invoke(*command, "--out", str(tmp_path / "run")).output
    assert (
        "features of 12 images and their mirror images (c3, c4, c5 of tiny, float16) take 0.0 GiB, and the outputs of the fpn"
        in (said)
    )
    assert "warning: they are read from the disk" not in said
    made = [path.stat().st_size for path in (tmp_path / "run" / "features").glob("*/features.bin")]
    assert sum(made) > 0
    monkeypatch.setattr("nasdsl.training.proxy.memory.available_memory", lambda: 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    resumed = invoke(*command, "--out", str(tmp_path / "run"), "--resume")
    assert resumed.exit_code == 0, "everything is there already"
    assert "warning: they are read from the disk again and again" in resumed.output
    message = refused(*command, "--out", tmp_path / "other")
    assert "has 0.0 GiB free: choose a larger disk with --cache DIR, or --proxy-size 32 (" in message
    assert "--no-mirror (" in message
    assert not (tmp_path / "other").exists()


def test_the_output_of_a_search_for_a_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = loads_space(FPN_SPACE, backbone="tiny")
    trials = search(space, lambda text: -float(len(text)), "random", 6, out=tmp_path, objective="reward,macs", quiet=True)
    outcome = SearchResult(tmp_path, (StageResult("", tmp_path, trials, None),))
    options = SimpleNamespace(full_data=None, spec="shapes:8", evaluate="proxy")
    print_outcome(outcome, options, ProxySpec("shapes:8", backbone="tiny"), "text")
    printed = capsys.readouterr()
    head, first, *_ = printed.out.splitlines()
    best = trials.best
    assert best is not None
    assert re.split(r"\s{2,}", head.strip()) == [
        "rank",
        "trial",
        "reward",
        "MACs with backbone",
        "params with backbone",
        "digest",
    ]
    assert humanise(int(best.figures["macs_total"])) in first
    front = f"the front is in {tmp_path / 'front.csv'}\n"
    name = f"best compromise (it alone dominates most of the front's range): trial {best.number}, reward {best.reward:.6g}\n"
    assert front + name in printed.err
    assert f"{len(trials.front())} on the front of reward,macs" in printed.err


def test_a_space_with_a_mistake_is_a_finding(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.nas").write_text(FPN_SPACE.replace("?op(", "?opp("))
    message = refused("search", tmp_path / "bad.nas", *TASK, "--out", tmp_path / "run", code=1)
    assert message.count("error[NAS") >= 1
    message = refused("search", texts / "fpn.nas", *TASK, "--width", "40", "--out", tmp_path / "run", code=1)
    assert "error[NAS308]" in message


def test_the_settings() -> None:
    shown = invoke("search", "--show-settings").stdout
    for setting in ("iterations", "average", "channels_last", "memory_limit", "warmup_steps"):
        assert setting in shown
