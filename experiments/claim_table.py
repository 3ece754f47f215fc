"""The table and plot of `experiments/claim.jsonl`.

    python experiments/claim_table.py [--plot docs/pictures/claim.png]

For each budget and contestant: its evaluations, and of its finalist with the highest mean AP on val the predicted milliseconds,
and AP on val and test (mean and standard deviation of the seeds). Against `OURS` the difference in AP on test has a 95 %
interval: Student's, of the means of two groups of trainings with variances of their own (Welch). Needs scipy and matplotlib
(`pip install 'nasdsl[dev]'`).
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from claim import CONTESTANTS, HERE
from scipy.stats import t
from trained import read_lines

import nasdsl

TITLES: Final = {
    "search": "search", "random": "best of random samples", "grid": "grid by hand: fcos, panet", "nas_fcos": "nas_fcos",
    "decoder": "search of the decoder alone", "gfl": "grid by hand: gfl", "search_gfl": "search, with the prediction of GFL",
    "random_gfl": "best of random samples, with the prediction of GFL",
}  # fmt: skip


OURS: Final = "search_gfl"
"""What the others are compared with."""


class Choice(NamedTuple):
    """What a contestant has come to: the trainings of its best finalist."""

    budget: int
    contestant: str
    finalists: int
    trainings: list[dict[str, Any]]

    @property
    def test(self) -> list[float]:
        """AP on test of each seed."""
        return [row["ap_test"] for row in self.trainings]


def choices(rows: Sequence[dict[str, Any]], epochs: int) -> list[Choice]:
    """The best finalist of each contestant, by mean AP on val."""
    found = []
    for budget in sorted({row["budget"] for row in rows}):
        for contestant in CONTESTANTS:
            own = [r for r in rows if (r["budget"], r["contestant"], r["epochs"]) == (budget, contestant, epochs)]
            ranks = {rank: [r for r in own if r["rank"] == rank] for rank in sorted({r["rank"] for r in own})}
            if ranks:
                most = max(map(len, ranks.values()))
                full = [group for group in ranks.values() if len(group) == most]  # unfinished ones do not count
                best = max(full, key=lambda group: statistics.fmean(r["ap_val"] for r in group))
                found.append(Choice(budget, contestant, len(full), best))
    return found


def difference(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Mean of `a` minus mean of `b`, and half of its 95 % interval (NaN with a single training)."""
    value = statistics.fmean(a) - statistics.fmean(b)
    if min(len(a), len(b)) < 2:
        return value, math.nan
    parts = [statistics.variance(x) / len(x) for x in (a, b)]
    if sum(parts) == 0:
        return value, 0.0
    freedom = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True))
    return value, float(t.ppf(0.975, freedom)) * math.sqrt(sum(parts))


def described(text: str) -> str:
    """Size and width of a detector."""
    decoder = nasdsl.loads(text)
    assert decoder.size is not None
    return f"{decoder.size[0]}x{decoder.size[1]}, width {decoder.architecture.fpn.width}"


def as_markdown(found: Sequence[Choice]) -> str:
    """A row for each choice."""
    lines = [
        f"| budget | chosen by | evaluations | detector | ms | reward | AP on val | AP on test | against {TITLES[OURS]} |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in found:
        row = one.trainings[0]
        ours = next((x for x in found if (x.budget, x.contestant) == (one.budget, OURS)), None)
        margin = ""
        if ours is not None and one is not ours:
            value, half = difference(one.test, ours.test)
            margin = f"{value:+.1f}" + ("" if math.isnan(half) else f" ± {half:.1f}")
        ap = [_spread([r[f"ap_{split}"] for r in one.trainings]) for split in ("val", "test")]
        lines.append(
            f"| {one.budget}x | {TITLES[one.contestant]} | {row['evaluations']} | {described(row['text'])} | "
            f"{row['latency']:.1f} | {row['reward']:.3f} | {ap[0]} | {ap[1]} | {margin} |"
        )
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    text = f"{statistics.fmean(values):.1f}"
    return text + (f" ± {statistics.stdev(values):.1f} ({len(values)})" if len(values) > 1 else " (1)")


def plot(found: Sequence[Choice], path: Path) -> None:
    """Predicted milliseconds against AP on test, each training and the mean."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5))
    for number, (contestant, title) in enumerate(TITLES.items()):
        color = f"C{number}"
        own = [one for one in found if one.contestant == contestant]
        if not own:
            continue
        x = [one.trainings[0]["latency"] for one in own]
        axes.plot(x, [statistics.fmean(one.test) for one in own], "o-", color=color, label=title)
        for at, one in zip(x, own, strict=True):
            axes.plot([at] * len(one.test), one.test, ".", color=color, alpha=0.4)
    axes.set_xlabel("predicted milliseconds of an image (onnxruntime, one thread)")
    axes.set_ylabel("AP on test")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE / "claim.jsonl")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    found = choices(read_lines(given.results), given.epochs)
    print(as_markdown(found))
    if given.plot:
        plot(found, given.plot)


if __name__ == "__main__":
    main()
