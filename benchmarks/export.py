"""Whether an exported detector finds what the detector finds: AP, boxes and time of each form on real data.

    python benchmarks/export.py --data ../shared/data/bccd_voc --weights ../shared/weights/mobilenet_v2_imagenet_features.pth

Trains `fcos`, `nas_fcos` and `retinanet` a little (MobileNetV2, width 32, 240x320 pixels, two epochs), or takes the runs in
`--runs` if they are there, exports each in every form, and runs the files on the split `test`, one image at a time unless the
row says otherwise, in a process in which nasdsl cannot be imported. `AP` is COCO's, in per cent, of the same images as
`nasdsl eval`; `alike` are the detections of the file that have one of the detector with the same label and score (to 1e-4, in
float16 to 2e-2) and a box within 0.1 pixels of the resized image (in float16 2 pixels), of all that either has; `furthest` is
the largest distance of those. Ties and candidates at the score threshold are what may be missing. Milliseconds are the median
of an image in one thread, after three that do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

DECODERS = ("fcos", "nas_fcos", "retinanet")
SIZE = (240, 320)


class Form(NamedTuple):
    """A way to export a detector: its name, the suffix, arguments of `export_detector`, and the batch size it is run at."""

    name: str
    suffix: str
    options: dict[str, Any]
    batch: int = 1


FORMS = (
    Form("onnx", ".onnx", {}),
    Form("onnx, batches of 5", ".onnx", {}, 5),
    Form("onnx, fixed size", ".onnx", {"size": SIZE}),
    Form("onnx, DeformConv", ".onnx", {"deform": "native"}),
    Form("onnx, float16", ".onnx", {"precision": "float16"}),
    Form("pt2", ".pt2", {}),
    Form("pt2, batches of 5", ".pt2", {}, 5),
    Form("pt2, grid_sample", ".pt2", {"deform": "grid_sample"}),
    Form("py", ".py", {}),
    Form("py, float16", ".py", {"precision": "float16"}),
)

RUNNER = """
import sys, time
sys.modules["nasdsl"] = None  # so that importing it fails
import importlib.util
import numpy as np
file, images, out, batch = sys.argv[1], np.load(sys.argv[2]), sys.argv[3], int(sys.argv[4])
if file.endswith(".onnx"):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    run = lambda x: session.run(None, {"images": x})
else:
    import torch, torchvision
    torch.set_num_threads(1)
    if file.endswith(".pt2"):
        program = torch.export.load(file).module()
        run = lambda x: [value.numpy() for value in program(torch.from_numpy(x))]
    else:
        spec = importlib.util.spec_from_file_location("exported", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        detector = module.load()
        def run(x):
            found = detector(torch.from_numpy(x))
            padded = [{k: torch.cat([v, v.new_zeros(100 - len(v), *v.shape[1:])]) for k, v in one.items()} for one in found]
            return [torch.stack([one[k] for one in padded]).numpy() for k in ("boxes", "scores", "labels")]
    torch.set_grad_enabled(False)
for _ in range(3):
    run(images[:batch])
results, seconds = [], []
for start in range(0, len(images), batch):
    begin = time.perf_counter()
    results.append(run(images[start:start + batch]))
    seconds.append((time.perf_counter() - begin) / len(results[-1][0]))
boxes, scores, labels = (np.concatenate(values) for values in zip(*results))
np.savez(out, boxes=boxes, scores=scores, labels=labels, milliseconds=1000 * np.median(seconds))
"""


def trained(name: str, arguments: argparse.Namespace) -> Any:
    """The detector of a run, which is trained if there is none."""
    import nasdsl

    run = arguments.runs / name
    if not (run / "model.pt").exists():
        command = (
            f"train zoo:{name} --width 32 --backbone mobilenet_v2 --backbone-weights {arguments.weights} "
            f"--data voc:{arguments.data} --recipe quick --batch-size 4 --learning-rate 0.002 "
            f"--epochs {arguments.epochs} --size {SIZE[0]}x{SIZE[1]} --out {run}"
        )
        subprocess.run([sys.executable, "-m", "nasdsl", *command.split()], check=True, stdout=subprocess.DEVNULL)
    return nasdsl.load_detector(run)


def read(dataset: Any, detector: Any) -> tuple[Any, list[Any]]:
    """The resized images of a data set as float32 [N, 3, H, W] in 0..1, and their targets."""
    import torch

    from nasdsl.data import make_loader
    from nasdsl.detection.prediction import transform_of

    batches = list(make_loader(dataset, batch_size=8, transform=transform_of(detector)))
    images = torch.cat([batch.images for batch in batches]).float() / 255
    return images, [target for batch in batches for target in batch.targets]


def average_precision(dataset: Any, targets: list[Any], found: list[dict[str, Any]]) -> float:
    """COCO's AP in per cent of detections in the resized images."""
    from nasdsl.data import rescale_boxes
    from nasdsl.evaluation import evaluate, to_results

    rescaled = [{**one, "boxes": rescale_boxes(one["boxes"], SIZE, t["size"])} for one, t in zip(found, targets, strict=True)]
    results = to_results(rescaled, [target["image_id"] for target in targets], dataset.category_ids)
    coco = evaluate(dataset.ground_truth(), results, ("coco",)).coco
    assert coco is not None
    return 100 * coco.ap


def compare(found: dict[str, Any], expected: dict[str, Any], half: bool) -> tuple[int, int, float]:
    """Detections that are alike, all that either has, and the largest distance of a box of those that are alike."""
    score_bound, bound = (2e-2, 2.0) if half else (1e-4, 0.1)
    alike, furthest, free = 0, 0.0, set(range(len(expected["scores"])))
    for box, score, label in zip(found["boxes"], found["scores"], found["labels"], strict=True):
        distance = (expected["boxes"] - box).abs().amax(dim=1)
        fits = (expected["labels"] == label) & ((expected["scores"] - score).abs() <= score_bound) & (distance <= bound)
        candidates = [i for i in fits.nonzero().flatten().tolist() if i in free]
        if candidates:
            best = min(candidates, key=lambda i: float(distance[i]))
            free.remove(best)
            alike, furthest = alike + 1, max(furthest, float(distance[best]))
    return alike, max(len(found["scores"]), len(expected["scores"])), furthest


def measure(name: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each form of a detector; the first is the detector itself."""
    import numpy as np
    import torch

    import nasdsl
    from nasdsl.data import open_dataset

    original = trained(name, arguments)
    detector = nasdsl.for_inference(original)
    dataset = open_dataset(f"voc:{arguments.data}", "test", classes=detector.classes)
    images, targets = read(dataset, detector)
    with torch.no_grad():
        expected = [found for batch in images.split(8) for found in detector(batch)]
    reference = average_precision(dataset, targets, expected)
    rows: list[dict[str, Any]] = [{"decoder": name, "form": "nasdsl", "ap": reference}]
    has_deform = any(isinstance(part, nasdsl.nn.DeformConv2d) for part in detector.decoder.modules())
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", images.numpy())
        for form in FORMS:
            if ("deform" in form.options and not has_deform) or (arguments.forms and form.name not in arguments.forms):
                continue
            file = Path(folder) / f"detector{form.suffix}"
            written = nasdsl.export_detector(original, file, **form.options)
            command = [sys.executable, "-c", RUNNER, str(file), f"{folder}/images.npy", f"{folder}/out.npz", str(form.batch)]
            subprocess.run(command, check=True, cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=sys.stderr)
            out = {key: torch.from_numpy(value) for key, value in np.load(f"{folder}/out.npz").items()}
            milliseconds = float(out.pop("milliseconds"))
            found = [{k: v[i][out["scores"][i] > 0] for k, v in out.items()} for i in range(len(images))]
            half = form.options.get("precision") == "float16"
            compared = [compare(a, b, half) for a, b in zip(found, expected, strict=True)]
            alike, counts, distances = zip(*compared, strict=True)
            rows.append(
                {
                    "decoder": name, "form": form.name, "ap": average_precision(dataset, targets, found),
                    "alike": sum(alike) / sum(counts), "furthest": max(distances), "milliseconds": milliseconds,
                    "megabytes": written.megabytes,
                }
            )  # fmt: skip
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path, help="a VOC folder with a split `test`")
    parser.add_argument("--weights", required=True, type=Path, help="MobileNetV2's weights")
    parser.add_argument("--runs", type=Path, help="folder of the runs; default: a temporary one")
    parser.add_argument("--decoders", nargs="+", default=DECODERS, choices=DECODERS)
    parser.add_argument("--forms", nargs="+", choices=[form.name for form in FORMS])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments.runs = arguments.runs or Path(folder)
        rows = [row for name in arguments.decoders for row in measure(name, arguments)]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    print("| decoder | form | AP | alike % | furthest px | ms | MB |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        rest = "| | | |"
        if "alike" in row:
            rest = f"{100 * row['alike']:.2f} | {row['furthest']:.4f} | {row['milliseconds']:.0f} | {row['megabytes']:.1f}"
        print(f"| {row['decoder']} | {row['form']} | {row['ap']:.3f} | {rest} |")


if __name__ == "__main__":
    main()
