"""Inference of complete detectors on one picture of 800x1088: ours against torchvision's `fcos_resnet50_fpn`.

    python benchmarks/detector.py [--rounds 7] [--threads 2] [--device cpu] [--size 800x1088]

All have torchvision's ResNet-50 (stride in the 3x3), random weights, 91 classes and batch size 1; times include the
computation of boxes. torchvision's model runs in the default and in the channels-last memory format; ours unchanged, and
prepared by `nasdsl.for_inference`. A round times each once, in one process; the table has medians, and ratios to the faster
one of torchvision. "floor" is the time of the convolutions' multiply-accumulates at the rate of the fastest convolution
measured here (3x3, 256 to 256 channels, 100x136): a lower bound for any implementation.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import fcos_resnet50_fpn

import nasdsl
from nasdsl import resources

CLASSES = 91
Run = Callable[[], object]


def timed(run: Run, device: torch.device) -> float:
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def rate(device: torch.device) -> float:
    """Multiply-accumulates per second of the fastest convolution: 3x3, 256 channels, 100x136."""
    conv = nn.Conv2d(256, 256, 3, padding=1, device=device)
    best = float("inf")
    for layout in (torch.contiguous_format, torch.channels_last):
        conv = conv.to(memory_format=layout)
        x = torch.rand(1, 256, 100, 136, device=device).to(memory_format=layout)
        with torch.inference_mode():
            best = min(best, *(timed(lambda x=x, conv=conv: conv(x), device) for _ in range(12)))
    return 256 * 256 * 9 * 100 * 136 / best


def detectors(images: Tensor, device: torch.device) -> dict[str, Run]:
    """A function for each detector that runs it on the images."""
    runs: dict[str, Run] = {}
    for name, layout in (("", torch.contiguous_format), (", channels last", torch.channels_last)):
        torch.manual_seed(0)
        theirs = fcos_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES, _skip_resize=True).eval()
        theirs = theirs.to(device, memory_format=layout)
        runs[f"torchvision fcos{name}"] = lambda model=theirs: model([images[0]])
    for name in ("fcos", "nas_fcos_128", "nas_fcos_128_256", "nas_fcos"):
        decoder = nasdsl.load(resources.folder("genotypes") / f"{name}.nas")
        ours = nasdsl.detector(decoder, "resnet50_v1.5", classes=CLASSES, seed=0).to(device).eval()
        runs[name] = lambda model=ours: model(images)
        fast = nasdsl.for_inference(ours)
        runs[f"{name}, for inference"] = lambda model=fast: model(images)
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="800x1088")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    device, (height, width) = torch.device(given.device), (int(n) for n in given.size.split("x"))
    images = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)
    runs = detectors(images, device)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for number in range(given.rounds + 1):  # the first one warms up
            for name, run in runs.items():
                taken = timed(run, device)
                if number:
                    seconds[name].append(taken)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    reference = min(medians[name] for name in medians if name.startswith("torchvision"))
    per_second = rate(device)
    print("| detector | ms (range) | of torchvision's | G MACs | floor, ms |\n|---|---|---|---|---|")
    for name, taken in seconds.items():
        file = "fcos" if name.startswith("torchvision") else name.partition(",")[0]
        decoder = nasdsl.load(resources.folder("genotypes") / f"{file}.nas")
        macs = decoder.cost((height, width), "resnet50_v1.5", CLASSES).total.macs
        spread = f"{1e3 * medians[name]:.0f} ({1e3 * min(taken):.0f} to {1e3 * max(taken):.0f})"
        print(f"| {name} | {spread} | {medians[name] / reference:.2f} | {macs / 1e9:.1f} | {1e3 * macs / per_second:.0f} |")
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
    print(f"\n{where}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}; ", end="")
    print(f"fastest convolution {per_second / 1e9:.0f} G MACs a second; medians of {given.rounds} rounds; ", end="")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}")


if __name__ == "__main__":
    main()
