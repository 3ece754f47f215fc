"""Early-stopping rules replayed over a search without one."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from small_search import SPACE, Learner, plain_value, quick_check, with_curve

from nasdsl.search import SearchError, SearchRun, StoppingRule, Trials, search
from nasdsl.search.early_stopping_replay import replay_rule
from nasdsl.search.history import History
from nasdsl.search.run import load_history
from nasdsl.spaces import Filled


class IgnoresRewards(Learner):
    """Proposes the same whatever it observes, so that the replay of a rule is that of a search."""

    def observe(self, text: Filled, reward: float | None) -> None:
        pass


def run(out: Path, **options: Any) -> Trials:
    given = {"trials": 120, "batch": 3, "check": quick_check, "task": {"iterations": 40}, "quiet": True}
    return search(SPACE, with_curve, IgnoresRewards(SPACE), out=out, **{**given, **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[History, Trials, str]:
    objective = "macs:40000:-0.3"
    out = tmp_path_factory.mktemp("whole")
    trials = run(out, objective=objective)
    return load_history(out), trials, objective


@pytest.mark.parametrize("rule", ["median:5", "quantile:0.3:5", "quantile:0.7:12", "halving:2:5"])
def test_a_replay_stops_what_a_search_with_the_rule_stops(
    whole: tuple[History, Trials, str], rule: str, tmp_path: Path
) -> None:
    history, trials, objective = whole
    parsed = StoppingRule.parse(rule)
    assert parsed is not None
    result = replay_rule(history, parsed)
    real = run(tmp_path, objective=objective, stopping=rule)
    stopped = {t.number: t.details["stopped_at"] for t in real if t.verdict == "stopped"}
    assert [t.text for t in real] == [t.text for t in trials]
    assert len(stopped) > 5
    assert (result.rule, result.samples, result.stopped) == (rule, len(trials.ok), len(stopped))
    assert result.steps_saved == pytest.approx(sum(40 - step for step in stopped.values()) / (40 * len(trials.ok)))
    best = [t.number for t in trials.top(1000)]
    assert result.top_tenth == -(-len(best) // 10)
    assert result.stopped_of_top_tenth == len(stopped.keys() & set(best[: result.top_tenth]))
    assert result.stopped_of_top_five == len(stopped.keys() & set(best[:5]))
    assert result.stopped_best == (best[0] in stopped)
    assert real.best is not None
    assert result.regret == pytest.approx(trials[best[0]].score - real.best.score)
    assert best[result.rank_kept - 1] == real.best.number
    some = replay_rule(history, parsed, steps=(10,))
    assert some.steps_saved == pytest.approx(0.75 * some.stopped / some.samples)


def test_a_rule_that_stops_the_best(tmp_path: Path) -> None:
    """The higher the loss at the check step, the better the final reward."""
    rng = random.Random(0)

    def evaluate(text: str) -> dict[str, Any]:
        final = rng.random()
        return {"reward": -final, "curve": {5: 2 - final}}

    search(SPACE, evaluate, IgnoresRewards(SPACE), 60, out=tmp_path, check=quick_check, quiet=True)
    result = replay_rule(load_history(tmp_path), StoppingRule("quantile", 0.5, 3), iterations=10)
    assert result.stopped_best
    assert result.stopped_of_top_five >= 4
    assert result.stopped_of_top_tenth >= result.top_tenth - 1
    assert result.regret > 0.2
    assert result.steps_saved == pytest.approx(0.5 * result.stopped / result.samples)


def test_journals_that_cannot_be_replayed(whole: tuple[History, Trials, str], tmp_path: Path) -> None:
    rule = StoppingRule()
    run(tmp_path / "ruled", trials=3, stopping=rule)
    with pytest.raises(SearchError, match=r"stopped early itself \(median:20\)"):
        replay_rule(load_history(tmp_path / "ruled"), rule)
    search(SPACE, plain_value, IgnoresRewards(SPACE), 3, out=tmp_path / "plain", check=quick_check, quiet=True)
    with pytest.raises(SearchError, match="give iterations"):
        replay_rule(load_history(tmp_path / "plain"), rule)
    with pytest.raises(SearchError, match="no sample has a curve"):
        replay_rule(load_history(tmp_path / "plain"), rule, 30)
    with pytest.raises(SearchError, match="is no search"):
        load_history(tmp_path / "nothing")
    assert json.loads(SearchRun(tmp_path / "ruled").journal.read_text().splitlines()[0])["stopping"] == "median:20"
