"""Dilated depthwise convolutions on a CPU: ours against torch's, forward, and forward and backward.

    python benchmarks/depthwise.py [--rounds 9] [--threads 2]

Both have the same weights and alternate, on 8 maps of 64 channels; the table has medians.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from nasdsl.nn import DilatedDepthwiseConv2d

KERNELS = ((3, 3), (5, 6))
"""Kernel sizes and dilations in the search space of the paper."""
SIZES = (96, 48, 24)
FORMATS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}


def milliseconds(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of each call; calls alternate."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if number:  # the first round is a warm-up
                seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(of) for name, of in seconds.items()}


def forward_and_backward(module: nn.Module, x: Tensor, upstream: Tensor) -> object:
    return torch.autograd.grad(module(x), [x, *module.parameters()], upstream)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print("| kernel, dilation, map, format | | ours, ms | torch, ms | ratio |\n|---|---|---|---|---|")
    for size, dilation in KERNELS:
        for side in SIZES:
            for name, memory in FORMATS.items():
                ours = DilatedDepthwiseConv2d(64, size, dilation, bias=False)
                theirs = nn.Conv2d(64, 64, size, 1, dilation * (size - 1) // 2, dilation, 64, bias=False)
                theirs.load_state_dict(ours.state_dict())
                x, upstream = (torch.randn(8, 64, side, side).contiguous(memory_format=memory) for _ in range(2))
                modules: dict[str, nn.Module] = {"ours": ours, "torch": theirs}
                with torch.no_grad():
                    forward = milliseconds({which: partial(module, x) for which, module in modules.items()}, given.rounds)
                x.requires_grad_()
                calls = {which: partial(forward_and_backward, module, x, upstream) for which, module in modules.items()}
                whole = milliseconds(calls, given.rounds)
                for what, found in (("forward", forward), ("forward + backward", whole)):
                    row = f"{found['ours']:.1f} | {found['torch']:.1f} | {found['torch'] / found['ours']:.1f} x"
                    print(f"| {size}x{size}, {dilation}, {side}x{side}, {name} | {what} | {row} |", flush=True)
    print(f"\n{torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
