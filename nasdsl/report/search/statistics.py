"""Statistics of trials: averages, windows, frequencies, failure reasons, rank correlation."""

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

WINDOW: Final = 50
"""Number of trials in a window, as in Figure 5 of the paper."""
SHORT_WINDOW: Final = 10
"""Number of trials in a window of frequencies, if a search is too short for five windows of `WINDOW`."""


# -------------------------------------------------------------------------------------------------- averages


def average_window(count: int) -> int:
    """The window of a moving average over `count` trials: a tenth of them, at least 5 and at most `WINDOW`."""
    return max(5, min(WINDOW, count // 10))


def best_so_far(values: Sequence[float]) -> list[float]:
    """The running maximum."""
    found: list[float] = []
    for value in values:
        found.append(value if not found else max(found[-1], value))
    return found


def outlier_bound(values: Sequence[float]) -> float | None:
    """The bound below which values are outliers that would flatten a chart: three interquartile ranges below the first
    quartile (Tukey's outer fence). None if no value is below it."""
    if len(values) < 8:
        return None
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]
    bound = low - 3 * (high - low)
    return bound if ordered[0] < bound and high > low else None


# --------------------------------------------------------------------------------------------------- windows


class Window(NamedTuple):
    """A count in a window of consecutive trials.

    Attributes:
        first, last: numbers of its first and last trial.
        matching: number of trials, or sampled decisions, that match.
        total: number of trials, or sampled decisions, in the window.
    """

    first: int
    last: int
    matching: int
    total: int

    @property
    def share(self) -> float:
        return self.matching / self.total


def windows(trials: Sequence[Trial], size: int) -> list[Sequence[Trial]]:
    """Consecutive groups of `size` trials; the last one may be smaller."""
    return [trials[i : i + size] for i in range(0, len(trials), size)]


def fully_shared_heads(trials: Sequence[Trial], space: Space, size: int = WINDOW) -> list[Window]:
    """The number of heads in each window that share all their weights between the levels (``share=0``); see Figure 5.

    All proposals are counted, also those that were not evaluated. Empty if the space has no hole in the head's ``share``.
    """
    slot = share_slot(space)
    if slot is None:
        return []
    return [
        Window(part[0].number, part[-1].number, sum(slot_value(slot, trial.indices) == "0" for trial in part), len(part))
        for part in windows(trials, size)
    ]


def share_slot(space: Space) -> Slot | None:
    """The hole in the head's ``share``; None if there is none."""
    assert space.program.head is not None
    for setting in space.program.head.settings:
        value: Any = setting.value  # a program has slots where the tree has holes
        if setting.name == "share" and isinstance(value, Slot):
            return value
    return None


def slot_value(slot: Slot, indices: Sequence[int]) -> str:
    """The text of the alternative that was sampled for a hole."""
    alternative = slot.alternatives[indices[slot.number]]
    if isinstance(alternative, Slot):
        return slot_value(alternative, indices)
    return str(alternative.text) if isinstance(alternative, ast.Number) else str(getattr(alternative, "name", alternative))


def uniform_probability(slot: Slot, text: str) -> float:
    """The probability of `text` in a hole under uniform sampling."""
    found = 0.0
    for alternative in slot.alternatives:
        if isinstance(alternative, Slot):
            found += uniform_probability(alternative, text)
        else:
            known = alternative.text if isinstance(alternative, ast.Number) else getattr(alternative, "name", alternative)
            found += str(known) == text
    return found / len(slot.alternatives)


@dataclass(frozen=True)
class Choice:
    """All decisions of one choice, such as those of ``?op``.

    Attributes:
        name: of the choice; size, backbone or width where it decides these; ``a | b`` for another hole that lists its
            alternatives.
    """

    name: str
    alternatives: tuple[str, ...]
    domains: tuple[Domain, ...]


def choices(space: Space) -> list[Choice]:
    """Choices of operations and aggregations in the order of appearance; without inputs (``?pool``) and numbers."""
    found: dict[tuple[str, tuple[str, ...]], list[Domain]] = {}
    for domain in space.domains:
        if domain.kind == "choice" and domain.size > 1:
            name = domain.role or domain.name or " | ".join(domain.alternatives)
            found.setdefault((name, domain.alternatives), []).append(domain)
    return [Choice(name, alternatives, tuple(domains)) for (name, alternatives), domains in found.items()]


def frequencies(trials: Sequence[Trial], space: Space, choice: Choice, size: int) -> dict[str, list[Window]]:
    """How often each alternative of a choice was sampled in each window, over the active holes of each trial."""
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


class Importance(NamedTuple):
    """How much of the differences between rewards goes with a decision.

    Attributes:
        name: of its choice, see `Choice`.
        decisions: how many decisions the choice has; `share` is their mean.
        share: eta squared, the variance between the means of the alternatives over the variance of all rewards: 0 to 1.
    """

    name: str
    decisions: int
    share: float


def importances(trials: Sequence[Trial], space: Space) -> list[Importance]:
    """The importance of each choice for the reward, the largest first; of choices that were sampled in two ways at least."""
    known = [(trial, trial.reward, space.active(trial.indices)) for trial in trials if trial.reward is not None]
    found = []
    for choice in choices(space):
        shares = []
        for domain in choice.domains:
            groups: dict[int, list[float]] = {}
            for trial, reward, active in known:
                if active[domain.index]:
                    groups.setdefault(trial.indices[domain.index], []).append(reward)
            share = _eta_squared(list(groups.values()))
            if share is not None:
                shares.append(share)
        if shares:
            found.append(Importance(choice.name, len(shares), sum(shares) / len(shares)))
    return sorted(found, key=lambda importance: -importance.share)


def _eta_squared(groups: Sequence[Sequence[float]]) -> float | None:
    """Share of the variance that lies between groups; None with fewer than two groups, or without any variance."""
    values = [value for group in groups for value in group]
    mean = sum(values) / max(1, len(values))
    total = sum((value - mean) ** 2 for value in values)
    if len(groups) < 2 or not total:
        return None
    return sum(len(group) * (sum(group) / len(group) - mean) ** 2 for group in groups) / total


def window_size(count: int) -> int:
    """Number of trials in a window of frequencies, for a search of `count` trials."""
    return WINDOW if count >= 5 * WINDOW else SHORT_WINDOW


# ---------------------------------------------------------------------------------------------------- failures


class Reason(NamedTuple):
    """Trials that have no reward for the same reason.

    Attributes:
        kind: failed, diverged, stopped, rejected.
        words: the reason; of several that differ in numbers only, the first one.
        trials: their numbers.
    """

    kind: str
    words: str
    trials: tuple[int, ...]


def failure_reasons(trials: Iterable[Trial]) -> list[Reason]:
    """Trials without a reward by reason, the most frequent first. Duplicates are not included."""
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


def trials_without_reward(trials: Iterable[Trial]) -> list[Trial]:
    """Trials that were evaluated without getting a reward."""
    return [trial for trial in trials if trial.reward is None and verdict_of(trial) not in (DUPLICATE, REJECTED)]


# ------------------------------------------------------------------------------------------------- diagnostics


def diagnostics(trials: Iterable[Trial], most: int = 500) -> dict[str, list[tuple[int, float]]]:
    """(trial, value) of each diagnostic of the strategy, where the value changed; at most `most` of them, evenly spread."""
    found: dict[str, list[tuple[int, float]]] = {}
    for trial in trials:
        for name, value in trial.diagnostics.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            rows = found.setdefault(name, [])
            if not rows or rows[-1][1] != value:
                rows.append((trial.number, value))
    return {name: thin(rows, most) for name, rows in found.items()}


def thin(rows: Sequence[T], most: int) -> list[T]:
    """At most `most` of the rows, evenly spread, including the first and the last."""
    if len(rows) <= most:
        return list(rows)
    return [rows[round(i * (len(rows) - 1) / (most - 1))] for i in range(most)]


# -------------------------------------------------------------------------------------------- rank correlation


def kendall_tau(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Kendall's tau-b of two rankings, corrected for ties; None if one of them has no order (all equal, or fewer than two).

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
