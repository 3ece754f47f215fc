"""Table of `gpu.py` about whole detectors: images to boxes, against torchvision's FCOS; and `torch.compile` beside."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from gpu_timing import Rates, Run, Table, milliseconds, relative_error, synchronize
from torch import Tensor
from torchvision.models.detection import fcos_resnet50_fpn

import nasdsl
from nasdsl import resources
from nasdsl.detection.inference import InferenceDetector
from nasdsl.detection.precision import products_of
from nasdsl.nn.cuda_graphs import CALLS_BEFORE_CAPTURE

CLASSES = 91
NAMES = ("nas_fcos", "fcos", "nas_fcos_128")
CANDIDATES = 2000
"""Scores of an image above the threshold, before non-maximum suppression; random weights have none above the usual one."""
COMPILE_SECONDS = 75


def detectors_table(table: Table, rates: Rates) -> None:
    """Time of a batch, from images on the device to boxes."""
    height, width = (64, 96) if table.small else (800, 1088)
    for batch in (2,) if table.small else (1, 8):
        images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0)).to(table.device)
        rival = _rival(table, images)
        for name in NAMES[:1] if table.small else NAMES:
            with table.part(name):
                _ours(table, rates, name, images, rival)
        if not table.small and batch == 1 and table.has_time("torch.compile", COMPILE_SECONDS):
            with table.part(f"torch.compile of nas_fcos, batch {batch}"):
                _compiled_beside(table, rival)
    table.notes.append(
        f"{height}x{width}, ResNet-50 with random weights, {CLASSES} classes; a batch from images on the device to boxes, with "
        f"{CANDIDATES} candidates of an image for non-maximum suppression. `of the rival` is our time over torchvision's in "
        "its fastest precision and memory format. The error is that of the maps of all levels against float64."
    )


def _rival(table: Table, images: Tensor) -> float | None:
    """The fastest of torchvision's, in milliseconds; adds a row for each."""
    batch, device = len(images), table.device
    runs: dict[str, Run] = {}
    torch.manual_seed(0)
    shorter, longer = images.shape[-2:]
    model = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES, min_size=shorter, max_size=longer)
    model = model.eval().to(device)
    _threshold_of_theirs(model, images)
    found: dict[str, float] = {}
    for layout_name, layout in (("channels first", torch.contiguous_format), ("channels last", torch.channels_last)):
        model = model.to(memory_format=layout)
        for precision in ("float32",) if table.small else ("float32", "tf32", "bfloat16", "float16"):
            kind = precision if precision in ("float32", "tf32") else f"autocast to {precision}"
            name = f"torchvision fcos, {kind}, {layout_name}"
            if table.has_time(name, 1):
                runs = {name: partial(_run_theirs, model, list(images), precision, device)}
                found |= milliseconds(runs, table, 1.0)
                if name in found:
                    table.add(detector=name, batch=batch, ms=found[name])
    return min(found.values(), default=None)


def _run_theirs(model: Any, images: list[Tensor], precision: str, device: torch.device) -> object:
    half = precision in ("bfloat16", "float16")
    with (
        torch.inference_mode(),
        products_of(precision, device),  # type: ignore[arg-type]  # one of them
        torch.autocast(device.type, getattr(torch, precision) if half else None, enabled=half),
    ):
        return model(images)


def _threshold_of_theirs(model: Any, images: Tensor) -> None:
    kept: list[Tensor] = []

    def keep(_: Any, __: Any, outputs: dict[str, Tensor]) -> None:
        scores = (outputs["cls_logits"][0].sigmoid() * outputs["bbox_ctrness"][0].sigmoid()).sqrt()
        kept.append(scores.flatten())

    hook = model.head.register_forward_hook(keep)
    with torch.inference_mode():
        model([images[0]])
    hook.remove()
    model.score_thresh = float(kept[0].topk(min(CANDIDATES, len(kept[0]))).values[-1])


def detector_of(name: str, device: torch.device) -> nasdsl.Detector:
    """A detector of the zoo with random weights; a small one on a CPU."""
    backbone = "tiny" if device.type == "cpu" else "resnet50_v1.5"
    return nasdsl.detector(decoder_of(name, device), backbone, classes=CLASSES, seed=0).to(device).eval()


def decoder_of(name: str, device: torch.device) -> nasdsl.Decoder:
    decoder = nasdsl.load(resources.folder("genotypes") / f"{name}.nas")
    return decoder.with_width(32) if device.type == "cpu" else decoder


def _with_candidates(model: nasdsl.Detector, images: Tensor) -> None:
    """Lower the threshold of a detector until an image has `CANDIDATES`."""
    with torch.inference_mode():
        maps = model.maps(model.prepare(images[:1]).images)
    scores = torch.cat([level.cls_logits.float().sigmoid().flatten() for level in maps.values()])
    threshold = float(scores.topk(min(CANDIDATES, len(scores))).values[-1])
    model.method = replace(model.method, score_threshold=threshold)  # type: ignore[type-var]  # all methods are dataclasses


def _exact_maps(model: nasdsl.Detector, images: Tensor) -> list[Tensor]:
    exact = nasdsl.for_inference(model, graphs=False).double()
    with torch.inference_mode():
        return _flat(exact, images[:1].double())


def _flat(model: nasdsl.Detector, images: Tensor) -> list[Tensor]:
    """All logits, all distances and all centerness, each of all levels together: a map of one pixel may be nearly 0."""
    maps = model.maps(model.prepare(images).images).values()
    return [torch.cat([x.float().flatten() for x in kind]) for kind in zip(*maps, strict=True) if kind[0] is not None]


def _ours(table: Table, rates: Rates, name: str, images: Tensor, rival: float | None) -> None:
    batch, (height, width) = len(images), images.shape[-2:]
    slow = detector_of(name, table.device)
    _with_candidates(slow, images)
    exact = _exact_maps(slow, images)
    macs = decoder_of(name, table.device).cost((height, width), slow.backbone.name, CLASSES).total.macs
    for precision, graphs in (
        (("float32", True), ("bfloat16", False))
        if table.small
        else (("bfloat16", True), ("tf32", True), ("float16", True), ("tf32", False), ("float32", True), ("bfloat16", False))
    ):
        what = f"{name}, {precision}, {'CUDA graph' if graphs else 'no graph'}"
        if not table.has_time(f"{what}, batch {batch}", 3):
            continue
        with table.part(what):
            fast = nasdsl.for_inference(slow, precision, graphs=graphs)  # type: ignore[arg-type]  # one of them
            run = partial(_run_ours, fast, images)
            for _ in range(CALLS_BEFORE_CAPTURE + 1):
                detections = run()
            with products_of(fast.precision, table.device), torch.inference_mode():
                error = relative_error(_flat(fast, images[:1]), exact)
            ms = milliseconds({what: run}, table, 1.0)[what]
            table.add(
                detector=what,
                batch=batch,
                ms=ms,
                **{"of the rival": ms / rival if rival else None},
                **{"floor, ms": rates.floor(precision, batch * macs), "error": error},
                layout="channels last" if fast.channels_last else "channels first",
                graphs=len(fast._graphs),
                detections=sum(len(one["scores"]) for one in detections) / batch,
            )
            if len(fast._graphs):
                _check_replays(fast, images)


def _run_ours(model: InferenceDetector, images: Tensor) -> Any:
    with torch.inference_mode():
        return model(images)


def _check_replays(fast: InferenceDetector, images: Tensor) -> None:
    """A graph must detect what the same detector does without one, for other images than it was captured with."""
    other = images.flip(3)
    replayed = _run_ours(fast, other)
    fast.graphs = False
    for one, plain in zip(replayed, _run_ours(fast, other), strict=True):
        if not torch.allclose(one["scores"], plain["scores"], rtol=1e-2, atol=1e-3):
            raise AssertionError("the graph detects something else than the detector without it")


def _compiled_beside(table: Table, rival: float | None) -> None:
    """`torch.compile` of the dense part, in a process of its own: compiling cannot be interrupted."""
    seconds = min(COMPILE_SECONDS, table.left - 1)
    command = [sys.executable, __file__, "nas_fcos", "bfloat16", table.device.type]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    found = json.loads(done.stdout.strip().splitlines()[-1])
    table.add(
        detector="nas_fcos, bfloat16, torch.compile (reduce-overhead)",
        batch=1,
        ms=found["ms"],
        **{"of the rival": found["ms"] / rival if rival else None},
        compiling=f"{found['compiling']:.0f} s",
    )


def _compiled(name: str, precision: str, device: torch.device) -> None:
    """Compile a detector's dense part, time it with boxes, and print both."""
    import time

    images = torch.rand(1, 3, 800, 1088, generator=torch.Generator().manual_seed(0)).to(device)
    slow = detector_of(name, device)
    _with_candidates(slow, images)
    fast = nasdsl.for_inference(slow, precision, graphs=False)  # type: ignore[arg-type]  # one of them
    compiled = torch.compile(fast.maps, fullgraph=True, mode="reduce-overhead")

    def run() -> None:
        with torch.inference_mode():
            inputs = fast.prepare(images)
            fast.method.detect(compiled(inputs.images), inputs.sizes)

    start = time.monotonic()
    for _ in range(3):
        run()
    synchronize(device)
    compiling = time.monotonic() - start
    table = Table("", 10, device)
    print(json.dumps({"ms": milliseconds({"compiled": run}, table, 1.0)["compiled"], "compiling": compiling}))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    _compiled(sys.argv[1], sys.argv[2], torch.device(sys.argv[3]))
