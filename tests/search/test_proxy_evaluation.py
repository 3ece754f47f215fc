"""Evaluation on the proxy task."""

from __future__ import annotations

import json
import math
import pickle
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training" / "proxy"))

from proxy_tools import small_spec, text
from small_search import Learner

from nasdsl.search import FpnError, ProxyEvaluation, SearchError, SearchRun, search
from nasdsl.search.journal import read_journal
from nasdsl.spaces import loads_space
from nasdsl.training.proxy import DeviceLost, ProxyError, ProxySpec, ProxyTask

HOLES = text("?(conv_1x1 | conv_3x3) -> ?(skip | conv_3x3 | conv_1x1)")
SPACE = loads_space(HOLES, backbone="tiny", classes=3)


def spec(**settings: Any) -> ProxySpec:
    return small_spec(**{"iterations": 8, **settings})


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Features that are made once for all tests here."""
    folder = str(tmp_path_factory.mktemp("cache"))
    ProxyEvaluation(spec(cache=folder), quiet=True).prepare(keep=False)
    return folder


@pytest.fixture(scope="module")
def evaluation(cache: str) -> ProxyEvaluation:
    return ProxyEvaluation(spec(cache=cache), quiet=True)


def test_the_result_is_that_of_the_task_with_the_curve(evaluation: ProxyEvaluation) -> None:
    losses: list[float] = []
    scored = ProxyTask(evaluation.spec, quiet=True)(text(), lambda step, loss: losses.append(loss))
    found = evaluation(text())
    assert (found.reward, found.details["losses"]) == (scored.reward, scored.losses)
    assert found.details.keys() >= {*scored.details, "curve"}
    assert evaluation.steps == (2, 4, 6)
    assert found.details["curve"] == {str(step): losses[step - 1] for step in evaluation.steps}  # 10 % of 8 is one step
    assert "latency" not in found.details


def test_the_curve_is_the_mean_of_the_last_tenth(cache: str) -> None:
    evaluation = ProxyEvaluation(spec(cache=cache, iterations=24), checks=(0.01, 0.5), quiet=True)
    losses: list[float] = []
    ProxyTask(evaluation.spec, quiet=True)(text(), lambda step, loss: losses.append(loss))
    assert evaluation.steps == (1, 12)
    expected = {"1": losses[0], "12": statistics.fmean(losses[9:12])}
    assert evaluation(text()).details["curve"] == pytest.approx(expected)


def test_the_training_stops_where_its_lowest_loss_is_above_the_threshold(evaluation: ProxyEvaluation) -> None:
    whole = evaluation(text())
    curve = {int(step): loss for step, loss in whole.details["curve"].items()}
    kept = evaluation(text(), {step: min(v for s, v in curve.items() if s <= step) for step in curve})
    assert (kept.reward, kept.details["curve"]) == (whole.reward, whole.details["curve"])
    stopped = evaluation(text(), {2: curve[2] + 1, 4: min(curve[2], curve[4]) - 1e-6, 6: 100.0})
    assert stopped.reward is None
    assert stopped.details["stopped_at"] == 4
    assert stopped.details["curve"] == {step: whole.details["curve"][step] for step in ("2", "4")}


def test_identity_is_what_rewards_depend_on(evaluation: ProxyEvaluation) -> None:
    same = replace(evaluation.spec, cache="elsewhere", memory_limit=5, device="auto")
    assert ProxyEvaluation(same).identity == evaluation.identity
    for name, value in {"iterations": 9, "reward": "ap", "fpn": text(), "data": "shapes:9", "dtype": "float16"}.items():
        other = ProxyEvaluation(replace(evaluation.spec, **{name: value})).identity
        assert {key for key in other if other[key] != evaluation.identity[key]} >= {name}
    assert ProxyEvaluation(evaluation.spec, (96, 128)).identity["latency"] == [96, 128]


def test_features_are_not_pickled(evaluation: ProxyEvaluation) -> None:
    evaluation(text())
    assert len(pickle.dumps(evaluation)) < 3000
    copy = pickle.loads(pickle.dumps(evaluation))
    assert copy.identity == evaluation.identity
    assert copy(text()).reward == evaluation(text()).reward
    assert (copy._get_task().features.mapped, evaluation._get_task().features.mapped) == (True, False)


def test_latency_is_measured_on_request(cache: str) -> None:
    seconds = {}
    for size in ((96, 96), (768, 1024)):
        found = ProxyEvaluation(spec(cache=cache, iterations=2), size, quiet=True)(text())
        assert math.isfinite(found.reward or math.nan)
        seconds[size] = found.details["latency"]
    assert 0 < seconds[96, 96] < seconds[768, 1024] < 10


def test_invalid_arguments() -> None:
    with pytest.raises(SearchError, match="height and width of 1 or more"):
        ProxyEvaluation(spec(), (0, 5))
    with pytest.raises(SearchError, match="above 0 and below 1"):
        ProxyEvaluation(spec(), checks=(0.5, 1.0))
    assert ProxyEvaluation(spec(iterations=1)).steps == ()


def prepared(given: ProxySpec, capsys: pytest.CaptureFixture[str]) -> str:
    evaluation = ProxyEvaluation(given)
    evaluation.prepare(keep=False)
    assert evaluation._task is None
    return capsys.readouterr().err


def test_prepare_makes_everything_that_workers_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nasdsl.training.progress.LINE_EVERY", 0)
    second = spec(cache=str(tmp_path), fpn=text(), iterations=3)
    messages = prepared(second, capsys)
    for part in ("features of shapes:8 (train): 8/8", "training the fpn, steps: 3/3", "fpn outputs: 8/8"):
        assert part in messages
    monkeypatch.setattr("nasdsl.training.proxy.cache._compute_file", None)  # nothing is made a second time
    assert math.isfinite(ProxyEvaluation(second)(text("conv_1x1")).reward or math.nan)
    assert prepared(second, capsys) == ""


HUGE = """decoder huge {
  input c3, c4
  fpn(width=32, norm=none) { a = add(c3, c3); REPEAT output p3 = conv_1x1(a), p4 = conv_1x1(c4) }
  head(width=32, norm=gn) { conv_1x1 }
  predict fcos(centerness=cls)
}""".replace("REPEAT", "repeat 20 { a = add(a, a) };")
"""The maps of p3 are a million times those of c3, and a head with GroupNorm trains on them all the same."""


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"fpn": text(), "learning_rate": 1e30}, "the loss is not finite at step"),
        ({"fpn": HUGE, "dtype": "float16", "learning_rate": 1e-9}, "are not finite in float16"),
    ],
    ids=["diverges", "pyramid beyond float16"],
)
def test_an_fpn_that_cannot_be_used_is_named_as_the_cause(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    with pytest.raises(FpnError, match=f"the fpn cannot be trained: .*{reason}"):
        ProxyEvaluation(spec(cache=str(tmp_path), **settings), quiet=True).prepare()


def test_what_is_not_the_fault_of_the_fpn_is_raised_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost GPU, and a folder that cannot be written: another fpn would fail as well."""
    (tmp_path / "file").touch()
    with pytest.raises(ProxyError, match="cannot be kept in"):
        ProxyEvaluation(spec(cache=str(tmp_path / "file"), fpn=text()), quiet=True).prepare()

    def lose(*_: object, **__: object) -> None:
        raise DeviceLost("CUDA error")

    monkeypatch.setattr(ProxyTask, "__init__", lose)
    with pytest.raises(DeviceLost):
        ProxyEvaluation(spec(fpn=text()), quiet=True).prepare()


# ------------------------------------------------------------------------------------------------------------- a search


def journal_of(out: Path) -> list[dict[str, Any]]:
    """The records without times and workers."""
    left_out = ("time", "seconds", "worker", "workers", "batch", "attempts", "versions")
    clocks = ("data", "compute", "average", "validation", "seconds", "overhead")
    records = []
    for record in read_journal(SearchRun(out).journal)[0]:
        kept = {k: v for k, v in record.items() if k not in left_out}
        if "details" in kept:
            kept["details"] = {k: v for k, v in kept["details"].items() if k not in clocks}
        records.append(kept)
    return sorted(records, key=lambda r: (["start", "proposal", "result", "observed"].index(r["kind"]), r.get("number", 0)))


@pytest.mark.long
def test_a_search_on_the_proxy_task_and_the_same_journal_with_other_workers(
    evaluation: ProxyEvaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for workers in ("inline", "process:2"):
        trials = search(
            SPACE, evaluation, Learner(SPACE), 14, out=tmp_path / workers, workers=workers, batch=4,
            stopping="quantile:0.5:2", task=evaluation.identity, quiet=True,
        )  # fmt: skip
        counts = trials.counts
        assert counts["stopped"] > 0
        assert counts["failed"] == counts["diverged"] == 0
        assert all(t.reward is not None and t.reward < 0 for t in trials.ok)
    assert journal_of(tmp_path / "process:2") == journal_of(tmp_path / "inline")


def test_verdicts_of_failures(cache: str, tmp_path: Path) -> None:
    """Levels that are not cached, and losses that explode: no reward, and the search goes on."""
    unread = ProxyEvaluation(spec(cache=cache, levels=("c4", "c5")), quiet=True)
    exploding = ProxyEvaluation(spec(cache=cache, learning_rate=1e15), quiet=True)
    for evaluation, verdict in ((unread, "failed: ProxyError: the decoder reads c3"), (exploding, "diverged")):
        trials = search(SPACE, evaluation, Learner(SPACE), 3, out=tmp_path / verdict[:4], quiet=True)
        for trial in trials:
            if trial.verdict != "duplicate":
                assert trial.verdict.startswith(verdict)
            assert (trial.reward, trial.score) == (None, None)
        assert ("traceback" in trials[0].details) == (verdict != "diverged")


def test_retinanet_spaces_can_be_searched(cache: str) -> None:
    space = loads_space(HOLES.replace("fcos(centerness=cls)", "retinanet(anchors=3)"), backbone="tiny", classes=3)
    trial = search(space, ProxyEvaluation(spec(cache=cache), quiet=True), Learner(space), 1, quiet=True)[0]
    assert trial.verdict == "ok"
    assert list(trial.details["losses"]) == ["classification", "bbox_regression"]
    assert len(trial.details["curve"]) == 3


def test_settings_make_the_same_evaluation_elsewhere(evaluation: ProxyEvaluation, tmp_path: Path) -> None:
    evaluation.prepare()
    settings = json.loads(json.dumps(evaluation.settings()))
    copy = ProxyEvaluation.from_settings(settings)
    assert copy.identity == evaluation.identity
    assert (copy(text()).reward, copy.steps) == (evaluation(text()).reward, evaluation.steps)
    assert copy.spec.memory_limit == 0
    moved = ProxyEvaluation.from_settings(settings, {"cache": str(tmp_path), "device": "cpu"})
    assert moved(text()).reward == evaluation(text()).reward
    (features,) = tmp_path.iterdir()
    assert (Path(str(evaluation.spec.cache)) / features.name).is_dir()
    with pytest.raises(
        SearchError, match=r"the images or the weights .* are not those of the search: shapes:9 \(split train\)"
    ):
        ProxyEvaluation.from_settings(settings, {"data": "shapes:9", "cache": str(tmp_path)})
    with pytest.raises(SearchError, match="the versions of nasdsl differ"):
        ProxyEvaluation.from_settings({**settings, "identity": {**settings["identity"], "window": 7}})
