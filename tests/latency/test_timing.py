"""The protocol of a measurement, with made-up times."""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from nasdsl.latency import Latency, Protocol, measure_latencies, measure_latency


@dataclass
class Machine:
    """Times runs without running for long: `seconds` says how long the next run takes."""

    seconds: Iterator[float]
    taken: list[float] = field(default_factory=list)

    def timer(self, run: Callable[[], object]) -> float:
        run()
        self.taken.append(next(self.seconds))
        return self.taken[-1]

    def measure(self, **options: int) -> Latency:
        return measure_latency(lambda: None, protocol=Protocol(**options), timer=self.timer)


def quiet(true: float, seed: int, jitter: float = 0.02) -> Iterator[float]:
    """Runs of a quiet machine: most are a little slower than the true time, a few by much (a timer, a page fault)."""
    rng = random.Random(seed)
    yield 20 * true
    for warming in range(10):
        yield true * (1 + 0.5 * 0.6**warming)
    while True:
        yield true * (1 + abs(rng.gauss(0, jitter))) * (1.5 if rng.random() < 0.02 else 1)


def busy(true: float, seed: int, share: float) -> Iterator[float]:
    """A machine where other programs take the processor from time to time, for one to four seconds."""
    rng = random.Random(seed)
    left, factor = 0.0, 1.0
    for seconds in quiet(true, seed):
        if left <= 0:
            disturbed = factor == 1.0
            factor = rng.uniform(1.2, 3) if disturbed else 1.0
            left = rng.uniform(1, 4) * (share if disturbed else 1 - share) * 2
        left -= seconds * factor
        yield seconds * factor


@pytest.mark.parametrize("true", [0.0004, 0.02, 1.3])
def test_two_measurements_of_a_quiet_machine_agree(true: float) -> None:
    found = [Machine(quiet(true, seed)).measure() for seed in range(20)]
    medians = [one.median for one in found]
    assert max(medians) / min(medians) < 1.05
    assert statistics.median(medians) == pytest.approx(1000 * true * 1.0135, rel=0.01), "the median of the jitter is 1.35 %"
    assert all(one.steady and one.warm for one in found)
    assert all(one.lower_quartile < one.median < one.upper_quartile for one in found)


def test_disturbances_change_little_and_are_counted() -> None:
    found = [Machine(busy(0.02, seed, share=0.3)).measure() for seed in range(40)]
    steady = [one for one in found if one.steady]
    assert len(steady) > 20
    assert max(one.median for one in steady) / min(one.median for one in steady) < 1.05
    assert sum(one.disturbed for one in found) > 40
    naive = [statistics.fmean(one.rounds) for one in steady]
    assert max(naive) / min(naive) > 1.15, "without the rule they would differ"


def test_a_machine_that_is_never_quiet_is_not_steady() -> None:
    rng = random.Random(0)
    found = Machine(iter(lambda: 0.02 * rng.uniform(1, 4), None)).measure()
    assert not found.steady
    assert len(found.rounds) == 30
    assert found.disturbed > 15


def test_rounds_are_as_long_as_the_protocol_says() -> None:
    for true, runs in ((0.01, 20), (0.19, 3), (5.0, 3)):
        machine = Machine(iter(lambda true=true: true, None))
        found = machine.measure(rounds=5)
        assert (len(found.rounds), found.runs) == (5, 5 * runs)
        assert len(machine.taken) == found.runs + found.warmup_runs
        assert true * found.warmup_runs >= 1.0
        assert found.median == pytest.approx(1000 * true)
        assert (found.lower_quartile, found.upper_quartile) == pytest.approx((1000 * true, 1000 * true))


def test_the_warm_up_lasts_until_times_are_stable() -> None:
    def cooling() -> Iterator[float]:
        number = 0
        while True:
            number += 1
            yield 0.1 * (1 + 4 * 0.9**number)

    found = Machine(cooling()).measure()
    assert found.warm
    assert found.median == pytest.approx(100, rel=0.02)
    falling = iter(lambda state=[1.0]: state.append(state[-1] * 0.99) or state.pop(0), None)  # type: ignore[misc]  # a lambda's default
    assert not Machine(falling).measure().warm


def test_batches_are_divided_among_their_images() -> None:
    found = measure_latency(lambda: None, batch=4, timer=lambda run: 0.1, protocol=Protocol(rounds=3))
    assert (found.median, found.lower_quartile, found.batch) == (pytest.approx(25), pytest.approx(25), 4)
    assert found.to_dict()["rounds"] == pytest.approx((25, 25, 25))


def test_the_latency_is_the_median_of_the_rounds() -> None:
    slower = iter([0.1] * 10 + [0.1] * 9 + [0.104] * 6)
    found = Machine(slower).measure(rounds=5)
    assert found.rounds == pytest.approx((100, 100, 100, 104, 104))
    assert found.median == pytest.approx(100)


def test_functions_that_are_compared_alternate() -> None:
    calls: list[str] = []
    seconds = {"a": 0.1, "b": 0.2}

    def timer(run: Callable[[], object]) -> float:
        run()
        return seconds[calls[-1]]

    runs = {name: (lambda name=name: calls.append(name)) for name in seconds}
    progress: list[tuple[int, int]] = []
    found = measure_latencies(
        runs, timer=timer, protocol=Protocol(rounds=4), on_round=lambda done, of: progress.append((done, of))
    )
    assert {name: one.median for name, one in found.items()} == pytest.approx({"a": 100, "b": 200})
    assert "".join(calls).endswith("aaabbb" * 4)
    assert progress == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_no_garbage_is_collected_in_a_run() -> None:
    states: list[bool] = []
    measure_latency(
        lambda: states.append(gc.isenabled()), timer=lambda run: (run(), 0.1)[1] or 0.1, protocol=Protocol(rounds=3)
    )
    assert states
    assert not any(states)
    assert gc.isenabled()


def test_who_collects_no_garbage_goes_on_without() -> None:
    gc.disable()
    try:
        measure_latency(lambda: None, timer=lambda run: 0.1, protocol=Protocol(rounds=3))
        assert not gc.isenabled()
    finally:
        gc.enable()
