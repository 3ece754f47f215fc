"""How well a weight-sharing network orders decoders, beside the proxy task at equal seconds.

    python experiments/supernet.py --data voc:BCCD --weights mobilenet_v2.pth --cache runs/rewards --work runs/supernets
    python experiments/supernet.py --compare

Trains a network (`nasdsl search --evaluate supernet`) of the paper's fpn space at width 32 for each of `SETTINGS`, in one
thread, with seeds 0 and 1, and scores the samples of this space in `experiments/trained.csv` by the weights that they
inherit. A line is added to `experiments/supernet.jsonl` for each network and number of calibration batches: losses and AP on
meta-val by decoder, processor seconds of the training and of a score. It may be stopped at any time; the same command goes
on. `--settings NAME` and `--seeds 0` make a part of it.

`--compare` prints the correlations with AP after full trainings, of these and of the proxy task (`rewards.jsonl`).

    python experiments/supernet.py --search runs/random --data … --weights … --cache … --work …

scores the trials of a search on the proxy task by each of the networks, and prints Spearman's correlations of these scores
among each other and with the rewards of the search: how much of an order is the network's or the seed's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from rewards import RESULTS as PROXY_RESULTS
from rewards import Detector, make_spec
from trained import BASE, TABLE, Table, counted_seconds, read_lines

import nasdsl
from nasdsl import resources
from nasdsl.search import load_trials
from nasdsl.search.supernet.spec import SupernetSpec
from nasdsl.search.supernet.training import Supernet
from nasdsl.spaces import Filled, Space
from nasdsl.training.proxy import Diverged, ProxyTask

RESULTS: Final = Path(__file__).with_name("supernet.jsonl")
SAMPLES: Final = 8
"""Of the space in the table, `s00` to `s07`."""
SAMPLES_SEED: Final = 100

SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "steps600": {"iterations": 600},
    "steps1200": {"iterations": 1200},
    "steps2400": {"iterations": 2400},
    "rate1": {"iterations": 600, "learning_rate": 1e-3},
    "rate4": {"iterations": 600, "learning_rate": 4e-3},
    "paths4": {"iterations": 150, "paths": 4},
}
"""Trainings by name, changes of `SupernetSpec`; those of 600 fillings cost about as much as eight proxy tasks."""
CALIBRATIONS: Final = (4, 1, 16)
"""Batches on which the statistics of BatchNorms are measured; the first is the default."""


def make_space() -> Space:
    """The paper's fpn space at the width of the table."""
    path = resources.folder("genotypes") / "spaces" / "nas_fcos_fpn.nas"
    return nasdsl.load_space(path, backbone="mobilenet_v2", classes=3).with_width(BASE[0])


def samples(space: Space, table: Table) -> dict[str, Filled]:
    """The samples of the space that were trained in full, by name.

    Raises:
        AssertionError: those of the table are others.
    """
    known = {row["decoder"]: row["text"] for row in table.rows() if (int(row["width"]), row["size"]) == BASE}
    rng = random.Random(SAMPLES_SEED)
    found = {f"s{number:02}": space.sample(rng) for number in range(SAMPLES)}
    for name, text in found.items():
        assert " ".join(space.load(text).canonical.split()) == known[name], f"{name} of the table is another sample"
    return found


def measure(supernet: Supernet, texts: Mapping[str, Filled]) -> dict[str, Any]:
    """Losses and AP of each filling by the weights that it inherits, and the processor seconds of a score."""
    found, began = dict[str, Any](), time.process_time()
    for name, text in texts.items():
        try:
            scored = supernet.score(text)
        except Diverged as error:
            found[name] = {"error": str(error)}
            continue
        losses = {loss: round(value, 5) for loss, value in scored.losses.items()}
        found[name] = {"losses": losses, "ap": round(scored.reward, 5)}
    return {"scores": found, "score_cpu_s": round((time.process_time() - began) / len(texts), 2)}


def run(given: argparse.Namespace) -> None:
    """Make what is missing."""
    torch.set_num_threads(1)
    done = {(line["setting"], line["seed"], line["calibration"]) for line in read_lines(given.out)}
    space = make_space()
    texts = samples(space, Table(given.table))
    for setting in given.settings or SETTINGS:
        for seed in given.seeds:
            missing = [number for number in CALIBRATIONS if (setting, seed, number) not in done]
            if not missing:
                continue
            folder = given.work / f"{setting}_s{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            task = ProxyTask(make_spec(given, "readme", BASE[1], seed), quiet=True)
            spec = SupernetSpec(seed=seed, **SETTINGS[setting])
            supernet = Supernet(space, {(None, None): task}, spec, folder / "supernet.pt", quiet=True)
            with counted_seconds(folder) as counted:
                supernet.train()
            seconds = counted()
            for number in missing:
                supernet.spec = dataclasses.replace(spec, calibration=number)
                line = {"setting": setting, "seed": seed, "calibration": number, "cpu_s": round(seconds, 1)}
                with open(given.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps(line | measure(supernet, texts)) + "\n")
            print(setting, seed, f"{seconds:.0f} s", flush=True)


def agree(given: argparse.Namespace) -> str:
    """Correlations of the scores of a search's trials by the networks and by the search, in Markdown."""
    from scipy.stats import spearmanr

    torch.set_num_threads(1)
    space = make_space()
    trials = {f"{trial.number}": trial for trial in load_trials(given.search).ok}
    columns = {"proxy": {name: float(trial.reward or 0) for name, trial in trials.items()}}
    for setting in given.settings or SETTINGS:
        for seed in given.seeds:
            path = given.work / f"{setting}_s{seed}" / "supernet.pt"
            if not path.exists():
                continue
            task = ProxyTask(make_spec(given, "readme", BASE[1], seed), quiet=True)
            supernet = Supernet(space, {(None, None): task}, SupernetSpec(seed=seed, **SETTINGS[setting]), quiet=True)
            supernet.load(path)
            scores = measure(supernet, {name: trial.text for name, trial in trials.items()})["scores"]
            columns[f"{setting}, seed {seed}"] = {n: reward(line, "loss") for n, line in scores.items() if "losses" in line}
            print(f"{setting}, seed {seed}: {len(scores)} trials scored", flush=True)
    rows = [f"| {len(trials)} trials | {' | '.join(columns)} |", "|" + "---|" * (len(columns) + 1)]
    for name, left in columns.items():
        pairs = [[(left[n], right[n]) for n in left if n in right] for right in columns.values()]
        cells = [f"{spearmanr(*zip(*found, strict=True)).statistic:.2f}" for found in pairs]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


REWARDS: Final = ("loss", "AP")


def reward(line: Mapping[str, Any], name: str) -> float:
    """A reward from losses and AP."""
    return float(line["ap"]) if name == "AP" else -sum(line["losses"].values())


def compare(lines: Sequence[Mapping[str, Any]], proxy: Sequence[Mapping[str, Any]], table: Table) -> str:
    """The table in Markdown: correlations with AP after 24 and after 6 epochs, the mean of the seeds and each seed's."""
    from compare_rewards import truth

    known = {epochs: {d.decoder: ap for d, ap in truth(table, epochs).items() if d[1:] == BASE} for epochs in (24, 6)}
    names = [name for name in known[6] if name in {n for line in lines for n in line["scores"]}]
    found = {
        (str(line["setting"]), f"{line['calibration']}", f"{line['cpu_s']:.0f}", line["seed"]): line["scores"] for line in lines
    }
    by_seed: dict[tuple[str, int], dict[str, Any]] = {}
    for line in proxy:
        if Detector(line["decoder"], line["width"], line["size"])[1:] == BASE and line["decoder"] in names and "losses" in line:
            by_seed.setdefault((line["setting"], line["seed"]), {})[line["decoder"]] = line
    for (setting, seed), scores in by_seed.items():
        if len(scores) == len(names):
            seconds = sum(line["cpu_s"] for line in scores.values())
            found[f"proxy: {setting}", "", f"{seconds:.0f}", seed] = scores
    groups: dict[tuple[str, str], list[tuple[float, Mapping[str, Any]]]] = {}
    for (setting, calibration, seconds, _), scores in found.items():
        groups.setdefault((setting, calibration), []).append((float(seconds), scores))
    head = "| weights from | calibration | reward | seconds | 24 epochs, Spearman | Kendall | 6 epochs, Spearman | Kendall |"
    rows = [head, "|" + "---|" * 8]
    for (setting, calibration), members in groups.items():
        mean = statistics.fmean(seconds for seconds, _ in members)
        for name in REWARDS:
            cells = [_cells([scores for _, scores in members], known[epochs], names, name) for epochs in (24, 6)]
            rows.append(f"| {setting} | {calibration} | {name} | {mean:.0f} | {' | '.join(cells)} |")
    counts = ", ".join(f"{sum(n in known[e] for n in names)} with {e} epochs" for e in known)
    return "\n".join([*rows, "", f"{len(names)} decoders: {counts}"])


def _cells(all_scores: Sequence[Mapping[str, Any]], known: Mapping[str, float], names: Sequence[str], name: str) -> str:
    """Spearman's and Kendall's correlations: the mean of the seeds, in brackets each seed's."""
    from scipy.stats import kendalltau, spearmanr

    cells = []
    for function in (spearmanr, kendalltau):
        each = []
        for scores in all_scores:
            pairs = [(reward(scores[n], name), known[n]) for n in names if n in known and "losses" in scores.get(n, {})]
            each.append(float(function(*zip(*pairs, strict=True)).statistic))
        cells.append(f"{statistics.fmean(each):.2f} ({', '.join(f'{x:.2f}' for x in each)})")
    return " | ".join(cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", help="SPEC of BCCD")
    parser.add_argument("--weights", help="weights of MobileNetV2")
    parser.add_argument("--cache", type=Path, help="folder of cached features")
    parser.add_argument("--work", type=Path, help="folder of the networks")
    parser.add_argument("--table", type=Path, default=TABLE, help="file of full trainings")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--classes", nargs="+", help="of other data (default: all)")
    parser.add_argument("--settings", action="append", choices=list(SETTINGS), help="only these trainings")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--search", type=Path, metavar="RUN", help="score the trials of this search, and train nothing")
    parser.add_argument("--compare", action="store_true", help="train nothing; print the correlations")
    given = parser.parse_args()
    if given.compare:
        print(compare(read_lines(given.out), read_lines(PROXY_RESULTS), Table(given.table)))
        return
    if missing := [name for name in ("data", "weights", "cache", "work") if getattr(given, name) is None]:
        parser.error(f"to train, give {', '.join(f'--{name}' for name in missing)}")
    if given.search is not None:
        print(agree(given))
        return
    run(given)


if __name__ == "__main__":
    main()
