"""Searches over whole detectors: image sizes, widths and backbones beside the holes of a space."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean, pvariance
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training" / "proxy"))

from cli.in_process import invoke, refused
from proxy_tools import small_spec
from small_spaces import BESIDE, FPN_SPACE, HEAD_SPACE

import nasdsl
from nasdsl.data import open_dataset
from nasdsl.decoder import load, loads
from nasdsl.detection.factory import load_detector
from nasdsl.report.search import statistics
from nasdsl.report.search.data import read_search
from nasdsl.search import ProxyEvaluation, SearchError, load_trials
from nasdsl.search.config import FORMAT
from nasdsl.search.detectors import DetectorEvaluation, described, proxy_specs
from nasdsl.search.full_training import FullTraining
from nasdsl.search.progressive import plain_search
from nasdsl.search.ranking import read_ranking
from nasdsl.search.stages import SearchSettings, Stage
from nasdsl.spaces import loads_space
from nasdsl.training.config import TrainingConfig
from nasdsl.training.proxy import ProxyTask
from nasdsl.training.proxy.defaults import UNASSIGNED_LOSS
from nasdsl.training.proxy.extraction import resized_sizes
from nasdsl.training.recipe import find_recipe

TASK = ["--data", "shapes:8", "--iterations", "2", "--proxy-batch", "2", "--strategy", "random"]
DETECTORS = ["--size", "64x64,64x96", "--width", "32,64", "--backbone", "tiny"]
SPACE = loads_space(FPN_SPACE, backbone="tiny", classes=3)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    (folder / "fpn.nas").write_text(FPN_SPACE)
    (folder / "plain.nas").write_text(BESIDE)
    return folder


# ------------------------------------------------------------------------------------------------- the proxy tasks


def test_a_task_for_each_backbone_and_size() -> None:
    space = SPACE.with_detector([(192, 256), (240, 320), (320, 432)], ["tiny", "mobilenet_v2"])
    spec = small_spec(levels=("c3", "c4", "c5"), memory_limit=6000, size=96)
    own = proxy_specs(space, spec, weights=lambda name: f"{name}.pth")
    assert set(own) == {(b, s) for b in space.backbones for s in space.sizes}
    for (backbone, size), made in own.items():
        assert (made.backbone, made.backbone_weights, made.image_size) == (backbone, f"{backbone}.pth", size)
        assert made.size == {192: 192, 240: 224, 320: 320}[size[0]], "the shorter side, down to a multiple of 32"
        assert made.memory_limit == 1000
        assert made.whole_images, "or the shares of the image that crops are would decide about the size"
    small = proxy_specs(space, spec, shorter_side=160)
    assert [small["tiny", size].image_size for size in space.sizes] == [(96, 128), (120, 160), (160, 216)]
    assert [small["tiny", size].size for size in space.sizes] == [96, 96, 160]
    with pytest.raises(SearchError, match="384 pixels, and the detector's images have 320x432"):
        proxy_specs(space, spec, shorter_side=384)
    assert proxy_specs(SPACE, spec) == {}
    (only,) = proxy_specs(SPACE.with_detector(backbones=["tiny"]), spec).items()
    assert only == (("tiny", None), replace(spec, backbone="tiny"))
    (one_size,) = proxy_specs(SPACE.with_detector([(192, 256)], ["tiny"]), spec).values()
    assert not one_size.whole_images


def test_images_are_resized_to_the_size_itself() -> None:
    data = open_dataset("shapes:3", "train")
    assert resized_sizes(data, small_spec(size=64, longest=96, image_size=(64, 96))) == [(64, 96)] * 3
    assert resized_sizes(data, small_spec(size=64, longest=96)) != [(64, 96)] * 3


def test_a_text_is_evaluated_on_the_task_of_its_size(tmp_path: Path) -> None:
    spec = small_spec(levels=("c3", "c4", "c5"), iterations=2, cache=str(tmp_path))
    space = SPACE.with_detector([(64, 64), (64, 96)], ["tiny"])
    specs = proxy_specs(space, spec)
    evaluation = DetectorEvaluation({key: ProxyEvaluation(one, quiet=True) for key, one in specs.items()})
    evaluation.prepare(keep=False)
    assert {path.name.rpartition("-")[0] for path in tmp_path.iterdir()} == {"tiny-64x64", "tiny-64x96"}
    rewards = {}
    for key, one in specs.items():
        text = loads(space.sample(3)).with_detector(key[1]).source.text
        rewards[key] = evaluation(text).reward
        assert rewards[key] == ProxyTask(one, quiet=True)(text).reward
        assert pickle.loads(pickle.dumps(evaluation))(text).reward == rewards[key]
    assert len(set(rewards.values())) == 2
    with pytest.raises(SearchError, match="the text is for tiny, 32x32; expected one of: tiny, 64x64; tiny, 64x96"):
        evaluation(loads(space.sample(3)).with_detector((32, 32)).source.text)
    assert evaluation.identity == {
        "detectors": {"tiny, 64x64": ProxyEvaluation(specs["tiny", (64, 64)]).identity,
                      "tiny, 64x96": ProxyEvaluation(specs["tiny", (64, 96)]).identity},
    }  # fmt: skip
    assert evaluation.identity["detectors"]["tiny, 64x64"]["image_size"] == (64, 64)


def test_plain_settings_make_the_same_evaluation_elsewhere(tmp_path: Path) -> None:
    space = SPACE.with_detector([(64, 64), (64, 96)], ["tiny"])
    specs = proxy_specs(space, small_spec(levels=("c3", "c4", "c5"), iterations=1, cache=str(tmp_path / "here")))
    evaluation = DetectorEvaluation({key: ProxyEvaluation(one, quiet=True) for key, one in specs.items()})
    evaluation.prepare()
    settings = json.loads(json.dumps(evaluation.settings()))
    there = DetectorEvaluation.from_settings(settings, {"cache": str(tmp_path / "there")})
    assert list(there.evaluations) == list(evaluation.evaluations)
    text = str(space.sample(0))
    assert there(text).reward == evaluation(text).reward
    assert (tmp_path / "there").is_dir()


def test_boxes_that_a_size_cannot_learn_count_where_sizes_are_compared() -> None:
    spec = small_spec(levels=("c3", "c4", "c5"))
    sizes = [(64, 64), (64, 96)]
    assert {one.unassigned_loss for one in proxy_specs(SPACE.with_detector(sizes), spec).values()} == {UNASSIGNED_LOSS}
    given = proxy_specs(SPACE.with_detector(sizes), replace(spec, unassigned_loss=1.0))
    assert {one.unassigned_loss for one in given.values()} == {1.0}
    assert proxy_specs(SPACE.with_detector(sizes[:1]), spec)[None, sizes[0]].unassigned_loss is None


# ------------------------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def whole(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("searches") / "run"
    full = ["--top", "1", "--beside", texts / "plain.nas", "--recipe", "quick", "--top-minutes", "0.01"]
    result = invoke("search", texts / "fpn.nas", *TASK, *DETECTORS, "--trials", "8", *full, "--out", out)
    assert result.exit_code == 0, result.output
    assert "proxy task of tiny, 64x96: images of 64x96, whole" in result.stderr
    assert "MACs with backbone" in result.stdout
    return out


def test_sizes_and_widths_are_decisions(whole: Path) -> None:
    trials = load_trials(whole)
    space = nasdsl.load_space(whole / "space.nas")
    assert (space.sizes, space.backbones) == (((64, 64), (64, 96)), ("tiny",))
    assert {d.role: d.alternatives for d in space.domains if d.role} == {"width": ("32", "64"), "size": ("64x64", "64x96")}
    decoders = [loads(trial.text) for trial in trials]
    assert {d.size for d in decoders} == set(space.sizes)
    assert {d.architecture.fpn.width for d in decoders} == {32, 64}
    for trial, decoder in zip(trials, decoders, strict=True):
        cost = decoder.cost(classes=trials.start["classes"])
        assert trial.digest == decoder.digest
        assert trial.figures == {
            "macs": cost.decoder.macs, "params": cost.decoder.params,
            "macs_total": cost.total.macs, "params_total": cost.total.params,
        }  # fmt: skip
    assert set(json.loads((whole / "pareto.json").read_text())) == {"macs", "params", "macs_total", "params_total"}
    assert described([t.text for t in trials]).keys() == {"size", "width"}


@pytest.mark.parametrize("workers", [[], pytest.param(["--workers", "process:2", "--batch", "1"], marks=pytest.mark.long)])
def test_it_is_resumed_and_gives_the_same_trials(whole: Path, texts: Path, tmp_path: Path, workers: list[str]) -> None:
    command = [
        "search",
        texts / "fpn.nas",
        *TASK,
        *DETECTORS,
        *workers,
        "--cache",
        whole / "features",
        "--out",
        tmp_path / "run",
    ]
    assert invoke(*command, "--trials", "3").exit_code == 0
    message = refused(*[a if a != "64x64,64x96" else "64x64,96x96" for a in command], "--trials", "8", "--resume")
    assert "detectors" in message
    result = invoke(*command, "--trials", "8", "--resume")
    assert result.exit_code == 0, result.output
    expected = [(t.text, t.reward, t.digest) for t in load_trials(whole)]
    assert [(t.text, t.reward, t.digest) for t in load_trials(tmp_path / "run")] == expected


def test_the_best_are_trained_with_the_size_and_width_of_their_own(whole: Path) -> None:
    ranking = read_ranking(whole / "full" / "ranking.json")
    assert ranking is not None
    best = load_trials(whole).best
    assert best is not None
    wanted = loads(best.text)
    for entry in ranking.entries:
        assert entry.verdict == "ok"
        decoder = load(whole / "full" / entry.folder / "decoder.nas")
        assert (decoder.size, decoder.backbone) == (wanted.size, "tiny")
        assert decoder.architecture.fpn.width == wanted.architecture.fpn.width
        config = json.loads((whole / "full" / entry.folder / "config.json").read_text())
        assert tuple(config["recipe"]["size"]) == wanted.size
        assert config["about"]["minutes"] == 0.01
        cost = decoder.cost(classes=5).total
        assert (entry.macs_total, entry.params_total) == (cost.macs, cost.params)


def test_best_nas_is_trained_without_more_options(whole: Path, tmp_path: Path) -> None:
    wanted = load(whole / "best.nas")
    train = ["train", whole / "best.nas", "--data", "shapes:8", "--recipe", "quick", "--steps", "1", "--workers", "0"]
    result = invoke(*train, "--batch-size", "2", "--out", tmp_path / "run", "--val-split", "none")
    assert result.exit_code == 0, result.output
    assert wanted.size is not None
    size = f"{wanted.size[0]}x{wanted.size[1]}"
    assert f"best.nas: backbone tiny (--backbone), size {size} (--size)" in result.stderr
    trained = load_detector(tmp_path / "run")
    assert (trained.backbone.name, trained.transform.fixed_size) == ("tiny", wanted.size)


@pytest.mark.long
def test_options_win_over_best_nas(whole: Path, tmp_path: Path) -> None:
    size = "{}x{}".format(*(load(whole / "best.nas").size or ()))
    train = ["train", whole / "best.nas", "--data", "shapes:8", "--recipe", "quick", "--steps", "1", "--workers", "0"]
    other = invoke(*train, "--batch-size", "2", "--out", tmp_path / "other", "--val-split", "none", "--size", "32x64")
    assert f"--size 32x64 instead of {size} of" in other.stderr
    assert load(tmp_path / "other" / "decoder.nas").size == (32, 64)
    assert load_detector(tmp_path / "other").transform.fixed_size == (32, 64)


def test_the_importance_of_the_size(whole: Path) -> None:
    (stage,) = read_search(whole).stages
    assert stage.searches_detectors
    assert stage.space is not None
    found = {one.name: one.share for one in statistics.importances(stage.trials.ok, stage.space)}
    index = next(d.index for d in stage.space.domains if d.role == "size")
    rewards = [t.reward for t in stage.trials.ok]
    groups = [[t.reward for t in stage.trials.ok if t.indices[index] == i] for i in range(2)]
    between = sum(len(g) * (fmean(g) - fmean(rewards)) ** 2 for g in groups) / len(rewards)
    assert found["size"] == pytest.approx(between / pvariance(rewards))
    assert all(0 <= share <= 1 for share in found.values())


@pytest.mark.long
def test_the_page_shows_them(whole: Path, tmp_path: Path) -> None:
    assert invoke("report", whole, "-o", tmp_path / "r.html").exit_code == 0
    page = (tmp_path / "r.html").read_text()
    for words in ("Choices of size", "Choices of width", "Importance of the decisions", "MACs with backbone"):
        assert words in page


@pytest.mark.long
def test_heads_are_searched_for_the_detector_of_the_best_fpn(texts: Path, tmp_path: Path) -> None:
    (texts / "head.nas").write_text(HEAD_SPACE)
    stages = ["--progressive", "--head-space", texts / "head.nas", "--head-trials", "2", "--top", "0", "--head-top", "1"]
    full = ["--recipe", "quick", "--epochs", "1", "--set", "workers=0"]
    command = ["search", texts / "fpn.nas", *TASK, *DETECTORS, *stages, *full, "--trials", "3", "--out", tmp_path / "run"]
    assert invoke(*command).exit_code == 0
    best = load_trials(tmp_path / "run" / "fpn").best
    assert best is not None
    wanted = loads(best.text)
    for trial in load_trials(tmp_path / "run" / "head"):
        decoder = loads(trial.text)
        assert (decoder.size, decoder.backbone, decoder.architecture.fpn.width) == (wanted.size, "tiny", 64)
    assert load(tmp_path / "run" / "best.nas").size == wanted.size
    before = (tmp_path / "run" / "head" / "journal.jsonl").read_bytes()
    assert invoke(*command, "--resume").exit_code == 0
    assert (tmp_path / "run" / "head" / "journal.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--size", "64x64,64x64"], "expected each value once"),
        (["--size", "64x64,"], "is no size"),
        (["--backbone", "tiny,vgg"], "unknown backbone 'vgg'"),
        (["--backbone", "tiny,mobilenet_v2", "--backbone-weights", "x.pth"], "is for one backbone, and there are several"),
        (["--size", "64x64", "--proxy-size", "96"], "expected 64 or less"),
        (["--top", "1", "--top-minutes", "3", "--epochs", "1"], "give one of them"),
        (["--stages", "head", "--size", "64x64,96x96"], "--size has several values"),
    ],
)
def test_what_is_refused(more: list[str], message: str, texts: Path, tmp_path: Path) -> None:
    assert message in refused("search", texts / "fpn.nas", *TASK, *more, "--out", tmp_path / "run")


def test_a_search_of_an_earlier_version_is_resumed_as_it_was(texts: Path, tmp_path: Path) -> None:
    """In which --size was what costs are counted for, and the texts named no detector."""
    out = tmp_path / "run"
    command = ["search", texts / "fpn.nas", *TASK, "--backbone", "tiny", "--size", "64x96", "--proxy-size", "64", "--out", out]
    assert invoke(*command, "--trials", "0").exit_code == 0
    config = json.loads((out / "search.json").read_text())
    proxy = {k: v for k, v in config["proxy"].items() if k != "image_size"} | {"longest": round(64 * 1333 / 800)}
    for file in out.glob("*.*"):
        file.unlink()
    from nasdsl.training.proxy import ProxySpec

    spec = ProxySpec(**{**proxy, "cache": str(out / "features"), "memory_limit": 4 * 2**30})
    space = loads_space(FPN_SPACE, backbone="tiny", classes=config["search"]["classes"])
    how = SearchSettings(strategy="random", size=(64, 96), about={"command": "nasdsl search"})
    plain_search(Stage(space=space, proxy=spec, trials=3), out, how, quiet=True)
    earlier = json.loads((out / "search.json").read_text())
    assert earlier["format"] == FORMAT
    assert "detectors" not in earlier
    result = invoke(*command, "--trials", "5", "--resume")
    assert result.exit_code == 0, result.output
    assert "is a search of an earlier version" in result.stderr
    trials = load_trials(out)
    assert len(trials) == 5
    assert {loads(t.text).size for t in trials} == {None}
    assert "--size has several values" in refused(*[a if a != "64x96" else "64x96,64x64" for a in command], "--resume")


# ------------------------------------------------------------------------------------------------- full trainings


def test_the_plan_of_each_decoder() -> None:
    plan = TrainingConfig(data="shapes:8", backbone="tiny", recipe=find_recipe("quick"))
    plain = loads(BESIDE)
    weights = {"tiny": None, "mobilenet_v2": "imagenet"}
    full = FullTraining(plan, backbone_weights=weights)

    def prepared(decoder: nasdsl.Decoder, full: FullTraining = full) -> tuple[Any, ...]:
        made, adapted = full.prepare(decoder)
        return made.size, adapted.recipe.size, adapted.backbone, adapted.backbone_weights

    assert prepared(plain) == (None, (240, 320), "tiny", None)
    named = plain.with_detector((96, 128), "mobilenet_v2")
    assert prepared(named) == ((96, 128), (96, 128), "mobilenet_v2", "imagenet")
    assert prepared(named, replace(full, keep_size=True)) == ((240, 320), (240, 320), "mobilenet_v2", "imagenet")
