"""Spaces as problems for Optuna and NePS: which decisions they see, and what they give back."""

from __future__ import annotations

import pickle
import random
import sys
from typing import Any

import pytest

from nasdsl.search.evaluation import EvaluationResult
from nasdsl.spaces import Space, SpaceError, adapters, loads_space
from nasdsl.spaces.adapters import AdapterError, MissingExtra, NepsProblem, OptunaProblem, decision_names
from nasdsl.spaces.adapters.decisions import excess

TEXT = """
choice conv = conv_1x1 | conv_3x3
choice op   = skip | ?conv | ?(down_max | sep_5x5)

decoder nested {
  input c3, c4, c5
  REQUIRE
  let tower = ?conv
  fpn(width=32, norm=bn) {
    repeat t in 1..2 { x[t] = ?(psum | cat)(?op(?pool), skip(?pool)) }
    output p3 = x1, p4 = x2
  }
  head(width=32, norm=gn, share=?(0..3)) { tower -> ?(skip | ?conv) -> tower }
  predict fcos(centerness=?(cls | box))
}
"""
SPACE = loads_space(TEXT.replace("  REQUIRE\n", ""), backbone="mobilenet_v2", classes=3)


@pytest.fixture
def bounded() -> Space:
    """A space in which about half of the fillings keep the requirement."""
    figures = [SPACE.figures(SPACE.sample(seed).indices) for seed in range(20)]
    median = sorted(found.params for found in figures if found is not None)[10]
    return loads_space(TEXT.replace("REQUIRE", f"require params <= {median}"), backbone="mobilenet_v2", classes=3)


def length(text: str) -> float:
    return float(len(text))


def active_names(indices: tuple[int, ...]) -> set[str]:
    return {name for name, active in zip(decision_names(SPACE), SPACE.active(indices), strict=True) if active}


def test_what_is_no_adapter_is_an_ordinary_missing_name() -> None:
    assert not hasattr(adapters, "OtherProblem")
    assert adapters.OptunaProblem is OptunaProblem


def test_what_cannot_be_built_breaks_every_requirement() -> None:
    """Without requirements it is one number that says so."""
    add = "decoder d { input c3, c4 R fpn(width=64, adapter=none) { output p3 = conv_1x1(add(c3, ?(c3 | c4))) } "
    add += "head(width=64) { conv_3x3 } predict fcos }"
    for requirements, found in (("", 1), ("require macs <= 900G require params <= 900G", 2)):
        space = loads_space(add.replace("R", requirements), backbone="resnet50")
        assert excess(space, [0]) == [0.0] * found
        assert excess(space, [1]) == [1.0] * found


def test_names_are_unique_and_stable() -> None:
    names = decision_names(SPACE)
    assert len(set(names)) == len(names) == len(SPACE.domains)
    assert names[:3] == ("d00_conv", "d01_hole", "d02_op")
    assert decision_names(loads_space(SPACE.source.text)) == names


def test_excess_is_above_0_just_where_a_requirement_is_broken(bounded: Space) -> None:
    rng = random.Random(0)
    kept = 0
    for _ in range(60):
        indices = [rng.randrange(domain.size) for domain in bounded.domains]
        kept += bounded.keeps(indices)
        assert (max(excess(bounded, indices)) <= 0) == bounded.keeps(indices)
    assert 0 < kept < 60


@pytest.mark.parametrize(("package", "problem"), [("optuna", OptunaProblem), ("neps", NepsProblem)])
def test_a_missing_package_is_said(package: str, problem: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"this needs the package {package} .*pip install 'nasdsl\[{package}\]'"):
        problem(SPACE, length)


# ------------------------------------------------------------------------------------------------ Optuna


@pytest.fixture
def optuna() -> Any:
    module = pytest.importorskip("optuna", reason="Optuna is not installed (pip install 'nasdsl[optuna]')")
    module.logging.set_verbosity(module.logging.ERROR)
    return module


def study_of(optuna: Any, **options: Any) -> Any:
    return optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0), **options)


def test_optuna_is_asked_for_active_decisions_only(optuna: Any) -> None:
    problem, study = OptunaProblem(SPACE, length), study_of(optuna)
    study.optimize(problem, 30)
    seen = set()
    for trial in study.trials:
        text = trial.user_attrs["text"]
        filled = problem.text(trial.params)
        assert (filled, trial.value) == (text, len(text))
        assert set(trial.params) == active_names(filled.indices)
        seen |= set(trial.params)
    assert seen == set(decision_names(SPACE))
    (share,) = (name for name, value in trial.params.items() if isinstance(value, int))
    assert problem.distributions[share] == optuna.distributions.IntDistribution(0, 3)


def test_optuna_round_trip_and_warm_start(optuna: Any) -> None:
    problem, study = OptunaProblem(SPACE, length), study_of(optuna)
    for seed in range(20):
        text = SPACE.sample(seed)
        assert problem.text(problem.params(text)) == text
        study.add_trial(problem.finished_trial(text, seed))
    assert (study.best_value, study.best_trial.user_attrs["text"]) == (19, SPACE.sample(19))
    study.enqueue_trial(problem.params(text))
    study.optimize(problem, 1)
    assert study.trials[-1].user_attrs["text"] == text
    with pytest.raises(AdapterError, match="the parameters lack 'd00_conv'"):
        problem.text({})
    with pytest.raises(AdapterError, match=r"d00_conv is 'conv_7x7'; expected one of conv_1x1, conv_3x3"):
        problem.text({"d00_conv": "conv_7x7"})
    with pytest.raises(SpaceError, match="not a decoder of nested"):
        problem.params(str(text).replace("width=32, norm=bn", "width=64, norm=bn"))


def test_optuna_does_not_evaluate_what_breaks_a_requirement(optuna: Any, bounded: Space) -> None:
    evaluated: list[str] = []

    def evaluate(text: str) -> EvaluationResult:
        evaluated.append(text)
        return EvaluationResult(length(text), {"losses": {"cls": 0.5}})

    problem = OptunaProblem(bounded, evaluate)
    options = {} if hasattr(optuna.trial.Trial, "set_constraint") else {"constraints_func": problem.constraints}
    sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, n_startup_trials=5, **options)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(problem, 25)
    pruned = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.PRUNED]
    complete = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert pruned
    assert [trial.user_attrs["text"] for trial in complete] == evaluated
    assert all(bounded.keeps(problem.text(trial.params).indices) for trial in complete)
    assert not any(bounded.keeps(problem.text(trial.params).indices) for trial in pruned)
    assert all((problem.constraints(trial)[0] > 0) == (trial in pruned) for trial in study.trials)
    if not options:
        assert all(trial.constraints["requirement 0"] == problem.constraints(trial)[0] for trial in study.trials)
    assert complete[0].user_attrs["losses"] == {"cls": 0.5}


def test_before_optuna_5_constraints_are_attributes_of_a_trial(optuna: Any, bounded: Space) -> None:
    """Its trials have no `set_constraint`."""

    class Trial:
        def __init__(self, trial: Any) -> None:
            self.suggest_int, self.suggest_categorical = trial.suggest_int, trial.suggest_categorical
            self.set_user_attr = trial.set_user_attr

    problem, study = OptunaProblem(bounded, length), study_of(optuna)
    study.optimize(lambda trial: problem(Trial(trial)), 10)
    assert {trial.state.name for trial in study.trials} == {"COMPLETE", "PRUNED"}
    assert all((problem.constraints(t)[0] > 0) == (t.state.name == "PRUNED") for t in study.trials)


@pytest.mark.parametrize("reward", [None, float("nan")])
def test_optuna_prunes_what_has_no_reward(optuna: Any, reward: float | None) -> None:
    study = study_of(optuna)
    study.optimize(OptunaProblem(SPACE, lambda text: {"reward": reward, "stopped_at": 3, "model": object()}), 1)
    assert study.trials[0].state == optuna.trial.TrialState.PRUNED
    assert study.trials[0].user_attrs["stopped_at"] == 3
    assert "model" not in study.trials[0].user_attrs  # which a study could not be saved with
    with pytest.raises(AdapterError, match="returned 'good'; expected a number"):
        study.optimize(OptunaProblem(SPACE, lambda text: "good"), 1)


# ------------------------------------------------------------------------------------------------ NePS


@pytest.fixture
def neps() -> Any:
    return pytest.importorskip("neps", reason="NePS is not installed (pip install 'nasdsl[neps]')")


def test_neps_samples_active_decisions_only(neps: Any) -> None:
    problem = NepsProblem(SPACE, length)
    asked = neps.AskAndTell(optimizer=neps.algorithms.neps_regularized_evolution(problem.pipeline_space, population_size=5))
    for _ in range(20):
        trial = asked.ask()
        text = problem.text(trial.config)
        assert len(trial.config) == sum(SPACE.active(text.indices))
        asked.tell(trial.metadata.id, -length(text))


def test_neps_ignores_decisions_of_turns_that_are_not_there(neps: Any) -> None:
    """Those of the turns of a `repeat` are always sampled, whatever its drawn number is."""
    space = loads_space(
        "choice op = relu | conv_1x1 | ?(tanh | sigmoid) decoder deep { input c3 fpn(width=32, norm=bn)"
        " { x = c3 repeat ?(0..2) { x = ?op(x) } output p3 = x } head(width=32) { conv_1x1 * ?(1..2) } predict fcos }"
    )
    problem = NepsProblem(space, length)
    for seed in range(30):
        text = space.sample(seed)
        assert problem.text(problem.config(text)) == text
    asked = neps.AskAndTell(optimizer=neps.algorithms.neps_regularized_evolution(problem.pipeline_space, population_size=5))
    depths = set()
    for _ in range(20):
        trial = asked.ask()
        text = problem.text(trial.config)
        depths.add(text.indices[0])
        asked.tell(trial.metadata.id, -length(text))
    assert depths == {0, 1, 2}


@pytest.mark.parametrize("flat", [False, True])
def test_neps_round_trip(neps: Any, flat: bool) -> None:
    problem = NepsProblem(SPACE, length, flat=flat)
    for seed in range(20):
        text = SPACE.sample(seed)
        assert problem.text(problem.config(text)) == text
    assert pickle.loads(pickle.dumps(problem.pipeline_space)).get_attrs().keys() == problem.pipeline_space.get_attrs().keys()
    config = problem.config(text)
    config.pop(next(iter(config)))
    with pytest.raises(AdapterError, match="d00_conv"):
        problem.text(config)


@pytest.mark.parametrize("flat", [False, True])
def test_neps_runs(neps: Any, flat: bool, bounded: Space, tmp_path: Any) -> None:
    """By its own loop, with a requirement."""
    problem = NepsProblem(bounded, length, flat=flat, penalty=1e4)
    objectives: list[tuple[str, float]] = []

    def noted(**config: Any) -> Any:
        result = problem.evaluate_pipeline(**config)
        objectives.append((result["info_dict"]["text"], result["objective_to_minimize"]))
        return result

    optimizer = "random_search" if flat else "neps_random_search"
    neps.run(
        noted, problem.pipeline_space, root_directory=tmp_path / "neps", worker_evaluations_to_spend=8, optimizer=optimizer
    )
    assert len(objectives) == 8
    for text, objective in objectives:
        keeps = bounded.keeps(bounded.encode(text))
        assert objective == (-len(text) if keeps else 1e4)
    assert len({objective == 1e4 for _, objective in objectives}) == 2
