"""Training time and AP of our detector and torchvision's FCOS on real data, with the same backbone, pictures and recipe.

    python benchmarks/bccd.py --data ../shared/data/bccd_voc --weights ../shared/weights/mobilenet_v2_imagenet_features.pth

Trains on `train` and evaluates on `test` (COCO's metrics): features 6, 13 and 17 of MobileNetV2, not frozen, 240x320 pixels,
width 64, 12 epochs, batch size 8, horizontal flip, AdamW, one-cycle schedule with a learning rate of 1e-3. Each training runs
in a process of its own; models alternate, seed by seed. Seconds are of the training loop with data loading, without
evaluation. torchvision's model gets the same batches from the same loader, and the same optimizer and schedule.

`--models` selects: torchvision; fcos (the first version, arXiv:1904.01355, as in the paper); fcos_improved (centre sampling,
GIoU, centerness on the box tower, boxes relative to the stride, as in torchvision); nas_fcos; nas_fcos_improved. Needs an idle
machine: two threads that synchronise are ten times slower if a third one runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODELS = ("torchvision", "fcos", "fcos_improved", "nas_fcos", "nas_fcos_improved")
WIDTH, SIZE = 64, (240, 320)


def recipe(seed: int, epochs: float) -> Any:
    from nasdsl.training import find_recipe

    settings = {"seed": seed, "epochs": epochs, "channels_last": True, "checkpoint_every": 0, "log_every": 25}
    return find_recipe("quick").changed(settings)


def train_ours(name: str, seed: int, epochs: float, data: Any, weights: str) -> tuple[Any, float]:
    """Train with `nasdsl.detector` and `nasdsl.training.train`, as users do."""
    import nasdsl
    from nasdsl import resources
    from nasdsl.detection.fcos import IMPROVED, IMPROVED_PREDICTION
    from nasdsl.training import train

    decoder = nasdsl.load(resources.folder("genotypes") / f"{name.removesuffix('_improved')}.nas").with_width(WIDTH)
    options = {}
    if name.endswith("_improved"):
        decoder, options = decoder.with_prediction(IMPROVED_PREDICTION), IMPROVED
    model = nasdsl.detector(
        decoder,
        "mobilenet_v2",
        classes=data.classes,
        backbone_weights=weights,
        freeze_at=0,
        fixed_size=SIZE,
        seed=seed,
        **options,
    )
    with tempfile.TemporaryDirectory() as folder:
        outcome = train(model, data, recipe(seed, epochs), Path(folder) / "run", device="cpu", quiet=True)
    return model, outcome.seconds


def train_torchvision(seed: int, epochs: float, data: Any, weights: str) -> tuple[Any, float]:
    """Train torchvision's FCOS with a loop like that of its reference scripts, on a list of pictures."""
    import torch
    from torchvision.models import mobilenet_v2
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.fcos import FCOS
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    from nasdsl.training.distributed import ProcessGroup
    from nasdsl.training.loaders import infinite_batches, make_train_loader, total_steps
    from nasdsl.training.optimizer import make_optimizer, set_learning_rate
    from nasdsl.training.schedule import lr_factor

    torch.manual_seed(seed)
    network = mobilenet_v2()
    network.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    taps = {"6": "0", "13": "1", "17": "2"}
    backbone = BackboneWithFPN(network.features, taps, [32, 96, 320], WIDTH, extra_blocks=LastLevelP6P7(WIDTH, WIDTH))
    model = FCOS(backbone, num_classes=len(data.classes), min_size=SIZE[0], max_size=SIZE[1], _skip_resize=True)
    model.train()
    settings = recipe(seed, epochs)
    loader = make_train_loader(data, settings, ProcessGroup(torch.device("cpu")))
    optimizer = make_optimizer(model, settings)
    total = total_steps(settings, len(loader))
    start = time.perf_counter()
    for step, batch in zip(range(total), infinite_batches(loader, 0), strict=False):
        set_learning_rate(optimizer, settings.learning_rate * lr_factor(settings, step, total))
        images = [image.float() / 255 for image in batch.images]
        losses = model(images, batch.targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    return model, time.perf_counter() - start


def measure(model: Any, data: Any) -> dict[str, float]:
    """COCO's AP and AP50 in percent, with the same code for both."""
    import torch

    from nasdsl.data import Transform, rescale_boxes
    from nasdsl.evaluation import evaluate
    from nasdsl.evaluation.results import to_results

    model.eval()
    transform, results = Transform(size=SIZE), []
    with torch.inference_mode():
        for index in range(len(data)):
            image, target = transform(data[index])
            found = model([image.float() / 255])[0]
            found["boxes"] = rescale_boxes(found["boxes"], SIZE, target["size"])
            results += to_results([found], [target["image_id"]], data.category_ids)
    coco = evaluate(data.ground_truth(), results, ["coco"]).coco
    return {"AP": 100 * coco.ap, "AP50": 100 * coco.ap50}


def one(model: str, seed: int, epochs: float, data: str, weights: str) -> dict[str, Any]:
    import torch

    from nasdsl.data import open_dataset

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    train_data = open_dataset(f"voc:{data}", "train")
    arguments = (seed, epochs, train_data, weights)
    made, seconds = train_torchvision(*arguments) if model == "torchvision" else train_ours(model, *arguments)
    test_data = open_dataset(f"voc:{data}", "test", classes=train_data.classes)
    parameters = sum(p.numel() for p in made.parameters())
    return {"model": model, "seed": seed, "seconds": seconds, "parameters": parameters, **measure(made, test_data)}


def table(runs: list[dict[str, Any]]) -> str:
    """Markdown table: mean and range over the seeds; time relative to torchvision's training with the same seed."""
    beside = {run["seed"]: run for run in runs if run["model"] == "torchvision"}
    lines = ["| detector | seeds | AP | AP50 | seconds | time / torchvision's | parameters |", "|---|---|---|---|---|---|---|"]
    for model in MODELS:
        own = [run for run in runs if run["model"] == model]
        if own:
            ratios = [run["seconds"] / beside[run["seed"]]["seconds"] for run in own if run["seed"] in beside]
            cells = [spread([run[key] for run in own]) for key in ("AP", "AP50", "seconds")]
            ratio = spread(ratios, 2) if ratios else "·"
            lines.append(f"| {model} | {len(own)} | {' | '.join(cells)} | {ratio} | {own[0]['parameters']:,} |")
    return "\n".join(lines)


def spread(values: list[float], digits: int = 1) -> str:
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder in VOC's layout with train and test")
    parser.add_argument("--weights", required=True, help="MobileNetV2's ImageNet weights")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--json", help="file of the runs; those that it contains are not repeated")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.one:
        print(json.dumps(one(settings.one, settings.seed, settings.epochs, settings.data, settings.weights)))
        return
    file = Path(settings.json) if settings.json else None
    runs: list[dict[str, Any]] = json.loads(file.read_text()) if file and file.exists() else []
    done = {(run["model"], run["seed"]) for run in runs}
    for seed in range(settings.seeds):
        for model in settings.models.split(","):
            if (model, seed) in done:
                continue
            command = [sys.executable, __file__, "--one", model, "--seed", str(seed), "--epochs", str(settings.epochs)]
            command += ["--data", settings.data, "--weights", settings.weights]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            runs.append(json.loads(printed.splitlines()[-1]))
            print(runs[-1], file=sys.stderr, flush=True)
            if file:
                file.write_text(json.dumps(runs, indent=1))
    import torch
    import torchvision

    print(table(runs))
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}"
    print(f"\n{os.cpu_count()} CPU cores, {versions}; {settings.epochs:g} epochs.")


if __name__ == "__main__":
    main()
