"""Searches with several aims: what the strategy observes, the front, the best, files, resuming; and budgets."""

from __future__ import annotations

import csv
import os
import random
import re
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from small_search import SPACE, Learner, LoggedEvaluation, comparable, logged, quick_check, value, with_curve

from nasdsl.decoder import loads
from nasdsl.search import SearchError, load_trials, search
from nasdsl.search.budget import Budget, BudgetedSpace, parse_budgets
from nasdsl.search.check import CheckResult, make_check
from nasdsl.search.costs import DetectorCosts
from nasdsl.search.early_stopping import StoppingRule
from nasdsl.search.early_stopping_replay import replay_rule
from nasdsl.search.errors import BudgetError
from nasdsl.search.latency_budget import _Report, predictor_for, with_required
from nasdsl.search.objective import Objective
from nasdsl.search.pareto import front_of
from nasdsl.search.run import load_history
from nasdsl.search.stages import SearchSettings
from nasdsl.search.strategies import make_strategy
from nasdsl.search.strategies.mutation import draw_uniform
from nasdsl.search.strategies.strategy import Aims
from nasdsl.spaces import Filled, Space, SpaceError, loads_space

SIZE = (96, 128)
COSTS = DetectorCosts(SPACE, SIZE)
BACKBONE = COSTS.backbone["macs"]


def macs(indices: tuple[int, ...]) -> float:
    costs = COSTS(indices)
    return float("inf") if costs is None else costs["macs"]


@cache
def share(part: float) -> float:
    """The budget of MACs that a share of the space's uniform fillings keep."""
    rng = random.Random(0)
    drawn = sorted(macs(draw_uniform(SPACE, rng)) for _ in range(1000))
    return drawn[int(part * 1000)]


def run(name: str | Any, trials: int = 30, **more: Any) -> Any:
    options = {"nsga2": {"population": 8}, "bayes": {"initial": 6, "candidates": 20, "climbs": 1}}.get(name, {})
    given = {"objective": "reward,macs", "size": SIZE, "options": options, "quiet": True}
    return search(SPACE, value, name, trials, **{**given, **more})


# ------------------------------------------------------------------------------------------------- known costs


def test_costs_are_those_of_the_size_and_backbone_that_a_text_names() -> None:
    space = loads_space(SPACE.source.text, classes=3).with_detector([(64, 96), (128, 160)], ["resnet50", "mobilenet_v2"])
    check, costs = make_check(space, SIZE), DetectorCosts(space, SIZE)
    seen = set()
    for text in space.samples(12, seed=1):
        figures, decoder = check(text).figures, loads(str(text))
        assert costs(text.indices) == {"macs": figures["macs_total"], "params": figures["params_total"]}
        seen.add((decoder.size, decoder.backbone))
    assert len(seen) == 4
    alone = [loads(str(text)).cost(classes=3).backbone.macs for text in space.samples(12, seed=1)]
    assert costs.backbone["macs"] == min(alone)


def test_a_budget_of_latency_is_predicted_and_keeps_its_table_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictors = []

    class Predictor:
        def __init__(self, *given: Any, **named: Any) -> None:
            predictors.append((given, named))

        def __call__(self, text: str) -> float:
            return 1000 * loads(text).cost(SIZE, "mobilenet_v2", 3).fpn.macs / 1e9

    monkeypatch.setattr("nasdsl.latency.LatencyPredictor", Predictor)
    mine = tmp_path / "mine.json"
    mine.write_text("{}")
    monkeypatch.setattr("nasdsl.latency.table.default_path", lambda: mine)
    space = loads_space(SPACE.source.text, classes=3, backbone="mobilenet_v2")
    budgets = parse_budgets(["latency:15ms@openvino"])
    predict = predictor_for(budgets, space, SIZE, tmp_path / "run")
    assert predict is not None
    text = space.sample(0)
    assert predict(str(text)) == loads(str(text)).cost(SIZE, "mobilenet_v2", 3).fpn.macs / 1e9  # seconds
    assert predictors[0][0] == ("openvino", 1, "mobilenet_v2", SIZE, 3)
    assert predictors[0][1]["table"] == tmp_path / "run" / "latency.json"
    assert (tmp_path / "run" / "latency.json").read_text() == "{}"
    mine.unlink()
    assert predictor_for(budgets, space, SIZE, tmp_path / "without a table") is not None
    assert not (tmp_path / "without a table").exists()
    assert predictor_for(parse_budgets(["macs:2G"]), space, SIZE, tmp_path / "other") is None


@pytest.mark.parametrize(
    ("required", "given", "expected"),
    [
        ("latency <= 15ms", (), "latency:0.015"),
        ("latency < 0.02s on openvino", (), "latency:0.02@openvino"),
        ("latency <= 15ms on openvino at 64x96", ("macs:2G",), "macs:2000000000 latency:0.015@openvino"),
        ("latency <= 15ms", ("latency:10ms@openvino",), "latency:0.01@openvino"),
        ("latency <= 5ms on onnxruntime", ("latency:10ms",), "latency:0.005@onnxruntime"),
        ("macs <= 2G", ("latency:10ms",), "latency:0.01"),
    ],
)
def test_a_required_latency_is_a_budget(required: str, given: tuple[str, ...], expected: str) -> None:
    space = loads_space(SPACE.source.text.replace("input c3", f"require {required}\n  input c3"))
    assert " ".join(map(str, with_required(parse_budgets(given), space, (64, 96)))) == expected


@pytest.mark.parametrize(
    ("required", "given", "match"),
    [
        ("latency <= 15ms at 64x64", (), "`require latency <= 15ms at 64x64`, but the search is at 64x96"),
        ("latency <= 15ms on openvino", ("latency:10ms",), "a budget of latency on onnxruntime; expected one runtime"),
    ],
)
def test_a_required_latency_that_does_not_go_with_a_search(required: str, given: tuple[str, ...], match: str) -> None:
    space = loads_space(SPACE.source.text.replace("input c3", f"require {required}\n  input c3"))
    with pytest.raises(BudgetError, match=match):
        with_required(parse_budgets(given), space, (64, 96))


def test_costs_of_fillings_are_those_of_the_check() -> None:
    """Counted without building the decoder, for spaces with and without requirements of their own."""
    bounded = loads_space(SPACE.source.text.replace("input c3", "require macs <= 2G at 256x256\n  input c3"), classes=3)
    for space in (SPACE, bounded):
        check, costs = make_check(space, SIZE), DetectorCosts(space, SIZE)
        for text in space.samples(5, seed=2):
            figures = check(text).figures
            assert costs(text.indices) == {"macs": figures["macs_total"], "params": figures["params_total"]}
            table = loads(str(text)).cost(SIZE, space.backbone.name, space.classes)
            assert figures["macs_total"] == table.backbone.macs + table.fpn.macs + table.head.macs
            assert figures["params_total"] == table.total.params > figures["params"] == table.decoder.params


def test_a_predicted_latency_is_a_known_cost(tmp_path: Path) -> None:
    asked: list[str] = []

    def predict(text: str) -> float:
        asked.append(text)
        return len(text) / 1e5

    trials = run(
        "nsga2", 12, objective="reward,latency", budgets=["latency:10ms@onnxruntime"], latency=predict, out=tmp_path / "run"
    )
    with open(tmp_path / "run" / "trials.csv", newline="") as file:
        written = [float(row["latency_total"]) for row in csv.DictReader(file)]
    assert written == [trial.figures["latency_total"] for trial in trials]
    assert re.search(r"predicted [\d.]+ ms", (tmp_path / "run" / "best.nas").read_text())
    assert all(trial.figures["latency_total"] == len(trial.text) / 1e5 for trial in trials)
    assert len(asked) == len(set(asked))
    assert trials.front() == sorted(trials.front(), key=lambda trial: len(trial.text))
    with pytest.raises(
        BudgetError, match="latency is not known before an evaluation here; expected a budget of macs or params"
    ):
        run("nsga2", 12, budgets=["latency:10ms"])


def test_a_budget_of_a_cost_that_own_costs_lack() -> None:
    with pytest.raises(
        BudgetError, match=r"^the budget is macs:\d+, and the costs .* do not have macs; expected a budget of params$"
    ):
        run("random", 2, budgets=["macs:2G"], costs=lambda indices: {"params": 3.0})


# ------------------------------------------------------------------------------------------------------- fronts


def test_several_aims_are_read_and_written() -> None:
    objective = Objective.parse("reward, macs,params")
    assert objective.aims == ("macs", "params")
    assert str(objective) == "reward,macs,params"
    assert Objective.parse("macs,reward").aims == ("macs",)
    assert objective.score(-1.5, {}) == -1.5
    assert Objective.parse("reward,latency").needs_latency


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("reward,speed", "unknown aim 'speed'; expected reward with one or two of macs, params, latency"),
        ("reward,macs,macs", "macs is named twice"),
        ("reward,reward,macs", "reward is named twice"),
        ("reward,macs,params,latency", "expected at most 2 costs: limit another by --budget"),
        ("reward,macs:2G", "reward,macs for the front, or macs:2G to weigh the reward, or --budget"),
        ("macs", "or reward,macs for the front of both"),
    ],
)
def test_aims_that_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises(SearchError, match=says):
        Objective.parse(text)


def test_the_front_the_best_and_the_files(tmp_path: Path) -> None:
    trials = run("random", 60, objective="reward,macs,params", out=tmp_path / "run")
    points = {t.number: (-t.reward, t.figures["macs_total"], t.figures["params_total"]) for t in trials.ok}
    numbers = list(points)
    expected = {numbers[place] for place in front_of([points[number] for number in numbers])}
    front = trials.front()
    assert {trial.number for trial in front} == expected
    assert len(front) > 3
    assert [trial.number for trial in trials.top(len(front))] != [trial.number for trial in front]
    assert {trial.number for trial in trials.top(len(front))} == expected
    assert trials.best == trials.top(1)[0]
    assert len(trials.top(1000)) == len(trials.ok)
    rows = list(csv.DictReader((tmp_path / "run" / "front.csv").read_text().splitlines()))
    assert [int(row["number"]) for row in rows] == [trial.number for trial in front]
    assert sorted(int(row["rank"]) for row in rows) == list(range(1, len(front) + 1))
    assert next(int(row["number"]) for row in rows if row["rank"] == "1") == trials.best.number
    assert [float(row["macs_total"]) for row in rows] == [trial.figures["macs_total"] for trial in front]
    assert f"# Trial {trials.best.number}:" in (tmp_path / "run" / "best.nas").read_text()
    assert not (run("random", 3, objective="reward", out=tmp_path / "one"), (tmp_path / "one" / "front.csv").exists())[1]


def test_the_best_of_two_aims_is_no_extreme_of_the_front() -> None:
    trials = run("random", 60)
    front = trials.front()
    assert len(front) > 2
    assert trials.best in front[1:-1]


class Recorder(Learner):
    """Keeps what it observes."""

    def __init__(self, space: Space, aims: Aims | None) -> None:
        super().__init__(space)
        self.aims, self.seen = aims, []

    def observe(self, text: Filled, reward: float | None, costs: Any = None) -> None:  # type: ignore[override]
        self.seen.append((text, reward, costs))


def rejected_failed_or_slow(text: str) -> Any:
    kind = int(value(text) * 1e6) % 4
    if kind == 0:
        raise RuntimeError("no such luck")
    return {"reward": float("nan") if kind == 1 else value(text), "latency": len(text) / 1e4}


def check_with_totals(text: Filled) -> CheckResult:
    found = quick_check(text)
    return CheckResult(found.digest, {**found.figures, "macs_total": found.figures["macs"] + 100})


def test_strategies_observe_rewards_and_costs_and_no_reward_of_what_failed() -> None:
    recorder = Recorder(SPACE, Aims(("macs", "latency"), lambda indices: {}))
    given = {"objective": "reward,macs,latency", "check": check_with_totals}
    trials = search(SPACE, rejected_failed_or_slow, recorder, 60, quiet=True, **given)  # type: ignore[arg-type]
    counts = trials.counts
    assert min(counts[kind] for kind in ("ok", "failed", "diverged", "rejected", "duplicate")) > 0
    for trial, (text, reward, costs) in zip(trials, recorder.seen, strict=True):
        assert text == trial.text
        assert reward == trial.score
        expected = {"macs": trial.figures.get("macs_total"), "latency": trial.details.get("latency")}
        assert costs == (None if reward is None else expected)
    assert all(trial.verdict == "ok" for trial in trials.front())


def test_a_cost_that_neither_check_nor_evaluation_gives_fails_the_sample() -> None:
    trials = search(SPACE, value, "random", 4, objective="reward,latency", check=quick_check, quiet=True)
    assert trials.counts["ok"] == 0
    assert any("the objective minimises latency, and neither the check nor" in trial.verdict for trial in trials)
    assert trials.best is None
    assert trials.front() == []
    assert [trials.point(trial) for trial in trials] == [None] * 4


def test_strategies_without_aims_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="'learner' was made without aims"):
        run(Learner(SPACE), options={})
    with pytest.raises(SearchError, match="for several aims expected one of bayes, nsga2, random"):
        run("ppo")
    with pytest.raises(SearchError, match="for several aims expected one of bayes, nsga2, random"):
        SearchSettings(objective="reward,macs", strategy="evolution", size=SIZE).check(SPACE, tmp_path)


def test_early_stopping_is_refused_because_cheap_decoders_may_have_high_losses(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"early stopping .* compares losses alone"):
        run("random", 4, stopping="median")
    search(SPACE, with_curve, "random", 4, objective="reward,macs", size=SIZE, out=tmp_path / "run", quiet=True)
    with pytest.raises(SearchError, match="compares losses alone"):
        replay_rule(load_history(tmp_path / "run"), StoppingRule.parse("median:2"), 30)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------- resuming


def kept(folder: Path, name: str, trials: int, log: Path | None = None, batch: int = 1) -> Any:
    evaluate: Any = value if log is None else LoggedEvaluation(log, 0.02)
    options = {"nsga2": {"population": 8}, "bayes": {"initial": 6, "candidates": 20, "climbs": 1}}[name]
    given = {"objective": "reward,macs", "budgets": [f"macs:{share(0.5)}"], "size": SIZE, "batch": batch, "options": options}
    return search(SPACE, evaluate, name, trials, out=folder, resume=True, quiet=True, **given)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("name", ["nsga2", pytest.param("bayes", marks=pytest.mark.long)])
def test_a_killed_and_resumed_search_is_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    share(0.5)
    kept(tmp_path / "whole", name, 20, tmp_path / "whole_log", 3)
    out, log = tmp_path / "run", tmp_path / "log"
    rng = random.Random(3)
    kills = 0
    while kills < 2:
        child = os.fork()
        if not child:
            try:
                signal.alarm(60)
                import nasdsl.search.loop

                nasdsl.search.loop.SAVE_EVERY = 0.05
                kept(out, name, 20, log, 3)
            finally:
                os._exit(0)
        deadline, goal = time.monotonic() + 20, len(logged(log, "end")) + 2 + rng.randrange(5)
        while len(logged(log, "end")) < goal and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
    kept(out, name, 20, log, 3)
    found = load_trials(out)
    assert comparable(found) == comparable(load_trials(tmp_path / "whole"))
    for file in ("front.csv", "best.nas", "pareto.json"):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.parametrize("lose_state", [False, True], ids=["loaded", "replayed"])
def test_more_trials_continue_where_the_first_ended(lose_state: bool, tmp_path: Path) -> None:
    kept(tmp_path / "whole", "bayes", 14)
    kept(tmp_path / "parts", "bayes", 9)
    if lose_state:
        (tmp_path / "parts" / "strategy.pt").unlink()
    kept(tmp_path / "parts", "bayes", 14)
    assert comparable(load_trials(tmp_path / "parts")) == comparable(load_trials(tmp_path / "whole"))


def test_budgets_and_aims_may_not_change(tmp_path: Path) -> None:
    kept(tmp_path, "nsga2", 5)
    with pytest.raises(SearchError, match=r"budgets was \[\"macs:[0-9]+\"\], is null"):
        run("nsga2", 5, out=tmp_path, resume=True)


# ------------------------------------------------------------------------------------------------------ budgets


def test_budgets_are_read_and_written() -> None:
    for text, budget in {
        "macs:2G": Budget("macs", 2e9),
        "params:5M": Budget("params", 5e6),
        " latency:15ms@onnxruntime": Budget("latency", 0.015, "onnxruntime"),
    }.items():
        assert Budget.parse(text) == budget
        assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("macs", "expected COST:LIMIT, such as macs:2G"),
        ("macs:2Q", "expected COST:LIMIT"),
        ("macs:15ms", "expected COST:LIMIT"),
        ("latency:2G", "expected COST:LIMIT"),
        ("latency:15ms@", "expected COST:LIMIT"),
        ("flops:2G", "expected one of macs, params, latency"),
        ("params:0", "expected a number above 0"),
        ("macs:2G@onnxruntime", "names the runtime 'onnxruntime'; only a latency has one"),
    ],
)
def test_invalid_budgets(text: str, says: str) -> None:
    with pytest.raises(BudgetError, match=says):
        Budget.parse(text)
    with pytest.raises(BudgetError, match="macs has two budgets"):
        parse_budgets(["macs:2G", "macs:3G"])


@pytest.mark.parametrize(
    "name", ["bayes", "random", *(pytest.param(n, marks=pytest.mark.long) for n in ("nsga2", "evolution", "ppo"))]
)
def test_no_strategy_proposes_what_is_over_the_budget(name: str) -> None:
    """With a budget that one filling in a hundred keeps; what is proposed goes on to be new."""
    limit = share(0.01)
    trials = run(name, 20, objective="reward", budgets=[f"macs:{limit}"])
    assert trials.counts["rejected"] == 0
    assert all(trial.figures["macs_total"] <= limit for trial in trials)
    assert len({trial.digest for trial in trials}) > 4


def test_what_a_strategy_of_its_own_proposes_over_the_budget_is_rejected_and_not_evaluated(tmp_path: Path) -> None:
    limit, log = share(0.5), tmp_path / "log"
    trials = search(
        SPACE, LoggedEvaluation(log), Learner(SPACE), 40, budgets=[f"macs:{limit}", "params:1G"], size=SIZE, quiet=True
    )
    over = [trial for trial in trials if macs(trial.indices) > limit]
    assert 5 < len(over) < 35
    for trial in over:
        assert trial.verdict == "rejected"
        assert "over the budget: it has" in trial.details["error"]
        assert "with the backbone" in trial.details["error"]
    assert not {str(trial.text) for trial in over} & set(logged(log, "begin"))
    assert trials.counts["rejected"] >= len(over)


def test_sampling_within_a_budget_that_almost_nothing_keeps() -> None:
    """None of 1,500 uniform fillings comes near. Uniform draws alone would take tens of thousands a sample."""
    space = loads_space(
        SPACE.source.text.replace("1..3", "1..6").replace("p5 = x1, p4 = x2, p3 = x3", "p5 = x4, p4 = x5, p3 = x6")
    )
    costs = DetectorCosts(space, SIZE)
    rng = random.Random(1)
    drawn = [found["params"] for _ in range(1500) if (found := costs([rng.randrange(d.size) for d in space.domains]))]  # type: ignore[arg-type]
    limit = costs.backbone["params"] + 0.85 * (min(drawn) - costs.backbone["params"])
    limited = BudgetedSpace(space, [Budget("params", limit)], costs)
    found = [limited.sample(seed) for seed in range(3)]
    assert len(set(found)) > 1
    assert all(costs(text.indices)["params"] <= limit for text in found)  # type: ignore[index]
    assert limited.sample(2) == found[2]


def test_impossible_budgets_are_reported_before_the_search(tmp_path: Path) -> None:
    with pytest.raises(
        BudgetError, match=r"the backbone resnet50 alone has .* M multiply-accumulates, and the budget is macs:"
    ):
        run("random", 3, budgets=[f"macs:{BACKBONE / 2}"])
    settings = SearchSettings(budgets=(f"macs:{BACKBONE + 1}",), size=SIZE)
    with pytest.raises(SearchError, match=r"no decoder of small with at most .* with the backbone was found; the smallest has"):
        settings.check(SPACE, tmp_path)
    with pytest.raises(SpaceError, match="no decoder of small"):
        BudgetedSpace(SPACE, [Budget("macs", BACKBONE + 1)], COSTS).sample(0, attempts=10)


def test_a_budget_of_latency_says_what_decoders_have_in_milliseconds() -> None:
    def own(filling: tuple[int, ...]) -> dict[str, float]:
        return {"latency": 0.0123456}

    for costs in (own, DetectorCosts(SPACE, SIZE, lambda text: 0.0123456)):
        limited = BudgetedSpace(SPACE, [Budget("latency", 0.005)], costs)
        over = limited.over_budget(SPACE.sample(0).indices)
        assert over == "over the budget: it has 12.35 ms, expected at most 5 ms with the backbone"
    with pytest.raises(SpaceError, match=r"with at most 5 ms with the backbone was found; the smallest has 12\.35 ms"):
        BudgetedSpace(SPACE, [Budget("latency", 0.005)], own).sample(0)


def test_a_decoder_that_cannot_be_built_has_no_costs_and_is_rejected() -> None:
    space = loads_space(SPACE.source.text.replace("choice op = sep_3x3 |", "choice op = conv(k=3, groups=3) |"))
    costs, check = DetectorCosts(space, SIZE), make_check(space, SIZE)
    filling = (0,) * len(space.domains)
    assert not space.keeps(filling)
    assert costs(filling) is None
    with pytest.raises(SpaceError, match="it cannot be built, or breaks a requirement"):
        check(space.decode(filling))
    limited = BudgetedSpace(space, [Budget("macs", 1e15)], costs)
    assert not limited.keeps(filling)
    assert limited.over_budget(filling) is None


def test_that_parts_are_measured_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = _Report(tmp_path / "latency.json")
    for done in range(3):
        report(done, 3)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"measuring parts of detectors for their latency; they are kept in {tmp_path / 'latency.json'}\n"


def test_a_strategy_for_the_reward_alone_learns_within_a_budget() -> None:
    limit = share(0.3)

    def late(name: str) -> float:
        limited = BudgetedSpace(SPACE, [Budget("macs", limit)], COSTS)
        strategy = make_strategy(name, limited, 0)
        rewards = []
        for _ in range(50):
            text = strategy.propose()
            rewards.append(macs(text.indices))
            strategy.observe(text, rewards[-1])
        return sum(rewards[-15:]) / 15

    assert late("nsga2") > late("random")
