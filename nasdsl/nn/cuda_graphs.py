"""CUDA graphs: the kernels of a call are recorded once for each kind of inputs, and then launched all at once.

Without a graph, Python launches every kernel by itself, and a GPU waits for it where kernels are short. `GraphCache` records
the calls of a function that recur, and replays them: inputs are copied into the graph's own tensors, outputs out of them.
`capture` records one run, for callers that decide by themselves what is recorded and when.

What is recorded is what ran: kernels, their order, and the addresses of the tensors that they read. So the function must do
nothing on the CPU that depends on values on the GPU, and the shapes of its outputs must follow from those of its inputs.
Source: https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs.
"""

from __future__ import annotations

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor

from nasdsl.nn.tracing import is_dispatched_plainly, is_eager

Tensors: TypeAlias = tuple[Tensor, ...]
Function: TypeAlias = Callable[..., Tensors]
"""Tensors to tensors, without keyword arguments."""

Reads: TypeAlias = Callable[[], Sequence[Tensor] | None]
"""The tensors that a function reads besides its inputs, as they are now; None if it must run itself."""

CAPACITY = 8
"""Graphs that a cache keeps."""
CALLS_BEFORE_CAPTURE = 2
"""Calls of one kind that run without a graph. Recording one takes about as long as five of them, which a kind of inputs that
does not recur, as of images of many sizes, would never win back."""
COUNTED_KINDS = 256
"""Kinds whose calls are counted."""
MOST_FAILURES = 3
"""A cache in which so many kinds in a row could not be captured does not try others."""
WARM_UP_RUNS = 3
"""Before a capture, as in `torch.cuda.make_graphed_callables`: libraries choose algorithms and allocate memory then."""
TIMED_RUNS = 5

_capture_lock = threading.Lock()
"""Only one capture may be underway in a process."""


_NEVER = -1
"""Instead of the number of calls: of a kind that is not captured."""


class Moment(Protocol):
    """A point of a stream's work, as ``torch.cuda.Event``."""

    def record(self) -> None:
        """Set it to what the current stream has been given so far."""

    def wait(self) -> None:
        """Let the current stream wait for it."""

    def synchronize(self) -> None:
        """Let the CPU wait for it."""


class Graph(Protocol):
    """A recorded graph, as ``torch.cuda.CUDAGraph``."""

    def replay(self) -> None:
        """Launch it on the current stream."""


class Backend(Protocol):
    """What a cache needs of a device. `CudaBackend` is the real one; tests have one that records on a CPU."""

    def supports(self, inputs: Sequence[Tensor]) -> bool:
        """Whether a call with these inputs can be recorded or replayed here and now."""

    def on_device(self, inputs: Sequence[Tensor]) -> AbstractContextManager[object]:
        """A block in which the device of the inputs is the current one."""

    def new_pool(self) -> Any:
        """Memory that graphs of the current device can share."""

    def warm_up(self, run: Callable[[], object], runs: int) -> None:
        """Run several times on a side stream; the current stream waits for it."""

    def capture(self, run: Callable[[], Tensors], pool: Any) -> tuple[Graph, Tensors]:
        """Record a run. Its outputs are tensors in which every replay leaves its results.

        Args:
            run: what is recorded.
            pool: of `new_pool`; None: memory of its own.
        """

    def keep_for_current_stream(self, tensors: Iterable[Tensor]) -> None:
        """Do not reuse the memory of these before the current stream has done what it was given."""

    def moment(self) -> Moment:
        """A new point of a stream's work."""

    def synchronize(self) -> None:
        """Let the CPU wait for all work of the device."""

    def seconds(self, run: Callable[[], object]) -> float:
        """The time of a run."""


class CudaBackend:
    """CUDA graphs on the GPU of the inputs."""

    def supports(self, inputs: Sequence[Tensor]) -> bool:
        devices = {t.device for t in inputs}
        if len(devices) != 1 or next(iter(devices)).type != "cuda" or torch.cuda.is_current_stream_capturing():
            return False
        return is_dispatched_plainly()

    def on_device(self, inputs: Sequence[Tensor]) -> AbstractContextManager[object]:
        return torch.cuda.device(inputs[0].device)

    def new_pool(self) -> Any:
        # A stream of its own: torch's is on the device that was used first, and memory is shared within a stream.
        return torch.cuda.graph_pool_handle(), torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own

    def warm_up(self, run: Callable[[], object], runs: int) -> None:
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(runs):
                run()
        current.wait_stream(side)

    def capture(self, run: Callable[[], Tensors], pool: Any) -> tuple[Graph, Tensors]:
        graph = torch.cuda.CUDAGraph()
        handle, stream = pool or self.new_pool()
        # torch leaves its side stream the current one where a capture fails. Other threads may go on meanwhile: they are none
        # of this capture's business.
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(graph, pool=handle, stream=stream, capture_error_mode="thread_local"),
        ):
            outputs = run()
        return graph, outputs

    def keep_for_current_stream(self, tensors: Iterable[Tensor]) -> None:
        stream = torch.cuda.current_stream()
        for tensor in tensors:
            tensor.record_stream(stream)

    def moment(self) -> Moment:
        return torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own

    def synchronize(self) -> None:
        torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object]) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]  # torch's own
        torch.cuda.synchronize()
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1000


def capture(backend: Backend, run: Callable[[], Tensors], pool: Any = None) -> tuple[Graph, Tensors]:
    """`Backend.capture` when no other capture is underway in this process: CUDA allows one at a time."""
    with _capture_lock:
        return backend.capture(run, pool)


class CapturedCall:
    """A recorded call of a function. Calls must not overlap: neither in threads, nor with those of a graph in the same pool.

    Args:
        function: what is recorded. It runs `WARM_UP_RUNS` times before, so a function that changes something must undo it.
        inputs: give the shapes, types and memory formats; their values are those of the warm-up.
        backend: of the device.
        pool: of `backend.new_pool`, memory that it shares with other graphs.
    """

    def __init__(self, function: Function, inputs: Sequence[Tensor], backend: Backend, pool: Any = None) -> None:
        self._backend = backend
        # Tensors of inference mode could not be filled outside of it.
        with _plain_mode():
            self.inputs = tuple(torch.empty_like(t) for t in inputs)
            for own, given in zip(self.inputs, inputs, strict=True):
                own.copy_(given)
            backend.warm_up(lambda: function(*self.inputs), WARM_UP_RUNS)
            self._graph, self.outputs = capture(backend, lambda: function(*self.inputs), pool)

    def __call__(self, *inputs: Tensor) -> Tensors:
        """The outputs for inputs of the same kind, as tensors that later calls do not overwrite."""
        with torch.no_grad():
            for own, given in zip(self.inputs, inputs, strict=True):
                own.copy_(given, non_blocking=True)
            self.replay()
            return tuple(t.clone() for t in self.outputs)

    def replay(self) -> None:
        """Compute the outputs from what the inputs hold now."""
        self._backend.keep_for_current_stream(self.inputs)
        self._graph.replay()


class _Entry(NamedTuple):
    """A graph, with the tensors that it reads besides its inputs: they live as long as it does.

    Attributes:
        places: addresses of what it reads.
    """

    call: CapturedCall
    reads: tuple[Tensor, ...]
    places: tuple[int, ...]

    def reads_these(self, tensors: Sequence[Tensor] | None) -> bool:
        """Whether these are what it reads."""
        return tensors is not None and tuple(t.data_ptr() for t in tensors) == self.places


class GraphCache:
    """Runs a function, and replays graphs of those calls that recur. Several threads and streams may use it.

    A kind of call is the function with shapes, strides, types and device of its inputs, and settings of torch that choose
    kernels. A kind is captured at its third call; of more than `capacity`, the graph that was not used for longest is dropped.
    A kind that cannot be captured runs as without a cache, which one warning tells. All graphs share their memory, so one of
    them runs at a time; what another stream is given waits for it.

    Args:
        capacity: number of graphs.
        enabled: False: nothing is captured.
        name: of what runs, for the warning.
        backend: of the device.
    """

    def __init__(
        self, capacity: int = CAPACITY, *, enabled: bool = True, name: str = "this function", backend: Backend | None = None
    ) -> None:
        self.enabled, self.name = enabled, name
        self.backend = backend or CudaBackend()
        self._capacity = capacity
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._calls: OrderedDict[Hashable, int] = OrderedDict()
        self._failures = 0
        self._pool: Any = None
        self._last: Moment | None = None
        self._lock = threading.RLock()
        self._warned = False

    def __len__(self) -> int:
        return len(self._entries)

    def run(
        self,
        function: Function,
        inputs: Sequence[Tensor],
        reads: Reads = tuple,
        *,
        before_capture: Callable[[Sequence[Tensor]], None] | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> Tensors:
        """The outputs of the function. Where gradients are needed, it runs as without a cache.

        Args:
            function: computes outputs from inputs and `reads`.
            inputs: of the function.
            reads: gives the other tensors that it reads, such as weights. Their values may change in place; where one of them
                is replaced, the graphs are dropped. None instead: this call must run as without a cache.
            before_capture: called with the inputs of a kind that recurs, before it is captured; it may replace what is read.
            on_failure: called instead of the warning if a kind cannot be captured.
        """
        if not is_eager(inputs) or not self.backend.supports(inputs) or _needs_gradients(inputs, reads):
            return function(*inputs)
        with self._lock, self.backend.on_device(inputs):
            key = _kind(function, inputs)
            entry = self._entries.get(key)
            # The replay comes first: the GPU works while the CPU looks whether it was of any use.
            outputs = None if entry is None else self._replay(entry, inputs)
            now = reads()
            if entry is not None and outputs is not None and entry.reads_these(now):
                self._entries.move_to_end(key)
                return outputs
            if now is None:
                return function(*inputs)
            if entry is not None:
                self.clear()  # counts from new: what is replaced at every call is never captured
            if not self._recurs(key):
                return function(*inputs)
            try:
                if before_capture is not None:
                    before_capture(inputs)
                if not self.enabled or self._failures >= MOST_FAILURES:
                    self._calls[key] = _NEVER
                    return function(*inputs)
                entry = self._capture(key, function, inputs, reads() or ())
            except Exception as error:  # anything may fail: a synchronisation in the function, memory, the driver
                self._pool = None  # its state is unknown
                outputs = function(*inputs)  # raises what is wrong with the call itself
                self._calls[key] = _NEVER
                self._failures += 1
                (on_failure or self._warn)(error)
                return outputs
            self._failures = 0
            return self._replay(entry, inputs)

    def seconds(self, function: Function, inputs: Sequence[Tensor]) -> float:
        """The time of a call, as it is once the kind recurs: the least of some."""
        with self._lock, self.backend.on_device(inputs):
            recorded = CapturedCall(function, inputs, self.backend) if self.enabled else None
            run: Callable[[], object] = partial(function, *inputs) if recorded is None else recorded.replay
            run()
            return min(self.backend.seconds(run) for _ in range(TIMED_RUNS))

    def clear(self) -> None:
        """Drop all graphs, and forget what was called and what could not be captured."""
        with self._lock:
            self._finish()
            self._entries.clear()
            self._calls.clear()
            self._pool, self._last, self._failures = None, None, 0

    def exclusively(self) -> AbstractContextManager[object]:
        """A block in which no other thread runs something of this cache."""
        return self._lock

    def _recurs(self, key: Hashable) -> bool:
        """Count a call of a kind; whether it was called often enough before."""
        calls = self._calls.pop(key, 0)
        self._calls[key] = _NEVER if calls == _NEVER else calls + 1
        if len(self._calls) > COUNTED_KINDS:
            self._calls.popitem(last=False)
        return calls >= CALLS_BEFORE_CAPTURE

    def _capture(self, key: Hashable, function: Function, inputs: Sequence[Tensor], reads: Sequence[Tensor]) -> _Entry:
        self._finish()
        while len(self._entries) >= self._capacity:
            dropped, _ = self._entries.popitem(last=False)
            self._calls.pop(dropped, None)
        if self._pool is None or not self._entries:
            self._pool = self.backend.new_pool()  # torch does not take one back whose graphs are gone
        entry = _Entry(
            CapturedCall(function, inputs, self.backend, self._pool),
            tuple(t.detach() for t in reads),
            tuple(t.data_ptr() for t in reads),
        )
        self._entries[key] = entry
        return entry

    def _replay(self, entry: _Entry, inputs: Sequence[Tensor]) -> Tensors:
        if self._last is None:
            self._last = self.backend.moment()
        self._last.wait()  # another stream may still read what the last one gave
        outputs = entry.call(*inputs)
        self._last.record()
        return outputs

    def _finish(self) -> None:
        """Wait for the last replay: the memory of a graph may be reused as soon as it is gone."""
        if self._last is not None:
            self._last.synchronize()

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.name} runs without a CUDA graph, which would be faster: {reason_of_failure(error)}", stacklevel=4
            )


def reason_of_failure(error: BaseException) -> str:
    """Why a capture has failed, in one line: its end then raises once more, and what it raises says nothing."""
    while error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _needs_gradients(inputs: Sequence[Tensor], reads: Reads) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *(reads() or ())))


def _kind(function: Function, inputs: Sequence[Tensor]) -> Hashable:
    """The key of calls that share a graph."""
    kinds = tuple((t.shape, t.stride(), t.dtype, t.device) for t in inputs)
    device = inputs[0].device.type
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    return getattr(function, "__func__", function), kinds, autocast, _kernel_settings()


def _kernel_settings() -> Hashable:
    """Settings of torch that choose kernels, as far as they can be read: torch raises where its two interfaces were mixed."""
    settings: list[object] = [torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark]
    for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
        try:
            settings.append(backend.allow_tf32)
        except RuntimeError:
            settings.append(None)
    return tuple(settings)


@contextmanager
def _plain_mode() -> Iterator[None]:
    """Neither inference mode nor gradients; no casts that autocast keeps for later calls."""
    cached = torch.is_autocast_cache_enabled()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        stack.callback(torch.set_autocast_cache_enabled, cached)
        torch.set_autocast_cache_enabled(False)
        yield
