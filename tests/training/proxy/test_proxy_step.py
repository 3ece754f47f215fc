"""Training steps: as a function of a batch alone, as a recorded graph, and without waiting for a GPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from proxy_tools import small_spec, text
from recorded_graphs import RecordedGraph, RecordingBackend
from torch import Tensor, nn
from waiting import as_on_gpu, refusing_to_wait

from nasdsl.training.ema import WeightAverage, ema_decay, make_ema
from nasdsl.training.proxy import Diverged, ProxyTask, Stopped, loop, step
from nasdsl.training.proxy.loader import CropBatch
from nasdsl.training.proxy.loop import train_decoder, validate
from nasdsl.training.proxy.step import STEPS_BEFORE_CAPTURE, StepRunner, TrainingStep
from nasdsl.training.proxy.timer import Timer

ITERATIONS = 12
CPU = torch.device("cpu")
PREDICTIONS = ("fcos(centerness=cls)", "retinanet(anchors=3)", "atss(centerness=none)", "gfl(bins=4)")


@pytest.fixture(scope="module")
def task() -> ProxyTask:
    return ProxyTask(small_spec(iterations=ITERATIONS, schedule="cosine"), quiet=True)


class Undone(RecordingBackend):
    """A capture on a CPU computes what it records; this undoes it, because on a GPU it computes nothing."""

    def __init__(self, state: Callable[[], list[Tensor]]) -> None:
        super().__init__()
        self.state = state

    def capture(self, run: Callable[[], tuple[Tensor, ...]], pool: Any) -> tuple[RecordedGraph, tuple[Tensor, ...]]:
        before = [(x, x.detach().clone()) for x in self.state()]
        found = super().capture(run, pool)
        with torch.no_grad():
            for now, then in before:
                now.copy_(then)
        return found


def state_of(training: TrainingStep) -> list[Tensor]:
    """All tensors that a step changes."""
    modules: list[nn.Module] = [training._module]
    if training.average is not None:
        modules.append(training.average.module)
    of_modules = [x for module in modules for x in (*module.parameters(), *module.buffers())]
    of_optimizer = [x for each in training._optimizer.state.values() for x in each.values()]
    others = [training._number, training._rate, training._share, training._losses]
    return [*of_modules, *of_optimizer, *(x for x in others if isinstance(x, Tensor))]


def begin(task: ProxyTask, predict: str = PREDICTIONS[0], head: str = "conv_3x3(bias=true)") -> tuple[Any, ...]:
    """A decoder's step, method and batches."""
    decoder = task.load(text(head, predict))
    module, method = task._build(decoder), task.method(decoder)
    crops = task.crop_sampler.sample(task.train, task.spec.batch_size, ITERATIONS, 0)
    return TrainingStep(module, method, task.spec, CPU, Timer()), method, task.loader(module, method).batches(crops)


def run_all(
    training: TrainingStep, method: Any, batches: Iterator[CropBatch], task: ProxyTask, backend: RecordingBackend | None
) -> list[float]:
    """The losses of all steps."""
    run = StepRunner(training, method, task.spec, CPU, backend)
    for batch in batches:
        run(batch)
    return [losses.total for losses in training.read()]


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_a_recorded_step_trains_as_the_loop_does(task: ProxyTask, predict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: losses, weights and averages; and nearly as a CPU does, which computes losses of the positives alone."""
    on_cpu = run_all(*begin(task, predict), task, None)
    as_on_gpu(monkeypatch)
    plain, method, batches = begin(task, predict)
    expected = run_all(plain, method, batches, task, None)
    recorded, method, batches = begin(task, predict)
    backend = Undone(lambda: state_of(recorded))
    found = run_all(recorded, method, batches, task, backend)
    assert backend.log == ["warm up", "capture"] + ["replay"] * (ITERATIONS - STEPS_BEFORE_CAPTURE)
    assert found == expected
    assert len(set(found)) == ITERATIONS
    for a, b in zip(state_of(recorded), state_of(plain), strict=True):
        assert torch.equal(a, b)
    assert expected == pytest.approx(on_cpu, rel=1e-3)


def test_a_step_that_cannot_be_captured_runs_as_it_is(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_gpu(monkeypatch)
    monkeypatch.setattr(step, "_warned", set())
    expected = run_all(*begin(task), task, None)
    for decoder in range(2):
        backend = RecordingBackend()
        backend.fails = RuntimeError("operation not permitted when stream is capturing")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert run_all(*begin(task), task, backend) == expected
        told = [str(warning.message) for warning in caught]
        assert len(told) == (1 if decoder == 0 else 0)
        assert all("without a CUDA graph" in words and "not permitted" in words for words in told)
        assert "replay" not in backend.log


def test_losses_that_are_not_fixed_and_short_trainings_are_not_captured(
    task: ProxyTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_gpu(monkeypatch)
    backend = RecordingBackend()
    run_all(*begin(task, "tal"), task, backend)
    monkeypatch.setattr(step, "LEAST_STEPS", ITERATIONS + 1)
    run_all(*begin(task), task, backend)
    assert backend.log == []


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_a_step_does_not_wait(task: ProxyTask, predict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_gpu(monkeypatch)
    training, method, batches = begin(task, predict, "dconv_3x3 -> sep_3x3")
    run, loaded = StepRunner(training, method, task.spec, CPU), list(batches)
    run(loaded[0])
    with refusing_to_wait():
        for batch in loaded[1:4]:
            run(batch)


def test_losses_are_read_now_and_then(task: ProxyTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU reads them in every step; a GPU is asked `READS` times for all, with the same reports."""
    read = TrainingStep.read
    calls: list[int] = []
    monkeypatch.setattr(TrainingStep, "read", lambda self: (calls.append(1), read(self))[1])
    monkeypatch.setattr(loop, "READS", 3)
    reports: list[list[tuple[int, float]]] = []
    for of_gpu in (False, True):
        if of_gpu:
            as_on_gpu(monkeypatch)
        calls.clear()
        _, method, batches = begin(task)
        module = task._build(task.load(text()))
        reports.append([])
        train_decoder(module, batches, method, task.spec, Timer(), lambda n, loss: reports[-1].append((n, loss)))  # type: ignore[func-returns-value]  # None: it goes on
        assert len(calls) == (3 if of_gpu else ITERATIONS)
    assert [n for n, _ in reports[1]] == [n for n, _ in reports[0]] == list(range(1, ITERATIONS + 1))
    assert [loss for _, loss in reports[1]] == pytest.approx([loss for _, loss in reports[0]], rel=1e-3)


@pytest.mark.parametrize("step_of_trouble", [2, 7])
def test_trouble_is_reported_for_its_own_step(task: ProxyTask, monkeypatch: pytest.MonkeyPatch, step_of_trouble: int) -> None:
    as_on_gpu(monkeypatch)
    monkeypatch.setattr(loop, "READS", 3)
    _, method, batches = begin(task)
    module = task._build(task.load(text()))
    with pytest.raises(Stopped) as stopped:
        train_decoder(module, batches, method, task.spec, Timer(), lambda n, loss: n == step_of_trouble)
    assert stopped.value.step == step_of_trouble

    def broken() -> Iterator[CropBatch]:
        for number, batch in enumerate(begin(task)[2], 1):
            factor = torch.nan if number == step_of_trouble else 1.0
            yield CropBatch({name: factor * x for name, x in batch.features.items()}, batch.targets)

    with pytest.raises(Diverged, match=f"not finite at step {step_of_trouble} of {ITERATIONS} .classification nan"):
        train_decoder(task._build(task.load(text())), broken(), method, task.spec, Timer(), None)


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_validation_does_not_wait_between_batches(task: ProxyTask, predict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = task.load(text(predict=predict))
    module, method = task._build(decoder), task.method(decoder)
    crops = [task.crop_sampler.center_crop(picture) for picture in range(8)]
    batches = list(task.loader(module, method).batches([crops[:3], crops[3:6], crops[6:]]))
    expected = validate(module, batches, method, task.spec).losses
    as_on_gpu(monkeypatch)
    reads: list[int] = []
    tolist = Tensor.tolist
    monkeypatch.setattr(Tensor, "tolist", lambda x: (reads.append(1), tolist(x))[1])
    with refusing_to_wait():
        found = validate(module, batches, method, task.spec).losses
    assert len(reads) == 1
    assert found == pytest.approx(expected, rel=1e-5)


def test_averaged_weights_are_those_of_the_full_training(task: ProxyTask) -> None:
    """Bit for bit those of torch's `AveragedModel`, by numbers; by tensors, as a graph has them, to rounding."""
    module = task._build(task.load(text()))
    known, ours, by_tensors = make_ema(module, 0.9), WeightAverage(module), WeightAverage(module)
    draw = torch.Generator().manual_seed(0)
    for number in range(6):
        with torch.no_grad():
            for x in (*module.parameters(), *module.buffers()):
                x += (
                    torch.randint(9, x.shape, generator=draw)
                    if not x.is_floating_point()
                    else torch.randn(x.shape, generator=draw)
                )
        share = 1.0 if not number else 1 - ema_decay(number, 0.9)
        known.update_parameters(module)
        ours.update(module, share)
        by_tensors.update(module, torch.tensor(share))
        expected = [*known.module.parameters(), *known.module.buffers()]
        for averages, exact in ((ours, True), (by_tensors, False)):
            for a, b in zip([*averages.module.parameters(), *averages.module.buffers()], expected, strict=True):
                assert torch.equal(a, b) if exact else torch.allclose(a, b, rtol=1e-4, atol=1e-5)
