"""`benchmarks/tables.py`: its spaces have the networks of the tables, and its figures are correct."""

from __future__ import annotations

import importlib.util
import itertools
import random
import re
import statistics
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
TABLES = ROOT.parent / "shared" / "tables"
needs_tables = pytest.mark.skipif(not TABLES.is_dir(), reason=f"the shared test data beside the checkout is missing: {TABLES}")


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_tables", ROOT / "benchmarks" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sizes_are_those_of_the_tables(tables: ModuleType) -> None:
    assert tables.space_of(tables.NAS_BENCH_201).size == 5**6
    assert tables.space_of(tables.NAS_BENCH_MACRO).size == 3**8


@needs_tables
@pytest.mark.parametrize(("name", "best"), [("NAS-Bench-201", 84.892), ("NAS-Bench-Macro", 93.13)])
def test_each_filling_has_its_own_row(tables: ModuleType, name: str, best: float) -> None:
    """The rewards of all fillings are those of all rows, the optimum among them."""
    space, reward, optimum = tables.TASKS[name](TABLES, 0)
    every = itertools.product(*(range(domain.size) for domain in space.domains))
    rewards = [reward(SimpleNamespace(indices=indices)) for indices in every]
    assert max(rewards) == optimum == pytest.approx(best, abs=5e-3)
    known = [row for path in TABLES.glob(f"{name.lower().replace('-', '_')}*.csv") for row in path.read_text().split()[1:]]
    column = {"NAS-Bench-201": 1, "NAS-Bench-Macro": 1}[name]
    assert sorted(rewards) == sorted(float(row.split(",")[column]) for row in known)


@needs_tables
def test_the_reward_is_that_of_the_text(tables: ModuleType) -> None:
    """The ops of a text, read off the text, are the ops of the row."""
    space, reward, _ = tables.nas_bench_201(TABLES, 0)
    known = tables.read(TABLES / "nas_bench_201_12ep.csv", "cell", "cifar10_val")
    for text in space.samples(20, seed=0):
        names = "|".join(space.domains[0].alternatives)
        a, b, c, d, e, f = re.findall(rf"\b({names})\((?:c3|n\d)\)", text)
        assert reward(text) == known[f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"]


@pytest.mark.parametrize("distinct", [False, True])
def test_a_run_gives_the_best_after_each_evaluation(tables: ModuleType, distinct: bool) -> None:
    _, best, milliseconds = tables.run(tables.Job("nested, made up", "evolution", 0, 60, distinct))
    assert len(best) == 60
    assert best == sorted(best)
    assert milliseconds > 0


def runs_of(tables: ModuleType, task: str, name: str, curves: list[list[float]]) -> list[Any]:
    return [tables.Run(tables.Job(task, name, seed, len(best), False), best, 1.0) for seed, best in enumerate(curves)]


CURVES = {
    "evolution": [[1.0, 2.0, 3.0, 3.0], [1.0, 1.0, 1.0, 5.0]],
    "random": [[0.0] * 4] * 2,
    "other": [[0.0, 4.0, 4.0, 9.0]] * 2,
}


def test_the_report_compares_with_the_final_mean_of_evolution(tables: ModuleType) -> None:
    text = tables.report("task", {name: runs_of(tables, "task", name, own) for name, own in CURVES.items()}, (2, 4))
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text.splitlines()}
    assert rows["evolution"][1:5] == ["2", "1.500 ± 0.500", "4.000 ± 1.000", "4"]
    assert rows["other"][4] == "2"
    assert rows["random"][4] == "-"


def test_runs_are_read_as_they_were_saved(tables: ModuleType, tmp_path: Path) -> None:
    made = [run for name, own in CURVES.items() for run in runs_of(tables, "task", name, own)]
    kept = tables.RunFile(tmp_path / "runs.json")
    for run in made:
        kept.add(run)
    assert list(tables.RunFile(tmp_path / "runs.json").runs.values()) == made


def test_saved_runs_are_not_repeated_and_the_plot_is_drawn(
    tables: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, task = tmp_path / "runs.json", "nested, made up"
    kept = tables.RunFile(path)
    for name in ("evolution", "random"):
        for run in runs_of(tables, task, name, CURVES[name]):
            kept.add(run)
    ask = ["--tasks", task, "--strategies", "evolution", "random", "--seeds", "2", "--evaluations", "2", "4"]
    before = path.read_text()
    monkeypatch.setattr(sys, "argv", ["tables.py", *ask, "--json", str(path), "--plot", str(tmp_path / "picture.svg")])
    tables.main()
    assert path.read_text() == before
    shown = capsys.readouterr().out
    assert "| evolution | 2 | 1.500 ± 0.500 | 4.000 ± 1.000 | 4 |" in shown
    assert "torch" in shown.splitlines()[-1]
    assert "<svg" in (tmp_path / "picture.svg").read_text()


def test_synthetic_rewards_are_in_standard_deviations(tables: ModuleType) -> None:
    space, reward, _ = tables.nested(None, 3)
    rng = random.Random(7)
    found = [reward(SimpleNamespace(indices=[rng.randrange(d.size) for d in space.domains])) for _ in range(2000)]
    assert abs(statistics.fmean(found)) < 0.15
    assert 0.9 < statistics.stdev(found) < 1.1
