"""Replays rules of early stopping over a search without one: the steps that each saves, and the good samples it stops.

    python benchmarks/early_stopping.py RUN [--rules median:10 quantile:0.5:10 halving:2:10 …] [--iterations N]

RUN is the folder of a search on the proxy task; its journal has the loss of every sample at the check steps. The table has the
share of samples that a rule stops, the share of training steps that it saves, and how many of the final best 10 %, of the best
five and of the best one it stops: its errors. `best kept` is the rank of the best sample that is not stopped, `regret` the
score of the best sample minus that of this one. `--steps 15 30 45` shows the rules these check steps alone, where the journal
has others too; a rule that has rungs of its own sees those. `--orders 100` is the mean of as many orders of the samples, which
is as good as so many searches where the strategy is random. The strategy is not replayed: given failures instead of rewards, it
would have proposed other samples. `agreement` of a check step is the Spearman correlation of the losses there with the final
scores, a bound on what a rule can know.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import numpy as np

from nasdsl.search.early_stopping import LossCurve, StoppingRule
from nasdsl.search.early_stopping_replay import replay_rule
from nasdsl.search.history import History
from nasdsl.search.objective import Objective
from nasdsl.search.run import load_history
from nasdsl.search.trial import OK

RULES = ("median:10", "median:20", *(f"quantile:{q}:{n}" for n in (10, 20) for q in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)))
RULES += tuple(f"halving:{factor}:{n}" for n in (10, 20) for factor in (2, 3, 4))


def agreement(history: History) -> dict[int, float]:
    """For each check step, the rank correlation of the losses with minus the scores."""
    objective = Objective.parse((history.start or {}).get("objective", "reward"))
    pairs: dict[int, list[tuple[float, float]]] = {}
    for trial in history.results.values():
        curve = LossCurve.from_trial(trial, objective) if trial.verdict == OK else None
        if curve is not None and trial.score is not None:
            lowest = math.inf
            for step, loss in curve.losses.items():
                lowest = min(lowest, loss)
                pairs.setdefault(step, []).append((lowest, -trial.score))
    # The correlation of ranks is Spearman's; losses are hardly ever equal.
    ranks = {step: np.array(rows).argsort(axis=0).argsort(axis=0) for step, rows in sorted(pairs.items())}
    return {step: float(np.corrcoef(rows.T)[0, 1]) for step, rows in ranks.items() if len(rows) > 1}


def reordered(history: History, seed: int) -> History:
    """The evaluated samples in another order, one at a time, as another search of a random strategy could have had them."""
    found, trials = History(), [history.results[number] for number in sorted(history.results)]
    random.Random(seed).shuffle(trials)
    found.start, found.observed_before = history.start, list(range(len(trials)))
    found.results = {number: replace(trial, number=number) for number, trial in enumerate(trials)}
    return found


def report(
    history: History, rules: list[str], iterations: int | None, steps: Collection[int] | None = None, orders: int = 0
) -> str:
    """The table in Markdown; with `orders`, the mean of so many orders of the samples."""
    lines = [f"agreement at step {step}: {correlation:.3f}" for step, correlation in agreement(history).items()]
    lines += ["", "| rule | stopped | steps saved | lost of the best 10 % | of the best 5 | the best | best kept | regret |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    length = iterations if iterations is not None else ((history.start or {}).get("task") or {}).get("iterations")
    histories = [reordered(history, seed) for seed in range(orders)] or [history]
    for text in rules:
        rule = StoppingRule.parse(text)
        if rule is None:
            continue
        own = None if length is None else rule.checks(length)
        found = [replay_rule(one, rule, iterations, own or steps) for one in histories]
        stopped, saved, tenth, five, best, rank, regret = (
            fmean(getattr(r, name) for r in found)
            for name in (
                "stopped", "steps_saved", "stopped_of_top_tenth", "stopped_of_top_five", "stopped_best", "rank_kept", "regret"
            )
        )  # fmt: skip
        lines.append(
            f"| `{found[0].rule}` | {stopped:.4g} of {found[0].samples} ({stopped / found[0].samples:.0%}) | {saved:.1%} "
            f"| {tenth:.3g} of {found[0].top_tenth} | {five:.3g} | {best:.0%} | {rank:.3g} | {regret:.3g} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a search")
    parser.add_argument("--rules", nargs="*", default=list(RULES), help="as `nasdsl search --early-stop` takes them")
    parser.add_argument("--iterations", type=int, help="steps of a training, if the journal does not say")
    parser.add_argument("--orders", type=int, default=0, help="mean of so many orders of the samples; of a random search")
    parser.add_argument("--steps", type=int, nargs="+", help="check steps that the rules see (default: all)")
    given = parser.parse_args()
    print(report(load_history(given.run), given.rules, given.iterations, given.steps, given.orders))


if __name__ == "__main__":
    main()
