"""AP of one detector under variants of a recipe, with the processor time of each training.

    python experiments/recipe.py --data voc:BCCD --weights mobilenet_v2.pth --out experiments/recipe.jsonl --name small6_s0 \
        batch_size=4 learning_rate=0.002 epochs=5.4

One training in one thread; the settings are changes of the recipe `quick`. A line is added to the file: the settings, COCO's AP
and AP50 on val and test in percent, seconds of processor time and of the clock, steps. There are no evaluations in between, so
that the seconds are those of the training alone.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

import nasdsl
from nasdsl import resources
from nasdsl.cli.options import parse_assignments
from nasdsl.data import open_dataset
from nasdsl.training import compute_metrics, find_recipe, predict, train
from nasdsl.training.config import TrainingConfig

SPLITS = ("val", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="SPEC of data with the splits train, val and test")
    parser.add_argument("--weights", required=True, help="weights of MobileNetV2")
    parser.add_argument("--out", required=True, type=Path, help="file that a line is added to")
    parser.add_argument("--name", required=True, help="of the variant")
    parser.add_argument("--decoder", default="fcos", help="name in the zoo")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--freeze-at", type=int, default=0)
    parser.add_argument("--norm", choices=["frozen", "train"])
    parser.add_argument("--method", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE")
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe = find_recipe("quick").changed({"epochs": 6, "checkpoint_every": 0, "evaluate_every": 0}).override(given.settings)
    config = TrainingConfig(
        data=given.data,
        val_split=None,
        backbone="mobilenet_v2",
        backbone_weights=given.weights,
        freeze_at=given.freeze_at,
        norm=given.norm,
        width=given.width,
        recipe=recipe,
        improvements=True,
        method=parse_assignments("--method", tuple(given.method), "center_radius=1.5"),
    )
    decoder = config.prepare_decoder(nasdsl.load(resources.folder("genotypes") / f"{given.decoder}.nas"))
    data = config.open_train_dataset()
    with tempfile.TemporaryDirectory() as folder:
        began, processor = time.perf_counter(), time.process_time()
        result = train(config.make_detector(decoder, data), data, recipe, Path(folder) / "run", device="cpu", quiet=True)
        seconds = {"cpu_s": time.process_time() - processor, "wall_s": time.perf_counter() - began}
        detector = nasdsl.load_detector(result.run.folder)  # the averaged weights, if the recipe averages
    line = {
        "name": given.name,
        "decoder": given.decoder,
        "width": given.width,
        "freeze_at": given.freeze_at,
        "norm": given.norm,
        "method": given.method,
        "settings": given.settings,
    }
    for split in SPLITS:
        dataset = open_dataset(given.data, split, classes=data.classes)
        measured = compute_metrics(predict(detector, dataset, batch_size=8), dataset, ["coco"]).coco
        assert measured is not None
        line |= {split: round(100 * measured.ap, 2), f"{split}50": round(100 * measured.ap50, 2)}
    line |= {name: round(value, 1) for name, value in seconds.items()} | {"steps": result.steps}
    with open(given.out, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
