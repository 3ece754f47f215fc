"""Compares nasdsl's strategies with the samplers of Optuna and NePS, on the tasks of `tables.py`, with the same seeds.

    pip install 'nasdsl[optuna,neps]'
    python benchmarks/other_optimizers.py --tables DIR --json runs.json [--seeds 20] [--slow-seeds 3] [--plot FILE]

The others see the space through `nasdsl.spaces.adapters`, with their defaults:

    optuna tpe      TPESampler(multivariate=True, group=True): for conditional parameters
    optuna gp       GPSampler, a Gaussian process
    neps evolution  neps_regularized_evolution, on nested decisions
    neps bo         bayesian_optimization, a Gaussian process (BoTorch); all decisions flat, as it knows no nested ones

The two Gaussian processes are slower by far, so that they have fewer seeds and evaluations (`--slow-seeds`,
`--slow-evaluations`). Each run is appended to `--json` when it ends, and those in the file are not repeated;
seeds are run in turn, so that a run that is stopped has whole seeds. `--report` only prints and draws what is there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import random
import sys
import warnings
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from tables import TASKS, Job, RunFile, plot, report, run

OURS = ("bayes", "ppo", "evolution", "random")
QUICK, SLOW = ("optuna tpe", "neps evolution"), ("optuna gp", "neps bo")
DEFAULT_TASKS = ("NAS-Bench-Macro", "NAS-Bench-201", "nested, made up")


class Optuna:
    """A sampler of Optuna as a strategy."""

    def __init__(self, kind: str, space: Any, seed: int) -> None:
        import optuna

        from nasdsl.spaces.adapters import OptunaProblem

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore")
        samplers = {"tpe": partial(optuna.samplers.TPESampler, multivariate=True, group=True), "gp": optuna.samplers.GPSampler}
        self._study = optuna.create_study(direction="maximize", sampler=samplers[kind](seed=seed))
        self._problem = OptunaProblem(space, lambda text: 0.0)

    def propose(self) -> Any:
        self._trial = self._study.ask()
        return self._problem.suggest(self._trial)

    def observe(self, text: Any, reward: float) -> None:
        self._study.tell(self._trial, reward)


class Neps:
    """An algorithm of NePS as a strategy. NePS draws from the global generators."""

    def __init__(self, kind: str, space: Any, seed: int) -> None:
        import neps
        import numpy
        import torch

        from nasdsl.spaces.adapters import NepsProblem

        warnings.simplefilter("ignore")
        random.seed(seed)
        numpy.random.seed(seed)
        torch.manual_seed(seed)
        self._problem = NepsProblem(space, lambda text: 0.0, flat=kind == "bo")
        algorithms = {"evolution": neps.algorithms.neps_regularized_evolution, "bo": neps.algorithms.bayesian_optimization}
        self._neps = neps.AskAndTell(optimizer=algorithms[kind](self._problem.pipeline_space))

    def propose(self) -> Any:
        self._trial = self._neps.ask()
        return self._problem.text(self._trial.config)

    def observe(self, text: Any, reward: float) -> None:
        self._neps.tell(self._trial.metadata.id, -reward)


def make(name: str, space: Any, seed: int) -> Any:
    """A strategy by its name."""
    from nasdsl.search.strategies import make_strategy

    package, _, kind = name.partition(" ")
    if not kind:
        return make_strategy(name, space, seed)
    return {"optuna": Optuna, "neps": Neps}[package](kind, space, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), default=list(DEFAULT_TASKS))
    parser.add_argument("--strategies", nargs="*", choices=[*OURS, *QUICK, *SLOW], default=[*OURS, *QUICK, *SLOW])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--slow-seeds", type=int, default=3)
    parser.add_argument("--evaluations", type=int, nargs="*", default=[25, 50, 100, 200])
    parser.add_argument("--slow-evaluations", type=int, default=50)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, required=True, help="append each run to this file, and skip those in it")
    parser.add_argument("--plot", type=Path, help="draw the means to this file, .svg or .png")
    parser.add_argument("--report", action="store_true", help="run nothing")
    given = parser.parse_args()
    budgets = tuple(sorted(given.evaluations))
    saved = RunFile(given.json)

    def jobs_of(task: str, name: str) -> list[Job]:
        seeds, evaluations = (given.slow_seeds, given.slow_evaluations) if name in SLOW else (given.seeds, budgets[-1])
        return [Job(task, name, seed, evaluations, False) for seed in range(seeds)]

    jobs = {task: {name: jobs_of(task, name) for name in given.strategies} for task in given.tasks}
    missing = [job for of_task in jobs.values() for own in of_task.values() for job in own if job not in saved.runs]
    missing.sort(key=lambda job: job.seed)
    if not given.report and missing:
        with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
            for made in pool.imap_unordered(partial(run, tables=given.tables, make=make), missing, chunksize=1):
                saved.add(made)
                print(f"{made.job}: {made.best[-1]:.3f}, {made.milliseconds:.0f} ms", file=sys.stderr, flush=True)
    runs = {
        task: {name: found for name, own in of.items() if (found := [saved.runs[job] for job in own if job in saved.runs])}
        for task, of in jobs.items()
    }
    for task, of_task in runs.items():
        if of_task:
            print(report(task, of_task, budgets), end="\n\n")
    packages = ("optuna", "neural-pipeline-search", "torch")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    print(f"{os.cpu_count()} CPU cores, Python {platform.python_version()}, {versions}.")
    if given.plot:
        plot({task: of for task, of in runs.items() if of}, given.plot)


if __name__ == "__main__":
    main()
