"""AP of the kinds of prediction on blood cells, behind one pyramid and head.

    python experiments/predictions.py --data voc:BCCD --weights mobilenet_v2.pth

Trains `fcos` of the zoo with each prediction of `KINDS` at width 64 and 240x320, with the recipe `quick` and `--epochs`, on
MobileNetV2 with ImageNet weights of which nothing is frozen, one after another, each in one thread: all kinds under the first
seed, then under the next one. `predictions.jsonl` beside this file has a line for each: AP on val and test in percent, and
processor seconds. It may be stopped at any time: the same command goes on from the checkpoint of the training that was running.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Final

import torch
from trained import SPLITS, read_lines, train_in_full

import nasdsl
from nasdsl import resources
from nasdsl.training import find_recipe
from nasdsl.training.config import TrainingConfig

KINDS: Final = {
    "fcos": "fcos(centerness=cls)",
    "atss": "atss(centerness=box)",
    "gfl": "gfl(bins=16)",
    "tal": "tal(bins=16)",
    "improved": "fcos(centerness=box, boxes=relu)",
}
"""Predictions by name; `improved` is FCOS with the training's improvements."""
WIDTH: Final = 64
SIZE: Final = (240, 320)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="SPEC of BCCD, with the splits train, val and test")
    parser.add_argument("--weights", required=True, help="weights of MobileNetV2")
    parser.add_argument("--lines", type=Path, default=Path(__file__).with_suffix(".jsonl"), help="file of results")
    parser.add_argument("--work", type=Path, default=Path("runs/predictions"), help="folder of unfinished trainings")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="these kinds")
    given = parser.parse_args()
    torch.set_num_threads(1)
    decoder = nasdsl.load(resources.folder("genotypes") / "fcos.nas")
    for seed in given.seeds:
        for name in given.only:
            job = {"kind": name, "epochs": given.epochs, "seed": seed}
            if any(job.items() <= line.items() for line in read_lines(given.lines)):
                continue
            folder = given.work / f"{name}_{given.epochs}_s{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            changes = {"epochs": given.epochs, "size": SIZE, "seed": seed, "evaluate_every": 0, "checkpoint_every": 100}
            config = TrainingConfig(
                data=given.data, val_split=None, backbone="mobilenet_v2", backbone_weights=given.weights, freeze_at=0,
                width=WIDTH, recipe=find_recipe("quick").changed(changes), improvements=name == "improved",
            )  # fmt: skip
            trained = train_in_full(config, decoder.with_prediction(KINDS[name]), folder, SPLITS)
            if trained is None:
                line = {**job, "diverged": True}
            else:
                ap = {f"ap_{split}": round(value, 2) for split, value in trained.ap.items()}
                line = {**job, "prediction": KINDS[name], **ap, "cpu_s": trained.cpu_s}
                shutil.rmtree(folder)
            with open(given.lines, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
