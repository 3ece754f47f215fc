"""Which way computes a deformable convolution on a GPU: the fastest there, measured at the first call of each kind.

The ways are "triton" (`nasdsl.nn.deform.triton`), "torchvision" and "plain", the definition; which is fastest depends on the
GPU, on versions and on shapes. The environment variable NASDSL_DEFORM, one of these names, takes the choice away.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import warnings
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from nasdsl.nn.deform import reference, torchvision, triton
from nasdsl.nn.deform.implementation import Pair, fits
from nasdsl.nn.deform.trial_call import Geometry, Operands, Trial, kind_of

Compute = Callable[..., Tensor]
VARIABLE = "NASDSL_DEFORM"
WAYS: Mapping[str, Compute] = {
    "triton": triton.deform_conv2d,
    "torchvision": torchvision.deform_conv2d,
    "plain": reference.deform_conv2d,
}
ROUNDS = 5

_fastest: dict[Hashable, str] = {}
_left_out: set[str] = set()
_measuring = threading.Lock()


def suits(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are tensors on a GPU, and any way may compute with them."""
    return x.is_cuda and open_to_all(x, offset, mask, weight, bias)


def open_to_all(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether nothing speaks for the definition: no tracer, no mode, no wish to repeat to the bit, no mistake in shapes."""
    if not fits(x, offset, mask, weight, bias) or torch.are_deterministic_algorithms_enabled():
        return False
    # What a kernel of Triton does, modes and transforms do not see.
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return False
    # Nor does one check what it reads. Where shapes do not go together the definition says so.
    if offset.dim() != 4 or offset.shape[0] != x.shape[0] or weight.shape[0] % (x.shape[1] // weight.shape[1]):
        return False
    if mask is not None and mask.shape != (x.shape[0], offset.shape[1] // 2, *offset.shape[2:]):
        return False
    return bias is None or bias.shape == weight.shape[:1]


def deform_conv2d(
    x: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """`nasdsl.nn.deform_conv2d` for operands that `suits` is true of.

    Raises:
        ValueError: NASDSL_DEFORM is set to something else than a way's name.
    """
    name = fixed() or fastest((x, offset, mask, weight, bias), (stride, padding, dilation))
    return WAYS[name](x, offset, weight, bias, stride, padding, dilation, mask)


def fixed() -> str | None:
    """The way that the user wants, if any."""
    name = os.environ.get(VARIABLE)
    if name and name not in WAYS:
        raise ValueError(f"{VARIABLE}={name}: there is {', '.join(WAYS)}")
    return name or None


def fastest(operands: Operands, geometry: Geometry) -> str:
    """The fastest way for operands such as these; measured, unless it is known."""
    kind = kind_of(operands, geometry)
    if kind in _fastest:
        return _fastest[kind]
    if capturing():
        return "plain"  # nothing can be measured then, nor compiled
    with _measuring:
        if kind not in _fastest:
            _fastest[kind] = _in_a_thread(Trial(operands, geometry))
    return _fastest[kind]


def capturing() -> bool:
    """Whether a graph of the current stream's work is being recorded."""
    return torch.cuda.is_current_stream_capturing()


def _in_a_thread(trial: Trial) -> str:
    """The fastest way, measured where no autocast, hook, mode or graph of the caller's applies to, or sees, what is tried."""
    stream: AbstractContextManager[object] = nullcontext()
    if trial.device.type == "cuda":
        stream = torch.cuda.stream(torch.cuda.current_stream(trial.device))

    def measure() -> str:
        with stream:
            return compare(trial)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(measure).result()


def compare(trial: Trial) -> str:
    """The way that takes the least time, of those that work and give what the definition gives."""
    times = {}
    for name, way in WAYS.items():
        if importlib.util.find_spec(name) is None and name != "plain":
            continue  # Triton is a part of torch on Linux only
        try:
            error = trial.error(way, WAYS["plain"])
            if error <= trial.bound:
                times[name] = seconds(trial.step(way))
                continue
            problem = f"its result differs from the definition's by {error:.1e} of that"
        except Exception as raised:  # no compiler, no kernel for this GPU, no memory: whatever it is, there are others
            problem = f"{type(raised).__name__}: {raised}".splitlines()[0]
        if name not in _left_out:
            _left_out.add(name)
            warnings.warn(f"a deformable convolution is not computed by {name}: {problem}", stacklevel=1)
    return min(times, key=times.__getitem__, default="plain")


def seconds(step: Callable[[], object]) -> float:
    """The least that `step` takes on the current GPU, what the CPU does for it included."""
    step()
    times: list[float] = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch's own
        torch.cuda.synchronize()
        start.record()
        step()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1000)
    return min(times)
