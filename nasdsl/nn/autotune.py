"""Autotuner: picks the fastest implementation of an operation on a GPU by timing each of them once per kind of call.

Which implementation is fastest depends on the GPU, on versions and on shapes. Users are the deformable convolution, the dilated
depthwise convolution and GroupNorm; each defines the kinds of its calls in a subclass of `Call`.
"""

from __future__ import annotations

import importlib.util
import math
import os
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nasdsl.nn.memory_format import memory_format_of

Compute = Callable[..., Tensor]
Operands = Sequence[Tensor | None]

ROUNDS = 5
"""Timed calls of each implementation; the fastest counts."""
HOPELESS = 2.0
"""An implementation whose first timed call takes this many times as long as the fastest one is timed no further."""


class Call(ABC):
    """A call of an operation without the values of its operands: all that the speed of its implementations depends on.

    It can be repeated on random operands of the same shapes, types, layouts and autocast, to check and time implementations.

    Attributes:
        shapes: of the operands; None for one that is not given.
        kinds: (type, memory format, whether a gradient is required) of each operand.
        arguments: what is not a tensor.
    """

    def __init__(self, operands: Operands, arguments: tuple[Hashable, ...]) -> None:
        gradients = torch.is_grad_enabled()
        first = operands[0]
        assert first is not None
        self.device, self.arguments = first.device, arguments
        self.shapes = tuple(None if t is None else tuple(t.shape) for t in operands)
        self.kinds = tuple(
            None if t is None else (t.dtype, memory_format_of(t), gradients and t.requires_grad) for t in operands
        )
        kind = self.device.type
        self.autocast_dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None

    @property
    def key(self) -> Hashable:
        """Equal for calls that share a measurement."""
        return self.device, self.kinds, self.arguments, self.autocast_dtype, self.size_class()

    @abstractmethod
    def size_class(self) -> Hashable:
        """What of the shapes belongs to the `key`.

        Numbers of positions count by their bit lengths, so to within a factor of two: images of a data set have many sizes.
        """

    @abstractmethod
    def small_shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        """Shapes of operands on which results are compared with the reference, which may lack memory for the full size."""

    @abstractmethod
    def compute(self, compute: Compute, operands: Operands) -> Tensor:
        """Call an implementation."""

    def fill(self, number: int, tensor: Tensor, generator: torch.Generator) -> None:
        """Fill operand `number` with random values."""
        tensor.normal_(generator=generator)

    @property
    def tolerance(self) -> float:
        """The largest `relative_error` of a correct implementation; a wrong one has an error of about 1.

        Products in TensorFloat-32, which torch can be set to use, have 10 bits, in bfloat16 7.
        """
        assert self.kinds[0] is not None
        return 5e-2 if self.autocast_dtype is not None or self.kinds[0][0].itemsize == 2 else 1e-2

    def relative_error(self, compute: Compute, expected: Compute) -> float:
        """The largest norm of the difference of output and gradients, relative to the expected norm, on `small_shapes`."""
        results = (self._run(function, self._random_operands(self.small_shapes())) for function in (compute, expected))
        pairs = [(a.double(), b.double()) for a, b in zip(*results, strict=True)]
        errors = [(a - b).norm() / b.norm().clamp_min(1e-6) for a, b in pairs]
        return float(torch.stack(errors).max())  # NaN if any of them is

    def step(self, compute: Compute) -> Callable[[], object]:
        """A function that runs the call at its full size, with the gradients that the given call needs."""
        operands = self._random_operands(self.shapes)
        return lambda: self._run(compute, operands)

    def _run(self, compute: Compute, operands: Operands) -> list[Tensor]:
        """The output and the gradients."""
        inputs = [t for t in operands if t is not None and t.requires_grad]
        autocast = self.autocast_dtype
        with torch.set_grad_enabled(bool(inputs)):
            with torch.autocast(self.device.type, autocast, enabled=autocast is not None, cache_enabled=False):
                out = self.compute(compute, operands)
            return [out.detach(), *(torch.autograd.grad(out, inputs, out.detach()) if inputs else ())]

    def _random_operands(self, shapes: Sequence[tuple[int, ...] | None]) -> list[Tensor | None]:
        """Operands of these shapes, the same at every call."""
        generator = torch.Generator(self.device).manual_seed(0)
        operands: list[Tensor | None] = []
        for number, (shape, kind) in enumerate(zip(shapes, self.kinds, strict=True)):
            if shape is None or kind is None:
                operands.append(None)
                continue
            dtype, layout, requires_grad = kind
            tensor = torch.empty(shape, dtype=dtype, device=self.device, memory_format=layout)
            self.fill(number, tensor, generator)
            operands.append(tensor.requires_grad_(requires_grad))
        return operands


@dataclass
class Autotuner:
    """Chooses among the implementations of an operation.

    Attributes:
        operation: its name, for warnings.
        variable: the environment variable that forces an implementation by name.
        implementations: by name. "plain" is the reference, with which the others are compared.
        untimed: the one that is used where nothing can be timed, and where results must not depend on times.
        packages: what implementations import: the package by their name. Those whose package is not installed are not tried.
    """

    operation: str
    variable: str
    implementations: Mapping[str, Compute]
    untimed: str = "plain"
    packages: Mapping[str, str] = field(default_factory=dict)
    fastest: dict[Hashable, str] = field(default_factory=dict)
    rejected: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, call: Call, operands: Operands) -> Tensor:
        """Compute the call with the implementation that is forced, or the fastest one.

        Under deterministic algorithms it is `untimed`: two runs may measure differently, and implementations round differently.

        Raises:
            ValueError: the environment variable is not the name of an implementation.
        """
        return call.compute(self.implementations[self.forced() or self.choose(call)], operands)

    def forced(self) -> str | None:
        """The implementation that the environment variable names, if any."""
        name = os.environ.get(self.variable)
        if name and name not in self.implementations:
            raise ValueError(f"{self.variable}={name}: expected {', '.join(self.implementations)}")
        return name or None

    def choose(self, call: Call) -> str:
        """The fastest implementation for calls of this kind, from the cache or by timing."""
        if torch.are_deterministic_algorithms_enabled():
            return self.untimed
        key = call.key
        if key in self.fastest:
            return self.fastest[key]
        if is_capturing():
            return self.untimed  # nothing can be timed or compiled during the capture of a CUDA graph
        with self.lock:
            if key not in self.fastest:
                self.fastest[key] = self._in_thread(call)
        return self.fastest[key]

    def _in_thread(self, call: Call) -> str:
        """`benchmark` in a thread of its own, where autocast, hooks and modes of the caller do not apply."""
        stream: AbstractContextManager[object] = nullcontext()
        if call.device.type == "cuda":
            stream = torch.cuda.stream(torch.cuda.current_stream(call.device))

        def run() -> str:
            with stream:
                return self.benchmark(call)

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(run).result()

    def benchmark(self, call: Call) -> str:
        """The fastest of the implementations that run and agree with the reference."""
        times: dict[str, float] = {}
        for name, compute in self.implementations.items():
            if name in self.packages and importlib.util.find_spec(self.packages[name]) is None:
                continue  # Triton is a part of torch on Linux only
            try:
                error = call.relative_error(compute, self.implementations["plain"])
                if error <= call.tolerance:
                    times[name] = seconds(call.step(compute), min(times.values(), default=math.inf))
                    continue
                problem = f"its result differs from the reference by {error:.1e} of its norm"
            except Exception as raised:  # no compiler, no kernel for this GPU, no memory: the others may work
                problem = f"{type(raised).__name__}: {raised}".splitlines()[0]
            if name not in self.rejected:
                self.rejected.add(name)
                warnings.warn(f"{self.operation} does not use {name}: {problem}", stacklevel=1)
        return min(times, key=times.__getitem__, default=self.untimed)


def is_capturing() -> bool:
    """Whether the current stream is captured into a CUDA graph."""
    return torch.cuda.is_current_stream_capturing()


def seconds(step: Callable[[], object], best: float) -> float:
    """The shortest time of `step` on the current GPU, including what the CPU does for it.

    Args:
        best: the time of the fastest implementation so far.
    """
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
        if times[0] > HOPELESS * best:
            break
    return min(times)
