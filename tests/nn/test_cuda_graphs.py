"""CUDA graphs: what is captured and when, and what callers see, with a backend that records on a CPU."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from recorded_graphs import RecordingBackend
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from nasdsl.nn import cuda_graphs
from nasdsl.nn.cuda_graphs import CALLS_BEFORE_CAPTURE, CudaBackend, GraphCache


class Net:
    """``w x + b`` and its square root; counts how often its Python runs."""

    def __init__(self) -> None:
        self.weight, self.bias = torch.full((3,), 2.0), torch.full((3,), 1.0)
        self.runs = 0

    def __call__(self, x: Tensor) -> tuple[Tensor, ...]:
        self.runs += 1
        y = x * self.weight
        y += self.bias
        return y, y.sqrt()

    def reads(self) -> list[Tensor]:
        return [self.weight, self.bias]


@pytest.fixture
def backend() -> RecordingBackend:
    return RecordingBackend()


@pytest.fixture
def net() -> Net:
    return Net()


def cache_of(backend: RecordingBackend, **options: Any) -> GraphCache:
    return GraphCache(backend=backend, **options)


def x(value: float, rows: int = 2) -> Tensor:
    return torch.full((rows, 3), value)


def call(cache: GraphCache, net: Net, value: float, rows: int = 2) -> Tensor:
    return cache.run(net, (x(value, rows),), net.reads)[0]


def settle(cache: GraphCache, net: Net, rows: int = 2) -> None:
    """Call until the kind is captured."""
    for _ in range(CALLS_BEFORE_CAPTURE + 1):
        call(cache, net, 1.0, rows)


def test_recurring_calls_are_replayed_with_the_values_of_each_call(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend)
    for number in range(8):
        first, second = cache.run(net, (x(float(number)),), net.reads)
        torch.testing.assert_close(first, torch.full((2, 3), 2.0 * number + 1))
        torch.testing.assert_close(second, first.sqrt())
        assert len(cache) == (number >= CALLS_BEFORE_CAPTURE)
    assert backend.log[:2] == ["warm up", "capture"]
    assert backend.log.count("capture") == 1
    assert backend.log.count("replay") == 8 - CALLS_BEFORE_CAPTURE
    assert net.runs == CALLS_BEFORE_CAPTURE + cuda_graphs.WARM_UP_RUNS + 1


def test_what_a_caller_holds_is_not_overwritten(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend)
    settle(cache, net)
    held = call(cache, net, 3.0)
    call(cache, net, 4.0)
    torch.testing.assert_close(held, torch.full((2, 3), 7.0))


def test_the_input_of_a_caller_is_not_written_to(backend: RecordingBackend) -> None:
    def in_place(t: Tensor) -> tuple[Tensor]:
        return (t.mul_(2),)

    cache = cache_of(backend)
    for _ in range(CALLS_BEFORE_CAPTURE):
        cache.run(in_place, (x(1.0),))
    given = x(1.0)
    for _ in range(2):
        assert float(cache.run(in_place, (given,))[0][0, 0]) == 2
    assert float(given[0, 0]) == 1


def test_one_graph_for_each_kind_of_input(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend)
    inputs = [x(1.0, 2), x(1.0, 3), x(1.0, 4).half(), torch.ones(3, 4).T.double()]
    for _ in range(CALLS_BEFORE_CAPTURE + 2):
        for each in inputs:
            found = cache.run(net, (each,), net.reads)[0]
            torch.testing.assert_close(found, net(each)[0])
            assert found.dtype == net(each)[0].dtype
    assert len(cache) == len(inputs) == backend.log.count("capture")


def test_autocast_is_another_kind(backend: RecordingBackend) -> None:
    linear = nn.Linear(3, 3)  # autocast keeps the casts of weights that need gradients

    @torch.no_grad()
    def run(t: Tensor) -> tuple[Tensor]:
        return (linear(t),)

    cache = cache_of(backend)
    for _ in range(CALLS_BEFORE_CAPTURE + 2):
        assert cache.run(run, (x(1.0),))[0].dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.is_autocast_cache_enabled()
            assert cache.run(run, (x(1.0),))[0].dtype == torch.bfloat16
            assert torch.is_autocast_cache_enabled()
    assert len(cache) == 2
    # The cast of the weight is a part of the graph, not one that was kept by autocast.
    linear.weight.data.zero_()
    linear.bias.data.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        assert not cache.run(run, (x(1.0),))[0].any()


def test_the_graph_that_was_not_used_for_longest_goes(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend, capacity=2)
    for rows in (1, 2):
        settle(cache, net, rows)
    graphs = [weakref.ref(graph) for graph in backend.graphs]
    backend.graphs.clear()
    call(cache, net, 1.0, 1)  # now 2 is the older one
    settle(cache, net, 3)
    assert len(cache) == 2
    assert [graph() is None for graph in graphs] == [False, True]
    captures = backend.log.count("capture")
    call(cache, net, 1.0, 1)
    assert backend.log.count("capture") == captures
    settle(cache, net, 2)  # it is counted from new
    assert backend.log.count("capture") == captures + 1


def test_memory_of_a_dropped_graph_waits_for_its_last_replay(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend, capacity=1)
    settle(cache, net, 1)
    backend.log.clear()
    settle(cache, net, 2)
    assert backend.log.index("synchronize") < backend.log.index("capture")
    backend.log.clear()
    cache.clear()
    assert backend.log == ["synchronize"]
    assert len(cache) == 0


def test_graphs_share_memory_until_none_is_left(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend)
    for rows in (1, 2):
        settle(cache, net, rows)
    cache.clear()
    settle(cache, net, 3)
    first, second, third = backend.pools
    assert first is second
    assert third is not first
    small = cache_of(backend, capacity=1)  # the only graph goes when the next one comes
    for rows in (4, 5):
        settle(small, net, rows)
    assert backend.pools[-1] is not backend.pools[-2]


def test_streams_wait_for_each_other(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend)
    settle(cache, net)
    backend.log.clear()
    call(cache, net, 2.0)
    call(cache, net, 2.0)
    # The wait is before the input is overwritten, the record behind the copies of the outputs.
    assert backend.log == ["wait", "keep", "replay", "record"] * 2


def test_weights_that_change_in_place_are_seen(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend)
    settle(cache, net)
    net.weight.fill_(5.0)
    assert float(call(cache, net, 1.0)[0, 0]) == 6.0
    assert backend.log.count("capture") == 1


def test_replaced_weights_drop_the_graphs(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend)
    settle(cache, net)
    net.weight = torch.full((3,), 5.0)
    for _ in range(CALLS_BEFORE_CAPTURE):
        assert float(call(cache, net, 1.0)[0, 0]) == 6.0
        assert len(cache) == 0
    assert float(call(cache, net, 1.0)[0, 0]) == 6.0
    assert backend.log.count("capture") == 2


def test_weights_live_as_long_as_a_graph_that_reads_them(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend)
    settle(cache, net)
    backend.graphs.pop().steps.clear()  # which hold it, as a GPU does not
    old = StorageWeakRef(net.weight.untyped_storage())
    net.weight = torch.full((3,), 5.0)
    assert not old.expired()
    call(cache, net, 1.0)
    assert old.expired()


@pytest.mark.parametrize("at_capture", [False, True])
@pytest.mark.parametrize("at_call", [False, True])
def test_inference_mode(backend: RecordingBackend, net: Net, at_capture: bool, at_call: bool) -> None:
    cache = cache_of(backend)
    with torch.inference_mode(at_capture):
        settle(cache, net)
    with torch.inference_mode(at_call):
        found = call(cache, net, 3.0)
    assert float(found[0, 0]) == 7.0
    assert found.is_inference() == at_call


def test_gradients_come_from_the_function_itself(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend)
    settle(cache, net)
    net.weight.requires_grad_()
    call(cache, net, 3.0).sum().backward()  # type: ignore[no-untyped-call]  # torch's own
    assert net.weight.grad is not None
    with torch.no_grad():
        assert not call(cache, net, 3.0).requires_grad
    given = x(3.0).requires_grad_()
    assert cache.run(net, (given,), net.reads)[0].requires_grad


def failing(t: Tensor) -> tuple[Tensor]:
    return (t[t > 0],)


def call_failing(cache: GraphCache, rows: Sequence[int], device: str = "cpu") -> None:
    """Calls of kinds that cannot be captured."""
    for each in rows:
        for _ in range(CALLS_BEFORE_CAPTURE + 2):
            assert cache.run(failing, (x(1.0, each).to(device),))[0].shape == (3 * each,)


def test_what_cannot_be_captured_runs_as_before_told_once(backend: RecordingBackend) -> None:
    cache = cache_of(backend, name="this detector")
    with pytest.warns(UserWarning, match="this detector runs without a CUDA graph.*not permitted") as told:
        call_failing(cache, (1, 2))
    assert len(told) == 1
    assert backend.log.count("capture") == 2  # not once more for each call


def test_a_cache_that_never_captures_stops_trying(backend: RecordingBackend) -> None:
    cache = cache_of(backend)
    with pytest.warns(UserWarning, match="without a CUDA graph"):
        call_failing(cache, range(1, 10))
    assert backend.log.count("capture") == cuda_graphs.MOST_FAILURES


def test_other_kinds_are_captured_after_one_that_cannot_be(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend)
    settle(cache, net)
    backend.fails = torch.OutOfMemoryError("no memory")
    with pytest.warns(UserWarning, match="no memory"):
        settle(cache, net, rows=7)
    backend.fails = None
    settle(cache, net, rows=8)
    assert float(call(cache, net, 3.0)[0, 0]) == 7.0
    assert len(cache) == 2


def test_the_reason_is_what_failed_first(backend: RecordingBackend, net: Net) -> None:
    error = RuntimeError("capture was invalidated")
    error.__context__ = RuntimeError("a copy from the CPU")
    backend.fails = error
    with pytest.warns(UserWarning, match="a copy from the CPU"):
        settle(cache_of(backend), net)


def test_an_error_of_the_function_is_raised(backend: RecordingBackend) -> None:
    broken = False

    def run(t: Tensor) -> tuple[Tensor]:
        if broken:
            raise ValueError("of the function")
        return (t + 1,)

    cache = cache_of(backend)
    for _ in range(CALLS_BEFORE_CAPTURE):
        cache.run(run, (x(1.0),))
    broken = True
    with pytest.raises(ValueError, match="of the function"):
        cache.run(run, (x(1.0),))
    broken = False
    cache.run(run, (x(1.0),))
    assert len(cache) == 1  # it is not held against the kind


def test_a_failure_can_be_handled(backend: RecordingBackend) -> None:
    errors: list[Exception] = []
    cache = cache_of(backend)
    for _ in range(CALLS_BEFORE_CAPTURE + 1):
        cache.run(failing, (x(1.0),), on_failure=errors.append)
    assert len(errors) == 1


def test_switched_off(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend, enabled=False)
    recurring: list[Sequence[Tensor]] = []
    for _ in range(6):
        cache.run(net, (x(1.0),), net.reads, before_capture=recurring.append)
    assert not backend.log
    assert len(recurring) == 1


def test_what_is_read_may_be_replaced_before_a_capture(backend: RecordingBackend, net: Net) -> None:
    def replace(inputs: Sequence[Tensor]) -> None:
        net.weight = torch.full((3,), 9.0)

    cache = cache_of(backend)
    for _ in range(CALLS_BEFORE_CAPTURE + 2):
        found = cache.run(net, (x(1.0),), net.reads, before_capture=replace)[0]
    assert float(found[0, 0]) == 10.0
    assert backend.log.count("capture") == 1


def test_times_are_those_of_replays(backend: RecordingBackend, net: Net) -> None:
    times = iter([3.0, 1.0, 2.0, 4.0, 5.0])
    backend.times = lambda: next(times)
    assert cache_of(backend).seconds(net, (x(1.0),)) == 1.0
    assert backend.log.count("replay") == cuda_graphs.TIMED_RUNS + 1
    backend.log.clear()
    times = iter([3.0, 1.0, 2.0, 4.0, 5.0])
    assert cache_of(backend, enabled=False).seconds(net, (x(1.0),)) == 1.0
    assert "replay" not in backend.log


def in_threads(work: Callable[[int], None], count: int) -> None:
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend, capacity=2)  # so that graphs also come and go

    def slow(t: Tensor) -> tuple[Tensor, ...]:
        outputs = net(t)
        time.sleep(1e-4)
        return outputs

    def work(number: int) -> None:
        for step in range(40):
            value = float(100 * number + step)
            found = cache.run(slow, (x(value, 1 + step % 3),), net.reads)[0]
            torch.testing.assert_close(found, torch.full((1 + step % 3, 3), 2 * value + 1))

    in_threads(work, 4)


def test_captures_of_two_caches_do_not_overlap(backend: RecordingBackend, net: Net) -> None:
    caches = [cache_of(backend) for _ in range(3)]  # the backend refuses two captures at a time

    def work(number: int) -> None:
        for rows in range(1, 8):
            settle(caches[number], net, rows)

    in_threads(work, 3)


def test_nothing_is_captured_while_a_compiler_traces(backend: RecordingBackend, net: Net) -> None:
    cache = cache_of(backend)
    compiled = torch.compile(lambda t: cache.run(net, (t,), net.reads)[0], backend="eager", fullgraph=True)
    for _ in range(CALLS_BEFORE_CAPTURE + 2):
        assert float(compiled(x(3.0))[0, 0]) == 7.0
    assert not backend.log


def test_a_cpu_has_no_graphs(net: Net) -> None:
    cache = GraphCache()
    assert isinstance(cache.backend, CudaBackend)
    settle(cache, net)
    assert len(cache) == 0


@pytest.mark.gpu
class TestOnGpu:
    """The real backend."""

    def test_replays_and_side_streams(self) -> None:
        net, cache = Net(), GraphCache()
        net.weight, net.bias = net.weight.cuda(), net.bias.cuda()
        streams = [torch.cuda.Stream() for _ in range(3)]
        torch.cuda.synchronize()
        found = []
        for number in range(60):
            with torch.cuda.stream(streams[number % 3]):
                found.append(cache.run(net, (torch.full((512, 3), float(number), device="cuda"),), net.reads)[0])
        torch.cuda.synchronize()
        assert len(cache) == 1
        for number, each in enumerate(found):
            torch.testing.assert_close(each, torch.full((512, 3), 2.0 * number + 1, device="cuda"))

    def test_a_synchronisation_cannot_be_captured(self) -> None:
        cache = GraphCache()
        stream = torch.cuda.current_stream()
        with pytest.warns(UserWarning, match="without a CUDA graph"):
            call_failing(cache, (2,), "cuda")
        assert torch.cuda.current_stream() == stream
        net = Net()
        net.weight, net.bias = net.weight.cuda(), net.bias.cuda()
        for _ in range(CALLS_BEFORE_CAPTURE + 2):
            assert float(cache.run(net, (x(3.0).cuda(),), net.reads)[0][0, 0]) == 7.0
        assert len(cache) == 1

    def test_threads(self) -> None:
        net, cache = Net(), GraphCache(capacity=2)
        net.weight, net.bias = net.weight.cuda(), net.bias.cuda()
        torch.cuda.synchronize()

        def work(number: int) -> None:
            with torch.cuda.stream(torch.cuda.Stream()):
                for step in range(100):
                    value = float(100 * number + step)
                    given = torch.full((64 * (1 + step % 3), 3), value, device="cuda")
                    found = cache.run(net, (given,), net.reads)[0]
                    assert bool((found == 2 * value + 1).all())

        in_threads(work, 4)
