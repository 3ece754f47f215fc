"""Tables of `gpu.py` about a search: seconds of a trial of the proxy task, and where its steps and a detection go."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from gpu_detectors import detector_of
from gpu_timing import Rates, Table, synchronize
from torch.profiler import ProfilerActivity, profile

import nasdsl
from nasdsl import resources
from nasdsl.nn.cuda_graphs import CALLS_BEFORE_CAPTURE
from nasdsl.training.proxy import ProxySpec, ProxyTask

PRECISIONS = ("float32", "bfloat16")
STEPS, META_VAL = 300, 1715
"""Of the paper's proxy task."""
PAPER = 107
"""Architectures a GPU-day of the paper, on V100s."""
COPIES = ("memcpy", "copy", "convert", "nchwtonhwc", "nhwctonchw", "transpose", "_to_copy", "contiguous")
"""What the names of kernels that only move or convert values have in common."""


def make_task(table: Table) -> ProxyTask:
    """The proxy task on synthetic images, at the paper's size on a GPU."""
    val, train = (4, 8) if table.small else (200, 60)
    return ProxyTask(
        ProxySpec(
            f"shapes:{val + train}",
            val_share=val / (val + train),
            backbone="tiny" if table.small else "resnet50",
            size=128 if table.small else 384,
            longest=192 if table.small else 512,
            mirror=False,
            batch_size=2 if table.small else 200,
            iterations=2,
            device=table.device.type,
            memory_limit=64 * 2**30,
        ),
        quiet=True,
    )


def decoders(table: Table) -> dict[str, str]:
    width = 32 if table.small else 64
    spaces = resources.folder("genotypes") / "spaces"
    space = nasdsl.load_space(spaces / "nas_fcos_fpn.nas", backbone="resnet50", classes=5).with_width(width)
    texts = {
        name: nasdsl.load(resources.folder("genotypes") / f"{name}.nas").with_width(width).source.text
        for name in ("fcos", "nas_fcos")[: 1 if table.small else 2]
    }
    samples = {f"FPN sample {seed}": str(space.sample(seed=seed)) for seed in range(1 if table.small else 3)}
    return {**dict(list(samples.items())[:1]), **texts, **dict(list(samples.items())[1:])}


def run_trial(task: ProxyTask, text: str, steps: int) -> tuple[float, float]:
    """Seconds of a trial of so many steps without validation, and those of the validation."""
    task.spec = replace(task.spec, iterations=steps)
    synchronize(task.device)
    start = time.perf_counter()
    result = task(text)
    synchronize(task.device)
    validation = result.details["validation"]
    return time.perf_counter() - start - validation, validation


def proxy_table(table: Table, rates: Rates, task: ProxyTask | None) -> None:
    """Seconds of a trial, extrapolated from shorter ones."""
    if task is None:
        table.left_out.append("all: the task could not be made")
        return
    few, more = (1, 2) if table.small else (4, 16)
    for precision in PRECISIONS[: 1 if table.small else 2]:
        task.spec = replace(task.spec, precision=precision)
        for name, text in decoders(table).items():
            what = f"{name}, {precision}"
            if not table.has_time(what, 0 if table.small else 6):
                continue
            with table.part(what):
                run_trial(task, text, few)  # warms up: choices of kernels are made once in a search
                short, _ = run_trial(task, text, few)
                long, validation = run_trial(task, text, more)
                step = max(long - short, 0.0) / (more - few)
                trial = short + step * (STEPS - few) + validation * META_VAL / len(task.val)
                size = (task.spec.size, task.spec.size)
                macs = task.load(text).cost(size, task.spec.backbone, len(task.classes)).decoder.macs
                floor = rates.floor(precision, 3 * macs * task.spec.batch_size)
                table.add(
                    decoder=what,
                    **{"step, ms": 1e3 * step, "floor of a step, ms": floor},
                    **{"trial, s": trial, "architectures a GPU-day": 86400 / trial, "of the paper's": 86400 / trial / PAPER},
                )
    table.notes.append(
        f"Crops of {task.spec.size}x{task.spec.size}, batches of {task.spec.batch_size}, synthetic images, random ResNet-50; "
        f"{STEPS} steps extrapolated from trials of {few} and {more}, {META_VAL} pictures of meta-val from {len(task.val)}. "
        f"The paper: {PAPER} architectures a GPU-day, on V100s. The floor is the products of forward and backward pass."
    )


def copies_table(table: Table, task: ProxyTask | None) -> None:
    """Launches and copies in a training step and in a detection, by torch's profiler."""
    if task is not None:
        few, more = (1, 2) if table.small else (2, 6)
        for precision in PRECISIONS[: 1 if table.small else 2]:
            task.spec = replace(task.spec, precision=precision)
            for name, text in list(decoders(table).items())[: 1 if table.small else 3]:
                what = f"a step of {name}, {precision}"
                if table.has_time(what, 0 if table.small else 4):
                    with table.part(what):
                        run_trial(task, text, few)
                        short, long = (_profiled(table, partial(run_trial, task, text, steps)) for steps in (few, more))
                        each = {key: (long[key] - short[key]) / (more - few) for key in long}
                        _add(table, what, each)
    for graphs in (False, True):
        what = f"a detection of nas_fcos, {'CUDA graph' if graphs else 'no graph'}"
        if table.has_time(what, 0 if table.small else 4):
            with table.part(what):
                images = torch.rand(1, 3, *((64, 96) if table.small else (800, 1088)), device=table.device)
                fast = nasdsl.for_inference(detector_of("nas_fcos", table.device), "bfloat16", graphs=graphs)
                with torch.inference_mode():
                    for _ in range(CALLS_BEFORE_CAPTURE + 2):
                        fast(images)
                    _add(table, what, _profiled(table, partial(fast, images)))


def _add(table: Table, what: str, found: dict[str, float]) -> None:
    table.add(
        work=what,
        launches=round(found["launches"]),
        kernels=round(found["kernels"]),
        **{"on the device, ms": found["ms"], "of it copies, ms": found["copies_ms"]},
        **{"share of copies": found["copies_ms"] / found["ms"] if found["ms"] > 0 else None},
    )


def _profiled(table: Table, run: Callable[[], Any]) -> dict[str, float]:
    """Launches by the CPU, kernels on the device and their milliseconds. On a CPU, operators instead."""
    gpu = table.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as profiler:
        run()
        synchronize(table.device)
    found = {"launches": 0.0, "kernels": 0.0, "ms": 0.0, "copies_ms": 0.0}
    for event in profiler.events():
        name = event.name.lower()
        if gpu and event.device_type.name == "CPU":
            found["launches"] += "launch" in name and name.startswith("cu")
            continue
        if not gpu and (not name.startswith("aten::") or event.cpu_children):
            continue
        ms = (event.device_time_total if gpu else event.self_cpu_time_total) / 1e3
        found["kernels"] += 1
        found["ms"] += ms
        found["copies_ms"] += ms if any(part in name for part in COPIES) else 0.0
    return found
