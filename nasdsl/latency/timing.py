"""The protocol of a measurement: warm-up, rounds of runs, medians, and which rounds were disturbed.

It knows neither torch nor a runtime: it times any function, and its clock can be replaced.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

Run: TypeAlias = Callable[[], object]
"""Processes one batch, and returns when it is done (or, on a GPU, when the timer can tell)."""

Timer: TypeAlias = Callable[[Run], float]
"""Calls a function once and returns how many seconds that took."""

OnRound: TypeAlias = Callable[[int, int], object]
"""Called after each round with the number of rounds that are measured and of those that are needed."""

MAX_WARMUP_ROUNDS = 20
STABLE_ROUNDS = 3
"""Warm-up ends when the medians of this many rounds in a row are close to one another."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a latency is measured.

    Attributes:
        rounds: undisturbed rounds that are needed; at most twice as many are measured.
        round_seconds: minimum length of a round.
        runs: minimum number of runs in a round.
        warmup_seconds: minimum length of the warm-up.
        stable: the warm-up ends when the medians of three rounds in a row differ by at most this share; at the latest after
            20 rounds.
        disturbed: a round is disturbed, and replaced by another one, when its median is above the lower quartile of all
            rounds' medians by more than this share. Other programs make a run slower, never faster.
    """

    rounds: int = 15
    round_seconds: float = 0.2
    runs: int = 3
    warmup_seconds: float = 1.0
    stable: float = 0.03
    disturbed: float = 0.05


@dataclass(frozen=True, slots=True)
class Latency:
    """Latency for one image, in milliseconds; for a batch of N images the N-th part of the time of the batch.

    Attributes:
        median: median of the medians of the undisturbed rounds.
        lower_quartile, upper_quartile: of the single runs of these rounds.
        rounds: median of each round, in the order in which they were measured, with the disturbed ones.
        disturbed: number of disturbed rounds.
        runs: number of runs in the undisturbed rounds.
        warmup_runs: number of runs before the first round.
        warm: whether the times had settled by the end of the warm-up.
        steady: whether enough rounds were undisturbed, and the warm-up settled; if not, the machine was busy and another
            measurement may differ by much.
        batch: number of images in a run.
    """

    median: float
    lower_quartile: float
    upper_quartile: float
    rounds: tuple[float, ...]
    disturbed: int
    runs: int
    warmup_runs: int
    warm: bool
    steady: bool
    batch: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def wall_timer(run: Run) -> float:
    """Time a function that is done when it returns."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def measure_latency(
    run: Run,
    *,
    batch: int = 1,
    protocol: Protocol | None = None,
    timer: Timer = wall_timer,
    on_round: OnRound | None = None,
) -> Latency:
    """Measure the latency of one function; see `measure_latencies`.

    Args:
        run: computes the result once.
        batch: images that it computes at once, for milliseconds of one.
        protocol: how often and how long; None: the default.
        timer: times one run; on a GPU it has to wait for the device.
        on_round: called after each round.
    """
    return measure_latencies({"": run}, batch=batch, protocol=protocol, timer=timer, on_round=on_round)[""]


def measure_latencies(
    runs: Mapping[str, Run],
    *,
    batch: int = 1,
    protocol: Protocol | None = None,
    timer: Timer = wall_timer,
    on_round: OnRound | None = None,
) -> dict[str, Latency]:
    """Measure the latencies of several functions that are to be compared.

    Their rounds alternate, so that a machine that becomes slower or faster does so for all of them.

    Args:
        runs: functions by name; each processes a batch of `batch` images.
        protocol: the default is `Protocol`'s.
        timer: `wall_timer`, or one that knows when a GPU is done.
        on_round: for progress.
    """
    protocol = protocol or Protocol()
    with no_garbage_collection():
        measured = {name: _Measured(run, timer, protocol) for name, run in runs.items()}
        for _ in range(2 * protocol.rounds):
            unfinished = [one for one in measured.values() if len(one.undisturbed()) < protocol.rounds]
            if not unfinished:
                break
            for one in unfinished:
                one.measure_round()
            if on_round is not None:
                done = min(len(one.undisturbed()) for one in measured.values())
                on_round(min(done, protocol.rounds), protocol.rounds)
    return {name: one.latency(batch) for name, one in measured.items()}


class _Measured:
    """One function with its rounds, warmed up when it is created."""

    def __init__(self, run: Run, timer: Timer, protocol: Protocol) -> None:
        self._run = run
        self._timer = timer
        self._protocol = protocol
        self._rounds: list[list[float]] = []
        self._runs_in_round = protocol.runs
        self.warmup_runs = 0
        self.warm = self._warm_up()

    def measure_round(self) -> None:
        self._rounds.append(self._one_round())

    def undisturbed(self) -> list[list[float]]:
        """The rounds that were not disturbed; see `Protocol.disturbed`."""
        if not self._rounds:
            return []
        medians = [statistics.median(one) for one in self._rounds]
        limit = _quartiles(medians)[0] * (1 + self._protocol.disturbed)
        return [one for one, median in zip(self._rounds, medians, strict=True) if median <= limit]

    def latency(self, batch: int) -> Latency:
        kept = self.undisturbed()
        lower, upper = _quartiles([seconds for one in kept for seconds in one])
        unit = 1000 / batch
        return Latency(
            median=unit * statistics.median(statistics.median(one) for one in kept),
            lower_quartile=unit * lower,
            upper_quartile=unit * upper,
            rounds=tuple(unit * statistics.median(one) for one in self._rounds),
            disturbed=len(self._rounds) - len(kept),
            runs=sum(map(len, kept)),
            warmup_runs=self.warmup_runs,
            warm=self.warm,
            steady=self.warm and len(kept) >= self._protocol.rounds,
            batch=batch,
        )

    def _warm_up(self) -> bool:
        """Run until the times have settled; returns whether they have. Chooses the number of runs in a round."""
        spent = self._timer(self._run)  # the first run allocates memory and selects kernels: it says little
        self.warmup_runs = 1
        medians: list[float] = []
        for _ in range(MAX_WARMUP_ROUNDS):
            seconds = self._one_round()
            spent += sum(seconds)
            self.warmup_runs += len(seconds)
            medians.append(statistics.median(seconds))
            needed = self._protocol.round_seconds / max(medians[-1], 1e-9)
            self._runs_in_round = max(self._protocol.runs, min(math.ceil(needed), 100_000))
            last = medians[-STABLE_ROUNDS:]
            settled = len(last) == STABLE_ROUNDS and max(last) <= min(last) * (1 + self._protocol.stable)
            if settled and spent >= self._protocol.warmup_seconds:
                return True
        return False

    def _one_round(self) -> list[float]:
        return [self._timer(self._run) for _ in range(self._runs_in_round)]


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, upper


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """A collection in the middle of a run is not the detector's time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
