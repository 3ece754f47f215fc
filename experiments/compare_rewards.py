"""Rank correlations of rewards with AP after a full training.

    python experiments/compare_rewards.py [--epochs 24 | 6] [--other-sizes] [--plot rewards.png]
    python experiments/compare_rewards.py --results rewards_coco.jsonl --truth steps240

Reads `trained.csv` and `rewards.jsonl`, and prints a table in Markdown: for each proxy task and each reward that can be
computed from it, the mean processor seconds of an evaluation, Spearman's and Kendall's correlation with AP (the mean of val
and test, and of the seeds), the 95 % interval of the former when the decoders are drawn again with replacement, and each
seed's own. With `--truth` the losses of a longer proxy task take the place of AP, where there are no full trainings. Needs
scipy (`pip install 'nasdsl[dev]'`).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from rewards import RESULTS, Detector
from scipy.optimize import curve_fit
from scipy.stats import kendalltau, rankdata, spearmanr
from trained import BASE, TABLE, Table

REFERENCE: Final = "fcos"
UNASSIGNED: Final = 2.8
"""About the loss of a decoder that has learnt nothing."""
DRAWS: Final = 2000
Line = Mapping[str, Any]


class Row(NamedTuple):
    """A reward of a proxy task, compared with the truth."""

    setting: str
    reward: str
    seeds: int
    seconds: float
    count: int
    spearman: float
    low: float
    high: float
    kendall: float
    each: tuple[float, ...]


def truth(table: Table, epochs: int) -> dict[Detector, float]:
    """AP in percent of each detector after this many epochs: the mean of val and test, and of the seeds."""
    found: dict[Detector, list[float]] = {}
    for row in table.rows():
        if int(row["epochs"]) == epochs:
            ap = statistics.fmean(float(row[name]) for name in ("ap_val", "ap_test") if row[name])
            found.setdefault(Detector(row["decoder"], int(row["width"]), row["size"]), []).append(ap)
    return {detector: statistics.fmean(aps) for detector, aps in found.items()}


def _extrapolated(line: Line, reference: Line | None) -> float:
    """Minus the training loss that a power law through the curve has at four times the steps."""
    curve = np.array(line["curve"])
    steps = np.arange(1, len(curve) + 1)

    def law(step: Any, end: float, height: float, power: float) -> Any:
        return end + height * step**-power

    try:
        bounds = ([0, 0, 0.05], [10, 50, 2])
        fitted, _ = curve_fit(law, steps[2:], curve[2:], (curve[-1], curve[2], 0.5), bounds=bounds, maxfev=5000)
    except (RuntimeError, ValueError):
        return -float(curve[-10:].mean())
    return -float(law(4 * len(curve), *fitted))


def _per_positive(line: Line, reference: Line | None) -> float:
    """Minus the sum of the losses where classification is divided by positives, and not by positives and crops."""
    more = line["crops"] / line["positives"]
    return -sum(line["losses"].values()) - more * float(line["losses"]["classification"])


def _with_unassigned(line: Line, reference: Line | None) -> float:
    """Minus the loss where a box that no location is assigned counts `UNASSIGNED`."""
    share = float(line["unassigned"])
    return -(1 - share) * sum(line["losses"].values()) - share * UNASSIGNED


def _relative(line: Line, reference: Line | None) -> float:
    """Minus the mean of the losses, each divided by that of the reference decoder."""
    return math.nan if reference is None else -statistics.fmean(
        line["losses"][name] / reference["losses"][name] for name in line["losses"]
    )  # fmt: skip


REWARDS: Final[Mapping[str, Callable[[Line, Line | None], float]]] = {
    "loss": lambda line, _: -sum(line["losses"].values()),
    "loss without centerness": lambda line, _: -line["losses"]["classification"] - line["losses"]["bbox_regression"],
    "classification loss": lambda line, _: -line["losses"]["classification"],
    "box loss": lambda line, _: -line["losses"]["bbox_regression"],
    "loss per positive": _per_positive,
    "loss, unassigned boxes count": _with_unassigned,
    "losses relative to fcos": _relative,
    "AP": lambda line, _: float(line["ap"]),
    "training loss, last tenth": lambda line, _: -statistics.fmean(line["curve"][-(len(line["curve"]) // 10) :]),
    "training loss, mean": lambda line, _: -statistics.fmean(line["curve"]),
    "training loss, extrapolated": _extrapolated,
}
"""Rewards by name, from a line and that of the reference decoder with the same proxy task."""


def read(path: Path) -> list[dict[str, Any]]:
    """The lines without errors."""
    return [line for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if "error" not in line]


def rewards_of(lines: Sequence[Line]) -> dict[tuple[str, str], dict[tuple[Detector, int], float]]:
    """Rewards of each detector and seed by proxy task and name of the reward."""
    references = {
        (line["setting"], line["size"], line["seed"]): line
        for line in lines
        if line["decoder"] == REFERENCE and line["width"] == BASE[0] and "losses" in line
    }
    found: dict[tuple[str, str], dict[tuple[Detector, int], float]] = {}
    for line in lines:
        detector = Detector(line["decoder"], line["width"], line["size"])
        if "scores" in line:
            values = dict(line["scores"])
        else:
            reference = references.get((line["setting"], line["size"], line["seed"]))
            values = {name: function(line, reference) for name, function in REWARDS.items()}
        for name, value in values.items():
            if not math.isnan(value):
                found.setdefault((line["setting"], name), {})[detector, line["seed"]] = value
    return found


def seconds_of(lines: Sequence[Line], setting: str, reward: str) -> float:
    """Mean processor seconds of an evaluation of the decoders at the smallest detector."""
    times = [line["cpu_s"] for line in lines if line["setting"] == setting and (line["width"], line["size"]) == BASE]
    return statistics.fmean(each[reward] if isinstance(each, dict) else each for each in times)


def compare(lines: Sequence[Line], known: Mapping[Detector, float], *, other_sizes: bool) -> list[Row]:
    """All rewards, compared with AP on the detectors that have both."""
    rows = []
    for (setting, name), values in rewards_of(lines).items():
        detectors = [d for d in known if other_sizes or d[1:] == BASE]
        counts = {seed: sum((d, seed) in values for d in detectors) for _, seed in values}
        seeds = sorted(seed for seed, count in counts.items() if count == max(counts.values()))  # unfinished ones do not count
        each = []
        for seed in seeds:
            both = [(values[d, seed], known[d]) for d in detectors if (d, seed) in values]
            each.append(_spearman(both))
        seconds = seconds_of(lines, setting, name)
        groups = [(1, [seeds[0]]), (2, seeds)] if len(seeds) > 1 else [(1, seeds)]
        for count, some in groups:
            pairs = [
                (statistics.fmean(values[d, seed] for seed in some), known[d])
                for d in detectors
                if all((d, seed) in values for seed in some)
            ]
            if len(pairs) < 4:
                continue
            low, high = _interval(pairs)
            kendall = float(kendalltau(*zip(*pairs, strict=True)).statistic)
            own = tuple(each) if count == 1 else ()
            value = statistics.fmean(each) if count == 1 else _spearman(pairs)
            rows.append(Row(setting, name, count, count * seconds, len(pairs), value, low, high, kendall, own))
    return rows


def _spearman(pairs: Sequence[tuple[float, float]]) -> float:
    return float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else math.nan


def _interval(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """95 % interval of Spearman's correlation of one seed, or of the mean of several, by bootstrap over the decoders."""
    drawn = np.random.default_rng(0).integers(len(pairs), size=(DRAWS, len(pairs)))
    ranks = [rankdata(np.array(values)[drawn], axis=1) for values in zip(*pairs, strict=True)]
    centered = [each - each.mean(axis=1, keepdims=True) for each in ranks]
    x, y = (each / np.sqrt((each**2).sum(axis=1, keepdims=True)).clip(1e-9) for each in centered)
    varied = [each.std(axis=1) > 0 for each in ranks]
    found = (x * y).sum(axis=1)[varied[0] & varied[1]]
    if not len(found):  # all rewards are equal
        return math.nan, math.nan
    low, high = np.percentile(found, [2.5, 97.5])
    return float(low), float(high)


def as_markdown(rows: Sequence[Row]) -> str:
    """The table."""
    head = "| proxy task | reward | seeds | seconds | decoders | Spearman | 95 % | Kendall | each seed |\n|" + "---|" * 9
    lines = [
        f"| {r.setting} | {r.reward} | {r.seeds} | {r.seconds:.2g} | {r.count} | {r.spearman:.2f} "
        f"| {r.low:.2f} to {r.high:.2f} | {r.kendall:.2f} | {', '.join(f'{x:.2f}' for x in r.each)} |"
        for r in rows
    ]
    return "\n".join([head, *lines])


def plot(rows: Sequence[Row], path: Path, title: str) -> None:
    """Seconds against Spearman's correlation."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    shown = {"loss": "o", "loss without centerness": "s", "AP": "^", "training loss, mean": "v"}
    zero = {"gradient_norm": "+", "synflow": "x", "jacobian_covariance": "1"}
    figure, axes = plt.subplots(figsize=(8, 5))
    settings = sorted(
        {r.setting for r in rows if r.reward in shown}, key=lambda s: min(r.seconds for r in rows if r.setting == s)
    )
    colors = {name: plt.get_cmap("tab10")(i % 10) for i, name in enumerate(settings)}
    shift = {name: 1.06 ** (i - 1.5) for i, name in enumerate(shown)}
    for r in rows:
        marker = shown.get(r.reward) or zero.get(r.reward)
        if marker is None:
            continue
        x, color = r.seconds * shift.get(r.reward, 1), colors.get(r.setting, "grey")
        axes.plot([x, x], [r.low, r.high], color=color, alpha=0.25, linewidth=1)
        axes.plot(x, r.spearman, marker, color=color, fillstyle="full" if r.seeds == 1 else "none", markersize=7)
    axes.axhline(0.85, color="grey", linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("processor seconds of an evaluation (hollow: two seeds)")
    axes.set_ylabel("Spearman's correlation with AP")
    axes.set_title(title, fontsize=10)
    legend = [plt.Line2D([], [], marker=m, linestyle="", color="grey", label=n) for n, m in (shown | zero).items()]
    legend += [plt.Line2D([], [], marker="o", linestyle="", color=c, label=n) for n, c in colors.items()]
    axes.legend(handles=legend, fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--epochs", type=int, default=24, help="length of the full trainings to compare with")
    parser.add_argument("--truth", metavar="SETTING", help="compare with the losses of this proxy task instead")
    parser.add_argument("--other-sizes", action="store_true", help="with detectors of other widths and sizes")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    table = Table(given.table)
    known, short = truth(table, given.epochs), truth(table, 6)
    lines = read(given.results)
    if given.truth:
        known = {
            Detector(x["decoder"], x["width"], x["size"]): REWARDS["loss"](x, None)
            for x in lines
            if x["setting"] == given.truth
        }
        lines = [line for line in lines if line["setting"] != given.truth]
    rows = compare(lines, known, other_sizes=given.other_sizes)
    print(as_markdown(rows))
    if given.truth:
        return
    both = [(short[d], known[d]) for d in known if d in short and (given.other_sizes or d[1:] == BASE)]
    if given.epochs != 6 and len(both) > 2:
        print(f"\na full training of 6 epochs: {_spearman(both):.2f} with {given.epochs} epochs, on {len(both)} decoders")
    if given.plot:
        plot(rows, given.plot, f"AP after {given.epochs} epochs on blood cells, {max(r.count for r in rows)} decoders")


if __name__ == "__main__":
    main()
