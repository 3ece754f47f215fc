"""Autotuner: picks the fastest GPU implementation of a deformable convolution by timing each once per shape class.

The implementations are "triton" (`nasdsl.nn.deform.triton`), "torchvision" and "plain" (the reference); which one is fastest
depends on the GPU, on versions and on shapes. The environment variable NASDSL_DEFORM forces one of these names.
"""

from __future__ import annotations

import importlib.util
import os
import threading
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from nasdsl.nn.deform import reference, torchvision, triton
from nasdsl.nn.deform.implementation import Pair, are_compatible
from nasdsl.nn.memory_format import memory_format_of

Compute = Callable[..., Tensor]
Operands = tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None]
"""x, offset, mask, weight, bias."""
Placement = tuple[Pair, Pair, Pair]
"""stride, padding, dilation."""

VARIABLE = "NASDSL_DEFORM"
IMPLEMENTATIONS: Mapping[str, Compute] = {
    "triton": triton.deform_conv2d,
    "torchvision": torchvision.deform_conv2d,
    "plain": reference.deform_conv2d,
}
ROUNDS = 5
"""Timed calls of each implementation; the fastest counts."""
OFFSET_STD = 2.0
"""Standard deviation of synthetic offsets, in pixels: about what layers learn."""
CHECKED_SIZE = 24
"""Largest height and width of the outputs that are compared with the reference, which may lack memory for larger ones."""

_fastest: dict[Hashable, str] = {}
_rejected: set[str] = set()
_lock = threading.Lock()


def supports(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether these are GPU tensors that every implementation supports."""
    return x.is_cuda and all_support(x, offset, mask, weight, bias)


def all_support(x: Tensor, offset: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether nothing requires the reference: no tracer, no mode, no deterministic algorithms, no mismatch of shapes."""
    if not are_compatible(x, offset, mask, weight, bias) or torch.are_deterministic_algorithms_enabled():
        return False
    # Dispatch modes and functorch transforms do not see what a Triton kernel does.
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return False
    # Triton kernels do not check bounds. Where shapes do not match, the reference raises the error.
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
    """`nasdsl.nn.deform_conv2d` for operands that `supports` accepts.

    Raises:
        ValueError: NASDSL_DEFORM is not the name of an implementation.
    """
    name = forced() or fastest((x, offset, mask, weight, bias), (stride, padding, dilation))
    return IMPLEMENTATIONS[name](x, offset, weight, bias, stride, padding, dilation, mask)


def forced() -> str | None:
    """The implementation that NASDSL_DEFORM names, if any."""
    name = os.environ.get(VARIABLE)
    if name and name not in IMPLEMENTATIONS:
        raise ValueError(f"{VARIABLE}={name}: expected {', '.join(IMPLEMENTATIONS)}")
    return name or None


def fastest(operands: Operands, placement: Placement) -> str:
    """The fastest implementation for operands of this shape class, from the cache or by timing."""
    key = shape_class(operands, placement)
    if key in _fastest:
        return _fastest[key]
    if is_capturing():
        return "plain"  # nothing can be timed or compiled during the capture of a CUDA graph
    with _lock:
        if key not in _fastest:
            _fastest[key] = _in_thread(SyntheticCall(operands, placement))
    return _fastest[key]


def shape_class(operands: Operands, placement: Placement) -> Hashable:
    """The key of calls that share a measurement: all that speed depends on, approximately.

    Calls that differ only in the number of positions, by less than a factor of two, share one: images of a data set have
    many sizes.
    """
    x, offset, _, weight, _ = operands
    gradients = torch.is_grad_enabled()
    kinds = tuple(None if t is None else (t.dtype, memory_format_of(t), gradients and t.requires_grad) for t in operands)
    positions = x.shape[0] * offset.shape[2] * offset.shape[3]
    return x.device, kinds, weight.shape, x.shape[1], offset.shape[1], positions.bit_length(), placement, _autocast_dtype(x)


def is_capturing() -> bool:
    """Whether the current stream is captured into a CUDA graph."""
    return torch.cuda.is_current_stream_capturing()


def _in_thread(call: SyntheticCall) -> str:
    """`benchmark` in a thread of its own, where autocast, hooks and modes of the caller do not apply."""
    stream: AbstractContextManager[object] = nullcontext()
    if call.device.type == "cuda":
        stream = torch.cuda.stream(torch.cuda.current_stream(call.device))

    def run() -> str:
        with stream:
            return benchmark(call)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def benchmark(call: SyntheticCall) -> str:
    """The fastest of the implementations that run and agree with the reference."""
    times = {}
    for name, compute in IMPLEMENTATIONS.items():
        if importlib.util.find_spec(name) is None and name != "plain":
            continue  # Triton is a part of torch on Linux only
        try:
            error = call.relative_error(compute, IMPLEMENTATIONS["plain"])
            if error <= call.tolerance:
                times[name] = seconds(call.step(compute))
                continue
            problem = f"its result differs from the reference by {error:.1e} of its norm"
        except Exception as raised:  # no compiler, no kernel for this GPU, no memory: the others may work
            problem = f"{type(raised).__name__}: {raised}".splitlines()[0]
        if name not in _rejected:
            _rejected.add(name)
            warnings.warn(f"deformable convolution does not use {name}: {problem}", stacklevel=1)
    return min(times, key=times.__getitem__, default="plain")


def seconds(step: Callable[[], object]) -> float:
    """The shortest time of `step` on the current GPU, including what the CPU does for it."""
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


class _TensorSpec(NamedTuple):
    """A tensor without its values."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: torch.memory_format
    requires_grad: bool


class SyntheticCall:
    """A call of the same shapes, types and autocast as a given one, on random operands: to check and time implementations."""

    def __init__(self, operands: Operands, placement: Placement) -> None:
        gradients = torch.is_grad_enabled()
        self.device, self.placement = operands[0].device, placement
        self.autocast_dtype = _autocast_dtype(operands[0])
        self.x, self.offset, self.mask, self.weight, self.bias = (
            None if t is None else _TensorSpec(tuple(t.shape), t.dtype, memory_format_of(t), gradients and t.requires_grad)
            for t in operands
        )

    @property
    def tolerance(self) -> float:
        """The largest `relative_error` of a correct implementation; a wrong one has an error of about 1.

        Products in TensorFloat-32, which torch can be set to use, have 10 bits, in bfloat16 7.
        """
        assert self.x is not None
        return 5e-2 if self.autocast_dtype is not None or self.x.dtype.itemsize == 2 else 1e-2

    def relative_error(self, compute: Compute, expected: Compute) -> float:
        """The largest norm of the difference of output and gradients, relative to the expected norm; on two small images."""
        assert self.x is not None
        assert self.weight is not None
        stride, padding, dilation = self.placement
        size, out_size = [], []
        for axis in (0, 1):
            extent = dilation[axis] * (self.weight.shape[2 + axis] - 1) + 1
            size.append(min(self.x.shape[2 + axis], extent + stride[axis] * (CHECKED_SIZE - 1)))
            out_size.append((size[axis] + 2 * padding[axis] - extent) // stride[axis] + 1)
        batch = min(self.x.shape[0], 2)
        results = (self._run(function, self._random_operands(batch, size, out_size)) for function in (compute, expected))
        pairs = [(a.double(), b.double()) for a, b in zip(*results, strict=True)]
        errors = [(a - b).norm() / b.norm().clamp_min(1e-6) for a, b in pairs]
        return float(torch.stack(errors).max())  # NaN if any of them is

    def step(self, compute: Compute) -> Callable[[], object]:
        """A function that runs the call at its full size, with the gradients that the given call needs."""
        assert self.x is not None
        assert self.offset is not None
        operands = self._random_operands(self.x.shape[0], self.x.shape[2:], self.offset.shape[2:])
        return lambda: self._run(compute, operands)

    def _run(self, compute: Compute, operands: list[Tensor | None]) -> list[Tensor]:
        """The output and the gradients."""
        x, offset, mask, weight, bias = operands
        inputs = [t for t in operands if t is not None and t.requires_grad]
        autocast = self.autocast_dtype
        with torch.set_grad_enabled(bool(inputs)):
            with torch.autocast(self.device.type, autocast, enabled=autocast is not None, cache_enabled=False):
                out = compute(x, offset, weight, bias, *self.placement, mask)
            return [out.detach(), *(torch.autograd.grad(out, inputs, out.detach()) if inputs else ())]

    def _random_operands(self, batch: int, size: Sequence[int], out_size: Sequence[int]) -> list[Tensor | None]:
        """Operands for `batch` images of `size`, the same at every call."""
        generator = torch.Generator(self.device).manual_seed(0)
        operands: list[Tensor | None] = []
        for name in ("x", "offset", "mask", "weight", "bias"):
            spec: _TensorSpec | None = getattr(self, name)
            if spec is None:
                operands.append(None)
                continue
            shape = spec.shape
            if name not in ("weight", "bias"):
                shape = (batch, spec.shape[1], *(size if name == "x" else out_size))
            tensor = torch.empty(shape, dtype=spec.dtype, device=self.device, memory_format=spec.layout)
            tensor.normal_(generator=generator)
            if name == "offset":
                # Never near a whole pixel: the gradient jumps there, and rounding would decide.
                tensor.mul_(OFFSET_STD).round_().add_(torch.rand(shape, generator=generator, device=self.device) / 2 + 0.25)
            elif name == "mask":
                tensor.sigmoid_()
            elif name == "weight":
                tensor.div_(tensor[0].numel() ** 0.5)
            operands.append(tensor.requires_grad_(spec.requires_grad))
        return operands


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
