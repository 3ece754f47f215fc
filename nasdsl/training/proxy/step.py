"""A training step of a decoder, as a function of a batch alone: so a GPU can repeat it as a CUDA graph.

Everything that changes from step to step is in tensors on the device: weights, the optimizer's state, averaged weights, the
number of the step, its learning rate, and the losses of all steps. On a GPU the CPU reads the losses now and then, and waits
for nothing else.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from nasdsl.detection.method import Method
from nasdsl.detection.positives import is_read_at_once
from nasdsl.nn.cuda_graphs import Backend, CudaBackend, Graph, capture, reason_of_failure
from nasdsl.training.ema import WeightAverage, ema_decay
from nasdsl.training.proxy.loader import CropBatch
from nasdsl.training.proxy.spec import DTYPES, ProxySpec
from nasdsl.training.proxy.timer import Timer
from nasdsl.training.schedule import cosine, one_cycle

STEPS_BEFORE_CAPTURE: Final = 3
"""Steps that run as they are before one is captured: libraries choose their algorithms and allocate memory in them. The last
one runs on a stream of its own, as before every capture (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs)."""
LEAST_STEPS: Final = 10
"""Trainings of fewer steps are not captured."""

_warned: set[str] = set()


class StepLosses(NamedTuple):
    """The losses of a step: their sum, and each by name."""

    total: float
    each: dict[str, float]


class TrainingStep:
    """The steps of a training.

    Args:
        module: is trained; a decoder, or its head alone.
        method: of the losses, at the beginning of the training.
        timer: gets the seconds of ``compute`` and ``average``.

    Attributes:
        average: the averaged weights; None without averaging.
    """

    def __init__(self, module: nn.Module, method: Method, spec: ProxySpec, device: torch.device, timer: Timer) -> None:
        self._module, self._method, self._spec, self._device, self._timer = module, method, spec, device, timer
        self.average = WeightAverage(module) if spec.average is not None else None
        self._rates = [spec.learning_rate * _rate_factor(spec, step) for step in range(spec.iterations)]
        self._shares = [1.0 if not step else 1 - ema_decay(step, spec.average or 0.0) for step in range(spec.iterations)]
        self._rate: float | Tensor = self._rates[0]
        self._share: float | Tensor = self._shares[0]
        self._on_cpu = is_read_at_once(device)
        if not self._on_cpu:
            self._table = torch.tensor([self._rates, self._shares], dtype=torch.float32).T.to(device)
            self._rate, self._share = self._table[0].clone().unbind()
        self._optimizer = torch.optim.Adam(module.parameters(), self._rate, fused=True, capturable=not self._on_cpu)
        self._number = torch.zeros(1, dtype=torch.int64, device=device)
        self._begun = self._read = 0
        self._names: tuple[str, ...] = ()
        self._losses: Tensor | None = None
        module.train()

    def __call__(self, batch: CropBatch) -> None:
        """Train on a batch."""
        self._set_rates()
        method = self._method.at(self._begun / self._spec.iterations)
        with self._timer.time("compute"):
            with autocast(self._device, self._spec):
                predictions = self._module(batch.features)
            losses = method.losses(predictions, batch.targets)
            total = torch.stack(list(losses.values())).sum()
            self._optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]  # torch's own annotation is missing
            self._optimizer.step()
            self._record(total, losses)
        if self.average is not None:
            with self._timer.time("average"):
                self.average.update(self._module, self._share)
        self._number += 1

    def count(self) -> None:
        """Note that a step was run, or repeated as a graph."""
        self._begun += 1

    def read(self) -> list[StepLosses]:
        """The losses of the steps since the last call. A GPU finishes them first."""
        assert self._losses is not None
        rows = self._losses[self._read : self._begun].tolist()
        self._read = self._begun
        return [StepLosses(row[0], dict(zip(self._names, row[1:], strict=True))) for row in rows]

    def _set_rates(self) -> None:
        """The learning rate of this step, and the share of its weights in the average."""
        if self._on_cpu:
            self._share = self._shares[self._begun]
            for group in self._optimizer.param_groups:
                group["lr"] = self._rates[self._begun]
            return
        row = self._table.index_select(0, self._number)[0]
        assert isinstance(self._rate, Tensor)
        assert isinstance(self._share, Tensor)
        self._rate.copy_(row[0])
        self._share.copy_(row[1])

    def _record(self, total: Tensor, losses: dict[str, Tensor]) -> None:
        row = torch.stack([total, *losses.values()]).detach()
        if self._losses is None:
            self._names = tuple(losses)
            self._losses = row.new_zeros(self._spec.iterations, len(row))
        self._losses.index_copy_(0, self._number, row[None])


class StepRunner:
    """Runs the steps of a training: as they are on a CPU, on a GPU as a CUDA graph after a few of them.

    A step that cannot be captured runs as it is; that is said once for each reason.

    Args:
        backend: of the device. None: that of CUDA for a GPU with it, none elsewhere.
    """

    def __init__(
        self, step: TrainingStep, method: Method, spec: ProxySpec, device: torch.device, backend: Backend | None = None
    ) -> None:
        self.step = step
        if backend is None and device.type == "cuda":
            backend = CudaBackend()
        self._backend = backend if method.has_fixed_losses and spec.iterations >= LEAST_STEPS else None
        self._run = 0
        self._graph: Graph | None = None
        self._own: CropBatch | None = None

    def __call__(self, batch: CropBatch) -> None:
        """Train on a batch, whose tensors may be overwritten afterwards."""
        backend = self._backend
        if backend is None:
            self.step(batch)
        else:
            with backend.on_device(_tensors(batch)):
                if self._run < STEPS_BEFORE_CAPTURE - 1:
                    self.step(batch)
                elif self._run < STEPS_BEFORE_CAPTURE:  # alone on a stream: each one keeps memory of its own
                    backend.warm_up(lambda: self.step(batch), 1)
                elif self._graph is None:
                    self._capture(backend, batch)
                if self._graph is not None:
                    self._replay(backend, batch)
        self._run += 1
        self.step.count()

    def _capture(self, backend: Backend, batch: CropBatch) -> None:
        """Record the step; where that fails, run it."""
        own = CropBatch(
            {n: x.clone() for n, x in batch.features.items()}, type(batch.targets)(*(x.clone() for x in batch.targets))
        )
        try:
            self._graph, _ = capture(backend, lambda: self._recorded(own))
        except Exception as error:  # anything may fail: a synchronisation in a layer, memory, the driver
            self._backend = None
            _warn_once(error)
        if self._graph is None:
            self.step(batch)
        else:
            self._own = own

    def _recorded(self, batch: CropBatch) -> tuple[Tensor, ...]:
        self.step(batch)
        return ()

    def _replay(self, backend: Backend, batch: CropBatch) -> None:
        assert self._graph is not None
        assert self._own is not None
        for own, given in zip(_tensors(self._own), _tensors(batch), strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()


def autocast(device: torch.device, spec: ProxySpec) -> AbstractContextManager[object]:
    """The precision of the spec, for the forward pass."""
    return torch.autocast(device.type, DTYPES[spec.precision], enabled=spec.precision != "float32")


def _tensors(batch: CropBatch) -> list[Tensor]:
    return [*batch.features.values(), *batch.targets]


def _rate_factor(spec: ProxySpec, step: int) -> float:
    """The fraction of the learning rate at `step`, counted from 0."""
    if spec.schedule == "constant":
        return 1.0
    if spec.schedule == "cosine":
        return cosine(step, spec.iterations, 0.0)
    return one_cycle(step, spec.iterations, rise=0.3, start=0.04, final=0.0)


def _warn_once(error: BaseException) -> None:
    reason = reason_of_failure(error)
    if reason not in _warned:
        _warned.add(reason)
        warnings.warn(f"trainings run without a CUDA graph, which would be faster: {reason}", stacklevel=2)
