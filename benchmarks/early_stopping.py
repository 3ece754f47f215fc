"""Rules of early stopping, replayed over a search that went without one: what each would have saved, and lost.

    python benchmarks/early_stopping.py RUN [--rules median:10 quantile:0.5:10 …] [--iterations N]

RUN is the folder of a search on the proxy task, whose journal has the loss of every sample at the check steps. Shown are the
share of samples that the rule would have given up, the share of training steps that it would have saved, and of the final
best 10 %, the best five and the best one how many it would have given up: these are its errors. `regret` is what the best
sample of the search is better by than the best that the rule would have left. The strategy is not replayed: told of failures
in the place of rewards, it would have gone on to other samples. `agreement` of a check step is the rank correlation (Spearman)
of the losses there with the final scores, that is how much a rule can know at all.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np

from nasdsl.search.early_stopping import Past, StoppingRule
from nasdsl.search.early_stopping_replay import judge, load_history
from nasdsl.search.objective import Objective
from nasdsl.search.results import History
from nasdsl.search.trial import OK

RULES = ("median:10", "median:20", *(f"quantile:{q}:{n}" for n in (10, 20) for q in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)))


def agreement(history: History) -> dict[int, float]:
    """Of each check step, the rank correlation of the losses with minus the scores."""
    objective = Objective.parse((history.start or {}).get("objective", "reward"))
    pairs: dict[int, list[tuple[float, float]]] = {}
    for trial in history.results.values():
        past = Past.of(trial, objective) if trial.verdict == OK else None
        if past is not None and trial.score is not None:
            lowest = math.inf
            for step, loss in past.curve.items():
                lowest = min(lowest, loss)
                pairs.setdefault(step, []).append((lowest, -trial.score))
    # Of ranks, the correlation is Spearman's; losses are hardly ever equal.
    ranks = {step: np.array(found).argsort(axis=0).argsort(axis=0) for step, found in sorted(pairs.items())}
    return {step: float(np.corrcoef(found.T)[0, 1]) for step, found in ranks.items() if len(found) > 1}


def report(history: History, rules: list[str], iterations: int | None) -> str:
    """The table, in Markdown."""
    lines = [f"agreement at step {step}: {found:.3f}" for step, found in agreement(history).items()]
    lines += ["", "| rule | stopped | steps saved | lost of the best 10 % | of the best 5 | the best | regret |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for text in rules:
        rule = StoppingRule.parse(text)
        if rule is None:
            continue
        j = judge(history, rule, iterations)
        lines.append(
            f"| `{j.rule}` | {j.stopped} of {j.samples} ({j.stopped / j.samples:.0%}) | {j.saved:.1%} "
            f"| {j.lost_of_tenth} of {j.tenth} | {j.lost_of_five} | {'lost' if j.lost_best else 'kept'} | {j.regret:.4g} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a search")
    parser.add_argument("--rules", nargs="*", default=list(RULES), help="as `nasdsl search --early-stop` takes them")
    parser.add_argument("--iterations", type=int, help="steps of a whole training, where the journal does not say")
    given = parser.parse_args()
    print(report(load_history(given.run), given.rules, given.iterations))


if __name__ == "__main__":
    main()
