"""A backend of `nasdsl.nn.cuda_graphs` for CPUs: it records operations, and replays them on the same memory, as a GPU does.

Like a CUDA graph, a recording runs no Python again, reads weights where they were, and leaves its results in the same tensors.
What a GPU cannot capture, an operation whose result the CPU must know, raises an error as it does there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

SYNCHRONISING = ("aten._local_scalar_dense", "aten.nonzero", "aten.masked_select", "aten.equal", "aten.is_nonzero")
"""Operations for which the CPU waits."""


class NotCapturable(RuntimeError):
    """What CUDA says of an operation that synchronises during a capture."""


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, list[Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        by_mask = func.overloadpacket is torch.ops.aten.index and any(
            i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if str(func).startswith(SYNCHRONISING) or by_mask:
            raise NotCapturable(f"operation not permitted when stream is capturing: {func}")
        out = func(*args, **kwargs)
        self.steps.append((func, args, kwargs, tree_flatten(out)[0]))
        return out


class RecordedGraph:
    def __init__(self, steps: list[tuple[Any, Any, Any, list[Any]]]) -> None:
        self.steps, self.replays = steps, 0

    def replay(self) -> None:
        self.replays += 1
        # Tensors of inference mode among the steps, such as weights, may only be written to in it.
        with torch.inference_mode():
            for func, args, kwargs, outputs in self.steps:
                for old, new in zip(outputs, tree_flatten(func(*args, **kwargs))[0], strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class RecordingMoment:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    def record(self) -> None:
        self.log.append("record")

    def wait(self) -> None:
        self.log.append("wait")

    def synchronize(self) -> None:
        self.log.append("synchronize")


class RecordingBackend:
    """See the module.

    Attributes:
        log: what was asked of it, in order: warm up, capture, replay, wait, record, synchronize, keep.
        times: of the runs that it is asked to time, one after the other; the last one stays.
        fails: raised by the next captures.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.graphs: list[RecordedGraph] = []
        self.pools: list[Any] = []
        self.times: Callable[[], float] = lambda: 1.0
        self.fails: Exception | None = None
        self.busy = threading.Lock()

    def supports(self, inputs: Sequence[Tensor]) -> bool:
        return True

    def on_device(self, inputs: Sequence[Tensor]) -> AbstractContextManager[object]:
        return nullcontext()

    def new_pool(self) -> Any:
        return object()

    def warm_up(self, run: Callable[[], object], runs: int) -> None:
        self.log.append("warm up")
        for _ in range(runs):
            run()

    def capture(self, run: Callable[[], tuple[Tensor, ...]], pool: Any) -> tuple[RecordedGraph, tuple[Tensor, ...]]:
        assert self.busy.acquire(blocking=False), "two captures at a time"
        try:
            self.log.append("capture")
            if self.fails is not None:
                raise self.fails
            with _Recorder() as recorder:
                outputs = run()
        finally:
            self.busy.release()
        self.graphs.append(graph := _Logged(recorder.steps, self.log))
        self.pools.append(pool)
        return graph, outputs

    def keep_for_current_stream(self, tensors: Iterable[Tensor]) -> None:
        self.log.append("keep")

    def moment(self) -> RecordingMoment:
        return RecordingMoment(self.log)

    def synchronize(self) -> None:
        self.log.append("synchronize device")

    def seconds(self, run: Callable[[], object]) -> float:
        run()
        return self.times()


class _Logged(RecordedGraph):
    def __init__(self, steps: list[tuple[Any, Any, Any, list[Any]]], log: list[str]) -> None:
        super().__init__(steps)
        self.log = log

    def replay(self) -> None:
        self.log.append("replay")
        super().replay()


def operations(function: Callable[[], object]) -> list[str]:
    """The names of the operations that a function runs."""
    with _Recorder() as recorder:
        function()
    return [str(step[0]) for step in recorder.steps]
