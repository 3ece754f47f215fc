"""Early stopping: what the rules stop, and that trials depend neither on the workers nor on interruptions."""

from __future__ import annotations

import csv
import json
import random
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_search import SPACE, Learner, comparable, plain_value, quick_check, with_curve

from nasdsl.search import Objective, SearchError, SearchRun, StoppingRule, Trial, Trials, load_trials, search
from nasdsl.search.early_stopping import LossCurve, LossStatistics, loss_weight, read_curve, should_stop
from nasdsl.search.evaluation import MAX_MESSAGE, EvaluationResult, run_evaluation
from nasdsl.search.journal import read_journal
from nasdsl.spaces import Filled
from nasdsl.training.proxy import DeviceLost

RULES = [StoppingRule("median", warmup=3), StoppingRule("quantile", 0.7, 3), StoppingRule("quantile", 0.25, 1)]
HALVING = [StoppingRule("halving", warmup=1), StoppingRule("halving", warmup=2, reduction_factor=3, min_resource=12)]


def curve_of(*losses: float, finished: bool = True) -> LossCurve:
    return LossCurve({10 * (i + 1): loss for i, loss in enumerate(losses)}, finished)


@pytest.mark.parametrize(
    "text",
    ["median:20", "median:3", "quantile:0.7:20", "quantile:0.25:1", "halving:2:20", "halving:4:1", "halving:3:5:12"],
)
def test_rules_print_as_they_are_read(text: str) -> None:
    assert str(StoppingRule.parse(text)) == text


def test_short_forms() -> None:
    assert StoppingRule.parse("none") is None
    assert StoppingRule.parse("median") == StoppingRule("median", 0.5, 20)
    assert StoppingRule.parse("quantile:0.7") == StoppingRule("quantile", 0.7, 20)
    assert StoppingRule.parse("halving") == StoppingRule("halving", warmup=20, reduction_factor=2)
    assert StoppingRule.parse("halving:3") == StoppingRule("halving", warmup=20, reduction_factor=3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "expected none, median"),
        ("Median", "expected none, median"),
        ("quantile", "expected none, median"),
        ("quantile:0.5.5", "expected none, median"),
        ("median:-3", "expected none, median"),
        ("median:0.5", "expected none, median"),
        ("quantile:1", "above 0 and below 1"),
        ("quantile:0", "above 0 and below 1"),
        ("median:0", "expected 1 or more"),
        ("median:3:4", "expected none, median"),
        ("quantile:0.5:3:4", "expected none, median"),
        ("halving:1", "reduction factor of halving is 1; expected 2 or more"),
        ("halving:2.5", "expected none, median"),
        ("halving:2:0", "expected 1 or more"),
        ("halving:2:1:0", "first rung of halving is at step 0"),
    ],
)
def test_invalid_rules(text: str, says: str) -> None:
    with pytest.raises(SearchError, match=says):
        StoppingRule.parse(text)


def test_the_median_rule_by_hand() -> None:
    """Medians of the means up to each step of those that were finished; a sample's lowest loss is held against them."""
    samples = [curve_of(8, 4), curve_of(6, 2), curve_of(9, 9), curve_of(1.0, finished=False)]
    assert StoppingRule("median", warmup=4).thresholds(LossStatistics(samples)) == {}
    thresholds = StoppingRule("median", warmup=3).thresholds(LossStatistics(samples))
    assert thresholds == {10: 8, 20: 6}
    assert should_stop({10: 8.1}, thresholds, 10)
    assert not should_stop({10: 8.0}, thresholds, 10)  # strictly worse only
    assert not should_stop({10: 6.0, 20: 7.0}, thresholds, 20)  # it was better once
    assert should_stop({10: 7.0, 20: 6.1}, thresholds, 20)
    assert not should_stop({10: 7.0, 15: 6.5}, thresholds, 15)  # no threshold there


def test_the_quantile_rule_by_hand() -> None:
    """Of what all had by each step, the lowest that so many are at or below; those stopped before are above every other."""
    samples = [curve_of(5, 4), curve_of(6, 6.5), curve_of(7, finished=False), curve_of(3, 5)]
    rule = StoppingRule("quantile", 0.5, 3)
    assert rule.thresholds(LossStatistics(samples)) == {10: 5, 20: 4}
    assert StoppingRule("quantile", 0.75, 3).thresholds(LossStatistics(samples)) == {10: 6, 20: 6}
    assert StoppingRule("quantile", 0.8, 3).thresholds(LossStatistics(samples)) == {10: 7}  # at 20, nobody is to be stopped
    assert StoppingRule("quantile", 0.5, 4).thresholds(LossStatistics(samples)) == {}
    numbers = np.random.default_rng(0).random(37)
    for level in (0.1, 0.5, 0.9):
        threshold = StoppingRule("quantile", level, 1).thresholds(LossStatistics(curve_of(x) for x in numbers))[10]
        assert threshold == np.quantile(numbers, level, method="inverted_cdf")


def test_halving_by_hand() -> None:
    """Of those that have come to a rung, the next one included, the best half go on."""
    samples = [curve_of(5, 4, 1), curve_of(6, finished=False), curve_of(3, 5, 2), curve_of(4, 4.5, 3)]
    thresholds = StoppingRule("halving", warmup=3).thresholds(LossStatistics(samples))
    assert thresholds == {10: 4, 20: 4}  # five and four have come: the best two go on; step 30 is no rung
    assert StoppingRule("halving", warmup=4).thresholds(LossStatistics(samples)) == {}
    assert StoppingRule("halving", warmup=3, reduction_factor=3).thresholds(LossStatistics(samples)) == {10: 3, 30: 1}
    assert set(StoppingRule("halving", warmup=3, min_resource=12).thresholds(LossStatistics(samples))) == {20, 30}
    assert StoppingRule("halving", warmup=1, min_resource=31).thresholds(LossStatistics(samples)) == {}
    assert StoppingRule("halving", warmup=1).thresholds(LossStatistics([curve_of(), curve_of()])) == {}  # they have no losses
    assert StoppingRule("halving", warmup=1).thresholds(LossStatistics([LossCurve({0: 3.0, 1: 2.0}, True)])) == {1: 2.0}


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("first", [None, 20])
def test_halving_stops_what_optunas_pruner_stops(factor: int, first: int | None) -> None:
    """Of falling losses, after a trial that begins with the lowest one of all and is evaluated to its end."""
    optuna = pytest.importorskip("optuna", reason="Optuna is not installed (pip install 'nasdsl[optuna]')")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first or 10, reduction_factor=factor)
    study = optuna.create_study(pruner=pruner, sampler=optuna.samplers.RandomSampler(seed=0))
    rule, samples = StoppingRule("halving", 0.5, 1, factor, first), LossStatistics()
    rng, stopped = random.Random(factor), 0
    for number in range(150):
        trial, curve, final = study.ask(), dict[int, float](), rng.random() if number else 0.0
        thresholds, ours, theirs = rule.thresholds(samples), 0, 0
        for step in range(10, 100, 10):
            curve[step] = final + 20 / step + rng.random() / step
            trial.report(curve[step], step)
            ours, theirs = step * should_stop(curve, thresholds, step), step * trial.should_prune()
            assert ours == theirs
            if ours:
                break
        stopped += bool(ours)
        study.tell(trial, state=optuna.trial.TrialState.PRUNED if ours else None, values=None if ours else curve[90])
        samples.add(LossCurve(curve, not ours))
    assert stopped > 150 * (1 - 1 / factor) * 0.8


def test_checks_of_halving() -> None:
    assert StoppingRule("halving", min_resource=8).checks(60) == (8, 16, 32)
    assert StoppingRule("halving", reduction_factor=4, min_resource=15).checks(60) == (15,)  # the end is no rung
    assert StoppingRule("halving").checks(60) is StoppingRule("median").checks(60) is None
    with pytest.raises(SearchError, match="first rung of halving:2:20:60 is at step 60, and an evaluation has 60 steps"):
        StoppingRule("halving", min_resource=60).checks(60)


@pytest.mark.parametrize("rule", [*RULES, *HALVING], ids=str)
def test_the_best_so_far_is_never_stopped(rule: StoppingRule) -> None:
    """Also if losses rise, or curves cross."""
    rng = random.Random(5)
    for _ in range(200):
        samples = [curve_of(*(rng.uniform(0, 9) for _ in range(3))) for _ in range(rng.randrange(3, 9))]
        thresholds = rule.thresholds(LossStatistics(samples))
        assert thresholds if rule.kind == "halving" else set(thresholds) == {10, 20, 30}
        curve: dict[int, float] = {}
        for step in (10, 20, 30):
            curve[step] = rng.uniform(0, 9)
            best = min(loss for sample in samples for at, loss in sample.losses.items() if at <= step)
            assert not (min(curve.values()) < best and should_stop(curve, thresholds, step))


def stopped_of(rule: StoppingRule, count: int, seed: int) -> list[int]:
    """Numbers of those that are stopped, of samples without any trend."""
    rng, samples, stopped = random.Random(seed), LossStatistics(), list[int]()
    for number in range(count):
        final = rng.random()
        thresholds, curve = rule.thresholds(samples), dict[int, float]()
        for step in (10, 20, 30):
            curve[step] = final + 20 / step + rng.gauss(0, 0.05)
            if should_stop(curve, thresholds, step):
                stopped.append(number)
                break
        samples.add(LossCurve(curve, number not in stopped))
    return stopped


@pytest.mark.parametrize("level", [0.5, 0.7, 0.9])
def test_a_quantile_keeps_its_share_however_long_the_search_is(level: float) -> None:
    shares = []
    for seed in range(3):
        stopped = stopped_of(StoppingRule("quantile", level, 20), 420, seed)
        assert min(stopped) >= 20
        shares += [sum(20 <= n < 220 for n in stopped) / 200, sum(n >= 220 for n in stopped) / 200]
    assert statistics.fmean(shares) == pytest.approx(1 - level, abs=0.05)
    assert max(shares) - min(shares) < 0.2


def test_costs_raise_or_lower_the_threshold() -> None:
    """The losses compare as the scores do."""
    objective = Objective.parse("macs:100:-0.5")
    cheap, dear = {"macs": 25}, {"macs": 400}
    assert (loss_weight(objective, cheap), loss_weight(objective, dear)) == (0.5, 2)
    trials = [Trial(n, Filled("", ()), "", "ok", -1, 1, {"curve": {"10": 3.0}}, dear) for n in range(3)]
    samples = [found for trial in trials if (found := LossCurve.from_trial(trial, objective)) is not None]
    thresholds = {
        name: RULES[1].thresholds(LossStatistics(samples), loss_weight(objective, figures))
        for name, figures in (("c", cheap), ("d", dear))
    }
    assert thresholds == {"c": {10: 12}, "d": {10: 3}}
    for loss, figures, name in ((11.9, cheap, "c"), (12.1, cheap, "c"), (2.9, dear, "d"), (3.1, dear, "d")):
        worse = objective.score(-loss, figures) < objective.score(-3.0, dear)
        assert should_stop({10: loss}, thresholds[name], 10) == worse


def test_a_sample_without_the_costs_of_the_objective_has_no_curve_to_compare() -> None:
    trial = Trial(0, Filled("", ()), "", "stopped", None, None, {"curve": {"10": 3.0}}, {"params": 4})
    assert LossCurve.from_trial(trial, Objective.parse("macs:100")) is None
    assert LossCurve.from_trial(trial, Objective.parse("params:4")) == LossCurve({10: 3.0}, False)


# ------------------------------------------------------------------------------------------------------------- evaluations


def test_what_an_evaluation_gives_that_was_given_up() -> None:
    for given in (
        EvaluationResult(None, {"stopped_at": 3, "curve": {3: 1.5}}),
        {"reward": None, "stopped_at": 3, "curve": {"3": 1.5}},
    ):
        outcome = run_evaluation(lambda text, given=given: given, "")
        assert (outcome.verdict, outcome.reward, outcome.retry) == ("stopped", None, False)
        assert outcome.details == {"stopped_at": 3, "curve": {"3": 1.5}}
    for given in (EvaluationResult(None), {"reward": None, "stopped_at": None}, None):
        assert run_evaluation(lambda text, given=given: given, "").retry


def test_a_lost_device_is_not_the_fault_of_the_text() -> None:
    """The worker is ended, and another tries."""

    def lose(text: str) -> float:
        raise DeviceLost("CUDA error")

    outcome = run_evaluation(lose, "")
    assert (outcome.verdict, outcome.retry) == ("failed: DeviceLost: CUDA error", True)


def test_long_error_messages_are_cut() -> None:
    def fail(text: str) -> float:
        raise RuntimeError("x" * 10**6)

    outcome = run_evaluation(fail, "")
    assert len(json.dumps(outcome.details)) < 2.5 * MAX_MESSAGE
    assert len(outcome.verdict) < 200


def test_evaluate_is_called_with_thresholds_only_if_there_are_any() -> None:
    assert run_evaluation(plain_value, "a", {}).verdict == "ok"
    assert run_evaluation(plain_value, "a").verdict == "ok"
    assert run_evaluation(plain_value, "a", {3: 1.0}).verdict.startswith("failed: TypeError")


# ------------------------------------------------------------------------------------------------------------- searches


class RecordsRewards(Learner):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.rewards: list[float | None] = []

    def observe(self, text: Filled, reward: float | None) -> None:
        self.rewards.append(reward)
        super().observe(text, reward)


def run(out: Path | None = None, **options: Any) -> Trials:
    given = {"strategy": Learner(SPACE), "batch": 4, "check": quick_check, "stopping": "quantile:0.6:8", "quiet": True}
    return search(SPACE, with_curve, **{**given, "trials": 80, "out": out, **options})


def thresholds_of(trials: Trials) -> list[Any]:
    return [dict(trial.thresholds) for trial in trials]


def test_a_search_that_stops_early(out: Path) -> None:
    strategy = RecordsRewards(SPACE)
    trials = run(out, strategy=strategy)
    counts = trials.counts
    assert counts["stopped"] > 5
    assert counts["failed"] == 0
    assert sum(counts.values()) == 80
    assert sum(t.verdict in ("ok", "stopped") for t in trials[:8]) > 4
    assert not any(trial.thresholds for trial in trials[:8])
    for trial, reward in zip(trials, strategy.rewards, strict=True):
        assert trial.score == reward
        if trial.verdict == "stopped":
            assert (trial.reward, trial.score, trial.evaluated) == (None, None, True)
            curve = {int(step): loss for step, loss in trial.details["curve"].items()}
            last = trial.details["stopped_at"]
            assert max(curve) == last
            assert min(curve.values()) > trial.thresholds[last]
        if trial.verdict in ("ok", "stopped"):  # what the journal says is what the evaluation was given
            assert trial.details["thresholds"] == {str(step): loss for step, loss in trial.thresholds.items()}
        if trial.verdict == "duplicate":
            original = trials[trial.duplicate_of]
            assert (trial.reward, trial.score) == (original.reward, original.score)
    again = [t for t in trials if t.verdict == "duplicate" and trials[t.duplicate_of].verdict == "stopped"]
    assert again
    assert not any(t.thresholds for t in again)
    rows = list(csv.DictReader(SearchRun(out).trials.read_text().splitlines()))
    assert [row["verdict"] for row in rows] == [t.verdict for t in trials]
    assert trials.best is max(trials.ok, key=lambda t: t.score)


def test_thresholds_do_not_depend_on_the_workers() -> None:
    here = run()
    assert here.counts["stopped"] > 5
    there = run(workers="process:2")
    assert comparable(there) == comparable(here)
    assert thresholds_of(there) == thresholds_of(here)


def test_thresholds_are_the_same_after_an_interruption(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", batch=6)
    left = iter([1] * 41 + [0])

    def breaks(text: Filled) -> Any:
        return (1 / next(left), quick_check(text))[1]

    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "part", batch=6, check=breaks)
    records = read_journal(SearchRun(tmp_path / "part").journal)[0]
    done = {r["number"] for r in records if r["kind"] == "result"}
    assert any("bars" in r and r["number"] not in done for r in records)  # some are to be handed out again
    resumed = run(tmp_path / "part", batch=6, resume=True)
    assert comparable(resumed) == comparable(whole)
    assert thresholds_of(resumed) == thresholds_of(whole)
    assert thresholds_of(load_trials(tmp_path / "part")) == thresholds_of(whole)


def test_a_search_without_a_rule_stops_nothing(out: Path) -> None:
    for none in (None, "none"):
        trials = run(stopping=none)
        assert trials.counts["stopped"] == 0
        assert not any(trial.thresholds for trial in trials)
        assert trials.start["stopping"] is None


@pytest.mark.parametrize("curve", [{"first": 1.0}, {"1.5": 1.0}, {"10": "low"}, {"10": None}, [1.0, 2.0], 3.0])
def test_details_that_are_no_curve_do_not_end_the_search(curve: object, out: Path) -> None:
    """Neither the search nor, as its journal has the details, its resume."""
    assert read_curve({"curve": curve}) == {}

    def evaluate(text: str) -> dict[str, Any]:
        return {"reward": plain_value(text), "curve": curve}

    for resume in (False, True):
        trials = search(
            SPACE, evaluate, Learner(SPACE), 12 if resume else 6, out=out, resume=resume, stopping="median:3",
            check=quick_check, quiet=True,
        )  # fmt: skip
        assert trials.counts["ok"] == len(trials) - trials.counts["rejected"] - trials.counts["duplicate"]


def test_an_evaluation_without_curves_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    trials = search(SPACE, plain_value, Learner(SPACE), 30, stopping="median:3", check=quick_check)
    assert trials.counts["ok"] > 15
    assert trials.counts["failed"] == 0
    assert capsys.readouterr().err.count("early stopping (median:3) stops nothing: the evaluation reports no curve") == 1


def test_invalid_arguments() -> None:
    with pytest.raises(SearchError, match="expected none, median"):
        run(stopping="soon")
    with pytest.raises(SearchError, match="weighs latency"):
        run(objective="latency:10ms")


def test_a_search_is_resumed_with_the_same_task_and_rule_only(out: Path) -> None:
    task = {"data": "a", "iterations": 30, "levels": ("c3", "c4"), "fpn": None}
    run(out, trials=5, task=task)
    run(out, trials=6, task=task, resume=True)
    with pytest.raises(SearchError) as raised:
        run(out, trials=9, task={**task, "iterations": 40, "fpn": "x", "size": 3}, resume=True, stopping="median:8")
    assert str(raised.value).splitlines()[1:] == [
        '  stopping was "quantile:0.6:8", is "median:8"',
        "  task.iterations was 30, is 40",
        '  task.fpn was null, is "x"',
        "  task.size was null, is 3",
    ]
    with pytest.raises(SearchError, match=r"task was \{.*is null"):
        run(out, trials=9, resume=True)


def test_a_journal_from_before_there_were_rules_can_be_resumed(out: Path) -> None:
    run(out, trials=5, stopping=None)
    journal = SearchRun(out).journal
    first, rest = journal.read_text().split("\n", 1)
    start = json.loads(first)
    del start["stopping"], start["task"]
    journal.write_text(json.dumps(start) + "\n" + rest)
    assert len(run(out, trials=9, stopping=None, resume=True)) == 9
    with pytest.raises(SearchError, match="stopping was null, is"):
        run(out, trials=10, resume=True)
