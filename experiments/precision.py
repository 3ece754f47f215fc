"""Whether mixed precision ranks decoders as float32 does: 20 samples of the paper's FPN space, each trained in both.

    python experiments/precision.py --data voc:BCCD --weights mobilenet_v2.pth --cache runs/precision

Each sample is trained by the proxy task of a setting in float32 and in bfloat16 (autocast); and, to compare the difference
with others, in float32 in another memory format and with another seed. A line is added to `experiments/precision.jsonl` for
each. It may be stopped at any time; the same command makes what is missing, and then prints Spearman's correlation of the
rewards with those in float32 (`--compare` prints it for the lines that there are). `--setting readme --device cuda` is the
README's proxy task on a GPU. Processors without instructions for bfloat16 take twice as long for it or more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from scipy.stats import spearmanr

import nasdsl
from nasdsl import resources
from nasdsl.training.proxy import ProxySpec, ProxyTask

FPN_SPACE: Final = resources.folder("genotypes") / "spaces" / "nas_fcos_fpn.nas"
RESULTS: Final = Path(__file__).with_name("precision.jsonl")
SAMPLES: Final = 20
WIDTH: Final = 32
RUNS: Final[Mapping[str, Mapping[str, Any]]] = {
    "float32": {},
    "bfloat16": {"precision": "bfloat16"},
    "channels first": {"channels_last": False},
    "seed 1": {"seed": 1},
}
"""Trainings of a sample; what differs from the first is the precision, the order of sums alone, and the seed."""
SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "tiny": {"size": 64, "longest": 107, "batch_size": 4, "iterations": 30, "learning_rate": 0.002},
    "readme": {"size": 128, "longest": 213, "batch_size": 8, "iterations": 60, "learning_rate": 0.002},
}
"""Proxy tasks by name: one that a core trains in seconds, and that of the README's search."""


def make_spec(given: argparse.Namespace, run: str) -> ProxySpec:
    return ProxySpec(
        given.data, backbone="mobilenet_v2", backbone_weights=given.weights, levels=("c2", "c3", "c4", "c5"),
        device=given.device, cache=str(given.cache), **{**SETTINGS[given.setting], "precision": "float32", **RUNS[run]},
    )  # fmt: skip


def read_rewards(given: argparse.Namespace) -> dict[tuple[str, int], float]:
    """The rewards that there are of the setting and the device, by run and sample."""
    if not RESULTS.exists():
        return {}
    rows = map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())
    of_these = [row for row in rows if (row["setting"], row["device"]) == (given.setting, given.device)]
    return {(row["run"], row["sample"]): row["reward"] for row in of_these}


def make(given: argparse.Namespace) -> None:
    """Train what has no line yet, and add its lines."""
    space = nasdsl.load_space(FPN_SPACE, backbone="mobilenet_v2", classes=3).with_width(WIDTH)
    for run in RUNS:
        missing = [sample for sample in range(SAMPLES) if (run, sample) not in read_rewards(given)]
        task = ProxyTask(make_spec(given, run)) if missing else None
        for sample in missing:
            assert task is not None
            start = time.process_time()
            reward = task(str(space.sample(seed=sample))).reward
            row = {"setting": given.setting, "device": given.device, "run": run, "sample": sample, "reward": round(reward, 6)}
            row["cpu_s"] = round(time.process_time() - start, 2)
            with open(RESULTS, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)


def compare(given: argparse.Namespace) -> None:
    """Print the correlations with float32, of the samples that have lines for both."""
    rewards = read_rewards(given)
    for run in list(RUNS)[1:]:
        samples = [n for n in range(SAMPLES) if ("float32", n) in rewards and (run, n) in rewards]
        reference, found = ([rewards[name, sample] for sample in samples] for name in ("float32", run))
        if len(samples) < 3:
            print(f"{run}: {len(samples)} samples, too few to compare")
            continue
        apart = sum(abs(a - b) for a, b in zip(reference, found, strict=True)) / len(samples)
        correlation = spearmanr(reference, found).statistic
        print(f"{run}, {len(samples)} samples: Spearman {correlation:.2f}; {apart:.3f} apart in the mean")
    reference = [reward for (run, _), reward in rewards.items() if run == "float32"]
    deviation = statistics.stdev(reference)
    print(f"rewards in float32: {min(reference):.3f} to {max(reference):.3f}, standard deviation {deviation:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="such as voc:DIR")
    parser.add_argument("--weights", required=True, help="of mobilenet_v2")
    parser.add_argument("--cache", required=True, type=Path)
    parser.add_argument("--setting", choices=SETTINGS, default="tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compare", action="store_true", help="compare the lines that there are, and train nothing")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.compare:
        make(given)
    compare(given)


if __name__ == "__main__":
    main()
