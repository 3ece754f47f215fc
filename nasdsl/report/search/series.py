"""Trials to rows: averages, windows, frequencies, rank correlation. Plain numbers in, plain numbers out."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

from nasdsl.report.search.data import verdict_of
from nasdsl.search.trial import DUPLICATE, OK, REJECTED, Trial
from nasdsl.semantics.program import Slot
from nasdsl.spaces import Domain, Space
from nasdsl.syntax import ast

T = TypeVar("T")

PERIOD: Final = 50
"""Trials in a window, as in Figure 5 of the paper."""
SHORT_PERIOD: Final = 10
"""Trials in a window of the frequencies where a search is too short for five windows of `PERIOD`."""


# -------------------------------------------------------------------------------------------------- averages


def moving_average(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and those before it, `window` in all; at the beginning of as many as there are."""
    return [math.fsum(part) / len(part) for i in range(len(values)) for part in [values[max(0, i + 1 - window) : i + 1]]]


def average_window(count: int) -> int:
    """How many trials a moving average takes in: a tenth of them, 5 at least and `PERIOD` at most."""
    return max(5, min(PERIOD, count // 10))


def best_so_far(values: Sequence[float]) -> list[float]:
    """The highest value until each."""
    found: list[float] = []
    for value in values:
        found.append(value if not found else max(found[-1], value))
    return found


def far_below(values: Sequence[float]) -> float | None:
    """A bound below which values are so far out that they would flatten a chart: three interquartile ranges below the
    first quartile (Tukey's outer fence). None where no value lies below it."""
    if len(values) < 8:
        return None
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    fence = low - 3 * (high - low)
    return fence if ordered[0] < fence and high > low else None


# --------------------------------------------------------------------------------------------------- windows


class Window(NamedTuple):
    """A share of the trials of one window.

    Attributes:
        first, last: numbers of its first and last trial.
        having: how many have the thing.
        of: trials, or drawn decisions, in the window.
    """

    first: int
    last: int
    having: int
    of: int

    @property
    def share(self) -> float:
        return self.having / self.of


def windows(trials: Sequence[Trial], size: int) -> list[Sequence[Trial]]:
    """The trials in groups of `size` in their order; the last may have fewer."""
    return [trials[i : i + size] for i in range(0, len(trials), size)]


def fully_shared(trials: Sequence[Trial], space: Space, size: int = PERIOD) -> list[Window]:
    """How many heads of each window share all their weights between the levels (``share=0``); see Figure 5.

    Every proposal counts, also those that were no evaluation. Empty where the space has no hole in the head's ``share``.
    """
    slot = share_slot(space)
    if slot is None:
        return []
    return [
        Window(part[0].number, part[-1].number, sum(drawn(slot, trial.indices) == "0" for trial in part), len(part))
        for part in windows(trials, size)
    ]


def share_slot(space: Space) -> Slot | None:
    """The hole in the ``share`` of the head, or None."""
    assert space.program.head is not None
    for setting in space.program.head.settings:
        value: Any = setting.value  # a program has slots where the tree has holes
        if setting.name == "share" and isinstance(value, Slot):
            return value
    return None


def drawn(slot: Slot, indices: Sequence[int]) -> str:
    """What stands in a hole: the alternative's text."""
    alternative = slot.alternatives[indices[slot.number]]
    if isinstance(alternative, Slot):
        return drawn(alternative, indices)
    return str(alternative.text) if isinstance(alternative, ast.Number) else str(getattr(alternative, "name", alternative))


def chance(slot: Slot, text: str) -> float:
    """How often uniform drawing puts `text` into a hole."""
    found = 0.0
    for alternative in slot.alternatives:
        if isinstance(alternative, Slot):
            found += chance(alternative, text)
        else:
            known = alternative.text if isinstance(alternative, ast.Number) else getattr(alternative, "name", alternative)
            found += str(known) == text
    return found / len(slot.alternatives)


@dataclass(frozen=True)
class Choice:
    """Decisions that are drawn from one choice, such as all of ``?op``.

    Attributes:
        name: of the choice; of a hole with its alternatives in place ``a | b``.
    """

    name: str
    alternatives: tuple[str, ...]
    domains: tuple[Domain, ...]


def choices(space: Space) -> list[Choice]:
    """The choices of a space by first appearance: operations, aggregations. Neither inputs (``?pool``) nor numbers."""
    found: dict[tuple[str, tuple[str, ...]], list[Domain]] = {}
    for domain in space.domains:
        if domain.kind == "choice" and domain.size > 1:
            found.setdefault((domain.name or " | ".join(domain.alternatives), domain.alternatives), []).append(domain)
    return [Choice(name, alternatives, tuple(domains)) for (name, alternatives), domains in found.items()]


def frequencies(trials: Sequence[Trial], space: Space, choice: Choice, size: int) -> dict[str, list[Window]]:
    """How often each alternative of a choice was drawn, window by window, among the holes that count in each trial."""
    found: dict[str, list[Window]] = {alternative: [] for alternative in choice.alternatives}
    for part in windows(trials, size):
        counted: Counter[str] = Counter()
        for trial in part:
            active = space.active(trial.indices)
            counted.update(d.alternatives[trial.indices[d.index]] for d in choice.domains if active[d.index])
        if counted.total():
            for name, rows in found.items():
                rows.append(Window(part[0].number, part[-1].number, counted[name], counted.total()))
    return found


def period(count: int) -> int:
    """Trials in a window of frequencies, for a search of so many."""
    return PERIOD if count >= 5 * PERIOD else SHORT_PERIOD


# ---------------------------------------------------------------------------------------------- what went wrong


class Reason(NamedTuple):
    """Trials that ended without a reward in the same way.

    Attributes:
        kind: failed, diverged, stopped, rejected.
        words: the reason; of several that differ in numbers alone, that of the first.
        trials: their numbers.
    """

    kind: str
    words: str
    trials: tuple[int, ...]


def reasons(trials: Iterable[Trial]) -> list[Reason]:
    """Trials without a reward of their own by reason, the most frequent first. Duplicates are not among them."""
    found: dict[tuple[str, str], tuple[str, list[int]]] = {}
    for trial in trials:
        kind = verdict_of(trial)
        if kind in (OK, DUPLICATE):
            continue
        words = trial.verdict.partition(":")[2].strip() or str(trial.details.get("error") or "")
        key = kind, re.sub(r"\d+", "0", words)
        found.setdefault(key, (words, []))[1].append(trial.number)
    listed = [Reason(kind, words, tuple(numbers)) for (kind, _), (words, numbers) in found.items()]
    return sorted(listed, key=lambda reason: (-len(reason.trials), reason.trials))


def unrewarded(trials: Iterable[Trial]) -> list[Trial]:
    """Trials that gave no reward although an evaluation was spent or refused."""
    return [trial for trial in trials if trial.reward is None and verdict_of(trial) not in (DUPLICATE, REJECTED)]


# ------------------------------------------------------------------------------------------------- diagnostics


def diagnostics(trials: Iterable[Trial], most: int = 500) -> dict[str, list[tuple[int, float]]]:
    """Each diagnostic of the strategy by trial, where it changed; thinned evenly to `most` values."""
    found: dict[str, list[tuple[int, float]]] = {}
    for trial in trials:
        for name, value in trial.diagnostics.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            rows = found.setdefault(name, [])
            if not rows or rows[-1][1] != value:
                rows.append((trial.number, value))
    return {name: thinned(rows, most) for name, rows in found.items()}


def thinned(rows: Sequence[T], most: int) -> list[T]:
    """At most `most` of the rows, evenly spread, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


# -------------------------------------------------------------------------------------------- rank correlation


def kendall_tau(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Kendall's tau-b of two rankings, ties corrected for; None where one of them does not rank (all equal, or under two).

    Kendall, Rank Correlation Methods (1948), chapter 3.
    """
    agree = free_x = free_y = 0
    for i, (x, y) in enumerate(pairs):
        for other_x, other_y in pairs[:i]:
            sign_x, sign_y = (x > other_x) - (x < other_x), (y > other_y) - (y < other_y)
            agree += sign_x * sign_y
            free_x += sign_x != 0
            free_y += sign_y != 0
    return agree / math.sqrt(free_x * free_y) if free_x and free_y else None
