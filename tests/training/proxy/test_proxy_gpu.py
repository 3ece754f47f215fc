"""The proxy task on a GPU: graphs, features in its memory, and that nothing waits for it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from proxy_tools import small_spec, text

from nasdsl.training.proxy import ProxyTask, step
from nasdsl.training.proxy.loop import validate
from nasdsl.training.proxy.sharing import SharedFeatures, attach
from nasdsl.training.proxy.step import StepRunner, TrainingStep
from nasdsl.training.proxy.timer import Timer

pytestmark = pytest.mark.gpu

ITERATIONS = 16
PREDICTIONS = ("fcos(centerness=cls)", "retinanet(anchors=3)", "atss(centerness=none)", "gfl(bins=4)")


@pytest.fixture(scope="module")
def task() -> ProxyTask:
    return ProxyTask(small_spec(iterations=ITERATIONS, device="cuda", precision="float32", dtype="float16"), quiet=True)


@contextmanager
def no_waiting() -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("predict", PREDICTIONS)
def test_nothing_waits_in_a_training_and_it_is_a_graph(
    task: ProxyTask, predict: str, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = task.load(text(predict=predict))
    module, method = task._build(decoder), task.method(decoder)
    loader = task.loader(module, method)
    assert loader.resident is not None
    loader = loader if resident else replace(loader, resident=None)
    crops = task.crop_sampler.sample(task.train, task.spec.batch_size, ITERATIONS, 0)
    training = TrainingStep(module, method, task.spec, task.device, Timer())
    run = StepRunner(training, method, task.spec, task.device)
    batches = loader.batches(crops)
    run(next(batches))  # libraries prepare themselves
    with no_waiting():
        for batch in batches:
            run(batch)
    assert run._graph is not None
    losses = [losses.total for losses in training.read()]
    assert len(losses) == ITERATIONS
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("predict", PREDICTIONS)
def test_a_graph_trains_as_single_steps_do(task: ProxyTask, predict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    by_graph = task(text("dconv_3x3 -> sep_3x3_d3", predict))
    monkeypatch.setattr(step, "LEAST_STEPS", ITERATIONS + 1)
    by_steps = task(text("dconv_3x3 -> sep_3x3_d3", predict))
    assert by_graph.reward == pytest.approx(by_steps.reward, rel=1e-2)
    assert by_graph.losses == pytest.approx(by_steps.losses, rel=2e-2)
    on_cpu = ProxyTask(replace(task.spec, device="cpu"), quiet=True)(text("dconv_3x3 -> sep_3x3_d3", predict))
    assert by_steps.reward == pytest.approx(on_cpu.reward, rel=5e-2)


def test_validation_waits_once(task: ProxyTask) -> None:
    decoder = task.load(text())
    module, method = task._build(decoder), task.method(decoder)
    crops = [task.crop_sampler.center_crop(picture) for picture in range(8)]
    loader = task.loader(module, method)
    validate(module, loader.batches([crops]), method, task.spec)

    def batches() -> Iterator[Any]:
        with no_waiting():
            yield from loader.batches([crops[:4], crops[4:]])

    assert validate(module, batches(), method, task.spec).losses["classification"] > 0


def test_half_precision_is_the_default_and_gives_a_similar_reward(task: ProxyTask) -> None:
    half = ProxyTask(replace(task.spec, precision="auto"), quiet=True)
    assert half.spec.precision == ("bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float32")
    assert half(text()).reward == pytest.approx(task(text()).reward, rel=0.1)


def test_features_made_in_batches_are_those_of_a_cpu(task: ProxyTask) -> None:
    on_cpu = ProxyTask(replace(task.spec, device="cpu"), quiet=True)
    for picture in range(8):
        for name in ("c3", "c5"):
            a, b = (t.features.full_map(picture, True, name).float() for t in (task, on_cpu))
            torch.testing.assert_close(a, b, rtol=2e-2, atol=2e-2)


def _sum(handles: Any, answer: Any) -> None:
    answer.put({name: float(attach(handle).double().sum()) for name, handle in handles.items()})


def test_another_process_reads_the_features_in_the_memory_of_the_gpu(task: ProxyTask) -> None:
    shared = task.share([os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]])
    assert isinstance(shared, SharedFeatures)
    ((_, handles),) = shared.handles.items()
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_sum, args=(handles, answer))
    process.start()
    found = answer.get(timeout=120)
    process.join()
    expected = {name: float(shared._owned[0].pixels[name].double().sum()) for name in handles}
    assert found == pytest.approx(expected)
    before, _ = torch.cuda.mem_get_info()
    shared.release()
    torch.cuda.empty_cache()
    torch.cuda.ipc_collect()
    assert torch.cuda.mem_get_info()[0] >= before
