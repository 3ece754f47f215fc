"""Deformable convolution: time and memory against torchvision, our reference implementation, and an ordinary convolution.

    python benchmarks/deform.py [--device cpu|cuda] [--rounds 9] [--layout nchw|nhwc] [--threads 2] [--clock wall|cpu]
        [--shape …]

3x3 kernels, 2 offset groups, gradients for all operands including offsets and mask. A round times each of the four once, in
one process; the table has medians, and their ratios to ours. The ordinary convolution has the same number of
multiply-accumulates and is a lower bound. "layer" is `nasdsl.nn.DeformConv2d` against the same layer
on torchvision's function, with the convolution that predicts offsets and mask in both.

On a CPU, ``--clock cpu --threads 1`` counts this process's time only, for a machine that is busy with other things, and
memory is what one forward and backward pass adds to the peak of a process of its own. On a GPU, which is taken where there
is one, ours is what the autotuner chooses (NASDSL_DEFORM forces an implementation), times are those of CUDA's events around a
call on an idle GPU, and memory is what one forward and backward pass allocates at most; products are in float32.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn
from torchvision.ops import deform_conv2d as theirs

from nasdsl.nn import DeformConv2d, deform_conv2d
from nasdsl.nn.deform import reference

Step = Callable[[], Tensor]
SHAPES = {
    "cpu": ("256x100x136x1", "64x48x48x8", "64x24x24x8"),
    "cuda": ("256x100x136x1", "64x48x48x8", "64x48x48x200"),
}
"""Channels, height, width and batch size: of a level of the detector, and of two levels of the proxy task."""
ROUNDS = {"cpu": 9, "cuda": 50}
SPREAD = 2.0
"""Standard deviation of the offsets, in pixels."""
TAPS, OFFSET_GROUPS = 9, 2


class TheirLayer(DeformConv2d):
    """The same layer on torchvision's function."""

    def forward(self, x: Tensor) -> Tensor:
        predicted = self.offset(x)
        third = predicted.shape[1] // 3
        offset, mask = predicted[:, : 2 * third], torch.sigmoid(predicted[:, 2 * third :])
        return theirs(x, offset, self.weight, self.bias, padding=1, mask=mask)


def operands(shape: str, layout: str, device: str) -> tuple[list[Tensor], list[Tensor]]:
    """x, offset, mask, weight and bias, which require gradients, and the gradient of the output."""
    channels, height, width, batch = (int(part) for part in shape.split("x"))
    memory = torch.channels_last if layout == "nhwc" else torch.contiguous_format
    draw = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        tensor = torch.randn(*size, generator=draw).to(device)
        return tensor.to(memory_format=memory) if tensor.dim() == 4 else tensor

    places = OFFSET_GROUPS * TAPS
    values = [
        normal(batch, channels, height, width),
        normal(batch, 2 * places, height, width) * SPREAD,
        normal(batch, places, height, width).sigmoid(),
        normal(channels, channels, 3, 3) / (channels * TAPS) ** 0.5,
        normal(channels),
    ]
    return [v.requires_grad_() for v in values], [normal(batch, channels, height, width)]


def functions(shape: str, layout: str, device: str) -> tuple[dict[str, Step], list[Tensor], Tensor]:
    """The implementations, their operands, and the gradient of the output."""
    given, (upstream,) = operands(shape, layout, device)
    x, offset, mask, weight, bias = given
    return (
        {
            "ours": lambda: deform_conv2d(x, offset, weight, bias, padding=(1, 1), mask=mask),
            "torchvision": lambda: theirs(x, offset, weight, bias, padding=1, mask=mask),
            "plain": lambda: reference.deform_conv2d(x, offset, weight, bias, padding=(1, 1), mask=mask),
            "ordinary": lambda: nn.functional.conv2d(x, weight, bias, padding=1),
        },
        given,
        upstream,
    )


def layers(shape: str, layout: str, device: str) -> tuple[dict[str, Step], list[Tensor], Tensor]:
    """The layers, their input and weights, and the gradient of the output."""
    given, (upstream,) = operands(shape, layout, device)
    x, channels = given[0], given[0].shape[1]
    torch.manual_seed(0)
    ours = DeformConv2d(channels, channels, 3, offset_groups=OFFSET_GROUPS)
    nn.init.normal_(ours.offset.weight, std=SPREAD / (channels * TAPS) ** 0.5)
    other = TheirLayer(channels, channels, 3, offset_groups=OFFSET_GROUPS)
    other.load_state_dict(ours.state_dict())
    ours, other = ours.to(device), other.to(device)
    if layout == "nhwc":
        ours, other = (m.to(memory_format=torch.channels_last) for m in (ours, other))
    implementations = {"ours": lambda: ours(x), "torchvision": lambda: other(x)}
    return implementations, [x, *ours.parameters(), *other.parameters()], upstream


def seconds(step: Step, given: list[Tensor], upstream: Tensor, clock: Callable[[], float], *, backward: bool) -> float:
    """Seconds of one call, with gradients of all operands if `backward` is true."""
    for tensor in given:
        tensor.grad = None
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)] if upstream.is_cuda else []
    if events:
        torch.cuda.synchronize()
        events[0].record()
    start = clock()
    if backward:
        step().backward(upstream)
    else:
        with torch.no_grad():
            step()
    if events:
        events[1].record()
        events[1].synchronize()
        return events[0].elapsed_time(events[1]) / 1000
    return clock() - start


def medians(
    implementations: Mapping[str, Step], given: list[Tensor], upstream: Tensor, args: argparse.Namespace, *, backward: bool
) -> dict[str, float]:
    clock = time.process_time if args.clock == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in implementations}
    for number in range(args.rounds + 1):  # the first one warms up
        for name, step in implementations.items():
            taken = seconds(step, given, upstream, clock, backward=backward)
            if number:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def peak() -> int:
    """Peak memory of this process in bytes.

    On Linux from /proc, because ru_maxrss starts with the peak of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def memory_of(name: str, shape: str, layout: str) -> int:
    """Bytes that a forward and backward pass adds to the peak of this process, after a warm-up with a small shape."""
    small, given, upstream = functions("32x8x8x1", layout, "cpu")
    seconds(small[name], given, upstream, time.perf_counter, backward=True)
    implementations, given, upstream = functions(shape, layout, "cpu")
    before = peak()
    seconds(implementations[name], given, upstream, time.perf_counter, backward=True)
    return peak() - before


def memory_on_gpu(shape: str, layout: str) -> dict[str, int]:
    """Peak bytes that a forward and backward pass of each implementation allocates, including gradients."""
    implementations, given, upstream = functions(shape, layout, "cuda")
    found = {}
    for name, step in implementations.items():
        seconds(step, given, upstream, time.perf_counter, backward=True)  # allocates the workspaces of cuBLAS
        for tensor in given:
            tensor.grad = None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        seconds(step, given, upstream, time.perf_counter, backward=True)
        found[name] = torch.cuda.max_memory_allocated() - before
    return found


def memory(shape: str, args: argparse.Namespace) -> dict[str, int]:
    """Bytes for each implementation: `memory_on_gpu`, or `memory_of` in a process of its own."""
    if args.device == "cuda":
        return memory_on_gpu(shape, args.layout)
    found = {}
    for name in ("ours", "torchvision", "plain", "ordinary"):
        command = [sys.executable, __file__, "--memory-of", name, "--shape", shape, "--layout", args.layout]
        command += ["--threads", str(torch.get_num_threads())]
        found[name] = int(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return found


def machine(args: argparse.Namespace) -> str:
    """Description of the machine and the clock."""
    if args.device == "cuda":
        # Otherwise ordinary convolutions would use TF32, which rounds to 10 bits, and the others would not.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        import triton

        return f"triton {triton.__version__}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}"
    processor, capability = platform.processor() or platform.machine(), torch.backends.cpu.get_cpu_capability()
    return f"{processor}, {capability}, {torch.get_num_threads()} threads, {args.clock} clock"


def row(what: str, figures: Mapping[str, float], unit: float, digits: int) -> str:
    """A row of the table: each figure and its ratio to ours."""
    cells = [f"{figures['ours'] / unit:.{digits}f}"]
    for name in ("torchvision", "plain", "ordinary"):
        value = figures.get(name)
        cells.append("" if value is None else f"{value / unit:.{digits}f} ({value / figures['ours']:.2f}x)")
    return f"| {what} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, help=f"default: {ROUNDS['cpu']} on a CPU, {ROUNDS['cuda']} on a GPU")
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--layout", choices=("nchw", "nhwc"), default="nchw", help="memory format of the operands")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--shape", nargs="+", metavar="CxHxWxN")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.rounds = args.rounds or ROUNDS[args.device]
    args.shape = args.shape or SHAPES[args.device]
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.memory_of:
        print(memory_of(args.memory_of, args.shape[0], args.layout))
        return

    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {machine(args)}, {args.layout}, ", end="")
    print(f"medians of {args.rounds} rounds\n")
    digits = 3 if args.device == "cuda" else 1
    print("| width x map x batch | ours | torchvision | plain | ordinary convolution |\n|---|---|---|---|---|")
    for shape in args.shape:
        for kind, build in (("", functions), ("layer, ", layers)):
            for backward in (False, True):
                figures = medians(*build(shape, args.layout, args.device), args, backward=backward)
                print(row(f"{shape}, {kind}forward{' + backward' * backward}, ms", figures, 1e-3, digits), flush=True)
        print(row(f"{shape}, memory of forward + backward, MiB", memory(shape, args), 2**20, 0), flush=True)


if __name__ == "__main__":
    main()
