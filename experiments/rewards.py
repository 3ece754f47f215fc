"""Short trainings of the decoders of `experiments/trained.csv`, from which many rewards are computed.

    python experiments/rewards.py --data voc:BCCD --weights mobilenet_v2.pth --cache runs/rewards

Each of `SETTINGS` is a proxy task (`nasdsl search --proxy NAME=VALUE`), run in one thread on every detector that has been
trained in full, with seeds 0 and 1. A line is added to `experiments/rewards.jsonl` for each: losses and AP on meta-val, the
training loss of every step, processor seconds. It may be stopped at any time; the same command makes what is missing.
`--settings NAME`, `--seeds 0` and `--base` (width 32, 240x320 only) make a part of it.
`python experiments/compare_rewards.py` compares the rewards.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from trained import BASE, TABLE, Table

from nasdsl.detection.fcos import IMPROVED, Fcos
from nasdsl.training.proxy import Diverged, ProxySpec, ProxyTask
from nasdsl.training.proxy.features import map_size
from nasdsl.training.proxy.zero_cost import ZERO_COST

RESULTS: Final = Path(__file__).with_name("rewards.jsonl")
README: Final = {"size": 128, "batch_size": 8, "iterations": 60, "learning_rate": 0.002}
"""The proxy task of the README's search."""
CYCLE: Final = {"schedule": "one_cycle"}
LIKE_FULL: Final = {"schedule": "one_cycle", "improvements": True}
"""As the full training: its schedule and FCOS's improvements."""
LONGER: Final = {"size": 192, "batch_size": 16, "iterations": 120, "learning_rate": 0.002}

SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "zero_cost": README,
    "readme": README,
    "whole": {**README, "whole_images": True},
    "cycle": {**README, **CYCLE},
    "improvements": {**README, "improvements": True},
    "like_full": {**README, **LIKE_FULL},
    "like_full_192": {**README, **LIKE_FULL, "size": 192},
    "like_full_120": {**README, **LIKE_FULL, "iterations": 120},
    "like_full_rate4": {**README, **LIKE_FULL, "learning_rate": 0.004},
    "like_full_192_120": {**README, **LIKE_FULL, "size": 192, "iterations": 120},
    "longer": {**LONGER, "improvements": True},
    "longer_cycle": {**LONGER, **LIKE_FULL},
    "steps30": {**README, "iterations": 30},
    "size96": {**README, "size": 96},
    "cosine": {**README, "schedule": "cosine"},
    "rate1": {**README, "learning_rate": 0.001},
    "rate4": {**README, "learning_rate": 0.004},
    "crops16": {**README, "batch_size": 16},
    "steps120": {**README, "iterations": 120},
    "steps240": {**README, "iterations": 240},
    "size192": {**README, "size": 192},
}
"""Proxy tasks by name, changes of `ProxySpec`."""
STEP: Final = 32
"""Crops are a multiple of this, the backbone's stride."""


class Detector(NamedTuple):
    """What was trained in full."""

    decoder: str
    width: int
    size: str


def detectors(table: Table) -> dict[Detector, str]:
    """Text of each detector that has a row, in the order of the rows."""
    return {Detector(row["decoder"], int(row["width"]), row["size"]): row["text"] for row in table.rows()}


def make_spec(given: argparse.Namespace, setting: str, size: str, seed: int) -> ProxySpec:
    """The proxy task for detectors of a size: pictures and crops are scaled as the detector's pictures are to 240x320."""
    settings = dict(SETTINGS[setting])
    height, width = map(int, size.split("x"))
    if settings.get("whole_images"):
        settings["image_size"] = tuple(round(settings["size"] / 240 * side) for side in (height, width))
    settings["size"] = max(STEP, round(settings["size"] * height / 240 / STEP) * STEP)
    return ProxySpec(
        given.data, backbone="mobilenet_v2", backbone_weights=given.weights, levels=("c2", "c3", "c4", "c5"), device="cpu",
        longest=max((*settings.get("image_size", ()), round(settings["size"] * 1333 / 800))), classes=given.classes, seed=seed,
        cache=str(given.cache), reward="ap",
        **settings,
    )  # fmt: skip


def make_tasks(spec: ProxySpec, setting: str) -> dict[str, ProxyTask]:
    """Proxy tasks by reward."""
    rewards = ZERO_COST if setting == "zero_cost" else ("ap",)
    return {name: ProxyTask(dataclasses.replace(spec, reward=name), quiet=True) for name in rewards}


def evaluate(tasks: Mapping[str, ProxyTask], text: str) -> dict[str, Any]:
    """Everything that a reward can be computed from."""
    if "ap" not in tasks:
        scored = {name: _timed(task, text, []) for name, task in tasks.items()}
        return {
            "scores": {name: found.reward for name, (found, _) in scored.items()},
            "cpu_s": {n: s for n, (_, s) in scored.items()},
        }
    curve: list[float] = []
    found, seconds = _timed(tasks["ap"], text, curve)
    parts = {name: round(found.details[name], 3) for name in ("data", "compute", "average", "validation", "seconds")}
    losses = {name: round(loss, 5) for name, loss in found.losses.items()}
    return count_positives(tasks["ap"]) | {
        "ap": round(found.reward, 5),
        "losses": losses,
        "curve": [round(x, 4) for x in curve],
        "cpu_s": seconds,
        "wall": parts,
    }


def count_positives(task: ProxyTask) -> dict[str, float]:
    """Number of crops of meta-val and of the locations that FCOS assigns a box to; share of boxes that it assigns to none."""
    spec = task.spec
    shapes = {f"p{level}": map_size(task.crop_sampler.crop_size, 1 << level) for level in range(3, 8)}
    crops = [task.crop_sampler.center_crop(picture) for picture in task.val]
    method = Fcos(**(IMPROVED if spec.improvements else {}))
    targets = task._target_cache.fcos(crops, method, shapes)
    share = task._target_cache.unassigned_share(crops, method, shapes)
    return {"crops": len(crops), "positives": int((targets.labels >= 0).sum()), "unassigned": round(share, 4)}


def _timed(task: ProxyTask, text: str, curve: list[float]) -> tuple[Any, float]:
    began = time.process_time()
    scored = task(text, lambda step, loss: curve.append(loss))
    return scored, round(time.process_time() - began, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="SPEC of BCCD")
    parser.add_argument("--weights", required=True, help="weights of MobileNetV2")
    parser.add_argument("--cache", required=True, type=Path, help="folder of cached features")
    parser.add_argument("--table", type=Path, default=TABLE, help="file of full trainings")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    parser.add_argument("--classes", nargs="+", help="of other data (default: all)")
    parser.add_argument("--settings", action="append", choices=list(SETTINGS), help="only these proxy tasks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--decoders", nargs="+", help="only these (default: all of the table)")
    parser.add_argument("--base", action="store_true", help="only detectors of width 32 at 240x320")
    given = parser.parse_args()
    torch.set_num_threads(1)
    done = set()
    if given.out.exists():
        for line in given.out.read_text().splitlines():
            row = json.loads(line)
            done.add((row["setting"], row["decoder"], row["width"], row["size"], row["seed"]))
    made, tasks = "", dict[str, ProxyTask]()
    for seed in given.seeds:
        for setting in given.settings or SETTINGS:
            for detector, text in detectors(Table(given.table)).items():
                key = (setting, *detector, seed)
                left_out = given.decoders and detector.decoder not in given.decoders
                if key in done or left_out or (given.base and detector[1:] != BASE):
                    continue
                spec = make_spec(given, setting, detector.size, seed)
                if made != f"{setting} {spec}":
                    made, tasks = f"{setting} {spec}", make_tasks(spec, setting)
                try:
                    found = evaluate(tasks, text)
                except Diverged as error:
                    found = {"error": str(error)}
                line = {"setting": setting, **detector._asdict(), "seed": seed, **found}
                with open(given.out, "a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(setting, *detector, seed, found.get("ap"), found.get("cpu_s"), flush=True)


if __name__ == "__main__":
    main()
