"""Compares strategies that search the front of accuracy and costs on tables in which every network's figures are known.

    python benchmarks/fronts.py --tables DIR [--seeds 20] [--processes 2] [--json FILE] [--plot FILE]

DIR holds the tables of `tables.py`, which makes the spaces. NAS-Bench-Macro has MACs and parameters; those of a cell of
NAS-Bench-201 are derived from its operations, for the network of its paper (three stages of five cells, 16, 32 and 64 channels,
images of 32 pixels): they give the published extremes, 0.073 M and 1.53 M parameters, 7.78 M and 220.12 M MACs.

The figure is the hypervolume that all networks evaluated so far dominate, as a share of that of the table's own front. It
ends at the lowest accuracy on that front, and at the highest cost in the table. Costs are known before an evaluation, as in a
search: strategies that can use that are given them.

Each strategy runs once per seed; `--json` saves each run when it ends, and skips those in the file. An evaluation is a
proposal, also if it was proposed before. The figures are means over seeds, plus or minus the standard error, and in brackets
the lowest seed. `--plot` draws the missing share on a logarithmic scale: the mean, with a band from the second lowest to the
second highest of 20 seeds.

`scalarised evolution` is regularised evolution whose tournaments compare a weighted sum of reward and costs, each as a share of
its range in the population, with weights drawn anew for each. `optuna nsga2` and `optuna tpe` are Optuna's samplers with their
defaults (`pip install optuna`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import tables as tabular

Figures = dict[str, float]
LookUp = Callable[[tuple[int, ...]], tuple[float, Figures]]


class Task(NamedTuple):
    """A table and the costs that are minimised on it."""

    table: str
    costs: tuple[str, ...]


TASKS = {
    "NAS-Bench-Macro, MACs": Task("NAS-Bench-Macro", ("macs",)),
    "NAS-Bench-201, MACs": Task("NAS-Bench-201", ("macs",)),
    "NAS-Bench-Macro, MACs and parameters": Task("NAS-Bench-Macro", ("macs", "params")),
}

# ------------------------------------------------------------------------------------------------------- tables


def cell_costs(names: list[str]) -> Figures:
    """MACs and parameters of the network of NAS-Bench-201 with this cell.

    Only convolutions and norms count. Stages have 16, 32 and 64 channels and maps of 32, 16 and 8 pixels.
    """
    stages = [(16, 32 * 32), (32, 16 * 16), (64, 8 * 8)]
    large, small = names.count("nor_conv_3x3"), names.count("nor_conv_1x1")
    macs, params = 3 * 9 * 16 * 1024 + 64 * 10, 3 * 9 * 16 + 2 * 16 + 2 * 64 + 64 * 10 + 10  # stem, last norm, classifier
    for width, area in stages:
        macs += 5 * (9 * large + small) * width * width * area
        params += 5 * (9 * large + small) * width * width + 5 * (large + small) * 2 * width
    for (before, _), (width, area) in itertools.pairwise(stages):  # residual blocks between the stages
        weights = 9 * before * width + 9 * width * width + before * width
        macs += weights * area
        params += weights + 4 * width
    return {"macs": float(macs), "params": float(params)}


@cache
def table_of(name: str, folder: Path) -> tuple[Any, LookUp, list[tuple[float, Figures]]]:
    """The space of a table, the accuracy and costs of a filling, and those of all networks."""
    if name == "NAS-Bench-201":
        space = tabular.space_of(tabular.NAS_BENCH_201)
        names = space.domains[0].alternatives
        accuracies = tabular.read(folder / "nas_bench_201_12ep.csv", "cell", "cifar10_val")

        def look_up(indices: tuple[int, ...]) -> tuple[float, Figures]:
            a, b, c, d, e, f = own = [names[index] for index in indices]
            return accuracies[f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"], cell_costs(own)

        every = [(value, cell_costs([part.split("~")[0] for part in cell.replace("+", "").split("|") if part]))
                 for cell, value in accuracies.items()]  # fmt: skip
        return space, look_up, every
    space = tabular.space_of(tabular.NAS_BENCH_MACRO)
    path = folder / "nas_bench_macro.csv"
    accuracies, macs, params = (tabular.read(path, "arch", column) for column in ("mean_acc", "macs", "params"))

    def row(arch: str) -> tuple[float, Figures]:
        return accuracies[arch], {"macs": macs[arch], "params": params[arch]}

    return space, lambda indices: row("".join(map(str, indices))), [row(arch) for arch in accuracies]


class Measure:
    """The hypervolume of networks as a share of that of the table's front."""

    def __init__(self, every: list[tuple[float, Figures]], costs: tuple[str, ...]) -> None:
        from nasdsl.search.hypervolume import hypervolume
        from nasdsl.search.pareto import front_of

        self._hypervolume, self._front_of = hypervolume, front_of
        self.costs = costs
        points = [self._point(*network) for network in every]
        front = [points[place] for place in front_of(points)]
        self.reference = (max(point[0] for point in front), *(max(axis) for axis in list(zip(*points, strict=True))[1:]))
        self.whole = hypervolume(front, self.reference)

    def _point(self, accuracy: float, figures: Figures) -> tuple[float, ...]:
        return (-accuracy, *(figures[cost] for cost in self.costs))

    def shares(self, evaluated: list[tuple[float, Figures]]) -> list[float]:
        """The share after each evaluation."""
        front: list[tuple[float, ...]] = []
        shares: list[float] = []
        for network in evaluated:
            point = self._point(*network)
            if any(all(a <= b for a, b in zip(other, point, strict=True)) for other in front):
                shares.append(shares[-1])
                continue
            front = [other for other in front if not all(a <= b for a, b in zip(point, other, strict=True))] + [point]
            shares.append(self._hypervolume(front, self.reference) / self.whole)
        return shares


# --------------------------------------------------------------------------------------------------- strategies


class _Ours:
    def __init__(self, name: str, space: Any, seed: int, task: Task, look_up: LookUp) -> None:
        from nasdsl.search.strategies import Aims, make_strategy

        aims = Aims(task.costs, lambda indices: look_up(indices)[1])
        self.strategy: Any = make_strategy(name, space, seed, aims)

    def propose(self) -> tuple[int, ...]:
        self.text = self.strategy.propose()
        return tuple(self.text.indices)

    def observe(self, accuracy: float, figures: Figures) -> None:
        self.strategy.observe(self.text, accuracy, figures)


class _ScalarisedEvolution:
    def __init__(self, name: str, space: Any, seed: int, task: Task, look_up: LookUp) -> None:
        from nasdsl.search.strategies.evolution import Evolution

        weights = random.Random(seed + 1000)

        class Scalarised(Evolution):
            def _parent(self) -> tuple[int, ...]:
                drawn = [self._rng.choice(self._members)[0] for _ in range(self.sample)]
                rows = {indices: look_up(indices) for indices, _ in self._members}
                points = {i: (-a, *(f[cost] for cost in task.costs)) for i, (a, f) in rows.items()}
                axes = list(zip(*points.values(), strict=True))
                low, span = [min(axis) for axis in axes], [max(axis) - min(axis) or 1.0 for axis in axes]
                weight = [weights.expovariate(1) for _ in axes]  # uniform over the simplex

                def value(indices: tuple[int, ...]) -> float:
                    return sum(w * (v - a) / s for w, v, a, s in zip(weight, points[indices], low, span, strict=True))

                return min(drawn, key=value)

        self.strategy = Scalarised(space, seed)

    propose = _Ours.propose
    observe = lambda self, accuracy, figures: self.strategy.observe(self.text, accuracy)  # noqa: E731


class _Optuna:
    def __init__(self, name: str, space: Any, seed: int, task: Task, look_up: LookUp) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        kind = optuna.samplers.NSGAIISampler if "nsga2" in name else optuna.samplers.TPESampler
        directions = ["maximize", *("minimize" for _ in task.costs)]
        self.study = optuna.create_study(directions=directions, sampler=kind(seed=seed))
        self.space, self.task = space, task

    def propose(self) -> tuple[int, ...]:
        self.trial = self.study.ask()
        return tuple(self.trial.suggest_categorical(f"d{d.index}", range(d.size)) for d in self.space.domains)

    def observe(self, accuracy: float, figures: Figures) -> None:
        self.study.tell(self.trial, [accuracy, *(figures[cost] for cost in self.task.costs)])


STRATEGIES: dict[str, Any] = {
    "bayes": _Ours,
    "nsga2": _Ours,
    "scalarised evolution": _ScalarisedEvolution,
    "random": _Ours,
    "optuna nsga2": _Optuna,
    "optuna tpe": _Optuna,
}

# --------------------------------------------------------------------------------------------------------- runs


class Job(NamedTuple):
    """The settings of a run."""

    task: str
    strategy: str
    seed: int
    evaluations: int


class Run(NamedTuple):
    """The result of a job.

    Attributes:
        shares: [evaluations], the share of the hypervolume after each evaluation.
        milliseconds: processor time of the strategy per proposal.
    """

    job: Job
    shares: list[float]
    milliseconds: float


def run(job: Job, tables: Path) -> Run:
    """Run one search."""
    import torch

    torch.set_num_threads(1)
    task = TASKS[job.task]
    space, look_up, every = table_of(task.table, tables)
    start = time.process_time()
    strategy = STRATEGIES[job.strategy](job.strategy, space, job.seed, task, look_up)
    evaluated = []
    for _ in range(job.evaluations):
        evaluated.append(look_up(strategy.propose()))
        strategy.observe(*evaluated[-1])
    spent = time.process_time() - start
    return Run(job, Measure(every, task.costs).shares(evaluated), 1000 * spent / job.evaluations)


class RunFile:
    """Runs in a file, one per line, each as the evaluations at which its share changed."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.runs: dict[Job, Run] = {}
        for line in path.read_text().splitlines() if path is not None and path.exists() else ():
            item = json.loads(line)
            job = Job(*item["job"])
            steps, shares = item["shares"], [0.0]
            for number in range(1, job.evaluations + 1):
                shares.append(steps.get(str(number), shares[-1]))
            self.runs[job] = Run(job, shares[1:], item["milliseconds"])

    def add(self, made: Run) -> None:
        self.runs[made.job] = made
        if self.path is not None:
            steps = {n: share for n, share in enumerate(made.shares, 1) if n == 1 or share != made.shares[n - 2]}
            with self.path.open("a") as file:
                file.write(json.dumps({"job": made.job, "shares": steps, "milliseconds": made.milliseconds}) + "\n")


# ------------------------------------------------------------------------------------------------------- report


def report(task: str, runs: dict[str, list[Run]], budgets: tuple[int, ...]) -> str:
    """The markdown table of a task, in percent of the hypervolume."""
    lines = [
        f"| {task} | " + " | ".join(f"at {n}" for n in budgets) + " | as nsga2 | ms |",
        "|---" * (len(budgets) + 3) + "|",
    ]
    means = {name: [statistics.fmean(at) for at in zip(*(r.shares for r in own), strict=True)] for name, own in runs.items()}
    target = means["nsga2"][-1] if "nsga2" in means else math.inf
    for name, own in runs.items():
        reached = next((n for n, mean in enumerate(means[name], 1) if mean >= target - 1e-12), None)
        cells = []
        for n in budgets:
            shares = [100 * r.shares[n - 1] for r in own]
            mean, error = tabular.mean_and_error(shares)
            cells.append(f"{mean:.2f} ± {error:.2f} ({min(shares):.1f})")
        lines.append(
            f"| {name} | {' | '.join(cells)} | {reached or '-'} | {statistics.fmean(r.milliseconds for r in own):.1f} |"
        )
    return "\n".join(lines)


def plot(runs: dict[str, dict[str, list[Run]]], path: Path) -> None:
    """Draw a panel per task: the missing share of the hypervolume after each evaluation, with a band over seeds."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "fronts"  # the same picture from the same runs
    figure, panels = pyplot.subplots(1, len(runs), figsize=(4 * len(runs), 3.6), squeeze=False, layout="constrained")
    for panel, (task, strategies) in zip(panels[0], runs.items(), strict=True):
        for name, own in strategies.items():
            columns = [sorted(100 * (1 - share) for share in at) for at in zip(*(r.shares for r in own), strict=True)]
            numbers = range(1, len(columns) + 1)
            (line,) = panel.plot(numbers, [statistics.fmean(c) for c in columns], label=name, linewidth=1.4)
            tenth = max(0, round(len(own) / 10) - 1)
            low, high = [max(c[tenth], 1e-3) for c in columns], [c[-1 - tenth] for c in columns]
            panel.fill_between(numbers, low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        panel.set(title=task, xlabel="evaluations", xlim=(0, len(columns)), yscale="log", ylim=(0.1, 60))
        panel.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("missing hypervolume (%)")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
    pyplot.close(figure)


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--strategies", nargs="*", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, nargs="*", default=[50, 100, 200, 400])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="append each run to this file, and skip those in it")
    parser.add_argument("--plot", type=Path, help="draw the missing hypervolume to this file, .svg or .png")
    given = parser.parse_args()
    budgets = tuple(sorted(given.evaluations))
    saved = RunFile(given.json)
    jobs = {
        task: {name: [Job(task, name, seed, budgets[-1]) for seed in range(given.seeds)] for name in given.strategies}
        for task in given.tasks
    }
    missing = [job for of_task in jobs.values() for group in of_task.values() for job in group if job not in saved.runs]
    missing.sort(key=lambda job: job.seed)  # so that an interrupted comparison has the same seeds of all
    # One thread per process, because the strategies' matrices are small.
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        for made in pool.imap_unordered(partial(run, tables=given.tables), missing, chunksize=1):
            saved.add(made)
            print(
                f"{made.job.task}, {made.job.strategy}, seed {made.job.seed}: {100 * made.shares[-1]:.2f} %",
                file=sys.stderr,
                flush=True,
            )
    runs = {task: {name: [saved.runs[job] for job in group] for name, group in of.items()} for task, of in jobs.items()}
    for task, of_task in runs.items():
        print(report(task, of_task, budgets), end="\n\n")
    print(f"{os.cpu_count()} CPU cores, Python {platform.python_version()}, torch {torch.__version__}.")
    if given.plot:
        plot(runs, given.plot)


if __name__ == "__main__":
    main()
