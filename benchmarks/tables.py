"""Search strategies on spaces of which every decoder's reward is known: what they have found after 200 and 500 evaluations.

    python benchmarks/tables.py --tables DIR [--seeds 20] [--processes 2]

DIR holds `nas_bench_201_12ep.csv` (NAS-Bench-201, arXiv:2001.00326: 15,625 cells after 12 epochs, CIFAR-10) and
`nas_bench_macro.csv` (NAS-Bench-Macro, arXiv:2103.11922: 6,561 networks). Each becomes a space of holes, and a sample's text
is looked up by what stands in them. Two more tasks need no files: made-up rewards (effects of single decisions and of pairs,
drawn anew for each seed) on a space with nested choices, a pool, a range and a tied draw, and on the paper's FPN space.

Each strategy runs once a seed. An evaluation is a proposal: one that was proposed before counts again (`--distinct` counts
different samples only, as in a search, which answers the others from its journal). `best at n` is the mean over seeds of the
best after n evaluations, plus or minus its standard error; `as evolution` is the number of evaluations after which the mean
has reached that of regularised evolution after the last.
"""

from __future__ import annotations

import argparse
import csv
import math
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

# Holes in the order of the table's names. The language has no op that gives zeros: what `none` computes does not matter here.
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
    """The space, the validation accuracy of a sample of it, and the best there is."""
    space = space_of(NAS_BENCH_201)
    names = space.domains[0].alternatives
    known = read(tables / "nas_bench_201_12ep.csv", "cell", "cifar10_val")

    def reward(text: Any) -> float:
        a, b, c, d, e, f = (names[index] for index in text.indices)
        return known[f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"]

    return space, reward, max(known.values())


def nas_bench_macro(tables: Path, seed: int) -> tuple[Any, Reward, float]:
    """The space, the mean accuracy of a sample of it, and the best there is."""
    known = read(tables / "nas_bench_macro.csv", "arch", "mean_acc")
    return space_of(NAS_BENCH_MACRO), lambda text: known["".join(str(i) for i in text.indices)], max(known.values())


def nested(tables: Path | None, seed: int) -> tuple[Any, Reward, float]:
    space = space_of(NESTED)
    return space, made_up(space, seed), math.inf


def paper_fpn(tables: Path | None, seed: int) -> tuple[Any, Reward, float]:
    from nasdsl import resources

    space = space_of((resources.folder("genotypes") / "spaces" / "nas_fcos_fpn.nas").read_text())
    return space, made_up(space, seed), math.inf


TASKS = {
    "NAS-Bench-201": nas_bench_201,
    "NAS-Bench-Macro": nas_bench_macro,
    "nested, made up": nested,
    "paper's FPN space, made up": paper_fpn,
}


def made_up(space: Any, seed: int) -> Reward:
    """Normal effects of every decision and of as many random pairs of decisions; nothing for decisions that do not count."""
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

    def reward(text: Any) -> float:
        flags = space.active(text.indices)
        found = sum(effects[place, index] for place, index in enumerate(text.indices) if flags[place])
        for first, second in pairs:
            if flags[first] and flags[second]:
                found += joint[first, second, text.indices[first], text.indices[second]]
        return float(found)

    return reward


@cache
def space_of(text: str) -> Any:
    import nasdsl

    return nasdsl.loads_space(text)


@cache
def read(path: Path, key: str, value: str) -> dict[str, float]:
    with path.open() as file:
        return {row[key]: float(row[value]) for row in csv.DictReader(file)}


def run(job: tuple[str, str, int, int, bool, str | None]) -> tuple[list[float], float]:
    """The best after each evaluation, and milliseconds a proposal that the strategy took. A run ends at the optimum."""
    import torch

    from nasdsl.search.strategies import make_strategy

    torch.set_num_threads(1)
    task, strategy, seed, evaluations, distinct, tables = job
    space, reward, optimum = TASKS[task](Path(tables) if tables else None, seed)  # type: ignore[operator]  # one of a kind
    search = make_strategy(strategy, space, seed)
    best: list[float] = []
    seen = set()
    spent = 0.0
    number = 0
    while number < 20 * evaluations and len(best) < evaluations and best[-1:] < [optimum]:
        number += 1
        start = time.perf_counter()
        text = search.propose()
        spent += time.perf_counter() - start
        found = reward(text)
        if not (distinct and text in seen):
            best.append(max([found, *best[-1:]]))
        seen.add(text)
        start = time.perf_counter()
        search.observe(text, found)
        spent += time.perf_counter() - start
    return best + best[-1:] * (evaluations - len(best)), 1000 * spent / number


def report(task: str, curves: dict[str, list[list[float]]], milliseconds: dict[str, float], budgets: tuple[int, ...]) -> str:
    """The markdown table of a task."""
    means = {name: [statistics.fmean(at) for at in zip(*runs, strict=True)] for name, runs in curves.items()}
    lines = [
        f"| {task} | " + " | ".join(f"best at {n}" for n in budgets) + " | as evolution | ms a proposal |",
        "|---" * (len(budgets) + 3) + "|",
    ]
    for name, runs in curves.items():
        cells = []
        for n in budgets:
            error = statistics.stdev(r[n - 1] for r in runs) / math.sqrt(len(runs)) if len(runs) > 1 else 0.0
            cells.append(f"{means[name][n - 1]:.3f} ± {error:.3f}")
        bar = means["evolution"][-1] if "evolution" in means else math.inf
        reached = next((n for n, mean in enumerate(means[name], 1) if mean >= bar - 1e-9), None)
        cells.append(str(reached or "-"))
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {milliseconds[name]:.1f} |")
    return "\n".join(lines)


def main() -> None:
    from nasdsl.search.strategies import STRATEGIES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", help="folder of the tables; without it only the made-up rewards")
    parser.add_argument("--tasks", nargs="*", choices=list(TASKS), help="default: those that the arguments allow")
    parser.add_argument("--strategies", nargs="*", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, nargs="*", default=[200, 500])
    parser.add_argument("--distinct", action="store_true", help="count different samples only")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    budgets = tuple(sorted(given.evaluations))
    tasks = given.tasks or [name for name in TASKS if given.tables or "made up" in name]
    # One thread a process: the strategies' matrices are small.
    with multiprocessing.get_context("spawn").Pool(given.processes) as pool:
        for task in tasks:
            curves, milliseconds = {}, {}
            for name in given.strategies:
                jobs = [(task, name, seed, budgets[-1], given.distinct, given.tables) for seed in range(given.seeds)]
                runs = pool.map(run, jobs, chunksize=1)
                curves[name] = [best for best, _ in runs]
                milliseconds[name] = statistics.fmean(spent for _, spent in runs)
            print(report(task, curves, milliseconds, budgets), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
