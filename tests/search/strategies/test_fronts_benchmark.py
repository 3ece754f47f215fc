"""`benchmarks/fronts.py`: the costs are the published ones, and the shares of the hypervolume are correct."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nasdsl.search.hypervolume import hypervolume

ROOT = Path(__file__).resolve().parents[3]
TABLES = ROOT.parent / "shared" / "tables"
needs_tables = pytest.mark.skipif(not TABLES.is_dir(), reason=f"the shared test data beside the checkout is missing: {TABLES}")


@pytest.fixture(scope="module")
def fronts() -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_fronts", ROOT / "benchmarks" / "fronts.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def test_the_costs_of_cells_are_those_published(fronts: ModuleType) -> None:
    """NAS-Bench-201 gives 1.531546 M parameters and 220.11969 M MACs for the largest network, 0.073306 M and 7.78305 M for the
    smallest."""
    large, small = fronts.cell_costs(["nor_conv_3x3"] * 6), fronts.cell_costs(["none"] * 6)
    assert (large["params"], small["params"]) == (1_531_546, 73_306)
    assert large["macs"] / 1e6 == pytest.approx(220.11969, abs=1e-4)
    assert small["macs"] / 1e6 == pytest.approx(7.78305, abs=1e-4)


def test_shares_are_those_of_the_whole_front(fronts: ModuleType) -> None:
    every = [(float(a), {"macs": float(c)}) for a, c in itertools.product(range(5), range(1, 6)) if a <= c]
    measure = fronts.Measure(every, ("macs",))
    shares = measure.shares(every)
    assert shares[-1] == pytest.approx(1)
    assert shares == sorted(shares)
    for count in (1, 7, 12):
        points = [(-a, f["macs"]) for a, f in every[:count]]
        assert shares[count - 1] == pytest.approx(hypervolume(points, measure.reference) / measure.whole)


@needs_tables
@pytest.mark.parametrize("task", ["NAS-Bench-201, MACs", "NAS-Bench-Macro, MACs and parameters"])
def test_a_run_is_saved_and_read_again(fronts: ModuleType, task: str, tmp_path: Path) -> None:
    made = fronts.run(fronts.Job(task, "nsga2", 0, 40), TABLES)
    assert len(made.shares) == 40
    assert made.shares == sorted(made.shares)
    assert 0 < made.shares[-1] < 1
    kept = fronts.RunFile(tmp_path / "runs.json")
    kept.add(made)
    assert list(fronts.RunFile(tmp_path / "runs.json").runs.values()) == [made]
    text = fronts.report(task, {"nsga2": [made], "random": [made]}, (20, 40))
    assert f"| {100 * made.shares[-1]:.2f} ± 0.00 ({100 * made.shares[-1]:.1f}) |" in text
    fronts.plot({task: {"nsga2": [made]}}, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
