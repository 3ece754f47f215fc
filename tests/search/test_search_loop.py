"""The loop: duplicates, rejected samples, failures, the order of calls, the files in the folder."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import fake_model
import numpy as np
import pytest
import torch
from small_search import SPACE, Learner, LoggedEvaluation, comparable, logged, plain_value, quick_check, value

import nasdsl.search
from nasdsl import loads
from nasdsl.files import unfinished_path
from nasdsl.search import EvaluationResult, Objective, SearchError, SearchRun, load_trials, search
from nasdsl.search.journal import read_journal
from nasdsl.search.strategies import STRATEGIES
from nasdsl.spaces import Filled
from nasdsl.training import Diverged
from nasdsl.training.checkpoint import previous_path


def test_the_package_is_callable() -> None:
    trials = nasdsl.search(SPACE, plain_value, strategy="random", trials=3, seed=1, quiet=True)
    assert [t.verdict for t in trials] == ["ok"] * 3
    assert trials.best is max(trials, key=lambda t: t.reward)
    for trial in trials:  # checked, counted and named by the whole pipeline
        decoder = loads(trial.text)
        cost, total = decoder.cost().decoder, decoder.cost().total
        assert trial.digest == decoder.digest
        figures = {"macs": cost.macs, "params": cost.params, "macs_total": total.macs, "params_total": total.params}
        assert trial.figures == figures
        assert SPACE.encode(trial.text) == list(trial.indices)


def test_names_that_the_package_does_not_have() -> None:
    with pytest.raises(AttributeError, match=r"^module 'nasdsl\.search' has no attribute 'serach'"):
        nasdsl.search.serach  # type: ignore[attr-defined]  # noqa: B018  # looking it up is what fails


def test_duplicates_are_answered_and_rejected_samples_are_not_evaluated(out: Path) -> None:
    noted = LoggedEvaluation(out / "log")
    trials = search(SPACE, noted, Learner(SPACE), 150, out=out, check=quick_check, quiet=True)
    counts = trials.counts
    assert len(trials) == 150
    assert counts["ok"] + counts["duplicate"] + counts["rejected"] == 150
    assert min(counts["duplicate"], counts["rejected"]) > 5
    assert logged(out / "log", "begin") == [str(t.text) for t in trials if t.verdict == "ok"]
    for trial in trials:
        if trial.verdict == "duplicate":
            original = trials[trial.duplicate_of]
            assert (original.verdict, original.digest, original.score) == ("ok", trial.digest, trial.score)
            assert original.number < trial.number
        if trial.verdict == "rejected":
            assert (trial.reward, trial.score, trial.details["error"]) == (None, None, "rejected for the test")


class RecordsCalls(Learner):
    """Records observed rewards, and the number of pending proposals at each proposal."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.observed: list[tuple[str, float | None]] = []
        self.pending: list[int] = []

    def propose(self) -> Filled:
        self.pending.append(len(self.pending) + 1 - len(self.observed))
        return super().propose()

    def observe(self, text: Filled, reward: float | None) -> None:
        assert isinstance(text, Filled)
        self.observed.append((text, reward))
        super().observe(text, reward)


@pytest.mark.parametrize("batch", [1, 3, 50])
def test_a_batch_is_pending_at_once_and_observed_in_the_order_of_proposals(batch: int) -> None:
    strategy = RecordsCalls(SPACE)
    trials = search(SPACE, plain_value, strategy, 20, batch=batch, check=quick_check, quiet=True)
    assert strategy.observed == [(t.text, t.score) for t in trials]
    assert strategy.pending == [min(batch, i + 1) for i in range(20)]


def test_a_duplicate_of_a_pending_proposal_waits_for_it() -> None:
    one = SPACE.sample(0)

    class Stubborn(Learner):
        def propose(self) -> Filled:
            return one

    trials = search(SPACE, plain_value, Stubborn(SPACE), 5, batch=5, quiet=True)
    assert [t.verdict for t in trials] == ["ok"] + ["duplicate"] * 4
    assert {t.reward for t in trials} == {value(one)}


def test_a_text_that_does_not_check_is_rejected_by_its_code() -> None:
    class Wrong(Learner):
        def propose(self) -> Filled:
            return Filled("decoder wrong { input c3 }", (0,) * len(SPACE.domains))

    trial = search(SPACE, plain_value, Wrong(SPACE), 1, quiet=True)[0]
    assert trial.verdict == "rejected"
    assert trial.details["error"].startswith("NAS")


def test_evaluations_limits_the_number_of_evaluations() -> None:
    trials = search(SPACE, plain_value, Learner(SPACE), 1000, evaluations=30, batch=4, check=quick_check, quiet=True)
    assert trials.counts["ok"] == 30
    assert trials[len(trials) - 1].verdict == "ok"


def raising(error: Exception) -> Any:
    def evaluate(text: str) -> float:
        raise error

    return evaluate


@pytest.mark.parametrize(
    ("evaluate", "verdict"),
    [
        (lambda text: math.nan, "diverged"),
        (lambda text: -math.inf, "diverged"),
        (lambda text: math.inf, "diverged"),
        (raising(Diverged("20 steps in a row")), "diverged"),
        (raising(MemoryError()), "failed: out of memory"),
        (raising(torch.OutOfMemoryError("CUDA")), "failed: out of memory"),
        (raising(RuntimeError("a\n b" + "x" * 500)), "failed: RuntimeError: a b" + "x" * 156 + "…"),
        (raising(KeyError()), "failed: KeyError"),
        (lambda text: exit(3), "failed: SystemExit: 3"),
        (
            lambda text: "good",
            "failed: evaluate returned 'good'; expected a number, EvaluationResult, or a mapping with `reward`",
        ),
        (lambda text: None, "failed: evaluate returned None; expected a number"),
        (lambda text: {"loss": 1.0}, "failed: evaluate returned {'loss': 1.0}; expected"),
        (lambda text: {"reward": torch.zeros(2)}, "failed: evaluate returned"),
        (lambda text: True, "failed: evaluate returned True"),
    ],
)
def test_failures_are_recorded_and_never_a_reward(evaluate: Any, verdict: str, out: Path) -> None:
    strategy = RecordsCalls(SPACE)
    trials = search(SPACE, evaluate, strategy, 2, out=out, quiet=True)
    assert [reward for _, reward in strategy.observed] == [None, None]
    for trial in trials:
        assert trial.verdict.startswith(verdict)
        assert (trial.reward, trial.score) == (None, None)
        assert trial.details["error"]
    assert trials.best is None
    assert not SearchRun(out).best.exists()
    assert comparable(load_trials(out)) == comparable(trials)


@pytest.mark.parametrize(
    "given",
    [
        -0.25,
        np.float32(-0.25),
        torch.tensor(-0.25),
        EvaluationResult(-0.25, {"a": np.int64(3), "b": {"c": torch.ones(2), "d": math.nan}, "e": (1, None, Path("x"))}),
        {"reward": np.array(-0.25), "a": 3, "details": {"b": {"c": [1.0, 1.0], "d": None}, "e": [1, None, "x"]}},
    ],
)
def test_accepted_forms_of_rewards_and_details(given: Any, out: Path) -> None:
    trial = search(SPACE, lambda text: given, Learner(SPACE), 1, out=out, quiet=True)[0]
    assert (trial.verdict, trial.reward) == ("ok", -0.25)
    assert trial.details in ({}, {"a": 3, "b": {"c": [1.0, 1.0], "d": None}, "e": [1, None, "x"]})
    assert load_trials(out)[0] == trial


def test_the_strategy_and_the_best_trial_go_by_the_objective(out: Path) -> None:
    strategy = RecordsCalls(SPACE)
    objective = Objective.parse("macs:60000:-3")
    trials = search(SPACE, plain_value, strategy, 60, out=out, objective=objective, check=quick_check, quiet=True)
    for (_, reward), trial in zip(strategy.observed, trials, strict=True):
        assert reward == trial.score
        if trial.verdict == "ok":
            assert trial.score == objective.score(trial.reward, trial.figures)
    best = trials.best
    assert best is not None
    assert best.score == max(t.score for t in trials.ok)
    assert best.reward < max(t.reward for t in trials.ok)  # it is not simply the one of the highest reward
    assert trials.top(3)[0] is best


def test_an_objective_on_latency_without_a_measurement() -> None:
    trial = search(SPACE, plain_value, Learner(SPACE), 1, objective="latency:10ms", quiet=True)[0]
    assert trial.verdict == "failed: the objective weighs latency, and the evaluation's details have none"


def test_files_in_the_folder(out: Path) -> None:
    trials = search(SPACE, LoggedEvaluation(out / "log"), Learner(SPACE), 60, out=out, check=quick_check, quiet=True)
    run = SearchRun(out)
    best = trials.best
    assert best is not None
    assert run.space.read_text() == SPACE.source.text
    assert f"# Trial {best.number}: reward {best.reward:.6g}" in run.best.read_text()
    assert loads(run.best.read_text()).digest == loads(best.text).digest

    pareto = json.loads(run.pareto.read_text())
    assert [p["number"] for p in pareto["macs"]] == [t.number for t in trials.front("macs")]
    assert set(pareto) == {"macs", "params"}
    assert pareto["macs"][0].keys() >= {"reward", "score", "macs", "params", "text"}

    rows = list(csv.DictReader(run.trials.read_text().splitlines()))
    assert [int(row["number"]) for row in rows] == list(range(60))
    assert [row["verdict"] for row in rows] == [t.verdict for t in trials]
    assert [row["reward"] for row in rows] == ["" if t.reward is None else str(t.reward) for t in trials]
    assert float(rows[best.number]["details.losses.cls"]) == best.details["losses"]["cls"]

    read = load_trials(out)
    assert comparable(read) == comparable(trials)
    assert list(read) == list(trials)
    assert read.start["strategy"] == "learner"
    assert {"nasdsl", "torch", "python"} <= read.start["versions"].keys()


@pytest.mark.parametrize("name", ["trials.csv", "strategy.pt"])
def test_files_that_cannot_be_written_are_named_and_the_journal_is_complete(name: str, out: Path) -> None:
    unfinished_path(out / name).mkdir(parents=True)
    with pytest.raises(SearchError, match=f"^cannot write .*{name}: Is a directory"):
        search(SPACE, plain_value, Learner(SPACE), 5, out=out, quiet=True)
    assert len(load_trials(out)) == 5
    unfinished_path(out / name).rmdir()
    search(SPACE, plain_value, Learner(SPACE), 5, out=out, resume=True, quiet=True)
    assert (out / name).exists()


def test_the_same_seed_gives_the_same_journal_but_for_times(tmp_path: Path) -> None:
    journals = []
    for name in ("a", "b"):
        search(SPACE, plain_value, "random", 20, 5, out=tmp_path / name, quiet=True)
        records = read_journal(SearchRun(tmp_path / name).journal)[0]
        journals.append([{k: v for k, v in r.items() if k not in ("time", "seconds")} for r in records])
    assert journals[0] == journals[1]


@pytest.mark.parametrize(
    "strategy", [n if n in ("ppo", "bayes") else pytest.param(n, marks=pytest.mark.long) for n in STRATEGIES]
)
def test_every_strategy_resumes_to_the_trials_of_an_uninterrupted_search(
    strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"options": fake_model.options() if strategy == "llm" else None}
    whole = search(SPACE, plain_value, strategy, 16, 3, out=tmp_path / "whole", batch=3, check=quick_check, quiet=True, **given)
    monkeypatch.setattr(nasdsl.search.loop, "SAVE_EVERY", -1)
    for state in ("loaded", "lost", "of another search"):
        part = SearchRun(tmp_path / state)
        check = check_that_raises_after(11)
        with pytest.raises(ZeroDivisionError):  # ends the search without saving
            search(SPACE, plain_value, strategy, 16, 3, out=part.folder, batch=3, check=check, quiet=True, **given)
        if state != "loaded":
            previous_path(part.strategy).unlink()
            part.strategy.unlink()
        if state == "of another search":
            search(SPACE, plain_value, strategy, 5, 4, out=tmp_path / "other", check=quick_check, quiet=True, **given)
            shutil.copy(SearchRun(tmp_path / "other").strategy, part.strategy)
        resumed = search(
            SPACE, plain_value, strategy, 16, 3, out=part.folder, batch=3, check=quick_check, resume=True, quiet=True, **given
        )
        assert comparable(resumed) == comparable(whole)
        restored = next(r["restored"] for r in read_journal(part.journal)[0] if r["kind"] == "resume")
        assert restored.startswith("the strategy's state was loaded" if state == "loaded" else "11 proposals replayed")


def test_a_strategy_whose_replay_differs_observes_all_results_and_goes_on(out: Path) -> None:
    search(SPACE, LoggedEvaluation(out / "log"), Learner(SPACE), 20, out=out, check=quick_check, quiet=True)
    before = comparable(load_trials(out))
    SearchRun(out).strategy.unlink()
    strategy = RecordsCalls(SPACE, 7)  # stands for another machine, where it would propose otherwise
    trials = search(SPACE, LoggedEvaluation(out / "log"), strategy, 30, out=out, resume=True, check=quick_check, quiet=True)
    assert comparable(trials)[:20] == before
    assert strategy.observed[-30:] == [(t.text, t.score) for t in trials]
    assert len(logged(out / "log", "begin")) == trials.counts["ok"]


def check_that_raises_after(proposals: int) -> Any:
    left = iter([1] * proposals + [0])
    return lambda text: (1 / next(left), quick_check(text))[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"trials": -1}, "trials is -1"),
        ({"batch": 0}, "batch is 0"),
        ({"resume": True}, "resume needs the folder"),
        ({"workers": "threads:2"}, "expected inline, process:N, ray"),
        ({"workers": "process"}, "expected inline, process:N, ray"),
        ({"workers": "process:0"}, "expected inline, process:N, ray"),
        ({"workers": "process:2@host"}, "expected inline, process:N, ray"),
        ({"timeout": 3.0}, "process:1 instead of inline"),
        ({"timeout": 0.0, "workers": "process:1"}, "timeout is 0"),
        ({"strategy": "luck"}, "no strategy 'luck'"),
        ({"options": {"luck": 1}}, "no option 'luck'|options are for a strategy"),
        ({"strategy": Learner(SPACE), "options": {"luck": 1}}, "options are for a strategy given by its name"),
        ({"objective": "speed:1"}, "unknown cost"),
    ],
)
def test_invalid_arguments(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SearchError, match=says):
        search(SPACE, plain_value, **{"strategy": "random", "trials": 3, "quiet": True, **options})


def test_folders_that_are_refused(out: Path, tmp_path: Path) -> None:
    search(SPACE, plain_value, "random", 2, out=out, quiet=True)
    with pytest.raises(SearchError, match="holds a search already: resume it"):
        search(SPACE, plain_value, "random", 2, out=out, quiet=True)
    with pytest.raises(SearchError, match=r"(?s)of another search.*strategy was .*random.*seed was 0, is 1"):
        search(SPACE, plain_value, "evolution", 2, 1, out=out, resume=True, quiet=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(SearchError, match="is a file"):
        search(SPACE, plain_value, "random", 2, out=tmp_path / "file", quiet=True)
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "config.json").write_text("{}")
    with pytest.raises(SearchError, match="run of a training"):
        search(SPACE, plain_value, "random", 2, out=tmp_path / "training", quiet=True)
    with pytest.raises(SearchError, match="is no search"):
        load_trials(tmp_path / "training")
