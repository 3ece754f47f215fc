"""Compares search strategies on spaces in which every decoder's reward is known, by the best reward they have found.

    python benchmarks/tables.py --tables DIR [--seeds 20] [--processes 2] [--json FILE] [--plot FILE]

DIR holds `nas_bench_201_12ep.csv` (NAS-Bench-201, arXiv:2001.00326: 15,625 cells after 12 epochs, CIFAR-10) and
`nas_bench_macro.csv` (NAS-Bench-Macro, arXiv:2103.11922: 6,561 networks). Each becomes a space with holes, and the row of a
sample is looked up by its decisions. Two more tasks need no files: synthetic rewards (effects of single decisions and of pairs,
drawn anew for each seed) on a space with nested choices, a pool, a range and a tied draw, and on the paper's FPN space.

Synthetic rewards are in standard deviations from the mean of uniform fillings.

Each strategy runs once per seed; `--json` saves each run when it ends, and skips those in the file. An evaluation is a
proposal, also if it was proposed before (`--distinct` counts different samples only, as a search does, which takes the others
from its journal). `best at n` is the mean over seeds of the best reward after n evaluations, plus or minus its standard error;
`as evolution` is the number of evaluations after which the mean reaches the final mean of regularised evolution. Milliseconds
are processor time of one thread per proposal; a run ends when it has found the optimum. `--plot` draws the means, with bands of
one standard error. The strategy `llm` is compared where `--llm ADDRESS MODEL` names a language model for it.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

# Holes are in the order of the table's names. The language has no op that returns zeros; what `none` computes is not used here.
NAS_BENCH_201 = """
op none(x)         = scale(x)
op skip_connect(x) = x
op nor_conv_1x1(x) = conv(x, k=1)
op nor_conv_3x3(x) = conv(x, k=3)
op avg_pool_3x3(x) = pool(x, k=3, stride=1, kind=avg)
choice op = none | skip_connect | nor_conv_1x1 | nor_conv_3x3 | avg_pool_3x3

decoder nas_bench_201 {
  input c3
  fpn(width=16, norm=bn) {
    n1 = ?op(c3)
    n2 = sum(?op(c3), ?op(n1))
    n3 = sum(sum(?op(c3), ?op(n1)), ?op(n2))
    output p3 = n3
  }
  head(width=16, norm=bn) { skip }
  predict fcos(centerness=cls)
}
"""

NAS_BENCH_MACRO = """
op identity(x) = x
op mb3_k3(x)   = conv(conv(conv(x, k=1, width=48), k=3, groups=48, width=48), k=1, act=none)
op mb6_k5(x)   = conv(conv(conv(x, k=1, width=96), k=5, groups=96, width=96), k=1, act=none)
choice layer = identity | mb3_k3 | mb6_k5

decoder nas_bench_macro {
  input c3
  fpn(width=16, norm=bn) {
    x = skip(c3)
    repeat 8 { x = ?layer(x) }
    output p3 = x
  }
  head(width=16, norm=bn) { skip }
  predict fcos(centerness=cls)
}
"""

NESTED = """
choice conv = conv_1x1 | conv_3x3 | sep_3x3 | dconv_3x3
choice op   = skip | ?conv | ?(down_max | sep_5x5 | sep_3x3_d3)
choice agg  = psum | cat | sum

decoder nested {
  input c3, c4, c5
  let tower = ?conv
  fpn(width=32, norm=bn) {
    repeat t in 1..4 { x[t] = ?agg(?op(?pool), ?(skip | conv_3x3)(?pool)) }
    output p3 = x2, p4 = x3, p5 = x4
  }
  head(width=32, norm=gn, share=?(0..3)) { tower -> ?(skip | ?conv) -> tower }
  predict fcos(centerness=?(cls | box))
}
"""

Reward = Callable[[Any], float]


def nas_bench_201(tables: Path, seed: int) -> tuple[Any, Reward, float]:
    """The space, the validation accuracy of a sample, and the best accuracy."""
    space = space_of(NAS_BENCH_201)
    names = space.domains[0].alternatives
    known = read(tables / "nas_bench_201_12ep.csv", "cell", "cifar10_val")

    def reward(text: Any) -> float:
        a, b, c, d, e, f = (names[index] for index in text.indices)
        return known[f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"]

    return space, reward, max(known.values())


def nas_bench_macro(tables: Path, seed: int) -> tuple[Any, Reward, float]:
    """The space, the mean accuracy of a sample, and the best accuracy."""
    known = read(tables / "nas_bench_macro.csv", "arch", "mean_acc")
    return space_of(NAS_BENCH_MACRO), lambda text: known["".join(str(i) for i in text.indices)], max(known.values())


def nested(tables: Path | None, seed: int) -> tuple[Any, Reward, float]:
    space = space_of(NESTED)
    return space, synthetic_reward(space, seed), math.inf


def paper_fpn(tables: Path | None, seed: int) -> tuple[Any, Reward, float]:
    from nasdsl import resources

    space = space_of((resources.folder("genotypes") / "spaces" / "nas_fcos_fpn.nas").read_text())
    return space, synthetic_reward(space, seed), math.inf


TASKS = {
    "NAS-Bench-201": nas_bench_201,
    "NAS-Bench-Macro": nas_bench_macro,
    "nested, made up": nested,
    "paper's FPN space, made up": paper_fpn,
}


def synthetic_reward(space: Any, seed: int) -> Reward:
    """A sum of normal effects of all active decisions and of as many random pairs of decisions.

    It is in standard deviations from the mean of 1,000 uniform fillings.
    """
    rng = random.Random(1000 + seed)
    places = range(len(space.domains))
    pairs = [tuple(rng.sample(places, 2)) for _ in places]
    effects = {(place, index): rng.gauss() for place in places for index in range(space.domains[place].size)}
    joint = {
        (first, second, i, j): rng.gauss()
        for first, second in pairs
        for i in range(space.domains[first].size)
        for j in range(space.domains[second].size)
    }

    def effect(indices: Sequence[int]) -> float:
        active = space.active(indices)
        total = sum(effects[place, index] for place, index in enumerate(indices) if active[place])
        for first, second in pairs:
            if active[first] and active[second]:
                total += joint[first, second, indices[first], indices[second]]
        return total

    uniform = [effect([rng.randrange(domain.size) for domain in space.domains]) for _ in range(1000)]
    mean, deviation = statistics.fmean(uniform), statistics.stdev(uniform)
    return lambda text: (effect(text.indices) - mean) / deviation


@cache
def space_of(text: str) -> Any:
    import nasdsl

    return nasdsl.loads_space(text)


@cache
def read(path: Path, key: str, value: str) -> dict[str, float]:
    with path.open() as file:
        return {row[key]: float(row[value]) for row in csv.DictReader(file)}


class Job(NamedTuple):
    """The settings of a run."""

    task: str
    strategy: str
    seed: int
    evaluations: int
    distinct: bool


class Run(NamedTuple):
    """The result of a job.

    Attributes:
        best: [evaluations], the best reward after each evaluation.
        milliseconds: processor time of the strategy per proposal.
    """

    job: Job
    best: list[float]
    milliseconds: float


def run(job: Job, tables: Path | None = None, make: Callable[[str, Any, int], Any] | None = None) -> Run:
    """Run one search, until it has found the optimum or spent its evaluations.

    Args:
        make: the strategy from its name, the space and the seed. None: nasdsl's.
    """
    import torch

    from nasdsl.search.strategies import make_strategy

    torch.set_num_threads(1)
    task, strategy, seed, evaluations, distinct = job
    space, reward, optimum = TASKS[task](tables, seed)  # type: ignore[operator]  # the first argument may be None for some
    search = (make or make_strategy)(strategy, space, seed)
    best: list[float] = []
    seen = set()
    spent = 0.0
    number = 0
    while number < 20 * evaluations and len(best) < evaluations and best[-1:] < [optimum]:
        number += 1
        start = time.process_time()
        text = search.propose()
        spent += time.process_time() - start
        found = reward(text)
        if not (distinct and text in seen):
            best.append(max([found, *best[-1:]]))
        seen.add(text)
        start = time.process_time()
        search.observe(text, found)
        spent += time.process_time() - start
    return Run(job, best + best[-1:] * (evaluations - len(best)), 1000 * spent / number)


def make_any(llm: Sequence[str] | None, strategy: str, space: Any, seed: int) -> Any:
    """A strategy of nasdsl; `llm` is the address and the model of the one that asks a language model."""
    from nasdsl.search.strategies import make_strategy

    asks = {"address": llm[0], "model": llm[1]} if strategy == "llm" and llm else {}
    return make_strategy(strategy, space, seed, **asks)


class RunFile:
    """Runs in a file, one per line, each as the evaluations at which its best reward changed."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.runs: dict[Job, Run] = {}
        for line in path.read_text().splitlines() if path is not None and path.exists() else ():
            item = json.loads(line)
            job = Job(*item["job"])
            steps = dict(item["best"])
            best: list[float] = []
            for number in range(1, job.evaluations + 1):
                best.append(steps[str(number)] if str(number) in steps else best[-1])
            self.runs[job] = Run(job, best, item["milliseconds"])

    def add(self, made: Run) -> None:
        self.runs[made.job] = made
        if self.path is not None:
            steps = {n: best for n, best in enumerate(made.best, 1) if n == 1 or best != made.best[n - 2]}
            with self.path.open("a") as file:
                file.write(json.dumps({"job": made.job, "best": steps, "milliseconds": made.milliseconds}) + "\n")


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """The mean and its standard error; 0 for a single value."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return statistics.fmean(values), error


def report(task: str, runs: dict[str, list[Run]], budgets: tuple[int, ...]) -> str:
    """The markdown table of a task."""
    lines = [
        f"| {task} | seeds | " + " | ".join(f"best at {n}" for n in budgets) + " | as evolution | ms a proposal |",
        "|---" * (len(budgets) + 4) + "|",
    ]
    means = {name: [statistics.fmean(at) for at in zip(*(r.best for r in own), strict=True)] for name, own in runs.items()}
    target = means["evolution"][-1] if "evolution" in means else math.inf
    for name, own in runs.items():
        reached = next((n for n, mean in enumerate(means[name], 1) if mean >= target - 1e-9), None)
        cells = [str(len(own))]
        spent = len(means[name])
        cells += [
            "{:.3f} ± {:.3f}".format(*mean_and_error([r.best[n - 1] for r in own])) if n <= spent else "-" for n in budgets
        ]
        cells += [str(reached or "-"), f"{statistics.fmean(r.milliseconds for r in own):.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(runs: dict[str, dict[str, list[Run]]], path: Path) -> None:
    """Draw a panel per task: the mean of the best reward after each evaluation, with a band of its standard error."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "strategies"  # the same picture from the same runs
    figure, panels = pyplot.subplots(1, len(runs), figsize=(4 * len(runs), 3.4), squeeze=False, layout="constrained")
    for panel, (task, strategies) in zip(panels[0], runs.items(), strict=True):
        lowest, highest, longest = math.inf, -math.inf, 0
        for name, own in strategies.items():
            columns = list(zip(*(r.best for r in own), strict=True))
            mean, error = zip(*(mean_and_error(list(column)) for column in columns), strict=True)
            numbers = range(1, len(columns) + 1)
            (line,) = panel.plot(numbers, mean, label=name, linewidth=1.4)
            below = [m - e for m, e in zip(mean, error, strict=True)]
            above = [m + e for m, e in zip(mean, error, strict=True)]
            panel.fill_between(numbers, below, above, color=line.get_color(), alpha=0.2, linewidth=0)
            longest = max(longest, len(columns))
            lowest, highest = min(lowest, mean[len(mean) // 20]), max(highest, above[-1])
        margin = 0.04 * (highest - lowest)
        panel.set(title=task, xlabel="evaluations", xlim=(0, longest), ylim=(lowest, highest + margin))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("best reward so far")
    named = {label: line for panel in panels[0] for line, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=110)
    pyplot.close(figure)


def main() -> None:
    import torch

    from nasdsl.search.strategies import STRATEGIES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, help="folder of the tables; without it only synthetic rewards")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), help="default: all, or without --tables the synthetic ones")
    parser.add_argument("--strategies", nargs="*", choices=list(STRATEGIES), help="default: all but llm")
    parser.add_argument("--llm", nargs=2, metavar=("ADDRESS", "MODEL"), help="also compare the strategy llm, with this model")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, nargs="*", default=[200, 500])
    parser.add_argument("--distinct", action="store_true", help="count different samples only")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path, help="append each run to this file, and skip those in it")
    parser.add_argument("--plot", type=Path, help="draw the means to this file, .svg or .png")
    given = parser.parse_args()
    budgets = tuple(sorted(given.evaluations))
    strategies = given.strategies or [name for name in STRATEGIES if name != "llm" or given.llm]
    if "llm" in strategies and not given.llm:
        parser.error("the strategy llm needs --llm ADDRESS MODEL")
    tasks = given.tasks or [name for name in TASKS if given.tables or "made up" in name]
    saved = RunFile(given.json)
    jobs = {
        task: {name: [Job(task, name, seed, budgets[-1], given.distinct) for seed in range(given.seeds)] for name in strategies}
        for task in tasks
    }
    missing = [job for of_task in jobs.values() for group in of_task.values() for job in group if job not in saved.runs]
    # One thread per process, because the strategies' matrices are small.
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        for made in pool.imap_unordered(
            partial(run, tables=given.tables, make=partial(make_any, given.llm)), missing, chunksize=1
        ):
            saved.add(made)
            print(
                f"{made.job.task}, {made.job.strategy}, seed {made.job.seed}: {made.best[-1]:.3f}", file=sys.stderr, flush=True
            )
    runs = {task: {name: [saved.runs[job] for job in group] for name, group in of.items()} for task, of in jobs.items()}
    for task, of_task in runs.items():
        print(report(task, of_task, budgets), end="\n\n")
    print(f"{os.cpu_count()} CPU cores, Python {platform.python_version()}, torch {torch.__version__}.")
    if given.plot:
        plot(runs, given.plot)


if __name__ == "__main__":
    main()
