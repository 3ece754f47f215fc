"""What a search will take: the arithmetic from measured parts to hours, disk and memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_spaces import BESIDE, FPN_SPACE, HEAD_SPACE

from nasdsl.data import open_dataset
from nasdsl.decoder import loads
from nasdsl.search.backbone_training import BackboneTraining
from nasdsl.search.detectors import detector_key, proxy_specs
from nasdsl.search.errors import SearchError
from nasdsl.search.estimate import (
    SAMPLES,
    Measured,
    Search,
    _backbone_time,
    _full_time,
    _initial_weights,
    _run_jobs,
    _samples,
    add_up,
    at_once,
    in_process,
    measure,
)
from nasdsl.search.full_training import FullTraining
from nasdsl.search.progressive import with_fixed_fpn
from nasdsl.search.stages import SearchSettings, Stage
from nasdsl.search.supernet.spec import SupernetSpec
from nasdsl.spaces import SpaceError, loads_space
from nasdsl.training.config import TrainingConfig
from nasdsl.training.progress import about_duration
from nasdsl.training.proxy import ProxySpec
from nasdsl.training.proxy.estimate import estimate_features
from nasdsl.training.proxy.timing import EvaluationTime, ProxyTime
from nasdsl.training.recipe import Recipe
from nasdsl.training.timing import TrainingTime

DATA = open_dataset("shapes:10", "train")
SPEC = ProxySpec("shapes:10", backbone="tiny", size=64, iterations=60, levels=("c3", "c4", "c5"), cache="features")
TRAINED = TrainingTime(600.0, 0.5, 1000, 2, 30_000_000, 2**30, None, 1.0)


def space(text: str = FPN_SPACE) -> Any:
    return loads_space(text, backbone="tiny", classes=5)


def stage(**changes: Any) -> Stage:
    return replace(Stage(space=space(), proxy=SPEC, trials=100), **changes)


def search(first: Stage | None = None, **changes: Any) -> Search:
    return replace(
        Search(
            data=DATA, settings=SearchSettings(), first=first or stage(), heads=None, fixed=None, full=None, backbones=()
        ),
        **changes,
    )  # fmt: skip


def measured(*evaluations: tuple[float, float], image: float = 0.5, **changes: Any) -> Measured:
    time = ProxyTime(image, tuple(EvaluationTime(*one) for one in evaluations), memory=2**30)
    return replace(Measured({(None, None): time}, None, (), (), 500), **changes)


def seconds(found: Any) -> dict[str, float | None]:
    return {part.name: part.seconds for part in found.parts}


def test_trials_and_features() -> None:
    found = add_up(search(), measured((0.1, 2.0), (0.3, 4.0)))
    # An evaluation is 60 steps and a validation: 8 and 22 seconds.
    assert seconds(found) == {"features": pytest.approx(10 * 0.5), "trials": pytest.approx(100 * 15)}
    assert found.seconds == pytest.approx(1505)
    assert "100 of 15 s (8 to 22) each" in found.parts[1].detail
    assert found.disk["feature cache"] == estimate_features(DATA, SPEC).backbone
    assert found.memory == {"features in memory": found.disk["feature cache"], "trials": 2**30}
    assert found.notes == ()


def test_seeds_evaluations_and_workers() -> None:
    twice = replace(SPEC, seeds=2)
    found = add_up(search(stage(proxy=twice, evaluations=40)), measured((0.1, 2.0)))
    assert seconds(found)["trials"] == pytest.approx(40 * 16)
    found = add_up(search(settings=SearchSettings(workers="process:4", stopping="median")), measured((0.1, 2.0)))
    assert seconds(found)["trials"] == pytest.approx(100 * 8 / 4)
    assert found.memory == {"a worker": 2**30}, "workers map the features"
    assert any("memory-mapped" in note for note in found.notes)
    assert any("stopped early" in note for note in found.notes)
    found = add_up(search(settings=SearchSettings(workers="folder:shared")), measured((0.1, 2.0)))
    assert seconds(found)["trials"] == pytest.approx(800)
    assert any("divide by how many there are (folder:shared)" in note for note in found.notes)
    assert [at_once(workers) for workers in ("inline", "process:3", "ray:5", "ray", "folder:x")] == [1, 3, 5, 1, 1]


def test_features_of_several_sizes() -> None:
    wide = space().with_detector([(64, 64), (64, 96)], ["tiny"])
    specs = proxy_specs(wide, SPEC)
    time = ProxyTime(0.5, (EvaluationTime(0.1, 2.0),), memory=5)
    proxies = dict(zip(specs, (time, replace(time, image=1.5, evaluations=(EvaluationTime(0.2, 4.0),))), strict=True))
    found = add_up(search(stage(space=wide, detectors=specs)), measured(proxies=proxies))
    assert seconds(found) == {"features": pytest.approx(10 * 2.0), "trials": pytest.approx(100 * 12)}
    assert found.disk["feature cache"] == sum(estimate_features(DATA, spec).backbone for spec in specs.values())
    chosen = _samples(wide)
    assert len(chosen) == SAMPLES == len(set(chosen))
    assert len({detector_key(text) for text in chosen}) == 2


def test_heads() -> None:
    heads = Stage(space=space(HEAD_SPACE), proxy=SPEC, trials=30)
    time = ProxyTime(0.5, (EvaluationTime(0.05, 1.0),), memory=7, fpn=EvaluationTime(0.2, 9.0), pyramid=0.25)
    found = add_up(search(heads=heads), measured((0.1, 2.0), heads=time))
    assert seconds(found)["fpn outputs"] == pytest.approx(60 * 0.2 + 10 * 0.25)
    assert seconds(found)["head trials"] == pytest.approx(30 * (60 * 0.05 + 1))
    assert found.disk["fpn outputs"] > 0
    unknown = add_up(search(heads=heads), measured((0.1, 2.0)))
    assert seconds(unknown)["head trials"] is None
    assert unknown.seconds == pytest.approx(805)


def test_full_trainings() -> None:
    plan = TrainingConfig(data="shapes:10", backbone="tiny", recipe=Recipe())
    full = FullTraining(plan, {"fcos": space()})  # type: ignore[dict-item]  # only counted
    other = TRAINED._replace(seconds=1200.0, disk=50_000_000, memory=2**31)
    found = add_up(search(stage(top=3), full=full), measured((0.1, 2.0), full=(TRAINED, other)))
    assert seconds(found)["full trainings"] == pytest.approx(4 * 900)
    assert found.disk["full trainings"] == 4 * 50_000_000
    assert found.memory["a full training"] == 2**31
    found = add_up(search(stage(top=3), full=replace(full, minutes=30)), measured((0.1, 2.0), full=(TRAINED,)))
    assert seconds(found)["full trainings"] == 4 * 1800


def test_a_weight_sharing_network() -> None:
    shared = SupernetSpec(iterations=1000, calibration=4)
    found = add_up(search(stage(supernet=shared)), measured((0.1, 2.0)))
    assert seconds(found)["weight-sharing network"] == pytest.approx(100)
    assert seconds(found)["trials"] == pytest.approx(100 * 2.4)
    sandwich = stage(supernet=shared, space=space().with_width(32, 64))
    assert seconds(add_up(search(sandwich), measured((0.1, 2.0))))["weight-sharing network"] == pytest.approx(300)


def test_what_is_extrapolated_or_disturbed_is_said() -> None:
    time = ProxyTime(0.5, (EvaluationTime(0.1, 2.0),), ("too wide",), share=0.25)
    notes = add_up(search(), measured(proxies={(None, None): time}, load=1000.0)).notes
    for words in ("extrapolated", "load 1000.0 on", "not measured: too wide"):
        assert any(words in note for note in notes)


def test_long_durations() -> None:
    assert [about_duration(days * 86400) for days in (3.5, 4, 2656)] == ["84 h 00 min", "4 days", "2,656 days"]


def test_slow_trainings_are_not_all_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.search.estimate.in_process", lambda function, *arguments: function(*arguments))
    jobs = [(int, (number,)) for number in range(4)]
    assert _run_jobs(jobs, 2) == [0, 1, 2, 3]
    monkeypatch.setattr("nasdsl.search.estimate.ENOUGH_SECONDS", -1.0)
    assert (_run_jobs(jobs, 2), _run_jobs(jobs)) == ([0, 1], [0, 1, 2, 3])


def fine_tuning(folder: Path, **plan: Any) -> BackboneTraining:
    """The training of a backbone that a search then freezes."""
    return BackboneTraining(
        TrainingConfig(data="shapes:4", backbone="tiny", recipe=Recipe(), **plan), loads(BESIDE), folder, "cpu"
    )


def test_what_is_measured_of_a_search_of_both_stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the fpn of a sample for the heads, on which one may not be: then on the next."""
    asked: list[tuple[str, Any]] = []

    def instead(function: Any, *arguments: Any) -> Any:
        asked.append((function.__name__, arguments))
        return TRAINED if "proxy" not in function.__name__ else ProxyTime(0.5, (EvaluationTime(0.1, 2.0),))

    tried: list[str] = []

    def second(heads: Any, text: str) -> Any:
        tried.append(text)
        if len(tried) == 1:
            raise SpaceError("does not fit")
        return with_fixed_fpn(heads, text)

    monkeypatch.setattr("nasdsl.search.estimate.in_process", instead)
    monkeypatch.setattr("nasdsl.search.estimate.with_fixed_fpn", second)
    said: list[str] = []
    whole = search(
        heads=Stage(space=space(HEAD_SPACE), proxy=SPEC, trials=30, top=2),
        full=FullTraining(TrainingConfig(data="shapes:4", backbone="tiny", recipe=Recipe())),
        backbones=[fine_tuning(tmp_path / "tiny")],
    )
    found = measure(whole, said.append)
    assert [name for name, _ in asked] == ["_proxy_time"] * 2 + ["_backbone_time"] + ["_full_time"] * SAMPLES
    fpns, heads = (arguments for name, arguments in asked if name == "_proxy_time")
    assert tried == fpns[2][:2]
    assert heads[0].fpn == with_fixed_fpn(whole.heads.space, fpns[2][1])[1]  # type: ignore[union-attr]  # there are heads
    assert [arguments[1] for name, arguments in asked if name == "_full_time"] == _samples(space(HEAD_SPACE))
    assert [words.split(",")[0] for words in said] == [
        "measuring features", f"measuring a few steps of {1 + SAMPLES} trainings"
    ]  # fmt: skip
    assert f"a few steps of {2 * SAMPLES} decoders" in said[0]
    assert (found.heads, found.backbones, found.full) == (found.proxies[None, None], [TRAINED], [TRAINED] * SAMPLES)
    parts = seconds(add_up(whole, found))
    assert next(iter(parts.items())) == ("fine-tuning of tiny", 600)
    asked.clear()
    measure(replace(whole, first=stage(top=3), full=replace(whole.full, minutes=5), backbones=[]))  # type: ignore[type-var]  # a copy of its own class
    (trained,) = (arguments[1] for name, arguments in asked if name == "_full_time")  # for memory and disk
    assert trained == fpns[2][0]


def test_without_a_decoder_that_can_be_trained_there_is_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nasdsl.search.estimate.in_process", lambda *_: ProxyTime(0.5, (), ("it diverges",)))
    with pytest.raises(SearchError, match=f"^none of {SAMPLES} decoders of the space could be trained: it diverges$"):
        measure(search())


def test_heads_on_an_fpn_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = Stage(space=space(HEAD_SPACE), proxy=SPEC, trials=30)
    alone = search(heads=heads, fixed=BESIDE, settings=SearchSettings(budgets=("macs:1G",)))
    alone = replace(alone, first=None)
    time = ProxyTime(0.5, (EvaluationTime(0.05, 1.0),), fpn=EvaluationTime(0.2, 9.0), pyramid=0.25)
    monkeypatch.setattr("nasdsl.search.estimate.in_process", lambda function, spec, data, texts, *_: time)
    found = add_up(alone, measure(alone))
    assert list(seconds(found)) == ["features", "fpn outputs", "head trials"]
    assert any("may be over the budgets" in note for note in found.notes)
    refused = replace(alone, fixed="decoder broken {")
    assert seconds(add_up(refused, measure(refused)))["head trials"] is None


@pytest.mark.parametrize("quiet", [False, True])
def test_the_training_of_a_backbone_is_announced_and_made_once(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[Path] = []

    def train(detector: Any, data: Any, recipe: Any, folder: Path, val: Any, **more: Any) -> None:
        trained.append(folder)
        folder.mkdir()
        (folder / "model.pt").touch()

    monkeypatch.setattr("nasdsl.search.backbone_training.train", train)
    training = fine_tuning(tmp_path / "[run]")
    for _ in range(2):
        training.run(resume=True, quiet=quiet)
    assert trained == [tmp_path / "[run]"]
    said = f"fine-tuning tiny with plain at width 64 on shapes:4 (train), in {tmp_path / '[run]'}\n"
    assert capsys.readouterr().err == ("" if quiet else said)


def test_trainings_are_measured_as_they_will_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: list[Any] = []
    monkeypatch.setattr("nasdsl.training.timing.time_training", lambda *arguments: given.append(arguments) or TRAINED)
    training = fine_tuning(tmp_path, backbone_weights=None)
    assert _backbone_time(training) == TRAINED
    full = FullTraining(training.plan, device="cpu")
    assert _full_time(full, BESIDE) == TRAINED
    for detector, data, val, recipe, device in given:
        assert (detector.config["decoder"], len(data), len(val), recipe, device) == (BESIDE, 4, 4, training.plan.recipe, "cpu")
    assert _initial_weights(training) is None
    assert _initial_weights(fine_tuning(tmp_path, backbone_weights="imagenet")) == "imagenet"
    assert _initial_weights(fine_tuning(tmp_path, weights="run", backbone_weights="imagenet")) == "run"


def _killed() -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def _wrong() -> None:
    raise SearchError("what is wrong")


@pytest.mark.long
def test_measuring_in_a_process_of_its_own() -> None:
    assert in_process(max, 3, 4) == 4
    with pytest.raises(SearchError, match="what is wrong"):
        in_process(_wrong)
    with pytest.raises(SearchError, match="too little memory"):
        in_process(_killed)
