"""Timing of parts and whole detectors beside a reference: several copies of a piece against one."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import NamedTuple

import torch

from nasdsl.latency.pieces import Part
from nasdsl.latency.probes import make_probe, piece_probe, reference_piece
from nasdsl.latency.table import Context
from nasdsl.latency.timing import OnRound, Run, Timer, no_garbage_collection, wall_timer

REFERENCE_COPIES = 4

DISTURBED = 1.1
"""The machine is disturbed while the reference takes more than this many times as long as at its pace."""

PAUSE = 0.005
"""Seconds between two looks at whether the machine is still disturbed."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long something is timed.

    Attributes:
        rounds: number of rounds; in each, the reference is timed before and behind the part.
        fewer_rounds: of what takes longer than `slow` seconds.
        whole_rounds: of backbones and postprocessings: one entry of the table is much of each detector's time.
        slice_seconds: how long each runs in a round, at least; in any case once.
        warmup_seconds: how long each runs before, at least; in any case twice.
        alone: a piece that takes more seconds is timed alone: it hides what a session takes.
        span: copies of a shorter one are as many as take this many seconds, at least three and at most `copies`.
        patience: how often a part waits for a machine that is disturbed, or measures a round again, before it takes what it
            gets.
    """

    rounds: int = 7
    fewer_rounds: int = 5
    whole_rounds: int = 25
    slow: float = 0.03
    slice_seconds: float = 0.002
    warmup_seconds: float = 0.01
    alone: float = 0.008
    span: float = 0.002
    copies: int = 8
    patience: int = 20


class PartTime(NamedTuple):
    """Time of a part in reference times, and the milliseconds of the reference in each round."""

    relative: float
    references: tuple[float, ...]


class WholeTime(NamedTuple):
    """Time of a whole detector.

    Attributes:
        relative: in reference times.
        milliseconds: median of the rounds.
        reference: milliseconds of the reference meanwhile.
        disturbed: number of rounds among them in which the machine was disturbed.
        rounds: number of rounds.
    """

    relative: float
    milliseconds: float
    reference: float
    disturbed: int
    rounds: int


class Measurer:
    """Times parts and whole detectors in a context, beside the reference.

    With one thread, processor time is measured, of the calling thread, in which onnxruntime and torch work, or of the process
    for OpenVINO: what other programs take meanwhile is not in it. With several threads it is the time of the clock.

    Other programs also make this one slower while it runs (they share caches and memory with it, and a virtual machine its
    cores with others), and not every kind of layer by the same factor. So rounds count only while the reference is as fast as
    it is at its pace, and what is left is divided out.

    Args:
        pace: milliseconds of the reference on the undisturbed machine, if they are known; else the lower quartile of its times.
    """

    def __init__(self, context: Context, effort: Effort | None = None, pace: float | None = None) -> None:
        self.context = context
        self.effort = effort or Effort()
        self.timer = make_timer(context)
        self._pace = pace
        self._references: list[float] = []
        with _torch_threads(context.threads):
            self._reference = self._timed(piece_probe(reference_piece(), REFERENCE_COPIES).runner(*self._runtime))

    @property
    def _runtime(self) -> tuple[str, int]:
        return self.context.runtime, self.context.threads

    def measure(self, part: Part) -> PartTime:
        """Time a part.

        Raises:
            LatencyError, ExportError: the runtime cannot run it.
            MissingExtra, MissingRuntime: a package is missing.
        """
        with _torch_threads(self.context.threads), no_garbage_collection():
            runs = [self._timed(make_probe(part).runner(*self._runtime))]
            spans = 1
            if part.piece is not None and runs[0].seconds < self.effort.alone:
                needed = math.ceil(self.effort.span / max(runs[0].seconds, 1e-7))
                spans = min(max(3, needed), self.effort.copies)
                runs.append(self._timed(make_probe(part, 1 + spans).runner(*self._runtime)))
            rounds = self._rounds(runs, self._count(runs) if part.piece is not None else self.effort.whole_rounds)
        times = [one.seconds[0] if len(runs) == 1 else (one.seconds[1] - one.seconds[0]) / spans for one in rounds]
        relative = statistics.median(seconds / one.reference for seconds, one in zip(times, rounds, strict=True))
        return PartTime(max(relative, 0.0), tuple(1000 * one.reference for one in rounds))

    def measure_whole(self, run: Run, on_round: OnRound | None = None) -> WholeTime:
        """Time a function that runs a whole detector once."""
        with _torch_threads(self.context.threads), no_garbage_collection():
            timed = [self._timed(run)]
            rounds = self._rounds(timed, self._count(timed), on_round)
        return WholeTime(
            statistics.median(one.seconds[0] / one.reference for one in rounds),
            1000 * statistics.median(one.seconds[0] for one in rounds),
            1000 * statistics.median(one.reference for one in rounds),
            sum(one.disturbed for one in rounds),
            len(rounds),
        )

    def _count(self, runs: Sequence[_Timed]) -> int:
        """Number of rounds."""
        return self.effort.fewer_rounds if runs[-1].seconds > self.effort.slow else self.effort.rounds

    def _rounds(self, runs: Sequence[_Timed], count: int, on_round: OnRound | None = None) -> list[_Round]:
        """Rounds in which the machine was undisturbed; of others only as many as are missing when patience has ended."""
        good: list[_Round] = []
        bad: list[_Round] = []
        before = self._time_reference()
        waited = 0
        while len(good) + (len(bad) if waited >= self.effort.patience else 0) < count:
            if waited < self.effort.patience and before > self._limit():
                waited += 1
                time.sleep(PAUSE)
                before = self._time_reference()
                continue
            seconds = tuple(one.measure() for one in runs)
            after = self._time_reference()
            disturbed = max(before, after) > self._limit()
            (bad if disturbed else good).append(_Round(seconds, (before + after) / 2, disturbed))
            waited += disturbed
            before = after
            if on_round is not None:
                on_round(len(good), count)
        return [*good, *sorted(bad, key=lambda one: one.reference)][:count]

    def _time_reference(self) -> float:
        self._references.append(self._reference.measure())
        return self._references[-1]

    def _limit(self) -> float:
        """Seconds of the reference above which the machine is disturbed."""
        pace = math.inf if self._pace is None else self._pace / 1000
        if len(self._references) > 1:
            pace = min(pace, statistics.quantiles(self._references, n=4, method="inclusive")[0])
        return DISTURBED * pace

    def _timed(self, run: Run) -> _Timed:
        return _Timed(run, self.timer, self.effort)


class _Round(NamedTuple):
    """Seconds of each function, of the reference around them, and whether the machine was disturbed."""

    seconds: tuple[float, ...]
    reference: float
    disturbed: bool


class _Timed:
    """A function that is warm, with the number of runs in a round."""

    def __init__(self, run: Run, timer: Timer, effort: Effort) -> None:
        self._run, self._timer = run, timer
        self.seconds = math.inf
        spent, runs = 0.0, 0
        while spent < effort.warmup_seconds or runs < 2:
            seconds = timer(run)
            self.seconds = min(self.seconds, seconds)
            spent += seconds
            runs += 1
        self._runs = max(1, round(effort.slice_seconds / max(self.seconds, 1e-7)))

    def measure(self) -> float:
        """Median seconds of a run in a round."""
        return statistics.median(self._timer(self._run) for _ in range(self._runs))


def measure_parts(context: Context, parts: Sequence[Part], pace: float | None = None) -> Iterator[tuple[Part, PartTime]]:
    """Time parts, one after the other; see `Measurer`."""
    measurer = Measurer(context, pace=pace)
    for part in parts:
        yield part, measurer.measure(part)


def make_timer(context: Context) -> Timer:
    """The clock for a context; see `Measurer`."""
    if context.threads > 1:
        return wall_timer
    return process_timer if context.runtime == "openvino" else thread_timer


def thread_timer(run: Run) -> float:
    """Processor time of this thread."""
    start = time.thread_time()
    run()
    return time.thread_time() - start


def process_timer(run: Run) -> float:
    """Processor time of this process."""
    start = time.process_time()
    run()
    return time.process_time() - start


@contextmanager
def _torch_threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    with suppress(RuntimeError):  # it can be set only before the first parallel work of the process
        torch.set_num_interop_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
