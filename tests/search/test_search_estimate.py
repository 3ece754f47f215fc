"""What a search will take: the arithmetic from measured parts to hours, disk and memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from small_spaces import FPN_SPACE, HEAD_SPACE

from nasdsl.data import open_dataset
from nasdsl.search.detectors import detector_key, proxy_specs
from nasdsl.search.errors import SearchError
from nasdsl.search.estimate import SAMPLES, Measured, Search, _run_jobs, _samples, add_up, at_once, in_process
from nasdsl.search.full_training import FullTraining
from nasdsl.search.stages import SearchSettings, Stage
from nasdsl.search.supernet.spec import SupernetSpec
from nasdsl.spaces import loads_space
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
