"""Compares evaluations per hour of one worker process and of two, with one core each.

    python benchmarks/workers.py [--trials 12] [--rounds 3] [--data shapes]

The same random samples of the paper's FPN space at width 32 are evaluated on the proxy task (features of `tiny` on synthetic
shapes, made beforehand) by `process:1` and `process:2` in turn, with one thread per worker. The time is that from the first
proposal to the last result, without the start of the processes. Needs a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # inherited by the workers: one core each


def measure_seconds(workers: int, count: int, data: str, cache: str, folder: Path) -> float:
    """Seconds from the first proposal to the last result of a search."""
    import nasdsl
    from nasdsl.search import ProxyEvaluation, load_trials
    from nasdsl.training.proxy import ProxySpec

    spec = ProxySpec(
        data, backbone="tiny", size=96, longest=160, iterations=30, batch_size=8, method={"reference_size": None}, cache=cache
    )
    evaluate = ProxyEvaluation(spec, quiet=True)
    evaluate.prepare(keep=False)
    space = nasdsl.load_space(nasdsl.resources.folder("genotypes") / "spaces" / "nas_fcos_fpn.nas", backbone="tiny", classes=5)
    space = space.with_width(32)
    nasdsl.search(space, evaluate, "random", count, out=folder, workers=f"process:{workers}", batch=2 * workers, quiet=True)
    trials = load_trials(folder)
    assert all(trial.verdict == "ok" for trial in trials)
    return max(t.finished for t in trials) - min(t.proposed for t in trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", default="shapes")
    given = parser.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for round in range(given.rounds):
            one, two = (
                measure_seconds(workers, given.trials, given.data, f"{folder}/features", Path(folder) / f"{round}_{workers}")
                for workers in (1, 2)
            )
            ratios.append(one / two)
            print(
                f"round {round}: 1 worker {3600 * given.trials / one:.0f} evaluations per hour, 2 workers "
                f"{3600 * given.trials / two:.0f}, ratio {ratios[-1]:.2f}",
                flush=True,
            )
    import torch

    print(
        f"median ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); {os.cpu_count()} CPU cores, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
