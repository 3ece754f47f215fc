"""Early stopping: evaluations that are hopeless by their losses are given up before their end.

A rule compares the loss of a training that is under way, at a few steps, with those of samples before it at the same steps.
Its bars for a proposal follow from the results that the strategy had been told by then, and are written into the journal
with the proposal: they are the same whatever workers do, and the same after a resume.
"""

from __future__ import annotations

import math
import re
import statistics
from bisect import insort
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from nasdsl.search.errors import SearchError
from nasdsl.search.objective import Objective
from nasdsl.search.trial import OK, STOPPED, Bars, Trial

WARMUP: Final = 20
"""Samples that are evaluated to their end before a rule acts, if it does not say otherwise."""

_FORM: Final = re.compile(r"(?P<kind>median|quantile:(?P<level>[0-9.]+))(?::(?P<warmup>[0-9]+))?", re.ASCII)


@dataclass(frozen=True)
class Past:
    """The losses of a sample that was evaluated before.

    Attributes:
        curve: loss by step, weighed as `weight_of` says, by rising step. Of a sample that was stopped, up to that step.
        finished: it was evaluated to its end.
    """

    curve: Mapping[int, float]
    finished: bool

    @classmethod
    def of(cls, trial: Trial, objective: Objective) -> Past | None:
        """What rules see of a trial; None for one that spent no evaluation, failed, or reports no curve."""
        curve = curve_of(trial.details)
        if trial.verdict not in (OK, STOPPED) or not curve:
            return None
        weight = weight_of(objective, trial.figures)
        return cls({step: loss * weight for step, loss in curve.items()}, trial.verdict == OK)


class Population:
    """What a rule asks of all samples before.

    Attributes:
        count, finished: of samples, and of those that were evaluated to their end.
        lowest: of each step, ascending, the lowest loss by then of each sample that came so far.
        means: the same of the mean loss by then, of samples that were evaluated to their end.
    """

    def __init__(self, samples: Iterable[Past] = ()) -> None:
        self.count = self.finished = 0
        self.lowest: dict[int, list[float]] = {}
        self.means: dict[int, list[float]] = {}
        for sample in samples:
            self.add(sample)

    def add(self, sample: Past) -> None:
        self.count += 1
        self.finished += sample.finished
        lowest, total = math.inf, 0.0
        for number, (step, loss) in enumerate(sample.curve.items(), 1):
            lowest, total = min(lowest, loss), total + loss
            insort(self.lowest.setdefault(step, []), lowest)
            if sample.finished:
                insort(self.means.setdefault(step, []), total / number)


@dataclass(frozen=True)
class StoppingRule:
    """A rule that gives up an evaluation at a step where its lowest loss by then is above a bar.

    ``median`` is the median stopping rule of Vizier (Golovin et al., KDD 2017, section 3.2.2): the best value that a trial
    has had by a step must not be worse than the median, over all completed trials, of the mean of the values that each had
    reported up to that step. Values are the losses of the curve. Losses fall, so that a mean over the steps before is a bar
    far above the losses at a late step: it stops hardly anything that it has not stopped at the first. Samples that were
    stopped are not completed, and so not counted: the bar falls as the search goes on, and it stops more and more.

    ``quantile`` compares like with like: the bar at a step is the `level`-quantile of the lowest losses by that step of all
    samples before, where those that were stopped earlier count as worse than every other. So about 1 - `level` of samples
    like those before are stopped, however many steps are looked at, and however long the search is.

    Neither rule stops a sample that is the best so far at a step. Both see only training losses, not the last steps;
    `nasdsl.search.early_stopping_replay` measures on a search without a rule what a rule would have cost.

    Attributes:
        kind: ``median`` or ``quantile``.
        level: of the quantile, above 0 and below 1.
        warmup: so many samples must have been evaluated to their end before it acts; 1 or more.

    Raises:
        SearchError: it makes no sense.
    """

    kind: Literal["median", "quantile"] = "median"
    level: float = 0.5
    warmup: int = WARMUP

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:
            raise SearchError(f"the quantile of the stopping rule is {self.level:g}; expected a number above 0 and below 1")
        if self.warmup < 1:
            raise SearchError(f"the stopping rule's warm-up is {self.warmup} samples; expected 1 or more")

    @classmethod
    def parse(cls, text: str) -> StoppingRule | None:
        """A rule from ``median``, ``quantile:0.7`` (give up what is not among the best 70 %), each with a warm-up of its own
        as in ``median:30`` and ``quantile:0.7:30``; or None from ``none``.

        Raises:
            SearchError: it reads otherwise.
        """
        if text == "none":
            return None
        found = _FORM.fullmatch(text)
        try:
            if found is None:
                raise ValueError
            level = float(found["level"] or 0.5)
        except ValueError:
            raise SearchError(
                f"early stopping is {text!r}; expected none, median, median:WARMUP, quantile:Q or quantile:Q:WARMUP, "
                "such as quantile:0.7:20"
            ) from None
        return cls("median" if found["kind"] == "median" else "quantile", level, int(found["warmup"] or WARMUP))

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.kind}:{self.warmup}" if self.kind == "median" else f"{self.kind}:{self.level:.12g}:{self.warmup}"

    def bars(self, past: Population, weight: float = 1.0) -> Bars:
        """The bars of the next sample; none before the warm-up is over.

        Args:
            weight: of the sample, as `weight_of` has it.
        """
        if past.finished < self.warmup:
            return {}
        if self.kind == "median":
            return {step: statistics.median(means) / weight for step, means in sorted(past.means.items())}
        place = math.ceil(self.level * past.count - 1e-9)  # 0.55 * 20 is 11, not more
        # Where it lies among those that were stopped before, nobody is to be stopped.
        return {step: low[place - 1] / weight for step, low in sorted(past.lowest.items()) if place <= len(low)}


def gives_up(curve: Mapping[int, float], bars: Bars, step: int) -> bool:
    """Whether an evaluation with these losses up to `step` is to be given up there."""
    return step in bars and bool(curve) and min(curve.values()) > bars[step]


def weight_of(objective: Objective, figures: Mapping[str, Any]) -> float:
    """What the loss of a decoder with these figures is multiplied by, so that losses compare as scores do."""
    return -objective.score(-1.0, figures)


def curve_of(details: Mapping[str, Any]) -> dict[int, float]:
    """The ``curve`` of an evaluation's details, by rising step; empty where there is none."""
    curve = details.get("curve")
    if not isinstance(curve, Mapping):
        return {}
    known = {int(step): float(loss) for step, loss in curve.items() if isinstance(loss, int | float)}
    return dict(sorted(known.items()))
