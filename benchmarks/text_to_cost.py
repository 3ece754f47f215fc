"""Throughput of computing exact costs from `.nas` texts, against tools that count the operations of a built module.

    python benchmarks/text_to_cost.py [--seconds 5]

Ours: the text of the published decoder is parsed, checked, lowered, verified and counted (800x1088, ResNet-50, 80 classes),
under a new name each time to avoid caches; median and range over rounds of 100 texts on one core. The other tools start from
the same text: it is checked and built as a module with its backbone, which then runs once under the tool, on torch's meta
device if the tool allows it. They count deformable convolutions only as far as they know the operations inside; "of ours" is
the share of the multiply-accumulates that each one finds.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import logging
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import nasdsl
from nasdsl import resources

SIZE, CLASSES = (800, 1088), 80


def round_of(text: str, count: int = 100) -> float:
    """Texts per second in one round."""
    start = time.perf_counter()
    for number in range(count):
        nasdsl.loads(text.replace("decoder nas_fcos", f"decoder nas_fcos_{number}")).cost(SIZE, "resnet50", CLASSES)
    return count / (time.perf_counter() - start)


def network(text: str, device: str) -> Any:
    """Backbone and decoder as one module that takes an image."""
    from torch import nn

    made = nasdsl.detector(nasdsl.loads(text), "resnet50", classes=CLASSES).to(device)
    return nn.Sequential(made.backbone, made.decoder).eval()


def flop_counter_mode(text: str) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = network(text, "meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, *SIZE, device="meta"))
    return counter.get_total_flops() / 2


def fvcore(text: str) -> float:
    import torch
    from fvcore.nn import FlopCountAnalysis

    class Flat(torch.nn.Module):
        """Flattens the output, because tracing does not support named tuples in dicts."""

        def __init__(self) -> None:
            super().__init__()
            self.model = network(text, "cpu")

        def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
            return [x for level in self.model(images).values() for x in level if x is not None]

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    found = FlopCountAnalysis(Flat().eval(), torch.rand(1, 3, *SIZE))
    return float(found.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()["conv"])


def ptflops(text: str) -> float:
    from ptflops import get_model_complexity_info

    with contextlib.redirect_stdout(io.StringIO()):
        macs, _ = get_model_complexity_info(
            network(text, "cpu"), (3, *SIZE), as_strings=False, print_per_layer_stat=False, backend="pytorch"
        )
    return float(macs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to measure")
    parser.add_argument("--rounds", type=int, default=3, help="of the counters")
    given = parser.parse_args()
    text = (resources.folder("genotypes") / "nas_fcos.nas").read_text()
    round_of(text, 20)  # warm-up: grammar, prelude and backbone are loaded once a process
    rates = []
    end = time.perf_counter() + given.seconds
    while time.perf_counter() < end:
        rates.append(round_of(text))
    exact = nasdsl.loads(text).cost(SIZE, "resnet50", CLASSES).total.macs
    rate = statistics.median(rates)
    print("| counter | texts a second (range) | ours is faster | G MACs | of ours |\n|---|---|---|---|---|")
    print(f"| nasdsl | {rate:.0f} ({min(rates):.0f} to {max(rates):.0f}) | 1 | {exact / 1e9:.3f} | 1 |", flush=True)

    import torch

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    counters: dict[str, Callable[[str], float]] = {
        "FlopCounterMode (meta)": flop_counter_mode,
        "fvcore": fvcore,
        "ptflops": ptflops,
    }
    versions = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    for name, count in counters.items():
        package = name if name in ("fvcore", "ptflops") else None
        if package and importlib.util.find_spec(package) is None:
            print(f"| {name} | not installed | · | · | · |")
            continue
        if package:
            versions.append(f"{name} {version(name)}")
        seconds, macs = [], 0.0
        for _ in range(given.rounds):
            start = time.perf_counter()
            macs = count(text)
            seconds.append(time.perf_counter() - start)
        median = statistics.median(seconds)
        spread = f"{1 / median:.2g} ({1 / max(seconds):.2g} to {1 / min(seconds):.2g})"
        print(f"| {name} | {spread} | {rate * median:.0f} x | {macs / 1e9:.3f} | {macs / exact:.4f} |", flush=True)
    print(f"\n{len(rates)} rounds of 100 texts; one core of {os.cpu_count()}; {', '.join(versions)}")


if __name__ == "__main__":
    main()
